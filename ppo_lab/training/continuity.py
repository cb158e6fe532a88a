"""What has to be the same for a run to go on: its settings, its record of live changes, its task.

A checkpoint holds the settings it was trained with. The config.yaml beside it is a text that anybody can edit: a run
that took it as it is would silently become another one, and its replay would differ from its record.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppo_lab.config import Config, EnvConfig
from ppo_lab.config.env import auto_num_envs
from ppo_lab.config.loading import check_live, flat, override
from ppo_lab.config.yaml_text import parse_yaml
from ppo_lab.envs.contract import Envs
from ppo_lab.envs.space_text import describe_space, unlike
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.runs.journal import Change, digest, read_journal
from ppo_lab.runs.run import forked_at, read_config
from ppo_lab.runs.settings import SHOWN, edited_text, edits

# Settings of the environments that do not matter to the episodes under way: a fork that changes no other goes on with
# them. env.num_envs counts as the number that `auto` comes to.
NOT_THE_EPISODES = {
    "workers",  # which process steps them: the same results
    "allow_import",  # a permission
    "info_metrics",  # what is recorded of them
    "retry",  # what happens when one fails, next time
}


def check_folder(folder: Path, config: Config, saved: Mapping[str, Any], journal: bool = True) -> None:
    """Raise RunError if settings or lineage of a run are not those that a checkpoint of it was made with.

    journal: nor may the live changes up to there be others. A replay makes those that it finds, and says what differs.
    """
    about, found = saved["about"], edits(saved["about"], config)
    if found:
        place = shlex.quote(str(folder))
        flags = " ".join(f"{_flag(key)} {shlex.quote(now)}" for key, (_, now) in list(found.items())[:SHOWN])
        advice = f"or begin another run with `python -m ppo_lab fork {place} {flags}`"
        if list(found) == ["ppo.total_timesteps"]:
            advice = f"and go on for longer with `python -m ppo_lab resume {place} --total-timesteps N`"
        raise RunError(f"{folder / 'config.yaml'} was edited: {edited_text(found)}; put it back, {advice}")
    if journal and about.get("journal_sha256") not in (None, digest(read_journal(folder), saved["update"])):
        raise RunError(
            f"{folder / 'journal.jsonl'} was edited: its changes up to update {saved['update']} are not those that the "
            "checkpoint was trained with; put them back, or begin another run with a fork"
        )
    if "forked_at" in about and about["forked_at"] != forked_at(folder):
        raise RunError(
            f"{folder / 'lineage.json'} was edited: the run began at step {about['forked_at'] or 0}, and it says "
            f"{forked_at(folder) or 0}; put it back, or begin another run with a fork"
        )


def changes_to_come(folder: Path, update: int) -> list[Change]:
    """Return the live changes after an update, to be made again. Raise RunError for one that could not have been
    made.
    """
    changes = [change for change in read_journal(folder) if change.update > update]
    for change in changes:
        try:
            check_live(change.key, change.new)
        except ConfigError as error:
            raise RunError(f"{folder / 'journal.jsonl'}: the change at update {change.update}: {error}") from None
    return changes


def settings_of_parent(folder: Path, saved: Mapping[str, Any], overrides: Mapping[str, Any]) -> Config:
    """Return the settings a run had at a checkpoint, without its name, for a fork of it.

    Raises RunError where its config.yaml says otherwise and `overrides` do not say which of the two is meant.
    """
    config = override(read_config(folder), {"run.name": None})
    found = edits(saved["about"], config)
    open_ones = {key: pair for key, pair in found.items() if key not in flat(overrides)}
    if open_ones:
        key, (then, now) = next(iter(open_ones.items()))
        raise RunError(
            f"{folder / 'config.yaml'} was edited: {edited_text(open_ones)}; put it back, or say which it is to be, "
            f"e.g. {_flag(key)} {shlex.quote(then)} or {_flag(key)} {shlex.quote(now)}"
        )
    return override(config, {key: parse_yaml(then) for key, (then, _) in found.items()})


def same_episodes(old: Config, new: Config) -> bool:
    """Return whether the episodes under way are the same with both settings: then a fork continues them."""
    return old.run.seed == new.run.seed and _of_episodes(old.env) == _of_episodes(new.env)


def check_task(about: Mapping[str, Any], envs: Envs, bounds: bool) -> str:
    """Return the bounds in which the spaces of a checkpoint and of `envs` differ without a network reading them; or "".

    Raises RunError in words if the networks do not fit `envs`, and with `bounds` wherever the spaces differ at all.
    """
    found = {}
    for name in ("observation", "action"):
        parts = unlike(about[f"{name}_space"], describe_space(getattr(envs, f"{name}_space")), name)
        if parts:
            found[name] = parts
    text = "; ".join(part.text for parts in found.values() for part in parts)
    harmless = all(part.bounds_only for parts in found.values() for part in parts)
    if not harmless or (found and bounds):
        advice = (
            "; no network reads these bounds, but it is another task: Trainer.fork goes on there" if harmless else ""
        )
        others = " and ".join(f"another {name} space" for name in found)
        raise RunError(f"the checkpoint was trained with {others}: {text}{advice}")
    return text


def _of_episodes(env: EnvConfig) -> dict[str, Any]:
    return {**env.model_dump(exclude=NOT_THE_EPISODES), "num_envs": auto_num_envs(env)}


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"
