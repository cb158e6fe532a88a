"""run.compile: the same numbers to rounding, compiled at the start and not again, and nothing of it in a checkpoint."""

from __future__ import annotations

import logging
import shutil

import pytest
import torch
from torch._dynamo.utils import counters

import ppo_lab
from ppo_lab.config import Config
from ppo_lab.engine import compiled_loss
from ppo_lab.engine.compiled_loss import CompiledLoss, check_compiler
from ppo_lab.engine.learning import ByHandWay
from ppo_lab.engine.memory_plan import pretend
from ppo_lab.errors import ConfigError
from ppo_lab.ppo.learner import minibatch_loss
from ppo_lab.training.trainer import Trainer

# 22, 21 and 21 rows: sizes differ; and the coefficients move with every update
SMALL = {
    "env.id": "ppo_lab/CartPole-v1", "env.num_envs": 8, "model.hidden_sizes": [16], "ppo.total_timesteps": 320,
    "ppo.num_steps": 8, "ppo.num_minibatches": 3, "ppo.update_epochs": 2, "ppo.learning_rate": 3e-3, "run.root": None,
    "ppo.clip_coef_schedule": "linear", "ppo.clip_coef_end": 0.1, "ppo.ent_coef": 0.01,
    "ppo.ent_coef_schedule": "cosine",
}  # fmt: skip
CASES = {
    "mlp": {},
    "equal sizes": {"ppo.num_minibatches": 4},
    "cnn": {"env.id": "ppo_lab/Catch-v0", "model.body": "cnn_small"},
}


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """A place of its own for what is compiled: elsewhere it would be found again by the next session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


def config(case="mlp", **overrides):
    changes = CASES[case] | {key.replace("__", "."): value for key, value in overrides.items()}
    return ppo_lab.override(Config(), SMALL | changes)


@pytest.fixture
def compiler():
    try:
        check_compiler()
    except ConfigError as missing:
        pytest.skip(str(missing))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("compiler")
def test_compiled_and_not_give_the_same_numbers_and_nothing_is_compiled_later(case, caplog):
    caplog.set_level(logging.WARNING, logger="ppo_lab")
    plain, compiled = Trainer(config(case)), Trainer(config(case, run__compile=True))
    graphs = [counters["stats"]["unique_graphs"]]
    for one, other in zip(plain, compiled, strict=True):
        graphs.append(counters["stats"]["unique_graphs"])
        for key in ("loss/policy", "loss/value", "loss/entropy", "update/approx_kl", "update/grad_norm"):
            assert other.metrics[key] == pytest.approx(one.metrics[key], rel=1e-3, abs=1e-5), (one.update, key)
        if one.update == 1:
            weights = zip(plain.state.model.parameters(), compiled.state.model.parameters(), strict=True)
            assert max((a - b).abs().max() for a, b in weights) < 1e-4
    assert graphs == [graphs[0]] + [graphs[0] + 1] * 5
    told = [line for line in caplog.messages if line.startswith("run.compile: compiling took ")]
    assert len(told) == 1
    assert compiled.engine.learning.loss_of._any_size == (case != "equal sizes")
    assert list(compiled.state.model.state_dict()) == list(plain.state.model.state_dict())


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_a_compiled_run_goes_on_bit_for_bit_and_its_policy_loads(tmp_path):
    whole = Trainer(config(run__compile=True, run__root=str(tmp_path), run__name="whole"))
    half = Trainer(config(run__compile=True, run__root=str(tmp_path), run__name="half"))
    for _ in whole:
        pass
    for update in half:
        if update.update == 2:
            half.save()
            break
    half.close()
    resumed = Trainer.resume(tmp_path / "half")
    assert resumed.config.run.compile
    for _ in resumed:
        pass
    assert resumed.fingerprint() == whole.fingerprint()
    obs = torch.rand(5, 4, generator=torch.Generator().manual_seed(1))
    policy = ppo_lab.load_policy(tmp_path / "half")
    assert torch.equal(policy.value(obs)[0], whole.state.model.value(obs).detach())
    resumed.close()
    whole.close()


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@torch._dynamo.config.patch(recompile_limit=1)
def test_many_networks_are_compiled_in_one_process():
    """Torch counts compilations by code and stops at a limit, 8: every trainer needs code of its own."""
    graphs = []
    for units in (8, 9, 10):
        trainer = Trainer(config(model__hidden_sizes=[units], model__activation="relu"))
        model, ppo = trainer.state.model, trainer.config.ppo
        _, batch = pretend(ppo, model, trainer.state.obs, 6)
        found = []
        for loss in (minibatch_loss, CompiledLoss(any_size=True)):
            model.zero_grad()
            loss(model, batch, ppo).total.backward()
            found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        assert torch.allclose(*found, rtol=1e-4, atol=1e-6)
        graphs.append(counters["stats"]["unique_graphs"])
    assert len(set(graphs)) == len(graphs)


def test_what_is_compiled_belongs_to_one_trainer():
    one, other = CompiledLoss(any_size=True), CompiledLoss(any_size=True)
    names = {each._compiled.__wrapped__.__code__.co_name for each in (one, other)}
    assert len(names) == 2
    assert "minibatch_loss" not in names


def test_it_is_off_unless_asked_for():
    trainer = Trainer(config())
    assert isinstance(trainer.engine.learning, ByHandWay)
    assert not trainer.config.run.compile


@pytest.mark.parametrize("core", ["gru", "lstm", "window"])
def test_models_with_a_core_are_refused(core):
    with pytest.raises(ConfigError, match=rf"run\.compile: not with model\.core: {core}"):
        Trainer(config(run__compile=True, model__core=core))


def test_without_a_compiler_it_is_refused_with_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiled_loss.sys, "platform", "linux")
    with pytest.raises(
        ConfigError, match=r"run\.compile: torch\.compile needs the C\+\+ compiler g\+\+: apt install g"
    ):
        Trainer(config(run__compile=True))
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(ConfigError, match="needs the C\\+\\+ compiler no-such-compiler"):
        check_compiler()
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(compiled_loss.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs Python\.h.*python3-dev"):
        check_compiler()


def test_the_warm_up_is_told_once_when_a_few_minibatches_are_in(caplog):
    caplog.set_level(logging.WARNING, logger="ppo_lab")
    loss = CompiledLoss(any_size=True)
    loss.tell_warm_up([9.001, 0.001])
    assert not caplog.messages
    loss.tell_warm_up([0.001, 2.001, 0.001])
    loss.tell_warm_up([7.0] * 9)
    assert caplog.messages == ["run.compile: compiling took 11.0 s; a minibatch takes 1 ms now"]
