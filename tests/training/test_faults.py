"""Every call to the file system fails in turn: some whole checkpoint always loads, and nothing is left lying about."""

from __future__ import annotations

import errno
import io
import json
import os
import threading

import pytest

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.errors import LabError, RunError
from ppo_lab.runs import Run, read_journal
from ppo_lab.runs.checkpoint import checkpoints, load_checkpoint, newest_whole, problem_of
from ppo_lab.training.trainer import Trainer

CALLS = ("open", "mkdir", "rename", "replace", "unlink", "rmdir", "scandir", "stat", "listdir", "ftruncate")  # of os
ERRORS = {
    "disk full": OSError(errno.ENOSPC, "No space left on device"),
    "broken disk": OSError(errno.EIO, "Input/output error"),
    "no permission": PermissionError(errno.EACCES, "Permission denied"),
    "interrupt": KeyboardInterrupt(),
}
BASE = {
    "env": {"id": "ppo_lab/CartPole-v1", "num_envs": 2},
    "model": {"hidden_sizes": [4]},
    "ppo": {"total_timesteps": 10_000, "num_steps": 8, "update_epochs": 1, "num_minibatches": 1},
    "run": {"tensorboard": False, "checkpoint_every": 0, "name": "one", "keep_last": 1},
}


class TornFile:
    """A file whose `write`, when it is its turn to fail, has written half."""

    def __init__(self, file, faults):
        self._file, self._faults = file, faults

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __iter__(self):
        return iter(self._file)

    def write(self, data):
        try:
            self._faults.turn("write")
        except BaseException:
            self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)


class Faults:
    """Counts the calls to the file system while armed; the k-th one fails, or every one from there on."""

    def __init__(self, patch):
        self._lock = threading.Lock()
        self.disarm()
        for name in CALLS:
            patch.setattr(os, name, self._failing(name, getattr(os, name)))
        patch.setattr(os, "fsync", self._failing("fsync", lambda handle: None))  # and no time is spent on the disk
        really = io.open
        patch.setattr(io, "open", lambda *a, **k: TornFile(self._failing("io.open", really)(*a, **k), self))

    def arm(self, at, error, lasting):
        self.at, self.error, self.lasting, self.seen = at, error, lasting, []

    def disarm(self):
        self.at, self.error, self.lasting, self.seen = None, None, False, []

    def turn(self, name):
        with self._lock:
            if self.at is None:
                return
            self.seen.append(name)
            if len(self.seen) == self.at or (self.lasting and len(self.seen) > self.at):
                raise type(self.error)(*self.error.args)

    def _failing(self, name, function):
        def call(*args, **kwargs):
            self.turn(name)
            return function(*args, **kwargs)

        return call


@pytest.fixture
def faults(monkeypatch):
    return Faults(monkeypatch)


@pytest.fixture(params=ERRORS)
def error(request):
    return ERRORS[request.param]


def each_call_fails(faults, error, lasting, act):
    """Do `act` with its first call failing, then its second... until all succeed. Yields (k, what was raised)."""
    for k in range(1, 400):
        faults.arm(k, error, lasting)
        raised = None
        try:
            act(k)
        except (LabError, KeyboardInterrupt) as caught:
            raised = caught
        seen = faults.seen
        faults.disarm()
        assert "\n" not in str(raised)
        if raised is not None and not isinstance(raised, KeyboardInterrupt):
            assert (error.strerror in str(raised)) or isinstance(raised.__cause__, OSError), str(raised)
        yield k, raised
        if len(seen) < k:
            assert raised is None
            return
    raise AssertionError("there is no end to it")


def config(root, **changes):
    return override(override(Config(), BASE), {"run.root": str(root), **changes})


def rubbish(folder):
    return [str(path) for path in folder.rglob(".tmp-*")]


@pytest.mark.parametrize("lasting", [False, True])
def test_whatever_fails_in_saving_some_whole_checkpoint_loads(tmp_path, faults, error, lasting):
    run = Run.create(config(tmp_path))
    run.record(1, 1, {"a": 1.0})
    tree = {"model": {}, "optimizer": {}, "update": 0}
    run.save(1, tree, 0.5)
    step, last, failures = 1, 1, 0

    def save(k):
        nonlocal step
        step = 10 * k
        run.save(step, {**tree, "update": step}, float(step))  # the best so far, so that the one before it is removed

    for _, raised in each_call_fails(faults, error, lasting, save):
        newest, passed = newest_whole(run.checkpoints)
        assert passed == []
        assert newest in (last, step)
        if raised is None:
            assert newest == step
        assert load_checkpoint(run.checkpoints / str(newest))["update"] == (newest if newest > 1 else 0)
        assert not [
            problem for step in checkpoints(run.checkpoints) if (problem := problem_of(run.checkpoints / str(step)))
        ]
        if isinstance(raised, RunError) and not lasting:
            assert not rubbish(run.folder)  # cleaned up at once
        last = newest
        failures += raised is not None
        again = step + 1
        run.save(again, {**tree, "update": again}, float(again))  # it works again, at once
        assert newest_whole(run.checkpoints) == (again, [])
        last = again
        run.close()
        run = Run.open(run.folder)  # a later session cleans up
        assert not rubbish(run.folder)
        assert json.loads((run.folder / "best").read_text())["step"] in {int(p.name) for p in run.checkpoints.iterdir()}
    assert failures > 15
    run.close()


