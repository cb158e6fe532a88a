"""Every setting as a flag of the command line, made from the models in `config`.

    --ppo.learning-rate 1e-3    --model.hidden-sizes "[64, 64]"    --run.tensorboard false    --ppo.target-kl null

A flag takes what stands in config.yaml behind the key, as text; `config_file` reads and checks it.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from ppo_lab.config import SECTIONS
from ppo_lab.config.loading import allowed_text
from ppo_lab.config.yaml_text import render_scalar

HOW = "Flags take what would stand in config.yaml, e.g. false, null, 3e-4 or '[64, 64]'; - and _ are the same in them."


def flag(section: str, name: str) -> str:
    """Return the flag of a setting: ppo, learning_rate -> --ppo.learning-rate."""
    return f"--{section}.{name.replace('_', '-')}"


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Give a parser a flag for each setting, grouped by section. Those that are not given leave no trace."""
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
    """Replace underscores by dashes in the names of flags, and join a negative number to its flag.

    argparse would take the -1e-3 of `--model.log-std-init -1e-3` for a flag.
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
        return f"{name} cannot be changed here; another setting makes another run: see `fork RUN {name} ...`"
    dotted = {known.partition(".")[2]: known for known in ALL}
    close = [dotted[name[2:]]] if name[2:] in dotted else difflib.get_close_matches(name, ALL, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close and takes_settings else ""
    return f"unknown flag {name}{hint}"


ALL = [flag(section, name) for section, model in SECTIONS.items() for name in model.model_fields]


def _waits_for_a_value(argument: str) -> bool:
    return argument.startswith("--") and "." in argument and "=" not in argument


def _metavar(annotation: Any) -> str:
    """Return what kind of value a flag takes."""
    kinds = {annotation, *get_args(annotation)}
    if get_origin(annotation) is Literal:
        return "WORD"
    names = {bool: "true|false", int: "N", float: "X", str: "TEXT"}
    return next(
        (names[kind] for kind in names if kind in kinds and get_origin(annotation) not in (dict, tuple)), "YAML"
    )
