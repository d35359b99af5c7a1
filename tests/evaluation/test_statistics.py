from __future__ import annotations

import ast
import itertools
import math
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from parts2whole.evaluation import statistics
from parts2whole.evaluation.statistics import (
    StatisticsError,
    Summary,
    compare,
    equivalence,
    holm,
    rounding_range,
)

# Task: best of the row, the arm it was compared with, and the p-value that the poster prints.
POSTER = {
    "NCC": ("98.67±.23", "98.26±.27", 0.0011),
    "NCS": ("77.62±.64", "77.35±.61", 0.1709),
    "LCS": ("86.70±.62", "85.52±.58", 0.0002),
    "ECC": ("87.20±2.87", "86.14±2.97", 0.2126),
    "BMS": ("68.33±.41", "68.08±1.15", 0.2654),
}
SAMPLES = st.lists(st.floats(-100, 100).map(lambda v: round(v, 3)), min_size=3, max_size=6)


def reproduced(task: str, n: int) -> bool:
    """Whether the printed p, itself rounded to four digits, fits the printed means and deviations."""
    first, second, printed = POSTER[task]
    low, high = rounding_range(Summary.parse(first, n=n), Summary.parse(second, n=n))
    return low - 0.00005 <= printed <= high + 0.00005


def test_the_posters_p_values_are_one_sided_t_tests_of_ten_runs() -> None:
    assert all(reproduced(task, 10) for task in POSTER)
    assert {task for task in POSTER if not reproduced(task, 9)} == {"NCS", "LCS", "ECC"}
    assert {task for task in POSTER if not reproduced(task, 11)} == {"NCC", "LCS", "ECC", "BMS"}


@pytest.mark.parametrize(
    ("task", "student", "welch"),
    [
        ("NCC", 0.0009, 0.0009),
        ("NCS", 0.1735, 0.1735),
        ("LCS", 0.0002, 0.0002),
        ("ECC", 0.2138, 0.2138),
        ("BMS", 0.2627, 0.2651),
    ],
)
def test_p_values_from_the_posters_rounded_numbers(task: str, student: float, welch: float) -> None:
    # The expected values were computed independently, from the formulas.
    a, b = (Summary.parse(text, n=10) for text in POSTER[task][:2])
    assert compare(a, b, test="student").p == pytest.approx(student, abs=0.00005)
    assert compare(a, b, test="welch").p == pytest.approx(welch, abs=0.00005)


def test_the_range_by_rounding_of_the_first_row() -> None:
    low, high = rounding_range(*(Summary.parse(text, n=10) for text in POSTER["NCC"][:2]))
    assert (round(low, 4), round(high, 4)) == (0.0006, 0.0013)


def test_means_that_may_be_equal_reach_the_middle_of_the_range() -> None:
    a, b = Summary.parse("1.0±0.2", n=5), Summary.parse("1.0±0.3", n=5)
    low, high = rounding_range(a, b, alternative="two-sided")
    assert low < 0.7
    assert high == 1.0
    # A printed spread of 0 may be anything below half a unit.
    low, high = rounding_range(Summary.parse("1.1±0.0", n=5), Summary.parse("1.0±0.0", n=5))
    assert low < 1e-6
    assert high == pytest.approx(0.5)


MAIN_TABLE = {
    "NCC": ["94.25±5.07", "98.26±.27", "94.14±4.57", "95.80±.49", "97.90±.57", "98.67±.23"],
    "NCS": ["74.05±1.97", "71.58±.55", "52.98±2.05", "75.68±.32", "77.62±.64", "77.35±.61"],
    "LCS": ["77.82±3.87", "70.65±4.26", "83.23±1.05", "85.52±.58", "84.17±1.93", "86.70±.62"],
    "ECC": ["79.99±8.06", "80.55±1.11", "77.33±8.05", "86.43±1.44", "87.20±2.87", "86.14±2.97"],
    "BMS": ["63.91±1.41", "67.83±.75", "60.78±1.60", "66.09±1.35", "68.08±1.15", "68.33±.41"],
}
ABLATION = {
    "NCC": ["88.48±8.24", "93.78±2.12", "91.48±.45", "94.84±1.58", "93.52±1.32", "91.69±4.12"],
    "NCS": ["70.64±.21", "72.72±.42", "73.29±.58", "74.23±.87", "73.43±.32", "73.66±.36"],
}


