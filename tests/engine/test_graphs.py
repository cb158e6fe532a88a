"""Steps over tensors that stay where they are give the same runs, bit for bit; here the same functions, uncaptured."""

from __future__ import annotations

import os
from functools import partialmethod

import pytest
import torch

from environment import cartpole
from ppo_lab import load_config
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.engine import acting, graph_minibatch, graph_rollout
from ppo_lab.engine.acting import NumpyActing
from ppo_lab.engine.cuda_graph import Captured, snapshot
from ppo_lab.engine.learning import ByHandWay
from ppo_lab.envs.making import make_envs
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.models.networks.cores import Recurrent
from ppo_lab.models.networks.mlp import MLP
from ppo_lab.ppo.events import MinibatchStepped
from ppo_lab.training.trainer import Trainer
from ppo_lab.trees import leaves
from tests.engine.recorded import Recorded
from tests.scripted import Script

SMALL = {
    "env.num_envs": 6,
    "ppo.num_steps": 16,
    "ppo.total_timesteps": 6 * 16 * 3,
    "ppo.update_epochs": 2,
    "run.root": None,
}
SHORT = {"env.kwargs": {"max_episode_steps": 9}}  # episodes end in every rollout, cut off or terminated
SPACES = {"env.id": "ppo_lab/Spaces-v0"}
GRU, LSTM = ({"model.core": core, "model.core_size": 8, "ppo.chunk_length": 8} for core in ("gru", "lstm"))
CASES = {
    "cartpole": ("cartpole", SHORT),
    "sizes that differ by one": ("cartpole", {"ppo.num_minibatches": 5}),
    "schedules": ("cartpole", {"ppo.clip_coef_schedule": "linear", "ppo.ent_coef_schedule": "cosine",
                               "ppo.ent_coef": 0.01, "ppo.learning_rate_warmup": 0.5,
                               "ppo.critic_learning_rate": 1e-3}),
    "adaptive": ("cartpole", {"ppo.learning_rate_schedule": "adaptive", "ppo.target_entropy": 0.3}),
    "statistics": ("cartpole", {"model.normalize_obs": True, "model.normalize_value": True,
                                "ppo.normalize_reward": True}),
    "adamw": ("cartpole", {"ppo.optimizer": "adamw", "ppo.weight_decay": 0.1, "ppo.value_clip_coef": 0.2,
                           "model.shared": True}),
    "sgd": ("cartpole", {"ppo.optimizer": "sgd", "ppo.dual_clip": 3.0, "ppo.recompute_advantage": True}),
    "bfloat16": ("cartpole", {"model.precision": "bfloat16"}),
    "gru": ("cartpole_no_velocity", {**SHORT, "ppo.chunk_length": 8}),
    "lstm, shared": ("cartpole_no_velocity", {**SHORT, **LSTM, "model.shared": True, "model.core_layers": 2}),
    "window": ("cartpole_no_velocity", {**SHORT, "model.core": "window", "ppo.chunk_length": 8}),
    "chunks of one": ("cartpole_no_velocity", {**SHORT, "ppo.chunk_length": 1}),
    "one step": ("cartpole", {"ppo.num_steps": 1, "ppo.total_timesteps": 60, "ppo.num_minibatches": 1}),
    "masks": (None, {**SPACES, "env.kwargs": {"action": "multidiscrete", "masked": True}}),
    "gsde": (None, {**SPACES, "env.kwargs": {"action": "box"}, "model.std": "gsde", "model.sde_interval": 3}),
    "gsde and gru": (None, {**SPACES, **GRU, "env.kwargs": {"action": "box"}, "model.std": "gsde"}),
    "dict": (None, {**SPACES, "env.kwargs": {"observation": "dict", "action": "hybrid"}}),
    "recall": (None, {**GRU, "env.id": "ppo_lab/Recall-v0"}),
    "leak": (None, {**GRU, "env.id": "ppo_lab/Leak-v0"}),
    "pixels": (None, {"env.id": "ppo_lab/Catch-v0", "model.body": "cnn_small"}),
}  # fmt: skip


def trainer_of(preset, graphs, *layers, unrolled=True):
    config = Config() if preset is None else load_config(preset=preset)
    for layer in (SMALL, *layers, {"run.cuda_graphs": graphs, "run.engine": "auto" if graphs else "reference"}):
        config = override(config, layer)
    trainer = Trainer(config)
    for core in (trainer.state.model.actor_core, trainer.state.model.critic_core):
        if isinstance(core, Recurrent):
            core.unrolled = unrolled
    return trainer


def ran(trainer):
    metrics = [dict(update.metrics) for update in trainer]
    return metrics, trainer.fingerprint()


def without_time(metrics):
    return [{name: value for name, value in one.items() if not name.startswith("time/")} for one in metrics]


@pytest.fixture
def torch_alone(monkeypatch):
    """The fast engine without NumPy: what a GPU would do."""
    monkeypatch.setattr(acting, "numpy_policy", lambda *_: "a GPU")


