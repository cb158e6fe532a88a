"""Inside the update: the data are drawn unchanged, and any values, also infinite and NaN, can be drawn."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import StepPatch

from ppo_lab.notebook.data.action_arrays import ActionPart, numbers_of
from ppo_lab.notebook.data.last_update import LastUpdate
from ppo_lab.notebook.plots import inside_figure, to_png
from ppo_lab.notebook.plots.canvas import BLUE, OCHRE, TEXT, VERMILLION
from ppo_lab.notebook.plots.course import MOST_ACTIONS, MOST_STEPS
from ppo_lab.notebook.plots.inside import no_gradient
from tests.notebook.plots import layout


def last(S=300, T=40, n=3, A=0, spread=0.1, **fields):
    """Return an update of S samples with n discrete actions, or with A continuous ones."""
    rng = np.random.default_rng(S + T)
    advantage = rng.normal(3, 12, S).astype(np.float32)
    returns = rng.normal(100, 40, S).astype(np.float32)
    odds = np.exp(rng.normal(0, 1.5, n) + rng.normal(0, 0.3, (T, n)))
    mean = np.sin(np.arange(T)[:, None] * 0.1 + np.arange(A))
    known = {
        "update": 3,
        "global_step": 4096,
        "clip_coef": 0.2,
        "normalize_advantage": "minibatch",
        "ratio": np.exp(rng.normal(0, spread, S).clip(-80, 80)).astype(np.float32),
        "advantage": advantage,
        "value": (returns + rng.normal(0, 15, S)).astype(np.float32),
        "returns": returns,
        "done": np.arange(T) % 17 == 16,
        **fields,
    }
    if A:
        taken, ends = mean + rng.normal(0, 0.4, mean.shape), np.full(A, 1.0)
        mean, std = known.pop("mean", mean), known.pop("std", np.full(mean.shape, 0.4))
        part = ActionPart(taken, mean=mean, std=std, low=-ends, high=ends)
    else:
        part = choices(known.pop("probabilities", odds / odds.sum(-1, keepdims=True))[:, None], [0], [n])
    known.setdefault("parts", (part,))
    with np.errstate(all="ignore"):
        known.setdefault("clipped", np.abs(known["ratio"] - 1) > known["clip_coef"])
        wide = np.asarray(known["advantage"], dtype=float)
        normalized = (wide - wide.mean()) / (wide.std() or 1.0) if S else wide
    never = known["normalize_advantage"] == "never"
    return LastUpdate(**{"normalized": known["advantage"] if never else normalized, **known})


def choices(probabilities, first, sizes, key=""):
    """Return the choices of a uniform policy; probabilities (T, k, n)."""
    taken = np.random.default_rng(0).integers(0, sizes, (len(probabilities), len(sizes))) + first
    return ActionPart(taken, probabilities, first, sizes, key=key)


def several(T, sizes, key=""):
    """Return choices with random probabilities."""
    rng = np.random.default_rng(T)
    chances = np.zeros((T, len(sizes), max(sizes)))
    for i, size in enumerate(sizes):
        chances[:, i, :size] = rng.dirichlet(np.ones(size), T)
    return choices(chances, [0] * len(sizes), sizes, key)


def numbers(T, size, key):
    mean = np.sin(np.arange(T)[:, None] * 0.1 + np.arange(size))
    ends = np.ones(size)
    return ActionPart(mean + 0.2, mean=mean, std=np.full(mean.shape, 0.4), low=-ends, high=ends, key=key)


def broken(size):
    return np.resize(np.array([np.nan, 1.0, np.inf, 0.0, 2.0], dtype=np.float32), size)


BROKEN = {"ratio": broken(300), "advantage": broken(300), "value": broken(300), "returns": broken(300)[::-1]}
CASES = {
    "discrete": last(),
    "continuous": last(n=0, A=1),
    "continuous, many": last(n=0, A=17, T=500),
    "far": last(spread=2.0),
    "farther": last(spread=50.0),
    "near": last(spread=1e-4),
    "two actions": last(n=2),
    "18 actions": last(n=18),
    "one action": last(n=1),
    "300 actions, long": last(n=300, T=2048),
    "many samples": last(S=4096),
    "never": last(normalize_advantage="never"),
    "one sample": last(S=1, T=1),
    "one sample, continuous": last(S=1, T=1, n=0, A=2),
    "no sample": last(S=0, T=1, done=np.array([True])),
    "all equal": last(
        ratio=np.ones(300), advantage=np.full(300, -1234.5), value=np.full(300, 7.0), returns=np.full(300, 7.0)
    ),
    "large": last(advantage=np.linspace(-1e30, 3e30, 300), returns=np.linspace(-1e9, 1e9, 300)),
    "tiny": last(advantage=np.linspace(1e-9, 2e-9, 300), value=np.linspace(0, 1e-7, 300), returns=np.zeros(300)),
    "broken": last(**BROKEN),
    "broken, continuous": last(n=0, A=2, mean=np.resize(broken(5), (40, 2)), std=np.full((40, 2), np.nan), **BROKEN),
    "only NaN": last(**dict.fromkeys(BROKEN, np.full(300, np.nan)), probabilities=np.full((40, 3), np.nan)),
    "wide clip": last(clip_coef=10.0),
    "no clip": last(clip_coef=0.0),
    "two choices": last(parts=(several(40, [2, 3]),)),
    "three bits of many": last(T=500, parts=(several(500, [2] * 40),)),
    "choices of many": last(parts=(several(40, [300, 7, 18]),)),
    "hybrid": last(parts=(several(40, [4], "choice"), several(40, [2] * 3, "switches"), numbers(40, 2, "turn"))),
    "long names": last(
        parts=(several(40, [2], "a/very/long/name/of/a/choice"), numbers(40, 1, "and_another_that_is_$longer$"))
    ),
    "two boxes": last(T=1, parts=(numbers(1, 3, "left"), numbers(1, 3, "right"))),
    "always ends": last(done=np.ones(40, dtype=bool)),
}


@pytest.mark.parametrize("case", CASES)
def test_everything_is_labelled_inside_and_apart(case):
    figure = inside_figure(CASES[case])
    layout.check(figure)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert all(ax.get_ylabel() for ax in shown)
    assert all(ax.get_xlabel() for ax in [*shown[:4], shown[-1]])
    assert all(ax.texts[-1].get_text() for ax in shown[:5])
    assert len(to_png(figure)) < 250_000


def test_a_figure_drawn_anew_equals_a_new_one():
    figure = None
    for case in (
        "hybrid",
        "18 actions",
        "continuous, many",
        "two choices",
        "discrete",
        "never",
        "far",
        "only NaN",
        "continuous",
    ):
        figure = inside_figure(CASES[case], figure)
        assert to_png(figure) == to_png(inside_figure(CASES[case])), case


def bars(ax):
    """Return colour -> (heights, edges) of every staircase."""
    parts = [patch for patch in ax.patches if isinstance(patch, StepPatch)]
    return {to_hex(p.get_facecolor()).lower(): (p.get_data()[0] - p.get_data()[2], p.get_data()[1]) for p in parts}


def scattered(ax):
    """Return colour -> (points, 2)."""
    return {to_hex(p.get_color()).lower(): p.get_xydata() for p in ax.lines if p.get_linestyle() == "None"}


def said(figure, panel):
    return figure.axes[panel].texts[-1]  # the title comes last


@pytest.mark.parametrize("case", ["discrete", "far", "near", "farther"])
def test_ratios_are_counted_inside_and_outside_the_clip(case):
    update = CASES[case]
    ax = inside_figure(update).axes[0]
    inner, outer = bars(ax)[BLUE.lower()], bars(ax)[VERMILLION.lower()]
    assert inner[0].sum() == (~update.clipped).sum()
    assert outer[0].sum() == update.clipped.sum()
    low, high = ax.get_xlim()
    expected, _ = np.histogram(np.log(update.ratio).clip(low, high), inner[1])
    np.testing.assert_array_equal(inner[0] + outer[0], expected)
    span = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert np.exp([span.x0, span.x1]) == pytest.approx([0.8, 1.2])
    assert (outer[0][(inner[1][:-1] > np.log(0.8)) & (inner[1][1:] < np.log(1.2))] == 0).all()


@pytest.mark.parametrize(
    ("spread", "seen"),
    [(0.01, ["0.8", "1", "1.2"]), (0.3, ["0.5", "1", "2"]), (1.7, ["0.01", "0.1", "1", "10", "100"])],
)
def test_ratios_near_and_far_can_be_read(spread, seen):
    ax = inside_figure(last(S=4000, spread=spread)).axes[0]
    ticks = {text.get_text(): at for text, at in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)}
    assert set(seen) <= set(ticks)
    assert all(np.exp(at) == pytest.approx(float(text)) for text, at in ticks.items())


def test_an_infinite_ratio_is_drawn_at_the_edge():
    update = last(S=4, ratio=np.array([1.0, np.inf, 0.0, np.nan]))
    figure = inside_figure(update)
    heights = bars(figure.axes[0])[VERMILLION.lower()][0]
    assert (heights[0], heights[-1], heights.sum()) == (1, 1, 2)
    assert said(figure, 0).get_text() == "Ratio: 67 % outside the clip range"
    assert said(figure, 0).get_color() == VERMILLION


def test_the_clip_holds_good_and_bad_actions_in_opposite_directions():
    ratio = np.array([1.5, 0.5, 1.5, 0.5, 1.1, 0.9, 1.5])
    advantage = np.array([1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 0.0])
    held = [True, False, False, True, False, False, False]
    assert no_gradient(ratio, advantage, 0.2).tolist() == held
    update = last(S=7, ratio=ratio, advantage=advantage, normalize_advantage="never")
    figure = inside_figure(update)
    drawn = scattered(figure.axes[1])
    points = np.stack([advantage, np.log(ratio)], axis=-1)
    np.testing.assert_allclose(drawn[VERMILLION.lower()], points[[0, 3]])
    np.testing.assert_allclose(drawn[OCHRE.lower()], points[[1, 2, 6]])
    np.testing.assert_allclose(drawn[BLUE.lower()], points[[4, 5]])
    assert said(figure, 1).get_text() == "The clip removes the gradient of 29 %"


def test_no_gradient_is_what_the_loss_says():
    torch = pytest.importorskip("torch")
    from ppo_lab.ppo.losses import clipped_surrogate

    update = last(spread=0.4)
    ratio = torch.tensor(update.ratio, dtype=torch.float64, requires_grad=True)
    clipped_surrogate(ratio, torch.tensor(update.normalized, dtype=torch.float64), 0.2).backward()
    expected = no_gradient(update.ratio, update.normalized, 0.2)
    assert expected.any()
    np.testing.assert_array_equal((ratio.grad == 0).numpy(), expected)


def test_advantages_have_two_scales():
    update = last(S=2000)
    figure = inside_figure(update)
    ax = figure.axes[2]
    drawn = bars(ax)
    turned = (update.advantage > 0) != (update.normalized > 0)
    assert 0 < turned.mean() < 0.2
    assert drawn[BLUE.lower()][0].sum() == (~turned).sum()
    assert drawn[OCHRE.lower()][0].sum() == turned.sum()
    for text in ax.get_xticklabels():
        after, before = (float(part.strip("()")) for part in text.get_text().split("\n"))
        assert update.advantage.mean() + after * update.advantage.std() == pytest.approx(before, abs=0.6)
    assert said(figure, 2).get_text() == f"Normalising flips the sign of {100 * turned.mean():.2g} %"
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed[0].get_xdata()[0] == pytest.approx(-update.advantage.mean() / update.advantage.std(), rel=1e-4)


def test_advantages_that_are_not_normalised_or_all_equal():
    assert said(inside_figure(CASES["never"]), 2).get_text().endswith("used as they are")
    assert OCHRE.lower() not in {
        k for k, (heights, _) in bars(inside_figure(CASES["never"]).axes[2]).items() if heights.sum()
    }
    assert said(inside_figure(CASES["all equal"]), 2).get_text() == "Advantages all -1234: none better than another"


def test_the_critic_is_held_against_the_returns():
    update = last(S=50)
    figure = inside_figure(update)
    low, high = figure.axes[3].get_xlim()
    points = scattered(figure.axes[3])[BLUE.lower()]
    np.testing.assert_array_equal(points, np.stack([update.returns, update.value], -1).astype(float).clip(low, high))
    diagonal = figure.axes[3].lines[0].get_xydata()
    assert (diagonal[:, 0] == diagonal[:, 1]).all()
    explained = 1 - (update.returns - update.value).var() / update.returns.var()
    assert said(figure, 3).get_text() == f"Explained variance {explained:.2g}: critic predicts"
    assert said(figure, 3).get_color() == TEXT
    bad = inside_figure(dataclasses.replace(update, value=-update.value))
    assert "guesses" in said(bad, 3).get_text()
    assert said(bad, 3).get_color() == VERMILLION
    assert said(inside_figure(CASES["all equal"]), 3).get_text() == "Critic: all returns are equal"


@pytest.mark.parametrize("case", ["two actions", "discrete", "18 actions"])
def test_probabilities_are_stacked(case):
    update = CASES[case]
    figure = inside_figure(update)
    ax = figure.axes[4]
    parts = [patch for patch in ax.patches if isinstance(patch, StepPatch)]
    drawn = np.stack([part.get_data()[0] - part.get_data()[2] for part in parts], axis=-1)
    np.testing.assert_allclose(drawn, update.probabilities)
    np.testing.assert_array_equal(parts[0].get_data()[1], np.arange(41) - 0.5)
    assert len({to_hex(part.get_facecolor()) for part in parts}) == update.probabilities.shape[-1]
    keys = [patch for patch in ax.patches if not isinstance(patch, StepPatch)]
    assert [to_hex(key.get_facecolor()) for key in keys] == [to_hex(part.get_facecolor()) for part in parts]
    sure = 100 * update.probabilities.max(-1).mean()
    assert f"has {sure:.2g} % on average" in said(figure, 4).get_text()
    for lines in ax.collections:
        assert [segment[0][0] for segment in lines.get_segments()] == [16.5, 33.5]
    assert [ax.get_visible() for ax in figure.axes[4:]] == [True, False, False]


def test_of_many_actions_and_steps_the_likeliest_and_last_are_shown():
    update = CASES["300 actions, long"]
    ax = inside_figure(update).axes[4]
    parts = [patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch)]
    assert len(parts) == MOST_ACTIONS
    drawn = np.stack([values - below for values, _, below in parts], axis=-1)
    kept = np.sort(update.probabilities.mean(0).argsort()[-MOST_ACTIONS + 1 :])
    np.testing.assert_allclose(drawn[:, :-1], update.probabilities[-MOST_STEPS:, kept])
    np.testing.assert_allclose(drawn.sum(-1), 1.0)
    labels = [text.get_text() for text in ax.texts]
    assert set(labels[:-1]) <= {*map(str, kept), "rest"}
    assert "rest" in labels
    assert ax.get_xlim() == (2048 - MOST_STEPS - 0.5, 2047.5)
    assert "the last 200 of 2,048" in ax.get_xlabel()


def test_continuous_actions_are_drawn_around_their_mean():
    update = last(n=0, A=5, T=30)
    figure = inside_figure(update)
    shown = figure.axes[4:]
    assert [ax.get_visible() for ax in shown] == [True, True, True]
    assert [ax.get_ylabel() for ax in shown] == ["action 0", "action 1", "action 2"]
    assert "std 0.4; the first 3 of 5 dimensions" in said(figure, 4).get_text()
    for i, ax in enumerate(shown):
        mean, drawn = (line.get_xydata() for line in ax.lines)
        low, high = ax.get_ylim()
        np.testing.assert_allclose(mean[:, 1], update.mean[:, i])
        np.testing.assert_allclose(drawn[:, 1], update.action[:, i].clip(low, high))
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == pytest.approx(
            (update.mean[:, i].min() - 0.4, update.mean[:, i].max() + 0.4), rel=0.05
        )
    places = [ax.get_position() for ax in shown]
    assert all(above.y0 > below.y1 for above, below in pairwise(places))
    one = inside_figure(CASES["continuous"], figure)
    assert [ax.get_visible() for ax in one.axes[4:]] == [True, False, False]


@pytest.mark.parametrize(
    ("case", "names", "says"),
    [
        ("two choices", ["action 0", "action 1"], "the likeliest choices have"),
        ("three bits of many", ["action 0", "action 1", "action 2"], "; the first 3 of 40 numbers"),
        ("hybrid", ["choice", "switches 0", "turn 0"], "; 3 of 6 numbers"),
        ("two boxes", ["left 0", "left 1", "right 0"], "; 3 of 6 dimensions"),
    ],
)
def test_of_several_numbers_each_has_a_row(case, names, says):
    update = CASES[case]
    figure = inside_figure(update)
    shown = [ax for ax in figure.axes[4:] if ax.get_visible()]
    assert [ax.get_ylabel() for ax in shown] == names
    assert says in said(figure, 4).get_text()
    rows = [one for part in update.parts for one in numbers_of((part,), 99) if one.name in names]
    for row, ax in zip(rows, shown, strict=True):
        first = max(len(row.taken) - MOST_STEPS, 0)
        if row.probabilities is None:
            np.testing.assert_allclose(ax.lines[0].get_ydata(), row.mean[first:])
            continue
        parts = [patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch)]
        drawn = np.stack([values - below for values, _, below in parts], axis=-1)
        np.testing.assert_allclose(drawn, row.probabilities[first:])


def test_choices_are_called_what_the_environment_calls_them():
    part = several(40, [3])._replace(first=[5])
    keys = [text.get_text() for text in inside_figure(last(parts=(part,))).axes[4].texts[:-1]]
    assert keys == ["5", "6", "7"]


def test_parts_of_a_lone_action_have_short_names():
    update = CASES["discrete"]
    assert update.probabilities.shape == (40, 3)
    assert update.action.shape == (40,)
    assert CASES["continuous, many"].mean.shape == CASES["continuous, many"].action.shape == (500, 17)
    for case in ("hybrid", "two boxes"):
        several_keys = CASES[case]
        assert several_keys.action is several_keys.probabilities is several_keys.mean is several_keys.std is None
    assert CASES["two choices"].probabilities is None
    assert CASES["two choices"].action.shape == (40, 2)
