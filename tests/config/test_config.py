"""Settings: YAML as it looks, precedence, one-line errors, and a file that says what the code does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ppo_lab.config import FREE, LIVE, SECTIONS, Config
from ppo_lab.config.loading import check_live, load_config, override, render_yaml, setting_text
from ppo_lab.config.yaml_text import parse_yaml, render_scalar, why_not_yaml
from ppo_lab.errors import ConfigError
from ppo_lab.runs.settings import edits, recorded


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def test_config_yaml_is_what_the_models_say(root):
    text = (root / "config.yaml").read_text()
    assert render_yaml() in text
    assert load_config(root / "config.yaml").ppo == Config().ppo


def test_every_preset_loads(root):
    for name in parse_yaml((root / "config.yaml").read_text())["presets"]:
        assert load_config(root / "config.yaml", preset=name).preset == name


def test_precedence_is_defaults_then_yaml_then_preset_then_override(write):
    path = write(
        "ppo: {gamma: 0.5, clip_coef: 0.3, ent_coef: 0.3}\npresets: {p: {ppo: {clip_coef: 0.1, ent_coef: 0.1}}}"
    )
    ppo = load_config(path, "p", {"ppo.ent_coef": 0.0}).ppo
    assert (ppo.gae_lambda, ppo.gamma, ppo.clip_coef, ppo.ent_coef) == (0.95, 0.5, 0.1, 0.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1e6", 1e6), ("1_000_000", 1_000_000), ("null", None), ("~", None), ("", None), ("010", 10),
        ("1:30", "1:30"), ("no", "no"), ("on", "on"), ("true", True), (".5", 0.5), ("-1.5E+3", -1500.0), ("1.", 1.0),
        ("2026-11-20", "2026-11-20"), ("[1, 2]", [1, 2]), (".inf", float("inf")), ("0x10", "0x10"),
    ],
)  # fmt: skip
def test_scalars_are_what_they_look_like(text, value):
    got = parse_yaml(f"key: {text}")["key"]
    assert got == value
    assert type(got) is type(value)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_what_is_rendered_reads_back(value):
    assert parse_yaml(render_scalar(value)) == value


def distinct(keys):
    """Keys of one dictionary: YAML has no two that are the same text."""
    return len({str(key) for key in keys}) == len(keys)


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
anything = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3).filter(distinct)
    ),
    max_leaves=12,
)


def same(a, b):
    """Equal, with the types of everything in it; NaN is NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        pairs = list(zip(sorted(a.items(), key=str), sorted(b.items(), key=str), strict=False))
        return len(a) == len(b) and all(same(x, y) for x, y in pairs)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


@settings(max_examples=200)
@given(anything)
@example([float("nan"), (float("inf"), float("-inf"), -0.0), {float("inf"): ((), [], {})}, 10**30, 1e22, 5e-324])
def test_keywords_of_any_kind_come_back_from_yaml_overrides_and_flags(value):
    assert why_not_yaml(value, "it") is None
    config = override(Config(), {"env.kwargs": {"it": value}, "env.wrappers": [{"Name": {"it": value}}]})
    assert same(config.env.kwargs["it"], value)
    text = render_yaml(config)
    assert "\n" not in next(line for line in text.splitlines() if line.startswith("  kwargs"))
    read = override(Config(), parse_yaml(text))
    again = override(read, {"ppo.gamma": 0.5})
    flags = override(Config(), {f"env.{name}": setting_text(config, "env", name) for name in ("kwargs", "wrappers")})
    for one in (read, again, flags):
        assert same(one.env.kwargs, config.env.kwargs)
        assert same(one.env.wrappers, config.env.wrappers)
    assert recorded(read) == recorded(config)
    assert edits(json.loads(json.dumps({**recorded(config)})), read) == {}


@pytest.mark.parametrize("text", ["!tuple [84, !tuple [1, []]]", "[!tuple [], {a: !tuple [null]}]"])
def test_a_tuple_is_written_with_a_tag(text):
    value = parse_yaml(text)
    assert same(value, {"!tuple [84, !tuple [1, []]]": (84, (1, []))}.get(text, [(), {"a": (None,)}]))
    assert render_scalar(value, tuples=True) == text


def test_settings_that_are_tuples_stay_plain_lists_in_yaml():
    text = render_yaml(override(Config(), {"env.wrappers": ("ClipAction",), "model.privileged": ("a",)}))
    assert "!tuple" not in text
    assert "wrappers: [ClipAction]" in text
    assert override(Config(), {"model.hidden_sizes": "!tuple [8, 8]"}).model.hidden_sizes == (8, 8)


