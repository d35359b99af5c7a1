"""What a study is judged by: endpoints, named before it runs, measured on finished fine-tunings and tested.

Every endpoint compares the arm of interest with one reference arm, row by row (labels and steps).  p-values
are corrected by Holm over the rows of a task, within an endpoint.
"""

from __future__ import annotations

import math
import statistics as plain_statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parts2whole.evaluation.endpoints import (
    Rank,
    compare_spread,
    log_area,
    rank_arms,
    steps_to,
    worst_mean,
)
from parts2whole.evaluation.permutation import swap_pairs
from parts2whole.evaluation.statistics import holm
from parts2whole.report.marks import How
from parts2whole.report.results import finished_finetunings, main_metric, result_rows, tabulate
from parts2whole.report.runs import Plain, Run, as_number
from parts2whole.report.tables import Row, Table, higher_is_better, make_table

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
SHARE_OF_BEST = 0.9
WORST_SHARE = 0.1

Values = Mapping[str, Mapping[Any, float]]
"""By arm and seed."""


@dataclass(frozen=True)
class Judged:
    """An endpoint in one row of a study: the arm of interest against the reference arm.

    Attributes:
        task: its name.
        metric: what was measured.
        labels: in words, such as ``5 cases``, with steps where there are several.
        counts: smallest and largest number of labelled cases.
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
        last_step: what is given for these.
        why: reason why it could not be tested.
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
    effect: float | None
    sd: float | None
    p: float | None
    higher: bool
    percent: bool
    interval: tuple[float, float] | None = None
    holm: float | None = None
    family: int = 1
    censored: Mapping[str, int] = field(default_factory=dict)
    last_step: int | None = None
    why: str = ""


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


def reference_arm(table: Table, runs: Iterable[Run], against: str | None = None) -> str | None:
    """What a study's endpoints are tested against: ``against``, else scratch, else the first of the others.

    An arm is from scratch if all its runs began so, whatever it is called.
    """
    others = [arm for arm in table.arms if arm != table.focus]
    if against in others:
        return against
    began: dict[str, set[str]] = {}
    for row in result_rows(runs):
        began.setdefault(row["arm"], set()).add(row["weights"])
    return next((arm for arm in others if began.get(arm) == {"scratch"}), others[0] if others else None)


def measure_endpoints(
    runs: Sequence[Run],
    named: Mapping[str, int],
    *,
    arms: Sequence[str] | None = None,
    against: str | None = None,
    margin: float | None = None,
    **how: Any,
) -> tuple[Endpoint, ...]:
    """Measure and test the endpoints of a study.

    Args:
        runs: finished fine-tunings; others are passed over.
        named: endpoints, and how many fine-tunings were finished when each was named.
        arms: in the order of the study.
        against: the reference arm; default see `reference_arm`.
        margin: of the study's table, which has no part in these tests.
        how: other settings of the study's table, see `parts2whole.report.tables.make_table`.

    Returns:
        One for each, in the order of `ENDPOINTS`; none where there is one arm only.

    Raises:
        TableError: as `parts2whole.report.results.tabulate`.
    """
    done = finished_finetunings(runs)
    table = tabulate(done, arms=arms, against=against, **how)
    reference = reference_arm(table, done, against)
    if table.focus is None or reference is None:
        return ()
    measured = _Measured(done, table, reference)
    return tuple(measured.endpoint(name, named[name]) for name in ENDPOINTS if name in named)


class _Measured:
    """Finished fine-tunings of a study, and how its table compares them."""

    def __init__(self, runs: Sequence[Run], table: Table, reference: str) -> None:
        self.runs = {run.folder: run for run in runs}
        self.arms, self.focus, self.reference = table.arms, str(table.focus), reference
        self.how = How(table.test, table.alternative, table.alpha, None)
        self.final = table.rows
        shown = {(row.task, row.metric) for row in table.rows}
        self.rows = [
            row
            for row in result_rows(runs)
            if row["arm"] in self.arms and (row["task"], row["metric"]) in shown
        ]

    def endpoint(self, name: str, late: int) -> Endpoint:
        notes: list[str] = []
        find: Callable[[list[str]], tuple[list[Judged], str, bool]] = {
            "final": self._final,
            "area": self._area,
            "steps_to_90": self._speed,
            "worst_seed": self._worst_seed,
            "worst_tenth": self._worst_tenth,
            "spread": self._spread,
        }[name]
        rows, test, paired = find(notes)
        statistic = {"worst_seed": _smallest, "spread": _deviation}.get(name, np.mean)
        return Endpoint(
            name,
            self.arms,
            self.focus,
            self.reference,
            self.how,
            test,
            paired,
            tuple(_corrected(rows)),
            self._ranks(rows, name, statistic),
            late,
            tuple(notes),
        )

    def _final(self, notes: list[str]) -> tuple[list[Judged], str, bool]:
        return self._tested(self.rows, notes), self.how.words, self.how.paired

    def _worst_tenth(self, notes: list[str]) -> tuple[list[Judged], str, bool]:
        rows = [row | {"value": self._tail(row)} for row in self.rows]
        return self._tested(rows, notes), self.how.words, self.how.paired

    def _tail(self, row: Plain) -> float:
        """The mean score over the worst tenth of a run's test patients; of classes, that of the true one."""
        metric = row["metric"]
        by_patient: dict[str, list[float]] = {}
        by_class = False
        for case in self.runs[row["folder"]].cases:
            by_class |= "target" in case
            score = as_number(case.get(f"p_{case['target']}" if "target" in case else metric))
            if score is not None:
                patient = str(case.get("patient") or next(iter(case.values())))
                by_patient.setdefault(patient, []).append(score)
        scores = [plain_statistics.fmean(found) for found in by_patient.values()]
        higher = by_class or higher_is_better(metric)
        return worst_mean(scores, share=WORST_SHARE, higher_is_better=higher)

    def _area(self, notes: list[str]) -> tuple[list[Judged], str, bool]:
        """Over labels for every number of steps; over steps where there is one number of labels."""
        tasks = dict.fromkeys(row["task"] for row in self.rows)
        made: list[Judged] = []
        for task in tasks:
            rows = [row for row in self.rows if row["task"] == task]
            labels = {(row["fraction"], row["labelled"] if row["fraction"] is None else 0) for row in rows}
            lengths = {row["steps"] for row in rows}
            over = "labelled" if len(labels) > 1 else "steps" if len(lengths) > 1 else None
            if over is None:
                notes.append(f"{task} has one number of labels and of steps, so there is no curve.")
                continue
            wanted = len(labels) if over == "labelled" else len(lengths)
            curves: dict[tuple[Any, ...], list[Plain]] = {}
            for row in rows:
                apart = row["steps"] if over == "labelled" else None
                curves.setdefault((row["arm"], row["seed"], apart), []).append(row)
            whole = []
            for (arm, seed, apart), points in curves.items():
                xs = [point[over] for point in points]
                if len(set(xs)) < wanted or any(math.isnan(point["value"]) for point in points):
                    notes.append(f"{task}, {arm}, seed {seed}: no whole curve, so it is left out.")
                    continue
                value = log_area([(point[over], point["value"]) for point in points])
                about = {"fraction": None, "labelled": 0, "steps": apart, "subset": None, "value": value}
                whole.append(points[0] | about)
            if not whole:
                continue
            ends = sorted(int(row[over]) for row in rows)
            words = f"{ends[0]} to {ends[-1]} {'labelled cases' if over == 'labelled' else 'steps'}"
            for one in self._tested(whole, notes):
                told = words + ("" if one.steps is None else f", {one.steps} steps")
                made.append(replace(one, labels=told, counts=(ends[0], ends[-1])))
        return made, self.how.words, self.how.paired

    def _speed(self, notes: list[str]) -> tuple[list[Judged], str, bool]:
        """First validated step at 90 % of the best; the last step for runs that never get there."""
        groups: dict[tuple[Any, ...], list[Plain]] = {}
        for row in self.rows:
            labels = row["labelled"] if row["fraction"] is None else row["fraction"]
            groups.setdefault((row["task"], row["metric"], labels, row["steps"]), []).append(row)
        rows, never, last = [], {}, {}
        for (_, metric, *_), members in groups.items():
            curves = {row["folder"]: _validation(self.runs[row["folder"]], metric) for row in members}
            best: dict[str, list[float]] = {}
            for row in members:
                if curves[row["folder"]]:
                    best.setdefault(row["arm"], []).append(max(score for _, score in curves[row["folder"]]))
            target = SHARE_OF_BEST * max((plain_statistics.fmean(b) for b in best.values()), default=math.nan)
            end = max(_planned(self.runs[row["folder"]]) for row in members)
            for row in members:
                curve = curves[row["folder"]]
                step = steps_to(curve, target) if target > 0 else None
                value = math.nan if not curve or not target > 0 else float(end if step is None else step)
                never[row["folder"]] = bool(curve) and target > 0 and step is None
                last[row["folder"]] = end
                rows.append(row | {"value": value, "metric": "steps_to_90"})
        test = "permutation" if self.how.paired else "permutation-independent"
        how = How(test, self.how.alternative, self.how.alpha, None)
        made = []
        for one in self._tested(rows, notes, how):
            at = [row for row in rows if _is_of(row, one)]
            counted = [row for row in at if row["seed"] in one.values.get(row["arm"], {})]
            censored = {
                arm: sum(never[row["folder"]] for row in counted if row["arm"] == arm) for arm in one.figures
            }
            end = max(last[row["folder"]] for row in at)
            made.append(replace(one, sd=None, censored=censored, last_step=end))
        return made, how.words, how.paired

    def _worst_seed(self, notes: list[str]) -> tuple[list[Judged], str, bool]:
        """The smallest test score over seeds; might the arms have been swapped within the pairs?"""
        side = {"two-sided": "two-sided", "greater": "one-sided"}.get(
            self.how.alternative, "one-sided, in favour of the better one"
        )
        test = f"permutation of the arms within pairs of equal seed, {side}, α = {self.how.alpha:g}"
        return [self._of_pairs(row, self._test_worst) for row in self.final], test, True

    def _spread(self, notes: list[str]) -> tuple[list[Judged], str, bool]:
        test = f"Brown-Forsythe test, one-sided (is it smaller?), α = {self.how.alpha:g}"
        return [self._of_pairs(row, _test_spread) for row in self.final], test, True

    def _of_pairs(self, row: Row, test: Callable[[Row, Plain, list[float], list[float]], Judged]) -> Judged:
        """One figure an arm, made of the seeds that both arms of a row have."""
        values = {arm: dict(cell.values) for arm, cell in row.cells.items()}
        a, b = (values.get(arm, {}) for arm in (self.focus, self.reference))
        both = [seed for seed in a if seed in b]
        about: Plain = {"values": values, "n": len(both)}
        return test(row, about, [a[seed] for seed in both], [b[seed] for seed in both])

    def _test_worst(self, row: Row, about: Plain, a: list[float], b: list[float]) -> Judged:
        higher = higher_is_better(row.metric)
        worst = min if higher else max
        figures = {arm: worst(cell.values.values()) for arm, cell in row.cells.items()}
        if len(a) < 2:
            return _of_row(row, figures, why="fewer than two seeds can be compared", **about)
        effect = worst(a) - worst(b)
        ahead = "greater" if (effect >= 0 if self.how.alternative == "observed" else higher) else "less"
        side = self.how.alternative if self.how.alternative == "two-sided" else ahead
        statistic = _smallest if higher else _largest
        p, _ = swap_pairs(np.array(a), np.array(b), statistic, side, np.random.default_rng(0))
        return _of_row(row, figures, effect=effect, p=p, **about)

    def _tested(self, rows: Sequence[Plain], notes: list[str], how: How | None = None) -> list[Judged]:
        """One value a run: tested as a table of the study is."""
        how = how or self.how
        there = {row["arm"] for row in rows if not math.isnan(row["value"])}
        if not {self.focus, self.reference} <= there:
            lacking = " and ".join(arm for arm in (self.focus, self.reference) if arm not in there)
            notes.append(f"{lacking}: no figure, so there is nothing to test.")
            return []
        table = make_table(
            [row | {"main": True, "settings": None} for row in rows],
            arms=[arm for arm in self.arms if arm in there],
            focus=self.focus,
            against=self.reference,
            test=how.test,
            alternative=how.alternative,
            alpha=how.alpha,
        )
        notes += [note for note in table.notes if note.startswith(("Undefined", "Missing"))]
        return [self._of_difference(row, how) for row in table.rows]

    def _of_difference(self, row: Row, how: How) -> Judged:
        found = row.differences.get(self.reference)
        values = {arm: dict(cell.values) for arm, cell in row.cells.items()}
        figures = {arm: cell.mean for arm, cell in row.cells.items()}
        sizes = [len(values.get(arm, {})) for arm in (self.focus, self.reference)]
        if found is None:
            lacking = " and ".join(arm for arm in (self.focus, self.reference) if arm not in values)
            why = f"{lacking} has no figure" if lacking else "no seed is in both arms"
            return _of_row(row, figures, values=values, n=0, why=why)
        sd = found.sd
        if not how.paired and min(sizes) > 1:
            variances = [plain_statistics.variance(values[a].values()) for a in (self.focus, self.reference)]
            sd = math.sqrt(plain_statistics.fmean(variances))
        n = found.n if how.paired else min(sizes)
        why = "" if found.p is not None else "one seed only" if n < 2 else "nothing varies"
        return _of_row(row, figures, values=values, n=n, effect=found.difference, sd=sd, p=found.p, why=why)

    def _ranks(self, rows: Sequence[Judged], name: str, statistic: Callable[..., Any]) -> dict[str, Rank]:
        """Of the arms that every row has, on the seeds that all of these have."""
        arms = [arm for arm in self.arms if all(arm in row.values for row in rows)]
        made = []
        for row in rows:
            seeds = (
                [s for s in row.values[arms[0]] if all(s in row.values[arm] for arm in arms)] if arms else []
            )
            if len(seeds) > 1:
                flip = (
                    -1 if name == "worst_seed" and not row.higher else 1
                )  # so that the smallest is the worst
                kept = {arm: {seed: flip * row.values[arm][seed] for seed in seeds} for arm in arms}
                made.append((row.task, kept, row.higher or flip < 0))
        return rank_arms(made, statistic=statistic) if len(arms) > 1 and made else {}


