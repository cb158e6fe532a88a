"""Catch is what its docstring says, told once more in plain Python, and the same game in all three observations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from environment.catch import Catch

SIZES = [{}, {"height": 6, "width": 4, "balls": 3, "decoys": 3}, {"height": 3, "width": 3, "decoys": 0, "balls": 2}]
every_size = pytest.mark.parametrize("kwargs", SIZES)


class Told:
    """One game, from what was drawn."""

    def __init__(self, height, width, balls):
        self.height, self.width, self.balls = height, width, balls
        self.paddle, self.landed = (width - 1) // 2, 0

    def drop(self, columns, present):
        self.row, self.ball, self.decoys = 0, columns[0], columns[1 : 1 + present]

    def step(self, action):
        self.paddle = min(max(self.paddle + (action - 1), 0), self.width - 1)
        self.row += 1
        if self.row < self.height - 1:
            return 0.0, False
        self.landed += 1
        return (1.0 if self.ball == self.paddle else -1.0), True

    def pixels(self):
        image = np.zeros((self.height, self.width, 1), np.uint8)
        for column in self.decoys:
            image[self.row, column] = 85
        image[self.height - 1, self.paddle] = 170
        image[self.row, self.ball] = 255
        return image

    def entities(self, decoys):
        x, y = 1 / (self.width - 1), self.row / (self.height - 1)
        rows = [[self.paddle * x, 1.0, 1, 0, 0], [self.ball * x, y, 0, 1, 0]]
        rows += [[column * x, y, 0, 0, 1] for column in self.decoys]
        absent = decoys - len(self.decoys)
        return rows + [[0.0] * 5] * absent, [True] * len(rows) + [False] * absent

    def vector(self, decoys):
        x, y = 1 / (self.width - 1), self.row / (self.height - 1)
        absent = [-1.0] * (decoys - len(self.decoys))
        return [self.paddle * x, self.ball * x, y, *[column * x for column in self.decoys], *absent]


def check_shown(games, obs):
    """All three observations of all games (those of three batches of the same games)."""
    pixels, entities, vector = obs
    decoys = vector.shape[1] - 3
    np.testing.assert_array_equal(pixels, np.stack([game.pixels() for game in games]))
    rows, there = zip(*(game.entities(decoys) for game in games), strict=True)
    np.testing.assert_allclose(entities["entities"], rows, rtol=1e-6)
    np.testing.assert_array_equal(entities["entities_mask"], there)
    np.testing.assert_allclose(vector, [game.vector(decoys) for game in games], rtol=1e-6)


@every_size
def test_games_are_those_told_in_plain_python(kwargs):
    N = 16
    batches = [Catch(N, observation=way, **kwargs) for way in ("pixels", "entities", "vector")]
    envs = batches[0]
    games = [Told(envs.height, envs.width, envs.balls) for _ in range(N)]

    def drop(i):
        state = envs.state_dict()
        games[i].drop(state["columns"][i].tolist(), state["present"][i].item())

    obs = [batch.reset(seed=1) for batch in batches]
    for i in range(N):
        drop(i)
    caught = ended = 0
    for k in range(100):
        check_shown(games, obs)
        action = torch.randint(3, (N,), generator=torch.Generator().manual_seed(k))
        steps = [batch.step(action) for batch in batches]
        for step in steps[1:]:
            assert torch.equal(step.reward, steps[0].reward)
            assert torch.equal(step.terminated, steps[0].terminated)
        over = []
        for i, game in enumerate(games):
            reward, landed = game.step(action[i].item())
            assert steps[0].reward[i] == reward
            caught += reward == 1
            over.append(game.landed == game.balls)
            if landed and not over[i]:
                drop(i)
        assert steps[0].terminated.tolist() == over
        assert not steps[0].truncated.any()
        check_shown(games, [step.final_obs for step in steps])
        for i in np.flatnonzero(over):
            ended += 1
            games[i] = Told(envs.height, envs.width, envs.balls)
            drop(i)
        obs = [step.obs for step in steps]
    assert caught > 5
    assert ended > N


def mean_return(policy, kwargs, N=512):
    """policy(vector observation) -> action; each of N games played to its end."""
    envs = Catch(N, observation="vector", **kwargs)
    obs, total = envs.reset(seed=4), torch.zeros(N)
    for t in range(1, envs.balls * (envs.height - 1) + 1):
        step = envs.step(policy(obs))
        total += step.reward
        obs = step.obs
        assert step.terminated.all() if t == envs.balls * (envs.height - 1) else not step.terminated.any()
    return total


@every_size
def test_going_to_the_ball_gets_the_best_return(kwargs):
    assert (mean_return(lambda obs: 1 + (obs[:, 1] - obs[:, 0]).sign().long(), kwargs) == kwargs.get("balls", 1)).all()


@every_size
@pytest.mark.parametrize("action", [0, 1, 2])
def test_not_looking_gets_chance(kwargs, action):
    width, balls, N = kwargs.get("width", 10), kwargs.get("balls", 1), 4096
    total = mean_return(lambda obs: torch.full((len(obs),), action), kwargs, N)
    error = 2 * (balls / width * (1 - 1 / width) / N) ** 0.5
    assert total.mean().item() == pytest.approx(balls * (2 / width - 1), abs=4 * error)


def test_columns_are_uniform_and_differ():
    envs = Catch(30_000, width=5, decoys=2)
    envs.reset(seed=0)
    state = envs.state_dict()
    columns = state["columns"]
    assert (columns.sort(dim=1).values.diff(dim=1) > 0).all()
    pair = (5 * columns[:, 0] + columns[:, 1]).bincount(minlength=25).view(5, 5)
    assert (pair.diag() == 0).all()
    off = ~torch.eye(5, dtype=torch.bool)
    torch.testing.assert_close(pair[off], torch.full((20,), 1500), rtol=0, atol=200)
    torch.testing.assert_close(state["present"].bincount(), torch.full((3,), 10_000), rtol=0, atol=400)


def test_the_picture_shows_the_game():
    envs = Catch(4, decoys=3)
    envs.reset(seed=5)
    envs.step(torch.tensor([0, 1, 2, 2]))
    state = envs.state_dict()
    for i in range(4):
        frame = envs.frame(i)
        assert frame.shape == (200, 200, 3)
        assert frame.dtype == np.uint8
        cell = frame.reshape(10, 20, 10, 20, 3).mean((1, 3))  # (row, column, RGB)
        orange = cell[..., 0] - cell[..., 2]
        assert np.unravel_index(orange.argmax(), orange.shape) == (1, state["columns"][i, 0].item())
        assert (orange.min(1).argmin(), orange[9].argmin()) == (9, state["paddle"][i].item())
        grey = np.abs(cell - [189, 193, 198]).sum(-1) < 60
        assert np.argwhere(grey).tolist() == sorted(
            [1, column] for column in state["columns"][i, 1 : 1 + state["present"][i]].tolist()
        )
