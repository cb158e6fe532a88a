"""show_episode: it plays the right episode, the animation is small, and training is not affected."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from itertools import pairwise

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import ppo_lab
from ppo_lab.config import EnvConfig
from ppo_lab.envs.adapters.loop import episode_seed
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.notebook.agent import playback
from ppo_lab.notebook.agent.film import LEAST_FRAMES, MOST_BYTES, MOST_FRAMES, Film, Mp4
from ppo_lab.notebook.agent.playback import show_episode
from ppo_lab.notebook.agent.player import Player, think
from ppo_lab.training.trainer import Trainer
from tests.notebook.fakes import trainer


def policy(env_id):
    return trainer(**{"env.id": env_id}).policy()


def noise(film, steps, size=(400, 600), mode="RGB"):
    """Fill a film with random pictures: they cannot be compressed, and no two are equal."""
    rng = np.random.default_rng(0)
    for step in range(steps):
        if film.wants(step):
            pixels = rng.integers(0, 256, (*size, len(mode)), dtype=np.uint8)
            film.add(step, Image.fromarray(pixels, mode).copy)
    return film


def frames_of(png):
    """Return every frame as an RGBA array, with its duration in milliseconds."""
    picture = Image.open(io.BytesIO(png))
    result = []
    for frame in range(getattr(picture, "n_frames", 1)):
        picture.seek(frame)
        result.append((np.asarray(picture.convert("RGBA")), picture.info.get("duration", 0.0)))
    return result


def gymnasium_draws(env_id="CartPole-v1"):
    """Skip a test that renders one of Gymnasium's environments if pygame is not installed."""
    if not env_id.startswith("ppo_lab/"):
        pytest.importorskip("pygame", reason="Gymnasium draws with pygame: pip install pygame-ce")


@pytest.mark.parametrize("env_id", ["CartPole-v1", "ppo_lab/CartPole-v1", "Pendulum-v1"])
def test_it_moves_and_is_small(env_id):
    gymnasium_draws(env_id)
    episode = show_episode(policy(env_id), env_id, deterministic=False, max_steps=40)
    picture = Image.open(io.BytesIO(episode.png))
    assert picture.format == "PNG"
    assert picture.is_animated
    assert 2 <= picture.n_frames <= MOST_FRAMES
    assert picture.width <= 450
    assert len(episode.png) < MOST_BYTES


def test_it_is_the_episode_that_evaluate_plays():
    ours = policy("CartPole-v1")
    result = ppo_lab.evaluate(ours, "CartPole-v1", episodes=1, seed=7)
    episode = show_episode(ours, "CartPole-v1", seed=7)
    assert episode.episode_return == result.returns[0]
    assert episode.length == result.lengths[0]
    assert episode.terminated == result.terminated[0]
    assert f"return {episode.episode_return:.0f} in {episode.length} steps, ended" in episode.caption


def test_equal_seeds_give_equal_episodes_and_leave_the_policy_alone():
    ours = policy("CartPole-v1")
    before = ours.generator.get_state()
    one, two, other = (show_episode(ours, "CartPole-v1", seed=seed, deterministic=False) for seed in (3, 3, 4))
    assert one == two
    assert one != other
    assert (ours.generator.get_state() == before).all()


def test_without_pictures_it_plots_the_state():
    episode = show_episode(policy("ppo_lab/TwoState-v0"), "ppo_lab/TwoState-v0")
    picture = Image.open(io.BytesIO(episode.png))
    assert not getattr(picture, "is_animated", False)
    assert picture.width == 800


def test_pictures_that_fail_are_replaced_and_explained(monkeypatch):
    def broken(self):
        raise RuntimeError("no display")

    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleEnv.render", broken)
    episode = show_episode(policy("CartPole-v1"), "CartPole-v1")
    assert "cannot be drawn: RuntimeError: no display" in episode.caption
    assert Image.open(io.BytesIO(episode.png)).width == 800


def test_an_endless_episode_is_cut_off():
    gymnasium_draws()
    episode = show_episode(policy("Pendulum-v1"), "Pendulum-v1", max_steps=5)
    assert episode.length == 5
    assert episode.caption.endswith("cut off after 5 steps")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("steps", [1, 2, 149, 150, 301, 5000])
