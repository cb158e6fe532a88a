"""Plots of policies, bodies and memories: the data are drawn unchanged, and all texts fit into the picture."""

import numpy as np
import pytest
import torch

from ppo_lab.models.distributions import DiagonalGaussian
from ppo_lab.notebook import plots

rng = np.random.default_rng(1)
X = torch.linspace(-12, 12, 4001)
BELL = DiagonalGaussian(torch.zeros(1), torch.zeros(1)).log_prob(X[:, None]).exp()
DRAWS = {"free": rng.normal(size=5_000), "inside": rng.uniform(-1, 1, 5_000), "at an end": np.ones(10)}
TAKEN = {name: 2 * draws.clip(-1, 1) for name, draws in DRAWS.items()}
CUE = np.arange(90) % 3
KNOWS = rng.normal(size=(4, 90, 8)) * 0.1 + np.eye(8)[CUE]  # the cue stands in one of the first three numbers
FORGETS = np.concatenate([KNOWS[:1], rng.normal(size=(3, 90, 8))])
CHANCES = {"free": np.array([0.7, 0.2, 0.1]), "masked": np.array([0.0, 0.6, 0.4])}
ENTITIES = np.concatenate([rng.uniform(size=(4, 2)), np.eye(3)[[0, 1, 2, 2]]], axis=1)
VIEW = (np.zeros((140, 140, 3), np.uint8), np.zeros((7, 7)), ENTITIES, np.array([1, 1, 1, 0]), np.linspace(-1, 1, 5))
MAPS = torch.rand(32, 7, 7, generator=torch.Generator().manual_seed(1))
WEIGHTS = torch.tensor(rng.normal(size=(4, 4, 4))).softmax(-1)
FIGURES = {
    "densities": lambda: plots.densities_figure({"bell": (X, BELL), "other": (X, BELL)}, -1, 1),
    "bounds": lambda: plots.bounds_figure(DRAWS, TAKEN, -2, 2),
    "exploring": lambda: plots.explore_figure(
        {"white": rng.normal(size=(60, 5)), "held": np.ones((60, 5))},
        {"white": rng.normal(size=(60, 5)), "held": np.cumsum(np.ones((60, 5)), 0)}, 0.45,
    ),
    "width": lambda: plots.width_figure(
        {"free": np.ones((5, 9)), "state": rng.uniform(0.1, 3, (5, 9))}, np.linspace(-3, 3, 9), np.linspace(-8, 8, 5)
    ),
    "entropy": lambda: plots.entropy_figure({"a": (np.arange(1, 9) * 2048, np.linspace(-1, 2, 8)), "b": ([1], [0.0])}),
    "views": lambda: plots.views_figure(*VIEW),
    "features": lambda: plots.features_figure(np.eye(7), {"few": rng.normal(size=(3, 7, 7)), "many": MAPS}),
    "attention": lambda: plots.attention_figure(WEIGHTS, ["paddle", "ball", "decoy 1", "decoy 2"]),
    "chances": lambda: plots.probabilities_figure(CHANCES, ["left", "stay", "right"]),
    "memory": lambda: plots.memory_figure({"newborn": FORGETS, "trained": KNOWS}, CUE, {"first": 0, "last": 3}),
    "recall": lambda: plots.recall_figure({"a": (np.arange(5, 21), rng.uniform(size=16)), "b": ([5], [1.0])}, 1 / 3),
    "ratios": lambda: plots.ratios_figure({"right": np.ones((8, 4)), "wrong": rng.normal(1, 0.2, (8, 4))}),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_everything_is_labelled_inside_and_small(name):
    figure = FIGURES[name]()
    assert len(plots.to_png(figure)) < 200_000
    for ax in figure.axes:
        box = ax.get_tightbbox()  # of titles, labels, ticks and legend too
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    assert any(ax.get_title(loc="left") for ax in figure.axes)


def titles(name):
    return [ax.get_title(loc="left") for ax in FIGURES[name]().axes]


def test_a_density_says_its_area_and_what_is_outside_of_the_box():
    assert titles("densities")[0] == "bell\narea 1.00, outside 32 %"  # of a normal distribution, beyond 1 std


def test_draws_are_counted_whole_and_those_at_a_bound_named():
    figure = FIGURES["bounds"]()
    top, bottom = figure.axes[:3], figure.axes[3:]
    for ax, below, draws in zip(top, bottom, DRAWS.values(), strict=True):
        assert sum(bar.get_height() for bar in ax.patches) == len(draws)
        assert sum(bar.get_height() for bar in below.patches) == len(draws)
        # the Box is 4 wide: within 0.02 of an end is within 0.01 in the numbers of the draws
        share = 100 * (np.abs(draws) > 0.99).mean()
        assert below.get_title(loc="left") == f"{plots.number(share)} % within 0.5 % of a bound"


def test_exploring_says_how_far_half_of_them_roam():
    assert titles("exploring")[3] == "half of the 5 cars cover 59 or more"
    assert titles("exploring")[1] == "held: std 0 over all cars"


def test_the_width_is_on_one_scale_of_colours():
    free, state = (ax.images[0] for ax in FIGURES["width"]().axes[:2])
    assert free.get_clim() == state.get_clim()
    assert "std 1 to 1" in titles("width")[0]


def test_the_liveliest_feature_maps_come_first_and_absent_ones_are_left_out():
    maps = np.zeros((3, 7, 7))
    maps[2, 0, 0], maps[1, 0, 0] = 5.0, 1.0
    figure = plots.features_figure(np.eye(7), {"layer": maps}, most=5)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["layer", "2", "1", "0", "", ""]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), maps[2])
    assert not figure.axes[4].axison


