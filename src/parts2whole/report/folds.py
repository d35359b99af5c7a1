"""Folds of a study put together: one run for every arm, labels and seed, tested on each patient once.

The networks of the folds are different ones, each tested on patients that it hasn't seen, so what is measured
over all patients is measured from their cases again: a mean over cases, or for classes their probabilities.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from parts2whole.evaluation.metrics import classification_metrics, mean_over_cases
from parts2whole.report.marks import TableError
from parts2whole.report.runs import Plain, Run, as_number

FOLD = "fold"
"""In a run's result: which fold it is tested on, and of how many."""


def pool_folds(runs: Iterable[Run]) -> list[Run]:
    """Runs, where the folds of one are one; such of which a fold is missing count as not finished.

    Raises:
        TableError: folds of one run were run on different data.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        result = run.result
        key: tuple[Any, ...] = (run.folder,)
        if result.get(FOLD):
            cell = (result.get(name) for name in ("arm", "task_name", "fraction", "seed"))
            told = (run.config.get(name) for name in ("cases", "steps"))
            key = (*map(str, cell), *told, result[FOLD][1])
        groups.setdefault(key, []).append(run)
    found = []
    for members in groups.values():
        folds = {run.result[FOLD][0] for run in members} if members[0].result.get(FOLD) else set()
        if len(folds) < len(members):  # not of folds, or of one that was run twice, which a table refuses
            found += members
        elif len(folds) == members[0].result[FOLD][1]:
            _check(members)
            found.append(_pool(sorted(members, key=lambda run: int(run.result[FOLD][0]))))
        else:
            found.append(_unfinished(members))
    return found


def _unfinished(folds: Sequence[Run]) -> Run:
    """The run of some folds that aren't all there, without a result, which it has when they are."""
    first = folds[0].result
    said = (
        f"{first.get('arm')}, {first.get('task_name')}, seed {first.get('seed', 0)}: {len(folds)} of "
        f"{first[FOLD][1]} folds are finished, so it isn't counted yet"
    )
    took = sum(run.duration_s or 0.0 for run in folds)
    last = {"step": folds[0].steps, "time_s": took}
    return dataclasses.replace(
        folds[0], result={}, cases=(), records=(last,), notes=(*folds[0].notes, said), waits=True
    )


def _check(folds: Sequence[Run]) -> None:
    """Refuse folds that were run on different data: their test sides wouldn't be those of one deal.

    Raises:
        TableError: they are.
    """
    tested = [case for run in folds for case in run.result.get("test_cases") or ()]
    prints = [
        {run.result[key] for run in folds if run.result.get(key)}
        for key in ("data_fingerprint", "labels_fingerprint")
    ]
    if len(set(tested)) < len(tested) or any(len(found) > 1 for found in prints):
        raise TableError(
            f"folds of one run were fine-tuned on different data: {', '.join(run.name for run in folds)}; "
            "delete these folders and run the study again"
        )


def _pool(folds: Sequence[Run]) -> Run:
    """One run of several: the first one's folder and settings, the cases of all."""
    first, results = folds[0], [run.result for run in folds]
    cases = tuple(case for run in folds for case in run.cases)
    subset = " | ".join(",".join(sorted(map(str, result.get("train_cases") or ()))) for result in results)
    leaks = [leak for result in results for leak in result.get("leaks") or ()]
    about: Plain = {
        "test": _measure(cases, first.result.get("test") or {}),
        "validation": _mean([result.get("validation") or {} for result in results]),
        "test_cases": [case for result in results for case in result.get("test_cases") or ()],
        "subset": subset,
        "notes": list(dict.fromkeys(note for result in results for note in result.get("notes") or ())),
        "duration_s": sum(as_number(result.get("duration_s")) or 0.0 for result in results),
        "peak_memory_mb": max(as_number(result.get("peak_memory_mb")) or 0.0 for result in results),
        "folds": len(folds),
    }
    kept = {key: value for key, value in first.result.items() if key not in (FOLD, "best_step", "leaks")}
    if leaks:
        about["leaks"] = leaks
    return dataclasses.replace(
        first,
        result=kept | about,
        cases=cases,
        records=_mean_records(folds),
        notes=tuple(dict.fromkeys(note for run in folds for note in run.notes)),
    )


def _measure(cases: Sequence[Plain], names: Plain) -> dict[str, float]:
    """The figures of `names` over all cases; those that cases don't tell are left out."""
    if cases and all("target" in case for case in cases):
        classes = list(dict.fromkeys(key[2:] for case in cases for key in case if key.startswith("p_")))
        probabilities = np.array([[case.get(f"p_{name}", np.nan) for name in classes] for case in cases])
        targets = np.array([classes.index(str(case["target"])) for case in cases])
        found = classification_metrics(probabilities, targets)
    else:
        found = mean_over_cases(cases)
    return {name: found[name] for name in names if name in found}


def _mean(figures: Sequence[Plain]) -> dict[str, float]:
    """The mean of every figure that all have."""
    numbers = [{k: n for k, v in each.items() if (n := as_number(v)) is not None} for each in figures]
    return {
        key: statistics.fmean(each[key] for each in numbers)
        for key in numbers[0]
        if all(key in each for each in numbers)
    }


def _mean_records(folds: Sequence[Run]) -> tuple[Plain, ...]:
    """The mean curve, at the steps that all folds have."""
    tables = [{(line.get("split"), line.get("step")): line for line in run.records} for run in folds]
    return tuple(
        {"split": split, **_mean([table[split, step] for table in tables]), "step": step}
        for split, step in tables[0]
        if all((split, step) in table for table in tables)
    )
