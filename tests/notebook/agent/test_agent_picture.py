"""The picture of one step: the pixels agree with the numbers that were drawn."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from ppo_lab.notebook.agent import action_picture, agent_picture
from ppo_lab.notebook.agent.action_picture import BAR, LABEL, ROW, WIDE_ROW
from ppo_lab.notebook.agent.agent_picture import SCENE, Thought, compose, scene_of, scene_of_state, to_png
from ppo_lab.notebook.data.action_arrays import ActionPart, numbers_of
from ppo_lab.notebook.plots.canvas import BLUE, VERMILLION

SMALL = Image.new("RGB", (40, 30), "white")
LEFT = SMALL.width + agent_picture.GAP  # pixels: left edge of the panel beside the scene
ACTIONS = 140  # pixels: top of the rows of actions


def picture(thought, **others):
    return np.asarray(compose(SMALL, thought, **{"values": [1.0, 2.0], "step": 1, "total": 1.0, **others}))


def where(pixels, color):
    """Return (rows, columns) of the pixels that have exactly this colour."""
    return np.nonzero((pixels == (*ImageColor.getrgb(color), 255)).all(-1))


def bar_lengths(pixels, rows):
    """Count the blue pixels in the middle of each row of actions."""
    return [len(where(pixels[[ACTIONS + row * ROW + ROW // 2], LEFT + LABEL :], BLUE)[1]) for row in range(rows)]


def marked(pixels, rows, height=ROW):
    """Return the rows that have the dot of the taken action."""
    tops = [ACTIONS + row * height for row in range(rows)]
    return [row for row, top in enumerate(tops) if len(where(pixels[top : top + height], VERMILLION)[0]) > 20]


def discrete(chances, taken=0, first=0):
    return Thought(1.0, (ActionPart(np.array([taken + first]), np.asarray(chances)[None], [first], [len(chances)]),))


def continuous(mean, std, taken, low=-1.0, high=1.0):
    parts = (np.atleast_1d(np.asarray(part, dtype=float)) for part in (taken, mean, std))
    action, mean, std = parts
    ends = np.full(len(action), low), np.full(len(action), high)
    return Thought(1.0, (ActionPart(action, mean=mean, std=std, low=ends[0], high=ends[1]),))


@pytest.mark.parametrize("size", [(600, 400), (500, 500), (1000, 100), (100, 1000), (400, 300)])
def test_a_frame_is_shrunk_to_fit(size):
    scene = scene_of(Image.new("RGB", size))
    assert scene.width <= SCENE[0]
    assert scene.height <= SCENE[1]
    assert scene.width == SCENE[0] or scene.height == SCENE[1]
    assert scene.width / scene.height == pytest.approx(size[0] / size[1], rel=0.03)


def test_a_small_frame_is_blown_up_by_a_whole_factor():
    scene = scene_of(Image.new("RGB", (64, 80)))
    assert scene.size == (3 * 64, 3 * 80)


def test_the_scene_stands_left_on_a_transparent_page():
    pixels = picture(discrete([0.5, 0.5]))
    assert (pixels[: SMALL.height, : SMALL.width] == 255).all()
    assert (pixels[:, SMALL.width : LEFT, 3] == 0).all()
    visible = pixels[..., 3] > 0
    assert 0.02 < visible[:, LEFT:].mean() < 0.5


def test_lines_and_letters_fade_without_a_fringe():
    """Check that half-transparent pixels are as bright as the colours drawn: no dark or light edges."""
    pixels = picture(discrete([0.4, 0.6]), values=np.random.default_rng(0).normal(size=100))
    edges = pixels[(pixels[..., 3] > 0) & (pixels[..., 3] < 255)]
    assert len(edges) > 500
    inks = np.array([ImageColor.getrgb(ink) for ink in (action_picture.TEXT, BLUE, VERMILLION)])
    assert (edges[:, :3] >= inks.min(axis=0) - 3).all()
    assert (edges[:, :3] <= inks.max(axis=0) + 3).all()
    assert edges[:, :3].sum(axis=1).min() >= inks.sum(axis=1).min() - 6


def test_bars_are_as_long_as_the_probabilities():
    chances = [0.05, 0.6, 0.35, 0.0]
    pixels = picture(discrete(chances, taken=2))
    assert bar_lengths(pixels, 4) == pytest.approx([BAR * chance for chance in chances], abs=2)
    assert marked(pixels, 4) == [2]


def test_actions_are_numbered_as_the_environment_does():
    assert (picture(discrete([0.3, 0.7], taken=1)) != picture(discrete([0.3, 0.7], taken=1, first=5))).any()
    assert marked(picture(discrete([0.3, 0.7], taken=1, first=5)), 2) == [1]


def test_of_many_actions_the_most_likely_come_first_and_the_taken_one_is_among_them():
    chances = np.random.default_rng(0).dirichlet(np.ones(18))
    order = np.argsort(-chances)
    likely, unlikely = int(order[3]), int(order[17])
    pixels = picture(discrete(chances, taken=likely))
    assert bar_lengths(pixels, 8) == pytest.approx(BAR * chances[order[:8]], abs=2)
    assert marked(pixels, 8) == [3]
    pixels = picture(discrete(chances, taken=unlikely))
    assert bar_lengths(pixels, 8) == pytest.approx(BAR * chances[[*order[:7], unlikely]], abs=2)
    assert marked(pixels, 8) == [7]


def test_an_interval_lies_where_mean_and_std_say():
    pixels = picture(continuous(mean=0.2, std=0.4, taken=-0.5))
    begin = LEFT + LABEL + 4
    middle = ACTIONS + 9
    columns = where(pixels[[middle - 4]], BLUE)[1]
    assert (columns.min(), columns.max()) == pytest.approx((begin + BAR * 0.4, begin + BAR * 0.8), abs=2)
    rows, columns = where(pixels, VERMILLION)
    assert columns.mean() == pytest.approx(begin + BAR * 0.25, abs=1)
    assert rows.mean() == pytest.approx(middle, abs=1)


def test_an_interval_ends_at_the_bounds():
    pixels = picture(continuous(mean=5.0, std=100.0, taken=1.0, low=-1.0))
    columns = where(pixels[[ACTIONS + 5]], BLUE)[1]
    assert (columns.min(), columns.max()) == pytest.approx((LEFT + LABEL + 4, LEFT + LABEL + 4 + BAR), abs=1)


@pytest.mark.parametrize(("low", "high"), [(-np.inf, np.inf), (0.0, np.inf), (-np.inf, 0.5)])
@pytest.mark.parametrize("taken", [0.1, 1e4, -300.0])
def test_without_bounds_the_axis_holds_what_is_drawn(low, high, taken):
    taken = float(np.clip(taken, low, high))
    thought = continuous(mean=min(max(0.3, low), high), std=2.0, taken=taken, low=low, high=high)
    begin, end = action_picture._range(numbers_of(thought.parts, 1)[0])
    assert np.isfinite([begin, end]).all()
    assert begin < end
    assert begin <= taken <= end
    assert begin <= max(0.3 - 2.0, low)
    assert end >= min(0.3 + 2.0, high)
    picture(thought)


def test_of_many_numbers_six_are_drawn():
    pixels = picture(continuous(mean=np.zeros(9), std=np.full(9, 0.3), taken=np.full(9, 0.9)))
    assert marked(pixels, 7, WIDE_ROW) == [0, 1, 2, 3, 4, 5]


def test_the_value_goes_up_and_the_line_does():
    rising = picture(discrete([1.0, 0.0]), values=np.linspace(0, 1, 200))
    rows, columns = np.nonzero(rising[62:108, LEFT : LEFT + 240, 3] > 100)
    at = {side: rows[columns == side].mean() for side in (20, 120, 220)}
    assert at[20] > at[120] + 10 > at[220] + 20


@pytest.mark.parametrize("values", [[], [3.0], [2.0] * 50, np.arange(5000.0)])
def test_any_course_can_be_drawn(values):
    assert picture(discrete([1.0, 0.0]), values=values).any()


def test_an_episode_begins_at_the_left_and_fills_the_line():
    ends = [where(picture(discrete([1.0]), values=np.zeros(n))[60:110, LEFT:], BLUE)[1].max() for n in (10, 50, 2000)]
    assert ends[0] < ends[1] < ends[2] <= agent_picture.SPARK[0] + 2


def test_the_picture_keeps_its_size_during_an_episode():
    sizes = {picture(discrete([p, 1 - p]), values=[0.0] * n).shape for p, n in ((0.1, 1), (0.9, 300))}
    assert len(sizes) == 1


@pytest.mark.parametrize(("components", "lines"), [(1, 1), (4, 4), (30, 8)])
def test_a_state_has_a_line_for_each_number(components, lines):
    course = np.cumsum(np.random.default_rng(0).normal(size=(60, min(components, 8))), axis=0)
    scene = np.asarray(scene_of_state(course, components))
    assert scene.shape == (SCENE[1], SCENE[0], 4)
    height = min(60, (SCENE[1] - 22) // lines)
    inked = [bool((scene[22 + i * height : 22 + (i + 1) * height, LABEL + 60, 3] > 100).any()) for i in range(lines)]
    assert all(inked)
    assert not scene[22 + lines * height :, :, 3].any()
    assert scene[-1, -1, 3] == 0


def test_a_state_of_one_step_can_be_drawn():
    assert np.asarray(scene_of_state(np.array([[1.0, np.pi]]), 2)).any()


def test_placeholder_and_frames_are_png():
    assert agent_picture.placeholder("wait").startswith(b"\x89PNG")
    assert to_png(SMALL).startswith(b"\x89PNG")


def choice(sizes, chances, taken, key="", first=0):
    padded = np.zeros((len(sizes), max(sizes)))
    for row, some in zip(padded, chances, strict=True):
        row[: len(some)] = some
    return ActionPart(np.asarray(taken) + first, padded, [first] * len(sizes), sizes, key=key)


def spans(pixels, row):
    """Return the first and last blue column of a row, relative to the start of its bar; None if there is none."""
    columns = where(pixels[[ACTIONS + row * WIDE_ROW + 9 - 4]], BLUE)[1] - (LEFT + LABEL + 4)
    return (columns.min(), columns.max()) if len(columns) else None


def test_several_choices_are_strips_with_the_taken_one_marked():
    thought = Thought(0.0, (choice([2, 3], [[0.25, 0.75], [0.0, 0.5, 0.5]], [1, 2]),))
    pixels = picture(thought)
    assert spans(pixels, 0) == pytest.approx((0, 0.25 * BAR), abs=2)  # every other choice is blue
    assert spans(pixels, 1) == pytest.approx((0.5 * BAR, BAR), abs=2)
    assert marked(pixels, 2, WIDE_ROW) == [0, 1]
    for row, middle in enumerate((0.625, 0.75)):
        top = ACTIONS + row * WIDE_ROW
        columns = where(pixels[top : top + WIDE_ROW], VERMILLION)[1]
        assert columns.mean() == pytest.approx(LEFT + LABEL + 4 + middle * BAR, abs=1)


def test_a_hybrid_action_has_strips_and_intervals():
    turn = ActionPart(
        np.zeros(1), mean=np.array([0.2]), std=np.array([0.4]), low=-np.ones(1), high=np.ones(1), key="turn"
    )
    thought = Thought(0.0, (choice([4], [[0.25] * 4], [3], "pick"), turn))
    pixels = picture(thought)
    assert marked(pixels, 2, WIDE_ROW) == [0, 1]
    assert spans(pixels, 1) == pytest.approx((0.4 * BAR, 0.8 * BAR), abs=2)
    assert (pixels != picture(Thought(0.0, (choice([4], [[0.25] * 4], [3], "other"), turn)))).any()


def test_of_many_choices_six_are_drawn_and_any_name_fits():
    bits = choice([2] * 40, [[0.5, 0.5]] * 40, [0] * 40, "a/name/that/is/much/too/long/for/its/place")
    pixels = picture(Thought(0.0, (bits,)))
    assert marked(pixels, 7, WIDE_ROW) == [0, 1, 2, 3, 4, 5]
    name = pixels[ACTIONS : ACTIONS + 6 * WIDE_ROW, LEFT : LEFT + LABEL + 4, 3]
    assert name.any()
    assert not name[:, -3:].any()


def test_a_strip_of_a_hundred_choices_can_be_read():
    chances = np.random.default_rng(0).dirichlet(np.ones(100))
    pixels = picture(Thought(0.0, (choice([100, 2], [chances, [1.0, 0.0]], [57, 0], first=-3),)))
    assert marked(pixels, 2, WIDE_ROW) == [0, 1]


def test_numbers_of_a_state_can_have_names():
    course = np.zeros((3, 2))
    assert (np.asarray(scene_of_state(course, 2, names=["x", "y"])) != np.asarray(scene_of_state(course, 2))).any()
