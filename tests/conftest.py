"""What all tests share: one thread, the repository's root, and how hard Hypothesis looks."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

LATERAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "lateral"  # the challenge's own
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
if not os.access(Path.home(), os.W_OK):  # IPython warns otherwise, and here a warning is an error
    place = tempfile.mkdtemp(prefix="ppo_lab-home-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    for name in ("IPYTHONDIR", "MPLCONFIGDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        os.environ.setdefault(name, f"{place}/{name.lower()}")
torch.set_num_threads(1)
settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")


@pytest.fixture
def root() -> Path:
    """The folder of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def segments(tmp_path_factory) -> Path:
    """The folder with the first 200 official segments."""
    archive = LATERAL_DATA / "segments_00000_00199.tar.xz"
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
            pytest.skip(f"{package} is not installed: pip install ppo_lab[lateral]")
    path = LATERAL_DATA / "tinyphysics.onnx"
    if not path.is_file():
        pytest.skip(f"the official network is not at hand: {path.name}")
    return path
