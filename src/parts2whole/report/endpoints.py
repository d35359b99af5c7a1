"""What a study is judged by: endpoints, named before it runs; what one says, and how it is written.

`measure` finds the figures of runs, `judge` tests them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parts2whole.evaluation.endpoints import Rank
from parts2whole.report.marks import How
from parts2whole.report.runs import Plain

NO_TENTH = "no worst tenth by"
"""How a note says what metric a worst tenth can't be measured by."""

ENDPOINTS = {
    "final": "mean test score",
    "area": "area under the learning curve",
    "steps_to_90": "steps to 90 % of the best validation score",
    "worst_seed": "worst seed",
    "worst_tenth": "worst tenth of the test patients",
    "spread": "spread over seeds",
}
"""What a study may name under ``endpoints``, and what it is called."""
DEFAULT = ("final",)

Values = Mapping[str, Mapping[Any, float]]
"""By arm and seed."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An endpoint in one row of a study: the arm of interest against the reference arm.

    Attributes:
        task: its name.
        metric: what was measured.
        labels: in words, such as ``5 cases``, with steps where there are several.
        counts: smallest and largest number of labels, see `parts2whole.report.runs.Run.labelled`.
        fraction: share of the labels; None where the number of cases was chosen.
        steps: of the runs, where there are several.
        figures: by arm, over the seeds that count.
        values: what they are made of, by arm and seed.
        n: pairs of equal seed, or the smaller number of seeds where the test is independent.
        effect: figure of the arm of interest minus that of the reference, or the ratio of spreads; None
            where one of them has none.
        sd: standard deviation of the paired differences, or within arms; None where it says nothing of the
            test.
        interval: of a ratio of spreads.
        p: of the test; None where it could not be tested.
        holm: p corrected over the rows of its task.
        family: how many rows that are.
        higher: whether more is better.
        percent: values are shares, shown as percentages.
        censored: by arm, runs that never got there.
        why: reason why it could not be tested.
        side: of what the test looks at, which may be another than the effect's: +1 is larger, -1 smaller.
    """

    task: str
    metric: str
    labels: str
    counts: tuple[int, int]
    fraction: float | None
    steps: int | None
    figures: Mapping[str, float]
    values: Values
    n: int
    higher: bool
    percent: bool
    effect: float | None = None
    sd: float | None = None
    p: float | None = None
    interval: tuple[float, float] | None = None
    holm: float | None = None
    family: int = 1
    censored: Mapping[str, int] = field(default_factory=dict)
    why: str = ""
    side: int = 0


@dataclass(frozen=True)
class Endpoint:
    """An endpoint of a study with its tests.

    Attributes:
        name: a key of `ENDPOINTS`.
        arms: in the order of the table.
        focus: arm of interest.
        reference: what it is tested against.
        how: the test that the study asks for.
        test: the test of this endpoint, in words.
        paired: whether values of equal seed belong together.
        rows: one a task, number of labels and of steps.
        ranks: of all arms, over rows and tasks; empty where they can't be compared.
        late: fine-tunings that were finished before the endpoint was named; 0 where it was named in time.
        notes: what was left out.
        same_cases: see `parts2whole.report.tables.Table`.
    """

    name: str
    arms: tuple[str, ...]
    focus: str
    reference: str
    how: How
    test: str
    paired: bool
    rows: tuple[Judged, ...]
    ranks: Mapping[str, Rank]
    late: int = 0
    notes: tuple[str, ...] = ()
    same_cases: bool = True


def late_words(endpoint: Endpoint) -> str:
    """``added after the runs (12 were finished)``; nothing for an endpoint that was named in time."""
    return f"added after the runs ({endpoint.late} were finished)" if endpoint.late else ""


def to_rows(endpoints: Sequence[Endpoint]) -> list[Plain]:
    """One row an endpoint, task, labels, steps and arm, unrounded: ``endpoints.csv`` of a study."""
    return [
        {
            "endpoint": endpoint.name,
            "named_after_runs": endpoint.late,
            "task": row.task,
            "metric": row.metric,
            "labels": row.labels,
            "steps": row.steps,
            "arm": arm,
            "figure": row.figures.get(arm),
            "never_reached": row.censored.get(arm),
            **_against(endpoint, row, arm),
            "mean_rank": endpoint.ranks[arm].rank if arm in endpoint.ranks else None,
            "share_first": endpoint.ranks[arm].first if arm in endpoint.ranks else None,
        }
        for endpoint in endpoints
        for row in endpoint.rows
        for arm in endpoint.arms
    ]


def _against(endpoint: Endpoint, row: Judged, arm: str) -> Plain:
    """The test, in the row of the arm of interest."""
    low, high = row.interval or (None, None)
    told: Plain = {
        "against": endpoint.reference,
        "n": row.n,
        "effect": row.effect,
        "low": low,
        "high": high,
        "p": row.p,
        "p_holm": row.holm,
        "test": endpoint.test,
    }
    return told if arm == endpoint.focus else dict.fromkeys(told)
