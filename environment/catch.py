"""Catch-v0: a ball falls, and the paddle must be under it when it lands. Three kinds of observation of the same game.

A grid of `height` x `width` cells. Each ball starts in the top row, in a random column, and falls one row a step. The
paddle moves in the bottom row. Up to `decoys` decoys fall together with each ball, in other columns: they look
different, and nothing happens when they land. `balls` balls fall one after the other; the episode ends when the last
has landed.

- Observation, by the option `observation`:
  "pixels"    (height, width, 1) uint8: ball 255, paddle 170, decoy 85, empty 0. In a shared cell the first of these is
              drawn.
  "entities"  a set: `entities` (2 + decoys, 5) float32, each x, y (0 to 1, left to right and top to bottom), and its
              kind one-hot (paddle, ball, decoy); `entities_mask` (2 + decoys,), False where there is none (zeros).
  "vector"    (3 + decoys,) float32: x of the paddle, x and y of the ball, x of the decoys (-1: there is none).
- Action: Discrete(3): the paddle moves left, stays, moves right (0, 1, 2), by one cell, and stops at the walls.
- Order in a step: the paddle moves, then ball and decoys fall.
- Reward, where a ball lands (reaches the bottom row): +1 if the paddle is there, else -1; 0 on all other steps.
- Terminated: when the last ball has landed, after balls * (height - 1) steps. Never truncated.
- Reset: the paddle in the middle, (width - 1) // 2. For each ball: columns uniform and all different, the number of
  decoys uniform in 0..decoys. The paddle stays where it is between balls.

Return of an episode: at most `balls`, reachable because with width <= height the paddle gets anywhere in time. Any
policy that ignores the observation gets balls * (2 / width - 1) on average: -0.8 with the defaults.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from PIL import Image, ImageDraw
from torch import Tensor

from ppo_lab.envs import Envs, Obs, Step, snapshots
from ppo_lab.errors import EnvError

BALL, PADDLE, DECOY = 255, 170, 85  # brightness
OBSERVATIONS = ("pixels", "entities", "vector")


class Catch(Envs):
    """N games as one batched tensor program: `ppo_lab.envs.Envs`, with same-step reset.

    Args:
        num_envs: N.
        device: Device of all tensors.
        observation: "pixels", "entities" or "vector"; the random draws of the game are the same for all three.
        height, width: Cells of the grid; 2 <= width <= height.
        balls: Balls per episode.
        decoys: Most decoys that fall with each ball; below `width`.

    Raises:
        EnvError: An argument is outside its range.
    """

    capturable = True
    frames_per_second = 10

    def __init__(
        self,
        num_envs: int,
        device: str | torch.device = "cpu",
        observation: str = "pixels",
        height: int = 10,
        width: int = 10,
        balls: int = 1,
        decoys: int = 2,
    ) -> None:
        if num_envs < 1 or balls < 1:
            raise EnvError(f"Catch: num_envs={num_envs}, balls={balls}; both must be >= 1")
        if not 2 <= width <= height or not 0 <= decoys < width:
            given = f"height={height}, width={width}, decoys={decoys}"
            raise EnvError(f"Catch: {given}; required: 2 <= width <= height and 0 <= decoys < width")
        if observation not in OBSERVATIONS:
            raise EnvError(f"Catch: observation={observation!r}; allowed are {', '.join(OBSERVATIONS)}")
        self.num_envs, self.device, self.observation = num_envs, torch.device(device), observation
        self.height, self.width, self.balls, self.decoys = height, width, balls, decoys
        self.max_episode_steps = balls * (height - 1)
        self.observation_space = _space(observation, height, width, decoys)
        self.action_space = spaces.Discrete(3)
        self.generator = torch.Generator(self.device)
        self._slots = torch.arange(1, 1 + decoys, device=self.device)
        self._cells = torch.arange(height * width, device=self.device)
        self._kind = torch.eye(3, device=self.device)[[0, 1] + [2] * decoys]  # (2 + decoys, 3)
        self._paddle, self._row, self._landed, self._present = torch.zeros(
            4, num_envs, dtype=torch.int64, device=self.device
        )
        self._columns = torch.zeros(num_envs, 1 + decoys, dtype=torch.int64, device=self.device)
        self._memory = {
            "paddle": self._paddle,  # its column
            "row": self._row,  # of ball and decoys
            "columns": self._columns,  # (N, 1 + decoys): the ball's, then the decoys'
            "present": self._present,  # number of decoys: the first `present` columns
            "landed": self._landed,  # balls landed so far
        }
        self._valid = torch.ones(num_envs, dtype=torch.bool, device=self.device)

    @property
    def obs(self) -> Obs:
        """The observation to act on next: (N, height, width, 1), a dict of set and mask, or (N, 3 + decoys)."""
        if self.observation == "pixels":
            return self._pixels()
        return self._entities() if self.observation == "entities" else self._vector()

    def reset(self, seed: int) -> Obs:
        """Start N new episodes; equal seeds on equal devices give equal episodes. Returns obs."""
        self.generator.manual_seed(seed)
        self._start(self._valid)
        self._drop(self._valid)
        return self.obs

    def step(self, action: Tensor) -> Step:
        """Move every paddle, then let balls and decoys fall: action (N,) int64."""
        self._paddle.add_(action - 1).clamp_(0, self.width - 1)
        self._row += 1
        landing = self._row == self.height - 1
        caught = self._columns[:, 0] == self._paddle
        reward = (landing * (2 * caught - 1)).float()
        self._landed += landing
        terminated = self._landed == self.balls
        self._drop(landing & ~terminated)
        final_obs = self.obs
        self._start(terminated)
        self._drop(terminated)
        return Step(self.obs, reward, terminated, ~self._valid, final_obs, self._valid)

    def _start(self, where: Tensor) -> None:
        self._paddle.masked_fill_(where, (self.width - 1) // 2)
        self._landed.masked_fill_(where, 0)

    def _drop(self, where: Tensor) -> None:
        """Drop the next ball and its decoys where `where` is True; drawn for all, to avoid a device sync."""
        N, generator, device = self.num_envs, self.generator, self.device
        order = torch.rand(N, self.width, generator=generator, device=device).argsort(dim=1)
        columns = order[:, : 1 + self.decoys]  # the first of a random permutation: all different
        present = torch.randint(self.decoys + 1, (N,), generator=generator, device=device)
        self._columns.copy_(torch.where(where[:, None], columns, self._columns))
        self._present.copy_(torch.where(where, present, self._present))
        self._row.masked_fill_(where, 0)

    def _visible(self) -> Tensor:
        return self._slots <= self._present[:, None]  # (N, decoys)

    def _pixels(self) -> Tensor:
        fallen = self._row[:, None] * self.width + self._columns  # (N, 1 + decoys) cells
        paddle = (self.height - 1) * self.width + self._paddle
        decoys = (fallen[:, 1:, None] == self._cells) & self._visible()[:, :, None]  # (N, decoys, cells)
        image = torch.zeros(self.num_envs, len(self._cells), dtype=torch.uint8, device=self.device)
        image.masked_fill_(decoys.any(dim=1), DECOY)
        image.masked_fill_(self._cells == paddle[:, None], PADDLE)
        image.masked_fill_(self._cells == fallen[:, :1], BALL)
        return image.view(self.num_envs, self.height, self.width, 1)

    def _entities(self) -> dict[str, Tensor]:
        N = self.num_envs
        falling = (self._row / (self.height - 1))[:, None].expand(N, 1 + self.decoys)
        x = torch.cat([self._paddle[:, None], self._columns], dim=1) / (self.width - 1)  # (N, 2 + decoys)
        y = torch.cat([torch.ones_like(falling[:, :1]), falling], dim=1)
        there = torch.cat([self._valid[:, None].expand(N, 2), self._visible()], dim=1)
        entities = torch.cat([x[:, :, None], y[:, :, None], self._kind.expand(N, -1, -1)], dim=2)
        return {"entities": entities * there[:, :, None], "entities_mask": there}

    def _vector(self) -> Tensor:
        x = self._columns / (self.width - 1)
        decoys = x[:, 1:].masked_fill(~self._visible(), -1.0)
        both = torch.stack([self._paddle / (self.width - 1), x[:, 0], self._row / (self.height - 1)], dim=1)
        return torch.cat([both, decoys], dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything the next step depends on: the five tensors of `_memory`, and `generator`."""
        return snapshots.save(self._memory, self.generator)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict` as if never stopped. Raises EnvError if it does not fit."""
        snapshots.load("Catch", self._memory, self.generator, state)

    def frame(self, index: int = 0) -> np.ndarray:
        """Draw game `index` as (20 height, 20 width, 3) uint8 RGB: orange ball, blue paddle, grey decoys."""
        game = {key: tensor[index].tolist() for key, tensor in self._memory.items()}
        side = 40  # drawn at twice the size and shrunk, for smooth edges
        image = Image.new("RGB", (self.width * side, self.height * side), "#fafafa")
        draw = ImageDraw.Draw(image)

        def at(column: int, row: int, top: int) -> tuple[int, int, int, int]:
            x, y = column * side, row * side
            return x + 3, y + top, x + side - 3, y + side - 3

        draw.rounded_rectangle(at(game["paddle"], self.height - 1, 26), radius=5, fill="#1a73e8")
        for column in game["columns"][1 : 1 + game["present"]]:
            draw.rectangle(at(column, game["row"], 3), fill="#bdc1c6")
        draw.ellipse(at(game["columns"][0], game["row"], 3), fill="#e8710a")
        return np.array(image.resize((self.width * side // 2, self.height * side // 2), Image.Resampling.BOX))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _space(observation: str, height: int, width: int, decoys: int) -> spaces.Space[Any]:
    if observation == "pixels":
        return spaces.Box(0, 255, (height, width, 1), np.uint8)
    if observation == "vector":
        low = np.array([0, 0, 0] + [-1] * decoys, np.float32)
        return spaces.Box(low, np.ones_like(low))
    entities = spaces.Box(0.0, 1.0, (2 + decoys, 5), np.float32)
    return spaces.Dict({"entities": entities, "entities_mask": spaces.MultiBinary(2 + decoys)})