def test_a_film_of_any_length_plays_in_real_time(steps, mode):
    frames = frames_of(noise(Film(fps=50), steps, (4, 6), mode).png())
    assert len(frames) <= MOST_FRAMES
    assert len(frames) > min(steps, MOST_FRAMES) / 2 - 1
    if steps > 2:
        seconds = sum(milliseconds for _, milliseconds in frames[:-1]) / 1000
        assert seconds == pytest.approx(steps / 50, rel=0.05, abs=0.1)


def test_frames_are_evenly_spaced():
    steps = [shot.step for shot in noise(Film(fps=50), 1500, (1, 1))._shots]
    assert len({after - before for before, after in pairwise(steps)}) == 1
    assert steps[-1] > 1490


@pytest.mark.parametrize("steps", [2, 40, 600])
def test_numbers_change_less_often_and_the_film_is_as_long(steps):
    plain, beside = (frames_of(noise(Film(50, width), steps, (4, 6), "RGBA").png()) for width in (0, 2))
    plain_seconds, seconds = (sum(milliseconds for _, milliseconds in film[:-1]) / 1000 for film in (plain, beside))
    assert seconds == pytest.approx(plain_seconds, abs=0.05)
    np.testing.assert_array_equal(beside[0][0], plain[0][0])
    np.testing.assert_array_equal(beside[-1][0], plain[-1][0])
    for (before, _), (after, _) in pairwise(beside):
        assert (before[:, -2:] == after[:, -2:]).all() or (before[:, :-2] == after[:, :-2]).all()
    changes = sum((before[:, -2:] != after[:, -2:]).any() for (before, _), (after, _) in pairwise(beside))
    assert changes <= 1 + 5 * plain_seconds
    assert changes >= min(1, 2 * plain_seconds)


def test_incompressible_pictures_are_made_to_fit(monkeypatch):
    film = noise(Film(fps=30), 12, (60, 90))
    sizes = [len(film._encode(film._shots, colours)) for colours in (32, 16, 8)]
    assert all(a > b for a, b in pairwise(sizes))
    monkeypatch.setattr("ppo_lab.notebook.agent.film.MOST_BYTES", 10_000)
    assert len(frames_of(film.png())) == LEAST_FRAMES
    longer = noise(Film(fps=30), 100, (30, 40)).png()
    assert len(longer) < 10_000
    assert len(frames_of(longer)) > LEAST_FRAMES


def test_colours_with_transparency_are_kept():
    colours = [(255, 255, 255, 255), (35, 131, 204, 255), (120, 126, 136, 0), (120, 126, 136, 70)]
    pixels = np.array(colours, np.uint8)[np.arange(64).reshape(8, 8) % 4]
    film = Film(fps=10)
    film.add(0, Image.fromarray(pixels).copy)
    film.add(1, Image.fromarray(pixels[:, ::-1]).copy)  # for some pixels only the alpha changes
    (first, _), (second, _) = frames_of(film.png())
    np.testing.assert_array_equal(first, pixels)
    np.testing.assert_array_equal(second, pixels[:, ::-1])


def test_a_rare_colour_that_is_like_no_other_is_kept():
    grey = np.repeat(np.arange(256, dtype=np.uint8), 64).reshape(128, 128)
    pixels = np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=-1)
    pixels[60:63, 60:63] = (213, 94, 0, 255)
    film = Film(fps=10)
    film.add(0, Image.fromarray(pixels).copy)
    ((shown, _),) = frames_of(film._encode(film._shots, colours=4))
    assert (shown[61, 61] == pixels[61, 61]).all()
    assert len(np.unique(shown.reshape(-1, 4), axis=0)) == 8


