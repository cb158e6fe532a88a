"""Settings: YAML as it looks, precedence, one-line errors, and a file that says what the code does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.config import LIVE, SECTIONS, Config
from ppo_lab.config_file import check_live, load_config, override, render_yaml
from ppo_lab.errors import ConfigError
from ppo_lab.yaml_text import parse_yaml, render_scalar


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
        ({"model.convolutions": []}, r"model.convolutions: at least one layer"),
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
        ({"ppo": 3}, r"section 'ppo' holds settings, got 3"),
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
