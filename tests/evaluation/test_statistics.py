"""Statistics of scores against cases computed by hand, slow oracles, SciPy, and simulations with a known result."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ppo_lab.errors import ConfigError
from ppo_lab.evaluation import (
    bootstrap_interval,
    describe,
    iqm,
    mean_interval,
    probability_of_improvement,
    stratified_interval,
)
from tests.oracles import statistics as oracle

SCORES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


# ---- interquartile mean ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 6.0], 3.0),  # a quarter of three is no whole score: nothing is cut
        ([4.0, 1.0, 3.0, 2.0], 2.5),
        ([-1e9, 1.0, 2.0, 1e9], 1.5),  # ignores one outlier on each side
        ([0.0, 1.0, 2.0, 3.0, 100.0], 2.0),
        ([0, 0, 1, 2, 3, 4, 9, 9], 2.5),
        ([True, True, True, False], 1.0),
    ],
)
def test_iqm_by_hand(scores, expected):
    assert iqm(scores) == pytest.approx(expected, rel=1e-15)


@given(SCORES)
def test_iqm_equals_sorting_and_popping(scores):
    assert iqm(scores) == pytest.approx(oracle.interquartile_mean(scores), rel=1e-12, abs=1e-6)


@given(SCORES, st.floats(0.1, 10.0), st.floats(-100.0, 100.0))
def test_iqm_moves_with_its_unit_and_lies_within_the_scores(scores, scale, shift):
    moved = iqm([scale * score + shift for score in scores])
    assert moved == pytest.approx(scale * iqm(scores) + shift, rel=1e-9, abs=1e-6)
    assert min(scores) - 1e-6 <= iqm(scores) <= max(scores) + 1e-6


def test_iqm_along_an_axis_and_over_a_matrix():
    scores = np.random.default_rng(0).normal(size=(6, 9))
    assert iqm(scores) == pytest.approx(oracle.interquartile_mean(scores.ravel().tolist()))
    np.testing.assert_allclose(iqm(scores, axis=1), [oracle.interquartile_mean(row.tolist()) for row in scores])


# ---- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("runs", "tasks", "t"), [(5, 1, 2.776445), (3, 2, 2.776445), (2, 3, 3.182446)])
@pytest.mark.parametrize("expand", [True, False])
def test_interval_equals_the_percentiles_of_every_resample(runs, tasks, t, expand):
    """t: 97.5 % quantile of Student's t for tasks * (runs - 1) degrees of freedom, from a printed table."""
    scores = np.random.default_rng(runs).normal(size=(runs, tasks)) + 3.0 * np.arange(tasks)
    tail = 0.025
    if expand:
        tail = 0.5 * math.erfc(t * math.sqrt(runs / (runs - 1)) / math.sqrt(2))  # Phi(-t sqrt(n / (n - 1)))
    for ours, theirs in ((iqm, oracle.interquartile_mean), (np.mean, oracle.mean)):
        exact = np.sort(oracle.every_resample(scores, theirs))
        interval = stratified_interval(scores, ours, resamples=40_000, expand=expand)
        # a sample of all resamples: the result is between the exact percentiles slightly inside and slightly outside
        for value, at in zip(interval, (tail, 1.0 - tail), strict=True):
            near = np.quantile(exact, np.clip([at - 0.3 * tail, at + 0.3 * tail], 0.0, 1.0), method="inverted_cdf")
            assert near[0] - 1e-9 <= value <= near[1] + 1e-9


def test_plain_interval_is_scipys():
    scores = np.random.default_rng(1).exponential(size=30)
    theirs = stats.bootstrap((scores,), np.mean, method="percentile", rng=np.random.default_rng(7)).confidence_interval
    ours = bootstrap_interval(scores, np.mean, resamples=9999, seed=7, expand=False)
    assert ours == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_one_task_is_the_plain_bootstrap():
    scores = np.random.default_rng(2).normal(size=12)
    assert bootstrap_interval(scores, seed=3) == stratified_interval(scores[:, None], seed=3)


def test_strata_keep_differences_between_tasks_out_of_the_interval():
    """Tasks far apart, runs close together: only runs are resampled, so the interval is as narrow as the runs."""
    scores = np.random.default_rng(3).normal(scale=0.01, size=(10, 8)) + 100.0 * np.arange(8)
    low, high = stratified_interval(scores, np.mean)
    assert high - low < 0.02
    low, high = bootstrap_interval(scores.ravel(), np.mean)  # the result of mixing tasks and runs
    assert high - low > 50.0


def coverage(n: int, expand: bool, experiments: int = 300) -> float:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(experiments):
        low, high = bootstrap_interval(rng.normal(size=n), np.mean, resamples=500, expand=expand)
        covered += low <= 0.0 <= high
    return covered / experiments


def test_interval_covers_the_truth_as_often_as_it_says():
    assert 0.92 <= coverage(30, expand=True) <= 0.98  # standard error 0.013


def test_expansion_repairs_small_samples():
    plain, expanded = coverage(6, expand=False), coverage(6, expand=True)
    assert plain < 0.91 < 0.92 < expanded <= 0.98


def test_mean_interval_is_about_students_t_but_stays_within_the_scores():
    rng = np.random.default_rng(4)
    for n in (10, 30, 100):
        x = rng.normal(10.0, 3.0, size=n)
        half = stats.t.isf(0.025, n - 1) * x.std(ddof=1) / math.sqrt(n)
        low, high = mean_interval(x)
        assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.15 * half)
    capped = np.full(20, 500.0)
    capped[3] = 200.0
    low, high = mean_interval(capped)
    assert low < capped.mean() < high <= 500.0
    assert capped.mean() + stats.t.isf(0.025, 19) * capped.std(ddof=1) / math.sqrt(20) > 500.0


