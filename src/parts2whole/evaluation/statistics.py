"""Tests that say what they are: of samples, or of a published mean, standard deviation and n.

`compare` asks whether one arm is better than another, `equivalence` whether both are as good within a
margin, `holm` corrects for many comparisons. p > 0.05 in the first is no equivalence; that is what the
second is for. Runs on one fixed split show the noise of training alone: see `bootstrap` for patients.

A t-test needs spread: where both arms (or all paired differences) are constant, statistic and p are nan.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import stats

from parts2whole.errors import Parts2WholeError
from parts2whole.evaluation.permutation import EXACT_LIMIT, flip_signs, swap_arms

Floats = npt.NDArray[np.float64]

TESTS = {
    "paired": "paired t-test",
    "student": "independent Student t-test",
    "welch": "independent Welch t-test",
    "wilcoxon": "Wilcoxon signed-rank test",
    "permutation": "paired permutation test",
    "permutation-independent": "independent permutation test",
}
T_TESTS = ("paired", "student", "welch")
Alternative = Literal["greater", "less", "two-sided"]
ALTERNATIVES: dict[str, Alternative] = {name: name for name in get_args(Alternative)}
PUBLISHED = re.compile(r"[\s$]*([+-]?\d*\.?\d+)\s*%?\s*(?:±|\+/-|\+-|\\pm)\s*(\d*\.?\d+)\s*%?[\s$]*")


class StatisticsError(Parts2WholeError, ValueError):
    """Samples or settings that a test can't be made of."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """A sample of which only the mean and the spread are known.

    Attributes:
        mean: of the sample.
        sd: standard deviation, n - 1 in the denominator.
        n: size of the sample.
        mean_rounding: how far the true mean may be from ``mean``, half a unit of its last digit.
        sd_rounding: the same for ``sd``.
    """

    mean: float
    sd: float
    n: int
    mean_rounding: float = 0.0
    sd_rounding: float = 0.0

    def __post_init__(self) -> None:
        if self.n < 2 or not self.sd >= 0 or not math.isfinite(self.mean + self.sd):
            raise StatisticsError(
                f"a summary needs a finite mean, sd of 0 or more and n of 2 or more, got {self}"
            )

    @classmethod
    def parse(cls, text: str, *, n: int) -> Summary:
        """Read what a table prints, such as ``98.67±0.23``, ``88.5 +/- .4`` or ``0.912 +- 0.003``."""
        found = PUBLISHED.fullmatch(text.replace("\N{MINUS SIGN}", "-"))
        if found is None:
            raise StatisticsError(f"{text!r} is not a mean and a standard deviation such as '98.67±0.23'")
        halves = [0.5 * 10.0 ** -len(part.partition(".")[2]) for part in found.groups()]
        return cls(float(found[1]), float(found[2]), n, *halves)

    @classmethod
    def of(cls, values: Sequence[float] | Floats) -> Summary:
        """The summary of a sample."""
        sample = _sample(values)
        return cls(float(sample.mean()), float(sample.std(ddof=1)), len(sample))


Sample = Sequence[float] | Floats | Summary


@dataclasses.dataclass(frozen=True)
class TestResult:
    """Outcome of a test, and what was tested.

    Attributes:
        test: name, a key of `TESTS` or ``tost-`` and one.
        sidedness: ``one-sided`` or ``two-sided``.
        n: pairs of a paired test, else size of the first sample.
        statistic: t, the sum of the positive ranks (Wilcoxon), or the difference (permutation).
        p: probability of a result as extreme or more, if there were no difference.
        difference: mean of the first minus mean of the second.
        alternative: ``greater`` if the first is suspected to be, ``less``, or ``two-sided``.
        n_second: size of the second sample; None if paired.
        df: degrees of freedom of t.
        interval: two-sided confidence interval of the difference, for t-tests.
        confidence: its level.
        margin: of an equivalence test.
        detail: how p was computed, where that isn't plain.
        side: +1 where the first is ahead in what the test looks at, -1 behind, 0 neither: by the mean, or by
            ranks, which may say otherwise.
    """

    __test__: ClassVar[bool] = False  # no test case, whatever pytest makes of the name

    test: str
    sidedness: str
    n: int
    statistic: float
    p: float
    difference: float
    alternative: str = "two-sided"
    n_second: int | None = None
    df: float | None = None
    interval: tuple[float, float] | None = None
    confidence: float = 0.95
    margin: float | None = None
    detail: str = ""
    side: int = 0

    def __post_init__(self) -> None:
        if not self.side and self.test != "wilcoxon":
            object.__setattr__(self, "side", int(np.sign(self.difference)))

    def describe(self) -> str:
        """Everything in one line: test, sidedness, n, difference, interval, statistic, p."""
        if self.n_second is None:
            size = f"n = {self.n} pairs"
        else:
            size = f"n = {self.n} each" if self.n == self.n_second else f"n = {self.n} and {self.n_second}"
        if self.margin is None:
            name = f"{TESTS[self.test]}, {self.sidedness}"
            name += f" ({self.alternative})" if self.sidedness == "one-sided" else ""
        else:
            name = f"equivalence within ±{self.margin:g} by two one-sided {TESTS[self.test[5:]]}s"
        parts = [f"difference {self.difference:.4g}"]
        if self.interval is not None:
            low, high = self.interval
            parts.append(f"{100 * self.confidence:g} % CI {low:.4g} to {high:.4g}")
        if self.df is not None and not math.isnan(self.statistic):
            parts.append(f"t = {self.statistic:.3g}, df = {self.df:.3g}")
        parts.append(f"{format_p(self.p)}{f' ({self.detail})' if self.detail else ''}")
        return f"{name}, {size}: {', '.join(parts)}"


def compare(
    a: Sample,
    b: Sample,
    *,
    test: str = "paired",
    alternative: str = "greater",
    confidence: float = 0.95,
    seed: int = 0,
) -> TestResult:
    """Test whether the first sample tends to be greater than the second.

    Args:
        a: values, or for ``student`` and ``welch`` also a `Summary`.
        b: the same of the other arm; for paired tests in the same order (by seed, or by patient).
        test: ``paired`` t, ``student`` (equal variances), ``welch``, ``wilcoxon`` (paired; pairs without
            a difference are left out), ``permutation`` (paired: signs are flipped; exact up to 18 pairs)
            or ``permutation-independent`` (values change arms; exact up to 262,144 ways).
        alternative: ``greater``, ``less`` or ``two-sided``.
        confidence: of the interval of the difference.
        seed: of random permutations, where there are too many to try all.

    Raises:
        StatisticsError: fewer than two values, values that aren't finite, unequal numbers in a paired
            test, summaries in a test that needs values, or an unknown test or alternative.
    """
    _check(test, alternative, confidence)
    sidedness = "two-sided" if alternative == "two-sided" else "one-sided"
    if test in T_TESTS:
        e = _estimate(a, b, test)
        t = e.difference / e.error if e.error else math.nan
        p = _p_of_t(t, e.df, alternative)
        return e.result(test, sidedness, t, p, alternative=alternative, confidence=confidence)
    x, y = _sample(a), _sample(b)
    difference = float(x.mean() - y.mean())
    generator = np.random.default_rng(seed)
    if test == "permutation-independent":
        p, detail = swap_arms(x, y, alternative, generator)
        return TestResult(
            test, sidedness, len(x), difference, p, difference, alternative, len(y), detail=detail
        )
    pairs = _differences(x, y)
    if test == "permutation":
        p, detail = flip_signs(pairs, alternative, generator)
        statistic = difference
        side = 0
    else:
        pairs = pairs[pairs != 0]
        ranks = stats.rankdata(np.abs(pairs)) * np.sign(pairs)
        statistic, side = float(ranks[ranks > 0].sum()), int(np.sign(ranks.sum()))
        if 2 ** len(pairs) <= EXACT_LIMIT:
            p, detail = flip_signs(ranks, alternative, generator)
        else:
            p = float(stats.wilcoxon(pairs, alternative=ALTERNATIVES[alternative]).pvalue)
            detail = f"{len(pairs)} pairs differ"
    return TestResult(
        test, sidedness, len(x), statistic, p, difference, alternative, detail=detail, side=side
    )


def equivalence(
    a: Sample, b: Sample, *, margin: float, test: str = "paired", alpha: float = 0.05
) -> TestResult:
    """Test whether two arms differ by less than a margin: two one-sided t-tests (TOST).

    A small p is evidence of equivalence. It is below ``alpha`` exactly where the interval, of level
    1 - 2 alpha, lies inside the margin.

    Args:
        a: values, or for ``student`` and ``welch`` also a `Summary`.
        b: the same of the other arm.
        margin: largest difference that doesn't matter, above 0, in the unit of the values. It must be
            chosen before looking.
        test: ``paired``, ``student`` or ``welch``.
        alpha: level of each of the two tests.

    Raises:
        StatisticsError: as `compare`; a margin that isn't positive; a test without t.
    """
    _check(test, "two-sided", 0.95)
    if not 0 < alpha < 0.5:
        raise StatisticsError(f"alpha must be between 0 and 0.5, got {alpha}")
    if test not in T_TESTS:
        raise StatisticsError(f"equivalence needs one of {', '.join(T_TESTS)}, got {test!r}")
    if not margin > 0:
        raise StatisticsError(f"the margin must be above 0, got {margin}")
    e = _estimate(a, b, test)
    above, below = (((e.difference + side) / e.error if e.error else math.nan) for side in (margin, -margin))
    p, t = max((_p_of_t(above, e.df, "greater"), above), (_p_of_t(below, e.df, "less"), below))
    found = e.result(f"tost-{test}", "one-sided", t, p, alternative="two-sided", confidence=1 - 2 * alpha)
    return dataclasses.replace(found, margin=margin)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down, in the given order; nan doesn't count."""
    order = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    adjusted, highest = [math.nan] * len(p), 0.0
    for rank, (value, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * value))
        adjusted[place] = highest
    return adjusted


