"""Dictionaries, tuples and every kind of space, however the environment is stepped."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ppo_lab.config import Config, EnvConfig
from ppo_lab.config.env import auto_num_envs
from ppo_lab.envs.adapters.loop import episode_seed
from ppo_lab.envs.adapters.maker import Maker
from ppo_lab.envs.adapters.replay import recipe_from
from ppo_lab.envs.adapters.single import SingleEnvs
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.envs.adapters.workers import WorkerEnvs
from ppo_lab.envs.making import make_envs, why_inexact
from ppo_lab.envs.spaces import flatten_value, leaf_spaces, unflatten_value
from ppo_lab.errors import ConfigError, EnvError, NonFiniteError
from ppo_lab.runs.checkpoint import load_checkpoint, save_checkpoint
from ppo_lab.trees import apply
from tests.scripted_envs import NestedEnv

N = 3
DTYPES = {
    "action_mask": torch.bool, "pair/0": torch.int64, "pair/1": torch.int32, "picture": torch.uint8,
    "self/doors": torch.bool, "self/gear": torch.int64, "self/speed": torch.float32,
}  # fmt: skip


def nested(index: int) -> gymnasium.Env:
    """Episodes of 3, 4, 5 steps; a function of this module, so that a worker can import it."""
    return NestedEnv(3 + index)


def actions(space: spaces.Dict, t: int, num_envs: int = N) -> dict[str, torch.Tensor]:
    space.seed(t)
    rows = [space.sample() for _ in range(num_envs)]
    return {key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in space.spaces}


def history(envs, steps: int, seed: int | None = 7, begin: int = 0) -> list:
    rows = [] if seed is None else [apply(torch.clone, envs.reset(seed))]
    chosen = [actions(envs.action_space, t) for t in range(begin, begin + steps)]
    return rows + [[apply(torch.clone, part) for part in envs.step(action)] for action in chosen]


def flat(tree) -> list:
    if isinstance(tree, dict):
        return [(key, flat(value)) for key, value in tree.items()]
    return [flat(one) for one in tree] if isinstance(tree, list) else (str(tree.dtype), tree.tolist())


def test_the_same_as_the_environment_alone():
    """Oracle: the environment stepped by hand, its answers as gymnasium's own `contains` knows them."""
    envs = SingleEnvs([nested(i) for i in range(N)])
    rows = history(envs, 12)
    alone = [nested(i) for i in range(N)]
    for i, env in enumerate(alone):
        seen, _ = env.reset(seed=episode_seed(7, i, 0))
        episode = 0
        for key, value in flatten_value(env.observation_space, seen).items():
            assert np.array_equal(rows[0][key][i], np.asarray(value, np.float32 if "speed" in key else None))
            assert rows[0][key].dtype == DTYPES[key]
        for t, (obs, reward, terminated, truncated, final_obs, valid) in enumerate(rows[1:]):
            flat_action = {key: value[i].numpy() for key, value in actions(envs.action_space, t).items()}
            seen, gain, over, cut, _ = env.step(unflatten_value(env.action_space, flat_action))
            assert (reward[i], terminated[i], truncated[i], valid[i]) == (np.float32(gain), over, cut, True)
            for got in (final_obs,) if over or cut else (final_obs, obs):
                for key, value in flatten_value(env.observation_space, seen).items():
                    assert np.array_equal(got[key][i], np.asarray(value, np.float32 if "speed" in key else None)), key
            if over or cut:
                episode += 1
                seen, _ = env.reset(seed=episode_seed(7, i, episode))
                assert np.array_equal(obs["self/speed"][i], seen["self"]["speed"].astype(np.float32))
                assert obs["pair/1"][i].item() == 50_000
        assert episode >= 2


def test_spaces_are_flat_and_hold_what_is_shown():
    envs = SingleEnvs([nested(i) for i in range(N)])
    assert list(leaf_spaces(envs.observation_space)) == list(DTYPES)
    obs = envs.reset(1)
    assert {key: value.dtype for key, value in obs.items()} == DTYPES
    assert all(value.shape == (N, *leaf_spaces(envs.observation_space)[key].shape) for key, value in obs.items())