def against_the_best(cells: list[str], alternative: str) -> list[float]:
    arms = [Summary.parse(cell, n=10) for cell in cells]
    best = max(arms, key=lambda arm: arm.mean)
    return [compare(best, arm, test="student", alternative=alternative).p for arm in arms if arm is not best]


def test_the_posters_marks_of_equivalence_and_its_ablation() -> None:
    # Places of the arms not told from the best of their row, and p of the ablation; computed independently.
    marks = {
        side: {
            task: [round(p, 3) for p in against_the_best(cells, side) if p > 0.05]
            for task, cells in MAIN_TABLE.items()
        }
        for side in ("greater", "two-sided")
    }
    assert marks["greater"] == {"NCC": [], "NCS": [0.173], "LCS": [], "ECC": [0.229, 0.214], "BMS": [0.263]}
    assert {task: len(found) for task, found in marks["two-sided"].items()} == {
        "NCC": 0,
        "NCS": 1,
        "LCS": 0,
        "ECC": 2,
        "BMS": 2,
    }
    assert marks["two-sided"]["BMS"][0] == 0.081
    ablation = {
        task: [round(p, 4) for p in against_the_best(cells, "greater")] for task, cells in ABLATION.items()
    }
    assert ablation["NCC"] == [0.0138, 0.1105, 0.0, 0.0288, 0.0183]
    assert ablation["NCS"] == [0.0, 0.0001, 0.0054, 0.0069, 0.0358]


@pytest.mark.parametrize(
    ("test", "reference"),
    [
        ("paired", stats.ttest_rel),
        ("student", stats.ttest_ind),
        ("welch", lambda x, y, alternative: stats.ttest_ind(x, y, equal_var=False, alternative=alternative)),
    ],
)
@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_t_tests_agree_with_scipy(test: str, reference: object, alternative: str) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(0.3, 1, 9), generator.normal(0, 2, 9)
    expected = reference(x, y, alternative=alternative)  # type: ignore[operator]
    found = compare(x, y, test=test, alternative=alternative)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.df == pytest.approx(expected.df)
    two_sided = reference(x, y, alternative="two-sided").confidence_interval(0.9)  # type: ignore[operator]
    assert compare(x, y, test=test, confidence=0.9).interval == pytest.approx(tuple(two_sided))


@pytest.mark.parametrize("test", ["student", "welch"])
def test_summaries_say_what_the_samples_say(test: str) -> None:
    x, y = [3.0, 4.5, 4.0, 6.0], [2.0, 2.5, 4.0]
    whole = compare(x, y, test=test)
    short = compare(Summary.of(x), Summary.of(y), test=test)
    assert (short.p, short.interval, short.n_second) == (whole.p, whole.interval, 3)
    published = stats.ttest_ind_from_stats(
        np.mean(x), np.std(x, ddof=1), 4, np.mean(y), np.std(y, ddof=1), 3, test == "student", "greater"
    )
    assert short.p == pytest.approx(published.pvalue)


@given(SAMPLES, st.data())
@settings(max_examples=30, deadline=None)
def test_exchanging_the_arms_exchanges_the_sides(x: list[float], data: st.DataObject) -> None:
    y = data.draw(st.lists(st.floats(-100, 100).map(lambda v: round(v, 3)), min_size=len(x), max_size=len(x)))
    for test in statistics.TESTS:
        greater, less = compare(x, y, test=test), compare(y, x, test=test, alternative="less")
        assert greater.p == pytest.approx(less.p, nan_ok=True)
        both = compare(x, y, test=test, alternative="two-sided").p
        assert both == pytest.approx(compare(y, x, test=test, alternative="two-sided").p, nan_ok=True)
        assert math.isnan(both) or 0 <= both <= 1 + 1e-12


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_permutation_tests_are_exact(alternative: str) -> None:
    x, y = np.array([5.0, 7.0, 6.5, 9.0, 4.0]), np.array([4.0, 7.5, 5.0, 6.0, 3.0])
    extreme = {
        "greater": lambda v, o: v >= o,
        "less": lambda v, o: v <= o,
        "two-sided": lambda v, o: abs(v) >= abs(o),
    }

    d = x - y
    flipped = [np.mean(np.array(signs) * d) for signs in itertools.product((1, -1), repeat=5)]
    expected = np.mean([extreme[alternative](v, d.mean()) for v in flipped])
    found = compare(x, y, test="permutation", alternative=alternative)
    assert found.p == pytest.approx(expected)
    assert "32 sign flips" in found.describe()

    z, pool = y[:4], np.concatenate([x, y[:4]])
    splits = itertools.combinations(range(9), 5)
    swapped = [pool[list(c)].mean() - np.delete(pool, list(c)).mean() for c in splits]
    expected = np.mean([extreme[alternative](round(v, 9), round(x.mean() - z.mean(), 9)) for v in swapped])
    assert compare(x, z, test="permutation-independent", alternative=alternative).p == pytest.approx(expected)


