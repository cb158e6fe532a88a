"""Going on with a run: what a checkpoint holds, and how a trainer is put back to where it was or forked from there."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch

from ppo_lab.config import SECTIONS, Config
from ppo_lab.config.loading import flat, override
from ppo_lab.envs.adapters.given import factory_of, understood
from ppo_lab.envs.adapters.running_statistics import warn_of_statistics
from ppo_lab.envs.contract import EnvFactory, Envs
from ppo_lab.envs.making import make_envs, rewound_by_seeds
from ppo_lab.envs.making import why_inexact as tried_out
from ppo_lab.envs.space_text import describe_space
from ppo_lab.errors import ConfigError, EnvError, RunError
from ppo_lab.ppo.state import fingerprint, pick_device
from ppo_lab.runs.checkpoint import load_checkpoint
from ppo_lab.runs.files import disk
from ppo_lab.runs.journal import digest, read_journal
from ppo_lab.runs.run import Run, find_checkpoint, find_run
from ppo_lab.training.beginning import Beginning
from ppo_lab.training.continuity import changes_to_come, check_folder, check_task, same_episodes, settings_of_parent
from ppo_lab.training.convert import check_fit, converted

if TYPE_CHECKING:
    from ppo_lab.envs.adapters.episode_numbers import EpisodeNumbers
    from ppo_lab.training.trainer import Trainer

LOG = logging.getLogger("ppo_lab")


def checkpoint_tree(trainer: Trainer, beginning: Beginning | None = None) -> dict[str, Any]:
    """All that a checkpoint of this trainer holds; beginning: that of the update under way, in place of now."""
    envs_state: dict[str, Any]
    if beginning is None:
        envs_state, state = getattr(trainer.envs, "state_dict", dict)(), trainer.state.state_dict()
    else:
        envs_state, state = beginning.envs, beginning.tree(trainer.state)
    renewed: Callable[[], str | None] = getattr(trainer.envs, "why_inexact_now", lambda: None)
    because = trainer.inexact or renewed()
    because = because or (beginning.inexact_because if beginning else getattr(trainer.envs, "lost", None))
    if because is None and not envs_state:
        because = "these environments cannot tell their state"
    about = {
        "fingerprint": fingerprint({"state": state, "envs": envs_state}),
        "exact_resume": because is None,
        "inexact_because": because,
        "envs_given": trainer.envs_given,
        "observation_space": describe_space(trainer.envs.observation_space),
        "action_space": describe_space(trainer.envs.action_space),
        "action_paths": trainer.state.model.action_paths,
        "versions": versions(),
        "journal_sha256": digest(trainer.changes, state["update"]),
        "forked_at": None if trainer.run is None else trainer.run.forked_at,
        **trainer.recorded_settings,
    }
    numbers = {"added": trainer.added.waiting()}
    gathered: EpisodeNumbers | None = getattr(trainer.envs, "numbers", None)
    if gathered is not None and gathered.wanted:
        numbers["episodes"] = gathered.finished() if beginning is None else beginning.numbers
    return {**state, "envs": envs_state, "numbers": numbers, "about": about}


def versions() -> dict[str, str]:
    """What the numbers of a run may depend on besides its settings."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


def restore(trainer: Trainer, saved: Mapping[str, Any], environments: bool = True, task: bool = True) -> None:
    """Put a fresh trainer to where `saved` was.

    Without `environments` they begin new episodes; without `task` the returns so far were of another one.
    Raises RunError if the environments or the weights are not those of the checkpoint.
    """
    state, about = trainer.state, saved["about"]
    if about["envs_given"] and not trainer.envs_given:
        raise RunError("the run was trained in environments passed to Trainer(config, envs): pass them again")
    check_task(about, trainer.envs, bounds=environments)
    state.load_learner(saved)
    if task:
        state.episodes.load_finished(saved["episodes"])
        load_numbers(trainer, saved.get("numbers", {}))  # checkpoints from before there were any have none
    if environments:
        trainer.inexact = trainer.inexact or about.get("inexact_because")  # what was not repeatable once stays so
        load = getattr(trainer.envs, "load_state_dict", None)
        try:
            if load is None or not saved["envs"]:
                raise EnvError(about.get("inexact_because") or "these environments cannot tell their state")
            load(saved["envs"])
            state.load_experience(saved)
        except EnvError as error:
            trainer.inexact = str(error)
            state.begin_episodes(trainer.envs, trainer.config.run.seed)
            LOG.warning(
                "%s: exact_resume is false: %s; the episodes under way begin anew", trainer.config.run.name, error
            )
    state.load_random_numbers(saved)


