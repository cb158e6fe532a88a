"""The modules of benchmarks/, which are scripts and import each other by name."""

from __future__ import annotations

import importlib

import pytest


class Modules:
    """bench.learning is benchmarks/learning.py."""

    def __getattr__(self, name):
        return importlib.import_module(name)


@pytest.fixture
def bench(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return Modules()