def test_workers_give_the_same_and_can_be_asked_in_two_halves():
    workers = WorkerEnvs(Maker(nested), N, 2)
    try:
        expected = history(SingleEnvs([nested(i) for i in range(N)]), 12)
        assert flat(history(workers, 12)) == flat(expected)
        with pytest.raises(EnvError, match="there is no step to wait for"):
            workers.step_wait()
        workers.reset(7)
        workers.step_async(actions(workers.action_space, 0))
        with pytest.raises(EnvError, match=r"call reset\(\) before the first step"):
            workers.step_async(actions(workers.action_space, 0))
        assert flat(list(workers.step_wait())) == flat(expected[1])
        saved = workers.state_dict()
        after = history(workers, 6, None, 1)
        workers.load_state_dict(saved)
        assert flat(history(workers, 6, None, 1)) == flat(after)
        workers.step_async(actions(workers.action_space, 0))
        workers.reset(7)  # a step that nobody waited for is forgotten
        assert flat(list(workers.step(actions(workers.action_space, 0)))) == flat(expected[1])
    finally:
        workers.close()


def test_replay_goes_through_a_checkpoint(tmp_path: Path):
    envs, other = (SingleEnvs([nested(i) for i in range(N)]) for _ in range(2))
    history(envs, 5)  # environment 1 is in a fresh episode after 4, environment 2 after 5: no action yet
    saved = {"model": {}, "optimizer": {}, "envs": envs.state_dict()}
    path = save_checkpoint(tmp_path, 5, saved)
    other.load_state_dict(load_checkpoint(path)["envs"])
    again = other.state_dict()  # a run can be cut off twice, also where environments write into their actions
    recipes = [recipe_from(state).actions for state in (again, saved["envs"])]
    assert [flat(rows) for rows in recipes[0]] == [flat(rows) for rows in recipes[1]]
    assert again["episode"].tolist() == saved["envs"]["episode"].tolist()
    assert flat(history(envs, 9, None, 5)) == flat(history(other, 9, None, 5))
    broken = envs.state_dict()
    broken["obs"]["self/gear"] += 1
    with pytest.raises(EnvError, match=r"environment 0 cannot be restored"):
        other.load_state_dict(broken)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environments_of_every_mode(mode):
    """Against the environment by hand: seeds of a vector environment are seed + i, then its own stream."""
    raw = SyncVectorEnv([lambda i=i: nested(i) for i in range(N)], autoreset_mode=mode)
    envs = VectorEnvs(raw)
    rows = history(envs, 14)
    envs.close()
    for i in range(N):
        env = nested(i)
        env.reset(seed=episode_seed(7, 0, 0) + i)
        real = 0
        for t, (obs, reward, terminated, truncated, final_obs, valid) in enumerate(rows[1:]):
            if not valid[i]:
                assert mode is AutoresetMode.NEXT_STEP
                assert obs["pair/1"][i] == 50_000
                env.reset()
                continue
            real += 1
            flat_action = {key: value[i].numpy() for key, value in actions(envs.action_space, t).items()}
            seen, gain, over, cut, _ = env.step(unflatten_value(env.action_space, flat_action))
            assert (reward[i], terminated[i], truncated[i]) == (np.float32(gain), over, cut)
            for key, value in flatten_value(env.observation_space, seen).items():
                assert np.array_equal(final_obs[key][i], np.asarray(value, np.float32 if "speed" in key else None)), key
                assert final_obs[key].dtype == DTYPES[key]
            if (over or cut) and mode is not AutoresetMode.NEXT_STEP:
                seen, _ = env.reset()
                assert obs["pair/1"][i] == 50_000
                assert np.array_equal(obs["self/speed"][i], np.zeros(2))
        assert real >= 10


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("missing", EnvError, r"environment 0 returned no valid step: .*the value has no 'self/gear'.* at its step 1 "),
        ("nan", NonFiniteError, r"environment 0 returned an observation with nan in entry 1 of 2 of 'self/speed'"),
        (
            "range",
            EnvError,
            r"environment 0 returned observation \[1 8\] of 'pair/0', its space allows \[0, 5\] .. \[1, 7",
        ),
        ("shape", EnvError, r"an observation of 'picture' of shape \(2, 3\), its space declares \(2, 3, 1\)"),
    ],
)
def test_faults_name_the_key(fault, error, text):
    envs = SingleEnvs([NestedEnv(3, fault)])
    envs.reset(1)
    with pytest.raises(error, match=text):
        envs.step(actions(envs.action_space, 0, 1))


