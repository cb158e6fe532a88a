"""A checkpoint is read back exactly as saved, or rejected, whatever happened to its files."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.errors import LabError, RunError
from ppo_lab.evaluation.policy import load_policy
from ppo_lab.runs import checkpoint
from ppo_lab.runs.checkpoint import FILES, MANIFEST, load_checkpoint, newest_whole, prune, save_checkpoint, sweep
from ppo_lab.training.trainer import Trainer

DTYPES = (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64)
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False), st.text(max_size=8)
)
TREE = {"model": {"w": torch.arange(3.0)}, "optimizer": {"m": torch.ones(2)}, "obs": torch.zeros(1), "update": 7}


@st.composite
def tensors(draw):
    """Generate tensors of any bytes, dtype and shape (also NaNs with payloads), and views of larger ones."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = int(np.prod(shape)) * dtype.itemsize
    data = torch.tensor(list(draw(st.binary(min_size=size, max_size=size))), dtype=torch.uint8)
    data = data % 2 if dtype is torch.bool else data
    tensor = data.view(dtype).reshape(shape)
    look = draw(st.sampled_from(["plain", "transposed", "strided", "expanded"]))
    if look == "transposed":
        return tensor.permute(tuple(reversed(range(tensor.dim()))))
    if look == "strided":
        return torch.stack([tensor, tensor], -1)[..., 0]
    return tensor.expand(2, *shape) if look == "expanded" else tensor