def rounding_range(
    a: Summary, b: Summary, *, test: str = "student", alternative: str = "greater"
) -> tuple[float, float]:
    """Smallest and largest p that fit two published summaries, given how their numbers were rounded.

    Arguments and errors as of `compare`; nan where neither arm varies.
    """
    shifts = itertools.product((-1, 1), repeat=4)
    corners = [(_moved(a, mean=s[0], sd=s[1]), _moved(b, mean=s[2], sd=s[3])) for s in shifts]
    if abs(a.mean - b.mean) < a.mean_rounding + b.mean_rounding:  # the means may be equal
        corners += [(first, dataclasses.replace(second, mean=first.mean)) for first, second in corners]
    found = np.array([compare(*corner, test=test, alternative=alternative).p for corner in corners])
    return float(found.min()), float(found.max())


def format_p(p: float) -> str:
    """``p = 0.0123``, or ``p < 0.0001``."""
    if math.isnan(p):
        return "p undefined, as nothing varies"
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


@dataclasses.dataclass(frozen=True)
class _Estimate:
    """A difference of means, its standard error (0 where nothing varies) and degrees of freedom."""

    difference: float
    error: float
    df: float
    n: int
    n_second: int | None = None

    def interval(self, confidence: float) -> tuple[float, float]:
        half = float(stats.t.ppf((1 + confidence) / 2, self.df)) * self.error
        return self.difference - half, self.difference + half

    def result(
        self, test: str, sidedness: str, t: float, p: float, *, alternative: str, confidence: float
    ) -> TestResult:
        return TestResult(
            test,
            sidedness,
            self.n,
            t,
            p,
            self.difference,
            alternative,
            n_second=self.n_second,
            df=self.df,
            interval=self.interval(confidence),
            confidence=confidence,
        )