def test_it_is_shown_as_a_picture_and_a_caption(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(playback, "display", lambda bundle, raw: shown.append(bundle))
    episode = show_episode(policy("CartPole-v1"), "CartPole-v1")
    episode._ipython_display_()
    assert set(shown[0]) == {"image/png", "text/plain"}
    assert capsys.readouterr().out.strip() == episode.caption == repr(episode)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_thinking_aloud_changes_nothing(env_id, deterministic):
    ours = policy(env_id)
    aloud, silent = (
        show_episode(ours, env_id, 5, deterministic, max_steps=30, thoughts=thoughts) for thoughts in (True, False)
    )
    assert (aloud.episode_return, aloud.length, aloud.caption) == (
        silent.episode_return,
        silent.length,
        silent.caption,
    )
    assert aloud.png != silent.png


@pytest.mark.parametrize("env_id", ["CartPole-v1", "ppo_lab/TwoState-v0"])
def test_thoughts_stand_beside_the_scene_on_a_transparent_page(env_id):
    gymnasium_draws(env_id)
    episode = show_episode(policy(env_id), env_id, deterministic=False, max_steps=300, thoughts=True)
    frames = frames_of(episode.png)
    assert len(frames) > 1
    assert len(episode.png) < MOST_BYTES
    for pixels, _ in frames:
        assert pixels.shape[1] == 400 + 20 + 296 + 4
        assert (pixels[:, 401:419, 3] == 0).all()
    assert "cannot be drawn" not in episode.caption


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("env_id", ["ppo_lab/CartPole-v1", "Pendulum-v1"])
def test_a_thought_is_what_the_policy_does(env_id, deterministic):
    ours = policy(env_id)
    obs = torch.randn(1, *ours.model.features.obs_shape)
    starts = torch.ones(1, dtype=torch.bool)
    rngs = [torch.Generator().manual_seed(3) for _ in range(2)]
    action, _ = ours.act(obs, None, starts, deterministic=deterministic, generator=rngs[0])
    same, _, thought = think(ours.model, obs, None, starts, deterministic, rngs[1])
    assert torch.equal(action, same)
    (part,) = thought.parts
    np.testing.assert_array_equal(part.taken, action.numpy().reshape(-1))
    assert thought.value == float(ours.value(obs)[0])
    if part.probabilities is not None:
        assert part.probabilities.sum() == pytest.approx(1.0, abs=1e-6)
        if deterministic:
            assert part.probabilities[0].argmax() == part.taken[0]


def test_a_continuous_thought_is_in_the_units_of_the_environment():
    ours = policy("Pendulum-v1")
    obs, starts, rng = torch.randn(1, 3), torch.ones(1, dtype=torch.bool), torch.Generator().manual_seed(0)
    with torch.no_grad():
        ours.model.actor_head.log_std.fill_(-3.0)  # narrow: no action leaves the Box
    actions = [ours.act(obs, None, starts, deterministic=False, generator=rng)[0].item() for _ in range(4000)]
    _, _, thought = think(ours.model, obs, None, starts, True, rng)
    (part,) = thought.parts
    assert part.mean[0] == pytest.approx(np.mean(actions), abs=0.01)
    assert part.std[0] == pytest.approx(np.std(actions), rel=0.05)
    assert part.mean[0] == pytest.approx(part.taken[0], abs=1e-6)
    assert (part.low[0], part.high[0]) == (-2.0, 2.0)


def test_what_a_factory_makes_is_played_as_evaluate_does_it():
    gymnasium_draws()

    class Dear(gymnasium.Wrapper):
        """Every step costs 10."""

        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, -10.0, *rest

    def make(index):
        return Dear(gymnasium.make("CartPole-v1", render_mode="rgb_array"))

    ours = Trainer(trainer(1).config, envs=make)
    played = {"seed": 7, "env_factory": ours.env_factory}
    episode = show_episode(ours.policy(), ours.config, **played)
    result = ppo_lab.evaluate(ours.policy(), ours.config, episodes=1, **played)
    ours.close()
    assert episode.episode_return == result.returns[0] == -10.0 * episode.length
    assert episode.caption.startswith("CartPoleEnv, seed 7: ")
    assert Image.open(io.BytesIO(episode.png)).is_animated


def test_who_has_no_thoughts_is_told_so():
    class Stranger:
        def initial_memory(self, num_envs):
            return None

    with pytest.raises(ConfigError, match=r"thoughts: .* Stranger"):
        show_episode(Stranger(), "CartPole-v1", thoughts=True)


def test_closing_one_leaves_pygame_to_the_others():
    """Check that closing one Gymnasium environment, which shuts down all of pygame, does not break another."""
    pygame = pytest.importorskip("pygame")
    one, other = (Player(EnvConfig(id="CartPole-v1"), seed=1) for _ in range(2))
    one.frame()
    other.frame()
    one.close()
    assert pygame.display.get_init()
    assert pygame.font.get_init()
    assert other.frame() is not None
    other.close()
    other.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
def test_who_has_drawn_can_still_be_terminated():
    """Check that SIGTERM still works after drawing: SDL, which pygame uses, may install a handler that ignores it."""
    pytest.importorskip("pygame")
    code = """
import os, signal, time
from ppo_lab.config import EnvConfig
from ppo_lab.notebook.agent.player import Player
assert Player(EnvConfig(id="CartPole-v1"), seed=1).frame() is not None
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(5)
"""
    unset = {name: value for name, value in os.environ.items() if not name.startswith("SDL_")}
    assert subprocess.run([sys.executable, "-c", code], env=unset).returncode == -signal.SIGTERM


def test_two_threads_draw_at_the_same_time():
    pytest.importorskip("pygame")
    ours, problems = policy("CartPole-v1"), []
    expected = show_episode(ours, "CartPole-v1", max_steps=20)

    def play():
        try:
            for _ in range(5):
                assert show_episode(ours, "CartPole-v1", max_steps=20) == expected
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=play) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_an_environment_that_fails_to_begin_is_closed(monkeypatch):
    closed = []
    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleEnv.close", lambda self: closed.append(self))
    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleEnv.reset", lambda self, seed, options: 1 / 0)
    made = len(closed)
    with pytest.raises(EnvError, match="ZeroDivisionError"):
        Player(EnvConfig(id="CartPole-v1"), seed=1)
    # made twice, to check for masks and to play: each time one to see if it can be rendered, and one that is rendered
    assert len(closed) == made + 4