@pytest.mark.parametrize("scale", ["1e-6", "1", "1000"])
def test_ties_of_decimals_are_ties(scale: str) -> None:
    # 0.1 + 0.2 - 0.3 is 0 for a person, and 5.6e-17 for a computer; fractions don't round.
    texts = ["0.1", "0.2", "-0.3", "0.7", "-0.6", "0.1"]
    exact = [Fraction(text) * Fraction(scale) for text in texts]
    numbers = [float(value) for value in exact]
    sums = [
        sum(s * v for s, v in zip(signs, exact, strict=True))
        for signs in itertools.product((1, -1), repeat=6)
    ]
    expected = np.mean([abs(value) >= abs(sum(exact)) for value in sums])
    assert compare(numbers, [0.0] * 6, test="permutation", alternative="two-sided").p == expected

    def difference(chosen: Sequence[int]) -> Fraction:
        mine = [exact[i] for i in chosen]
        theirs = [exact[i] for i in range(6) if i not in chosen]
        return sum(mine) / len(mine) - sum(theirs) / len(theirs)

    splits = [difference(chosen) for chosen in itertools.combinations(range(6), 2)]
    expected = np.mean([value >= difference((0, 1)) for value in splits])
    assert compare(numbers[:2], numbers[2:], test="permutation-independent").p == expected


def test_many_pairs_are_permuted_at_random_and_repeatably() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(0.35, 1, 40)
    first = compare(x, np.zeros(40), test="permutation", seed=3)
    assert first.p == compare(x, np.zeros(40), test="permutation", seed=3).p
    assert first.p == pytest.approx(stats.ttest_1samp(x, 0, alternative="greater").pvalue, abs=0.01)
    independent = compare(x, generator.normal(0, 1, 30), test="permutation-independent")
    assert "random" in independent.detail
    assert 0 < independent.p < 0.5


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("n", [8, 30])
def test_wilcoxon_agrees_with_scipy(alternative: str, n: int) -> None:
    generator = np.random.default_rng(n)
    x, y = generator.normal(0.4, 1, n), generator.normal(0, 1, n)
    expected = stats.wilcoxon(x, y, alternative=alternative, method="exact")
    assert compare(x, y, test="wilcoxon", alternative=alternative).p == pytest.approx(expected.pvalue)


def test_wilcoxon_with_ties_counts_every_sign_flip() -> None:
    # Differences 1, 1, 2, -1 and 0, which rounding noise must not tell apart: ranks 2, 2, 4, -2.
    x, y = [0.2, 0.3, 0.5, 0.1, 0.7], [0.1, 0.2, 0.3, 0.2, 0.7]
    found = compare(x, y, test="wilcoxon")
    ranks = np.array([2, 2, 4, 2])
    sums = [(np.array(s) * ranks).sum() for s in itertools.product((1, -1), repeat=4)]
    assert found.statistic == 8
    assert found.p == np.mean(np.array(sums) >= 6)


def test_nothing_varies() -> None:
    same, shifted = [0.80, 0.81, 0.82], [0.79, 0.80, 0.81]
    for arms in ((same, same), (same, shifted)):
        assert math.isnan(compare(*arms, test="paired").p)
        assert compare(*arms, test="paired").interval == pytest.approx([arms[0][0] - arms[1][0]] * 2)
    assert "p undefined" in compare(same, same).describe()
    assert math.isnan(compare([1.0, 1.0], [2.0, 2.0], test="welch").p)
    assert compare(same, same, test="wilcoxon").p == 1
    assert compare(same, same, test="permutation").p == 1
    assert compare(same, shifted, test="permutation").p == 1 / 8


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .5, times 4 3 2 1: .04 .06 .06 (not below the one before) .5
    assert holm([0.02, 0.5, math.nan, 0.01, 0.03]) == pytest.approx(
        [0.06, 0.5, math.nan, 0.04, 0.06], nan_ok=True
    )
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p: list[float]) -> None:
    for raw, adjusted in zip(p, holm(p), strict=True):
        assert raw <= adjusted <= min(1.0, len(p) * raw)
    assert sorted(holm(p)) == [value for _, value in sorted(zip(p, holm(p), strict=True))]


