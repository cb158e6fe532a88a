"""CartPole-v1, batched: a pole stands on a cart, and pushing the cart left or right must keep it upright.

Equal to Gymnasium's CartPole-v1 (its time limit included) step by step; in float64 to 1e-12 from equal states.

- Observation (4,): x (m), x' (m/s), theta (rad; 0 is upright, positive leans right), theta' (rad/s). With
  `observe_velocities=False`, which is ppo_lab/CartPoleNoVelocity-v1, (2,): x and theta. The policy then needs memory to
  estimate the velocities.
- Action: Discrete(2): 0 pushes the cart left with 10 N, 1 right.
- Reward: 1 for every step, including the one that terminates the episode.
- Terminated: |x| > 2.4 m or |theta| > 12 degrees after the step.
- Truncated: the episode has `max_episode_steps` steps (500 in v1). A step can be both, as in Gymnasium.
- Reset: all four numbers uniform in [-0.05, 0.05), from one generator on the device for all N carts.

Dynamics (Barto, Sutton and Anderson 1983; without friction as in Florian 2007), explicit Euler with tau = 0.02 s:

    (M + m) x'' + m l (theta'' cos theta - theta'^2 sin theta) = F      cart and pole: M = 1 kg, m = 0.1 kg
    4/3 l theta'' + x'' cos theta = g sin theta                         the pole: l = 0.5 m (half of it), g = 9.8 m/s^2

In float32 an episode may end a step earlier or later than in Gymnasium, which integrates in float64, but only where a
step lands within rounding of a threshold.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from PIL import Image, ImageDraw
from torch import Tensor

from ppo_lab.envs import Envs, Step
from ppo_lab.envs.snapshots import check_fit
from ppo_lab.errors import EnvError

GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
X_LIMIT, THETA_LIMIT = 2.4, math.radians(12)
RESET_BOUND = 0.05

# Solved for theta'' and multiplied by (M + m) / (m l), the two equations need four operations fewer:
#   u = F / (m l) + theta'^2 sin,   theta'' = (cos u - g* sin) / (cos^2 - k),   x'' = (u - theta'' cos) m l / (M + m)
MOMENT = POLE_MASS * HALF_LENGTH
G_STAR = GRAVITY * (CART_MASS + POLE_MASS) / MOMENT
K = 4 / 3 * (CART_MASS + POLE_MASS) / POLE_MASS


class CartPole(Envs):
    """N carts as one batched tensor program: `ppo_lab.envs.Envs`, with same-step reset.

    All memory is preallocated and written in place: `step` returns the same `Step` every time, and a caller that keeps
    its tensors must copy them. So a whole step can be captured in a CUDA graph (register `generator` with it).

    Args:
        num_envs: N.
        device: Device of all tensors.
        dtype: float32 or float64, of state and observation.
        max_episode_steps: Steps after which an episode is truncated.
        observe_velocities: Include x' and theta' in the observation; the state has them either way.
        use_numpy: Compute on NumPy views of the same memory: bit-identical in half the time at N = 8, because an
            operation on a few numbers costs 0.3 microseconds in NumPy and 1.2 in torch. None: True on a CPU.

    Raises:
        EnvError: An argument is outside its range, or `use_numpy` is True on a device other than the CPU.
    """

    capturable = True
    frames_per_second = round(1 / TAU)

    def __init__(
        self,
        num_envs: int,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        max_episode_steps: int = 500,
        observe_velocities: bool = True,
        use_numpy: bool | None = None,
    ) -> None:
        if num_envs < 1 or max_episode_steps < 1:
            raise EnvError(f"CartPole: num_envs={num_envs}, max_episode_steps={max_episode_steps}; both must be >= 1")
        if dtype not in (torch.float32, torch.float64):
            raise EnvError(f"CartPole: dtype={dtype}; allowed are torch.float32 and torch.float64")
        self.num_envs, self.device, self.max_episode_steps = num_envs, torch.device(device), max_episode_steps
        on_cpu = self.device.type == "cpu"
        if use_numpy and not on_cpu:
            raise EnvError(f"CartPole: use_numpy=True with device={str(device)!r}; NumPy needs 'cpu'")
        bounds = [2 * X_LIMIT, np.inf, 2 * THETA_LIMIT, np.inf]
        high = np.array(bounds if observe_velocities else bounds[::2], str(dtype).removeprefix("torch."))
        self.observation_space = spaces.Box(-high, high, dtype=high.dtype.type)
        self.action_space = spaces.Discrete(2)
        self.generator = torch.Generator(self.device)
        self._use_numpy = on_cpu if use_numpy is None else use_numpy
        self._observe_velocities = observe_velocities
        t = self._tensors = self._arrays = _allocate(num_envs, self.device, dtype, observe_velocities)
        self._xp: Any = torch  # the module whose functions `_advance` calls on `_arrays`
        if self._use_numpy:
            self._xp, self._arrays = np, SimpleNamespace(**{name: tensor.numpy() for name, tensor in vars(t).items()})
        self.obs: Tensor = t.obs  # (N, 4), or (N, 2) without velocities: the observation to act on next
        self._step = Step(t.obs, t.reward, t.terminated, t.truncated, t.final_obs, t.valid)

    def reset(self, seed: int) -> Tensor:
        """Start N new episodes; equal seeds on equal devices give equal episodes. Returns obs (N, 4 or 2)."""
        t = self._tensors
        self.generator.manual_seed(seed)
        t.state.uniform_(-RESET_BOUND, RESET_BOUND, generator=self.generator)
        t.elapsed.zero_()
        self._observe()
        return self.obs

    def step(self, action: Tensor) -> Step:
        """Push every cart once: action (N,) int64, 0 left or 1 right."""
        t, s = self._tensors, self._arrays
        self._advance(action.numpy() if self._use_numpy else action)
        # Initial states are drawn for all and used where an episode ended: a check would synchronize with the device.
        t.fresh.uniform_(-RESET_BOUND, RESET_BOUND, generator=self.generator)
        if self._use_numpy:
            np.copyto(s.state, s.led_to)
            np.copyto(s.state, s.fresh, where=s.done)
            np.copyto(s.elapsed, 0, where=s.done)
        else:
            torch.where(t.done, t.fresh, t.led_to, out=t.state)
            t.elapsed.masked_fill_(t.done, 0)
        self._observe()
        return self._step

    def _advance(self, action: Any) -> None:
        """Compute one Euler step from `state` to `led_to`, its reward and its flags: same code for NumPy and torch."""
        xp, s = self._xp, self._arrays
        torch.sin(self._tensors.theta, out=self._tensors.sin)  # torch in both cases: NumPy differs in the last bit
        torch.cos(self._tensors.theta, out=self._tensors.cos)

        xp.take(s.push, action, out=s.u)
        xp.multiply(s.theta_dot, s.theta_dot, out=s.a)
        xp.multiply(s.a, s.sin, out=s.a)
        xp.add(s.u, s.a, out=s.u)  # u = F / (m l) + theta'^2 sin

        xp.multiply(s.cos, s.u, out=s.a)
        xp.multiply(s.sin, s.g_star, out=s.b)
        xp.subtract(s.a, s.b, out=s.a)
        xp.multiply(s.cos, s.cos, out=s.b)
        xp.subtract(s.b, s.k, out=s.b)
        xp.divide(s.a, s.b, out=s.theta_accel)  # (cos u - g* sin) / (cos^2 - k)
        xp.multiply(s.theta_accel, s.cos, out=s.a)
        xp.subtract(s.u, s.a, out=s.x_accel)  # u - theta'' cos, in units of m l / (M + m)

        xp.multiply(s.derivative, s.rate, out=s.change)  # (4, N) explicit Euler: the old velocity moves the position
        xp.add(s.state, s.change, out=s.led_to)

        xp.abs(s.position, out=s.distance)  # (2, N)
        xp.greater(s.distance, s.limit, out=s.beyond)
        xp.logical_or(s.x_beyond, s.theta_beyond, out=s.terminated)
        xp.add(s.elapsed, 1, out=s.elapsed)
        xp.greater_equal(s.elapsed, self.max_episode_steps, out=s.truncated)
        xp.logical_or(s.terminated, s.truncated, out=s.done)
        s.reward[:] = 1.0  # set in every step: a caller may have scaled the last reward in place

    def _observe(self) -> None:
        # Positions and velocities apart: with many carts one copy of both is several times slower (2 x 2 inner loops).
        s, copy = self._arrays, np.copyto if self._use_numpy else Tensor.copy_
        copy(s.observed_position, s.positions)
        if self._observe_velocities:
            copy(s.observed_velocity, s.velocities)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything the next step depends on: `state` (N, 4) with velocities, `elapsed` (N,), `generator`."""
        t = self._tensors
        state = t.state_by_cart.reshape(self.num_envs, 4).clone()
        return {"state": state, "elapsed": t.elapsed.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict` as if never stopped, `obs` included. Raises EnvError if it does not fit."""
        check_fit("CartPole", state, self.state_dict())
        t = self._tensors
        t.state_by_cart.copy_(state["state"].reshape(-1, 2, 2))
        t.elapsed.copy_(state["elapsed"])
        self.generator.set_state(state["generator"].cpu())
        self._observe()

    def frame(self, index: int = 0) -> np.ndarray:
        """Draw cart `index` as (200, 300, 3) uint8 RGB, 60 pixels a metre."""
        x, theta = self._tensors.positions[1, index].tolist()
        scale, width, height, track = 120, 600, 400, 320  # drawn at twice the size and shrunk, for smooth edges
        image = Image.new("RGB", (width, height), "#fafafa")
        draw = ImageDraw.Draw(image)
        draw.line((0, track, width, track), fill="#9aa0a6", width=4)
        for limit in (-X_LIMIT, X_LIMIT):
            at = width / 2 + limit * scale
            draw.line((at, track - 12, at, track + 12), fill="#d93025", width=4)
        cart = width / 2 + x * scale
        pivot = track - 32
        length = 2 * HALF_LENGTH * scale
        tip = (cart + length * math.sin(theta), pivot - length * math.cos(theta))
        draw.rounded_rectangle((cart - 48, track - 52, cart + 48, track - 4), radius=8, fill="#3c4043")
        draw.line((cart, pivot, *tip), fill="#e8710a", width=16)
        draw.ellipse((cart - 9, pivot - 9, cart + 9, pivot + 9), fill="#1a73e8")
        return np.array(image.resize((width // 2, height // 2), Image.Resampling.BOX))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _allocate(N: int, device: torch.device, dtype: torch.dtype, observe_velocities: bool) -> SimpleNamespace:
    """Allocate all memory of N carts, by name; many names are views of one block.

    The arithmetic runs on rows, one per quantity. Their order makes the derivative a view: the rows of `state` are
    x, theta, x', theta'; those of `derivative` are the last two of these and the two accelerations.
    Networks get contiguous (N, 4) or (N, 2) copies: products with transposed views may differ in the last bit from
    products with contiguous rows, and then the first ratio of an update is not 1.
    """

    def full(*shape: int, value: float = 0, dtype: torch.dtype = dtype) -> Tensor:
        return torch.full(shape, value, dtype=dtype, device=device)

    block = full(10, N)  # led_to, state, accelerations
    both = block[:8].view(2, 4, N)
    obs = full(2, N, 4 if observe_velocities else 2)  # of both
    beyond = full(2, N, dtype=torch.bool)
    rate = full(4, N, value=TAU)
    rate[2] *= MOMENT / (CART_MASS + POLE_MASS)
    limit = torch.tensor([[X_LIMIT], [THETA_LIMIT]], dtype=dtype, device=device).repeat(1, N)
    return SimpleNamespace(
        led_to=block[:4],
        position=block[:2],  # x and theta of led_to
        state=block[4:8],
        state_by_cart=block[4:8].view(2, 2, N).permute(2, 1, 0),  # (N, x or theta, itself or its velocity)
        theta=block[5],
        theta_dot=block[7],
        derivative=block[6:10],
        x_accel=block[8],
        theta_accel=block[9],
        positions=both[:, :2].mT,  # (2, N, 2)
        velocities=both[:, 2:].mT,
        observed_position=obs[:, :, 0::2] if observe_velocities else obs,
        observed_velocity=obs[:, :, 1::2],
        final_obs=obs[0],
        obs=obs[1],
        push=torch.tensor([-FORCE / MOMENT, FORCE / MOMENT], dtype=dtype, device=device),  # (2,) by action
        **{name: full(N) for name in ("sin", "cos", "u", "a", "b")},
        **{name: full(4, N) for name in ("change", "fresh")},
        g_star=full(N, value=G_STAR),  # constants as rows: a Python number costs more than a row of eight
        k=full(N, value=K),
        rate=rate,
        distance=full(2, N),
        limit=limit,
        beyond=beyond,
        x_beyond=beyond[0],
        theta_beyond=beyond[1],
        elapsed=full(N, dtype=torch.int64),
        reward=full(N, dtype=torch.float32),
        **{name: full(N, dtype=torch.bool) for name in ("terminated", "truncated", "done")},
        valid=full(N, value=True, dtype=torch.bool),
    )
