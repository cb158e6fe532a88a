"""Every environment of ours keeps the contract: shapes, endings, seeds, saved states, and Gymnasium's view of it."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector.utils import batch_space
from torch.utils._python_dispatch import TorchDispatchMode

from environment import BATCHED
from environment.catch import OBSERVATIONS as WAYS
from environment.leak import ENDINGS
from environment.spaces import ACTIONS, OBSERVATIONS
from ppo_lab.errors import EnvError
from ppo_lab.trees import apply, leaves

MASKED = [action for action in ACTIONS if not action.startswith("box")]
SMALL = {"height": 6, "width": 4, "balls": 2, "decoys": 0}
CASES = [
    ("CartPoleNoVelocity-v1", {"max_episode_steps": 20}),
    ("CartPoleNoVelocity-v1", {"max_episode_steps": 20, "use_numpy": False}),
    ("Recall-v0", {}),
    ("Recall-v0", {"num_cues": 3, "min_delay": 0, "max_delay": 2}),
    *[("Leak-v0", {"ending": ending}) for ending in ENDINGS],
    *[("Catch-v0", {"observation": way}) for way in WAYS],
    *[("Catch-v0", {"observation": way, **SMALL}) for way in WAYS],
    *[("Spaces-v0", {"observation": observation}) for observation in OBSERVATIONS],
    *[("Spaces-v0", {"action": action}) for action in ACTIONS],
    *[("Spaces-v0", {"action": action, "masked": True}) for action in MASKED],
    ("Spaces-v0", {"observation": "dict", "action": "hybrid", "masked": True}),
]
every_case = pytest.mark.parametrize(
    ("name", "kwargs"), CASES, ids=[f"{name}-{'-'.join(map(str, kwargs.values()))}" for name, kwargs in CASES]
)
DTYPES = {spaces.Discrete: torch.int64, spaces.MultiDiscrete: torch.int64, spaces.MultiBinary: torch.bool}


def build(name, kwargs, N):
    return BATCHED[f"ppo_lab/{name}"](num_envs=N, **kwargs)


def to_torch(action):
    return {key: to_torch(value) for key, value in action.items()} if isinstance(action, dict) else torch.tensor(action)


def random_actions(envs, T, seed=0):
    space = batch_space(envs.action_space, envs.num_envs)
    space.seed(seed)
    return [to_torch(space.sample()) for _ in range(T)]


def play(envs, actions):
    """Copies of every tensor of every step: a list of lists."""
    return [[x.clone() for field in envs.step(action) for x in leaves(field)] for action in actions]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def check_tensors(obs, space, N):
    if isinstance(space, spaces.Dict):
        assert sorted(obs) == list(space)
        for key, part in space.items():
            check_tensors(obs[key], part, N)
        return
    assert obs.shape == (N, *space.shape)
    assert obs.dtype == DTYPES.get(type(space), getattr(torch, str(space.dtype)))
    assert all(row in space for row in obs.numpy().astype(space.dtype))


@every_case
def test_shapes_dtypes_and_endings(name, kwargs):
    N = 16
    envs = build(name, kwargs, N)
    assert envs.next_step_autoreset is False
    obs = envs.reset(seed=1)
    check_tensors(obs, envs.observation_space, N)
    endings, length, longest = 0, torch.zeros(N), 0
    for action in random_actions(envs, 60):
        step = envs.step(action)
        for shown in (step.obs, step.final_obs):
            check_tensors(shown, envs.observation_space, N)
        assert (step.reward.shape, step.reward.dtype) == ((N,), torch.float32)
        for flag in (step.terminated, step.truncated, step.valid):
            assert (flag.shape, flag.dtype) == ((N,), torch.bool)
        assert step.valid.all()
        done = step.terminated | step.truncated
        endings += int(done.sum())
        length += 1
        longest = max(longest, int(length.max()))
        length[done] = 0
        for ours, final in zip(leaves(step.obs), leaves(step.final_obs), strict=True):
            assert torch.equal(ours[~done], final[~done])
        assert equal(envs.obs, step.obs)
    assert endings > N
    assert longest == envs.max_episode_steps


@every_case
def test_seeds(name, kwargs):
    actions = random_actions(build(name, kwargs, 16), 40)

    def run(seed, before):
        envs = build(name, kwargs, 16)
        envs.reset(seed=99)  # what was before does not matter
        play(envs, actions[:before])
        first = [x.clone() for x in leaves(envs.reset(seed=seed))]
        return [first, *play(envs, actions)]

    def same(a, b):
        return all(torch.equal(x, y) for row in zip(a, b, strict=True) for x, y in zip(*row, strict=True))

    first = run(1, before=1)
    assert same(first, run(1, before=7))
    assert not same(first, run(2, before=1))


@every_case
def test_a_loaded_state_continues_bit_for_bit(name, kwargs):
    envs = build(name, kwargs, 8)
    actions = random_actions(envs, 60)
    envs.reset(seed=7)
    play(envs, actions[:23])
    snapshot, obs = envs.state_dict(), apply(torch.clone, envs.obs)
    expected = play(envs, actions[23:])
    other = build(name, kwargs, 8)
    other.load_state_dict(snapshot)  # taken before the rest was played: it must be a copy
    assert equal(other.obs, obs)
    for a, b in zip(expected, play(other, actions[23:]), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    with pytest.raises(EnvError, match="needs"):
        build(name, kwargs, 3).load_state_dict(snapshot)
    for key in snapshot:
        with pytest.raises(EnvError, match=f"{key!r} is missing"):
            other.load_state_dict({k: v for k, v in snapshot.items() if k != key})


@every_case
def test_an_environment_does_not_feel_its_neighbours(name, kwargs):
    envs = build(name, kwargs, 4)
    actions, others = random_actions(envs, 40), random_actions(envs, 40, seed=1)
    mixed = [apply(lambda a, b: torch.cat([a[:1], b[1:]]), a, b) for a, b in zip(actions, others, strict=True)]
    results = []
    for given in (actions, mixed):
        envs.reset(seed=6)
        results.append(play(envs, given))
    for a, b in zip(*results, strict=True):
        assert all(torch.equal(x[0], y[0]) for x, y in zip(a, b, strict=True))


class Recorder(TorchDispatchMode):
    """Names of the operations that make the host wait for the device."""

    def __init__(self):
        super().__init__()
        self.waiting = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name.startswith("index") and isinstance(args[1], list) else []
        by_bool = any(index is not None and index.dtype == torch.bool for index in indices)
        if by_bool or name in {"_local_scalar_dense", "nonzero", "masked_select", "item"}:
            self.waiting.append(name)
        return func(*args, **(kwargs or {}))


@every_case
def test_a_step_never_asks_the_device(name, kwargs):
    envs = build(name, {**kwargs, "use_numpy": False} if "CartPole" in name else kwargs, 8)
    envs.reset(seed=0)
    for action in random_actions(envs, 10):
        with Recorder() as recorder:
            envs.step(action)
        assert not recorder.waiting


@every_case
def test_gymnasiums_checker_has_nothing_to_say(name, kwargs):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(gymnasium.make(f"ppo_lab/{name}", **kwargs).unwrapped)
    advice = "we recommend using a symmetric and normalized space"  # what box_asymmetric is there to try
    for warning in said:
        assert "box_asymmetric" in kwargs.values()
        assert advice in str(warning.message)


def check_arrays(got, want, space):
    if isinstance(want, dict):
        assert set(got) == set(want)
        for key in want:
            check_arrays(got[key], want[key], space[key])
    else:
        np.testing.assert_array_equal(got, want.numpy())
        assert got.dtype == space.dtype


@every_case
def test_the_vector_view_is_the_batched_program(name, kwargs):
    envs, view = build(name, kwargs, 8), gymnasium.make_vec(f"ppo_lab/{name}", num_envs=8, **kwargs)
    space = view.single_observation_space
    obs, _ = view.reset(seed=3)
    check_arrays(obs, envs.reset(seed=3), space)
    view.action_space.seed(0)
    endings = 0
    for _ in range(40):
        action = view.action_space.sample()
        obs, reward, terminated, truncated, infos = view.step(action)
        step = envs.step(to_torch(action))
        check_arrays(obs, step.obs, space)
        assert obs in view.observation_space
        for theirs, ours in ((reward, step.reward), (terminated, step.terminated), (truncated, step.truncated)):
            np.testing.assert_array_equal(theirs, ours)
            assert theirs.dtype == ours.numpy().dtype
        for i in np.flatnonzero(terminated | truncated):
            endings += 1
            check_arrays(infos["final_obs"][i], apply(lambda x, i=i: x[i], step.final_obs), space)
            assert infos["final_obs"][i] in space
    assert endings
    view.close()


@every_case
def test_the_single_view_is_one_of_the_batch(name, kwargs):
    env, envs = gymnasium.make(f"ppo_lab/{name}", **kwargs), build(name, kwargs, 1)
    obs, _ = env.reset(seed=11)
    check_arrays(obs, apply(lambda x: x[0], envs.reset(seed=11)), env.observation_space)
    env.action_space.seed(5)
    done = False
    while not done:
        action = env.action_space.sample()
        obs, reward, terminated, truncated, _ = env.step(action)
        batched = to_torch(action if isinstance(action, dict) else {"": action})
        batched = {key: value[None] for key, value in batched.items()}
        step = envs.step(batched.get("", batched))
        check_arrays(obs, apply(lambda x: x[0], step.final_obs), env.observation_space)
        assert obs in env.observation_space
        assert (reward, terminated, truncated) == (step.reward.item(), step.terminated.item(), step.truncated.item())
        done = terminated or truncated


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("Recall-v0", {"num_cues": 1}, "num_cues=1"),
        ("Recall-v0", {"min_delay": 3, "max_delay": 2}, "min_delay=3, max_delay=2"),
        ("Leak-v0", {"ending": "done"}, "'done'; allowed are terminated, truncated, both"),
        ("Leak-v0", {"min_length": 2}, "min_length=2"),
        ("Catch-v0", {"observation": "sound"}, "'sound'; allowed are pixels, entities, vector"),
        ("Catch-v0", {"height": 5, "width": 6}, "width <= height"),
        ("Catch-v0", {"decoys": 10}, "decoys=10"),
        ("Catch-v0", {"balls": 0}, "balls=0"),
        ("Spaces-v0", {"observation": "text"}, "observation='text'; allowed are vector, discrete"),
        ("Spaces-v0", {"action": "text"}, "action='text'; allowed are discrete"),
        ("Spaces-v0", {"action": "box", "masked": True}, "masked=True with action='box'; a Box cannot be masked"),
        ("Spaces-v0", {"min_length": 0}, "min_length=0"),
        ("Spaces-v0", {"image_size": 1}, "image_size=1"),
        *[(name, {"num_envs": 0}, "num_envs=0") for name in ("Recall-v0", "Leak-v0", "Catch-v0", "Spaces-v0")],
    ],
)
def test_impossible_arguments_are_refused(name, kwargs, message):
    with pytest.raises(EnvError, match=message):
        BATCHED[f"ppo_lab/{name}"](**{"num_envs": 1, **kwargs})