def _estimate(a: Sample, b: Sample, test: str) -> _Estimate:
    if test == "paired":
        s = Summary.of(_differences(_sample(a), _sample(b)))
        return _Estimate(s.mean, _unless_noise(s.sd / math.sqrt(s.n), s.mean), s.n - 1, s.n)
    s, o = (v if isinstance(v, Summary) else Summary.of(v) for v in (a, b))
    df: float = s.n + o.n - 2
    u, v = s.sd**2 / s.n, o.sd**2 / o.n
    if test == "student":
        variance = ((s.n - 1) * s.sd**2 + (o.n - 1) * o.sd**2) / df
        error = math.sqrt(variance * (1 / s.n + 1 / o.n))
    else:
        error = math.sqrt(u + v)
        df = (u + v) ** 2 / (u**2 / (s.n - 1) + v**2 / (o.n - 1)) if error else df
    return _Estimate(s.mean - o.mean, _unless_noise(error, s.mean, o.mean), df, s.n, o.n)


def _unless_noise(error: float, *means: float) -> float:
    """A standard error; 0 if it is only the rounding of equal numbers."""
    return error if error > 1e-12 * max(map(abs, means)) else 0.0


def _p_of_t(t: float, df: float, alternative: str) -> float:
    if alternative == "two-sided":
        return float(2 * stats.t.sf(abs(t), df))
    return float(stats.t.sf(t if alternative == "greater" else -t, df))


def _differences(x: Floats, y: Floats) -> Floats:
    """Of pairs, freed of rounding noise, which would make unequal what is equal (0.3 - 0.2, 0.2 - 0.1)."""
    if len(x) != len(y):
        raise StatisticsError(f"a paired test needs equally many values, got {len(x)} and {len(y)}")
    largest = max(float(np.abs(x).max()), float(np.abs(y).max()))
    return np.round((x - y) / largest, 12) * largest if largest else x - y


def _sample(values: Sample) -> Floats:
    if isinstance(values, Summary):
        raise StatisticsError("this test needs the values themselves; from summaries: student or welch")
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise StatisticsError(f"expected two or more finite values, got {values}")
    return sample


def _moved(s: Summary, *, mean: int, sd: int) -> Summary:
    moved_sd = max(1e-3 * s.sd_rounding, s.sd + sd * s.sd_rounding)  # at 0 there is no t
    return dataclasses.replace(s, mean=s.mean + mean * s.mean_rounding, sd=moved_sd)


def _check(test: str, alternative: str, confidence: float) -> None:
    if test not in TESTS:
        raise StatisticsError(f"unknown test {test!r}; choose from {', '.join(TESTS)}")
    if alternative not in ALTERNATIVES:
        raise StatisticsError(f"unknown alternative {alternative!r}; choose from {', '.join(ALTERNATIVES)}")
    if not 0 < confidence < 1:
        raise StatisticsError(f"confidence must be between 0 and 1, got {confidence}")
