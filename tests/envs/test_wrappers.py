"""Stacked frames and the time that is left: never a frame of another episode, and the same as Gymnasium's wrappers."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation, TimeAwareObservation
from hypothesis import example, given
from hypothesis import strategies as st

from ppo_lab.config import Config, EnvConfig, ModelConfig
from ppo_lab.envs.adapters.loop import episode_seed
from ppo_lab.envs.adapters.single import SingleEnvs
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.envs.contract import Step
from ppo_lab.envs.making import make_envs
from ppo_lab.envs.wrappers import FrameStack, TimeAware
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.runs.checkpoint import load_checkpoint, save_checkpoint
from ppo_lab.trees import apply, leaves
from tests.scripted_envs import NestedEnv, ScriptedEnv

TRICKY = ("T", "C", "B", "..T", "T", "C", ".C", "....B")
episodes = st.tuples(st.integers(0, 4), st.sampled_from("TCB")).map(lambda part: "." * part[0] + part[1])
scripts = st.lists(st.lists(episodes, min_size=1, max_size=5).map(tuple), min_size=1, max_size=3)


def scripted(kind: str, script: list[tuple[str, ...]]):
    if kind == "single":
        return SingleEnvs([ScriptedEnv(i, one) for i, one in enumerate(script)])
    makers = [lambda i=i, one=one: ScriptedEnv(i, one) for i, one in enumerate(script)]
    return VectorEnvs(SyncVectorEnv(makers, autoreset_mode=AutoresetMode(kind)))


KINDS = ["single", *(mode.value for mode in AutoresetMode)]


@pytest.mark.parametrize("kind", KINDS)
@given(scripts, st.integers(2, 4))
@example([TRICKY, TRICKY[3:], ("T",)], 3)
def test_a_stack_holds_one_episode(kind, script, size):
    """Frames say (environment, episode, step, action): each is the step before the next, or its episode's first."""
    envs = FrameStack(scripted(kind, script), size)
    N = len(script)
    seen = envs.reset(1)
    ends = 0
    for _ in range(14):
        step = envs.step(torch.full((N, 1), 0.5))
        before, seen = seen, step.obs.clone()
        for shown in (before, seen, step.final_obs):
            frames = shown.view(N, size, 4)  # the oldest first
            assert (frames[:, :, 0] == torch.arange(N)[:, None]).all()
            assert (frames[:, :, 1] == frames[:, -1:, 1]).all(), "a frame of another episode"
            age = torch.arange(size - 1, -1, -1)
            assert torch.equal(frames[:, :, 2], (frames[:, -1:, 2] - age).clamp_min(0)), "a frame is missing"
        done = (step.terminated | step.truncated) & step.valid
        assert torch.equal(step.final_obs.view(N, size, 4)[done, :-1], before.view(N, size, 4)[done, 1:])
        ends += int(done.sum())
        if not envs.next_step_autoreset:
            fresh = step.obs.view(N, size, 4)[done]
            assert (fresh[:, :, 2] == 0).all()
        assert torch.equal(step.obs[~done], step.final_obs[~done])
    envs.close()
    assert ends or all(max(map(len, one)) > 4 for one in script)


@pytest.mark.parametrize("kind", KINDS)
@given(scripts)
@example([TRICKY, TRICKY[3:], ("T",)])
def test_the_time_left_counts_an_episodes_steps(kind, script):
    envs = TimeAware(scripted(kind, script), 8)
    obs = envs.reset(1)
    for _ in range(14):
        assert torch.equal(obs[:, -1], 1 - obs[:, 2] / 8)  # their own count of steps
        step = envs.step(torch.zeros(len(script), 1))
        assert torch.equal(step.final_obs[:, -1], 1 - step.final_obs[:, 2] / 8)
        obs = step.obs.clone()
    assert torch.equal(obs[:, -1], 1 - obs[:, 2] / 8)
    envs.close()


