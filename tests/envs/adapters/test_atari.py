"""Atari: learning sees lost lives, statistics see games, and a run goes on where it stopped."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from ppo_lab.config import Config, EnvConfig
from ppo_lab.envs.contract import Step
from ppo_lab.envs.making import make_envs, why_inexact
from ppo_lab.errors import ConfigError, EnvError

ale_py = pytest.importorskip("ale_py", reason="needs ale-py: pip install ppo_lab[atari]")
from ale_py.vector_env import AtariVectorEnv  # noqa: E402

from ppo_lab.envs.adapters import atari  # noqa: E402

BREAKOUT = {"id": "ALE/Breakout-v5", "vector": True}


def made(**settings):
    return make_envs(Config(env=EnvConfig(**{**BREAKOUT, "num_envs": 2, **settings})))


def play(envs, begin: int, count: int) -> list[tuple[Step, torch.Tensor]]:
    """Steps with actions that follow from their number, and whether a game ended."""
    rows = []
    for t in range(begin, begin + count):
        n = int(envs.action_space.n)
        action = torch.from_numpy(np.random.default_rng(t).integers(0, n, envs.num_envs))
        step = envs.step(action)
        rows.append((Step(*(part.clone() for part in step)), envs.episode_done.clone()))
    return rows


def equal(one, two) -> bool:
    return all(
        torch.equal(a, b)
        for x, y in zip(one, two, strict=True)
        for a, b in zip((*x[0], x[1]), (*y[0], y[1]), strict=True)
    )


def test_the_standard_preprocessing():
    envs = made()
    obs = envs.reset(1)
    assert (obs.dtype, obs.shape) == (torch.uint8, (2, 4, 84, 84))
    assert envs.observation_space.contains(obs[0].numpy())
    assert not envs.next_step_autoreset
    assert envs.episode_done is None
    envs.close()
    envs.close()
    with pytest.raises(EnvError, match=r"reset\(\)"):
        envs.step(torch.zeros(2))


@pytest.mark.parametrize("life_loss", [True, False])
def test_games_and_lives_against_ale_itself(life_loss):
    """Second route: ale_py in NEXT_STEP mode, where the observation of an ending is the step's own."""
    envs = made(life_loss=life_loss, num_envs=1)
    obs = envs.reset(5)
    spec = gymnasium.spec("ALE/Breakout-v5").kwargs
    alone = AtariVectorEnv(num_envs=1, autoreset_mode="NextStep", life_loss_info=False, reward_clipping=False, **spec)
    expected, info = alone.reset(seed=np.array([envs_seed(5)]))
    assert np.array_equal(obs, expected)
    lives, games, lost = int(info["lives"][0]), 0, 0
    for t in range(450):
        action = t * t % 4
        step = envs.step(torch.tensor([action]))
        seen, reward, over, cut, info = alone.step(np.array([action]))
        assert np.array_equal(step.final_obs, seen), t
        assert step.reward.item() == reward[0]
        assert envs.episode_done.item() == bool(over[0] or cut[0])
        lost_now = int(info["lives"][0]) < lives
        assert step.terminated.item() == (bool(over[0]) or (life_loss and lost_now))
        if over[0]:
            games += 1
            expected, *_, info = alone.step(np.array([0]))  # their row of the reset
            assert np.array_equal(step.obs, expected)
        else:
            assert torch.equal(step.obs, step.final_obs)  # also where a life was lost: the game goes on
        lost += lost_now
        lives = int(info["lives"][0])
    assert games >= 1
    assert lost >= 5
    envs.close()
    alone.close()


def envs_seed(run_seed: int) -> int:
    return atari.episode_seed(run_seed, 0, 0)


def test_a_lost_life_beside_a_game_that_ends(monkeypatch):
    """ale_py's `final_obs` is right where a game ended and an older picture where only a life was lost."""
    envs = made(life_loss=True)
    envs.reset(1)
    raw = envs._envs
    obs, old = np.full((2, 4, 84, 84), 7, np.uint8), np.full((2, 4, 84, 84), 9, np.uint8)
    infos = {"frame_number": np.array([900, 950]), "episode_frame_number": np.array([5, 950 - envs._begun[1]])}
    both, neither = np.array([True, True]), np.array([False, False])
    monkeypatch.setattr(raw, "step", lambda _: (obs, np.zeros(2, np.int32), both, neither, {**infos, "final_obs": old}))
    step = envs.step(torch.zeros(2))
    assert envs.episode_done.tolist() == [True, False]
    assert [int(one.unique()) for one in step.final_obs] == [9, 7]
    assert [int(one.unique()) for one in step.obs] == [7, 7]
    monkeypatch.setattr(raw, "step", lambda _: (obs, np.zeros(2, np.int32), neither, neither, {**infos, **ANEW}))
    with pytest.raises(EnvError, match="game 0 began anew without having ended"):
        envs.step(torch.zeros(2))
    envs.close()


ANEW = {"frame_number": np.array([990, 954])}


def test_three_lives_are_one_game():
    """A3: five lives of Breakout are five endings for learning and one finished game with one return."""
    envs = made(life_loss=True, num_envs=1)
    envs.reset(2)
    endings, begin = [], 0
    while sum(endings) < 2:
        endings += [bool(over) for step, over in play(envs, begin, 50) if step.terminated]
        begin += 50
    assert endings[:10] == [False, False, False, False, True] * 2
    envs.close()


