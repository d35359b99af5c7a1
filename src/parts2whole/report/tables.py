"""Results tables: tasks and label fractions down, arms across, with the test that stands behind every mark.

`make_table` makes a `Table` of plain rows, `formats` writes it for terminals, Markdown, LaTeX, CSV and HTML.
Here is also how arms and metrics are called and ordered.
"""

from __future__ import annotations

import itertools
import statistics as plain_statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

BEST_OTHER = "best other"
HIGHER_IS_BETTER = ("dice_", "iou_", "surface_dice_", "mean_iou_", "auc_", "average_precision_")
"""How metrics begin whose names end in that of a class, which may be anything: ``dice_bone_loss``."""

WORDS = {
    "dice": "Dice",
    "iou": "IoU",
    "auc": "AUC",
    "ap": "AP",
    "hd95": "HD95",
    "assd": "ASSD",
    "infonce": "InfoNCE",
}


@dataclass(frozen=True)
class Cell:
    """One arm on one task and label fraction.

    Attributes:
        arm: its name.
        values: by seed, of the seeds that count in its row.
        best: it has the best mean of its row, perhaps with others.
        p_best: of the test whether the best arm is better; None where it could not be tested.
        equivalent: not the best, but the test does not tell it from the best at alpha.
    """

    arm: str
    values: Mapping[Any, float]
    best: bool = False
    p_best: float | None = None
    equivalent: bool = False

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return plain_statistics.fmean(self.values.values())

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds (n - 1 in the denominator); None for one seed."""
        return plain_statistics.stdev(self.values.values()) if self.n > 1 else None


@dataclass(frozen=True)
class Difference:
    """The arm of interest against another.

    Attributes:
        against: the other arm.
        n: seeds of the test (pairs, for a paired one).
        difference: mean of the arm of interest minus that of the other, over these seeds.
        sd: standard deviation of the paired differences; None where the test isn't paired.
        p: of the test whether the arm of interest is better; None where it could not be tested.
        description: the test in words.
        side: +1 where the arm of interest has the larger values in what the test looks at, -1 the smaller.
    """

    against: str
    n: int
    difference: float
    sd: float | None
    p: float | None
    description: str
    side: int = 0


@dataclass(frozen=True)
class Row:
    """One task, metric and label fraction.

    Attributes:
        task: its name.
        metric: what was measured.
        fraction: share of the labels; None where the number of cases was chosen instead.
        labelled: smallest and largest number of labels, see `parts2whole.report.runs.Run.labelled`.
        cells: by arm, for every arm that has results.
        differences: the arm of interest against each of `Table.rivals`, where both have results.
        percent: all values are shares, shown as percentages.
        steps: of the runs, where a table has several numbers of steps.
    """

    task: str
    metric: str
    fraction: float | None
    labelled: tuple[int, int]
    cells: Mapping[str, Cell]
    differences: Mapping[str, Difference]
    percent: bool
    steps: int | None = None

    @property
    def labels(self) -> str:
        """``10 % (12)`` or ``12 cases``, with ``, 200 steps`` where there are several."""
        return self._labels() + ("" if self.steps is None else f", {self.steps} steps")

    def _labels(self) -> str:
        low, high = self.labelled
        cases = "" if not high else f"{low}" if low == high else f"{low} to {high}"
        share = "" if self.fraction is None else f"{100 * self.fraction:.3g} %"
        if share and cases:
            return f"{share} ({cases})"
        return share or (f"{cases} case{'s' * (cases != '1')}" if cases else "all")


@dataclass(frozen=True)
class Table:
    """A results table, ready to be written.

    Attributes:
        arms: columns.
        rows: in order of task, metric and fraction.
        focus: the arm of interest; None with a single arm.
        rivals: what it is compared with: names of arms, or `BEST_OTHER`.
        test: name of the test.
        alternative: its direction.
        alpha: level of the marks.
        notes: what must stand under the table.
        margin: within which arms count as equivalent; None where they are compared by the test alone.
        same_cases: test cases are the same in all runs of a row, as far as these say.
    """

    arms: tuple[str, ...]
    rows: tuple[Row, ...]
    focus: str | None
    rivals: tuple[str, ...]
    test: str
    alternative: str
    alpha: float
    notes: tuple[str, ...]
    margin: float | None = None
    same_cases: bool = True


def describe_margin(margin: float, percent: Collection[bool]) -> str:
    """``±1 point`` where figures are percentages, ``±0.01`` where none is; ``percent`` says so of rows."""
    plain, points = f"±{margin:g}", f"±{100 * margin:g} point{'s' * (margin != 0.01)}"
    if all(percent):
        return points
    return f"{plain} ({points} of shares)" if any(percent) else plain


def sort_arms(arms: Iterable[str]) -> tuple[str, ...]:
    """Scratch first, Parts2Whole last, others by name between them."""
    return tuple(
        sorted(arms, key=lambda arm: ("parts2whole" in arm.lower(), not is_scratch(arm), arm.lower()))
    )


def is_scratch(arm: str) -> bool:
    """Whether an arm is called scratch, whatever is marked behind it."""
    return arm == "scratch" or arm.startswith(("scratch, ", "scratch ["))


def arm_colours(arms: Iterable[str]) -> dict[str, int]:
    """Numbers of the page's colours: Parts2Whole has the accent, scratch is grey.

    There are eight colours: numbers that differ by eight have the same one, in another stroke.
    """
    fixed = {"parts2whole": 0, "scratch": 7}
    others = (number for number in itertools.count() if number % 8 not in fixed.values())
    return {arm: fixed[arm.lower()] if arm.lower() in fixed else next(others) for arm in sort_arms(arms)}


def metric_title(metric: str) -> str:
    """``dice_mean`` as ``Dice mean``."""
    words = [WORDS.get(word, word) for word in metric.split("_")]
    return " ".join(words) or "value"


def higher_is_better(metric: str) -> bool:
    """Whether a large value of a metric is good, judged by its name, which may end in that of a class."""
    if metric.startswith(HIGHER_IS_BETTER) and not metric.endswith("dice_loss"):
        return True
    low = ("loss", "distance", "error", "hd95", "assd", "brier", "steps_to")
    return not any(word in metric.lower() for word in low) and "mm" not in metric.lower().split("_")
