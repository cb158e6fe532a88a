"""An episode as a picture: the right episode, moving, small, and nothing else disturbed."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import ppo_lab
from ppo_lab.errors import ConfigError
from ppo_lab.notebook import playback
from ppo_lab.notebook.playback import MOST_BYTES, MOST_FRAMES, Film, show_episode
from tests.notebook.fakes import trainer


def policy(env_id):
    return trainer(**{"env.id": env_id}).policy()


class Noise:
    """An environment whose pictures cannot be compressed, and of which no two are equal."""

    def __init__(self, size=(400, 600), fps=50):
        self.metadata = {"render_fps": fps}
        self.size, self.rng = size, np.random.default_rng(0)

    def render(self):
        return self.rng.integers(0, 256, (*self.size, 3), dtype=np.uint8)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "ppo_lab/CartPole-v1", "Pendulum-v1"])
def test_it_moves_and_is_small(env_id):
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
    episode = show_episode(policy("Pendulum-v1"), "Pendulum-v1", max_steps=5)
    assert episode.length == 5
    assert episode.caption.endswith("cut off after 5 steps")


@pytest.mark.parametrize("steps", [1, 2, 149, 150, 301, 5000])
def test_a_film_of_any_length_plays_in_real_time(steps):
    film = Film(Noise(size=(4, 6), fps=50))
    for step in range(steps):
        film.shoot(step)
    picture = Image.open(io.BytesIO(film.png()))
    durations = []
    for frame in range(getattr(picture, "n_frames", 1)):
        picture.seek(frame)
        durations.append(picture.info.get("duration", 0.0))
    assert len(durations) <= MOST_FRAMES
    assert len(durations) > min(steps, MOST_FRAMES) / 2 - 1
    if steps > 2:
        assert sum(durations[:-1]) / 1000 == pytest.approx(steps / 50, rel=0.05, abs=0.1)


def test_incompressible_pictures_are_made_to_fit():
    film = Film(Noise(size=(200, 300)))
    for step in range(30):
        film.shoot(step)
    sizes = [len(film._encode(colours)) for colours in (32, 16, 8)]
    assert all(a > b for a, b in pairwise(sizes))
    before = len(film._frames)
    film.png()
    assert len(film._frames) < before


def test_it_is_shown_as_a_picture_and_a_caption(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(playback, "display", lambda bundle, raw: shown.append(bundle))
    episode = show_episode(policy("CartPole-v1"), "CartPole-v1")
    episode._ipython_display_()
    assert set(shown[0]) == {"image/png", "text/plain"}
    assert capsys.readouterr().out.strip() == episode.caption == repr(episode)


def test_wrong_arguments_are_named():
    ours = policy("CartPole-v1")
    with pytest.raises(ConfigError, match="CartPool"):
        show_episode(ours, "CartPool-v1")
    with pytest.raises(ConfigError, match="max_steps"):
        show_episode(ours, "CartPole-v1", max_steps=0)
    with pytest.raises(ConfigError, match="int"):
        show_episode(ours, 3)
