"""What has to be the same for a run to go on: its settings, its record of live changes, its task.

A checkpoint holds the settings it was trained with. The config.yaml beside it is a text that anybody can edit: a run
that took it as it is would silently become another one, and its replay would differ from its record.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ppo_lab.config import SECTIONS, Config, EnvConfig
from ppo_lab.config.loading import check_live, flat, override, setting_text
from ppo_lab.config.yaml_text import parse_yaml, render_scalar
from ppo_lab.envs.contract import Envs
from ppo_lab.envs.making import auto_num_envs
from ppo_lab.envs.space_text import describe_space, unlike
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.runs.journal import Change, digest, read_journal
from ppo_lab.runs.run import forked_at, read_config

LOG = logging.getLogger("ppo_lab")

# Settings that change nothing that training changes: they may be edited in the config.yaml of a run, and a resumed run
# takes them from there. Whatever does not stand here counts.
BESIDE = {
    "run.name": "a folder can be renamed",
    "run.root": "and moved",
    "run.tensorboard": "what is written beside metrics.jsonl",
    "run.checkpoint_every": "saving does not disturb",
    "run.keep_*": "which checkpoints stay on disk",
    "run.best_by": "which checkpoint is called the best",
    "run.eval_*": "evaluating does not disturb",
    "env.workers": "which process steps an environment: the same results",
    "env.allow_import": "a permission, not a setting of the task",
}
# Settings of the environments that do not matter to the episodes under way: a fork that changes no other goes on with
# them. env.num_envs counts as the number that `auto` comes to.
NOT_THE_EPISODES = {
    "workers",  # which process steps them: the same results
    "allow_import",  # a permission
    "info_metrics",  # what is recorded of them
    "retry",  # what happens when one fails, next time
}
SHOWN = 4  # settings that a message names


def recorded(config: Config) -> dict[str, Any]:
    """What a checkpoint holds of the settings: the text of each that counts, and the hash of them all."""
    texts = _texts(config)
    canonical = json.dumps({key: _canonical(text) for key, text in texts.items()}, sort_keys=True)
    return {"settings": texts, "settings_sha256": hashlib.sha256(canonical.encode()).hexdigest()}


def edits(about: Mapping[str, Any], config: Config) -> dict[str, tuple[str, str]]:
    """{"ppo.gamma": ("0.99", "0.9")}: the settings in which a checkpoint and the config.yaml of its run differ.

    One that the checkpoint does not know (it is of an older version) had its default; checkpoints without settings, of
    versions before there were any in them, agree with everything.
    """
    then, now = about.get("settings"), _texts(config)
    if then is None or about.get("settings_sha256") == recorded(config)["settings_sha256"]:
        return {}
    defaults = _texts(Config())
    pairs = {key: (then.get(key, defaults[key]), text) for key, text in now.items()}
    return {key: pair for key, pair in pairs.items() if _canonical(pair[0]) != _canonical(pair[1])}


def edited_text(found: Mapping[str, tuple[str, str]]) -> str:
    """The settings that were edited, in words; "" if none was."""
    words = [
        f"{key}: {_short(then)} in the checkpoint, {_short(now)} in config.yaml" for key, (then, now) in found.items()
    ]
    return "; ".join(words[:SHOWN] + ([f"and {len(words) - SHOWN} more"] if len(words) > SHOWN else []))


def check_folder(folder: Path, config: Config, saved: Mapping[str, Any], journal: bool = True) -> None:
    """Raises RunError if settings or lineage of a run are not those that a checkpoint of it was made with.

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
    """The live changes after an update, to be made again. Raises RunError for one that could not have been made."""
    changes = [change for change in read_journal(folder) if change.update > update]
    for change in changes:
        try:
            check_live(change.key, change.new)
        except ConfigError as error:
            raise RunError(f"{folder / 'journal.jsonl'}: the change at update {change.update}: {error}") from None
    return changes


def settings_of_parent(folder: Path, saved: Mapping[str, Any], overrides: Mapping[str, Any]) -> Config:
    """The settings a run had at a checkpoint, without its name, for a fork of it.

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
    """Whether the episodes under way are the same with both settings: then a fork goes on with them."""
    return old.run.seed == new.run.seed and _of_episodes(old.env) == _of_episodes(new.env)


def check_task(about: Mapping[str, Any], envs: Envs, bounds: bool) -> str:
    """The bounds in which the spaces of a checkpoint and of `envs` differ without a network reading them; "": in none.

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


def _texts(config: Config) -> dict[str, str]:
    """{"ppo.gamma": "0.99"}: each setting that counts as config.yaml has it, env.num_envs as a number."""
    keys = [(section, name) for section, model in SECTIONS.items() for name in model.model_fields]
    texts = {f"{section}.{name}": setting_text(config, section, name) for section, name in keys}
    texts["env.num_envs"] = str(auto_num_envs(config.env))
    return {key: text for key, text in texts.items() if not any(fnmatchcase(key, beside) for beside in BESIDE)}


def _canonical(text: str) -> str:
    """The same text for equal values: whoever wrote it, and in whatever order the keys of dictionaries are."""
    return render_scalar(_ordered(parse_yaml(text)), tuples=True)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=str)}
    return type(value)(map(_ordered, value)) if isinstance(value, (list, tuple)) else value


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
