"""History: columns that grow with every update, whichever metrics it reports."""

import math

import numpy as np

from ppo_lab.notebook.data.history import History
from ppo_lab.ppo.events import Update
from ppo_lab.runs.metrics import as_columns

UPDATES = [
    Update(1, 64, {"loss/policy": 0.5}),
    Update(2, 128, {"loss/policy": 0.4, "episode/return_mean": 20.0}),
    Update(3, 192, {"episode/return_mean": 21.0}),
]


def test_it_gives_what_reading_the_run_back_gives():
    history = History()
    for update in UPDATES:
        history.append(update)
    rows = [{"update": u.update, "global_step": u.global_step, **u.metrics} for u in UPDATES]
    ours, known = history.columns(), as_columns(rows)
    assert ours.keys() == known.keys()
    for name in known:
        np.testing.assert_array_equal(ours[name], known[name], err_msg=name)
    assert len(history) == 3


def test_the_newest_value_may_be_missing():
    history = History()
    assert math.isnan(history.last("loss/policy"))
    for update in UPDATES:
        history.append(update)
    assert math.isnan(history.last("loss/policy"))
    assert history.last("episode/return_mean") == 21.0
    assert math.isnan(history.last("nothing"))


def test_a_column_read_earlier_does_not_grow():
    history = History()
    history.append(UPDATES[0])
    before = history.columns()
    history.append(UPDATES[1])
    assert list(before["update"]) == [1.0]
