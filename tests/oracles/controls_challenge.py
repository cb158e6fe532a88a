"""One car driven by the published rules of comma.ai's controls challenge, row by row, with its PID controller.

Written from the description of the rules (files, seeds, order of calls, tokens, sampling), with NumPy and the user's
network alone: one segment, one row, one call of the whole graph at a time.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np

BINS = np.linspace(-5, 5, 1024)


def drive_by_the_rules(model: Path, path: Path) -> tuple[list[float], list[float]]:
    """Actions and lateral accelerations of all rows of a segment."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    network = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    target = [float(row["targetLateralAcceleration"]) for row in rows]
    states = [(np.sin(float(row["roll"])) * 9.81, float(row["vEgo"]), float(row["aEgo"])) for row in rows]
    random = np.random.RandomState(int(hashlib.md5(f"data/{path.name}".encode()).hexdigest(), 16) % 10_000)

    actions = [-float(row["steerCommand"]) for row in rows[:20]]
    lataccel = target[:20]
    integral, before = 0, 0
    for t in range(20, len(rows)):
        error = target[t] - lataccel[-1]
        integral += error
        command = 0.195 * error + 0.100 * integral + -0.053 * (error - before)
        before = error
        if t < 100:
            command = -float(rows[t]["steerCommand"])
        actions.append(float(np.clip(command, -2, 2)))

        seen = np.column_stack([actions[-20:], states[t - 19 : t + 1]]).astype(np.float32)[None]
        tokens = np.digitize(np.clip(lataccel[-20:], -5, 5), BINS, right=True)[None]
        logits = network.run(None, {"states": seen, "tokens": tokens})[0] / 0.8
        scaled = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
        probabilities = scaled / np.sum(scaled, axis=-1, keepdims=True)
        drawn = BINS[random.choice(1024, p=probabilities[0, -1])]
        drawn = np.clip(drawn, lataccel[-1] - 0.5, lataccel[-1] + 0.5)
        lataccel.append(float(drawn) if t >= 100 else target[t])
    return actions, lataccel
