from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from parts2whole.evaluation.power import PowerError, detectable_difference, power, sample_size


@pytest.mark.parametrize(
    ("effect", "paired", "two_sided", "expected"),
    [
        # Cohen, Statistical power analysis, and every table since: alpha 0.05, power 0.8.
        (0.8, False, True, 26),
        (0.5, False, True, 64),
        (0.2, False, True, 394),
        (0.5, False, False, 51),
        (0.5, True, True, 34),
        (0.5, True, False, 27),
    ],
)
def test_textbook_sample_sizes(effect: float, paired: bool, two_sided: bool, expected: int) -> None:
    found = sample_size(effect * 3, 3, paired=paired, two_sided=two_sided)
    assert found.n == expected
    assert found.power >= 0.8


def test_power_is_how_often_the_test_sees_the_difference() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(1.0, 1, (8, 20000)), generator.normal(0, 1, (8, 20000))
    for two_sided, alternative in ((False, "greater"), (True, "two-sided")):
        seen = np.mean(stats.ttest_ind(x, y, alternative=alternative).pvalue < 0.05)
        assert power(1.0, 1.0, 8, two_sided=two_sided) == pytest.approx(seen, abs=0.012)
        seen = np.mean(stats.ttest_1samp(x, 0, alternative=alternative).pvalue < 0.05)
        assert power(1.0, 1.0, 8, paired=True, two_sided=two_sided) == pytest.approx(seen, abs=0.012)


@given(st.floats(0.2, 5), st.floats(0.2, 5), st.booleans(), st.booleans(), st.sampled_from([0.5, 0.8, 0.95]))
@settings(max_examples=30, deadline=None)
def test_n_is_the_smallest(
    difference: float, sd: float, paired: bool, two_sided: bool, wanted: float
) -> None:
    n = sample_size(difference, sd, wanted=wanted, paired=paired, two_sided=two_sided).n
    assert power(difference, sd, n, paired=paired, two_sided=two_sided) >= wanted
    assert n == 2 or power(difference, sd, n - 1, paired=paired, two_sided=two_sided) < wanted


def test_the_detectable_difference_has_the_wanted_power() -> None:
    found = detectable_difference(0.25, 10, wanted=0.9)
    assert power(found, 0.25, 10) == pytest.approx(0.9)
    assert detectable_difference(0.5, 10, wanted=0.9) == pytest.approx(2 * found)
    assert detectable_difference(1, 10, wanted=0.04) == 0


def test_a_huge_effect_is_always_seen() -> None:
    assert power(1000, 0.001, 10) == 1
    assert sample_size(1000, 0.001).n == 2


@pytest.mark.parametrize(
    ("n", "alpha", "effect"), [(2, 0.01, 25), (2, 0.01, 40), (2, 0.005, 25), (3, 0.0005, 25), (2, 0.4, 40)]
)
@pytest.mark.parametrize("two_sided", [True, False])
def test_with_two_or_three_runs_and_a_strict_level_a_huge_effect_is_missed(
    n: int, alpha: float, effect: float, two_sided: bool
) -> None:
    """By drawing t itself: a normal variable beside the root of a mean of n - 1 squares."""
    generator = np.random.default_rng(0)
    spread = np.sqrt(np.square(generator.normal(size=(n - 1, 400_000))).mean(axis=0))
    t = (effect * np.sqrt(n) + generator.normal(size=400_000)) / spread
    seen = np.mean(2 * stats.t.sf(np.abs(t), n - 1) < alpha if two_sided else stats.t.sf(t, n - 1) < alpha)
    found = power(effect, 1, n, alpha=alpha, paired=True, two_sided=two_sided)
    assert found == pytest.approx(seen, abs=0.004)


def test_what_two_runs_need_at_a_strict_level() -> None:
    strict = {"alpha": 0.01, "paired": True, "two_sided": True}
    assert power(25, 1, 2, **strict) == pytest.approx(0.421, abs=0.001)
    assert power(40, 1, 2, **strict) == pytest.approx(0.626, abs=0.001)
    assert sample_size(25, 1, **strict).n == 3
    # Of two pairs t is about d / |x| with a normal x, so |x| < d / 63.66 in 80 % of cases: d is 1.2816 times as large.
    found = detectable_difference(1, 2, **strict)
    assert found * np.sqrt(2) == pytest.approx(63.657 * 1.2816, rel=0.001)
    assert power(found, 1, 2, **strict) == pytest.approx(0.8)


def test_the_power_has_no_step_where_it_is_computed_in_another_way() -> None:
    for n, alpha in ((2, 0.01), (2, 0.2), (3, 1e-4), (6, 1e-6), (40, 1e-12)):
        below, above = (
            power(35 / np.sqrt(n) * (1 + shift), 1, n, alpha=alpha, paired=True, two_sided=True)
            for shift in (-1e-9, 1e-9)
        )
        assert above == pytest.approx(below, abs=1e-6)


def test_the_sentence() -> None:
    line = sample_size(0.3, 0.25, two_sided=True).describe()
    assert "difference of 0.3" in line
    assert "n = 12 each" in line
    assert "two-sided, alpha = 0.05" in line


def test_impossible_questions_are_refused() -> None:
    for call, message in (
        (lambda: power(0, 1, 5), "above 0"),
        (lambda: power(1, 1, 1), "at least 2"),
        (lambda: power(1, 1, 5, alpha=1), "between 0 and 1"),
        (lambda: sample_size(1, 1, wanted=1), "between 0 and 1"),
        (lambda: sample_size(1e-6, 1), "more than"),
        (lambda: detectable_difference(1, 5, wanted=0), "between 0 and 1"),
    ):
        with pytest.raises(PowerError, match=message):
            call()
