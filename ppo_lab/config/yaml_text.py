"""YAML whose scalars are what they look like, read safely: plain data, no objects, no aliases, no duplicate keys.

YAML 1.1 makes text of 3e-4, an octal of 010, 90 of 1:30 and a bool of `no`; here they are a number, ten, text and text.
YAML has lists only; a tuple is written with a tag of ours: !tuple [84, 84, 1].
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import yaml

from ppo_lab.errors import ConfigError

TUPLE = "!tuple"
DEEPEST = 100  # levels of containers in a setting
LARGEST_INT = 10_000  # bits
NUMBER = r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
SCALARS = (  # tag, what it looks like, first characters
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    ("float", rf"{NUMBER}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.0123456789")),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own class attribute

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            # a few nested aliases grow to billions of values when walked
            raise ConfigError(f"aliases (*name) are not allowed in settings{_where(self.peek_event().start_mark)}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if str(key) in seen:
                raise ConfigError(f"duplicate key {key!r}{_where(key_node.start_mark)}")
            seen.add(str(key))
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in SCALARS:
    for _char in _first:
        _resolvers = _Loader.yaml_implicit_resolvers.setdefault(_char, [])
        _resolvers.append((f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z")))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value.replace("_", "")))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = node.value.replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def _tuple(loader: _Loader, node: yaml.Node) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise ConfigError(f"!tuple goes before a list: {TUPLE} [84, 84, 1]{_where(node.start_mark)}")
    return tuple(loader.construct_sequence(node, deep=True))


_Loader.add_constructor(TUPLE, _tuple)


def parse_yaml(text: str) -> Any:
    """Parse a YAML text. Raise ConfigError with line and column."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"not YAML: {problem}{_where(getattr(error, 'problem_mark', None))}") from None
    finally:
        loader.dispose()


def render_scalar(value: Any, tuples: bool = False) -> str:
    """Format a value in YAML's flow style; parse_yaml gives it back. tuples: tag them, so that they stay tuples.

    Raises ConfigError for what is none of the kinds that YAML has.
    """
    if isinstance(value, dict):
        pairs = (f"{render_scalar(key, tuples)}: {render_scalar(item, tuples)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        tag = f"{TUPLE} " if tuples and isinstance(value, tuple) else ""
        return f"{tag}[" + ", ".join(render_scalar(item, tuples) for item in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:_}"
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise ConfigError(f"{_a(value)} cannot be written as YAML")
    if re.fullmatch(r"[A-Za-z_./][\w./-]*", value, re.ASCII) and parse_yaml(value) == value:
        return value
    return str(yaml.safe_dump(value, default_style='"', width=2**31)).strip()


def as_plain(value: Any, depth: int = 0) -> Any:
    """Convert NumPy's numbers to Python's, and subclasses of dict and list to these; anything else stays as it is.

    Raises RecursionError for more than DEEPEST levels, whatever the interpreter would take.
    """
    if depth > DEEPEST:
        raise RecursionError
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {as_plain(key, depth + 1): as_plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [as_plain(item, depth + 1) for item in value]
    return tuple(as_plain(item, depth + 1) for item in value) if type(value) is tuple else value


def why_not_yaml(value: Any, name: str) -> str | None:
    """Return what in `value`, which is called `name`, YAML cannot give back as it is; None: all of it can be.

    It can: null, true and false, numbers, text; lists, tuples and dictionaries of them, however nested.
    """
    try:
        problem = next(_odd(value, name), None)
        if problem is None and repr(parse_yaml(render_scalar(value, tuples=True))) != repr(value):  # types and NaN too
            problem = f"{name}: {str(value)[:80]}"
    except RecursionError:
        problem = f"{name}: something nested too deeply"
    except (ConfigError, ValueError) as error:  # keys of a thousand letters, integers of thousands of digits
        problem = f"{name}: {str(error)[:200]}"
    return problem


def _odd(value: Any, name: str) -> Iterator[str]:
    """Yield what YAML cannot represent in a value, each with its place."""
    if type(value) is dict:
        texts = [str(key) for key in value]
        for key, text in zip(value, texts, strict=True):
            if not (key is None or type(key) in (bool, int, float, str)) or key != key or texts.count(text) > 1:
                yield f"{name}: the key {str(key)[:80]!r}"
        for key, item in value.items():
            yield from _odd(item, f"{name}.{key}")
    elif type(value) in (list, tuple):
        for i, item in enumerate(value):
            yield from _odd(item, f"{name}[{i}]")
    elif not (value is None or type(value) in (bool, int, float, str)):
        yield f"{name}: {_a(value)}"
    elif type(value) is int and value.bit_length() > LARGEST_INT:
        yield f"{name}: an integer of thousands of digits"
    elif isinstance(value, str) and not value.isascii() and value != value.encode(errors="replace").decode():
        yield f"{name}: {value[:80]!r}"  # half of a surrogate pair


def _a(value: Any) -> str:
    """Return what a value is, in words."""
    if isinstance(value, type):
        return "a class"
    return "a function" if callable(value) else f"a value of type {type(value).__name__}"


def _where(mark: Any) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