@given(SAMPLES, st.floats(0.1, 50), st.sampled_from(["paired", "student", "welch"]))
@settings(max_examples=30, deadline=None)
def test_equivalence_is_the_interval_inside_the_margin(x: list[float], margin: float, test: str) -> None:
    y = [value * 0.9 + place for place, value in enumerate(x)]
    found = equivalence(x, y, margin=margin, test=test)
    assert found.interval is not None
    low, high = found.interval
    assert (found.p < 0.05) == (-margin < low and high < margin)
    expected = max(
        compare([v + margin for v in x], y, test=test).p,
        compare([v - margin for v in x], y, test=test, alternative="less").p,
    )
    assert found.p == pytest.approx(expected, abs=1e-6)


def test_a_large_p_is_no_equivalence() -> None:
    a, b = Summary(87.20, 2.87, 10), Summary(86.14, 2.97, 10)
    assert compare(a, b, test="student").p > 0.05
    found = equivalence(a, b, margin=1.0, test="student")
    assert found.p > 0.05
    assert "equivalence within ±1" in found.describe()
    assert "90 % CI" in found.describe()


@pytest.mark.parametrize(
    ("text", "mean", "sd"),
    [
        ("98.67±0.23", 98.67, 0.23),
        (" 91.48 ± .45 ", 91.48, 0.45),
        ("0.912 +/- 0.003", 0.912, 0.003),
        ("-1.5+-2", -1.5, 2),
        (r"$86.70\pm0.62$", 86.7, 0.62),
        ("77 % ± 1 %", 77, 1),
    ],
)
def test_published_numbers_are_read(text: str, mean: float, sd: float) -> None:
    found = Summary.parse(text, n=10)
    assert (found.mean, found.sd, found.n) == (mean, sd, 10)


def test_rounding_follows_the_printed_digits() -> None:
    found = Summary.parse("77.0±1", n=4)
    assert (found.mean_rounding, found.sd_rounding) == (0.05, 0.5)


def test_one_line_says_everything() -> None:
    line = compare(Summary(98.67, 0.23, 10), Summary(98.26, 0.27, 10), test="student").describe()
    for words in (
        "Student",
        "one-sided",
        "n = 10 each",
        "difference 0.41",
        "95 % CI",
        "df = 18",
        "p = 0.0009",
    ):
        assert words in line
    assert "\n" not in line
    assert "n = 3 pairs" in compare([1.0, 2.0, 4.0], [1.0, 1.0, 1.0]).describe()
    assert (
        "n = 3 and 2"
        in compare([1.0, 2.0, 4.0], [1.0, 2.0], test="welch", alternative="two-sided").describe()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare([1.0], [2.0]), "two or more"),
        (lambda: compare([1.0, math.nan], [2.0, 3.0]), "finite"),
        (lambda: compare([1.0, 2.0, 3.0], [2.0, 3.0]), "equally many"),
        (lambda: compare([1.0, 2.0], [2.0, 3.0], test="sign"), "choose from paired"),
        (lambda: compare([1.0, 2.0], [2.0, 3.0], alternative="better"), "choose from greater"),
        (lambda: compare(Summary(1, 1, 3), Summary(1, 1, 3)), "student or welch"),
        (lambda: equivalence([1.0, 2.0], [2.0, 3.0], margin=0), "above 0"),
        (lambda: equivalence([1.0, 2.0], [2.0, 3.0], margin=1, test="wilcoxon"), "needs one of"),
        (lambda: equivalence([1.0, 2.0], [2.0, 3.0], margin=1, alpha=0.6), "between 0 and 0.5"),
        (lambda: Summary.parse("98.67 (0.23)", n=10), "98.67±0.23"),
        (lambda: Summary(1.0, -1.0, 5), "sd of 0 or more"),
    ],
)
def test_impossible_questions_are_refused(call: object, message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        call()  # type: ignore[operator]


def test_statistics_work_without_torch() -> None:
    names = ("statistics", "bootstrap", "power")
    code = "; ".join(f"import parts2whole.evaluation.{name}" for name in names)
    program = (
        f"import sys; {code}; print(sorted(m for m in ('torch', 'sklearn', 'monai') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == []
    assert Path(statistics.__file__).name == "statistics.py"
