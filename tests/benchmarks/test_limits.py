"""The machine's limit: the arithmetic, and that the pieces are the work that they stand for. Nothing here is timed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ppo_lab.models.networks import count_parameters

TINY = {"env.num_envs": 4, "ppo.num_steps": 6, "ppo.num_minibatches": 3, "ppo.update_epochs": 2}


def measured(**rounds):
    turns = {"environment": [2.0, 1.0], "actor": [2.0, 3.0], "values": [1.0, 1.0]}
    turns |= {"autograd": [12.0, 13.0], "by_hand": [4.0, 5.0]}
    turns |= {"adapter": [2.0, 3.0], "rollout_ours": [9.0, 6.0], "learning_ours": [7.0, 11.0]} | rounds
    about = {"num_envs": 8, "num_steps": 128, "minibatch": 256, "update_epochs": 4}
    return about | {"rounds": turns, "profile": [["losses.py: ppo_loss", 0.25]]}


def results(**rounds):
    sizes = {"num_envs": 16_384, "microseconds": 4.0, "planned_bytes": 2e9, "seen_bytes": 1.5e9}
    about = {"machine": {"cpu": "c", "cores": 2, "system": "s"}, "versions": {"torch": "2"}, "span": {"rounds": 2}}
    about |= {"load": {"before": 0.1, "after": 1.0}, "scaling": [sizes]}
    return about | {"limits": {"mine": measured(**rounds)}}


def cells(table, row=0):
    return [cell.strip() for cell in table.splitlines()[2 + row].split("|")[1:-1]]


def test_the_limit_is_the_sum_of_the_fastest_turns(bench):
    assert bench.limits_report.limit(measured()) == 1e6 / (1.0 + 2.0 + 1.0 + 4.0)
    assert bench.limits_report.reached(measured()) == 1e6 / 16.0  # a turn as a whole, not 6 + 7
    found = results()["limits"]
    assert cells(bench.limits_report.share_table(found)) == [
        "mine",
        "8 x 128, 4 x 256",
        "125,000",
        "62,500",
        "**50%**",
        "100%",
    ]
    wanted = ["mine", "1.00", "2.00", "1.00", "4.00", "12.00", "8.00", "6.00", "2.00", "7.00", "16.00"]
    assert cells(bench.limits_report.pieces_table(found)) == wanted


def test_what_only_autograd_can_do_has_one_limit(bench):
    found = results()["limits"]
    del found["mine"]["rounds"]["by_hand"]
    assert cells(bench.limits_report.share_table(found))[2:] == ["62,500", "62,500", "**100%**", "100%"]


def test_the_page_has_the_part(bench):
    page = bench.report.readme(limits=results())
    assert "**50%**" in page
    assert "| `losses.py: ppo_loss` | 25.0%" in page
    assert cells(bench.limits_report.scaling_table(results()["scaling"]))[:2] == ["16,384", "4.00"]
    assert "| 2,000 MB | 1,500 MB |" in page


def test_time_is_per_env_step(bench, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bench.limit_parts.time, "perf_counter", lambda: now[0])
    way = bench.bare.Way(lambda: now.__setitem__(0, now[0] + 0.5), env_steps=8)
    assert bench.limit_parts.timed(way, seconds=2.0) == pytest.approx(1e6 * 0.5 / 8)


@pytest.fixture
def trainer(bench):
    def make(**overrides):
        config = bench.limits.settings_of(None, TINY | {key.replace("__", "."): v for key, v in overrides.items()})
        return bench.limit_parts._warm(config)[0]

    return make


def test_the_bare_networks_have_the_layers_of_ours(bench, trainer):
    for env in ("ppo_lab/CartPole-v1", "Pendulum-v1"):
        ours = trainer(env__id=env)
        bare = bench.bare.Bare(ours)
        std = 1 if env == "Pendulum-v1" else 0  # no layer has it
        assert count_parameters(bare) == count_parameters(ours.state.model) - std
        rows = torch.randn(5, *ours.envs.observation_space.shape)
        assert np.allclose(bare.in_numpy(rows.numpy()), bare.actor(rows).detach().numpy(), atol=1e-6)


def test_what_a_call_is_worth(bench, trainer):
    ours = trainer(env__id="ppo_lab/CartPole-v1")
    ways = bench.bare.network_ways(ours)
    worth = {name: {way.env_steps for way in several} for name, several in ways.items()}
    assert worth == {"actor": {4}, "values": {24}, "autograd": {24 / (2 * 3)}, "by_hand": {24 / (2 * 3)}}
    again = bench.bare.network_ways(trainer(env__id="ppo_lab/CartPole-v1", ppo__recompute_advantage=True))
    assert {way.env_steps for way in again["values"]} == {24 / 2}
    before = ours.fingerprint()
    for way in (way for several in ways.values() for way in several):
        way.run()
    assert {name: len(several) for name, several in ways.items()} == {
        "actor": 3, "values": 2, "autograd": 2, "by_hand": 1
    }  # fmt: skip
    assert ours.fingerprint() == before


def test_only_two_plain_networks_are_done_bare(bench, trainer):
    assert bench.bare.is_plain(trainer(env__id="ppo_lab/CartPole-v1"))
    assert not bench.bare.is_plain(trainer(env__id="ppo_lab/CartPole-v1", model__core="gru", model__core_size=4))
    assert not bench.bare.is_plain(trainer(env__id="ppo_lab/CartPole-v1", model__shared=True))
    recurrent = trainer(env__id="ppo_lab/CartPole-v1", model__core="gru", model__core_size=4)
    for several in bench.bare.network_ways(recurrent).values():
        several[0].run()


def test_a_gymnasium_environment_is_stepped_without_the_adapter_too(bench, trainer):
    for env, ways in (("CartPole-v1", 2), ("ppo_lab/CartPole-v1", 1)):
        several, adapted = bench.bare.env_ways(trainer(env__id=env))
        assert len(several) == ways
        assert adapted in several
        for way in several:
            assert way.env_steps == 4
            for _ in range(60):  # past the end of episodes
                way.run()


def test_a_measurement_has_every_piece_and_names_no_place(bench, root):
    config = bench.limits.settings_of(None, TINY | {"env.id": "ppo_lab/CartPole-v1"})
    told = bench.measurement.measure("limit_parts.py", "setting", config=config, seconds=0.0, rounds=2)
    assert {len(turns) for turns in told["rounds"].values()} == {2}
    expected = {*bench.limits_report.NEEDED, "autograd", "by_hand", "adapter", *bench.limits_report.OURS}
    assert set(told["rounds"]) == expected
    assert (told["num_envs"], told["num_steps"], told["minibatch"], told["update_epochs"]) == (4, 6, 8, 2)
    assert 0.0 < sum(share for _, share in told["profile"]) <= 1.0
    assert str(root) not in json.dumps(told)
    assert "/" not in "".join(name for name, _ in told["profile"])


def test_scaling_tells_cost_and_memory(bench):
    config = bench.limits.settings_of(None, bench.settings.LIMITS_SCALING)
    told = bench.limit_parts.scaling(config, seconds=0.0, num_envs=32)
    assert told["num_envs"] == 32
    assert told["microseconds"] > 0.0
    assert told["planned_bytes"] > 10**5


def test_every_setting_of_the_page_exists(bench, monkeypatch):
    monkeypatch.setattr(bench.limits, "_has", lambda package: False)
    few = bench.limits.cases()
    monkeypatch.setattr(bench.limits, "_has", lambda package: True)
    every = bench.limits.cases()
    assert len(few) == len(every) - 2
    beside = bench.workloads.WORKLOADS["half_cheetah"].ours
    for key, value in every["`half_cheetah` as beside the others"]["ppo"].items():
        assert beside.get(f"ppo.{key}", value) == value, key
    rows = [case["env"]["num_envs"] * case["ppo"]["num_steps"] for case in few.values()]
    batches = [case["ppo"]["num_minibatches"] for case in few.values()]
    assert [row // batch for row, batch in zip(rows, batches, strict=True)] == [256, 256, 512, 8192]


def test_one_setting_from_the_command_line_is_printed_and_not_kept(bench, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(bench.limits, "measure", lambda script, kind, **task: asked.append(task) or measured())
    monkeypatch.setattr(bench.limits, "write_json", lambda *_: pytest.fail("it was kept"))
    monkeypatch.setattr("sys.argv", ["limits.py", "--preset", "acrobot", "env.num_envs=3", "ppo.learning_rate=1e-4"])
    bench.limits.main()
    (task,) = asked
    config = task["config"]
    assert (config["env"]["id"], config["env"]["num_envs"]) == ("Acrobot-v1", 3)
    assert config["ppo"]["learning_rate"] == 1e-4
    assert "**50%**" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--preset", "nothing"], ["ppo.clip_coef=-1"], ["ppo.nothing=1"]])
def test_a_wrong_setting_is_one_line(bench, monkeypatch, capsys, wrong):
    monkeypatch.setattr("sys.argv", ["limits.py", *wrong])
    with pytest.raises(SystemExit):
        bench.limits.main()
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("limits.py: error:")
