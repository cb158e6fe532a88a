"""The engine of a run: each row of the table in engine/choose.py, the reason, and the line that says so."""

from __future__ import annotations

import logging

import pytest
import torch

from ppo_lab.cli.main import main
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.engine import choose
from ppo_lab.engine.acting import GraphActing, NumpyActing, TorchActing
from ppo_lab.engine.choose import choose_engine
from ppo_lab.engine.learning import AutogradWay, ByHandWay, GraphWay
from ppo_lab.engine.mlp_gradient import KNOWN_SETTINGS
from ppo_lab.envs.contract import EnvsWrapper
from ppo_lab.envs.making import make_envs
from ppo_lab.errors import ConfigError
from ppo_lab.ppo import losses
from ppo_lab.ppo.learner import LossSettings, minibatch_loss
from ppo_lab.ppo.state import initial_state
from ppo_lab.runs.checkpoint import load_checkpoint
from ppo_lab.runs.run import find_checkpoint
from ppo_lab.training.trainer import Trainer

BASE = {
    "env.id": "ppo_lab/CartPole-v1", "env.num_envs": 2, "model.hidden_sizes": [8], "ppo.num_steps": 16,
    "ppo.total_timesteps": 64, "run.root": None, "run.name": "x", "run.tensorboard": False,
}  # fmt: skip
REFERENCE = "; the reference in plain torch: run.engine=reference"


def settings(**more) -> Config:
    return override(Config(), {**BASE, **{key.replace("__", "."): value for key, value in more.items()}})


def saved_line(folder) -> str:
    return load_checkpoint(find_checkpoint(folder)[0])["about"]["engine"]


def my_loss(model, batch, ppo):
    return minibatch_loss(model, batch, ppo)


@pytest.mark.parametrize(
    ("more", "loss", "acting", "learning", "line"),
    [
        ({}, None, NumpyActing, ByHandWay, "acting: NumPy; learning: gradient by hand" + REFERENCE),
        (
            {"run__engine": "reference"}, None, TorchActing, AutogradWay,
            "acting: torch (run.engine is reference); learning: autograd (run.engine is reference)",
        ),
        ({}, my_loss, TorchActing, AutogradWay,
         "acting: torch (Trainer(config, loss=my_loss)); learning: autograd of my_loss"),
        ({"ppo__accumulate": 2}, None, NumpyActing, AutogradWay,
         "acting: NumPy; learning: autograd (ppo.accumulate is 2)" + REFERENCE),
        ({"model__core": "gru"}, None, NumpyActing, ByHandWay, "(recurrent: "),
        ({"env__id": "Pendulum-v1", "model__distribution": "beta"}, None, NumpyActing, ByHandWay, "autograd ("),
    ],
)  # fmt: skip
def test_each_row_of_the_table(more, loss, acting, learning, line):
    trainer = Trainer(settings(**more), loss=loss)
    assert isinstance(trainer.engine.acting, acting)
    assert isinstance(trainer.engine.learning, learning)
    assert line in trainer.engine_line
    assert trainer.engine_line.startswith("acting: ")
    trainer.close()


@pytest.mark.parametrize(
    ("unknown", "more", "by_hand"),
    [("dual_clip", {}, True), ("dual_clip", {"ppo__dual_clip": 3.0}, False), ("ent_coef", {}, False)],
)
def test_a_term_without_a_gradient_by_hand_goes_through_autograd(unknown, more, by_hand, monkeypatch):
    """Also where it is off now, but may be switched on while training runs."""
    monkeypatch.setattr(choose, "KNOWN_SETTINGS", KNOWN_SETTINGS - {unknown})
    line = Trainer(settings(**more)).engine_line
    assert ("learning: gradient by hand" in line) is by_hand
    assert (f"learning: autograd (ppo.{unknown} has no gradient by hand)" in line) is not by_hand


def test_the_gradient_by_hand_knows_every_setting_of_the_loss():
    assert set(LossSettings._fields) == KNOWN_SETTINGS


class OnTheDevice(EnvsWrapper):
    """What an environment on a GPU says of itself."""

    capturable = True

    def __init__(self, envs):
        super().__init__(envs)
        self.device = torch.device("cuda")


