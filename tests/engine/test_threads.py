"""run.threads: auto measures without a trace, takes more threads only where they pay, and records a number."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

import ppo_lab
from ppo_lab.cli.main import main
from ppo_lab.config import Config
from ppo_lab.engine import threads
from ppo_lab.engine.threads import ThreadChoice, choose, cores
from ppo_lab.errors import ConfigError
from ppo_lab.runs.run import read_config
from ppo_lab.training.trainer import Trainer

SMALL = {
    "env.id": "ppo_lab/CartPole-v1", "env.num_envs": 4, "model.hidden_sizes": [8], "model.normalize_obs": True,
    "ppo.total_timesteps": 96, "ppo.num_steps": 8, "ppo.num_minibatches": 2, "ppo.chunk_length": 4, "run.root": None,
}  # fmt: skip
CASES = {
    "mlp": {},
    "mlp in torch": {"model.activation": "silu"},
    "gru": {"model.core": "gru", "model.core_size": 8},
    "image": {
        "env.id": "ppo_lab/Spaces-v0", "env.kwargs": {"observation": "image_hwc"}, "model.body": "cnn_small",
        "model.normalize_obs": False,
    },
    "dict, gsde": {
        "env.id": "ppo_lab/Spaces-v0", "env.kwargs": {"observation": "dict", "action": "box"}, "model.std": "gsde",
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread_again():
    yield
    torch.set_num_threads(1)


def config(**overrides):
    return ppo_lab.override(Config(), SMALL | {key.replace("__", "."): value for key, value in overrides.items()})


def decided(monkeypatch, count, measured=(1, 1)):
    """Two cores, and after a real measurement the answer is `count`."""

    def answer(seconds, limit):
        return ThreadChoice(count, {each: seconds(each) for each in measured})

    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads, "choose", answer)


def trained(**overrides):
    trainer = Trainer(config(**overrides))
    prints = [trainer.fingerprint()]
    prints += [trainer.fingerprint() for _ in trainer]
    trainer.close()
    return prints


@pytest.mark.parametrize("case", CASES)
def test_measuring_leaves_no_trace(case, monkeypatch):
    decided(monkeypatch, 1)
    numbers = torch.random.get_rng_state()
    around = {key.replace(".", "__"): value for key, value in CASES[case].items()}
    trainer = Trainer(config(**around, run__threads="auto"))
    assert list(trainer.thread_choice.seconds) == [1]
    assert all(seconds > 0 for seconds in trainer.thread_choice.seconds.values())
    assert torch.equal(torch.random.get_rng_state(), numbers)
    assert all(parameter.grad is None for parameter in trainer.state.model.parameters())
    assert [trainer.fingerprint(), *(trainer.fingerprint() for _ in trainer)] == trained(**around, run__threads=1)


def test_two_chosen_are_two_given(monkeypatch):
    decided(monkeypatch, 2)
    first = trained(run__threads="auto")
    assert torch.get_num_threads() == 2
    assert first == trained(run__threads=2)


def test_a_run_begins_with_the_same_weights_on_any_number_of_threads():
    one, two = (Trainer(config(run__threads=count, model__hidden_sizes=[256, 256])) for count in (1, 2))
    assert one.fingerprint() == two.fingerprint()


def test_the_run_records_the_number_and_goes_on_with_it(tmp_path, monkeypatch):
    decided(monkeypatch, 2)
    trainer = Trainer(config(run__threads="auto", run__root=str(tmp_path), run__name="one", ppo__total_timesteps=64))
    assert trainer.config.run.threads == 2
    prints = [trainer.fingerprint() for _ in trainer]
    trainer.close()
    assert "  threads: 2 " in (tmp_path / "one" / "config.yaml").read_text()
    monkeypatch.setattr(threads, "choose", None)  # nobody measures again
    torch.set_num_threads(1)
    again = Trainer.resume(tmp_path / "one")
    assert (again.fingerprint(), torch.get_num_threads(), again.thread_choice) == (prints[-1], 2, None)
    again.close()
    assert ppo_lab.replay(tmp_path / "one").equal
    fork = Trainer.fork(tmp_path / "one")
    fork.close()
    assert fork.config.run.threads == 2


def test_a_fork_that_measures_records_what_it_found(tmp_path, monkeypatch):
    trainer = Trainer(config(run__root=str(tmp_path), run__name="one", ppo__total_timesteps=64))
    for _ in trainer:
        pass
    trainer.close()
    decided(monkeypatch, 2)
    fork = Trainer.fork(tmp_path / "one", overrides={"run.threads": "auto", "ppo.total_timesteps": 128})
    for _ in fork:
        pass
    fork.close()
    assert read_config(fork.run.folder).run.threads == fork.run.config.run.threads == 2
    assert json.loads((fork.run.folder / "lineage.json").read_text())["changes"]["run.threads"] == [1, 2]
    monkeypatch.setattr(threads, "choose", None)
    assert ppo_lab.replay(fork.run.folder).equal


def test_what_was_chosen_is_said(tmp_path, capsys, monkeypatch):
    decided(monkeypatch, 1, measured=(1, 2))
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items() if key != "run.root"]
    assert main(["train", *flags, f"--run.root={tmp_path}", "--run.threads=auto"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("run.threads: auto took 1: ")]
    assert len(lines) == 1
    assert "s with 1 thread, " in lines[0]
    assert lines[0].endswith("s with 2")


def test_one_core_leaves_nothing_to_measure(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 1)
    monkeypatch.setattr(threads, "choose", None)
    trainer = Trainer(config(run__threads="auto"))
    assert trainer.config.run.threads == 1
    assert "nothing to choose" in str(trainer.thread_choice)


def scripted(seconds, limit=8):
    """The choice where a pass takes seconds[count], a number or one after the other."""
    rows = {count: itertools.cycle(value if isinstance(value, list) else [value]) for count, value in seconds.items()}
    return choose(lambda count: next(rows[count]), limit, clock=lambda: 0.0)


@pytest.mark.parametrize(
    ("seconds", "best", "asked"),
    [
        ({1: 1.0, 2: 10.0}, 1, [1, 2]),  # another process has the other core
        ({1: 1.0, 2: 0.85}, 1, [1, 2]),  # faster, but not clearly
        ({1: 1.0, 2: 0.75, 4: 0.7}, 2, [1, 2, 4]),
        ({1: 1.0, 2: 0.5, 4: 0.3, 8: 0.2}, 8, [1, 2, 4, 8]),
        ({1: 1.0, 2: [0.5, 0.5, 50.0]}, 2, [1, 2]),  # one stall is no reason
        ({1: [1.0, 1.0, 90.0], 2: 0.95}, 1, [1, 2]),
    ],
)
def test_more_threads_only_where_they_clearly_win(seconds, best, asked):
    choice = scripted(seconds, max(seconds))
    assert (choice.threads, list(choice.seconds)) == (best, asked)


def test_all_cores_are_tried_even_if_they_are_no_power_of_two():
    assert list(scripted({1: 1.0, 2: 0.5, 4: 0.25, 6: 0.15}, 6).seconds) == [1, 2, 4, 6]


def test_what_does_not_win_in_time_has_not_won():
    now = itertools.count()  # a second a look
    choice = choose(lambda count: 1.0 / count, 8, clock=lambda: float(next(now)))
    assert choice == ThreadChoice(1, {1: 1.0, 2: 0.5})


def test_cores_are_those_this_process_may_use(tmp_path, monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(threads, "_quota", lambda: None)
    for asked, known in (("", 6), ("4", 4), ("3,2", 3), ("64", 6), ("x", 6)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert cores() == known
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "_quota", lambda: 2)
    assert cores() == 2


@pytest.mark.parametrize(
    ("text", "known"),
    [("max 100000\n", None), ("250000 100000\n", 2), ("50000 100000\n", 1), ("?\n", None), (None, None)],
)
def test_a_container_has_fewer_cores_than_its_machine(text, known, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert threads._quota(tmp_path) == known


def test_only_auto_null_and_counts_are_threads():
    for good in ("auto", 1, None, "null", "3"):
        config(run__threads=good)
    for bad in ("fast", 0, 2000, True):
        with pytest.raises(ConfigError, match=r"run\.threads"):
            config(run__threads=bad)