@pytest.fixture
def recorded(monkeypatch, torch_alone):
    """Graphs that are recorded and replayed, as on a GPU; NumPy would not be in the recording."""
    for module in (graph_minibatch, graph_rollout):
        monkeypatch.setattr(module, "Captured", Recorded)
    monkeypatch.setattr(MLP, "_in_numpy", lambda *_: False)
    monkeypatch.setattr(cartpole.CartPole, "__init__", partialmethod(cartpole.CartPole.__init__, use_numpy=False))


@pytest.mark.parametrize("way", ["torch_alone", "recorded"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_run_bit_for_bit(name, way, request):
    request.getfixturevalue(way)
    preset, changes = CASES[name]
    plain, static = trainer_of(preset, False, changes), trainer_of(preset, True, changes)
    expected, ours = ran(plain), ran(static)
    assert without_time(ours[0]) == without_time(expected[0])
    assert ours[1] == expected[1]
    for column in (
        "obs",
        "final_obs",
        "action",
        "log_prob",
        "value",
        "next_value",
        "reward",
        "done",
        "starts",
        "memory",
    ):
        for one, other in zip(*(leaves(getattr(t.rollout, column)) for t in (static, plain)), strict=True):
            assert torch.equal(one, other), column
    if "max_episode_steps" in str(changes):
        assert static.rollout.done.any()


def test_a_core_cell_by_cell_is_the_core():
    changes = {**SHORT, "ppo.chunk_length": 8}
    for core in ("gru", "lstm"):
        gradients = []
        for unrolled in (False, True):
            trainer = trainer_of("cartpole_no_velocity", False, changes, {"model.core": core}, unrolled=unrolled)
            event = next(event for event in trainer.events() if isinstance(event, MinibatchStepped))
            assert event.batch.starts[1:].any()
            gradients.append(torch.cat([p.grad.flatten() for p in trainer.state.model.parameters()]))
        assert gradients[0].abs().max() > 1e-3
        assert torch.allclose(*gradients, atol=1e-6, rtol=1e-4)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("preset", ["cartpole", "cartpole_no_velocity"])
def test_what_a_person_sets_reaches_the_captured_step(preset):
    more = {"ppo.chunk_length": 8, "ppo.total_timesteps": 6 * 16 * 5}
    trainers = [trainer_of(preset, graphs, more) for graphs in (False, True)]
    for trainer in trainers:
        updates = iter(trainer)
        next(updates)
        for key, value in {"learning_rate": 1e-4, "ent_coef": 0.02, "vf_coef": 2.0, "max_grad_norm": 0.1}.items():
            trainer.set(**{key: value}, clip_coef=0.05)
            next(updates)
    assert trainers[0].fingerprint() == trainers[1].fingerprint()


@pytest.mark.usefixtures("recorded")
def test_a_rate_of_zero_moves_nothing():
    trainer = trainer_of("cartpole", True, {"ppo.learning_rate_schedule": "constant"})
    updates = iter(trainer)
    next(updates)
    trainer.set(learning_rate=0.0)
    before = [p.detach().clone() for p in trainer.state.model.parameters()]
    next(updates)
    assert all(map(torch.equal, before, trainer.state.model.parameters()))


@pytest.mark.parametrize("preset", ["cartpole", "cartpole_no_velocity"])
def test_nothing_moves_in_memory(preset):
    trainer = trainer_of(preset, True, {"ppo.chunk_length": 8})
    updates = iter(trainer)
    next(updates)
    roll, mini = trainer.engine.acting.graph, trainer.engine.learning.graph

    def places():
        statics = [*leaves(roll.obs), roll.starts, *leaves(roll.memory), roll.row, *mini.rates, mini.clip_coef]
        statics += [
            column for static in mini._graphs.values() for column in (*leaves(static.batch.obs), static.numbers)
        ]
        envs = list(vars(trainer.envs._tensors).values())
        columns = [*leaves(trainer.rollout.obs), trainer.rollout.action, trainer.rollout.log_prob]
        return [t.data_ptr() for t in (*statics, *envs, *columns, *mini._written())], (roll._step, dict(mini._graphs))

    before = places()
    trainer.set(learning_rate=1e-4, clip_coef=0.1)
    next(updates)
    assert places() == before


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("preset", ["cartpole", "cartpole_no_velocity"])
def test_a_resumed_run_is_the_run(preset, tmp_path):
    records = {"run.root": str(tmp_path), "run.name": "one", "ppo.chunk_length": 8}
    whole = ran(trainer_of(preset, True, {**records, "run.name": "whole"}))
    first = trainer_of(preset, True, records)
    updates = iter(first)
    next(updates), next(updates)
    first.save()
    first.close()
    resumed = Trainer.resume(tmp_path / "one")
    assert ran(resumed)[1] == whole[1]
    resumed.close()


@pytest.mark.usefixtures("recorded")
def test_weights_that_are_loaded_into_a_trainer_at_work_are_the_ones_it_goes_on_with():
    trainer, plain = trainer_of("cartpole", True), trainer_of("cartpole", False)
    for one in (trainer, plain):
        updates = iter(one)
        next(updates)
        saved = one.state.state_dict()
        kept = {**saved, "model": {k: v.clone() for k, v in saved["model"].items()}}
        kept["optimizer"] = {
            **saved["optimizer"],
            "state": {i: {k: v.clone() for k, v in m.items()} for i, m in saved["optimizer"]["state"].items()},
        }
        next(updates)
        one.state.load_learner(kept)  # the optimizer's moments are other tensors now
        next(updates)
    assert trainer.fingerprint() == plain.fingerprint()


def test_a_warm_up_leaves_nothing_behind():
    calls = []
    number, generator = torch.zeros(3), torch.Generator().manual_seed(1)
    state = generator.get_state()

    def function():
        calls.append(number.add_(torch.rand(3, generator=generator)).clone())

    step = Captured(function, torch.device("cpu"), snapshot([number], [generator]), [generator])
    assert len(calls) == 3
    assert torch.equal(number, torch.zeros(3))
    assert torch.equal(generator.get_state(), state)
    step()
    assert torch.equal(calls[0], number)


REFUSED = {
    "ppo.target_kl needs the KL": {"ppo.target_kl": 0.01},
    "ppo.accumulate cuts": {"ppo.accumulate": 2},
    "float16 scales": {"model.precision": "float16"},
    "not a multiple of ppo.chunk_length": {"model.core": "gru", "ppo.chunk_length": 5},
    "rollout step cannot be captured: SingleEnvs": {"env.id": "CartPole-v1", "env.kwargs": {}},
    "LateralControl": {"env.id": "ppo_lab/LateralControl-v0", "env.kwargs": {}},
    "FrameStack": {"env.frame_stack": 2},
    "TimeAware": {"env.time_aware": True},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_captured_is_refused_with_a_reason(reason):
    with pytest.raises(ConfigError, match=f"run.cuda_graphs: .*{reason}"):
        trainer_of("cartpole", True, REFUSED[reason])


def test_rows_that_only_reset_are_refused():
    config = override(Config(), {**SMALL, "run.cuda_graphs": True})
    envs = Script(["....", "T..."], True)
    envs.capturable, envs.generator = True, torch.Generator()
    with pytest.raises(ConfigError, match="rows that only reset"):
        Trainer(config, envs)


def test_every_environment_that_can_be_captured_remembers_all_in_its_state():
    for env_id in ("CartPole-v1", "Recall-v0", "Leak-v0", "Catch-v0", "Spaces-v0", "TwoState-v0"):
        envs = make_envs(override(Config(), {"env.id": f"ppo_lab/{env_id}", "env.num_envs": 3}))
        assert envs.capturable
        assert not envs.next_step_autoreset
        envs.reset(1)
        action = torch.zeros(3, dtype=torch.int64)
        saved = envs.state_dict()
        first = [tensor.clone() for part in envs.step(action) for tensor in leaves(part)]
        envs.step(action)
        envs.load_state_dict(saved)
        again = [tensor for part in envs.step(action) for tensor in leaves(part)]
        assert all(map(torch.equal, first, again))


def test_automatic_is_plain_on_a_cpu():
    trainer = trainer_of("cartpole", "auto")
    assert isinstance(trainer.engine.acting, NumpyActing)
    assert isinstance(trainer.engine.learning, ByHandWay)


def test_a_mask_without_a_legal_action_is_named_after_the_rollout(monkeypatch):
    trainer = trainer_of(None, True, {**SPACES, "env.kwargs": {"action": "discrete", "masked": True}})
    scorer = trainer.envs._scorer
    monkeypatch.setattr(scorer, "flat", lambda legal: torch.zeros_like(legal.flatten(1)[:, scorer._columns]))
    with pytest.raises(EnvError, match="no legal action at step 1 of the rollout"):
        next(iter(trainer))


@pytest.fixture
def deterministic():
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def test_determinism_is_of_the_process_and_changes_no_number_on_a_cpu(deterministic, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    expected = ran(trainer_of("cartpole", False, {"ppo.normalize_reward": True}))
    assert not torch.are_deterministic_algorithms_enabled()
    ours = ran(trainer_of("cartpole", False, {"ppo.normalize_reward": True, "run.deterministic": True}))
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert ours[1] == expected[1]
    assert without_time(ours[0]) == without_time(expected[0])


@pytest.mark.gpu
@pytest.mark.parametrize("preset", ["cartpole", "cartpole_no_velocity"])
def test_on_a_gpu_a_captured_run_repeats_and_is_near_the_plain_one(preset, deterministic):
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    changes = {"run.device": "cuda", "run.deterministic": True, "ppo.chunk_length": 8, "env.num_envs": 64}
    few = {"ppo.total_timesteps": 64 * 16 * 3}
    plain, once, again = (trainer_of(preset, graphs, changes, few) for graphs in (False, True, True))
    expected, first, second = ran(plain), ran(once), ran(again)
    assert first[1] == second[1]
    assert torch.equal(once.rollout.action[0], again.rollout.action[0])
    for key in ("loss/policy", "loss/value", "loss/entropy", "update/grad_norm"):
        assert first[0][0][key] == pytest.approx(expected[0][0][key], rel=1e-2, abs=1e-3)