TREES = st.recursive(
    st.one_of(PLAIN, tensors()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=10,
)


def same(a, b):
    """Assert that two trees are equal to the last bit, types included."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    else:
        assert type(a) is type(b)
        assert a == b
        assert repr(a) == repr(b)  # -0.0


@given(st.dictionaries(st.sampled_from(["model", "optimizer", "envs", "live", "a"]), TREES))
def test_what_was_saved_is_what_is_loaded(tree):
    with tempfile.TemporaryDirectory() as folder:
        same(tree, load_checkpoint(save_checkpoint(Path(folder), 3, tree)))


def test_tensors_that_share_memory_keep_their_own_values(tmp_path):
    weight = torch.arange(6.0)
    tree = {"model": {"a": weight, "b": weight, "c": weight[2:4], "d": weight.view(2, 3).T}, "also": [weight, weight]}
    same(tree, load_checkpoint(save_checkpoint(tmp_path, 1, tree)))


@pytest.fixture
def saved(tmp_path):
    return save_checkpoint(tmp_path / "checkpoints", 5, TREE)


def refused(path):
    """Return the one-line reason for which a checkpoint is rejected."""
    with pytest.raises(RunError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert newest_whole(path.parent)[0] is None
    return str(caught.value)


def test_every_flipped_byte_is_noticed(saved):
    """Change a bit, a kind of white space, or random bytes: every byte of the manifest, samples of the other files."""
    chance = np.random.default_rng(0)
    for name in (*FILES, MANIFEST):
        data = (saved / name).read_bytes()
        places = range(len(data)) if name == MANIFEST else sorted(set(chance.integers(0, len(data), 30)))
        for at in places:
            others = {data[at] ^ (1 << int(chance.integers(8)))}
            others |= set(b" \t\n\r") if data[at] in b" \n" else {int(chance.integers(256))}
            for other in others - {data[at]}:
                (saved / name).write_bytes(data[:at] + bytes([other]) + data[at + 1 :])
                assert checkpoint.problem_of(saved), (name, at, other)
        (saved / name).write_bytes(data)
    same(load_checkpoint(saved), TREE)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_every_truncation_and_every_addition_is_noticed(saved, name):
    data = (saved / name).read_bytes()
    for length in range(len(data)):
        (saved / name).write_bytes(data[:length])
        assert checkpoint.problem_of(saved), length
    refused(saved)
    for more in (b"\0", b" ", b"\n", data):
        (saved / name).write_bytes(data + more)
        assert checkpoint.problem_of(saved), more


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    assert f"{name}: No such file" in refused(saved)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_file_of_another_checkpoint_is_noticed(saved, tmp_path, name):
    other = {key: value + 1 if key in ("obs", "update") else {"w": torch.ones(3)} for key, value in TREE.items()}
    shutil.copy(save_checkpoint(tmp_path / "others", 5, other) / name, saved / name)
    refused(saved)


def test_a_folder_named_by_another_step_is_noticed(saved):
    assert "its manifest belongs to step 5" in refused(saved.rename(saved.with_name("6")))


def test_a_format_of_the_future_is_named(saved):
    text = (saved / MANIFEST).read_text()
    (saved / MANIFEST).write_text(text.replace('"format": 2', '"format": 4'))
    assert "format 4, this version reads up to 3" in refused(saved)


def consistent(path, name, data):
    """Replace a file by `data` and make the manifest match: a deliberate manipulation."""
    contents = {file: (path / file).read_bytes() for file in FILES} | {name: data}
    for file, content in contents.items():
        (path / file).write_bytes(content)
    entries = {file: checkpoint._entry(content) for file, content in contents.items()}
    (path / MANIFEST).write_bytes(checkpoint._manifest(int(path.name), entries))


class Evil:
    """A pickle that creates a folder when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def payloads(marker):
    """Return the payload as written by `pickle` and by `torch.save`."""
    import io

    buffer = io.BytesIO()
    torch.save(Evil(marker), buffer)
    return [pickle.dumps(Evil(marker)), buffer.getvalue()]


@pytest.mark.parametrize("vouched", [False, True])
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_pickle_is_never_run(saved, tmp_path, name, vouched):
    for payload in payloads(tmp_path / "marker"):
        if vouched and name != MANIFEST:
            consistent(saved, name, payload)
        else:
            (saved / name).write_bytes(payload)
        with pytest.raises(RunError):
            load_checkpoint(saved)
        assert not (tmp_path / "marker").exists()
    pickle.loads(payloads(tmp_path / "marker")[0])  # the payload works
    assert (tmp_path / "marker").exists()


DEEP = [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000]
ODD = [b"", b"null", b"[]", b"1e999", b'{"files": 3}', b'{"format": 1, "step": 5, "files": []}', b"\xff\xfe", b"NaN"]


@pytest.mark.parametrize("text", [*DEEP, *ODD])
def test_json_of_any_kind_is_one_line(saved, text):
    (saved / MANIFEST).write_bytes(text)
    refused(saved)


@pytest.mark.parametrize(
    "text", [*DEEP, b"", b"[]", b"3", b'{"obs": {"$tensor": "elsewhere"}}', b'{"obs": {"$tensor": [1]}}', b"\xff"]
)
def test_a_tree_of_any_kind_is_one_line_even_with_the_right_checksum(saved, text):
    consistent(saved, "state.json", text)
    with pytest.raises(RunError) as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


BASE = {
    "env": {"id": "ppo_lab/CartPole-v1", "num_envs": 2},
    "model": {"hidden_sizes": [4]},
    "ppo": {"total_timesteps": 10_000, "num_steps": 8, "update_epochs": 1, "num_minibatches": 1},
    "run": {"tensorboard": False, "checkpoint_every": 0, "name": "one"},
}


@pytest.fixture
def run(tmp_path):
    """Make a closed run with checkpoints at 16, 32 and 48, and the fingerprints of their states."""
    trainer = Trainer(override(override(Config(), BASE), {"run.root": str(tmp_path)}))
    prints = {}
    for update in trainer:
        trainer.set(learning_rate=1e-3 / update.update)
        trainer.save()
        prints[update.global_step] = trainer.fingerprint()
        if update.update == 3:
            break
    trainer.close()
    return trainer.run.folder, prints


def test_resume_falls_back_to_the_newest_whole_one_and_says_why(run, caplog):
    folder, prints = run
    state = folder / "checkpoints" / "48" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    (folder / "checkpoints" / "32" / "MANIFEST.json").unlink()
    with caplog.at_level(logging.WARNING, "ppo_lab"):
        trainer = Trainer.resume(folder)
    assert trainer.fingerprint() == prints[16]
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert "48: state.safetensors is not what was written" in told[0]
    assert "32: MANIFEST.json: No such file" in told[1]
    for update in trainer:  # the broken checkpoints are replaced during training
        trainer.save()
        if update.update == 3:
            break
    trainer.close()
    again = Trainer.resume(folder)
    assert again.fingerprint() == prints[48]
    again.close()


def test_without_a_whole_one_every_reason_is_told(run):
    folder, _ = run
    for step in (16, 32, 48):
        (folder / "checkpoints" / str(step) / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"has no whole checkpoint: .*48: model.*32: model.*16: model") as caught:
        Trainer.resume(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match=r"32: model.safetensors is not what was written"):
        Trainer.fork(folder, at=32)


def test_a_save_keeps_what_it_wrote_even_when_broken_ones_are_newer(run):
    folder, prints = run
    for step in (32, 48):
        (folder / "checkpoints" / str(step) / "MANIFEST.json").write_bytes(b"")
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("keep_last: 3", "keep_last: 1"))
    trainer = Trainer.resume(folder)
    next(iter(trainer))
    trainer.save()
    trainer.close()
    assert newest_whole(folder / "checkpoints")[0] == 32
    assert trainer.fingerprint() == prints[32]


