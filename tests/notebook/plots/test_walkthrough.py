"""Plots of 02_ppo_explained: the data are drawn unchanged, and all texts fit into the picture."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from ppo_lab.notebook import plots
from ppo_lab.notebook.plots.canvas import BLUE, VERMILLION
from ppo_lab.ppo.losses import clipped_surrogate
from tests.notebook.fakes import columns

rng = np.random.default_rng(1)
WALK = 1 / (1 + np.exp(-0.3 * rng.normal(size=(101, 20)).cumsum(0)))
RATIO, ADVANTAGE = np.exp(0.2 * rng.normal(size=(128, 16))), rng.normal(size=(128, 16))
EPISODE = tuple(rng.normal(size=60) for _ in range(4))
FIGURES = {
    "habits": lambda: plots.habits_figure({"without": WALK, "with": 1 - WALK}, "the right bowl"),
    "one lesson": lambda: plots.habits_figure({"without": WALK[:1], "with": WALK[:2]}, "the right bowl"),
    "noise": lambda: plots.noise_figure({"without": rng.normal(2, 3, 10_000), "with": rng.normal(2, 1, 10_000)}),
    "equal noise": lambda: plots.noise_figure({"nothing": np.zeros(5)}),
    "patience": lambda: plots.patience_figure({1.0: np.arange(50.0, 0, -1), 0.5: np.full(50, 2.0)}),
    "one step": lambda: plots.patience_figure({1.0: np.ones(1)}),
    "episode": lambda: plots.episode_figure(*EPISODE),
    "short episode": lambda: plots.episode_figure(*(part[:1] for part in EPISODE)),
    "critics": lambda: plots.critics_figure({"a": np.linspace(0, 50, 30)}, np.arange(1, 31) * 2048, 50.0),
    "far-off critics": lambda: plots.critics_figure({"a": [-900.0], "b": [80.0]}, np.array([2048]), 50.0),
    "clip": lambda: plots.clip_figure(RATIO, ADVANTAGE, 0.2),
    "nothing moved": lambda: plots.clip_figure(np.ones(4), np.ones(4), 0.2),
    "far ratios": lambda: plots.clip_figure(np.array([30.0, 0.01, 3.0]), np.array([1.0, -1.0, -2.0]), 0.2),
    "leash": lambda: plots.leash_figure({"on": [columns(30), columns(20)], "off": [columns(30)]}, 0.02),
    "nothing yet": lambda: plots.leash_figure({"on": [{}]}, 0.02),
}


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
        assert ax.get_title(loc="left")
    assert figure.axes[-1].get_xlabel()
    assert figure.axes[0].get_ylabel()


def test_a_habit_is_a_line_and_the_title_says_where_most_of_them_end():
    ax = FIGURES["habits"]().axes[0]
    np.testing.assert_array_equal(np.column_stack([line.get_ydata() for line in ax.lines[:20]]), WALK)
    np.testing.assert_allclose(ax.lines[20].get_ydata(), np.median(WALK, axis=1))
    low, high = np.sort(WALK[-1])[[2, 17]]  # the middle sixteen of twenty lie between them
    said = [float(word) for word in ax.get_title(loc="left").split() if word.startswith("0.")]
    assert low - 0.05 <= said[0] <= low + 0.05
    assert high - 0.05 <= said[1] <= high + 0.05


def test_the_noise_is_counted_whole_and_its_average_marked():
    noise = {"without": rng.normal(2, 3, 1000), "with": rng.normal(2, 1, 1000)}
    for ax, values in zip(plots.noise_figure(noise).axes, noise.values(), strict=True):
        assert sum(patch.get_height() for patch in ax.patches) == 1000
        assert ax.lines[0].get_xdata()[0] == pytest.approx(values.mean())
        assert f"std {values.std():.2g}" in ax.get_title(loc="left")


def test_the_episode_is_four_aligned_rows_of_bars():
    axes = FIGURES["episode"]().axes
    for ax, values in zip(axes, EPISODE, strict=True):
        assert [bar.get_height() for bar in ax.patches] == list(values)
        assert {bar.get_facecolor() for bar in ax.patches} <= {to_rgba(BLUE), to_rgba(VERMILLION)}
        assert all((bar.get_facecolor() == to_rgba(BLUE)) == (bar.get_height() >= 0) for bar in ax.patches)
        assert ax.get_xlim() == axes[0].get_xlim()


def test_critics_stand_beside_the_truth():
    ax = FIGURES["critics"]().axes[0]
    assert ax.lines[0].get_ydata()[-1] == 50.0
    assert ax.lines[1].get_ydata()[0] == 50.0
    assert ax.texts[0].get_text() == "true: 50"


def test_every_sample_lies_on_the_curve_and_those_that_are_held_have_no_slope():
    """Compare with the library's loss and its gradient, sample by sample."""
    ratio = torch.tensor(RATIO.ravel(), requires_grad=True)
    advantage = torch.tensor(ADVANTAGE.ravel())
    clipped_surrogate(ratio, advantage, 0.2).backward()
    held = ratio.grad == 0
    for ax, positive in zip(FIGURES["clip"]().axes, (True, False), strict=True):
        side = (advantage > 0) == positive
        _curve, moving, stuck = ax.lines
        texts = [text.get_text() for text in ax.get_legend().get_texts()]
        assert texts == [f"{int((side & ~held).sum()):,} pull", f"{int((side & held).sum()):,} held: slope 0"]
        for line, chosen in ((moving, side & ~held), (stuck, side & held)):
            shown = set(np.round(line.get_xdata(), 9))
            assert shown <= set(np.round(ratio.detach()[chosen].numpy(), 9))
            sign = torch.ones(1, dtype=torch.float64) * (1 if positive else -1)
            for x, y in list(zip(line.get_xdata(), line.get_ydata(), strict=True))[:20]:
                assert y == pytest.approx(-clipped_surrogate(torch.tensor([x]), sign, 0.2).item())


def test_the_leash_picture_has_a_line_a_seed_and_names_each_way_once():
    left, right = FIGURES["leash"]().axes
    assert len(left.lines) == len(right.lines) == 3
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["on", "off"]
    known = columns(30)["update/approx_kl"]
    np.testing.assert_allclose(left.lines[0].get_ydata(), known[np.isfinite(known)].clip(1e-5))
    assert left.get_yscale() == "log"


def test_tensors_are_arrays_too():
    one, other = plots.clip_figure(torch.tensor(RATIO), torch.tensor(ADVANTAGE), 0.2), FIGURES["clip"]()
    assert plots.to_png(one) == plots.to_png(other)
