"""What endpoints are made of: the worst patients of a fine-tuning, areas under curves, steps to a score."""

from __future__ import annotations

import math
import statistics as plain_statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parts2whole.evaluation.endpoints import log_area, steps_to, worst_mean
from parts2whole.report.cases import case_score
from parts2whole.report.results import main_metric
from parts2whole.report.runs import Plain, Run, as_number
from parts2whole.report.tables import higher_is_better

SHARE_OF_BEST = 0.9
WORST_SHARE = 0.1


def worst_tenth(run: Run, metric: str) -> float:
    """The mean score over the worst tenth of a run's test patients, by what `case_metric` says."""
    by_patient: dict[str, list[float]] = {}
    for case in run.cases:
        score = case_score(case, metric)
        if score is not None:
            by_patient.setdefault(str(case.get("patient") or case["case"]), []).append(score)
    scores = [plain_statistics.fmean(found) for found in by_patient.values()]
    return worst_mean(scores, share=WORST_SHARE, higher_is_better=higher_is_better(metric))


def areas(rows: Sequence[Plain], notes: list[str]) -> Iterator[tuple[list[Plain], tuple[int, int], str]]:
    """The area under every whole curve, task by task, with the curve's ends and these in words.

    A curve is over labels for every number of steps; over steps where there is one number of labels.

    Args:
        rows: one a run.
        notes: where is added what has no curve.
    """
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        labels = {(row["fraction"], row["labelled"] if row["fraction"] is None else 0) for row in mine}
        if len({fraction is None for fraction, _ in labels}) > 1 and not _in_patients(mine):
            notes.append(
                f"{task} has shares of the labels beside numbers of patients, and its runs don't say how "
                "many patients a share is, so there is no curve."
            )
            continue
        lengths = {row["steps"] for row in mine}
        over = "labelled" if len(labels) > 1 else "steps" if len(lengths) > 1 else None
        if over is None:
            notes.append(f"{task} has one number of labels and of steps, so there is no curve.")
            continue
        wanted = len(labels) if over == "labelled" else len(lengths)
        curves: dict[tuple[Any, ...], list[Plain]] = {}
        for row in mine:
            apart = row["steps"] if over == "labelled" else None
            curves.setdefault((row["arm"], row["seed"], apart), []).append(row)
        whole = []
        for (arm, seed, apart), points in curves.items():
            xs = {point[over] for point in points}
            if len(xs) < wanted or any(math.isnan(point["value"]) for point in points):
                notes.append(f"{task}, {arm}, seed {seed}: no whole curve, so it is left out.")
                continue
            value = log_area([(point[over], point["value"]) for point in points])
            about = {"fraction": None, "labelled": 0, "steps": apart, "subset": None, "value": value}
            whole.append(points[0] | about)
        if whole:
            ends = sorted(int(row[over]) for row in mine)
            words = f"{ends[0]} to {ends[-1]} {'labelled cases' if over == 'labelled' else 'steps'}"
            yield whole, (ends[0], ends[-1]), words


def _in_patients(rows: Sequence[Plain]) -> bool:
    """Whether shares of the labels are counted in patients, or patients have one item each."""
    shares = [row for row in rows if row["fraction"] is not None]
    asked = [row for row in rows if row["fraction"] is None]
    return all(row["patients"] for row in shares) or all(row["items"] == row["labelled"] for row in asked)


def speeds(rows: Sequence[Plain], runs: Mapping[Path, Run]) -> list[Plain]:
    """First validated step at 90 % of the best; the last step for runs that never get there.

    Args:
        rows: one a run.
        runs: by folder.

    Returns:
        The rows with these steps as values, and whether 90 % were ``never`` reached.
    """
    groups: dict[tuple[Any, ...], list[Plain]] = {}
    for row in rows:
        labels = (row["fraction"], row["labelled"] if row["fraction"] is None else 0)
        groups.setdefault((row["task"], row["metric"], labels, row["steps"]), []).append(row)
    found = []
    for (_, metric, *_), members in groups.items():
        curves = {row["folder"]: _validation(runs[row["folder"]], metric) for row in members}
        best: dict[str, list[float]] = {}
        for row in members:
            if curves[row["folder"]]:
                best.setdefault(row["arm"], []).append(max(score for _, score in curves[row["folder"]]))
        target = SHARE_OF_BEST * max((plain_statistics.fmean(b) for b in best.values()), default=math.nan)
        last = max(_planned(runs[row["folder"]]) for row in members)
        for row in members:
            known = bool(curves[row["folder"]]) and target > 0
            step = steps_to(curves[row["folder"]], target) if known else None
            value = math.nan if not known else float(last if step is None else step)
            never = known and step is None
            found.append(row | {"value": value, "metric": "steps_to_90", "never": never})
    return found


def _validation(run: Run, metric: str) -> list[tuple[int, float]]:
    """The curve of a run's validation score after steps; empty where it was judged by nothing that grows."""
    names = [name for name in run.metrics("validation") if name != "loss"]
    chosen = metric if metric in names else main_metric(names)
    points = run.series("validation", chosen) if chosen and higher_is_better(chosen) else []
    return [(step, score) for step, score in points if step > 0]  # earlier versions have none at 0


def _planned(run: Run) -> int:
    return int(as_number(run.config.get("steps")) or run.steps)
