"""The controller in an exported file: `controller_file` copies the source of everything below the settings.

So it uses only NumPy and the other source in that file: `environment.lateral.driver` and PID. It is a module here so
that it is linted and tested like all code; the settings below are examples that every export replaces.
"""

from __future__ import annotations

import base64
import math
from itertools import pairwise
from typing import Any

import numpy as np

from ..controllers import PidController
from ..driver import compact, feedforward, full256, integrate, steer
from ..rules import CONTEXT, CONTROL_START, PREVIEW

OBSERVATION, ACTION = "compact", "delta"
LAYERS: tuple[int, ...] = (41, 1)  # number of inputs, units of each hidden layer, number of outputs
ACTIVATION, DISTRIBUTION = "tanh", "gaussian"
OBS_CLIP: float | None = None  # bound of the normalised observation; None: it is not normalised
WEIGHTS = ""  # float32 in base64: mean and 1 / std of the observation if it is normalised; each layer's weight and bias


class BaseController:
    """Stands in for the challenge's class."""


def activate(x: np.ndarray) -> np.ndarray:
    """Apply the activation function of the hidden layers."""
    if ACTIVATION == "tanh":
        return np.tanh(x)
    if ACTIVATION == "relu":
        return np.maximum(x, 0.0)
    if ACTIVATION == "elu":
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))
    if ACTIVATION == "gelu":
        return x * 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))
    if ACTIVATION == "leaky_relu":
        return np.where(x > 0, x, 0.01 * x)
    return x * 0.5 * (1 + np.tanh(x / 2))  # silu: x sigmoid(x), written so that exp cannot overflow


class Network:
    """The actor: observations (N, n) -> the most likely actions (N,), within +-1. float64 with float32 weights."""

    def __init__(self) -> None:
        numbers = np.frombuffer(base64.b64decode(WEIGHTS), "<f4").astype(np.float64)
        shapes: list[tuple[int, ...]] = [] if OBS_CLIP is None else [LAYERS[:1], LAYERS[:1]]
        for num_inputs, num_outputs in pairwise(LAYERS):
            shapes += [(num_outputs, num_inputs), (num_outputs,)]
        parts, start = [], 0
        for shape in shapes:
            parts.append(numbers[start : start + math.prod(shape)].reshape(shape))
            start += math.prod(shape)
        self.layers = parts[-2 * (len(LAYERS) - 1) :]  # weight, bias, weight, bias, ...
        self.normal = parts[: -len(self.layers)]  # mean, scale, or nothing

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Compute actions: (N, n) -> (N,)."""
        x = obs.astype(np.float64)
        if OBS_CLIP is not None:
            mean, scale = self.normal
            x = ((x - mean) * scale).clip(-OBS_CLIP, OBS_CLIP)
        for i in range(0, len(self.layers) - 2, 2):
            x = activate(x @ self.layers[i].T + self.layers[i + 1])
        x = x @ self.layers[-2].T + self.layers[-1]
        if DISTRIBUTION == "squashed":
            return np.tanh(x[:, 0])
        if DISTRIBUTION == "beta":  # the mode of Beta(1 + a, 1 + b), scaled from [0, 1] to [-1, 1]
            a, b = np.logaddexp(0.0, x).clip(0.0, 1e4).T + 1e-12
            return 2 * (a / (a + b)).clip(1e-6, 1 - 1e-6) - 1
        return x[:, 0].clip(-1.0, 1.0)


def preview(now: float, plan: Any) -> np.ndarray:
    """Return rows t to t+49, (50, 1), from the current value and the plan. A short plan repeats its last row."""
    rows = [float(now), *map(float, plan)][:PREVIEW]
    return np.array(rows + rows[-1:] * (PREVIEW - len(rows)))[:, None]


class Controller(BaseController):
    """One car, called once per row from row 20 on. Before row 100 the recorded steering is applied, which is hidden.

    For these rows it assumes, and returns, the steering that holds the target in steady state.
    """

    def __init__(self) -> None:
        self.network, self.pid = Network(), PidController()
        self.row = CONTEXT
        self.integral = np.zeros(1)  # of the error before this row
        self.lataccel, self.commands = np.zeros((CONTEXT, 1)), np.zeros((CONTEXT, 1))  # rows t-20 to t-1

    def update(self, target_lataccel: float, current_lataccel: float, state: Any, future_plan: Any) -> float:
        """Return the steering command of this row; current_lataccel is that at the end of the previous row."""
        target = preview(target_lataccel, future_plan.lataccel)
        roll = preview(state.roll_lataccel, future_plan.roll_lataccel)
        v, a = preview(state.v_ego, future_plan.v_ego), preview(state.a_ego, future_plan.a_ego)
        lataccel = np.full(1, float(current_lataccel))
        self.lataccel = np.concatenate([self.lataccel[1:], lataccel[None]])
        pid = self.pid.update(target, roll, v, a, lataccel)
        if self.row < CONTROL_START:
            command = feedforward(target[0], roll[0], v[0])
        else:
            see = {"compact": compact, "full256": full256}[OBSERVATION]
            obs = see(np, target, roll, v, a, self.lataccel, self.commands, self.integral)
            x = self.network(obs.T.astype(np.float32))  # the dtype that the policy was trained with
            command = steer(ACTION, x, self.commands[-1], pid)
        self.integral = integrate(self.integral, target[0] - lataccel)
        self.commands = np.concatenate([self.commands[1:], command[None]])
        self.row += 1
        return float(command[0])