@pytest.mark.parametrize("value", [0.0, 500.0, 0.1, -1e9])
def test_equal_scores_have_no_width(value):
    assert bootstrap_interval([value] * 7) == pytest.approx((value, value), rel=1e-15)
    assert stratified_interval(np.full((3, 4), value)) == pytest.approx((value, value), rel=1e-15)


def test_one_score_has_no_interval():
    assert all(math.isnan(end) for end in (*bootstrap_interval([3.0]), *mean_interval([3.0])))
    assert all(math.isnan(end) for end in stratified_interval([[1.0, 2.0, 3.0]]))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), st.sampled_from([0.5, 0.9, 0.99]))
def test_interval_is_ordered_and_within_the_scores(scores, confidence):
    low, high = bootstrap_interval(scores, confidence=confidence, resamples=200)
    assert min(scores) - 1e-9 <= low <= high <= max(scores) + 1e-9


def test_more_confidence_is_wider():
    x = np.random.default_rng(5).normal(size=20)
    (a, b), (c, d) = bootstrap_interval(x, confidence=0.8), bootstrap_interval(x, confidence=0.99)
    assert c < a < b < d


def test_batches_do_not_change_one_sample():
    """2000 scores are resampled 500 at a time; the result is that of one batch."""
    x = np.random.default_rng(6).normal(size=2000)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=1200, method="percentile", rng=np.random.default_rng(0))
    expected = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert bootstrap_interval(x, np.mean, resamples=1200, expand=False) == pytest.approx(expected, rel=1e-12)


def test_own_random_numbers():
    x = np.random.default_rng(7).normal(size=20)
    np.random.seed(3)  # the global state is what this test is about
    before = np.random.get_state()[1].copy()
    first = bootstrap_interval(x, seed=1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(4)
    assert bootstrap_interval(x, seed=1) == first
    assert bootstrap_interval(x, seed=2) != first


# ---- probability of improvement --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([2.0], [1.0], 1.0),
        ([1.0], [2.0], 0.0),
        ([1.0, 2.0], [1.0, 2.0], 0.5),
        ([1.0, 3.0], [2.0], 0.5),
        ([2.0, 2.0, 5.0], [2.0, 1.0], (0.5 + 1 + 0.5 + 1 + 1 + 1) / 6),
        ([[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0]], 0.5),  # wins the first task always, the second never
        ([1e308], [-1e308], 1.0),
    ],
)
def test_probability_of_improvement_by_hand(x, y, expected):
    assert probability_of_improvement(x, y) == pytest.approx(expected)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**31))
def test_probability_of_improvement_equals_pairs_and_mann_whitney(runs_x, runs_y, tasks, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 4, (runs_x, tasks)), rng.integers(0, 4, (runs_y, tasks))  # many ties
    ours = probability_of_improvement(x, y)
    assert ours == pytest.approx(oracle.probability_of_improvement(x, y))
    u = [stats.mannwhitneyu(x[:, k], y[:, k], method="asymptotic").statistic for k in range(tasks)]
    assert ours == pytest.approx(np.mean(u) / (runs_x * runs_y))
    assert ours + probability_of_improvement(y, x) == pytest.approx(1.0)


# ---- words, and wrong input ------------------------------------------------------------------------------------------


def test_describe():
    x = 476.0 + np.random.default_rng(0).normal(scale=37.0, size=100)
    low, high = mean_interval(x)
    assert describe(x) == f"{x.mean():.1f} (95 % interval {low:.1f} to {high:.1f}, 100 episodes)"
    assert describe(x, confidence=0.9).split("(")[1].startswith("90 % interval")
    assert describe(1000.0 * x).startswith(f"{1000.0 * x.mean():.0f} (")
    assert describe(x / 1000.0).startswith(f"{x.mean() / 1000.0:.4f} (")
    assert describe([500.0] * 100) == "500 (the same in all 100 episodes)"
    assert describe([-12.5]) == "-12.5 (1 episode)"
    assert describe([0.0] * 99 + [1.0], confidence=0.1).startswith("0.0 (10 % interval")  # no width, yet not all equal


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [math.inf, 1.0], [[]]])
@pytest.mark.parametrize(
    "function",
    [iqm, bootstrap_interval, stratified_interval, mean_interval, describe, lambda x: probability_of_improvement(x, x)],
)
def test_empty_and_non_finite_scores_are_refused_in_one_line(function, scores):
    with pytest.raises(ConfigError, match="scores: ") as error:
        function(scores)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval(np.zeros((3, 2))), "stratified_interval"),
        (lambda: mean_interval(np.zeros((3, 2))), "one dimension"),
        (lambda: describe(np.zeros((3, 2))), "one dimension"),
        (lambda: stratified_interval(np.zeros(3)), r"\(runs, tasks\)"),
        (lambda: bootstrap_interval([1.0, 2.0], confidence=95), "confidence: 0 < confidence < 1, got 95"),
        (lambda: bootstrap_interval([1.0, 2.0], resamples=0), "resamples: at least 1, got 0"),
        (lambda: probability_of_improvement(np.zeros((3, 2)), np.zeros((3, 4))), "same tasks"),
        (lambda: probability_of_improvement(np.zeros(3), np.zeros((3, 4))), "same tasks"),
    ],
)
def test_wrong_arguments_say_what_is_allowed(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
