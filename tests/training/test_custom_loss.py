"""A custom loss: `Trainer(config, loss=my_loss)` is computed by the reference engine, and the run remembers it."""

from __future__ import annotations

import logging

import pytest
import torch

from ppo_lab import Loss, minibatch_loss, ppo_loss, replay
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.training.trainer import Trainer


def settings(folder=None, **more) -> Config:
    base = {
        "env.id": "ppo_lab/CartPole-v1", "env.num_envs": 2, "model.hidden_sizes": [8], "ppo.num_steps": 16,
        "ppo.total_timesteps": 128, "run.root": None if folder is None else str(folder), "run.name": "one",
        "run.tensorboard": False, "run.checkpoint_every": 32,
    }  # fmt: skip
    return override(Config(), {**base, **{key.replace("__", "."): value for key, value in more.items()}})


def same_as_ours(model, batch, ppo):
    """The parts put together by hand."""
    log_prob, entropy, value = model.evaluate(batch.obs, batch.action, batch.memory, batch.starts)
    return ppo_loss(
        log_prob, entropy, value, batch.log_prob, batch.value, batch.advantage, batch.returns,
        clip_coef=ppo.clip_coef, vf_coef=ppo.vf_coef, ent_coef=ppo.ent_coef,
    )  # fmt: skip


def with_a_term(model, batch, ppo):
    """Ours, and a small weight on the squares of the parameters."""
    loss = minibatch_loss(model, batch, ppo)
    return loss._replace(total=loss.total + 1e-2 * sum(one.square().sum() for one in model.parameters()))


def trained(config, loss=None) -> Trainer:
    trainer = Trainer(config, loss=loss)
    list(trainer)
    trainer.close()
    return trainer


@pytest.mark.parametrize("more", [{}, {"ppo__accumulate": 3}, {"model__core": "gru", "ppo__chunk_length": 8}])
def test_the_built_in_loss_given_as_ones_own_is_the_reference(more):
    reference = trained(settings(run__engine="reference", **more))
    assert trained(settings(**more), minibatch_loss).fingerprint() == reference.fingerprint()
    assert trained(settings(**more), same_as_ours).fingerprint() == reference.fingerprint()
    assert trained(settings(**more), with_a_term).fingerprint() != reference.fingerprint()


def test_the_term_works():
    """Weight decay by hand makes the weights smaller than they are without."""

    def size(trainer):
        return sum(float(one.detach().square().sum()) for one in trainer.state.model.parameters())

    many = {"ppo__total_timesteps": 640, "ppo__learning_rate": 3e-3}
    assert size(trained(settings(**many), with_a_term)) < size(trained(settings(**many)))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda model, batch, ppo: torch.zeros(()), "must return a ppo_lab.Loss, got Tensor"),
        (lambda model, batch, ppo: None, "must return a ppo_lab.Loss, got NoneType"),
        (lambda *given: Loss(*[torch.zeros(())] * 6), "one number with a gradient; got no gradient"),
        (
            lambda *given: minibatch_loss(*given)._replace(total=next(given[0].parameters()).sum(-1)),
            r"one number with a gradient; got the shape \(8,\)",
        ),
    ],
)
def test_what_is_no_loss_is_one_line(loss, message):
    with pytest.raises(ConfigError, match=message):
        list(Trainer(settings(), loss=loss))


def test_a_resume_needs_the_same_loss(tmp_path):
    trainer = Trainer(settings(tmp_path), loss=with_a_term)
    next(iter(trainer))
    trainer.close()
    with pytest.raises(RunError, match="trained with the custom loss with_a_term; pass it again: loss=with_a_term"):
        Trainer.resume(tmp_path / "one")
    with pytest.raises(RunError, match="trained with the custom loss with_a_term"):
        Trainer.resume(tmp_path / "one", loss=same_as_ours)
    resumed = Trainer.resume(tmp_path / "one", loss=with_a_term)
    list(resumed)
    resumed.close()
    assert resumed.inexact is None
    assert resumed.fingerprint() == trained(settings(), with_a_term).fingerprint()


def test_the_built_in_one_is_not_resumed_with_another(tmp_path):
    trained(settings(tmp_path))
    with pytest.raises(RunError, match=r"trained with the built-in loss; for another loss use Trainer.fork"):
        Trainer.resume(tmp_path / "one", loss=with_a_term)


def test_a_fork_with_another_loss_says_so(tmp_path, caplog):
    trained(settings(tmp_path))
    with caplog.at_level(logging.WARNING, logger="ppo_lab"):
        fork = Trainer.fork(tmp_path / "one", at=64, overrides={"run.name": "two"}, loss=with_a_term)
    list(fork)
    fork.close()
    assert "two: the loss is with_a_term; the parent's was the built-in one" in caplog.text


def test_a_replay_refuses(tmp_path):
    trained(settings(tmp_path), with_a_term)
    with pytest.raises(RunError, match="trained with a loss passed to Trainer: its settings cannot make it"):
        replay(tmp_path / "one")


def test_another_engine_than_the_checkpoint_s_is_said(tmp_path, caplog):
    """Saved with a hook on the model (torch), resumed without it (NumPy): not the same bits."""
    trainer = Trainer(settings(tmp_path))
    layers = [module for module in trainer.state.model.modules() if isinstance(module, torch.nn.Linear)]
    layers[0].register_forward_hook(lambda *_: None)
    next(iter(trainer))
    trainer.close()
    with caplog.at_level(logging.WARNING, logger="ppo_lab"):
        resumed = Trainer.resume(tmp_path / "one")
    assert "exact_resume is false: the engine was another (then: acting: torch (hooks on the model)" in caplog.text
    assert resumed.inexact
    resumed.close()