@pytest.mark.parametrize("lasting", [False, True])
def test_a_broken_checkpoint_in_the_way_stays_no_danger(tmp_path, faults, error, lasting):
    run = Run.create(config(tmp_path))
    tree = {"model": {}, "optimizer": {}, "update": 0}
    run.save(1, tree, None)
    broken = run.checkpoints / "2"

    def save(k):
        run.save(2, tree, None)

    def put_a_broken_one():
        broken.mkdir(exist_ok=True)
        (broken / "MANIFEST.json").write_text("{}")
        run.save(1, tree, None)

    put_a_broken_one()
    for _, _ in each_call_fails(faults, error, lasting, save):
        assert newest_whole(run.checkpoints)[0] in (1, 2)
        put_a_broken_one()
    run.close()
    Run.open(run.folder).close()
    assert not rubbish(run.folder)


@pytest.mark.parametrize("lasting", [False, True])
def test_training_goes_on_after_a_save_that_failed(tmp_path, faults, error, lasting):
    trainer = Trainer(config(tmp_path))
    next(iter(trainer))
    trainer.save()
    failures = 0
    for k, raised in each_call_fails(faults, error, lasting, lambda k: trainer.save()):
        failures += raised is not None
        if k % 4 == 0:
            next(iter(trainer))
    assert failures > 15
    next(iter(trainer))
    trainer.save()
    trainer.close()
    again = Trainer.resume(trainer.run.folder)
    assert again.fingerprint() == trainer.fingerprint()
    assert not rubbish(tmp_path)
    again.close()


@pytest.mark.parametrize("lasting", [False, True])
def test_a_change_that_cannot_be_written_down_does_not_take_effect(tmp_path, faults, error, lasting):
    trainer = Trainer(config(tmp_path))
    next(iter(trainer))
    journal = trainer.run.folder / "journal.jsonl"
    written = 0

    def change(k):
        trainer.set(clip_coef=0.1 + k / 1000, gamma=0.9 + k / 1000)
        faults.at, at = None, faults.at
        events = trainer.events()
        faults.at = at
        next(events)  # takes the changes, and then the first part of the update
        faults.at = None
        for _ in trainer:  # the rest of it, with its line of metrics
            break

    for k, raised in each_call_fails(faults, error, lasting, change):
        before = dict(trainer.state.live)
        if raised is None:
            written += 2
            assert trainer.state.live["clip_coef"].value == 0.1 + k / 1000
        assert len(read_journal(trainer.run.folder)) == written
        assert journal.exists() or not written
        update = next(iter(trainer))  # goes on, with what was in force
        assert trainer.state.live == before
        assert update.metrics["update/clip_coef"] == pytest.approx(before["clip_coef"].value if written else 0.2)
    assert written == 2
    trainer.close()


def test_a_change_half_written_by_a_crash_never_happened(tmp_path):
    trainer = Trainer(config(tmp_path))
    next(iter(trainer))
    trainer.save()
    trainer.set(gamma=0.9)
    next(iter(trainer))
    trainer.close()
    with (trainer.run.folder / "journal.jsonl").open("a") as file:
        file.write('{"update": 3, "glo')
    with (trainer.run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"update": 3, "glo')
    again = Trainer.resume(trainer.run.folder)
    again.set(gamma=0.8)
    next(iter(again))
    again.close()
    assert [change.new for change in read_journal(trainer.run.folder)] == [0.9, 0.8]
    assert len((trainer.run.folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_lines_of_metrics_the_disk_did_not_take_are_written_with_the_next(tmp_path, faults):
    trainer = Trainer(config(tmp_path, **{"run.tensorboard": False}))
    updates = 0
    for _ in each_call_fails(faults, ERRORS["disk full"], False, lambda k: next(iter(trainer))):
        updates = trainer.state.update
    assert updates > 2
    next(iter(trainer))
    trainer.close()
    lines = (trainer.run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["update"] for line in lines] == list(range(1, updates + 2))


def content(folder):
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_fork_that_fails_leaves_its_parent_as_it_was_and_the_name_free(tmp_path, faults, error):
    trainer = Trainer(config(tmp_path))
    next(iter(trainer))
    trainer.save()
    trainer.close()
    before = content(tmp_path / "one")
    made = []
    for _, raised in each_call_fails(
        faults, error, False, lambda k: made.append(Trainer.fork(tmp_path / "one", overrides={"run.name": "two"}))
    ):
        if raised is not None:
            assert content(tmp_path / "one") == before
            for path in tmp_path.glob("two/*"):  # only a removal that fails can leave something
                assert path.is_file() or path.is_dir()
        while made:
            assert made[-1].fingerprint() == trainer.fingerprint()
            made[-1].close()
            made.pop().run.discard()
    assert not (tmp_path / "two").exists()


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path):
    trainer = Trainer(config(tmp_path))
    next(iter(trainer))
    (trainer.run.folder / "checkpoints").write_text("")
    with pytest.raises(RunError, match=r"cannot save checkpoint 16 in .*") as caught:
        trainer.save()
    assert "\n" not in str(caught.value)
    (trainer.run.folder / "checkpoints").unlink()
    assert trainer.save().name == "16"
    trainer.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write a run under .*file"):
        Trainer(config(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line(tmp_path):
    trainer = Trainer(config(tmp_path))
    next(iter(trainer))
    trainer.save()
    trainer.run.checkpoints.chmod(0o500)
    next(iter(trainer))
    with pytest.raises(RunError, match=r"cannot save checkpoint 32 in .*Permission denied; earlier ones are untouched"):
        trainer.save()
    trainer.run.checkpoints.chmod(0o700)
    assert trainer.save().name == "32"
    trainer.close()
