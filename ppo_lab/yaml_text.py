"""YAML whose scalars are what they look like, read safely: plain data, no objects, no aliases, no duplicate keys.

YAML 1.1 makes text of 3e-4, an octal of 010, 90 of 1:30 and a bool of `no`; here they are a number, ten, text and text.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from ppo_lab.errors import ConfigError

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


def parse_yaml(text: str) -> Any:
    """What a YAML text says. Raises ConfigError with line and column."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"not YAML: {problem}{_where(getattr(error, 'problem_mark', None))}") from None
    finally:
        loader.dispose()


def render_scalar(value: Any) -> str:
    """A value in YAML's flow style, so that parse_yaml gives it back."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{render_scalar(key)}: {render_scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(render_scalar, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:_}"
    if not isinstance(value, str):
        return json.dumps(value)
    if re.fullmatch(r"[A-Za-z_./][\w./-]*", value, re.ASCII) and parse_yaml(value) == value:
        return value
    return str(yaml.safe_dump(value, default_style='"', width=2**31)).strip()


def _where(mark: Any) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
