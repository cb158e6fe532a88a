"""Spaces shows its target in every observation, and pays every action as a plain-Python referee does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from environment.spaces import ACTIONS, OBSERVATIONS, Spaces

MASKED = [(action, False) for action in ACTIONS] + [(a, True) for a in ACTIONS if not a.startswith("box")]
every_action = pytest.mark.parametrize(("action", "masked"), MASKED)


def quadrant(image):
    """Of the brightest quarter of (H, W): 2 * lower + right."""
    half = image.shape[0] // 2
    parts = [image[:half, :half], image[:half, half:], image[half:, :half], image[half:, half:]]
    return int(np.argmax([part.astype(float).mean() for part in parts]))


def read_set(obs):
    marked = [row for row, there in zip(obs["entities"], obs["entities_mask"], strict=True) if there and row[2] == 1]
    assert len(marked) == 1
    return 2 * int(marked[0][1] > 0) + int(marked[0][0] > 0)


READ = {  # one observation as NumPy -> its target
    "vector": lambda obs: 2 * int(obs[0] > 0) + int(obs[1] > 0),
    "discrete": lambda obs: int(obs),
    "discrete_start": lambda obs: int(obs) + 1,
    "multidiscrete": lambda obs: 2 * int(obs[0]) + int(obs[2]),
    "multidiscrete_start": lambda obs: 2 * (int(obs[0]) - 3) + int(obs[2]) + 2,
    "multibinary": lambda obs: 2 * int(obs[0]) + int(obs[2]),
    "image_hwc": lambda obs: quadrant(obs[:, :, 0]),
    "image_chw": lambda obs: quadrant(obs[0]),
    "image_hw": quadrant,
    "board": lambda obs: quadrant(obs[0]),
    "set": read_set,
    "dict": lambda obs: 2 * int(obs["vector"][0] > 0) + quadrant(obs["image"][:, :, 0]) % 2,
}


def rows(obs, N):
    """N observations as NumPy."""
    if isinstance(obs, dict):
        return [{key: value[i].numpy() for key, value in obs.items()} for i in range(N)]
    return list(obs.numpy())


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("image_size", [12, 7])
def test_every_observation_tells_the_target(observation, image_size):
    N = 64
    envs = Spaces(N, observation=observation, image_size=image_size)
    obs, seen = envs.reset(seed=0), set()
    for _ in range(5):
        target = envs.state_dict()["target"].tolist()
        seen |= set(target)
        assert [READ[observation](row) for row in rows(obs, N)] == target
        if observation == "dict":
            assert obs["privileged"].argmax(1).tolist() == target
        obs = envs.step(envs.right_action()).obs
    assert seen == {0, 1, 2, 3}


def test_what_is_noise_says_nothing():
    envs = Spaces(20_000, observation="set")
    obs = envs.reset(seed=0)
    target = envs.state_dict()["target"]
    hidden = torch.where(obs["entities_mask"][:, :, None], 0.0, obs["entities"]).sum(1)  # (N, 3)
    for bit in (target // 2, target % 2):
        assert np.abs(np.corrcoef(np.c_[hidden[:, :2].numpy(), bit.numpy()].T)[2, :2]).max() < 0.03
    assert (obs["entities"][~obs["entities_mask"]][:, 2] == 1).all()
    assert obs["entities_mask"].sum(1).bincount().tolist()[1:] == pytest.approx([4000] * 5, abs=300)


RIGHT = {  # target -> what pays 1, written out
    "discrete": [0, 1, 2, 3],
    "discrete_start": [5, 6, 7, 8],
    "multidiscrete": [[0, 0], [0, 1], [1, 2], [1, 0]],
    "multidiscrete_start": [[5, -1], [5, 0], [6, 1], [6, -1]],
    "multibinary": [[0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 0]],
    "box": [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]],
    "box_asymmetric": [[350, 350], [350, 450], [450, 350], [450, 450]],
}
HYBRID = {"choice": "discrete", "switches": "multibinary", "turn": "box"}
WIDTH = {"box": 2.0, "box_asymmetric": 200.0}


def referee(name, space, action, target, mask):
    """Scores of the parts of one action, and how many numbers of the mask they have used up."""
    if name == "hybrid":
        scores, used = [], 0
        for key, kind in HYBRID.items():
            more, n = referee(kind, space[key], action[key], target, None if mask is None else mask[used:])
            scores, used = scores + more, used + n
        return scores, used
    want = np.atleast_1d(RIGHT[name][target])
    if isinstance(space, spaces.Box):
        return [1 - 2 * abs(a - w) / WIDTH[name] for a, w in zip(action, want, strict=True)], 0
    sizes = {spaces.Discrete: lambda: [space.n], spaces.MultiDiscrete: lambda: space.nvec}.get(
        type(space), lambda: [2] * space.n
    )()
    start = np.broadcast_to(getattr(space, "start", 0), len(sizes))
    scores, used = [], 0
    for a, w, n, s in zip(np.atleast_1d(action), want, sizes, start, strict=True):
        legal = mask is None or mask[used + a - s]
        scores.append((1.0 if a == w else 0.0) if legal else -1.0)
        used += n
    return scores, used


def to_torch(action):
    return {key: torch.tensor(x) for key, x in action.items()} if isinstance(action, dict) else torch.tensor(action)


@every_action
def test_every_action_is_paid_as_by_a_plain_referee(action, masked):
    N = 64
    envs = Spaces(N, action=action, masked=masked)
    space = batch_space(envs.action_space, N)
    space.seed(0)
    obs, lowest = envs.reset(seed=1), 1.0
    for _ in range(20):
        target = envs.state_dict()["target"].tolist()
        given = space.sample()
        step = envs.step(to_torch(given))
        for i in range(N):
            one = {key: x[i] for key, x in given.items()} if isinstance(given, dict) else given[i]
            mask = obs["action_mask"][i].tolist() if masked else None
            scores, used = referee(action, envs.action_space, one, target[i], mask)
            assert step.reward[i].item() == pytest.approx(np.mean(scores), abs=1e-5)
            assert mask is None or used == len(mask)
            lowest = min(lowest, *scores)
        obs = step.obs
    assert lowest == -1.0 if masked else lowest > -1.0


@every_action
def test_the_right_action_pays_one_in_its_own_space(action, masked):
    N = 32
    envs = Spaces(N, action=action, masked=masked)
    envs.reset(seed=2)
    for _ in range(20):
        right = envs.right_action()
        assert all(row in envs.action_space for row in typed_rows(right, envs.action_space, N))
        torch.testing.assert_close(envs.step(right).reward, torch.ones(N))


def typed_rows(action, space, N):
    if isinstance(space, spaces.Dict):
        columns = {key: typed_rows(action[key], part, N) for key, part in space.items()}
        return [{key: column[i] for key, column in columns.items()} for i in range(N)]
    return list(action.numpy().astype(space.dtype))


def uniform_legal(space, mask, N, generator):
    """A uniform draw for each of N environments, by the mask (N, K) where there is one; and the numbers of it used."""
    if isinstance(space, spaces.Dict):
        action, used = {}, 0
        for key, part in space.items():
            action[key], n = uniform_legal(part, None if mask is None else mask[:, used:], N, generator)
            used += n
        return action, used
    if isinstance(space, spaces.Box):
        low, high = torch.tensor(space.low), torch.tensor(space.high)
        return low + (high - low) * torch.rand(N, *space.shape, generator=generator), 0
    sizes = [int(space.n)] if isinstance(space, spaces.Discrete) else getattr(space, "nvec", [2] * space.shape[0])
    start = torch.as_tensor(getattr(space, "start", 0))
    picks, used = [], 0
    for n in sizes:
        weight = torch.ones(N, n) if mask is None else mask[:, used : used + n].float()
        picks.append(torch.multinomial(weight, 1, generator=generator))
        used += n
    action = torch.cat(picks, dim=1)
    return (action[:, 0] if isinstance(space, spaces.Discrete) else action) + start, used


@every_action
def test_chance_is_what_it_says(action, masked):
    N = 20_000
    envs, generator = Spaces(N, action=action, masked=masked), torch.Generator().manual_seed(0)
    obs, rewards = envs.reset(seed=3), []
    for _ in range(4):
        step = envs.step(uniform_legal(envs.action_space, obs["action_mask"] if masked else None, N, generator)[0])
        rewards.append(step.reward)
        obs = step.obs
    assert torch.stack(rewards).mean().item() == pytest.approx(envs.chance_reward, abs=0.008)


@pytest.mark.parametrize("action", [action for action, masked in MASKED if masked])
def test_masks_vary_and_always_leave_what_is_right(action):
    N = 4096
    envs = Spaces(N, action=action, masked=True)
    mask = envs.reset(seed=4)["action_mask"]
    generator = torch.Generator().manual_seed(1)
    uniform_legal(envs.action_space, mask, N, generator)  # multinomial raises where nothing is legal
    assert (mask.float().mean(0) > 0.55).all()
    assert (mask.float().mean(0) < 0.95).all()
    assert len(mask.unique(dim=0)) > 10


def test_a_choice_that_does_not_exist_is_an_error():
    for action, wrong in (("discrete", [4]), ("discrete_start", [0]), ("multidiscrete", [[0, 3]])):
        envs = Spaces(1, action=action)
        envs.reset(seed=0)
        with pytest.raises(RuntimeError, match="out of bounds"):
            envs.step(torch.tensor(wrong))


def test_episodes_have_all_lengths_and_both_endings_equally_often():
    N = 4000
    envs = Spaces(N, min_length=1, max_length=4)
    envs.reset(seed=5)
    length, counts = torch.zeros(N, dtype=torch.int64), torch.zeros(5, 2)
    for _ in range(100):
        step = envs.step(envs.right_action())
        length += 1
        for way, flag in enumerate((step.terminated, step.truncated)):
            counts[:, way] += length[flag].bincount(minlength=5)
        assert not (step.terminated & step.truncated).any()
        length[step.terminated | step.truncated] = 0
    share = counts / counts.sum()
    torch.testing.assert_close(share[1:], torch.full((4, 2), 1 / 8), rtol=0, atol=0.004)
