"""Test before training whether a resumed run would continue bit for bit in these environments, using new objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from ppo_lab.envs.adapters.attributes import look
from ppo_lab.envs.adapters.env_memory import Snapshot, hooks_of, worlds
from ppo_lab.envs.adapters.loop import EnvLoop
from ppo_lab.envs.adapters.replay import ActionLog, recipe_from
from ppo_lab.envs.adapters.rows import ArrayTree, Rows, empty_rows, equal
from ppo_lab.envs.adapters.steps import action_format, as_tensors
from ppo_lab.envs.spaces import MASK_KEY, bounds, flatten_space, leaf_spaces, map_leaves, parts
from ppo_lab.errors import EnvError
from ppo_lab.interrupts import GUARD

Make = Callable[[], gymnasium.Env]
SEED = 1
EPISODES = 8  # physics that depend on an earlier episode show it in some of the later ones only
FIRST, STEPS = 400, 150  # most steps of the first episode and of the others: walkers diverge within 26 to 128
MOST_SECONDS = 1.5  # each for playing and for comparing: slow simulators get fewer episodes
REMEDY = "give it state_dict() and load_state_dict(state), or set env.new_each_episode to true"
OUTLIVES = f"some of its state outlives episodes: {REMEDY}"


class Played(NamedTuple):
    """Actions and results of one environment, with some intermediate states as a checkpoint would save them."""

    steps: list[tuple[int, ArrayTree | None, Rows]]  # episode number, action (None: episode abandoned), result
    cuts: list[tuple[int, int, dict[str, Any]]]  # number of steps before, episode number, state
    world: str | None = None  # an opaque object that the second episode shares with the first


def why_inexact(make: Make) -> str | None:
    """Return why a new environment would not continue like one that has played for a while; None if it does.

    One environment plays some episodes with random legal actions. Others are restored to intermediate states of it, as
    in a resume, and continue with its actions. Observations, rewards and flags must be equal. Ends early if a stop is
    requested: a resume tests again.
    """
    deadline = time.monotonic() + MOST_SECONDS
    with closing(make()) as env:
        shared = Snapshot(env)
        try:
            played = _play(env, deadline)
        finally:
            shared.put_back()
    if played.world is not None:
        return f"{played.world} is kept across episodes, and its state cannot be read: {REMEDY}"
    for start, number, state in played.cuts:
        if GUARD.asked or (number > 1 and time.monotonic() > deadline + MOST_SECONDS):
            break
        following = [step for step in played.steps[start:] if step[0] <= number + 1]
        with closing(make()) as env:
            shared = Snapshot(env)
            try:
                difference = _difference(env, state, following)
            except EnvError as error:
                difference = str(error)
            finally:
                shared.put_back()
        if difference is None:
            continue
        if not _deterministic(make, played):
            return "the environment is not deterministic: equal seeds and actions gave different results"
        return f"{difference}; {OUTLIVES}"
    return None


def rewound_by_seeds(make: Make) -> str | None:
    """Return the path of an attribute that every seed resets, such as a position in a playlist or a file; or None.

    The attribute takes the same sequence of values after each of three different seeds, and changes between seeds.
    """
    with closing(make()) as env:
        shared, began = Snapshot(env), time.monotonic()
        sequences: list[list[dict[str, Any]]] = []
        try:
            for seed in range(3):
                sequences.append([])
                for number in range(5):
                    env.reset(seed=None if number else SEED + seed)
                    sequences[-1].append({path: one.text for path, one in look(env).items() if one.plain})
                    if GUARD.asked or time.monotonic() - began > 0.2 * (1 + seed):
                        return None  # a slow simulator: not worth the wait
        finally:
            shared.put_back()
    for path in sequences[0][0]:
        first, *others = ([seen.get(path) for seen in sequence] for sequence in sequences)
        if all(other == first for other in others) and any(value != first[1] for value in first[2:]):
            return path
    return None


def _play(env: gymnasium.Env, deadline: float) -> Played:
    rows, loop = _loop(env)
    space = flatten_space(env.action_space)
    log, rng = ActionLog(1, action_format(1, space)), np.random.default_rng(SEED)
    loop.reset(SEED)
    log.reset(SEED)
    played, length = Played([], []), 0  # of the previous episode
    before = worlds(env)
    for number in range(EPISODES):
        begun, cut = int(log.episode[0]), min(3 * number, length // 2)
        for t in range(STEPS if number else FIRST):
            if number and t == cut:
                state = {**log.state_dict(as_tensors(rows.obs)), "$remembered": loop.remember()}
                played.cuts.append((len(played.steps), number, state))
            action = random_action(space, parts(rows.obs).get(MASK_KEY), rng)
            loop.step(map_leaves(np.copy, action))
            log.record(action, rows.reward, rows.terminated | rows.truncated)
            played.steps.append((number, action, _copied(rows)))
            if log.episode[0] > begun or GUARD.asked or (time.monotonic() > deadline and t > cut):
                break
        if GUARD.asked or (time.monotonic() > deadline and played.cuts):
            break
        length = t + 1
        if log.episode[0] == begun:  # it takes too long to end
            loop.restart()
            log.episode += 1
            log.length[:] = 0
            played.steps.append((number, None, _copied(rows)))
        if before and number == 0 and not hooks_of(env) and (kept := before.keys() & worlds(env).keys()):
            return played._replace(world=before[kept.pop()])
    return played


def _difference(
    env: gymnasium.Env, state: Mapping[str, Any], steps: list[tuple[int, ArrayTree | None, Rows]]
) -> str | None:
    """Describe how a restored new environment differs; None: it does not. Raises EnvError if it cannot be restored."""
    rows, loop = _loop(env)
    loop.restore(recipe_from(state))
    for t, (_, action, answer) in enumerate(steps, start=1):
        if not _same(_acted(loop, action, rows), answer):
            return f"{t} steps after a resume its observation or reward would differ"
    return None


def _acted(loop: EnvLoop, action: ArrayTree | None, rows: Rows) -> Rows:
    """Take one more step, or abandon the episode if `action` is None; return the rows."""
    if action is None:
        loop.restart()
    else:
        loop.step(map_leaves(np.copy, action))
    return rows


def _deterministic(make: Make, played: Played) -> bool:
    """Return whether a new environment repeats what another new one did from its first step."""
    with closing(make()) as env:
        rows, loop = _loop(env)
        shared = Snapshot(env)
        try:
            loop.reset(SEED)
            for _, action, answer in played.steps[:FIRST]:
                if not _same(_acted(loop, action, rows), answer):
                    return False
        except EnvError:
            return False
        finally:
            shared.put_back()
    return True


def _loop(env: gymnasium.Env) -> tuple[Rows, EnvLoop]:
    rows = empty_rows(1, flatten_space(env.observation_space))
    return rows, EnvLoop([env], rows)


def _copied(rows: Rows) -> Rows:
    return Rows(*(map_leaves(np.copy, part) for part in rows))


def _same(rows: Rows, others: Rows) -> bool:
    """Return whether observations, rewards and flags are equal."""
    return all(map(equal, rows, others))


def random_action(space: gymnasium.Space, mask: np.ndarray | None, rng: np.random.Generator) -> ArrayTree:
    """Draw an action (1, *action) of a flat space among those that mask (1, size) allows; None: among all."""
    legal = iter([] if mask is None else mask.reshape(-1).tolist())
    drawn = {key: _random_leaf(leaf, mask is not None, legal, rng) for key, leaf in leaf_spaces(space).items()}
    return drawn.get("", drawn)


def _random_leaf(space: gymnasium.Space, masked: bool, legal: Iterator[bool], rng: np.random.Generator) -> np.ndarray:
    def choose(choices: int) -> int:
        allowed = [k for k in range(choices) if not masked or next(legal)]
        return int(rng.choice(allowed)) if allowed else 0

    if isinstance(space, spaces.Box):
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        bounded = np.isfinite(low) & np.isfinite(high)
        uniform = rng.uniform(np.where(bounded, low, 0.0), np.where(bounded, high, 1.0))
        drawn = np.where(bounded, uniform, np.clip(rng.normal(size=low.shape), low, high))
        return drawn[None].astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        bits = [choose(2) for _ in range(int(np.prod(space.shape)))]
        return np.array(bits, np.int8).reshape(1, *space.shape)
    limits = bounds(space)
    assert limits is not None  # Discrete or MultiDiscrete: the other leaves were handled above
    low, high = limits
    chosen = [choose(int(n)) for n in np.ravel(high - low + 1)]
    return (np.array(chosen, np.int64).reshape(1, *np.shape(low)) + low).astype(np.int64)
