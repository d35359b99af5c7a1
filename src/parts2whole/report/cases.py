"""What test cases of runs say: their scores, and which of their distances are undefined.

A structure that was missed has no distance, so a mean of distances is over those that were found, and an arm
that misses more may look better.
"""

from __future__ import annotations

from collections.abc import Sequence

from parts2whole.report.runs import Plain, as_number

TRUE_CLASS = "probability_of_the_true_class"
"""What cases of a classification are judged by, whatever their task is."""
OVERLAP = "dice_"
MEAN = "mean"
DISTANCES = ("hd95", "assd", "_mm", "distance")
"""Of names of metrics that are distances between masks."""


def case_metric(cases: Sequence[Plain], metric: str) -> str:
    """What single cases are judged by, where ``metric`` is what their task is judged by."""
    return TRUE_CLASS if any("target" in row for row in cases) else metric


def case_score(row: Plain, metric: str) -> float | None:
    """A case's ``metric``, or the probability of its true class; None where it is undefined."""
    return as_number(row.get(f"p_{row['target']}" if "target" in row else metric))


def regions_of(cases: Sequence[Plain]) -> tuple[str, ...]:
    """What Dice is given of in some cases, such as ``liver`` and ``mean``."""
    found = dict.fromkeys(key for row in cases for key in row if key.startswith(OVERLAP))
    return tuple(key.removeprefix(OVERLAP) for key in found)


def lacks_distance(row: Plain, metric: str, regions: Sequence[str]) -> bool | None:
    """Whether a case lacks a distance because one of two masks is empty; None where both are, or it is none.

    Dice is 0 where one is empty, and undefined where both are.  Of a mean over regions none may be lacking.
    """
    region = max((name for name in regions if metric.endswith(f"_{name}")), key=len, default=None)
    if region is None:  # nothing says which masks are empty
        return metric not in row if any(word in metric for word in DISTANCES) else None
    single = [name for name in regions if name != MEAN] if region == MEAN else []
    wanted = [name for name in single or [region] if OVERLAP + name in row]
    return any(metric.removesuffix(region) + name not in row for name in wanted) if wanted else None


def count_distances(cases: Sequence[Plain], metric: str) -> tuple[int, int]:
    """In how many cases a distance is defined, and in how many a mask isn't empty."""
    regions = regions_of(cases)
    lacking = [lacks_distance(row, metric, regions) for row in cases]
    return lacking.count(False), len(lacking) - lacking.count(None)