def test_an_episode_can_be_broken_off():
    player, ours = Player(EnvConfig(id="Pendulum-v1"), seed=1), policy("Pendulum-v1")
    for _ in range(3):
        player.choose(ours, True, aloud=True)
        player.act()
    first = player.course.observations[0]
    assert len(player.begin().rewards) == 3
    player.choose(ours, True)
    assert player.course.rewards == []
    assert (player.course.observations[0] != first).any()
    player.close()


def test_a_png_file_is_what_the_notebook_shows(tmp_path):
    path = tmp_path / "film.png"
    path.write_bytes(b"old")
    episode = show_episode(policy("CartPole-v1"), "CartPole-v1", max_steps=5, file=path)
    assert path.read_bytes() == episode.png
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("film.gif", ".mp4 or .png, got"),
        ("film", ".mp4 or .png, got"),
        ("nowhere/film.png", "there is no folder"),
        ("folder.png", "is a folder"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_anything_is_played(tmp_path, name, reason):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ConfigError, match=reason) as refusal:
        show_episode(None, "CartPole-v1", file=str(tmp_path / name))
    assert "\n" not in str(refusal.value)


def test_without_ffmpeg_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigError, match=r"pip install imageio-ffmpeg$"):
        show_episode(None, "CartPole-v1", file=tmp_path / "film.mp4")


@pytest.fixture
def ffmpeg():
    return pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed")


def read(ffmpeg, path):
    """Read every frame of a video (frames, H, W, 3), and its frames per second."""
    command = [ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)  # not ffmpeg.read_frames: it leaves its pipes open
    about = re.search(r"Video: h264.* (\d+)x(\d+).* ([\d.]+) fps", done.stderr.decode())
    width, height = int(about[1]), int(about[2])
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3), float(about[3])


def test_an_mp4_has_every_frame_in_full_size(ffmpeg, tmp_path, monkeypatch):
    monkeypatch.setattr("ppo_lab.notebook.agent.film.MOST_FRAMES", 3)  # of the film in the notebook
    path = tmp_path / "film.mp4"
    episode = show_episode(policy("CartPole-v1"), "CartPole-v1", deterministic=False, file=path)
    frames, fps = read(ffmpeg, path)
    assert frames.shape == (episode.length, 400, 600, 3)
    assert fps == 50
    assert (frames[0] != frames[-1]).any()
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=episode_seed(1, 0, 0))
    difference = np.abs(frames[0].astype(int) - env.render())
    env.close()
    assert difference.mean() < 2.0
    assert list(tmp_path.iterdir()) == [path]