def test_the_settings_of_any_kind_are_those_told_apart():
    free = [f"{section}.{name}" for section, model in SECTIONS.items() for name, field in model.model_fields.items()
            if "Any" in str(field.annotation)]  # fmt: skip
    assert tuple(free) == FREE


def test_numbers_of_numpy_are_numbers_of_python():
    given = {"a": np.float32(0.5), "b": [np.int64(3), (np.bool_(True), np.str_("x"))]}
    assert same(override(Config(), {"env.kwargs": given}).env.kwargs, {"a": 0.5, "b": [3, (True, "x")]})


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (lambda: 0, "a function"), (np.zeros(2), "a value of type ndarray"), (dict, "a class"),
        ({1, 2}, "a value of type set"), (b"x", "a value of type bytes"), (Path("x"), r"a value of type \w*Path"),
        ({float("nan"): 1}, "the key 'nan'"), ({(0, 1): 2}, r"the key '\(0, 1\)'"), ({1: 2, "1": 3}, "the key '1'"),
        ("\ud800", r"'\\ud800'"),
    ],
)  # fmt: skip
def test_what_yaml_cannot_write_is_refused_by_its_key_before_there_is_a_folder(tmp_path, value, what):
    place = {"run.root": str(tmp_path / "runs")}
    for key, name, setting in (
        ("env.kwargs", r"env\.kwargs\.f\[0\]", {"f": [value]}),
        (
            "env.wrappers",
            r"env\.wrappers\[1\]\.TransformReward\.func",
            ["ClipAction", {"TransformReward": {"func": value}}],
        ),
    ):
        with pytest.raises(
            ConfigError, match=f"{name}: {what} cannot be written .*envs=make.*run.root to null"
        ) as error:
            load_config(overrides={**place, key: setting})
        assert "\n" not in str(error.value)
        override(Config(), {"run.root": None, key: setting})  # nothing is written
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{shape: !tuple (84, 84)}", r"!tuple must be followed by a list: !tuple \[84, 84, 1\]"),
        ("{shape: (84, 84, 1)}", r"env\.kwargs: a keyword must be a name, not 84; tuple: !tuple \[84, 84, 1\]"),
        ("{shape: !other [1]}", r"not YAML: could not determine a constructor"),
        ("{shape: !!python/tuple [1]}", r"not YAML: could not determine a constructor"),
    ],
)
def test_a_tuple_written_wrongly_is_one_line(text, message):
    with pytest.raises(ConfigError, match=message):
        override(Config(), {"env.kwargs": text})


def test_what_holds_itself_or_is_too_deep_is_one_line():
    loop = []
    loop.append(loop)
    deep = 1
    for _ in range(400):
        deep = [deep]
    for value in (loop, deep, 10**5000, {"k" * 2000: 1}):
        with pytest.raises(ConfigError, match=r"env\.kwargs") as error:
            override(Config(), {"env.kwargs": {"f": value}})
        assert len(str(error.value)) < 400


