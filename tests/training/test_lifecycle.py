"""Train, change, save, resume, crash, fork, rewind, evaluate in any order: always where a run from scratch would be."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.evaluation import evaluate
from ppo_lab.runs import read_journal
from ppo_lab.runs.checkpoint import load_checkpoint, newest_whole
from ppo_lab.training.trainer import Trainer

STEPS = 16  # env steps of an update
CONFIG = override(
    Config(),
    {
        "env": {"id": "ppo_lab/CartPole-v1", "num_envs": 2},
        "model": {"hidden_sizes": [4], "normalize_obs": True},
        "ppo": {
            "total_timesteps": 100 * STEPS, "num_steps": 8, "update_epochs": 1, "num_minibatches": 1,
            "normalize_reward": True, "learning_rate_schedule": "linear", "ent_coef_schedule": "cosine",
        },
        "run": {"tensorboard": False, "checkpoint_every": 0, "keep_last": 1000},
    },
)  # fmt: skip
CHANGES = st.one_of(
    st.tuples(st.just("learning_rate"), st.sampled_from([1e-3, 1e-2])),
    st.tuples(st.just("clip_coef"), st.sampled_from([0.05, 0.4])),
    st.tuples(st.just("ent_coef"), st.sampled_from([0.01, 0.1])),
    st.tuples(st.just("gamma"), st.sampled_from([0.5, 0.9])),
)

History = tuple[tuple[int, str, float], ...]  # (update it was first in force for, setting, value)
KNOWN: dict[tuple[History, int], str] = {}


def from_scratch(history: History, updates: int) -> str:
    """The fingerprint after so many updates of a run that nothing interrupts and nobody writes down."""
    history = tuple(change for change in history if change[0] <= updates)
    if (history, updates) not in KNOWN:
        trainer = Trainer(override(CONFIG, {"run.root": None}))
        trainer.set(**{key: value for at, key, value in history if at == 1})
        KNOWN.setdefault(((), 0), trainer.fingerprint())
        for update in trainer if updates else ():
            past = tuple(change for change in history if change[0] <= update.update)
            KNOWN[past, update.update] = trainer.fingerprint()
            if update.update == updates:
                break
            trainer.set(**{key: value for at, key, value in history if at == update.update + 1})
        trainer.close()
    return KNOWN[history, updates]


def content(folder):
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Life(RuleBasedStateMachine):
    """A trainer beside the simplest account of it: which update it is at, and what was changed when."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.frozen: dict[Path, dict[str, bytes]] = {}  # runs that were forked from, as they were then

    @initialize()
    def begin(self):
        self.trainer = Trainer(override(CONFIG, {"run.root": str(self.root)}))
        self.first, self.update = 0, 0  # where the run began, where it is
        self.journal: list[tuple[int, str, float]] = []
        self.wishes: dict[str, float] = {}
        self.saved: set[int] = set()

    @rule(n=st.integers(1, 3), change=st.none() | CHANGES)
    def train(self, n, change):
        if change is not None:
            self.change(change)
        for _ in range(n):
            update = next(iter(self.trainer))
            self.journal += [
                (self.update + 1, key, value) for key, value in self.wishes.items() if self.moves(key, value)
            ]
            self.wishes = {}
            self.update += 1
            assert (update.update, update.global_step) == (self.update, STEPS * self.update)

    @rule(change=CHANGES)
    def ask(self, change):
        self.change(change)

    def change(self, change):
        key, value = change
        self.trainer.set(**{key: value})
        self.wishes.pop(key, None)
        self.wishes[key] = value

    @rule()
    def save(self):
        self.trainer.save()
        self.saved.add(self.update)

    @rule()
    def look_on(self):
        evaluate(self.trainer.policy(), self.trainer.config, episodes=1)

    @precondition(lambda self: self.saved)
    @rule(crash=st.booleans(), n=st.integers(0, 2))
    def resume(self, crash, n):
        if crash:
            self.trainer.run._lock.release()  # all that the end of a process does
            with (self.trainer.run.folder / "metrics.jsonl").open("a") as file:
                file.write('{"update": 9')
        else:
            self.trainer.close()
        self.trainer = Trainer.resume(self.trainer.run.folder)
        self.update, self.wishes = max(self.saved), {}
        self.it_is_where_a_run_from_scratch_would_be()
        self.train(n, None)

    @precondition(lambda self: self.saved)
    @rule(data=st.data(), rewind=st.booleans())
    def fork(self, data, rewind):
        at = data.draw(st.sampled_from(sorted(self.saved)))
        parent, before = self.trainer, content(self.trainer.run.folder)
        step = at * STEPS
        self.trainer = parent.rewind(step) if rewind else Trainer.fork(parent.run.folder, at=step)
        parent.close()
        self.frozen[parent.run.folder] = before
        assert self.trainer.run.folder != parent.run.folder
        lineage = json.loads((self.trainer.run.folder / "lineage.json").read_text())
        assert (lineage["parent"], lineage["step"], lineage["changes"]) == (parent.run.name, step, {})
        self.first = self.update = at
        self.journal = [change for change in self.journal if change[0] <= at]
        self.wishes, self.saved = {}, {at}

    @invariant()
    def it_is_where_a_run_from_scratch_would_be(self):
        history = tuple(sorted(self.in_force(), key=lambda change: change[0]))
        assert self.trainer.fingerprint() == from_scratch(history, self.update)

    @invariant()
    def every_update_is_recorded_once(self):
        file = self.trainer.run.folder / "metrics.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        assert [row["update"] for row in rows] == list(range(self.first + 1, self.update + 1))

    @invariant()
    def the_journal_has_every_change(self):
        written = [(change.update, change.key, change.new) for change in read_journal(self.trainer.run.folder)]
        assert written == self.journal

    @invariant()
    def what_was_saved_loads(self):
        place = self.trainer.run.checkpoints
        newest = max(self.saved) if self.saved else None
        assert newest_whole(place) == (newest * STEPS if self.saved else None, [])
        if self.saved:
            about = load_checkpoint(place / str(newest * STEPS))["about"]
            history = tuple(sorted(self.in_force(newest), key=lambda change: change[0]))
            assert about["fingerprint"] == from_scratch(history, newest)
            assert about["exact_resume"]

    @invariant()
    def runs_that_were_forked_from_stay_as_they_were(self):
        for folder, before in self.frozen.items():
            assert content(folder) == before

    def moves(self, key, value):
        """Whether this is a change at the next update: a wish for what rules already is none, but for a schedule."""
        if getattr(CONFIG.ppo, f"{key}_schedule", "constant") != "constant":
            return True
        past = sorted((change for change in self.journal if change[0] <= self.update + 1), key=lambda change: change[0])
        ruling = {name: number for _, name, number in past}
        return ruling.get(key, getattr(CONFIG.ppo, key)) != value

    def in_force(self, update=None):
        """The changes up to an update, the last one for a setting in an update being the one that counts."""
        update = self.update if update is None else update
        last = {(at, key): value for at, key, value in self.journal if at <= update}
        return {(at, key, value) for (at, key), value in last.items()}

    def teardown(self):
        if hasattr(self, "trainer"):
            self.trainer.close()
        shutil.rmtree(self.root)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
