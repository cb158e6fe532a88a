"""Freed memory is kept, and handed back where free memory is counted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from ppo_lab.engine.process import give_back_memory, keep_freed_memory


def resident():
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_freed_memory_is_kept_and_given_back():
    if not keep_freed_memory():
        pytest.skip("this C library cannot be told")
    give_back_memory()
    before = resident()
    rooms = [torch.ones(2**22) for _ in range(20)]  # 16 MB each
    del rooms
    kept = resident() - before
    give_back_memory()
    assert kept > 200e6
    assert resident() - before < 100e6


def test_elsewhere_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
    give_back_memory()