def test_actions_with_wrong_keys_or_shapes():
    envs = SingleEnvs([NestedEnv()])
    envs.reset(1)
    good = actions(envs.action_space, 0, 1)
    with pytest.raises(EnvError, match=r"expected actions as the keys 0, 1/many, 1/move, 1/on, got one"):
        envs.step(torch.zeros(1))
    with pytest.raises(EnvError, match=r"got the keys 0$"):
        envs.step({"0": good["0"]})
    with pytest.raises(EnvError, match=r"expected actions of '1/move' of shape \(1, 2\), got \(1, 3\)"):
        envs.step({**good, "1/move": torch.zeros(1, 3)})
    with pytest.raises(NonFiniteError, match=r"action of '1/move' for environment 0 is not finite"):
        envs.step({**good, "1/move": torch.full((1, 2), torch.nan)})
    envs.step(good)


class Plain(gymnasium.Env):
    """MultiBinary, MultiDiscrete and Discrete(start) without keys, as Gymnasium's vector environments see them too."""

    def __init__(self, space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = space, action_space

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(3)
        return self.observation_space.sample(), {"action_mask": np.array([1, 0, 1], np.int8)}

    def step(self, action):
        assert self.action_space.contains(action), action
        return self.observation_space.sample(), 0.0, False, False, {"action_mask": np.array([0, 1, 1], np.int8)}


@pytest.mark.parametrize(
    ("space", "dtype"),
    [
        (spaces.MultiBinary(4), torch.bool),
        (spaces.MultiBinary((2, 2)), torch.bool),
        (spaces.MultiDiscrete([3, 4], start=[2, -1]), torch.int64),
        (spaces.Discrete(3, start=5), torch.int64),
        (spaces.Box(0, 9, (2,), np.uint16), torch.int32),
        (spaces.Box(0, 1, (2,), np.bool_), torch.bool),
    ],
)
@pytest.mark.parametrize(
    "action_space", [spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3]), spaces.Discrete(3, start=5)]
)
def test_leaves_alone(space, dtype, action_space):
    action_space.seed(1)
    action = torch.from_numpy(np.stack([action_space.sample() for _ in range(2)])).to(torch.int64)
    vector = SyncVectorEnv([lambda: Plain(space, action_space)] * 2)
    for envs in (SingleEnvs([Plain(space, action_space) for _ in range(2)]), VectorEnvs(vector)):
        space.seed(3)
        expected = np.asarray(space.sample())
        obs = envs.reset(1)
        assert obs.dtype == dtype
        assert np.array_equal(obs[0].numpy(), expected)
        assert envs.step(action).obs.dtype == dtype
        envs.close()


# ---- masks, wrappers, factories --------------------------------------------------------------------------------------


def factory(index: int) -> gymnasium.Env:
    return Plain(spaces.Box(0, 1, (2,), np.float32), spaces.Discrete(3))


def with_factory(make, **settings):
    return make_envs(Config(env=EnvConfig(**settings)), env_factory=make)