def test_attention_is_written_into_its_cells():
    ax = FIGURES["attention"]().axes[2]
    written = {text.get_position(): text.get_text() for text in ax.texts}
    assert written[(3, 1)] == plots.number(float(WEIGHTS[2, 1, 3]))  # x is the column


def test_only_those_that_are_there_are_drawn():
    scatter = FIGURES["views"]().axes[2]
    drawn = np.concatenate([np.column_stack(line.get_data()) for line in scatter.lines])
    np.testing.assert_allclose(drawn, ENTITIES[:3, :2])
    assert scatter.get_title(loc="left") == "a set: 3 of 4 present"


def test_the_widest_sides_are_those_of_the_covariance():
    rows = rng.normal(size=(200, 5)) * [3.0, 0.1, 2.0, 0.1, 0.1]
    seen = plots.principal(rows)
    largest = np.sort(np.linalg.eigvalsh(np.cov(rows.T)))[::-1][:2]
    np.testing.assert_allclose(seen.var(axis=0, ddof=1), largest)
    assert abs(np.corrcoef(seen.T)[0, 1]) < 1e-9


def test_every_episode_is_a_dot_of_the_colour_of_its_cue():
    axes = FIGURES["memory"]().axes
    assert len(axes) == 4
    for ax in axes:
        assert [len(line.get_xdata()) for line in ax.lines] == [30, 30, 30]
        assert len({line.get_color() for line in ax.lines}) == 3


def test_a_reader_tells_what_is_there_and_guesses_what_is_not():
    np.testing.assert_allclose(plots.told_apart(KNOWS, CUE), 1.0)
    first, *later = plots.told_apart(FORGETS, CUE)
    assert first == 1.0
    assert np.mean(later) < 0.6


def test_the_reader_is_tried_on_episodes_it_has_not_seen():
    many = rng.normal(size=(1, 90, 60))  # so many numbers that the first half could be learned by heart
    assert plots.told_apart(many, CUE)[0] < 0.7


def test_a_ratio_that_is_not_1_is_counted():
    ratio = np.ones((8, 4))
    ratio[0, 0] = 1.2
    figure = plots.ratios_figure({"right": np.ones((8, 4)), "wrong": ratio})
    assert figure.axes[0].get_title(loc="left") == "right: 0 % of the ratios are not 1"
    assert figure.axes[1].get_title(loc="left") == "wrong: 3.1 % of the ratios are not 1"
    assert figure.axes[0].patches[0].get_facecolor() != figure.axes[1].patches[0].get_facecolor()
