"""Fine-tuning is a fork with another plant: what was learned goes along, drives begin anew, and it can be resumed."""

import pytest
import torch

from environment.lateral.surrogate import NOMINAL
from ppo_lab.training.trainer import Trainer


def forked(run, tmp_path, **kwargs):
    """150 steps a rollout: its end is in the middle of a drive."""
    place = {"run.name": "tuned", "run.root": str(tmp_path), "env.kwargs": kwargs}
    return Trainer.fork(run, overrides={**place, "ppo.total_timesteps": 2_400, "ppo.num_steps": 150})


def check(run, fork, tmp_path):
    """The fork has its parent's weights and moments, and drives at their beginning; and resumes bit for bit."""
    parent = Trainer.resume(run)
    begun = fork.state.model.state_dict()
    assert all(torch.equal(rows, begun[name]) for name, rows in parent.state.model.state_dict().items())
    moments, its = ([m["exp_avg"] for m in t.state.optimizer.state.values()] for t in (parent, fork))
    assert len(moments) > 0
    assert all(torch.equal(one, other) for one, other in zip(moments, its, strict=True))
    assert fork.state.global_step == parent.state.global_step == 800
    assert fork.envs.state_dict()["clock"].tolist() == [100, 2]  # the first row that is driven, on the first two roads
    assert not fork.state.episodes.returns  # costs of the other plant are none of this one
    parent.close()

    next(iter(fork))
    fork.save()
    assert fork.envs.state_dict()["clock"].tolist() == [250, 2]
    on = next(iter(fork)).global_step
    fork.close()
    again = Trainer.resume(tmp_path / "tuned")
    assert next(iter(again)).global_step == on == 1_400
    assert again.fingerprint() == fork.fingerprint()
    again.close()


@pytest.mark.parametrize("plant", ["torch", "onnx"])
def test_a_run_goes_on_with_the_official_network(run, model, segments, tmp_path, plant):
    fork = forked(run, tmp_path, plant=plant, model=str(model), routes=str(segments), segments=[100, 110])
    assert not [name for name in fork.envs.state_dict() if name.startswith("plant_")]  # all official cars are the same
    check(run, fork, tmp_path)


def test_a_run_goes_on_with_other_roads_and_one_car(run, tmp_path):
    fork = forked(run, tmp_path, segments=[0, 20], routes_seed=5, randomise=False)  # its state has the parent's shapes
    assert fork.envs.state_dict()["plant_delay"].unique().tolist() == [NOMINAL["delay"]]
    check(run, fork, tmp_path)
