"""The settings stored in a checkpoint, and how the config.yaml of its run differs from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from ppo_lab.config import SECTIONS, Config
from ppo_lab.config.env import auto_num_envs
from ppo_lab.config.loading import RENAMED, setting_text
from ppo_lab.config.yaml_text import parse_yaml, render_scalar

# Settings that do not affect the result of training, and why. They may be edited in the config.yaml of a run, and a
# resumed run uses the new values. All other settings are stored in checkpoints and compared.
BESIDE = {
    "run.name": "a folder can be renamed",
    "run.root": "a folder can be moved",
    "run.tensorboard": "what is written in addition to metrics.jsonl",
    "run.checkpoint_every": "saving does not disturb",
    "run.keep_*": "which checkpoints stay on disk",
    "run.best_by": "which checkpoint is called the best",
    "run.eval_*": "evaluating does not disturb",
    "env.workers": "which process steps an environment: the same results",
    "env.allow_import": "a permission, not a setting of the task",
}
SHOWN = 4  # the number of settings that a message names


def recorded(config: Config) -> dict[str, Any]:
    """Return what a checkpoint stores of the settings: the text of each one that affects training, and their hash."""
    texts = _texts(config)
    canonical = json.dumps({key: _canonical(text) for key, text in texts.items()}, sort_keys=True)
    return {"settings": texts, "settings_sha256": hashlib.sha256(canonical.encode()).hexdigest()}


def edits(about: Mapping[str, Any], config: Config) -> dict[str, tuple[str, str]]:
    """Return the settings in which a checkpoint and the config.yaml of its run differ: {"ppo.gamma": ("0.99", "0.9")}.

    A setting that is not in the checkpoint (of an older version) had its default value. Still older checkpoints store
    no settings; for them the result is {}. about: the entry "about" of the checkpoint.
    """
    then, now = about.get("settings"), _texts(config)
    if then is None or about.get("settings_sha256") == recorded(config)["settings_sha256"]:
        return {}
    then = dict(then)
    for key, (new, values) in RENAMED.items():
        if key in then:
            text = then.pop(key)
            then[new] = values.get(text, text)
    defaults = _texts(Config())
    pairs = {key: (then.get(key, defaults[key]), text) for key, text in now.items()}
    return {key: pair for key, pair in pairs.items() if _canonical(pair[0]) != _canonical(pair[1])}


def edited_text(found: Mapping[str, tuple[str, str]]) -> str:
    """Describe the result of `edits` in one line, for a message; "" if nothing was edited."""
    words = [
        f"{key}: {_short(then)} in the checkpoint, {_short(now)} in config.yaml" for key, (then, now) in found.items()
    ]
    return "; ".join(words[:SHOWN] + ([f"and {len(words) - SHOWN} more"] if len(words) > SHOWN else []))


def _texts(config: Config) -> dict[str, str]:
    """Return the text of each setting that affects training, {"ppo.gamma": "0.99"}; env.num_envs is a number."""
    keys = [(section, name) for section, model in SECTIONS.items() for name in model.model_fields]
    texts = {f"{section}.{name}": setting_text(config, section, name) for section, name in keys}
    texts["env.num_envs"] = str(auto_num_envs(config.env))
    return {key: text for key, text in texts.items() if not any(fnmatchcase(key, beside) for beside in BESIDE)}


def _canonical(text: str) -> str:
    """Return a normal form of the text of a setting: the same for equal values, whatever the order of their keys."""
    return render_scalar(_ordered(parse_yaml(text)), tuples=True)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=str)}
    return type(value)(map(_ordered, value)) if isinstance(value, (list, tuple)) else value


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
