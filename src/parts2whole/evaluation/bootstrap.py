"""Bootstrap over patients and over runs: how far would the result move with others of either?

Runs on one fixed test set differ by the noise of training; another set of patients would differ by more.
A t-test over runs knows the first only. Given every run's score of every case, this draws patients with
replacement (the same for both arms, all cases of a patient together), runs, or both at once, and says
how much each contributes. It needs no torch.

Drawing both counts the noise of single scores more than once, so its interval errs to the wide side
(Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007); with fewer than about 20 patients or
runs, percentile intervals err to the narrow side.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.errors import Parts2WholeError

Floats = npt.NDArray[np.float64]
Metric = Callable[[npt.NDArray[Any]], Floats]
"""From (runs, cases, ...) to one number a run, (runs,)."""


class BootstrapError(Parts2WholeError, ValueError):
    """Scores that can't be resampled together."""


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """A mean over runs, or a difference of two, and where its uncertainty comes from.

    Attributes:
        estimate: mean over runs of the metric; of the first arm minus the second, if there are two.
        interval: percentile interval with runs and patients drawn; patients alone if there is one run.
        interval_runs: with runs drawn, patients as they are; None if there is one run an arm.
        interval_patients: with patients drawn, runs as they are.
        sd_runs: standard deviation of the estimate from the noise of training; nan from one run an arm.
        sd_patients: standard deviation of the estimate from the choice of patients.
        confidence: level of the intervals.
        runs: number of runs of each arm.
        patients: number of patients.
        resamples: number of draws.
        dropped: draws left out because the metric was undefined on them.
    """

    estimate: float
    interval: tuple[float, float]
    interval_runs: tuple[float, float] | None
    interval_patients: tuple[float, float]
    sd_runs: float
    sd_patients: float
    confidence: float
    runs: tuple[int, ...]
    patients: int
    resamples: int
    dropped: int

    def describe(self) -> str:
        """The estimate, its interval, and both sources of noise, in one line."""
        what = "difference" if len(self.runs) == 2 else "mean"
        runs = " and ".join(str(n) for n in dict.fromkeys(self.runs))
        noise = "not known from one run" if self.interval_runs is None else f"sd {self.sd_runs:.3g}"
        return (
            f"{what} {self.estimate:.4g}, {100 * self.confidence:g} % CI {self.interval[0]:.4g} to "
            f"{self.interval[1]:.4g} (bootstrap over {self.patients} patients and {runs} runs, "
            f"{self.resamples} draws; training noise: {noise}; patient noise: sd {self.sd_patients:.3g})"
        )


