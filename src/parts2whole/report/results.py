"""Results of runs as rows: what was measured, on which task, with which initial weights, called by names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parts2whole.report.alike import read_settings, weights_folders
from parts2whole.report.cases import count_distances
from parts2whole.report.make_table import make_table
from parts2whole.report.marks import TableError
from parts2whole.report.runs import Plain, Run, as_number, read_mapping
from parts2whole.report.tables import Row, Table, higher_is_better
from parts2whole.run_folder import CARD, RESULT

BY_STEPS = "by_steps"
"""In a run's result: its study has several numbers of steps for its task."""


def finished_finetunings(runs: Iterable[Run]) -> list[Run]:
    """Those of some runs that have results for a table."""
    return [run for run in runs if run.kind == "finetune" and run.finished]


def tabulate(
    runs: Iterable[Run],
    *,
    arms: Sequence[str] | None = None,
    focus: str | None = None,
    against: str | None = None,
    **how: Any,
) -> Table:
    """The table of finished fine-tunings; which rows and arms one has is decided here, for every table.

    Args:
        runs: others than finished fine-tunings are passed over.
        arms: in the order of a study, others are left out; default all, in the order of `sort_arms`.
        focus: arm of interest; one of ``arms`` that has no result yet is passed over, as is ``against``.
        against: arm it is compared with.
        how: other arguments of `make_table`, such as ``metric``; default the one that each task is judged by.

    Raises:
        TableError: no results, a task without the metric it is to be judged by, or as `make_table`.
    """
    done = finished_finetunings(runs)
    for run in done:
        wanted, there = run.result.get("monitor"), test_figures(run)
        if wanted and wanted not in there:
            raise TableError(
                f"{run.name} has no metric {wanted!r}; it has {', '.join(there)}: correct the task's metric "
                "in the study and run it again; nothing is lost"
            )
    rows, shown = result_rows(done), shown_arms(done)
    arms = None if arms is None else [shown.get(arm, arm) for arm in arms]
    focus, against = (shown.get(arm, arm) if arm else None for arm in (focus, against))
    waiting = set(arms or ()) - {row["arm"] for row in rows}
    focus, against = (None if arm in waiting else arm for arm in (focus, against))
    return make_table(rows, arms=arms, focus=focus, against=against, **how)


def result_rows(runs: Iterable[Run]) -> list[Plain]:
    """Test metrics of finished fine-tuning runs, one row a metric: the input of the tables.

    Returns:
        Rows with ``task``, ``metric``, ``fraction``, ``labelled`` (see `Run.labelled`), ``items`` and
        ``patients`` trained on (None where the run doesn't say), ``steps`` (see `told_steps`), ``arm``,
        ``seed``, ``value`` (nan where it is undefined), ``main`` (whether the metric is the task's main one),
        ``subset`` (which cases were trained on), ``weights`` (where the initial weights are), ``run`` (its
        name), ``folder`` (where it is), ``settings`` (what it was made with, see `parts2whole.report.alike`)
        and ``cases`` (of a distance, see `parts2whole.report.cases.count_distances`; else None).
    """
    done = finished_finetunings(runs)
    arms, tasks = arm_names(done), task_names(done)
    settings = {run.folder: read_settings(run) for run in done}
    steps = told_steps(done)
    told: dict[str, set[str]] = {}
    for run in done:
        told.setdefault(tasks[run.folder], set()).update(key for row in run.cases for key in row)
    return [
        {
            "task": tasks[run.folder],
            "metric": metric,
            "main": place == 0,
            "fraction": as_number(run.result.get("fraction")),
            "labelled": run.labelled,
            "items": len(run.result.get("train_cases") or ()),
            "patients": run.result.get("train_patients"),
            "steps": steps[run.folder],
            "arm": arms[run.folder],
            "seed": run.result.get("seed", 0),
            "value": value,
            "subset": run.result.get("subset")
            or ",".join(sorted(map(str, run.result.get("train_cases") or ())))
            or None,
            "weights": str(run.result.get("init", "")),
            "run": run.name,
            "folder": run.folder,
            "settings": settings[run.folder],
            "cases": count_distances(run.cases, metric)
            if metric in told[tasks[run.folder]] and not higher_is_better(metric)
            else None,
        }
        for run in done
        for place, (metric, value) in enumerate(test_figures(run).items())
    ]


def has_labels_of(run: Run, row: Row) -> bool:
    """Whether a fine-tuning has as many labels as a row of a table is about."""
    fraction = as_number(run.result.get("fraction"))
    return fraction == row.fraction and row.labelled[0] <= run.labelled <= row.labelled[1]


def told_steps(runs: Sequence[Run]) -> dict[Path, int | None]:
    """Planned steps of fine-tuning runs, where these tell runs of their task apart; else None.

    They do if the study has several, or if one arm was fine-tuned on the same labels, with the same seed, for
    different numbers of steps.
    """
    arms, tasks = arm_names(runs), task_names(runs)
    planned = {run.folder: int(as_number(run.config.get("steps")) or run.steps) for run in runs}
    found: dict[tuple[object, ...], set[int]] = {}
    for run in runs:
        labels = (run.result.get("fraction"), run.labelled)
        cell = (tasks[run.folder], arms[run.folder], *labels, run.result.get("seed", 0))
        found.setdefault(cell, set()).add(planned[run.folder])
    several = {cell[0] for cell, steps in found.items() if len(steps) > 1}
    several |= {tasks[run.folder] for run in runs if run.result.get(BY_STEPS)}
    return {f: planned[f] if tasks[f] in several else None for f in planned}


