"""The log of actions that leads an environment back: any length, old checkpoints, and what is too long."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppo_lab.envs.adapters import replay
from ppo_lab.envs.adapters.replay import ActionLog, recipe_from, steps_of
from ppo_lab.errors import RunError
from ppo_lab.ppo.state import fingerprint
from ppo_lab.runs.checkpoint import load_checkpoint, save_checkpoint

N = 3
PLAIN = ((N,), np.dtype(np.int64))
NESTED = {"move": ((N, 2), np.dtype(np.float32)), "hit": ((N,), np.dtype(np.int64))}
OBS = torch.zeros(N)


def played(formats, steps, seed=0, log=None, ends=0.02):
    """A log after some steps, and what it should hold: N lists of (action, reward) of the episodes under way."""
    rng = np.random.default_rng(seed)
    log = log or ActionLog(N, formats)
    kept = [[] for _ in range(N)]
    for _ in range(steps):
        draw = {
            key: rng.integers(0, 9, shape).astype(dtype) for key, (shape, dtype) in replay.parts(formats).items()
        }  # fmt: skip
        reward, ended = rng.normal(size=N).astype(np.float32), rng.random(N) < ends
        log.record(draw.get("", draw), reward, ended)
        for i in range(N):
            kept[i].append(({key: rows[i] for key, rows in draw.items()}, reward[i]))
            if ended[i]:
                kept[i] = []
    return log, kept


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(replay, "PIECE_BYTES", 1)  # 64 rows each, the least there is


@pytest.mark.parametrize("formats", [PLAIN, NESTED], ids=["plain", "nested"])
@pytest.mark.parametrize("steps", [0, 1, 63, 64, 65, 500])
def test_a_recipe_holds_the_episodes_under_way(formats, steps, tmp_path):
    log, kept = played(formats, steps)
    tree = {"model": {}, "optimizer": {}, "envs": log.state_dict(OBS)}
    saved = load_checkpoint(save_checkpoint(tmp_path, steps, tree))["envs"]
    recipe = recipe_from(saved)
    for i in range(N):
        assert steps_of(recipe.actions[i]) == len(kept[i])
        for t, (action, reward) in enumerate(kept[i]):
            for key, rows in replay.parts(recipe.actions[i]).items():
                np.testing.assert_array_equal(rows[t], action[key])
            assert recipe.rewards[i][t] == reward


@pytest.mark.parametrize("ends", [0.0, 0.02, 0.5])
def test_a_loaded_log_goes_on_as_if_never_saved(ends, tmp_path):
    whole, _ = played(PLAIN, 300, 1, ends=ends)
    tree = {"model": {}, "optimizer": {}, "envs": whole.state_dict(OBS)}
    again = ActionLog(N, PLAIN)
    again.load(load_checkpoint(save_checkpoint(tmp_path, 1, tree))["envs"])
    for log in (whole, again):
        played(PLAIN, 200, 2, log, ends)
    assert fingerprint(whole.state_dict(OBS)) == fingerprint(again.state_dict(OBS))


def test_what_was_written_before_there_were_pieces_still_loads():
    actions = [torch.arange(n) for n in (70, 0, 3)]
    old = {"run_seed": 4, "episode": torch.tensor([1, 2, 3]), "actions": actions, "obs": OBS}
    assert recipe_from(old).rewards is None
    log = ActionLog(N, PLAIN)
    log.load(old)
    recipe = recipe_from(log.state_dict(OBS))
    assert [rows.tolist() for rows in recipe.actions] == [rows.tolist() for rows in actions]
    assert log.episode.tolist() == [1, 2, 3]


def test_a_state_does_not_change_while_the_log_goes_on():
    log, _ = played(PLAIN, 100)
    state = log.state_dict(OBS)
    before = fingerprint(state)
    played(PLAIN, 300, 5, log)
    assert fingerprint(state) == before


def test_memory_is_bounded_and_what_is_too_long_is_said(monkeypatch):
    monkeypatch.setattr(replay, "LONGEST", 200)
    log, _ = played(PLAIN, 200, ends=0.0)
    assert log.lost is None
    played(PLAIN, 1000, 1, log, ends=0.0)
    assert log.lost == "a current episode has 1,200 steps, and only 200 are kept for its replay"
    assert log.state_dict(OBS) == {}
    assert log._kept() <= 200 + 2 * 64
    log.record(np.zeros(N, np.int64), np.zeros(N, np.float32), np.ones(N, np.bool_))
    assert log.lost is None  # all of them ended
    assert log.state_dict(OBS)["length"].tolist() == [0, 0, 0]


def test_a_piece_is_written_once_and_linked(tmp_path):
    log, _ = played(PLAIN, 130, ends=0.0)
    places = []
    for step in (1, 2):
        tree = {"model": {}, "optimizer": {}, "envs": log.state_dict(OBS)}
        places.append(save_checkpoint(tmp_path, step, tree))
    names = [sorted(path.name for path in place.glob("piece-*")) for place in places]
    assert names[0] == names[1]
    assert len(names[0]) == 2
    for name in names[0]:
        assert (places[0] / name).samefile(places[1] / name)


def test_where_there_are_no_links_a_piece_is_written_again(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "not permitted")

    monkeypatch.setattr("os.link", refuse)
    log, _ = played(PLAIN, 130, ends=0.0)
    for step in (1, 2):
        tree = {"model": {}, "optimizer": {}, "envs": log.state_dict(OBS)}
        place = save_checkpoint(tmp_path, step, tree)
    assert load_checkpoint(place)


@pytest.mark.parametrize("damage", ["gone", "torn", "other"])
def test_a_damaged_piece_is_noticed(tmp_path, damage):
    log, _ = played(PLAIN, 130, ends=0.0)
    place = save_checkpoint(tmp_path, 1, {"model": {}, "optimizer": {}, "envs": log.state_dict(OBS)})
    piece = sorted(place.glob("piece-*"))[0]
    if damage == "gone":
        piece.unlink()
    else:
        piece.write_bytes(piece.read_bytes()[:-1] if damage == "torn" else b"x" * piece.stat().st_size)
    with pytest.raises(RunError, match=piece.name):
        load_checkpoint(place)