def test_an_mp4_of_thoughts_is_on_white(ffmpeg, tmp_path):
    path = tmp_path / "film.mp4"
    episode = show_episode(policy("ppo_lab/TwoState-v0"), "ppo_lab/TwoState-v0", thoughts=True, file=path)
    frames, _ = read(ffmpeg, path)
    assert len(frames) == episode.length
    assert frames[:, -20:].min() > 245


def test_an_odd_size_is_cropped(ffmpeg, tmp_path):
    path = tmp_path / "film.mp4"
    with Mp4(path, fps=12.5) as video:
        for _ in range(3):
            video.add(Image.new("RGB", (33, 21), "red"))
    frames, fps = read(ffmpeg, path)
    assert frames.shape == (3, 20, 32, 3)
    assert fps == 12.5


def test_what_fails_on_the_way_leaves_the_old_file(ffmpeg, tmp_path, monkeypatch):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")
    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleEnv.step", lambda self, action: 1 / 0)
    with pytest.raises(EnvError, match="ZeroDivisionError"):
        show_episode(policy("CartPole-v1"), "CartPole-v1", file=path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_drawn_is_no_mp4(ffmpeg, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be drawn .*thoughts=True"):
        show_episode(policy("ppo_lab/TwoState-v0"), "ppo_lab/TwoState-v0", file=tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_named():
    ours = policy("CartPole-v1")
    with pytest.raises(ConfigError, match="CartPool"):
        show_episode(ours, "CartPool-v1")
    with pytest.raises(ConfigError, match="max_steps"):
        show_episode(ours, "CartPole-v1", max_steps=0)
    with pytest.raises(ConfigError, match="int"):
        show_episode(ours, 3)


# ---- every kind of environment and policy ------------------------------------------------------------------------


SPACES = {"env.id": "ppo_lab/Spaces-v0"}
GRU = {"model.core": "gru", "model.core_size": 8}
KINDS = {
    "dict": {**SPACES, "env.kwargs": {"observation": "dict", "masked": True}},
    "hybrid, masked": {**SPACES, "env.kwargs": {"action": "hybrid", "masked": True}, "model.std": "gsde"},
    "picture": {**SPACES, "env.kwargs": {"observation": "image_chw"}, "env.frame_stack": 2},
    "beta": {"env.id": "Pendulum-v1", "model.distribution": "beta"},
    "squashed gsde": {"env.id": "Pendulum-v1", "model.distribution": "squashed", "model.std": "gsde"},
    "gru": {"env.id": "CartPole-v1", **GRU},
    "lstm, shared, frames, time": {
        "env.id": "ppo_lab/CartPole-v1", "model.core": "lstm", "model.core_size": 8, "model.shared": True,
        "env.frame_stack": 3, "env.time_aware": True,
    },
    "window, frames, time": {
        "env.id": "CartPole-v1", "model.core": "window", "model.core_size": 8, "env.frame_stack": 3,
        "env.time_aware": True, "model.normalize_value": True,
    },
    "wrappers": {
        "env.id": "CartPole-v1", "env.kwargs": {"sutton_barto_reward": True},
        "env.wrappers": [{"TimeLimit": {"max_episode_steps": 9}}, "FlattenObservation"],
    },
    "workers": {"env.id": "CartPole-v1", "env.workers": 2},
    "vector": {"env.id": "CartPole-v1", "env.vector": True},
}  # fmt: skip


def made(name):
    """Train a policy for a few updates on an environment of this kind. Return it and the settings."""
    ours = trainer(3, **KINDS[name])
    next(iter(ours))
    ours.close()
    return ours.policy(), ours.config


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_played_as_evaluate_does_it(name, deterministic):
    ours, config = made(name)
    episodes = [show_episode(ours, config, 7, deterministic, max_steps=60, thoughts=on) for on in (True, False)]
    assert episodes[0].caption == episodes[1].caption
    assert episodes[0].png != episodes[1].png
    if deterministic and episodes[0].length < 60:
        result = ppo_lab.evaluate(ours, config, episodes=1, seed=7)
        assert (episodes[0].episode_return, episodes[0].length) == (result.returns[0], result.lengths[0])


@pytest.mark.parametrize("name", ["gru", "lstm, shared, frames, time", "window, frames, time"])
def test_values_are_what_the_critic_makes_of_the_whole_episode(name):
    """Compare the step-by-step values, with a separate memory, with one pass over all observations."""
    ours, config = made(name)
    player, seen = Player(config, seed=3), []
    for _ in range(12):
        player.choose(ours, deterministic=True, aloud=True)
        seen.append(player._obs.clone())
        values = list(player.course.values)
        if player.act() is not None:
            break
    player.close()
    obs, starts = torch.stack(seen), torch.zeros(len(seen), 1, dtype=torch.bool)  # (T, 1, *obs)
    starts[0] = True
    model = ours.model
    with torch.no_grad():
        memory = model.initial_memory(1)
        if config.model.shared:
            expected = model.evaluate(obs, torch.zeros(len(seen), 1, dtype=torch.long), memory, starts)[2]
        else:
            expected, _, _ = model.critique(obs, memory, starts, torch.zeros_like(starts))
    assert len(values) == len(seen) > 5
    np.testing.assert_allclose(values, expected[:, 0], rtol=1e-4, atol=1e-5)


def test_a_mask_in_info_is_obeyed():
    class Narrow(gymnasium.Env):
        """Ten steps in which only one of four actions is legal; any other ends it."""

        observation_space, action_space = gymnasium.spaces.Box(0, 1, (2,)), gymnasium.spaces.Discrete(4)

        def _answer(self):
            self.legal = int(self.np_random.integers(4))
            return np.zeros(2, np.float32), {"action_mask": np.arange(4) == self.legal}

        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            self.steps = 0
            return self._answer()

        def step(self, action):
            wrong, self.steps = action != self.legal, self.steps + 1
            obs, info = self._answer()
            return obs, 1.0, bool(wrong), self.steps == 10, info

    gymnasium.register("Narrow-v0", Narrow)
    try:
        ours = trainer(2, **{"env.id": "Narrow-v0", "env.mask_from_info": True})
        episode = show_episode(ours.policy(), ours.config, deterministic=False, thoughts=True)
    finally:
        del gymnasium.registry["Narrow-v0"]
    assert (episode.length, episode.terminated) == (10, False)


def test_without_pictures_it_shows_the_one_that_the_agent_sees():
    _, config = made("picture")
    player = Player(config, seed=1)
    frame = np.asarray(player.frame())
    assert player.no_picture is None
    newest = player._obs[0, -3:].permute(1, 2, 0).numpy()  # two frames of 3 channels
    assert frame.shape == newest.shape
    np.testing.assert_array_equal(frame[..., 0], newest[..., -1])  # 6 channels are no colours: the newest, in grey
    player.close()


def test_the_numbers_of_a_dict_have_names_and_no_mask():
    ours, config = made("dict")
    player = Player(config, seed=1)
    player.choose(ours, deterministic=True)
    seen = player.course.observations[0]
    assert len(seen) == len(player.names) <= 8
    assert not any("action_mask" in name for name in player.names)
    for name, value in zip(player.names, seen, strict=True):
        key, _, rest = name.partition("[")
        leaf = player._obs[key][0].reshape(-1)
        assert value == pytest.approx(float(leaf[int(rest.rstrip("]")) if rest else 0]), abs=1e-6)
    player.close()


def test_a_policy_for_other_observations_is_told_so():
    with pytest.raises(ConfigError, match="shape"):
        show_episode(policy("CartPole-v1"), "Pendulum-v1", thoughts=True)


def test_atari_shows_what_the_agent_sees():
    pytest.importorskip("ale_py")
    settings = {"env.id": "ALE/Pong-v5", "env.vector": True, "env.life_loss": True, "ppo.num_steps": 2,
                "ppo.total_timesteps": 8}  # fmt: skip
    ours = trainer(1, **settings, **{"env.num_envs": 1})
    player = Player(ours.config, seed=1)
    thought = player.choose(ours.policy(), deterministic=False, aloud=True)
    assert len(thought.parts[0].probabilities[0]) == 6
    np.testing.assert_array_equal(np.asarray(player.frame())[..., 0], player._obs[0, -1].numpy())
    player.act()
    player.close()
    ours.close()