@pytest.mark.parametrize("workers", [0, 2])
def test_masks_come_from_info(workers):
    envs = with_factory(factory, num_envs=2, workers=workers, mask_from_info=True)
    obs = envs.reset(1)
    assert list(obs) == ["obs", "action_mask"]
    assert obs["action_mask"].tolist() == [[True, False, True]] * 2
    assert envs.step(torch.zeros(2)).obs["action_mask"].tolist() == [[False, True, True]] * 2
    envs.close()


def test_a_mask_may_be_missing_only_at_the_end():
    class Forgetful(Plain):
        def step(self, action):
            obs, *_ = super().step(action)
            self.t = getattr(self, "t", 0) + 1
            return obs, 0.0, self.t == 1, False, {}

    envs = with_factory(lambda i: Forgetful(spaces.Discrete(2), spaces.Discrete(3)), num_envs=1, mask_from_info=True)
    envs.reset(1)
    step = envs.step(torch.zeros(1))
    assert step.final_obs["action_mask"].all()
    assert step.obs["action_mask"].tolist() == [[True, False, True]]
    with pytest.raises(EnvError, match=r"env.mask_from_info: info of step has no 'action_mask'"):
        envs.step(torch.zeros(1))


def test_nested_masks_lie_in_the_order_of_the_action_space():
    class Masked(Plain):
        def reset(self, *, seed=None, options=None):
            obs, _ = super().reset()
            return obs, {"action_mask": {"b": np.array([1, 0]), "a": (np.array([0, 1]), np.array([1, 1, 0]))}}

    action_space = spaces.Dict(
        {"a": spaces.MultiDiscrete([2, 3]), "b": spaces.Discrete(2), "c": spaces.Box(0, 1, (2,))}
    )
    envs = with_factory(lambda i: Masked(spaces.Discrete(2), action_space), num_envs=1, mask_from_info=True)
    assert envs.reset(1)["action_mask"].int().tolist() == [[0, 1, 1, 1, 0, 1, 0]]