NAMES = ("config.yaml", "metrics.jsonl", "journal.jsonl", "lineage.json", "best", "latest", "checkpoints")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["pickle", "torch.save", "deep", "deep lines", "binary", "infinite"])
def test_anything_under_a_name_of_ours_runs_nothing_and_is_one_line_or_harmless(run, tmp_path, name, kind):
    folder, prints = run
    if name == "checkpoints":
        shutil.rmtree(folder / name)
    evil, evil_torch = payloads(tmp_path / "marker")
    contents = {
        "pickle": evil, "torch.save": evil_torch, "deep": DEEP[0], "deep lines": DEEP[1] + b"\n", "binary": b"\xff\n",
        "infinite": b'{"step": Infinity, "score": 1, "update": Infinity}\n',
    }  # fmt: skip
    (folder / name).write_bytes(contents[kind])
    for use in (Trainer.resume, load_policy, lambda place: Trainer.fork(place, "best")):
        made, line = None, ""
        try:
            made = use(folder)
        except LabError as error:
            line = str(error)
        assert "\n" not in line
        if isinstance(made, Trainer):
            assert made.fingerprint() in prints.values()
            made.close()
    assert not (tmp_path / "marker").exists()


def test_the_sweep_takes_what_dead_processes_left_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = [f".tmp-32-{dead.pid}-0123abcd", f".tmp-latest-{dead.pid}-0123abcd", f".tmp-48-{os.getpid()}-0123abcd"]
    stay = [f".tmp-32-{os.getppid()}-0123abcd", ".tmp-of-a-person", "32", f"x.tmp-32-{dead.pid}-0123abcd"]
    for name in gone + stay:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    (tmp_path / f".tmp-best-{dead.pid}-89abcdef").write_text("")
    sweep(tmp_path)
    assert sorted(place.name for place in tmp_path.iterdir()) == sorted(stay)
    sweep(tmp_path / "nowhere")


def test_the_sweep_of_a_resume_covers_the_run_folder_and_its_checkpoints(run):
    folder, _ = run
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for place in (folder / f".tmp-latest-{dead.pid}-0123abcd", folder / "checkpoints" / f".tmp-64-{dead.pid}-0123abcd"):
        place.write_text("")
    Trainer.resume(folder).close()
    assert not list(folder.rglob(".tmp-*"))


STEPS = st.sets(st.integers(0, 60), min_size=1, max_size=12)


@given(STEPS, st.integers(1, 5), st.integers(0, 20), st.sets(st.integers(0, 60), max_size=2))
@settings(max_examples=30)
def test_prune_keeps_the_last_the_protected_and_one_in_every_so_many(steps, last, every, protect):
    kept = {step for step in steps if step in protect or sum(other >= step for other in steps) <= last}
    if every:
        kept |= {min(s for s in steps if s // every == step // every) for step in steps}
    with tempfile.TemporaryDirectory() as place:
        folder, other = Path(place) / "checkpoints", Path(place) / "another run"
        for step in steps:
            (folder / str(step)).mkdir(parents=True)
            (other / str(step)).mkdir(parents=True)
        strangers = {"007", "٣", "notes", ".tmp-1-1-00000000", "1.5", "-3"}
        for name in strangers:
            (folder / name).mkdir()
        (folder / "99").write_text("a file")
        prune(folder, last, every, protect)
        left = {path.name for path in folder.iterdir()}
        assert left == {str(step) for step in kept} | strangers | {"99"}
        assert len(list(other.iterdir())) == len(steps)


def test_a_whole_checkpoint_is_kept_and_a_broken_one_replaced(tmp_path):
    path = save_checkpoint(tmp_path, 5, TREE)
    before = (path / "state.json").stat().st_mtime_ns
    save_checkpoint(tmp_path, 5, TREE)
    assert (path / "state.json").stat().st_mtime_ns == before
    (path / "state.json").write_text("{}")
    same(load_checkpoint(save_checkpoint(tmp_path, 5, TREE)), TREE)
    assert [place.name for place in tmp_path.iterdir()] == ["5"]


def test_the_manifest_says_what_the_files_are(saved):
    import hashlib

    manifest = json.loads((saved / MANIFEST).read_text())
    assert sorted(manifest["files"]) == sorted(FILES)
    for name, entry in manifest["files"].items():
        data = (saved / name).read_bytes()
        assert entry == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