def test_figures(run: Run) -> dict[str, float]:
    """Test metrics of a fine-tuning run, nan where they are undefined, the main one first."""
    given = run.result.get("test")
    pairs = given.items() if isinstance(given, Mapping) else ()
    numbers = {
        str(key): math.nan if (number := as_number(value)) is None else number
        for key, value in pairs
        if value is None or isinstance(value, int | float)
    }
    first = main_metric(list(numbers), run.result.get("monitor"))
    return {k: numbers[k] for k in sorted(numbers, key=lambda k: k != first)}


def main_metric(names: Sequence[str], monitor: object = None) -> str | None:
    """The metric a table shows first: the run's own, else by custom."""
    for wanted in (monitor, "dice_mean", "dice", "auc", "iou_mean", "iou"):
        if wanted in names:
            return str(wanted)
    return names[0] if names else None


def arm_names(runs: Sequence[Run]) -> dict[Path, str]:
    """What to call the initial weights of each fine-tuning run, in a table.

    A pre-training run is called by its method; two of one method are told apart by their folders.
    """
    marks: dict[object, str] = {}  # an arm of a study is one in all tasks, and marked in all
    for run in runs:
        arm = run.result.get("arm") or run.folder
        marks[arm] = max(marks.get(arm, ""), _marks(run), key=len)
    named = {}
    for run in runs:
        name, source = _arm(run)
        named[run.folder] = (name + marks[run.result.get("arm") or run.folder], source)
    sources: dict[str, set[str]] = {}
    for name, source in named.values():
        sources.setdefault(name, set()).add(source)
    return {
        f: name if len(sources[name]) == 1 else f"{name} ({source})" for f, (name, source) in named.items()
    }


def task_names(runs: Sequence[Run]) -> dict[Path, str]:
    """What to call the task of each fine-tuning run, such as ``Segmentation, hippocampus``.

    Other scans in a folder of the same name are another task, told apart by the folders above.
    """
    names = {r.folder: str(r.result.get("task_name") or spec_name(r.result.get("task"))) for r in runs}
    scans = {run.folder: str(run.result.get("data_fingerprint") or "")[:6] for run in runs}
    known: dict[str, set[str]] = {}
    for folder, name in names.items():
        known.setdefault(name, set()).update([scans[folder]] if scans[folder] else [])
    above: dict[str, str] = {}
    for run in runs:
        above.setdefault(scans[run.folder], Path(str(_task_fields(run).get("data", ""))).parent.name or ".")
    return {
        folder: f"{name} (in {above[scans[folder]]}, scans {scans[folder] or 'unknown'})"
        if len(known[name]) > 1
        else name
        for folder, name in names.items()
    }


def _task_fields(run: Run) -> Plain:
    """Fields of the task of a fine-tuning run."""
    task = run.result.get("task")
    fields = task.get("init_args") if isinstance(task, Mapping) else None
    return dict(fields) if isinstance(fields, Mapping) else {}


def run_names(runs: Sequence[Run], root: Path | None) -> dict[Path, str]:
    """What to call runs on a page: by arm, task and seed in a benchmark, else by their folders."""
    named = {run.folder: _title(run, root) for run in runs}
    titles = list(named.values())
    return {
        run.folder: _place(run, root) if titles.count(named[run.folder]) > 1 else named[run.folder]
        for run in runs
    }


def _title(run: Run, root: Path | None) -> str:
    arm = run.result.get("arm")
    if not arm:
        return _place(run, root)
    if run.kind != "finetune":
        return str(arm)
    labels = f", {run.labelled} labelled" if run.labelled else ""
    labels += f", {run.config.get('steps')} steps" if run.result.get(BY_STEPS) else ""
    return f"{task_names([run])[run.folder]}{labels}, {arm}, seed {run.result.get('seed', 0)}"


def _place(run: Run, root: Path | None) -> str:
    return run.folder.relative_to(root).as_posix() if root else run.name


def method_name(run: Run) -> str:
    """The pretext task of a pre-training run, by its arm in a benchmark or by its class."""
    method = run.result.get("method") or run.config.get("method")
    return str(run.result.get("arm") or (spec_name(method) if method else run.name))


def spec_name(spec: object) -> str:
    """A spec's class name, with the name of its data where it has some."""
    if not isinstance(spec, Mapping):
        return str(spec) if spec else "unknown"
    name = str(spec.get("class_path", "unknown")).rpartition(".")[2]
    data = (spec.get("init_args") or {}).get("data")
    return f"{name}, {Path(str(data)).stem}" if data else name


def shown_arms(runs: Sequence[Run]) -> dict[str, str]:
    """How arms of a study are called in a table, by their names in its file."""
    names = arm_names(runs)
    return {str(run.result["arm"]): names[run.folder] for run in runs if run.result.get("arm")}


def _marks(run: Run) -> str:
    """What an arm says wherever it is named: its decoder, and that its weights saw test cases."""
    own = ", own decoder" if run.result.get("decoder") == "own" else ""  # of the network as published
    return own + (" [saw test cases]" if run.result.get("leaks") else "")


def _arm(run: Run) -> tuple[str, str]:
    """Name of an arm, and what tells two of one name apart."""
    init = str(run.result.get("init", "unknown"))
    if run.result.get("arm"):
        return str(run.result["arm"]), ""
    if init == "scratch" or re.match(r"[a-z0-9_]{2,}:", init):
        source, _, path = init.partition(":")
        return (path, "") if source == "hf" else (source, Path(path).name)
    if isinstance(run.result.get("method"), Mapping):
        return spec_name(run.result["method"]), Path(init).name
    for folder in weights_folders(run, init):
        for name in (RESULT, CARD):
            method = read_mapping(folder / name, []).get("method")
            if isinstance(method, Mapping) and method.get("class_path"):
                return spec_name(method), Path(init).name
    return Path(init).name, ""
