"""Command-line flags for all settings, generated from the models in `config`.

    --ppo.learning-rate 1e-3    --model.hidden-sizes "[64, 64]"    --run.tensorboard false    --ppo.target-kl null

A flag takes the text that would follow the key in config.yaml; `config.loading` parses and checks it.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from ppo_lab.config import SECTIONS
from ppo_lab.config.loading import RENAMED, allowed_text
from ppo_lab.config.yaml_text import render_scalar

HOW = "Flags take values as in config.yaml, e.g. false, null, 3e-4 or '[64, 64]'; their names may have - or _."


def flag(section: str, name: str) -> str:
    """Return the flag of a setting: ppo, learning_rate -> --ppo.learning-rate."""
    return f"--{section}.{name.replace('_', '-')}"


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting to a parser, grouped by section. A flag that is not given sets no attribute."""
    for section, model in SECTIONS.items():
        group = parser.add_argument_group(section, (model.__doc__ or "").splitlines()[0])
        for name, field in model.model_fields.items():
            default = render_scalar(field.get_default())
            meaning = f"{field.description}{allowed_text(field)} (default {default})"
            group.add_argument(
                flag(section, name), dest=f"{section}.{name}", default=argparse.SUPPRESS,
                metavar=_metavar(field.annotation), help=meaning.replace("%", "%%"),
            )  # fmt: skip


def given_settings(given: argparse.Namespace) -> dict[str, str]:
    """Return the settings that were given, as overrides: {"ppo.learning_rate": "1e-3"}."""
    return {key: value for key, value in vars(given).items() if "." in key}


def tidied(arguments: Iterable[str]) -> list[str]:
    """Replace underscores by dashes in the names of flags, and join negative numbers to their flags with "=".

    argparse would read the -1e-3 in `--model.log-std-init -1e-3` as a flag.
    """
    result: list[str] = []
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            result.append(name.replace("_", "-") + equals + value)
        elif re.match(r"-\.?\d", argument) and result and _waits_for_a_value(result[-1]):
            result[-1] += f"={argument}"
        else:
            result.append(argument)
    return result


def unknown_flag(name: str, takes_settings: bool) -> str:
    """Write the message about a flag that a command does not have."""
    name = name.partition("=")[0]
    if not takes_settings and name in ALL:
        return f"{name} cannot be changed here; to train with another value make a new run: `fork RUN {name} ...`"
    for old, (new, _) in RENAMED.items():
        if takes_settings and name == flag(*old.split(".")):
            return f"unknown flag {name}; it is now {flag(*new.split('.'))}"
    dotted = {known.partition(".")[2]: known for known in ALL}
    close = [dotted[name[2:]]] if name[2:] in dotted else difflib.get_close_matches(name, ALL, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close and takes_settings else ""
    return f"unknown flag {name}{hint}"


ALL = [flag(section, name) for section, model in SECTIONS.items() for name in model.model_fields]


def _waits_for_a_value(argument: str) -> bool:
    return argument.startswith("--") and "." in argument and "=" not in argument


def _metavar(annotation: Any) -> str:
    """Return the placeholder for the value of a flag in --help."""
    kinds = {annotation, *get_args(annotation)}
    if get_origin(annotation) is Literal:
        return "WORD"
    names = {bool: "true|false", int: "N", float: "X", str: "TEXT"}
    return next(
        (names[kind] for kind in names if kind in kinds and get_origin(annotation) not in (dict, tuple)), "YAML"
    )