def load_numbers(trainer: Trainer, saved: Mapping[str, Any]) -> None:
    """Take over what others had for the record: numbers that wait for a line, and those from info of past episodes."""
    trainer.added.add(saved.get("added", {}))
    gathered: EpisodeNumbers | None = getattr(trainer.envs, "numbers", None)
    if gathered is not None and "episodes" in saved:
        gathered.load_finished(saved["episodes"])


def resume(
    cls: type[Trainer], place: str | Path, total_timesteps: int | None, envs: Any, others: Mapping[str, Any]
) -> Trainer:
    """The trainer of a run, back at its newest whole checkpoint. others: settings asked for, which it cannot have."""
    if others:
        raise RunError(f"a resumed run keeps its settings; for another {', '.join(others)} use Trainer.fork")
    _check_place(place)
    with disk(f"resume {place}"):
        return _resume(cls, place, total_timesteps, envs)


def _check_place(place: Any) -> None:
    if not isinstance(place, str | os.PathLike):
        what = "None" if place is None else f"a {type(place).__name__}"
        raise RunError(f"run: expected the path of a run's folder, such as 'runs/name', got {what}")


def _resume(cls: type[Trainer], place: str | Path, total_timesteps: int | None, envs: Any) -> Trainer:
    run = Run.open(place)
    try:
        path, passed = find_checkpoint(run.folder)
        saved = load_checkpoint(path)
        check_folder(run.folder, run.config, saved)
        to_come = changes_to_come(run.folder, saved["update"])
        config, envs = understood(run.config, envs, pick_device(run.config.run.device))
        if config.env != run.config.env:
            changed = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in differences(run.config, config).items())
            raise RunError(f"a resumed run keeps its settings; for other environments ({changed}) use Trainer.fork")
        trainer = cls(run.config, envs, run=run)
    except BaseException:
        run.close()
        raise
    try:
        for reason in passed:
            LOG.warning("passed over: %s", reason)
        if total_timesteps is not None and total_timesteps < saved["global_step"]:
            raise RunError(f"run {place} is at step {saved['global_step']} already; total_timesteps={total_timesteps}")
        restore(trainer, saved)
        run.go_back_to(saved["update"], saved["global_step"])
        trainer.changes = [change for change in read_journal(run.folder) if change.update <= saved["update"]]
        trainer.schedule(to_come)
        if total_timesteps is not None:
            trainer.set(source="resume", total_timesteps=total_timesteps)
    except BaseException:
        trainer.close()
        raise
    return trainer


def fork(cls: type[Trainer], place: str | Path, at: int | str, overrides: Mapping[str, Any], envs: Any) -> Trainer:
    """A new run that begins where another was."""
    _check_place(place)
    with disk(f"fork {place}"):
        return _fork(cls, place, at, overrides, envs)


