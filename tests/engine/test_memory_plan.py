"""What training takes of the memory is known before, shown, and refused where it is not there."""

from __future__ import annotations

import gc
import logging

import pytest
import torch

import ppo_lab
from ppo_lab.cli.main import main
from ppo_lab.config import Config
from ppo_lab.engine import memory_plan
from ppo_lab.engine.memory_plan import MemoryPlan, as_text, free_memory, peak_bytes, plan_memory
from ppo_lab.errors import ConfigError
from ppo_lab.ppo.rollout import Rollout

SMALL = {
    "env.id": "ppo_lab/CartPole-v1",
    "env.num_envs": 8,
    "model.hidden_sizes": [16],
    "ppo.num_steps": 12,
    "ppo.num_minibatches": 3,
    "ppo.chunk_length": 5,
    "ppo.total_timesteps": 10_000,
    "run.root": None,
}


def config(**overrides):
    return ppo_lab.override(Config(), SMALL | {key.replace("__", "."): value for key, value in overrides.items()})


def spaces(observation):
    return {"env__id": "ppo_lab/Spaces-v0", "env__kwargs": {"observation": observation}}


CASES = {
    "vector": {},
    "normalised": {"model__normalize_obs": True},
    "image": spaces("image_hwc") | {"model__body": "cnn_small"},
    "dict": spaces("dict"),
    "set": spaces("set") | {"model__body": "entities"},
    "gru": {"model__core": "gru", "model__core_size": 8},
    "lstm": {"model__core": "lstm", "model__core_size": 8, "model__shared": True},
    "window": {"model__core": "window", "model__core_size": 8},
    "box action": {"env__id": "ppo_lab/Spaces-v0", "env__kwargs": {"action": "box"}},
}


@pytest.mark.parametrize("case", CASES)
def test_the_rollout_is_planned_to_the_byte(case):
    trainer = ppo_lab.Trainer(config(**CASES[case]))
    held = vars(trainer.rollout).values()
    trees = [value if isinstance(value, dict) else {"": value} for value in held if not isinstance(value, int)]
    assert trainer.memory_plan.rollout == sum(tensor.nbytes for tree in trees for tensor in tree.values())


def test_images_stay_uint8_and_cost_a_byte_a_pixel():
    trainer = ppo_lab.Trainer(config(**CASES["image"]))
    assert trainer.rollout.obs.dtype == trainer.rollout.final_obs.dtype == torch.uint8
    pixels = trainer.rollout.obs[0].numel()
    numbers = trainer.memory_plan.rollout - (12 + 13) * pixels  # T final and T + 1 seen observations
    assert numbers == 12 * 8 * (8 + 4 * 4 + 5)  # int64 action, four float32, five bool


@pytest.mark.parametrize(
    ("case", "low", "high"),
    [
        ("vector", 0.95, 1.15),
        ("normalised", 0.95, 1.15),
        ("box action", 0.95, 1.15),
        ("image", 0.95, 1.15),
        ("gru", 0.85, 1.15),
    ],
)
def test_an_update_takes_what_was_planned(case, low, high):
    trainer = ppo_lab.Trainer(config(**CASES[case], env__num_envs=64))
    updates, plan = iter(trainer), trainer.memory_plan
    weights = sum(parameter.nbytes for parameter in trainer.state.model.parameters())
    # the weights are there, and copied at the beginning of the first update, when there are no moments yet
    generators = 2 * trainer.state.action_rng.get_state().nbytes
    assert plan.rollback == plan.learner - weights + generators
    planned = plan.minibatches + max(plan.values, plan.gradient) + plan.learner + generators
    assert low < planned / peak_bytes(lambda: next(updates)) < high  # the first: later ones have some of it already


def test_the_learner_is_weights_gradients_and_moments():
    trainer = ppo_lab.Trainer(config())
    next(iter(trainer))
    moments = trainer.state.optimizer.state.values()
    kept = sum(tensor.nbytes for state in moments for name, tensor in state.items() if name != "step")
    weights = sum(parameter.nbytes for parameter in trainer.state.model.parameters())
    assert trainer.memory_plan.learner == 2 * weights + kept
    assert ppo_lab.Trainer(config(ppo__optimizer="sgd")).memory_plan.learner == 2 * weights