class Picture(gymnasium.Env):
    """Random pictures of some shape, in episodes of 5 steps, from the seed."""

    def __init__(self, shape: tuple[int, ...], dtype=np.uint8) -> None:
        self.observation_space = spaces.Box(0, 255, shape, dtype)
        self.action_space = spaces.Discrete(2)

    def show(self):
        space = self.observation_space
        return self.np_random.integers(0, 255, space.shape).astype(space.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.show(), {}

    def step(self, action):
        self.t += 1
        return self.show(), 0.0, False, self.t == 5, {}


def as_ours(theirs: np.ndarray, shape: tuple[int, ...], channels: str) -> np.ndarray:
    """FrameStackObservation (size, *shape) as we lay it out."""
    if len(shape) == 2:
        return theirs
    if len(shape) == 1:
        return theirs.reshape(-1)
    last = channels == "last" or (channels == "auto" and shape[-1] < shape[0])
    return np.concatenate(list(theirs), axis=2 if last else 0)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((6, 7), "auto"), ((6, 7, 3), "auto"), ((3, 6, 7), "auto"), ((6, 7, 6), "auto"), ((6, 7, 3), "first"),
     ((3, 6, 7), "last"), ((5,), "auto")],
)  # fmt: skip
def test_frames_as_gymnasium_stacks_them(shape, channels):
    settings = Config(env=EnvConfig(num_envs=2, frame_stack=3), model=ModelConfig(channels=channels))
    envs = make_envs(settings, env_factory=lambda i: Picture(shape))
    alone = FrameStackObservation(Picture(shape), 3)
    obs = envs.reset(4)
    episode, expected = 0, alone.reset(seed=episode_seed(4, 1, 0))[0]
    assert obs.dtype == torch.uint8
    for _ in range(13):
        assert np.array_equal(obs[1], as_ours(expected, shape, channels))
        assert envs.observation_space.contains(obs[1].numpy())
        step = envs.step(torch.zeros(2))
        expected, _, _, cut, _ = alone.step(0)
        assert np.array_equal(step.final_obs[1], as_ours(expected, shape, channels))
        if cut:
            episode += 1
            expected, _ = alone.reset(seed=episode_seed(4, 1, episode))
        obs = step.obs
    assert episode == 2


def test_time_as_gymnasium_tells_it():
    envs = make_envs(Config(env=EnvConfig(id="CartPole-v1", num_envs=2, time_aware=True)))
    alone = TimeAwareObservation(gymnasium.make("CartPole-v1"), normalize_time=True)
    obs = envs.reset(4)
    expected, _ = alone.reset(seed=episode_seed(4, 1, 0))
    for t in range(60):
        assert np.array_equal(obs[1, :4], expected[:4].astype(np.float32))
        assert obs[1, 4].item() == pytest.approx(1 - expected[4], abs=1e-6)
        step = envs.step(torch.full((2,), t % 2))
        expected, _, over, cut, _ = alone.step(t % 2)
        assert step.final_obs[1, 4].item() == pytest.approx(1 - expected[4], abs=1e-6)
        if over or cut:
            break
        obs = step.obs
    assert step.obs[1, 4] == 1
    assert envs.observation_space.contains(step.obs[1].numpy())
    envs.close()


def test_time_is_up_at_the_cut_off():
    envs = make_envs(Config(env=EnvConfig(id="Pendulum-v1", num_envs=2, time_aware=True)))
    envs.reset(1)
    left = [envs.step(torch.zeros(2, 1)).final_obs[:, -1].clone() for _ in range(200)]
    assert left[-1].tolist() == [0, 0]
    assert left[0].tolist() == pytest.approx([1 - 1 / 200] * 2)
    envs.close()
    with pytest.raises(ConfigError, match=r"env.time_aware: env_factory has no time limit"):
        make_envs(Config(env=EnvConfig(time_aware=True)), env_factory=lambda i: Picture((2,)))