def _test_spread(row: Row, about: Plain, a: list[float], b: list[float]) -> Judged:
    figures = {arm: cell.sd for arm, cell in row.cells.items() if cell.sd is not None}
    if len(a) < 3:
        return _of_row(row, figures, why="fewer than three seeds can be compared", higher=False, **about)
    found = compare_spread(a, b)
    known, p = math.isfinite(found.ratio), None if math.isnan(found.p) else found.p
    return _of_row(
        row,
        figures,
        effect=found.ratio if known else None,
        p=p,
        interval=found.interval,
        higher=False,
        why="" if p is not None else "nothing varies",
        **about,
    )


def _of_row(
    row: Row,
    figures: Mapping[str, float],
    *,
    values: Values,
    n: int,
    effect: float | None = None,
    sd: float | None = None,
    p: float | None = None,
    interval: tuple[float, float] | None = None,
    higher: bool | None = None,
    why: str = "",
) -> Judged:
    return Judged(
        row.task,
        row.metric,
        row.labels,
        row.labelled,
        row.fraction,
        row.steps,
        figures,
        values,
        n,
        effect,
        sd,
        p,
        higher_is_better(row.metric) if higher is None else higher,
        row.percent,
        interval,
        why=why,
    )


def _corrected(rows: Sequence[Judged]) -> Iterable[Judged]:
    """Rows with p corrected by Holm over the rows of their task that were tested."""
    for task in dict.fromkeys(row.task for row in rows):
        of_task = [row for row in rows if row.task == task]
        corrected = holm([math.nan if row.p is None else row.p for row in of_task])
        family = sum(row.p is not None for row in of_task)
        for row, p in zip(of_task, corrected, strict=True):
            yield replace(row, holm=None if math.isnan(p) else p, family=family)


def _is_of(row: Plain, one: Judged) -> bool:
    """Whether a run's row belongs to a row of a table."""
    here = (row["task"], row["fraction"], row["steps"]) == (one.task, one.fraction, one.steps)
    return here and one.counts[0] <= row["labelled"] <= one.counts[1]


def _validation(run: Run, metric: str) -> list[tuple[int, float]]:
    """The curve of a run's validation score; empty where it was judged by nothing that grows."""
    names = [name for name in run.metrics("validation") if name != "loss"]
    chosen = metric if metric in names else main_metric(names)
    return run.series("validation", chosen) if chosen and higher_is_better(chosen) else []


def _planned(run: Run) -> int:
    return int(as_number(run.config.get("steps")) or run.steps)


def _smallest(values: Any, axis: int = -1) -> Any:
    return np.min(values, axis=axis)


def _largest(values: Any, axis: int = -1) -> Any:
    return np.max(values, axis=axis)


def _deviation(values: Any, axis: int = -1) -> Any:
    return np.std(values, axis=axis, ddof=1)


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
