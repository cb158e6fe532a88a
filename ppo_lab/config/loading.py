"""Settings from text and mappings: YAML, presets, overrides; one-line errors that name the nearest known key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ValidationError

from ppo_lab.config import FREE, LIVE, SECTIONS, Config, free_setting
from ppo_lab.config.yaml_text import parse_yaml, render_scalar
from ppo_lab.errors import ConfigError

# What settings of earlier versions are called now, by value; a run that was made then still loads.
RENAMED: dict[str, tuple[str, dict[Any, Any]]] = {
    "run.gradient": ("run.engine", {"auto": "auto", "autograd": "reference"}),
}


def load_config(
    path: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    renamed: bool = False,
) -> Config:
    """Read the settings: defaults < YAML at `path` < `preset` of that file < `overrides`.

    path: None takes the nearest config.yaml in this folder or above (so notebooks find it), or the defaults.
    overrides: {"ppo.learning_rate": 1e-3} or {"ppo": {"learning_rate": 1e-3}}; strings are read as YAML scalars.
    renamed: Accept the names that settings had in earlier versions.
    Raises ConfigError with one line: which key, what was given, what is allowed.
    """
    file = Path(path) if path is not None else _nearest_config(Path.cwd())
    content = _read_file(file) if file is not None else {}
    content = _renamed(content) if renamed else content
    presets = content.pop("presets", None) or {}
    where = str(file) if file is not None else "defaults"
    settings: dict[str, Any] = {}
    _merge(settings, content, where)
    if preset is not None:
        if file is None:
            raise ConfigError(
                f"preset {preset!r}: no config.yaml was found in {Path.cwd()} or above it, and presets are in that "
                "file; name it (load_config('DIR/config.yaml', preset=...), --config DIR/config.yaml) or work beside it"
            )
        if preset not in presets:
            known = ", ".join(sorted(presets)) or "none"
            raise ConfigError(f"no preset {preset!r} in {where}{_nearest(preset, presets)}; known presets: {known}")
        _merge(settings, presets[preset], f"preset {preset} of {where}")
    _merge(settings, _nested(overrides or {}), "overrides")
    settings["preset"] = preset if preset is not None else settings.get("preset")
    config = _validated(settings)
    if file is not None and config.run.root is not None and not os.path.isabs(config.run.root):
        root = os.path.relpath(
            file.resolve().parent / config.run.root
        )  # the same runs/ from every folder of the project
        config = config.model_copy(update={"run": config.run.model_copy(update={"root": root})})
    return config


def override(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return the settings with some changed, checked like all others. Raise ConfigError."""
    settings = config.model_dump()
    _merge(settings, _nested(overrides), "overrides")
    return _validated(settings)