def _fork(cls: type[Trainer], place: str | Path, at: int | str, overrides: Mapping[str, Any], envs: Any) -> Trainer:
    parent = find_run(place)
    path, passed = find_checkpoint(parent, at)
    for reason in passed:
        LOG.warning("passed over: %s", reason)
    saved = load_checkpoint(path)
    old = settings_of_parent(parent, saved, overrides)
    config = override(old, overrides)
    if config.run.root is None:
        raise RunError("a fork is a run on disk: run.root cannot be null")
    lineage = {
        "parent": parent.name,
        "step": saved["global_step"],
        "update": saved["update"],
        "fingerprint": saved["about"]["fingerprint"],
        "changes": differences(old, config),
    }
    run = Run.create(config, lineage)
    try:
        trainer = cls(config, envs, run=run)
    except BaseException:
        run.discard()
        raise
    try:
        if trainer.config != config:  # run.threads: auto is a number now
            config = trainer.config
            lineage["changes"] = differences(old, config)
            run.settle(config, lineage)
        same_seed = config.run.seed == old.run.seed
        other_bounds = check_task(saved["about"], trainer.envs, bounds=False)
        if other_bounds:
            LOG.warning("%s: %s; no network reads them, and new episodes begin", run.name, other_bounds)
        same_task = (config.env.id, config.env.kwargs) == (old.env.id, old.env.kwargs) and not other_bounds
        saved = converted(saved, old, config, same_task)
        check_fit(saved["model"], trainer.state.model, lineage["changes"])
        same_envs = not other_bounds and trainer.envs_given == saved["about"]["envs_given"]
        restore(trainer, saved, environments=same_envs and same_episodes(old, config), task=same_task)
        if not same_seed:
            trainer.state.reseed(config.run.seed)
        for key in flat(overrides):
            trainer.state.adapted.pop(key.removeprefix("ppo."), None)
            trainer.state.live.pop(key.removeprefix("ppo."), None)  # what was asked for now rules
        changes = [change for change in read_journal(parent) if change.update <= saved["update"]]
        run.inherit(changes)
        trainer.changes = changes
        trainer.save()  # the fork's own first checkpoint: it needs its parent no more
    except BaseException:
        trainer.close()
        run.discard()
        raise
    return trainer


def differences(old: Config, new: Config) -> dict[str, list[Any]]:
    """{"ppo.gamma": [0.99, 0.9]}: the settings in which two configs differ, run's own name and root left out."""
    result = {}
    for section, model in SECTIONS.items():
        for name in model.model_fields:
            before, after = getattr(getattr(old, section), name), getattr(getattr(new, section), name)
            if before != after and f"{section}.{name}" not in ("run.name", "run.root"):
                result[f"{section}.{name}"] = [before, after]
    return result


def expected_config(config: Any) -> Config:
    """The settings of a trainer as they are. Raises ConfigError for what is none."""
    if isinstance(config, Config):
        return config
    how = "load_config(overrides={'env.id': 'CartPole-v1'}) or load_config('config.yaml')"
    what = f"the class {config.__name__}" if isinstance(config, type) else f"a {type(config).__name__}"
    raise ConfigError(f"config: expected a Config, such as {how}, got {'None' if config is None else what}")


def environments(config: Config, given: Any) -> tuple[Config, Envs | EnvFactory | None, EnvFactory | None, Envs]:
    """What to train in: the environments handed over, those that a function makes, or those of config.env.

    Returns the settings and `given` as `understood`, what makes more of these environments (or None), and them.
    Raises ConfigError if the run is to be evaluated in environments that cannot be made again.
    """
    device = pick_device(config.run.device)
    config, given = understood(config, given, device)
    factory = factory_of(given)
    if given is None or factory is not None:
        envs = make_envs(config, device, factory, aloud=True)
        warn_of_statistics(envs)
        return config, given, factory, envs
    if config.run.eval_every:
        raise ConfigError("run.eval_every: environments handed over cannot be made again; hand over what makes them")
    if config.env.info_metrics:
        raise ConfigError("env.info_metrics: environments handed over report numbers by their own method metrics()")
    warn_of_statistics(given)
    return config, given, None, given


def why_inexact(config: Config, envs: Envs, given: Envs | EnvFactory | None) -> str | None:
    """Why a resumed run would not go on bit for bit in these environments, and tell the person; None if it would.

    given: what the trainer was handed; those of config.env and of a factory can be tried out beside the run.
    """
    factory = factory_of(given)
    made_here = given is None or factory is not None
    if made_here and (moving := rewound_by_seeds(config, factory)) is not None:
        LOG.warning(
            "a seed rewinds this environment (%s), and every episode begins with one: all of them play the beginning. "
            "With env.seed_episodes false only each environment's first does; exact resume may be lost then", moving
        )  # fmt: skip
    if config.run.root is None:
        return None  # nobody will resume it
    if made_here:
        reason = tried_out(config, factory)
    else:
        reason = None if hasattr(envs, "state_dict") else f"{type(envs).__name__} cannot tell its state"
    if reason is not None:
        LOG.warning("exact_resume is false: %s", reason)
    return reason