@pytest.mark.parametrize(
    ("more", "acting", "learning"),
    [
        ({"run__cuda_graphs": "auto"}, GraphActing, GraphWay),
        ({"run__cuda_graphs": False}, TorchActing, AutogradWay),
        ({"run__cuda_graphs": "auto", "ppo__target_kl": 0.01}, GraphActing, AutogradWay),
        ({"run__cuda_graphs": "auto", "run__compile": True}, GraphActing, AutogradWay),
        ({"run__cuda_graphs": "auto", "run__engine": "reference"}, TorchActing, AutogradWay),
    ],
)
def test_on_a_gpu(more, acting, learning):
    """The choice alone: nothing is captured."""
    config = settings(**more)
    envs = make_envs(config)
    engine = choose_engine(config, OnTheDevice(envs), initial_state(config, envs).model)
    assert isinstance(engine.acting, acting)
    assert isinstance(engine.learning, learning)


@pytest.mark.parametrize(
    ("more", "loss", "message"),
    [
        ({"run__engine": "reference", "run__compile": True}, None, r"run.compile: not with the reference engine"),
        ({"run__engine": "reference", "run__cuda_graphs": True}, None, r"run.cuda_graphs: not with the reference"),
        ({"run__compile": True}, my_loss, r"run.compile: .*loss=my_loss.*set run.compile to false"),
        ({"run__cuda_graphs": True, "ppo__target_kl": 0.1}, None, r"run.cuda_graphs"),
        ({"run__cuda_graphs": True, "run__compile": True}, None, r"cannot be captured: run.compile is true"),
        ({"run__compile": True, "model__core": "gru"}, None, r"run.compile: not with model.core: gru"),
    ],
)
def test_what_excludes_each_other(more, loss, message):
    with pytest.raises(ConfigError, match=message):
        Trainer(settings(**more), loss=loss)


def test_the_old_setting_names_the_new_one():
    with pytest.raises(ConfigError, match=r"run.gradient.*run.engine"):
        settings(run__gradient="autograd")


ROUTES = {
    "cartpole": {}, "pendulum": {"env__id": "Pendulum-v1"}, "gru": {"model__core": "gru"},
    "parts": {"ppo__accumulate": 2},
    "clipped": {"ppo__value_clip_coef": 0.2, "ppo__dual_clip": 3.0}, "shared": {"model__shared": True},
    "several": {"env__id": "ppo_lab/Spaces-v0"}, "sgd": {"ppo__optimizer": "sgd"},
}  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_the_reference_is_the_code_of_losses_py(route, monkeypatch):
    """A sign that is flipped there changes every run of the reference engine."""

    def trained() -> str:
        trainer = Trainer(settings(run__engine="reference", **ROUTES[route]))
        list(trainer)
        trainer.close()
        return trainer.fingerprint()

    right = trained()
    surrogate = losses.clipped_surrogate
    monkeypatch.setattr(losses, "clipped_surrogate", lambda *given: -surrogate(*given))
    assert trained() != right


@pytest.mark.parametrize("part", ["clipped_surrogate", "value_loss"])
def test_auto_says_that_another_implementation_is_used(part, monkeypatch):
    """There the same flip changes nothing on this model, and the line has said which code runs."""
    trainers = []
    for flipped in (False, True):
        if flipped:
            original = getattr(losses, part)
            monkeypatch.setattr(losses, part, lambda *given, original=original: -original(*given))
        trainers.append(Trainer(settings()))
        list(trainers[-1])
    assert trainers[0].fingerprint() == trainers[1].fingerprint()
    assert trainers[1].engine_line == "acting: NumPy; learning: gradient by hand" + REFERENCE


def test_auto_and_reference_learn_the_same_within_rounding():
    """One update from the same state: another order of the same additions."""
    found = []
    for engine in ("auto", "reference"):
        trainer = Trainer(settings(run__engine=engine, ppo__total_timesteps=32))
        list(trainer)
        found.append(torch.cat([value.flatten() for value in trainer.state.model.parameters()]))
    assert torch.allclose(*found, atol=1e-4)


def test_the_line_is_in_the_checkpoint_and_shown(tmp_path, capsys):
    trainer = Trainer(settings(run__root=str(tmp_path)))
    list(trainer)
    trainer.close()
    assert saved_line(tmp_path / "x") == trainer.engine_line
    assert main(["show", str(tmp_path / "x")]) == 0
    assert trainer.engine_line in capsys.readouterr().out


def test_a_model_that_gets_a_hook_is_said(tmp_path, caplog):
    """The fast ways look at the model before each update: with a hook it is torch's again, and the record says so."""
    trainer = Trainer(settings(run__root=str(tmp_path)))
    next(iter(trainer))
    layers = [module for module in trainer.state.model.modules() if isinstance(module, torch.nn.Linear)]
    layers[0].register_forward_hook(lambda *_: None)
    with caplog.at_level(logging.WARNING, logger="ppo_lab"):
        trainer.save()
    trainer.close()
    assert "engine: acting: torch" in caplog.text
    assert "acting: torch" in saved_line(tmp_path / "x")
