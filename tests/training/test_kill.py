"""A process that is killed at any moment: the run goes on to where it would have come undisturbed.

Run as a script it is the driver: python test_kill.py FOLDER SEED KILLS. It forks each child from a process that has
imported everything and runs no threads, because an import of torch in every child would take most of the time.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

KILLS = 50
UPDATES = 40
CHILDREN = itertools.count()
CHANGES = {9: {"clip_coef": 0.05}, 23: {"learning_rate": 3e-3, "gamma": 0.9}}  # asked for after these updates
BASE = {
    "env": {"id": "ppo_lab/CartPole-v1", "num_envs": 2},
    "model": {"hidden_sizes": [8], "normalize_obs": True},
    "ppo": {
        "total_timesteps": UPDATES * 16, "num_steps": 8, "update_epochs": 1, "num_minibatches": 2,
        "normalize_reward": True, "learning_rate_schedule": "linear",
    },
    "run": {"name": "one", "checkpoint_every": 48, "keep_last": 2},
}  # fmt: skip


def train(root):
    """Begin the run, or go on with it, to its end. Each change is asked for unless the journal has it."""
    from ppo_lab import Config, Trainer, override, read_journal

    folder = root / "one"
    if any((folder / "checkpoints").glob("[0-9]*")):
        trainer = Trainer.resume(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # killed before there was anything to go on with
        trainer = Trainer(override(override(Config(), BASE), {"run.root": str(root)}))
    written = {(change.update, change.key) for change in read_journal(folder)}

    def ask(update):
        wishes = CHANGES.get(update, {})
        trainer.set(**{key: value for key, value in wishes.items() if (update + 1, key) not in written})

    ask(trainer.state.update)  # a wish goes with the process if it is not in the journal yet
    for update in trainer:
        ask(update.update)
    trainer.close()
    (root / "fingerprint").write_text(trainer.fingerprint())


def child(root):
    """A process that trains; its id."""
    number = next(CHILDREN)
    pid = os.fork()
    if pid:
        return pid
    try:
        # TensorBoard reads event files in the order of their names: second, host, process id as text. Processes that
        # take three seconds to start are in order by the first; these need the second.
        socket.gethostname = lambda: f"child{number:04d}"
        train(root)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def drive(root, seed, kills):
    """Train runs to their ends through so many kills. Prints how many updates were on disk at each."""
    chance, number, seen = random.Random(seed), 0, []
    for name in ("first", "timed"):
        (root / name).mkdir()
    train(root / "first")  # here: all that is imported and made once
    assert threading.active_count() == 1, "a process with threads must not fork"
    began = time.perf_counter()
    os.waitpid(child(root / "timed"), 0)
    whole = time.perf_counter() - began  # kills fall anywhere in the time that a child takes from start to end
    while len(seen) < kills:
        place = root / str(number)
        place.mkdir()
        while not (place / "fingerprint").exists():
            pid = child(place)
            if len(seen) < kills:
                time.sleep(chance.uniform(0.0, whole))
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if os.WIFSIGNALED(status):
                metrics = place / "one" / "metrics.jsonl"
                seen.append(metrics.read_text().count("\n") if metrics.exists() else 0)
            elif os.WEXITSTATUS(status):
                sys.exit(f"a child failed after {len(seen)} kills in run {number}")
        number += 1
    print(json.dumps({"kills": seen, "runs": number, "seconds": whole}))


def rows(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


def scalars(folder):
    """Step and value of a number of every update, and of one that is there from the first episode's end on."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in ("loss/policy", "episode/return_mean")}


@pytest.mark.slow
def test_fifty_kills_end_where_the_undisturbed_run_ends(tmp_path, root):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    quiet.mkdir()
    killed.mkdir()
    train(quiet)
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, str(killed), "1", str(KILLS)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["kills"]) == KILLS
    assert len(set(result["kills"])) >= 10, "the kills did not fall into all parts of a run"
    expected, journal = rows(quiet / "one"), (quiet / "one" / "journal.jsonl").read_text()
    assert [row["update"] for row in expected] == list(range(1, UPDATES + 1))
    for place in sorted(killed.iterdir()):
        assert (place / "fingerprint").read_text() == (quiet / "fingerprint").read_text()
        assert rows(place / "one") == expected
        assert (place / "one" / "journal.jsonl").read_text() == journal
        assert scalars(place / "one") == scalars(quiet / "one")
        assert not list(place.rglob(".tmp-*"))
        assert len(list((place / "one" / "checkpoints").iterdir())) <= 3


def test_tensorboard_shows_no_update_twice_after_a_stop_without_saving(tmp_path):
    from ppo_lab import Config, Trainer, override

    trainer = Trainer(override(override(Config(), BASE), {"run.root": str(tmp_path), "run.checkpoint_every": 0}))
    for update in trainer:
        if update.update == 4:
            trainer.save()
        if update.update == 9:
            break
    trainer.close()
    again = Trainer.resume(tmp_path / "one")
    list(again)
    again.close()
    steps = [step for step, _ in scalars(tmp_path / "one")["loss/policy"]]
    assert steps == [16 * number for number in range(1, UPDATES + 1)]


def test_a_second_process_on_a_run_is_refused_with_one_line(tmp_path):
    from ppo_lab import Config, Trainer, override

    trainer = Trainer(override(override(Config(), BASE), {"run.root": str(tmp_path), "run.tensorboard": False}))
    next(iter(trainer))
    trainer.save()
    before = {path: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()}
    code = (
        "import sys; from ppo_lab.runs.run import Run; from ppo_lab.errors import RunError\n"
        "try: Run.open(sys.argv[1])\n"
        "except RunError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "one")]
    refused = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    expected = f"run {tmp_path / 'one'} is in use by process {os.getpid()}; close its trainer, or fork the run\n"
    assert refused.stdout == expected, refused.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()} == before
    next(iter(trainer))
    trainer.close()
    free = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert free.stdout == ""


if __name__ == "__main__":
    drive(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