def bootstrap(
    a: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    patients: Sequence[Any] | None = None,
    metric: Metric | None = None,
    paired_runs: bool = False,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Interval of the mean result of an arm, or of the difference of two on the same cases.

    Args:
        a: (runs, cases) scores, such as the Dice of every case in every run; or (runs, cases, ...) of
            whatever ``metric`` takes.
        b: the same of the other arm, on the same cases in the same order.
        patients: whose case it is, one label a case; default every case is a patient of its own.
        metric: from (runs, cases, ...) to (runs,); default the mean over cases, leaving out nan. For AUC
            give scores and labels as ``a[..., 0]`` and ``a[..., 1]``.
        paired_runs: run i of both arms shares its seed, so draw the same runs in both.
        resamples: number of draws.
        confidence: of the intervals.
        seed: of the draws.

    Raises:
        BootstrapError: arms with different cases, fewer than two patients, a label missing, unequal numbers
            of paired runs, or a metric that is undefined on the data or on more than half of the draws.
    """
    arms = [np.asarray(arm) for arm in ((a,) if b is None else (a, b))]
    groups = _groups(arms, patients)
    if paired_runs and len({len(arm) for arm in arms}) > 1:
        raise BootstrapError(f"paired runs need as many in both arms, got {len(arms[0])} and {len(arms[1])}")
    if resamples < 1 or not 0 < confidence < 1:
        raise BootstrapError(
            f"expected 1 or more resamples and a confidence in (0, 1), got {resamples}, {confidence}"
        )
    measure = _mean_over_cases if metric is None else metric
    estimate = _combine([measure(arm) for arm in arms])
    if not math.isfinite(estimate):
        raise BootstrapError(f"the metric is {estimate} on the data themselves")
    generator = np.random.default_rng(seed)
    both, of_patients, of_runs = (np.empty(resamples) for _ in range(3))
    plain = [measure(arm) for arm in arms]
    for draw in range(resamples):
        chosen = generator.integers(len(groups), size=len(groups))
        cases = np.concatenate([groups[g] for g in chosen])
        runs = [generator.integers(len(arm), size=len(arm)) for arm in arms]
        runs = [runs[0]] * len(arms) if paired_runs else runs
        moved = [measure(arm[:, cases]) for arm in arms]
        of_patients[draw] = _combine(moved)
        of_runs[draw] = _combine([values[r] for values, r in zip(plain, runs, strict=True)])
        both[draw] = _combine([values[r] for values, r in zip(moved, runs, strict=True)])
    defined = np.isfinite(both) & np.isfinite(of_patients)
    if 2 * defined.sum() < resamples:
        raise BootstrapError(
            f"the metric is undefined on {resamples - int(defined.sum())} of {resamples} draws"
        )
    several = all(len(arm) > 1 for arm in arms)
    return Bootstrap(
        estimate,
        percentile_interval(both[defined] if several else of_patients[defined], confidence),
        percentile_interval(of_runs, confidence) if several else None,
        percentile_interval(of_patients[defined], confidence),
        _error_of_runs(plain, paired=paired_runs) if several else math.nan,
        float(of_patients[defined].std()) * math.sqrt(len(groups) / (len(groups) - 1)),
        confidence,
        tuple(len(arm) for arm in arms),
        len(groups),
        resamples,
        resamples - int(defined.sum()),
    )


def _groups(arms: Sequence[npt.NDArray[Any]], patients: Sequence[Any] | None) -> list[npt.NDArray[np.intp]]:
    """Places of the cases of every patient."""
    shapes = {arm.shape[1:] for arm in arms}
    if any(arm.ndim < 2 or not arm.size for arm in arms) or len(shapes) > 1:
        raise BootstrapError(
            f"scores must be (runs, cases) on the same cases, got {', '.join(str(arm.shape) for arm in arms)}"
        )
    cases = arms[0].shape[1]
    labels = list(range(cases)) if patients is None else list(patients)
    if len(labels) != cases:
        raise BootstrapError(f"{len(labels)} patient labels for {cases} cases")
    places: dict[Any, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    if len(places) < 2:
        raise BootstrapError("one patient says nothing about others; two or more are needed, better 20")
    return [np.array(group) for group in places.values()]


def _mean_over_cases(scores: npt.NDArray[Any]) -> Floats:
    """(runs, cases) to (runs,), leaving out nan."""
    known = ~np.isnan(scores)
    count = known.sum(axis=1)
    sums = np.where(known, scores, 0).sum(axis=1)
    means: Floats = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    return means


def _combine(by_arm: Sequence[Floats]) -> float:
    means = [float(np.mean(values)) for values in by_arm]
    return means[0] if len(means) == 1 else means[0] - means[1]


def _error_of_runs(by_arm: Sequence[Floats], *, paired: bool) -> float:
    """Standard error of the mean over runs, or of the difference of two such means."""
    samples = [by_arm[0] - by_arm[1]] if paired and len(by_arm) == 2 else by_arm
    return math.sqrt(sum(float(np.var(values, ddof=1)) / len(values) for values in samples))


def percentile_interval(draws: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """Where the middle share ``confidence`` of some draws lies."""
    low, high = np.percentile(draws, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)