def test_masks_that_do_not_fit():
    for make, text in (
        (lambda i: Plain(spaces.Discrete(2), spaces.Discrete(4)), "3 entries, .* takes 4"),
        (lambda i: Plain(spaces.Discrete(2), spaces.Box(0, 1, (2,))), "the action space .* cannot be masked"),
        (lambda i: NestedEnv(), "the observation already has a key 'action_mask'"),
    ):
        with pytest.raises(EnvError, match=text):
            with_factory(make, num_envs=1, mask_from_info=True).reset(1)
    wrong = spaces.Dict({"action_mask": spaces.MultiBinary(4)})
    with pytest.raises(
        EnvError, match=r"'action_mask' of the observation has shape \(4,\); Discrete\(3\) takes a mask"
    ):
        with_factory(lambda i: Plain(wrong, spaces.Discrete(3)), num_envs=1)
    with pytest.raises(EnvError, match=r"takes no mask"):
        with_factory(lambda i: Plain(wrong, spaces.Box(0, 1, (2,))), num_envs=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_wrappers_by_name_innermost_first(workers):
    wrappers = ("FlattenObservation", {"TimeLimit": {"max_episode_steps": 5}}, {"RescaleObservation": {
        "min_obs": np.float32(0), "max_obs": np.float32(1)}})  # fmt: skip
    envs = make_envs(Config(env=EnvConfig(id="MountainCar-v0", num_envs=1, workers=workers, wrappers=wrappers)))
    assert envs.observation_space == spaces.Box(0, 1, (2,), np.float32)
    assert envs.max_episode_steps == 5
    envs.reset(1)
    assert [bool(envs.step(torch.zeros(1)).truncated) for _ in range(5)] == [False] * 4 + [True]
    envs.close()


@pytest.mark.parametrize(
    ("wrappers", "text"),
    [
        (("TimeLimits",), "env.wrappers: gymnasium.wrappers has no 'TimeLimits'; did you mean 'TimeLimit'"),
        (("vector",), "has no 'vector'"),
        (("Zzz",), "known: AtariPreprocessing, "),
        (({"TimeLimit": {"steps": 5}},), "env.wrappers: TimeLimit takes no 'steps'"),
        (({"TimeLimit": {"env": 5}},), "env.wrappers: TimeLimit takes no 'env'"),
        (({"TimeLimit": {}, "ClipAction": {}},), "each entry is one name with its keywords"),
        (("TimeLimit",), "cannot make env.wrappers: TimeLimit: TypeError: .*max_episode_steps"),
        (("ClipAction",), "cannot make env.wrappers: ClipAction: TypeError: ClipAction requires a Box"),
    ],
)
def test_wrong_wrappers(wrappers, text):
    with pytest.raises((ConfigError, EnvError), match=text) as caught:
        make_envs(Config(env=EnvConfig(id="CartPole-v1", num_envs=1, wrappers=wrappers)))
    assert "\n" not in str(caught.value)


def test_factories():
    made = []

    def make(index: int) -> gymnasium.Env:
        made.append(index)
        return gymnasium.make("CartPole-v1")

    envs = with_factory(make, num_envs=3, time_aware=True)
    assert made == [0, 0, 1, 2]  # the first of them to see whether there are masks
    assert envs.reset(1).shape == (3, 5)
    for broken, text in (
        (lambda i: 1 / 0, r"env_factory\(0\) raised ZeroDivisionError"),
        (lambda i: 3, "made a int; expected a gymnasium.Env"),
    ):
        with pytest.raises(EnvError, match=text):
            with_factory(broken)
    with pytest.raises(EnvError, match=r"env_factory: .*a worker process imports the environment"):
        with_factory(lambda i: gymnasium.make("CartPole-v1"), workers=2)
    with pytest.raises(ConfigError, match=r"env\.vector"):
        with_factory(make, vector=True)
    with pytest.raises(ConfigError, match=r"env\.kwargs"):
        with_factory(make, kwargs={"a": 1})
    assert why_inexact(Config(), make) is None
    assert "not deterministic" in why_inexact(Config(), lambda index: Random())


class Random(Plain):
    def __init__(self) -> None:
        super().__init__(spaces.Discrete(100_000), spaces.Discrete(3))

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(None)
        return self.observation_space.sample(), {}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"id": "ppo_lab/CartPole-v1", "wrappers": ("ClipAction",)}, "env.wrappers: it is for single environments"),
        ({"id": "CartPole-v1", "vector": True, "mask_from_info": True}, "env.mask_from_info: it is for single"),
        ({"id": "CartPole-v1", "life_loss": True}, "env.life_loss: it is for ids 'ALE/...' with env.vector true"),
        ({"id": "CartPole-v1", "vector": True, "life_loss": True}, "env.life_loss: CartPole-v1 has no lives"),
        ({"id": "Blackjack-v1", "time_aware": True}, "env.time_aware: Blackjack-v1 has no time limit"),
    ],
)
def test_settings_that_exclude_each_other(settings, text):
    with pytest.raises(ConfigError, match=text):
        make_envs(Config(env=EnvConfig(**settings)))


def test_auto_num_envs_follows_from_the_settings():
    for settings, expected in (
        ({"id": "ppo_lab/CartPole-v1"}, 64), ({}, 8), ({"workers": 3}, 9), ({"workers": 16}, 16), ({"workers": 2}, 8),
    ):  # fmt: skip
        assert auto_num_envs(EnvConfig(num_envs="auto", **settings)) == expected
    assert auto_num_envs(EnvConfig(num_envs=5)) == 5
    assert make_envs(Config(env=EnvConfig(id="ppo_lab/CartPole-v1", num_envs="auto"))).num_envs == 64


def test_blackjack_plays():
    """A Tuple of three Discrete, from Gymnasium itself."""
    envs = make_envs(Config(env=EnvConfig(id="Blackjack-v1", num_envs=4)))
    obs = envs.reset(1)
    assert list(obs) == ["0", "1", "2"]
    ended = sum(int(envs.step(torch.ones(4)).terminated.sum()) for _ in range(20))
    assert ended > 10