@pytest.mark.parametrize("case", ["vector", "gru", "image"])
def test_planning_moves_nothing(case):
    trainer = ppo_lab.Trainer(config(**CASES[case], model__normalize_obs=True))
    next(iter(trainer))
    before, numbers = trainer.fingerprint(), torch.random.get_rng_state()
    plan_memory(trainer.config, trainer.engine, trainer.state.model, trainer.state.obs)
    assert trainer.fingerprint() == before
    assert torch.equal(torch.random.get_rng_state(), numbers)


def test_a_plan_that_cannot_fit_is_refused_in_one_line_before_anything_is_taken(monkeypatch):
    real = Rollout.empty.__func__

    def empty(cls, num_steps, num_envs, obs, *others):
        assert num_steps * num_envs < 10**9 or obs.device.type == "meta", "the rollout was made"
        return real(cls, num_steps, num_envs, obs, *others)

    monkeypatch.setattr(Rollout, "empty", classmethod(empty))
    monkeypatch.setattr(memory_plan, "free_memory", lambda device: 8 * 10**9)
    with pytest.raises(ConfigError) as refused:
        ppo_lab.Trainer(config(env__num_envs=2048, ppo__num_steps=1_000_000))
    text = str(refused.value)
    assert "\n" not in text
    assert "8.0 GB are free: lower env.num_envs or ppo.num_steps" in text
    assert "training needs" in text
    assert ppo_lab.Trainer(config()).memory_plan.free == 8 * 10**9


def plan(free, **parts):
    sizes = dict.fromkeys(("rollout", "minibatches", "learner", "values", "gradient"), 10**6) | parts
    return MemoryPlan(**sizes, device="cpu", free=free)


def test_the_advice_is_about_what_is_large():
    with pytest.raises(ConfigError, match=r"lower env.num_envs or ppo.num_steps$"):
        plan(10**6, rollout=10**9).check()
    with pytest.raises(ConfigError, match=r"raise ppo.num_minibatches or ppo.accumulate$"):
        plan(10**6, gradient=10**9).check()
    with pytest.raises(ConfigError, match=r"lower model.hidden_sizes"):
        plan(10**6, learner=10**9).check()
    plan(4 * 10**6).check()
    plan(None, rollout=10**18).check()
    with pytest.raises(ConfigError, match=r"training needs 4\.0 MB of memory on cpu.*4\.0 MB are free"):
        plan(4 * 10**6 - 1).check()


def test_sizes_are_readable():
    assert [as_text(size) for size in (7, 1_500, 2_345_678, 41e9)] == ["7 B", "1.5 kB", "2.3 MB", "41.0 GB"]


def test_the_machine_says_what_is_free():
    free = free_memory(torch.device("cpu"))
    assert free is None or 10**6 < free < 10**15


def test_a_container_has_less_than_its_machine(tmp_path):
    files = {"memory.max": "1000\n", "memory.current": "900\n", "memory.stat": "anon 500\nfile 400\nshmem 50\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert memory_plan._free_in_container(tmp_path) == 1000 - 900 + 400 - 50
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_plan._free_in_container(tmp_path) is None
    assert memory_plan._free_in_container(tmp_path / "nothing") is None


def test_the_plan_is_shown(tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO, logger="ppo_lab")
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in (SMALL | {"ppo.total_timesteps": 96}).items()]
    flags[-1] = f"--run.root={tmp_path}"
    assert main(["train", *flags]) == 0
    assert " of memory on cpu: rollout 6.0 kB, " in caplog.messages[0]
    assert caplog.messages[0] in capsys.readouterr().err.splitlines()[0]


def tensors():
    """How many tensors there are, and the bytes they hold."""
    gc.collect()
    # proxies lie to isinstance, and the compiler's fake tensors have no memory
    found = [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in found}
    return len(found), sum(storages.values())


@pytest.mark.parametrize("case", ["vector", "gru"])
def test_twenty_trainers_made_and_dropped_leave_the_memory_flat(case, tmp_path):
    def train():
        trainer = ppo_lab.Trainer(config(**CASES[case], run__root=str(tmp_path)))
        next(iter(trainer))
        trainer.save()
        trainer.close()

    train()  # what is made once and kept
    before = tensors()
    for _ in range(20):
        train()
    assert tensors() == before
