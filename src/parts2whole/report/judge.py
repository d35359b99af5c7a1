"""Endpoints of a study, measured on its finished fine-tunings and tested.

Every endpoint compares the arm of interest with one reference arm, row by row (labels and steps).  p-values
are corrected by Holm over the rows of a task, within an endpoint.
"""

from __future__ import annotations

import math
import statistics as plain_statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parts2whole.evaluation.endpoints import Rank, compare_spread, deviation, rank_arms
from parts2whole.evaluation.permutation import swap_pairs
from parts2whole.evaluation.statistics import holm
from parts2whole.report.cases import case_metric
from parts2whole.report.endpoints import ENDPOINTS, NO_TENTH, Endpoint, Judged
from parts2whole.report.make_table import make_table
from parts2whole.report.marks import How
from parts2whole.report.measure import areas, speeds, worst_tenth
from parts2whole.report.results import finished_finetunings, result_rows, shown_arms, tabulate
from parts2whole.report.runs import Plain, Run
from parts2whole.report.tables import Row, Table, higher_is_better, metric_title

Tested = tuple[list[Judged], str, bool]
"""Rows, the test in words, and whether values of equal seed belong together."""


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
        how: other settings of the study's table, see `parts2whole.report.make_table.make_table`.

    Returns:
        One for each, in the order of `ENDPOINTS`; none where there is one arm only.

    Raises:
        TableError: as `parts2whole.report.results.tabulate`.
    """
    done = finished_finetunings(runs)
    table = tabulate(done, arms=arms, against=against, **how)
    reference = reference_arm(table, done, shown_arms(done).get(str(against), against))
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
        self.final, self.same_cases = table.rows, table.same_cases
        shown = {(row.task, row.metric) for row in table.rows}
        self.rows = [
            row
            for row in result_rows(runs)
            if row["arm"] in self.arms and (row["task"], row["metric"]) in shown
        ]

    def endpoint(self, name: str, late: int) -> Endpoint:
        notes: list[str] = []
        find: Callable[[list[str]], Tested] = {
            "final": self._final,
            "area": self._area,
            "steps_to_90": self._speed,
            "worst_seed": self._worst_seed,
            "worst_tenth": self._worst_tenth,
            "spread": self._spread,
        }[name]
        rows, test, paired = find(notes)
        statistic = {"worst_seed": _smallest, "spread": deviation}.get(name, np.mean)
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
            self.same_cases,
        )

    def _final(self, notes: list[str]) -> Tested:
        return self._tested(self.rows, notes), self.how.words, self.how.paired

    def _worst_tenth(self, notes: list[str]) -> Tested:
        refused = {(row["task"], row["metric"]) for row in self.rows if _lacks(row)}
        notes += [
            f"{task}: {NO_TENTH} {metric_title(metric)}, which the worst test cases lack: one of two "
            "masks is empty."
            for task, metric in sorted(refused)
        ]
        cases: dict[str, list[Plain]] = {}
        for row in self.rows:
            cases.setdefault(row["task"], []).extend(self.runs[row["folder"]].cases)
        rows = []
        for row in self.rows:
            if (row["task"], row["metric"]) not in refused:
                metric = case_metric(cases[row["task"]], row["metric"])
                value = worst_tenth(self.runs[row["folder"]], metric)
                rows.append(row | {"value": value, "metric": metric})
        return self._tested(rows, notes) if rows else [], self.how.words, self.how.paired

    def _area(self, notes: list[str]) -> Tested:
        made = []
        for whole, (low, high), words in areas(self.rows, notes):
            for one in self._tested(whole, notes):
                told = words + ("" if one.steps is None else f", {one.steps} steps")
                made.append(replace(one, labels=told, counts=(low, high)))
        return made, self.how.words, self.how.paired

    def _speed(self, notes: list[str]) -> Tested:
        rows = speeds(self.rows, self.runs)
        test = "permutation" if self.how.paired else "permutation-independent"
        how = How(test, self.how.alternative, self.how.alpha, None)
        made = []
        for one in self._tested(rows, notes, how):
            at = [r for r in rows if _is_of(r, one) and r["seed"] in one.values.get(r["arm"], {})]
            censored = {arm: sum(row["never"] for row in at if row["arm"] == arm) for arm in one.figures}
            made.append(replace(one, sd=None, censored=censored))
        return made, how.words, how.paired

    def _worst_seed(self, notes: list[str]) -> Tested:
        """The smallest test score over seeds; might the arms have been swapped within the pairs?"""
        side = {"two-sided": "two-sided", "greater": "one-sided"}.get(
            self.how.alternative, "one-sided, in favour of the better one"
        )
        test = f"permutation of the arms within pairs of equal seed, {side}, α = {self.how.alpha:g}"
        return [self._of_pairs(row, self._test_worst, notes) for row in self.final], test, True

    def _spread(self, notes: list[str]) -> Tested:
        test = f"Brown-Forsythe test, one-sided (is it smaller?), α = {self.how.alpha:g}"
        return [self._of_pairs(row, _test_spread, notes) for row in self.final], test, True

    def _of_pairs(
        self,
        row: Row,
        test: Callable[[Row, Plain, list[float], list[float]], Judged],
        notes: list[str],
    ) -> Judged:
        """One figure an arm, made of the seeds that both arms of a row have."""
        values = {arm: dict(cell.values) for arm, cell in row.cells.items()}
        a, b = (values.get(arm, {}) for arm in (self.focus, self.reference))
        both = [seed for seed in a if seed in b]
        alone = [str(seed) for seed in {**a, **b} if seed not in both]
        if both and alone:
            lacking = ", ".join(alone)
            notes.append(f"Left out of {row.task}, {row.labels}: seeds that one arm lacks ({lacking}).")
        if both:
            values |= {self.focus: {seed: a[seed] for seed in both}}
            values |= {self.reference: {seed: b[seed] for seed in both}}
        about: Plain = {"values": values, "n": len(both)}
        return test(row, about, [a[seed] for seed in both], [b[seed] for seed in both])

    def _test_worst(self, row: Row, about: Plain, a: list[float], b: list[float]) -> Judged:
        higher = higher_is_better(row.metric)
        worst = min if higher else max
        figures = {arm: worst(seeds.values()) for arm, seeds in about["values"].items()}
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
        about: Plain = {"effect": found.difference, "sd": sd, "p": found.p, "side": found.side, "why": why}
        return _of_row(row, figures, values=values, n=n, **about)

    def _ranks(self, rows: Sequence[Judged], name: str, statistic: Callable[..., Any]) -> dict[str, Rank]:
        """Of the arms that every row has, on the seeds that all of these have."""
        arms = [arm for arm in self.arms if all(arm in row.values for row in rows)]
        made = []
        for row in rows:
            first = row.values[arms[0]] if arms else {}
            seeds = [seed for seed in first if all(seed in row.values[arm] for arm in arms)]
            if len(seeds) > 1:
                # so that the smallest is the worst
                flip = -1 if name == "worst_seed" and not row.higher else 1
                kept = {arm: {seed: flip * row.values[arm][seed] for seed in seeds} for arm in arms}
                made.append((row.task, kept, row.higher or flip < 0))
        return rank_arms(made, statistic=statistic) if len(arms) > 1 and made else {}


def _test_spread(row: Row, about: Plain, a: list[float], b: list[float]) -> Judged:
    figures = {arm: float(deviation([*v.values()])) for arm, v in about["values"].items() if len(v) > 1}
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
    row: Row, figures: Mapping[str, float], *, n: int, higher: bool | None = None, **found: Any
) -> Judged:
    return Judged(
        task=row.task,
        metric=row.metric,
        labels=row.labels,
        counts=row.labelled,
        fraction=row.fraction,
        steps=row.steps,
        figures=figures,
        n=n,
        higher=higher_is_better(row.metric) if higher is None else higher,
        percent=row.percent,
        **found,
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


def _lacks(row: Plain) -> bool:
    """Whether test cases of a run lack what its value is a mean of."""
    return row["cases"] is not None and row["cases"][0] < row["cases"][1]


def _smallest(values: Any, axis: int = -1) -> Any:
    return np.min(values, axis=axis)


def _largest(values: Any, axis: int = -1) -> Any:
    return np.max(values, axis=axis)
