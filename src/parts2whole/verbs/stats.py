"""Statistics of published numbers and of finished runs, from the command line; no torch.

parts2whole stats check "98.67±0.23" "98.26±0.27" --n 10
parts2whole stats power --difference 0.3 --sd 0.5
parts2whole stats patients runs/bench
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from parts2whole.evaluation.power import Power, detectable_difference, power, sample_size
from parts2whole.evaluation.statistics import (
    StatisticsError,
    Summary,
    compare,
    equivalence,
    format_p,
    holm,
    rounding_range,
)
from parts2whole.report.certainty import Certainty, compare_patients
from parts2whole.report.results import finished_finetunings, tabulate
from parts2whole.report.study import read_runs

NEED_RUNS = (
    "The paired t-test, Wilcoxon, permutation and bootstrap need the results of every run, not their mean "
    "and deviation: parts2whole compare RUNS --test wilcoxon, parts2whole stats patients RUNS."
)


@dataclasses.dataclass(frozen=True)
class Answer:
    """Lines of text."""

    lines: tuple[str, ...]

    def summary(self) -> str:
        """The lines."""
        return "\n".join(self.lines)


def check(
    first: str,
    second: str,
    *,
    n: int,
    n_second: int | None = None,
    margin: float | None = None,
    comparisons: int = 1,
    alpha: float = 0.05,
) -> Answer:
    """Test two published results, given as mean and standard deviation.

    Args:
        first: mean and standard deviation as printed, such as ``98.67±0.23``.
        second: the other one.
        n: number of runs behind the first (and the second).
        n_second: number of runs behind the second, if it is another.
        margin: difference that doesn't matter, for a test of equivalence, in the unit of the values.
        comparisons: number of comparisons that the publication makes; Holm's correction assumes that the
            others have larger p-values.
        alpha: level.

    Returns:
        All tests that make sense, in words.

    Raises:
        StatisticsError: a text that is no mean and deviation, or numbers that make no test.
    """
    if comparisons < 1:
        raise StatisticsError(f"comparisons must be 1 or more, got {comparisons}")
    a, b = Summary.parse(first, n=n), Summary.parse(second, n=n if n_second is None else n_second)
    ahead, behind = (a, b) if a.mean >= b.mean else (b, a)
    who = "first" if ahead is a else "second"
    lines = [
        f"first  {a.mean:g} ± {a.sd:g}, n = {a.n}",
        f"second {b.mean:g} ± {b.sd:g}, n = {b.n}",
        "",
        f"Is the {who} better? (one-sided, in favour of the better mean; by rounding of the input)",
    ]
    lines += [_line(ahead, behind, test, "greater", comparisons) for test in ("student", "welch")]
    lines += ["", "Do they differ? (two-sided)"]
    lines += [_line(ahead, behind, test, "two-sided", comparisons) for test in ("student", "welch")]
    low, high = compare(a, b, test="welch", confidence=1 - alpha).interval or (0.0, 0.0)
    lines.append(
        f"  first minus second {a.mean - b.mean:+.4g}, {100 * (1 - alpha):g} % CI {low:.4g} to {high:.4g}"
    )
    lines += ["", "Are they equivalent? (two one-sided Welch t-tests; p > alpha above is no equivalence)"]
    lines.append("  " + _equivalence(a, b, margin, alpha))
    lines += ["", *_power_lines(ahead, behind, alpha), "", NEED_RUNS]
    return Answer(tuple(lines))


def plan(
    *,
    sd: float,
    difference: float | None = None,
    n: int | None = None,
    wanted: float = 0.8,
    paired: bool = False,
    two_sided: bool = True,
    alpha: float = 0.05,
) -> Answer:
    """Say how many runs see a difference, which difference n runs see, or with what power.

    Args:
        sd: standard deviation within each arm, or of the paired differences.
        difference: true difference that should be seen.
        n: runs of each arm, or pairs.
        wanted: power to reach.
        paired: for the paired t-test.
        two_sided: for a two-sided test.
        alpha: level.

    Returns:
        The answer in a line.

    Raises:
        StatisticsError: neither difference nor n is given.
        parts2whole.evaluation.power.PowerError: a value out of its range.
    """
    if difference is None and n is None:
        raise StatisticsError("give difference, n, or both")
    if difference is None:
        assert n is not None
        seen = detectable_difference(sd, n, wanted=wanted, alpha=alpha, paired=paired, two_sided=two_sided)
        found = Power(seen, sd, n, wanted, alpha, paired, two_sided)
        return Answer((f"n = {n}: {found.describe()}",))
    if n is None:
        found = sample_size(difference, sd, wanted=wanted, alpha=alpha, paired=paired, two_sided=two_sided)
        return Answer((found.describe(),))
    reached = power(difference, sd, n, alpha=alpha, paired=paired, two_sided=two_sided)
    kind = "paired" if paired else "independent Student"
    side = "two-sided" if two_sided else "one-sided"
    return Answer(
        (
            f"n = {n} {'pairs' if paired else 'each'} see a difference of {difference:g} (sd {sd:g}) with "
            f"power {reached:.3f} ({kind} t-test, {side}, alpha = {alpha:g})",
        )
    )


def patients(
    runs: Sequence[str | Path],
    *,
    focus: str | None = None,
    against: str | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Certainty:
    """Say how far a difference of arms would move with other test patients, and with other runs.

    Args:
        runs: run folders, or folders that hold many, such as that of a benchmark.
        focus: arm of interest; default Parts2Whole.
        against: arm it is compared with; default scratch, and the best of the others.
        resamples: draws of patients and runs.
        confidence: of the intervals.
        seed: of the draws.

    Returns:
        A bootstrap a comparison, over patients and runs.

    Raises:
        StatisticsError: no finished fine-tuning runs.
        parts2whole.report.marks.TableError: an unknown arm.
    """
    found = finished_finetunings(run for path in runs for run in read_runs(path))
    if not found:
        raise StatisticsError(f"no finished fine-tuning run in {', '.join(map(str, runs))}")
    table = tabulate(found, focus=focus, against=against)
    return compare_patients(found, table, resamples=resamples, confidence=confidence, seed=seed)


def _line(a: Summary, b: Summary, test: str, alternative: str, comparisons: int) -> str:
    found = compare(a, b, test=test, alternative=alternative)
    low, high = rounding_range(a, b, test=test, alternative=alternative)
    text = f"  {test.capitalize():<8} t = {found.statistic:.3f}, df = {found.df:.1f}, {format_p(found.p)}"
    text += f"  ({low:.4f} to {high:.4f} by rounding)"
    if comparisons > 1:
        corrected = holm([found.p, *[1.0] * (comparisons - 1)])[0]
        text += f"; Holm over {comparisons}: {format_p(corrected)}"
    return text


def _equivalence(a: Summary, b: Summary, margin: float | None, alpha: float) -> str:
    if margin is not None:
        return equivalence(a, b, margin=margin, test="welch", alpha=alpha).describe()
    low, high = compare(a, b, test="welch", confidence=1 - 2 * alpha).interval or (0.0, 0.0)
    return (
        f"Shown at alpha = {alpha:g} for any margin above {max(abs(low), abs(high)):.4g}, which must be "
        "chosen before looking (--margin)."
    )


def _power_lines(a: Summary, b: Summary, alpha: float) -> list[str]:
    """What n runs can see with this spread, and what it takes to see this difference."""
    sd = ((a.sd**2 + b.sd**2) / 2) ** 0.5
    if not sd:
        return ["Power: nothing varies."]
    fewest = min(a.n, b.n)
    seen = detectable_difference(sd, fewest, alpha=alpha, two_sided=True)
    lines = [f"Power 0.8, two-sided: n = {fewest} sees a true difference of {seen:.3g} with this spread."]
    if a.mean > b.mean:
        lines.append(f"  {sample_size(a.mean - b.mean, sd, alpha=alpha, two_sided=True).describe()}")
    return lines
