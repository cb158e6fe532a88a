"""The benchmark of CUDA graphs goes through on a CPU, and its page says that there is no figure where there is none."""

from __future__ import annotations

import pytest
import torch


def test_the_dry_run_goes_through_every_line_but_the_capture(bench, capsys, monkeypatch):
    monkeypatch.setattr(bench.gpu, "write_json", lambda *_: pytest.fail("it was kept"))
    monkeypatch.setattr(bench.gpu, "write_readme", lambda *_: pytest.fail("it was kept"))
    bench.gpu.main(["--dry-run"])
    out = capsys.readouterr().out
    for preset in bench.settings.GPU:
        assert out.count(f"`{preset}`") == len(bench.gpu_report.CONTENDERS)
    assert "no figures" in out


def test_both_steps_are_captured_where_graphs_are_asked_for(bench):
    captured = {}
    for preset in bench.settings.GPU:
        base = bench.settings.preset_settings(preset)
        for name, (_, changes) in bench.gpu_report.CONTENDERS.items():
            config = {"base": base, "changes": bench.settings.GPU[preset] | bench.settings.GPU_DRY | changes}
            told = bench.gpu_training.training(config, seed=1, num_envs=8, warm_up=1, updates=1, dry=True)
            captured[preset, name] = told["captured"]
            assert told["steps"] == 8 * 16
    for (_, name), parts in captured.items():
        assert parts == ([] if name == "plain" else ["rollout", "minibatch"])


def test_without_a_gpu_it_says_what_to_do(bench, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        bench.gpu.main([])
    assert "torch finds no CUDA device; --dry-run" in capsys.readouterr().err


def results(bench):
    def one(name, seed, seconds):
        return {"contender": name, "seed": seed, "steps": 1000, "seconds": seconds, "first_update_seconds": 1.5}

    seconds = {"plain": 2.0, "graphs": 1.0, "graphs_bfloat16": 0.5}
    runs = [one(name, seed, each) for seed in (1, 2) for name, each in seconds.items()]
    machine = {"cpu": "c", "cores": 2, "system": "s", "gpu": "G"}
    settings = {"updates": 10, "warm_up_updates": 2}
    return {"machine": machine, "versions": {"torch": "2"}, "settings": settings, "speed": {"cartpole": {"4096": runs}}}


def test_the_page_has_the_part(bench):
    assert "**No figure exists yet:**" in bench.report.readme(None, None, None)
    page = bench.report.readme(None, None, None, gpu=results(bench))
    assert "No figure" not in page
    assert "GPU: G." in page
    assert "| 4,096        | graphs           | 1,000 (1,000 to 1,000) | **2.00** (2.00 to 2.00)" in page