def flat(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten {"ppo": {"gamma": 0.9}} to {"ppo.gamma": 0.9}."""
    return {
        f"{section}.{name}": value for section, values in _nested(overrides).items() for name, value in values.items()
    }


def differences(old: Config, new: Config) -> dict[str, list[Any]]:
    """Return {"ppo.gamma": [0.99, 0.9]}: the settings in which two configs differ, without the run's name and root."""
    result = {}
    for section, model in SECTIONS.items():
        for name in model.model_fields:
            before, after = getattr(getattr(old, section), name), getattr(getattr(new, section), name)
            if before != after and f"{section}.{name}" not in ("run.name", "run.root"):
                result[f"{section}.{name}"] = [before, after]
    return result


def check_config(config: Any) -> Config:
    """Return the settings as they are. Raise ConfigError for anything else."""
    if isinstance(config, Config):
        return config
    how = "load_config(overrides={'env.id': 'CartPole-v1'}) or load_config('config.yaml')"
    what = f"the class {config.__name__}" if isinstance(config, type) else f"a {type(config).__name__}"
    raise ConfigError(f"config: expected a Config, such as {how}, got {'None' if config is None else what}")


def check_live(key: str, value: Any) -> Any:
    """Return the value as a live change of ppo.<key> takes it. Raise ConfigError if the key or the value is not
    allowed.
    """
    if key not in LIVE and key != "total_timesteps":  # a run can be made longer or shorter, but has no slider for it
        raise ConfigError(
            f"{key!r} cannot change while training runs{_nearest(key, LIVE)}; live keys: {', '.join(LIVE)}"
        )
    return getattr(override(Config(), {f"ppo.{key}": value}).ppo, key)


def render_yaml(config: Config | None = None) -> str:
    """Write the settings as YAML text, each with its meaning and range as a comment. `load_config` reads it back."""
    config = config or Config()
    lines = [f"preset: {config.preset}", ""] if config.preset is not None else []
    for section_name, section in SECTIONS.items():
        lines.append(f"{section_name}:  # {(section.__doc__ or '').splitlines()[0]}")
        for name, field in section.model_fields.items():
            setting = f"  {name}: {setting_text(config, section_name, name)}"
            lines.append(f"{setting:<36} # {field.description}{allowed_text(field)}")
        lines.append("")
    return "\n".join(lines)


def setting_text(config: Config, section: str, name: str) -> str:
    """Format a setting as config.yaml has it: tuples are tagged where a list would mean something else."""
    if (key := f"{section}.{name}") in FREE:
        return render_scalar(free_setting(config, key), tuples=True)
    return render_scalar(getattr(getattr(config, section), name))


def allowed_text(field: Any) -> str:
    """Format the choices or the range of a field, after a semicolon."""
    if get_origin(field.annotation) is Literal:
        return f"; {' | '.join(str(choice) for choice in get_args(field.annotation))}"
    words = [str(word) for kind in get_args(field.annotation) if get_origin(kind) is Literal for word in get_args(kind)]
    marks = [*field.metadata, *(mark for kind in get_args(field.annotation) for mark in _marks(kind))]
    bounds = {name: getattr(mark, name) for mark in marks for name in ("ge", "gt", "le", "lt") if hasattr(mark, name)}
    text = {name: f"{bound:_}" if isinstance(bound, int) else f"{bound:g}" for name, bound in bounds.items()}
    low = f"[{text['ge']}" if "ge" in text else f"({text['gt']}" if "gt" in text else "(-inf"
    high = f"{text['le']}]" if "le" in text else f"{text['lt']})" if "lt" in text else "inf)"
    return "; " + " or ".join([*words, f"in {low}, {high}"]) if text else ""


def _marks(kind: Any) -> list[Any]:
    """Return the bounds of an annotated part of a union, as pydantic keeps them."""
    return [mark for field in get_args(kind)[1:] for mark in field.metadata] if get_origin(kind) is Annotated else []


def _nearest_config(folder: Path) -> Path | None:
    return next(
        (place / "config.yaml" for place in (folder, *folder.parents) if (place / "config.yaml").is_file()), None
    )


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read {path}: it is not UTF-8 text") from None
    except RecursionError:
        raise ConfigError(f"cannot read {path}: it is nested too deeply") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections ({', '.join(SECTIONS)}), got {type(content).__name__}")
    return content or {}


def _renamed(content: Any) -> Any:
    """Replace settings of earlier versions by what they are called now."""
    for key, (new, values) in RENAMED.items():
        (section, name), (new_section, new_name) = key.split("."), new.split(".")
        old = content.get(section)
        if isinstance(old, dict) and name in old:
            value = old.pop(name)
            content.setdefault(new_section, {}).setdefault(new_name, values.get(value, value))
    return content


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Convert {"ppo.gamma": 0.9} and {"ppo": {"gamma": 0.9}} to the latter."""
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        section, dot, name = str(key).partition(".")
        if dot:
            nested.setdefault(section, {})[name] = value
        elif isinstance(value, Mapping):
            nested.setdefault(section, {}).update(value)
        else:
            nested[section] = value
    return nested


def _merge(settings: dict[str, Any], layer: Mapping[str, Any], where: str) -> None:
    """Lay one layer of settings over another. Raises ConfigError for a key that does not exist."""
    if not isinstance(layer, Mapping):
        raise ConfigError(f"{where}: expected sections ({', '.join(SECTIONS)}), got {type(layer).__name__}")
    for section_name, values in layer.items():
        if section_name == "preset":
            settings["preset"] = values
            continue
        if section_name not in SECTIONS:
            dotted = {name: f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields}
            hint = (
                f"; did you mean {dotted[section_name]!r}?"
                if section_name in dotted
                else _nearest(section_name, SECTIONS)
            )
            raise ConfigError(f"{where}: unknown section {section_name!r}{hint}; sections: {', '.join(SECTIONS)}")
        if values is None:
            continue  # a section whose keys are all commented out
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where}: section {section_name!r} holds settings, got {values!r}")
        fields = SECTIONS[section_name].model_fields
        for name, value in values.items():
            if name not in fields:
                new = RENAMED.get(f"{section_name}.{name}")
                hint = f"; it is {new[0]} now" if new else _nearest(name, fields, section_name)
                raise ConfigError(f"{where}: unknown setting '{section_name}.{name}'{hint}")
            settings.setdefault(section_name, {})[name] = _from_text(value, fields[name].annotation)


def _from_text(value: Any, annotation: Any) -> Any:
    """Read text given for a setting that is no text (a command line's "3e-4", papermill's "[64, 64]") as YAML."""
    kinds = {annotation} if get_origin(annotation) in (dict, tuple) else {annotation, *get_args(annotation)}
    if not isinstance(value, str) or get_origin(annotation) is Literal:
        return value
    if str in kinds:
        return None if type(None) in kinds and value in ("null", "~", "") else value
    return parse_yaml(value)


def _nearest(name: Any, known: Iterable[str], section: str = "") -> str:
    """Return "; did you mean 'ppo.gamma'?" or nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    prefix = f"{section}." if section else ""
    return f"; did you mean '{prefix}{close[0]}'?" if close else ""


def _validated(settings: dict[str, Any]) -> Config:
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("; ".join(_one_line(problem) for problem in error.errors())) from None


def _short(value: Any) -> str:
    """Format a value for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, something nested too deeply
        return f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _one_line(problem: Any) -> str:
    """Format pydantic's report of one problem: which key, what is wrong with it, what was given, what is allowed."""
    place = [part for part in problem["loc"] if isinstance(part, str) and part != "[key]"]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["loc"][-1:] == ("[key]",) and problem["type"] == "string_type":  # {shape: (84, 84, 1)} is three keys
        return f"{'.'.join(place[:2])}: a keyword is a name, not {problem['input']!r}; a tuple is !tuple [84, 84, 1]"
    field = SECTIONS[place[0]].model_fields.get(place[1]) if len(place) > 1 and place[0] in SECTIONS else None
    if field is None:
        return f"{'.'.join(place)}: {message}" if place else message
    allowed = allowed_text(field).replace("; ", "; allowed ", 1)
    return f"{place[0]}.{place[1]}: {message[0].lower()}{message[1:]}, got {_short(problem['input'])}{allowed}"


if __name__ == "__main__":
    print(render_yaml())
