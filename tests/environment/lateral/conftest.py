"""The challenge's own data, where they are at hand."""

from __future__ import annotations

import importlib.util
import tarfile
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "lateral"


@pytest.fixture(scope="session")
def segments(tmp_path_factory) -> Path:
    """The folder with the first 200 official segments."""
    archive = DATA / "segments_00000_00199.tar.xz"
    if not archive.is_file():
        pytest.skip(f"the official segments are not at hand: {archive.name}")
    place = tmp_path_factory.mktemp("segments")
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    return place / "data"


@pytest.fixture(scope="session")
def model() -> Path:
    """The official network."""
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install onnx onnxruntime")
    path = DATA / "tinyphysics.onnx"
    if not path.is_file():
        pytest.skip(f"the official network is not at hand: {path.name}")
    return path
