"""Endpoints on small tables whose answers are found by hand, or by SciPy in another way."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from parts2whole.evaluation.endpoints import (
    compare_spread,
    deviation,
    log_area,
    mean_interval,
    rank_arms,
    steps_to,
    worst_mean,
)
from parts2whole.evaluation.permutation import swap_pairs
from parts2whole.evaluation.statistics import StatisticsError

SCRATCH = [0.70, 0.67, 0.60, 0.74, 0.71, 0.35]
OURS = [0.69, 0.70, 0.68, 0.74, 0.73, 0.66]


def test_an_area_is_the_mean_height_over_the_logarithm() -> None:
    assert log_area([(1, 0.5), (10, 0.5)]) == pytest.approx(0.5)
    # 1 to 2 and 2 to 4 are equally wide: (0.2 + 0.6) / 2 and (0.6 + 0.8) / 2, in the mean 0.55.
    assert log_area([(4, 0.8), (1, 0.2), (2, 0.6)]) == pytest.approx(0.55)
    assert log_area([(100, 0.2), (200, 0.6), (400, 0.8)]) == pytest.approx(0.55)  # in any unit of x


@pytest.mark.parametrize("points", [[], [(1, 0.5)], [(1, 0.5), (1, 0.6)], [(0, 0.5), (2, 0.6)]])
def test_what_is_no_curve_has_no_area(points: list[tuple[float, float]]) -> None:
    with pytest.raises(StatisticsError, match="two or more different x above 0"):
        log_area(points)


def test_the_first_step_at_a_score_counts_even_if_it_is_lost_again() -> None:
    curve = [(30, 0.5), (10, 0.2), (20, 0.6)]
    assert steps_to(curve, 0.6) == 20
    assert steps_to(curve, 0.61) is None
    assert steps_to([], 0.1) is None


def test_the_worst_tenth_is_rounded_up_to_whole_patients() -> None:
    scores = [i / 100 for i in range(100, 79, -1)]  # 21 scores, so three of them: 0.80, 0.81, 0.82
    assert worst_mean(scores) == pytest.approx(0.81)
    assert worst_mean(scores[:20]) == pytest.approx((0.81 + 0.82) / 2)  # 20 have two, not three
    assert worst_mean([3.0, 1.0], higher_is_better=False) == 3.0
    assert math.isnan(worst_mean([]))


def test_the_one_sided_test_of_spread_is_half_of_levenes_where_it_points_the_right_way() -> None:
    both = stats.levene(OURS, SCRATCH, center="median").pvalue
    found = compare_spread(OURS, SCRATCH)
    assert found.p == pytest.approx(both / 2)
    assert compare_spread(SCRATCH, OURS).p == pytest.approx(1 - both / 2)
    assert found.ratio == pytest.approx(np.std(OURS, ddof=1) / np.std(SCRATCH, ddof=1))
    assert found.n == 6


def test_the_interval_of_the_ratio_is_that_of_pairs_drawn_together() -> None:
    expected = stats.bootstrap(
        (np.array(OURS), np.array(SCRATCH)),
        lambda a, b, axis: np.std(a, axis=axis, ddof=1) / np.std(b, axis=axis, ddof=1),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert compare_spread(OURS, SCRATCH).interval == pytest.approx(tuple(expected), rel=0.05)
    # Drawn together, an arm that varies exactly twice as much does so in every draw.
    doubled = [2 * value + 1 for value in OURS]
    assert compare_spread(OURS, doubled).interval == pytest.approx((0.5, 0.5))


def test_spreads_that_say_nothing() -> None:
    constant = compare_spread([0.5] * 4, [0.5] * 4)
    assert math.isnan(constant.p)
    assert math.isnan(constant.ratio)
    assert constant.interval is None
    assert math.isnan(
        compare_spread([0.1, 0.2], [0.1, 0.5]).p
    )  # two deviations from a median are always equal
    assert compare_spread([0.1, 0.2, 0.3], [0.5] * 3).ratio == math.inf
    for wrong in ([0.5], [0.1, 0.2, math.nan]):
        with pytest.raises(StatisticsError, match="two or more pairs of finite values"):
            compare_spread(wrong, [0.5] * len(wrong))
    with pytest.raises(StatisticsError, match="two or more pairs"):
        compare_spread([0.1, 0.2], [0.1, 0.2, 0.3])


def noisy(value: float, n: int) -> list[float]:
    """One number in several ways of adding it up, which differ by rounding."""
    thirds = [value / 3 * 3, value / 7 * 7, sum([value / 10] * 10), math.nextafter(value, 2), value]
    made = [thirds[i % 5] for i in range(n)]
    assert len(set(made)) > 1
    return made


def test_rounding_is_no_spread() -> None:
    constant, other = noisy(0.7, 6), noisy(0.3, 6)
    assert (float(deviation(constant)), float(deviation([0.0] * 3))) == (0.0, 0.0)
    assert deviation(np.array([constant, OURS])) == pytest.approx([0, np.std(OURS, ddof=1)])
    still = compare_spread(constant, other)
    assert math.isnan(still.p)
    assert math.isnan(still.ratio)
    assert still.interval is None
    assert compare_spread(OURS, constant).ratio == math.inf
    assert compare_spread(OURS, constant).interval is None
    calm = compare_spread(constant, SCRATCH)
    assert (calm.ratio, calm.interval) == (0.0, (0.0, 0.0))
    assert calm.p == compare_spread([0.7] * 6, SCRATCH).p


def test_a_small_spread_is_one() -> None:
    near = [0.7 + 1e-9 * value for value in OURS]
    assert compare_spread(near, OURS).ratio == pytest.approx(1e-9, rel=1e-6)


def test_arms_that_differ_by_rounding_share_a_rank() -> None:
    rows = [("Liver", {"a": dict(enumerate(noisy(0.7, 5))), "b": dict.fromkeys(range(5), 0.7)}, True)]
    for statistic in (np.mean, deviation):
        found = rank_arms(rows, statistic=statistic)
        assert {(arm.rank, arm.interval, arm.first) for arm in found.values()} == {(1.5, (1.5, 1.5), 0.5)}
    # The same values in another order are added up to another last digit.
    values = [0.1, 0.2, 0.3, 0.7, 0.6]
    turned = [("Liver", {"a": dict(enumerate(values)), "b": dict(enumerate(values[::-1]))}, True)]
    assert {arm.rank for arm in rank_arms(turned).values()} == {1.5}
    apart = [("Liver", {"a": {0: 0.7 + 1e-9, 1: 0.7}, "b": {0: 0.7, 1: 0.7}}, True)]
    assert rank_arms(apart)["a"].rank == 1.0


def test_swapping_within_pairs_is_what_counting_all_swaps_gives() -> None:
    observed = min(OURS) - min(SCRATCH)
    differences = []
    for swapped in itertools.product((False, True), repeat=6):
        pairs = [(b, a) if swap else (a, b) for a, b, swap in zip(OURS, SCRATCH, swapped, strict=True)]
        differences.append(min(a for a, _ in pairs) - min(b for _, b in pairs))
    greater = np.mean([d >= observed - 1e-12 for d in differences])
    either = np.mean([abs(d) >= abs(observed) - 1e-12 for d in differences])
    arrays = np.array(OURS), np.array(SCRATCH)
    p, detail = swap_pairs(*arrays, np.min, "greater", np.random.default_rng(0))
    assert (p, detail) == (pytest.approx(greater), "exact, 64 swaps")
    assert swap_pairs(*arrays, np.min, "two-sided", np.random.default_rng(0))[0] == pytest.approx(either)


def test_an_interval_of_a_mean_needs_three_values() -> None:
    assert mean_interval([0.1, 0.2]) is None
    found = mean_interval([1.0, 2.0, 3.0])
    # Of the 27 draws one has the mean 1 (3.7 %, more than 2.5 %), so the interval is the whole range.
    assert found == (1.0, 3.0)


def test_ranks_of_two_seeds_can_be_counted() -> None:
    """Four draws of two seeds: (0, 0), (0, 1), (1, 0), (1, 1), with means 0.5, 0.6, 0.6, 0.7 against 0.6."""
    rows = [("Liver", {"a": {0: 0.5, 1: 0.7}, "b": {0: 0.6, 1: 0.6}, "c": {0: 0.1, 1: 0.1}}, True)]
    found = rank_arms(rows)
    assert {arm: rank.rank for arm, rank in found.items()} == {"a": 1.5, "b": 1.5, "c": 3.0}
    # a is first in a quarter of the draws, b in another, and in half they share it.
    assert found["a"].first == pytest.approx(0.5, abs=0.01)
    assert (found["c"].first, found["c"].interval) == (0.0, (3.0, 3.0))
    assert found["a"].interval == (1.0, 2.0)


def test_ranks_are_averaged_within_tasks_before_over_them() -> None:
    first, second = {"a": {0: 0.9}, "b": {0: 0.1}}, {"a": {0: 0.1}, "b": {0: 0.9}}
    rows = [("Liver", first, True), ("Liver", first, True), ("Liver", first, True), ("Lung", second, True)]
    assert {arm: rank.rank for arm, rank in rank_arms(rows).items()} == {"a": 1.5, "b": 1.5}
    distances = [("Liver", first, False)]
    assert rank_arms(distances)["b"].rank == 1.0


def test_the_same_seeds_of_a_task_are_drawn_in_all_its_rows() -> None:
    """One row is the other with arms exchanged: with the same seeds in both, the mean rank is always 1.5."""
    a, b = {0: 0.5, 1: 0.7, 2: 0.4}, {0: 0.6, 1: 0.6, 2: 0.3}
    found = rank_arms([("Liver", {"a": a, "b": b}, True), ("Liver", {"a": b, "b": a}, True)])
    assert found["a"].interval == (1.5, 1.5)


def test_arms_that_can_not_be_ranked() -> None:
    with pytest.raises(StatisticsError, match="the same arms and seeds"):
        rank_arms([("Liver", {"a": {0: 0.5}, "b": {1: 0.6}}, True)])
    with pytest.raises(StatisticsError, match="no rows"):
        rank_arms([])