def test_time_limit_is_a_truncation_and_ends_the_game():
    envs = made(id="ALE/Pong-v5", life_loss=True, kwargs={"max_num_frames_per_episode": 200})
    envs.reset(1)
    rows = play(envs, 0, 60)
    cut = [t for t, (step, _) in enumerate(rows) if step.truncated.any()]
    assert cut
    assert all(torch.equal(over, step.truncated) for step, over in rows)
    assert not any(step.terminated.any() for step, _ in rows)
    step = rows[cut[0]][0]
    assert not torch.equal(step.obs[step.truncated], step.final_obs[step.truncated])
    envs.close()


def test_one_seed_one_history_and_another_seed_another():
    def history(seed: int, **settings) -> list:
        envs = made(**settings)
        envs.reset(seed)
        rows = play(envs, 0, 120)
        envs.reset(seed + 1)  # leaves no trace in what comes after the next reset
        play(envs, 0, 5)
        envs.reset(seed)
        assert equal(play(envs, 0, 120), rows)
        envs.close()
        return rows

    rows = history(3, kwargs={"num_threads": 1})
    assert equal(rows, history(3, kwargs={"num_threads": 2}))
    assert not equal(rows, history(4))


@pytest.mark.parametrize("steps", [0, 40, 430])
def test_resume_is_bit_exact(steps, monkeypatch):
    """Through ends of games and, at 150 steps, of stretches; 430 steps are two to three of them."""
    monkeypatch.setattr(atari, "RESEED_AFTER", 150)
    envs = made(life_loss=True, num_envs=3)
    envs.reset(3)
    rows = play(envs, 0, steps)
    saved = envs.state_dict()
    if steps == 430:
        assert saved["episode"].max() >= 1
        assert sum(int(over.sum()) for _, over in rows) >= 3
        assert len({len(actions) for actions in saved["actions"]}) > 1
    expected = play(envs, steps, 200)
    other = made(life_loss=True, num_envs=3)
    other.load_state_dict(saved)
    assert equal(play(other, steps, 200), expected)
    saved["obs"][1, 0, 40, 40] += 1
    with pytest.raises(EnvError, match="environment 1 cannot be restored"):
        other.load_state_dict(saved)
    envs.close()
    other.close()


def test_a_run_of_it_can_be_resumed_exactly():
    assert why_inexact(Config(env=EnvConfig(**BREAKOUT))) is None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"kwargs": {"reward_clipping": True}},
            "reward_clipping is not for ALE/Breakout-v5 here: set ppo.reward_bound",
        ),
        ({"kwargs": {"episodic_life": True}}, "set env.life_loss"),
        ({"kwargs": {"autoreset_mode": "NextStep"}}, "games restart automatically"),
        ({"kwargs": {"noop": 3}}, "env.kwargs: ALE/Breakout-v5 takes no 'noop'; did you mean 'noop_max'"),
        ({"frame_stack": 4}, r"env.frame_stack: .* set env.kwargs to \{stack_num: n\}"),
        ({"id": "ALE/Breakuot-v5"}, "did you mean 'ALE/Breakout-v5'"),
    ],
)
def test_settings_that_have_another_place(settings, text):
    with pytest.raises(ConfigError, match=text) as caught:
        made(**settings)
    assert "\n" not in str(caught.value)


def test_no_ops_vary_the_start_of_a_game():
    """A1, A4, as ale_py 0.12 has them: 0 to 29 no-ops, at least one of them FIRE where the game has it."""
    starts = {}
    for game, rounds in (("Breakout", 30), ("Freeway", 10)):
        envs = made(id=f"ALE/{game}-v5", num_envs=8)
        envs.reset(1)
        frames = set()
        for _ in range(rounds):
            _, info = envs._envs.reset(options={"reset_mask": np.ones(8, np.bool_)})
            frames |= set(info["episode_frame_number"].tolist())
        starts[game] = frames
        envs.close()
    assert starts["Breakout"] == set(range(1, 30))
    assert {0} < starts["Freeway"] <= set(range(30))


def test_single_games_through_gymnasiums_wrapper():
    """The other route: AtariPreprocessing and our own stack of frames, without ale_py's vector environment."""
    pytest.importorskip("cv2", reason="AtariPreprocessing needs opencv: pip install ppo_lab[atari]")
    settings = EnvConfig(
        id="ALE/Breakout-v5", num_envs=2, kwargs={"frameskip": 1}, wrappers=("AtariPreprocessing",), frame_stack=4
    )
    envs = make_envs(Config(env=settings))
    obs = envs.reset(1)
    assert (obs.dtype, obs.shape) == (torch.uint8, (2, 4, 84, 84))
    assert torch.equal(obs[:, 0], obs[:, 3])  # a game's first picture, four times
    assert why_inexact(Config(env=settings)) is None
    ends = 0
    for t in range(330):
        before = obs.clone()
        step = envs.step(torch.tensor([t * t % 4, t % 4]))
        assert torch.equal(step.final_obs[:, :-1], before[:, 1:])
        fresh = step.obs[step.terminated]
        assert torch.equal(fresh[:, 0], fresh[:, 3])
        ends += int(step.terminated.sum())
        obs = step.obs
    assert ends >= 1
    envs.close()
