"""What a study may be judged by beside a mean: areas, speed, worst cases, spread, and ranks of arms.

Everything is computed from figures of runs, paired by their seeds. It needs no torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.integrate import trapezoid

from parts2whole.evaluation.bootstrap import percentile_interval
from parts2whole.evaluation.statistics import StatisticsError

Floats = npt.NDArray[np.float64]
RESAMPLES = 10_000
"""Draws of a bootstrap over seeds, as many as in FOMO25 (arXiv 2604.11679)."""
NOISE = 1e-12
"""Share of the largest of some values below which they differ by rounding alone."""


def log_area(points: Sequence[tuple[float, float]]) -> float:
    """Mean height of a curve over the logarithm of x: trapezoids, divided by the range of ln x.

    It is in the unit of y, and doubling x counts the same everywhere.

    Args:
        points: x above 0 and y, of two or more different x; in any order.

    Raises:
        StatisticsError: fewer than two different x, or one that isn't above 0.
    """
    x, y = np.array(sorted(points), np.float64).reshape(-1, 2).T
    if len(np.unique(x)) < max(2, len(x)) or x[0] <= 0:
        raise StatisticsError(f"an area needs two or more different x above 0, got {x.tolist()}")
    return float(trapezoid(y, np.log(x)) / math.log(x[-1] / x[0]))


def steps_to(curve: Sequence[tuple[int, float]], target: float) -> int | None:
    """The first step at which a curve of (step, score) is at ``target`` or above; None if it never is."""
    return next((step for step, score in sorted(curve) if score >= target), None)


def worst_mean(scores: Sequence[float], *, share: float = 0.1, higher_is_better: bool = True) -> float:
    """Mean over the worst ``share`` of some scores, rounded up to whole ones; nan without any."""
    if not scores:
        return math.nan
    count = math.ceil(round(share * len(scores), 9))
    return float(np.mean(sorted(scores, reverse=not higher_is_better)[:count]))


def deviation(values: npt.ArrayLike, axis: int = -1) -> Floats:
    """Standard deviation (n - 1 in the denominator); exactly 0 where values differ by rounding alone."""
    sample = np.asarray(values, np.float64)
    noise = np.ptp(sample, axis=axis) <= NOISE * np.abs(sample).max(axis=axis)
    found: Floats = np.where(noise, 0.0, sample.std(axis=axis, ddof=1))
    return found


@dataclasses.dataclass(frozen=True)
class Spread:
    """Whether one arm varies less over seeds than another.

    Attributes:
        ratio: standard deviation of the first over that of the second; inf or nan where that is 0.
        interval: 95 % percentile interval of the ratio, seeds drawn with replacement, the same in both arms;
            None where it is undefined in more than half of the draws.
        p: of the one-sided Brown-Forsythe test, small if the first varies less; nan where deviations don't
            vary, as those of two seeds never do.
        n: seeds.
    """

    ratio: float
    interval: tuple[float, float] | None
    p: float
    n: int


def compare_spread(a: Sequence[float], b: Sequence[float]) -> Spread:
    """Test whether the first arm spreads less than the second, over the same seeds.

    Brown and Forsythe (1974) compare absolute deviations from the medians.  For two groups their F is the
    square of Student's t of these deviations, whose sign says which arm spreads less: hence one-sided.  The
    test takes arms as independent; the interval keeps pairs together.

    Args:
        a: values of the arm in question.
        b: values of the reference arm, in the order of the same seeds.

    Raises:
        StatisticsError: not the same number of values, or fewer than two.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2 or not np.isfinite([x, y]).all():
        raise StatisticsError(f"spreads need two or more pairs of finite values, got {a} and {b}")
    deviations = [np.abs(values - np.median(values)) * bool(deviation(values)) for values in (x, y)]
    with np.errstate(invalid="ignore", divide="ignore"):
        varied = len(x) > 2 and any(np.ptp(found) > NOISE * np.max(found) for found in deviations)
        p = float(stats.ttest_ind(*deviations, alternative="less").pvalue) if varied else math.nan
        drawn = np.random.default_rng(0).integers(len(x), size=(RESAMPLES, len(x)))
        ratios = deviation(x[drawn]) / deviation(y[drawn])
        ratio = float(deviation(x) / deviation(y))
    known = ratios[np.isfinite(ratios)]
    interval = percentile_interval(known) if 2 * len(known) >= RESAMPLES else None
    return Spread(ratio, interval, p, len(x))


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % percentile interval of a mean, values drawn with replacement; None for fewer than three."""
    sample = np.asarray(values, np.float64)
    if len(sample) < 3:
        return None
    drawn = np.random.default_rng(0).integers(len(sample), size=(RESAMPLES, len(sample)))
    return percentile_interval(sample[drawn].mean(axis=1))


@dataclasses.dataclass(frozen=True)
class Rank:
    """Where an arm stands among others, over rows of several tasks.

    Attributes:
        rank: mean over tasks of the mean rank in their rows; 1 is best, ties share theirs.
        interval: 95 % percentile interval of it, seeds drawn with replacement.
        first: share of the draws in which no arm's mean rank is smaller; ties share it.
    """

    rank: float
    interval: tuple[float, float]
    first: float


def rank_arms(
    rows: Sequence[tuple[str, Mapping[str, Mapping[Any, float]], bool]],
    *,
    statistic: Callable[..., Floats] = np.mean,
) -> dict[str, Rank]:
    """Bootstrap the ranks of arms: how often is which first?

    In every draw the seeds of a task are drawn with replacement, the same in all its rows and arms; arms are
    ranked in every row by ``statistic`` over seeds, and ranks are averaged within tasks, then over tasks.
    Figures that differ by rounding alone are ties.

    Args:
        rows: a task, values by arm and seed (the same seeds in all arms), and whether high values are good.
        statistic: of values along ``axis``, such as the mean over seeds.

    Raises:
        StatisticsError: no row, or one with other arms or with seeds that not all arms have.
    """
    arms = list(rows[0][1]) if rows else []
    generator = np.random.default_rng(0)
    draws: dict[tuple[str, tuple[Any, ...]], npt.NDArray[np.intp]] = {}
    ranks: dict[str, list[Floats]] = {}
    for task, by_arm, higher in rows:
        seeds = tuple(by_arm[arms[0]]) if set(by_arm) == set(arms) else ()
        if not seeds or any(set(values) != set(seeds) for values in by_arm.values()):
            raise StatisticsError(f"ranks need the same arms and seeds in every row, got {by_arm}")
        if (task, seeds) not in draws:
            drawn = generator.integers(len(seeds), size=(RESAMPLES, len(seeds)))
            draws[task, seeds] = np.vstack([np.arange(len(seeds)), drawn])  # the seeds as they are come first
        table = np.array([[by_arm[arm][one] for one in seeds] for arm in arms], np.float64)
        table /= np.abs(table).max() or 1.0
        figures = np.round(statistic(table[:, draws[task, seeds]], axis=-1), 12)
        ranks.setdefault(task, []).append(stats.rankdata(-figures if higher else figures, axis=0))
    if not ranks:
        raise StatisticsError("there are no rows to rank arms in")
    mean = np.mean([np.mean(found, axis=0) for found in ranks.values()], axis=0)
    ahead = np.isclose(mean[:, 1:], mean[:, 1:].min(axis=0))
    first = (ahead / ahead.sum(axis=0)).mean(axis=1)
    return {
        arm: Rank(float(mean[i, 0]), percentile_interval(mean[i, 1:]), float(first[i]))
        for i, arm in enumerate(arms)
    }
