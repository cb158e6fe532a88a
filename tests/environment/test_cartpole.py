"""CartPole equals Gymnasium's and the equations of motion; NumPy and torch give the same bits; what an ending means."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from environment.cartpole import CartPole
from ppo_lab.errors import EnvError
from tests.oracles import cartpole as oracle
from tests.tolerance import rounding


def random_actions(T, N, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (T, N)))


def rollout(envs, actions):
    """Every tensor of every step, stacked: (T, N, *)."""
    steps = [[x.clone() for x in envs.step(action)] for action in actions]
    return [torch.stack(x) for x in zip(*steps, strict=True)]


def put(envs, state, elapsed=0):
    """Set all carts to `state` (N, 4)."""
    snapshot = envs.state_dict()
    snapshot["state"] = torch.as_tensor(state, dtype=envs.obs.dtype)
    snapshot["elapsed"] = torch.full_like(snapshot["elapsed"], elapsed)
    envs.load_state_dict(snapshot)


def balance(obs):
    """A linear controller that never falls."""
    return (obs @ torch.tensor([0.1, 0.3, 3.0, 1.0], dtype=obs.dtype) > 0).long()


def states_near_endings(N, seed=0):
    generator = np.random.default_rng(seed)
    return generator.uniform(-1, 1, (N, 4)) * [2.5, 3.0, 0.23, 3.0]


@pytest.mark.parametrize("use_numpy", [True, False])
def test_a_step_is_gymnasiums_from_the_same_state(use_numpy):
    state, action = states_near_endings(1000), random_actions(1, 1000)[0]
    envs = CartPole(1000, dtype=torch.float64, use_numpy=use_numpy)
    put(envs, state)
    step = envs.step(action)
    theirs = gymnasium.make("CartPole-v1").unwrapped
    for i in range(1000):
        theirs.reset()
        theirs.state = state[i]
        _, reward, terminated, _, _ = theirs.step(action[i].item())
        np.testing.assert_allclose(step.final_obs[i], theirs.state, rtol=0, atol=1e-12)
        assert (step.reward[i].item(), step.terminated[i].item()) == (reward, terminated)
    assert 0.1 < step.terminated.double().mean() < 0.9


def test_episodes_are_gymnasiums_with_its_time_limit():
    N, T, limit = 8, 200, 25
    envs = CartPole(N, dtype=torch.float64, max_episode_steps=limit)
    theirs = [gymnasium.make("CartPole-v1", max_episode_steps=limit) for _ in range(N)]

    def restart(i, obs):
        theirs[i].reset()
        theirs[i].unwrapped.state = obs[i].numpy().copy()

    obs = envs.reset(seed=1)
    for i in range(N):
        restart(i, obs)
    ends = set()
    for action in random_actions(T, N):
        step = envs.step(action)
        for i in range(N):
            obs32, reward, terminated, truncated, _ = theirs[i].step(action[i].item())
            np.testing.assert_allclose(step.final_obs[i], theirs[i].unwrapped.state, rtol=0, atol=1e-12)
            np.testing.assert_allclose(
                step.final_obs[i].float().numpy(), obs32, rtol=rounding(np.float32, 1), atol=1e-12
            )
            assert step.reward[i] == reward
            assert (step.terminated[i], step.truncated[i]) == (terminated, truncated)
            if terminated or truncated:
                ends.add((terminated, truncated))
                restart(i, step.obs)
    assert {(True, False), (False, True)} <= ends


def test_a_step_solves_the_equations_of_motion():
    state, action = states_near_endings(500, seed=2), random_actions(1, 500)[0]
    after, terminated = oracle.step(state, action.numpy())
    envs = CartPole(500, dtype=torch.float64)
    put(envs, state)
    step = envs.step(action)
    np.testing.assert_allclose(step.final_obs, after, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(step.terminated, terminated)


def test_float32_stays_close_to_float64():
    state, action = states_near_endings(1000), random_actions(1, 1000)[0]
    steps = []
    for dtype in (torch.float32, torch.float64):
        envs = CartPole(1000, dtype=dtype)
        put(envs, state)
        steps.append(envs.step(action))
    assert steps[0].obs.dtype == torch.float32
    assert steps[0].reward.dtype == steps[1].reward.dtype == torch.float32
    torch.testing.assert_close(steps[0].final_obs.double(), steps[1].final_obs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("N", [1, 8, 37])
def test_numpy_and_torch_give_the_same_bits(N, dtype):
    actions = random_actions(200, N)
    ours, theirs = (CartPole(N, dtype=dtype, max_episode_steps=30, use_numpy=use) for use in (True, False))
    assert torch.equal(ours.reset(seed=5), theirs.reset(seed=5))
    results = list(zip(rollout(ours, actions), rollout(theirs, actions), strict=True))
    assert results[2][0].any()
    assert N == 1 or results[3][0].any()
    for a, b in results:
        assert torch.equal(a, b)
    for key, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key])


def test_numpy_is_the_default_on_a_cpu_and_refused_elsewhere():
    assert CartPole(1)._use_numpy
    with pytest.raises(EnvError, match="needs 'cpu'"):
        CartPole(1, device="meta", use_numpy=True)


def test_a_balanced_pole_is_truncated_at_exactly_500():
    envs = CartPole(3)
    obs = envs.reset(seed=0)
    for _ in range(499):
        step = envs.step(balance(obs))
        obs = step.obs
        assert not (step.terminated | step.truncated).any()
        assert torch.equal(step.obs, step.final_obs)
    before = obs.clone()
    step = envs.step(balance(obs))
    assert step.truncated.all()
    assert not step.terminated.any()
    expected, _ = oracle.step(before.double().numpy(), balance(before).numpy())
    np.testing.assert_allclose(step.final_obs, expected, atol=1e-5)
    assert (step.obs.abs() <= 0.05).all()
    for _ in range(499):  # the counter began again
        step = envs.step(balance(step.obs))
        assert not (step.terminated | step.truncated).any()
    assert envs.step(balance(step.obs)).truncated.all()


def test_falling_with_the_last_step_is_both():
    envs = CartPole(2, max_episode_steps=7)
    put(envs, [[0.0, 0.0, 0.209, 2.0], [0.0, 0.0, 0.0, 0.0]], elapsed=6)
    step = envs.step(torch.tensor([0, 1]))
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [True, True]
    assert step.reward.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("use_numpy", [True, False])
def test_an_ended_episode_is_replaced_in_the_same_step_and_no_other(use_numpy):
    envs = CartPole(64, use_numpy=use_numpy)
    envs.reset(seed=3)
    obs, reward, terminated, truncated, final_obs, valid = rollout(envs, random_actions(150, 64))
    done = terminated | truncated
    assert done.any()
    assert torch.equal(obs[~done], final_obs[~done])
    assert (obs[done].abs() <= 0.05).all()
    assert (final_obs[done][:, 2].abs() > 0.2).all()  # random play drops the pole
    assert (reward == 1).all()
    assert valid.all()
    assert len(obs[done][:, 0].unique()) == done.sum()  # every reset its own numbers


def test_resets_are_uniform_and_independent():
    envs = CartPole(4096)
    first = envs.reset(seed=0).clone()
    put(envs, torch.full((4096, 4), 9.0))  # all end
    for sample in (first, envs.step(torch.zeros(4096, dtype=torch.int64)).obs):
        assert -0.05 <= sample.min() < -0.0499
        assert 0.0499 < sample.max() <= 0.05
        np.testing.assert_allclose(sample.var(0), 0.1**2 / 12, rtol=0.1)
        np.testing.assert_allclose(np.corrcoef(sample.T.numpy()), np.eye(4), atol=0.08)


@pytest.mark.parametrize("use_numpy", [True, False])
def test_equal_carts_stay_equal_whatever_their_number(use_numpy):
    state, actions = states_near_endings(1, seed=4) * 0.3, random_actions(12, 1)
    results = []
    for N in (1, 5, 64):
        envs = CartPole(N, use_numpy=use_numpy)
        put(envs, np.repeat(state, N, axis=0))
        results.append(rollout(envs, actions.expand(-1, N))[4])  # final_obs
        # each of 12 steps takes some twenty operations, and a falling pole doubles an error at most
        limit = rounding(torch.float32, 12 * 20 * 2, results[0].abs().max().item())
        torch.testing.assert_close(results[-1], results[0].expand(-1, N, -1), rtol=0, atol=limit)


def test_a_cart_does_not_feel_its_neighbours():
    actions = random_actions(60, 4)
    other = actions.clone()
    other[:, 1:] = 1 - other[:, 1:]
    results = []
    for a in (actions, other):
        envs = CartPole(4)
        envs.reset(seed=6)
        results.append(rollout(envs, a)[0])
    assert torch.equal(results[0][:, 0], results[1][:, 0])
    assert not torch.equal(results[0][:, 1], results[1][:, 1])


def test_seeds():
    def run(seed, before):
        envs = CartPole(4, max_episode_steps=12)
        envs.reset(seed=99)  # what was before does not matter
        rollout(envs, random_actions(before, 4, seed=9))
        first = envs.reset(seed=seed).clone()
        return torch.cat([first[None], rollout(envs, random_actions(100, 4))[0]])

    assert torch.equal(run(1, before=1), run(1, before=8))
    assert not torch.equal(run(1, before=1)[0], run(2, before=1)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loaded_state_continues_bit_for_bit(dtype):
    actions = random_actions(120, 8)
    envs = CartPole(8, dtype=dtype, max_episode_steps=40)
    envs.reset(seed=7)
    rollout(envs, actions[:50])
    snapshot = envs.state_dict()
    obs = envs.obs.clone()
    expected = rollout(envs, actions[50:])
    other = CartPole(8, dtype=dtype, max_episode_steps=40, use_numpy=False)
    other.load_state_dict(snapshot)  # taken before the rest was played: it must be a copy
    assert torch.equal(other.obs, obs)
    for a, b in zip(expected, rollout(other, actions[50:]), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("elapsed"), "'elapsed' is missing"),
        (lambda s: s.update(state=torch.zeros(3, 4)), r"'state' is \(3, 4\)"),
        (lambda s: s.update(state=s["state"].double()), "torch.float64"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change, message):
    envs = CartPole(2)
    snapshot = envs.state_dict()
    change(snapshot)
    with pytest.raises(EnvError, match=message):
        envs.load_state_dict(snapshot)


@pytest.mark.parametrize("use_numpy", [True, False])
def test_a_caller_may_write_into_what_it_got(use_numpy):
    actions = random_actions(100, 4)
    runs = []
    for vandal in (False, True):
        envs = CartPole(4, use_numpy=use_numpy)
        envs.reset(seed=8)
        seen = []
        for action in actions:
            step = envs.step(action)
            seen.append([x.clone() for x in step])
            if vandal:
                for x in (step.obs, step.final_obs, step.reward):
                    x.fill_(123.0)
        runs.append(seen)
    for ours, theirs in zip(*runs, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)


def test_observations_are_contiguous_and_share_nothing():
    envs = CartPole(8)
    obs = envs.reset(seed=0)
    step = envs.step(torch.zeros(8, dtype=torch.int64))
    assert step.obs is obs  # written in place: the protocol allows it, and a captured graph needs it
    assert step.obs.is_contiguous()
    assert step.final_obs.is_contiguous()
    first, last = step.obs.data_ptr(), step.obs.data_ptr() + step.obs.nbytes
    assert not first <= step.final_obs.data_ptr() < last


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_step_never_asks_the_device_and_stays_short():
    envs = CartPole(8, use_numpy=False)  # what a GPU runs
    envs.reset(seed=0)
    with Recorder() as recorder:
        envs.step(torch.ones(8, dtype=torch.int64))
    waiting = {"_local_scalar_dense", "nonzero", "_to_copy", "item", "masked_select", "index"}
    assert not waiting & set(recorder.names)
    assert len(recorder.names) <= 32, recorder.names


@pytest.mark.parametrize(
    "kwargs", [{"num_envs": 0}, {"num_envs": 1, "max_episode_steps": 0}, {"num_envs": 1, "dtype": torch.float16}]
)
def test_impossible_arguments_are_refused(kwargs):
    with pytest.raises(EnvError, match="CartPole"):
        CartPole(**kwargs)


def test_an_unknown_action_is_an_error():
    for use_numpy in (True, False):
        envs = CartPole(2, use_numpy=use_numpy)
        envs.reset(seed=0)
        with pytest.raises(IndexError):
            envs.step(torch.tensor([0, 2]))


def test_spaces_are_gymnasiums():
    theirs = gymnasium.make("CartPole-v1")
    envs = CartPole(2)
    assert envs.observation_space == theirs.observation_space
    assert envs.action_space == theirs.action_space
    assert CartPole(2, dtype=torch.float64).observation_space.dtype == np.float64
    envs.close()
    envs.close()


def test_the_picture_shows_the_state():
    envs = CartPole(3)
    put(envs, [[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.2, 0.0], [-1.0, 0.0, -0.2, 0.0]])
    middles = []
    for i in range(3):
        frame = envs.frame(i)
        assert frame.shape == (200, 300, 3)
        assert frame.dtype == np.uint8
        pole = (frame[..., 0] > 200) & (frame[..., 2] < 60)
        pole[155:] = False  # the red marks where the track ends for an episode
        middles.append(np.argwhere(pole)[:, 1].mean())
    assert middles[0] == pytest.approx(149.5, abs=1)
    assert middles[1] > 150 + 60 + 2  # one metre right, leaning right
    assert middles[2] < 150 - 60 - 2


@pytest.mark.parametrize("use_numpy", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_velocities_it_is_the_same_cart_seen_with_less(use_numpy, dtype):
    actions = random_actions(80, 8)
    whole = CartPole(8, dtype=dtype, max_episode_steps=30, use_numpy=use_numpy)
    less = CartPole(8, dtype=dtype, max_episode_steps=30, use_numpy=use_numpy, observe_velocities=False)
    assert torch.equal(whole.reset(seed=5)[:, ::2], less.reset(seed=5))
    assert less.observation_space.shape == (2,)
    assert np.array_equal(whole.observation_space.high[::2], less.observation_space.high)
    results = rollout(whole, actions), rollout(less, actions)
    for i, (a, b) in enumerate(zip(*results, strict=True)):
        assert torch.equal(a[..., ::2] if i in (0, 4) else a, b)
    assert (results[0][2] | results[0][3]).any()
    assert less.obs.is_contiguous()
    for key, value in whole.state_dict().items():
        assert torch.equal(value, less.state_dict()[key])
    assert np.array_equal(whole.frame(3), less.frame(3))
