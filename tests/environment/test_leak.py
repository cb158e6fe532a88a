"""Leak stays at chance for whoever forgets, and pays whoever does not, at every kind of ending."""

from __future__ import annotations

import pytest
import torch

from environment.leak import ENDINGS, Leak

every_ending = pytest.mark.parametrize("ending", ENDINGS)


@every_ending
@pytest.mark.parametrize(("shortest", "longest"), [(3, 8), (3, 3), (5, 6)])
def test_episodes_are_those_told_in_plain_python(ending, shortest, longest):
    N = 16
    envs = Leak(N, ending=ending, min_length=shortest, max_length=longest)
    obs = envs.reset(seed=1)
    state = envs.state_dict()
    drawn = [{key: state[key][i].item() for key in ("bit", "earlier", "length", "cut")} for i in range(N)]
    t, ways, lengths = [0] * N, set(), set()

    def shown(i):
        last = t[i] >= drawn[i]["length"] - 2
        return [(1.0 if drawn[i]["bit"] else -1.0) if last else 0.0]

    for k in range(80):
        assert obs.tolist() == [shown(i) for i in range(N)]
        action = torch.randint(2, (N,), generator=torch.Generator().manual_seed(k))
        step, state = envs.step(action), envs.state_dict()
        for i in range(N):
            expected = 0.0 if t[i] else (1.0 if action[i] == drawn[i]["earlier"] else -1.0)
            assert step.reward[i] == expected
            t[i] += 1
            assert step.final_obs[i].tolist() == shown(i)
            over, cut = t[i] == drawn[i]["length"], drawn[i]["cut"]
            assert (step.terminated[i].item(), step.truncated[i].item()) == (over and not cut, over and cut)
            if over:
                ways.add("truncated" if cut else "terminated")
                lengths.add(t[i])
                named = drawn[i]["bit"]
                drawn[i] = {key: state[key][i].item() for key in ("bit", "earlier", "length", "cut")}
                assert drawn[i]["earlier"] == named
                t[i] = 0
        obs = step.obs
    assert ways == ({"terminated", "truncated"} if ending == "both" else {ending})
    assert lengths == set(range(shortest, longest + 1))


def mean_return(ending, forget, N=512, steps=300):
    """Of a policy that names the last bit it remembers; forget(step, seen, obs) -> what is left of its memory.

    `seen` (N,) is -1, 0 (nothing) or 1, and it has not seen `step.obs` yet.
    """
    envs = Leak(N, ending=ending)
    obs, seen = envs.reset(seed=3)[:, 0], torch.zeros(N)
    reward = episodes = 0.0
    for _ in range(steps):
        seen = torch.where(obs != 0, obs, seen)
        step = envs.step((seen > 0).long())
        reward, episodes = reward + step.reward.sum(), episodes + (step.terminated | step.truncated).sum()
        seen = forget(step, seen)
        obs = step.obs[:, 0]
    return (reward / episodes).item(), 1 / episodes.item() ** 0.5


def done(step):
    return step.terminated | step.truncated


FORGET = {  # memory after a step -> memory with which the next observation is seen
    "never": lambda step, seen: seen,
    "at terminations only": lambda step, seen: seen.masked_fill(step.terminated, 0),
    "at truncations only": lambda step, seen: seen.masked_fill(step.truncated, 0),
    "of the neighbour": lambda step, seen: seen.masked_fill(done(step).roll(1), 0),
    "too early": lambda step, seen: torch.where(done(step), step.final_obs[:, 0], seen),
}


@every_ending
@pytest.mark.parametrize("bug", FORGET)
def test_memory_that_survives_an_ending_pays(ending, bug):
    value, error = mean_return(ending, FORGET[bug])
    caught = {"at terminations only": ("truncated", "both"), "at truncations only": ("terminated", "both")}
    if ending in caught.get(bug, ENDINGS):
        assert value > 0.4
    else:
        assert abs(value) < 4 * error


def test_a_reset_one_row_late_pays():
    previous = [torch.zeros(512, dtype=torch.bool)]

    def forget(step, seen):
        seen = seen.masked_fill(previous[0], 0)
        previous[0] = done(step)
        return seen

    assert mean_return("both", forget)[0] > 0.95  # nothing can be known before the first episode


@every_ending
def test_who_forgets_stays_at_chance(ending):
    value, error = mean_return(ending, lambda step, seen: seen.masked_fill(done(step), 0))
    assert abs(value) < 4 * error
    assert error < 0.006


def test_bits_lengths_and_endings_are_drawn_independently():
    envs = Leak(40_000, min_length=3, max_length=4)
    envs.reset(seed=0)
    for _ in range(4):
        envs.step(torch.zeros(40_000, dtype=torch.int64))
    state = envs.state_dict()
    index = state["bit"] + 2 * state["earlier"] + 4 * (state["length"] - 3) + 8 * state["cut"].long()
    torch.testing.assert_close(index.bincount(minlength=16), torch.full((16,), 2500), rtol=0, atol=250)
