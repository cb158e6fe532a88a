"""The folder of a run: names that never collide, settings that read back, metrics that match what was yielded."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ppo_lab.config import Config
from ppo_lab.config.loading import load_config, override
from ppo_lab.errors import RunError
from ppo_lab.runs import Run, read_metrics
from ppo_lab.runs.metrics import JsonLines


@pytest.fixture
def config(tmp_path):
    return override(Config(), {"run.root": str(tmp_path / "runs"), "run.tensorboard": False})


def test_names_count_up_from_the_preset_or_the_environment(config):
    assert Run.create(config).name == "CartPole-v1-1"
    assert Run.create(config).name == "CartPole-v1-2"
    assert Run.create(config.model_copy(update={"preset": "cartpole"})).name == "cartpole-1"
    assert Run.create(override(config, {"env.id": "module:Odd Name/x-v0"})).name == "module-Odd-Name-x-v0-1"


def test_a_name_is_given_once(config):
    named = override(config, {"run.name": "mine"})
    Run.create(named)
    with pytest.raises(RunError, match=r"run 'mine' already exists in .*; choose another run.name"):
        Run.create(named)


def test_a_root_that_cannot_be_written_is_one_line(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write a run under .*; set run.root"):
        Run.create(override(config, {"run.root": str(tmp_path / "file" / "runs")}))


def test_the_settings_in_the_folder_are_the_run_s(config):
    run = Run.create(override(config, {"ppo.gamma": 0.5}))
    assert load_config(run.folder / "config.yaml").ppo.gamma == 0.5


def test_metrics_read_back_with_nan_where_one_did_not_exist(config):
    run = Run.create(config)
    run.record(1, 10, {"a": 1.5})
    run.record(2, 20, {"a": 2.5, "b": 7.0})
    run.close()
    run.record(3, 30, {"a": 0.1})
    run.close()
    columns = read_metrics(run.folder)
    assert columns["global_step"].tolist() == [10, 20, 30]
    assert columns["a"].tolist() == [1.5, 2.5, 0.1]
    assert np.array_equal(columns["b"], [np.nan, 7.0, np.nan], equal_nan=True)


def test_a_torn_last_line_is_left_out(config):
    run = Run.create(config)
    run.record(1, 10, {"a": 1.0})
    run.close()
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"update": 2, "glo')
    assert read_metrics(run.folder)["update"].tolist() == [1]


def test_every_line_is_there_as_soon_as_it_is_written(tmp_path):
    sink = JsonLines(tmp_path / "m.jsonl")
    sink.write(1, 10, {"a": 1.0})
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"update": 1, "global_step": 10, "a": 1.0}
    sink.close()


def test_tensorboard_holds_the_same_numbers(config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Run.create(override(config, {"run.tensorboard": True}))
    run.record(1, 10, {"loss/value": 1.5})
    run.record(2, 20, {"loss/value": 0.5})
    run.close()
    events = EventAccumulator(str(run.folder))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss/value")] == [(10, 1.5), (20, 0.5)]