def test_a_config_survives_its_own_yaml(write, root):
    config = load_config(
        root / "config.yaml", "pendulum", {"env.kwargs": {"g": 9.81}, "run.root": "/tmp/x", "run.name": "a"}
    )
    assert load_config(write(render_yaml(config))) == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"ppo.gama": 1}, r"unknown setting 'ppo.gama'; did you mean 'ppo.gamma'\?"),
        ({"gamma": 0.9}, r"unknown section 'gamma'; did you mean 'ppo.gamma'\?"),
        ({"pppo.gamma": 0.9}, r"unknown section 'pppo'; did you mean 'ppo'\?"),
        ({"ppo.gamma": 2}, r"ppo.gamma: .*less than or equal to 1, got 2; allowed in \[0, 1\]"),
        ({"ppo.gamma": "fast"}, r"ppo.gamma: .*valid number.*got 'fast'"),
        ({"ppo.gamma": float("nan")}, r"ppo.gamma: .*finite"),
        ({"ppo.num_steps": True}, r"ppo.num_steps: expected a number, not true/false"),
        ({"ppo.num_steps": 1.5}, r"ppo.num_steps: .*integer"),
        ({"ppo.update_epochs": 0}, r"ppo.update_epochs: .*allowed in \[1, 1_000\]"),
        ({"model.activation": "sigmoid"}, r"model.activation: .*'tanh'.*got 'sigmoid'"),
        ({"model.convolutions": []}, r"model.convolutions: needs at least one layer"),
        ({"model.convolutions": [[8, 3, 0]]}, r"model.convolutions: .* stride of at least 1"),
        ({"model.hidden_sizes": [64, 0]}, r"model.hidden_sizes: every hidden layer needs at least one unit"),
        ({"run.name": "../escape"}, r"run.name: a run name has 1 to 64 letters"),
        (
            {"ppo.learning_rate_schedule": "milestones"},
            r"learning_rate_schedule: milestones and learning_rate_milestones",
        ),
        (
            {"ppo": {"ent_coef_schedule": "milestones", "ent_coef_milestones": {2: 0.1}}},
            r"fractions of training lie between",
        ),
        ({"ppo": {"normalize_reward": True, "gamma": 1.0}}, r"normalize_reward needs gamma < 1"),
        ({"ppo": 3}, r"section 'ppo' must be a mapping of settings, got 3"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_key_value_and_range(overrides, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_config(overrides=overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ppo:\n  gamma: 0.9\n  gamma: 0.8", r"config.yaml: duplicate key 'gamma' \(line 3, column 3\)"),
        ("ppo: {gama: 1}", r"config.yaml: unknown setting 'ppo.gama'; did you mean 'ppo.gamma'"),
        ("ppo: [1, 2", r"config.yaml: not YAML: .*line 1"),
        ("- 1", r"expected sections \(env, model, ppo, run\), got list"),
        ("a: &x [1]\nb: *x", r"aliases"),
        ("presets: {p: {ppo: {gama: 1}}}", r"preset p of .*unknown setting 'ppo.gama'"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_place(write, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_config(write(text), preset="p" if "presets" in text else None)
    assert "\n" not in str(error.value)


def test_an_unknown_preset_names_the_nearest_and_all(root):
    with pytest.raises(
        ConfigError, match=r"no preset 'cartpol' .*did you mean 'cartpole'\?; known presets: acrobot, .*cartpole, "
    ):
        load_config(root / "config.yaml", "cartpol")


def test_a_preset_without_a_config_yaml_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        load_config(preset="cartpole")
    told = str(error.value)
    assert "\n" not in told
    assert f"preset 'cartpole': no config.yaml was found in {tmp_path} or above it" in told
    assert "load_config('DIR/config.yaml', preset=...)" in told
    assert "--config DIR/config.yaml" in told
    assert load_config().ppo == Config().ppo  # defaults need no file
    (tmp_path / "config.yaml").write_text("ppo: {gamma: 0.5}")
    with pytest.raises(ConfigError, match=r"no preset 'cartpole' in .*config.yaml; known presets: none"):
        load_config(preset="cartpole")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none.yaml: No such file"):
        load_config(tmp_path / "none.yaml")


def test_text_from_a_command_line_or_papermill_is_read_as_yaml():
    config = load_config(
        overrides={
            "ppo.learning_rate": "1e-4",
            "model.hidden_sizes": "[32, 16]",
            "model.shared": "true",
            "ppo.target_kl": "null",
        }
    )
    assert (config.ppo.learning_rate, config.model.hidden_sizes, config.model.shared) == (1e-4, (32, 16), True)
    assert config.ppo.target_kl is None


def test_notebooks_find_the_file_above_them_and_write_to_the_same_runs(write, tmp_path, monkeypatch):
    write("ppo: {gamma: 0.5}")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    config = load_config()
    assert config.ppo.gamma == 0.5
    assert config.run.root == "../runs"


def test_settings_do_not_change_in_place():
    with pytest.raises(ValueError, match="frozen"):
        Config().ppo.gamma = 0.5


def test_override_checks_like_load():
    assert override(Config(), {"ppo.gamma": 0.5}).ppo.gamma == 0.5
    with pytest.raises(ConfigError, match=r"ppo\.gamma"):
        override(Config(), {"ppo.gamma": 5})


def test_live_keys_have_a_slider_inside_their_bounds():
    for key in LIVE:
        slider = SECTIONS["ppo"].model_fields[key].json_schema_extra["slider"]
        assert check_live(key, slider["low"]) == slider["low"]
        assert check_live(key, slider["high"]) == slider["high"]


def test_a_live_change_is_checked():
    with pytest.raises(ConfigError, match=r"'num_steps' cannot change while training runs.*live keys: .*learning_rate"):
        check_live("num_steps", 3)
    with pytest.raises(ConfigError, match=r"ppo.clip_coef: .*got -1"):
        check_live("clip_coef", -1)


def test_every_setting_has_a_meaning():
    for section in SECTIONS.values():
        for name, field in section.model_fields.items():
            assert field.description, name