def test_dictionaries_are_stacked_key_by_key():
    settings = EnvConfig(
        num_envs=2, frame_stack=2, time_aware=True, wrappers=({"TimeLimit": {"max_episode_steps": 4}},)
    )
    envs = make_envs(Config(env=settings), env_factory=lambda i: NestedEnv(9))
    obs = envs.reset(1)
    shapes = {key: tuple(value.shape) for key, value in obs.items()}
    assert shapes == {
        "action_mask": (2, 12), "pair/0": (2, 4), "pair/1": (2, 2), "picture": (2, 2, 3, 2), "self/doors": (2, 6),
        "self/gear": (2, 2), "self/speed": (2, 4), "time": (2, 1),
    }  # fmt: skip
    envs.action_space.seed(1)
    for t in range(1, 6):
        row = envs.action_space.sample()
        step = envs.step({key: torch.from_numpy(np.stack([value] * 2)) for key, value in row.items()})
        now = t % 4
        assert step.final_obs["pair/1"][0].tolist() == [50_000 + (t - 1) % 4, 50_000 + (t - 1) % 4 + 1]
        assert step.final_obs["time"][0].item() == 1 - ((t - 1) % 4 + 1) / 4
        assert step.obs["pair/1"][0].tolist() == ([50_000] * 2 if now == 0 else [50_000 + now - 1, 50_000 + now])
        assert step.obs["self/gear"].dtype == torch.int64
        assert step.obs["picture"].dtype == torch.uint8
    for key, value in step.obs.items():
        assert envs.observation_space[key].shape == tuple(value.shape[1:])
    assert isinstance(envs.observation_space["self/gear"], spaces.MultiDiscrete)
    assert envs.observation_space["self/gear"].contains(step.obs["self/gear"][0].numpy())


@pytest.mark.parametrize("inner", ["CartPole-v1", "ppo_lab/CartPole-v1"])
def test_resume_is_bit_exact(tmp_path: Path, inner):
    settings = Config(env=EnvConfig(id=inner, num_envs=3, frame_stack=3, time_aware=True))

    def play(envs, begin: int, count: int) -> list[Step]:
        return [Step(*(apply(torch.clone, part) for part in envs.step((torch.arange(3) + t) % 2)))
                for t in range(begin, begin + count)]  # fmt: skip

    envs, other = make_envs(settings), make_envs(settings)
    envs.reset(3)
    play(envs, 0, 25)
    path = save_checkpoint(tmp_path, 25, {"model": {}, "optimizer": {}, "envs": envs.state_dict()})
    expected = play(envs, 25, 60)
    other.reset(9)
    play(other, 0, 4)  # what it was doing before leaves no trace
    other.load_state_dict(load_checkpoint(path)["envs"])
    for one, two in zip(expected, play(other, 25, 60), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(leaves_of(one), leaves_of(two), strict=True))
    assert any(bool(step.terminated.any()) for step in expected)
    envs.close()
    other.close()


def leaves_of(step: Step) -> list[torch.Tensor]:
    return [leaf for part in step for leaf in leaves(part)]


def test_what_cannot_tell_its_state_does_not_pretend():
    envs = make_envs(Config(env=EnvConfig(id="CartPole-v1", vector=True, num_envs=2, frame_stack=2)))
    assert envs.state_dict() is None
    assert envs.reset(1).shape == (2, 8)
    assert envs.episode_done is None
    envs.close()


def test_where_a_life_is_lost_the_stack_goes_on():
    inner = scripted("single", [("..T", "..T")])
    inner.episode_done = torch.tensor([False])
    envs = TimeAware(FrameStack(inner, 2), 10)
    envs.reset(1)
    for _ in range(3):
        step = envs.step(torch.zeros(1, 1))
    assert step.terminated[0]
    assert torch.equal(envs.episode_done, torch.tensor([False]))
    assert step.obs[0, -1] == step.final_obs[0, -1] == torch.tensor(1 - 3 / 10)
    assert torch.equal(step.obs, step.final_obs)


def test_wrong_sizes():
    inner = scripted("single", [("T",)])
    with pytest.raises(EnvError, match="at least 2 observations, got 1"):
        FrameStack(inner, 1)
    with pytest.raises(EnvError, match="at least 1 step, got 0"):
        TimeAware(inner, 0)
    timed = SingleEnvs([gymnasium.wrappers.TimeAwareObservation(gymnasium.make("CartPole-v1"), flatten=False)])
    with pytest.raises(EnvError, match="has a key 'time' already"):
        TimeAware(timed, 3)
