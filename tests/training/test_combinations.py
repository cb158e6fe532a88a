"""Every observation x body x action x distribution: trains, has ratios of 1 before the first step, resumes exactly.

A part of the matrix in which every row and every column stands runs with the fast tests, all of it with the slow ones.
Cores and masks go round, so that each meets every kind of action.
"""

from __future__ import annotations

import itertools

import pytest

from environment.spaces import ACTIONS, OBSERVATIONS
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.ppo.events import MinibatchStepped
from ppo_lab.training.trainer import Trainer

IMAGES = ("image_hwc", "image_chw", "image_hw")
SEEN = [
    *((observation, "mlp") for observation in OBSERVATIONS),
    *((image, body) for image in IMAGES for body in ("cnn", "cnn_small", "impala")),
    ("board", "cnn_small"),
    ("set", "entities"),
    ("dict", "cnn_small"),
    ("dict", "impala"),
]
BOX = [("gaussian", std) for std in ("free", "state", "gsde")] + [
    ("squashed", std) for std in ("free", "state", "gsde")
]
BOX += [("beta", "free")]
DONE = [
    (action, *how)
    for action in ACTIONS
    for how in (BOX if action in ("box", "box_asymmetric", "hybrid") else [("gaussian", "free")])
]
CORES = ("none", "gru", "lstm", "window")
MATRIX = [(*seen, *done, i) for i, (seen, done) in enumerate(itertools.product(SEEN, DONE))]
ROWS, COLUMNS = len(SEEN), len(DONE)
PART = {(k % ROWS) * COLUMNS + k % COLUMNS for k in range(max(ROWS, COLUMNS))}


def settings(observation, body, action, distribution, std, i):
    masked = (i // 4) % 2 == 0 and action not in ("box", "box_asymmetric")
    kwargs = {"observation": observation, "action": action, "masked": masked}
    if body == "cnn":
        kwargs["image_size"] = 36
    wrapped = {"frame_stack": 2, "time_aware": False} if i % 5 == 0 and not (masked or body == "entities") else {}
    return {
        "env": {"id": "ppo_lab/Spaces-v0", "num_envs": 3, "kwargs": kwargs, **wrapped},
        "model": {
            "body": body, "hidden_sizes": [8], "core": CORES[i % 4], "core_size": 8, "window": 3,
            "attention_size": 8, "attention_heads": 2, "attention_layers": 1, "distribution": distribution,
            "std": std, "sde_interval": 4, "normalize_obs": i % 3 == 0, "normalize_value": i % 3 == 1,
            "privileged": ["privileged"] if observation == "dict" and i % 2 else [],
        },
        "ppo": {"total_timesteps": 48, "num_steps": 8, "update_epochs": 1, "num_minibatches": 2, "chunk_length": 3},
        "run": {"tensorboard": False, "checkpoint_every": 0},
    }  # fmt: skip


def finish(trainer):
    for _ in trainer:
        pass
    trainer.close()
    return trainer.fingerprint()


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case[-1] in PART else pytest.mark.slow) for case in MATRIX],
    ids=lambda case: "-".join(map(str, case)),
)
def test_it_trains_with_ratio_1_and_resumes_bit_for_bit(tmp_path, case):
    config = override(Config(), {**settings(*case), "run.root": str(tmp_path)})
    whole = finish(Trainer(override(config, {"run.name": "whole"})))

    cut = Trainer(override(config, {"run.name": "cut"}))
    for event in cut.events():
        if isinstance(event, MinibatchStepped):
            assert event.loss.approx_kl.abs() < 1e-6  # the ratios of the first minibatch
            assert event.loss.clip_fraction == 0
            break
    for _ in cut:
        break
    cut.save()
    cut.close()
    assert finish(Trainer.resume(tmp_path / "cut")) == whole


def test_the_part_that_runs_first_has_every_row_and_every_column():
    part = [case for case in MATRIX if case[-1] in PART]
    assert {case[:2] for case in part} == set(SEEN)
    assert {case[2:5] for case in part} == set(DONE)
