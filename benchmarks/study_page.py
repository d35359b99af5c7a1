"""Sections of docs/results-0.1.0.md about finished studies; every number comes from a file of a study.

Used by `real_data.py --studies DIR ... --write docs/results-0.1.0.md`.
"""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parts2whole.report.contrast import FEATURES, correlate, features_of, paired_curves, pretraining_names
from parts2whole.report.results import main_metric, task_names
from parts2whole.report.runs import Run
from parts2whole.report.study import read_listing

NOTES = Path(__file__).with_name("study_notes")
"""What to think of a study, by the name of its folder: prose, without numbers that a command could write."""


def study_section(folder: Path, page: Path) -> list[str]:
    """Lines about one study; its figure is copied beside the page."""
    listing = read_listing(folder)
    if listing is None:
        raise SystemExit(f"{folder} is not the folder of a benchmark")
    runs = listing.read()
    pretrainings = [run for run in runs if run.kind == "pretrain"]
    cells = [run for run in runs if run.kind == "finetune" and run.finished]
    lines = [f"## {listing.name}", "", describe(folder, pretrainings, cells), ""]
    if pretrainings:
        lines += ["### Pre-training", "", *pretraining_table(pretrainings), ""]
    figure = folder / "contrast.png"
    if figure.exists():
        target = page.parent / "figures" / f"{folder.name}-contrast.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(figure, target)
        lines += [
            f"![Own loss and InfoNCE of every pre-training](figures/{target.name})",
            "",
            "Own loss and InfoNCE (temperature 0.1) on fixed parts of held-out wholes, at every validation. "
            "Contrastive methods train on a loss of this kind, the others don't.",
            "",
        ]
    if cells:
        lines += ["### Transfer", "", (folder / "table.md").read_text().strip(), ""]
        with (folder / "results.csv").open(newline="") as opened:
            rows = list(csv.DictReader(opened))
        lines += ["Every run:", "", *every_run(rows, listing.arms), ""]
    notes = NOTES / f"{folder.name}.md"
    return [*lines, notes.read_text().strip(), ""] if notes.exists() else lines


def describe(folder: Path, pretrainings: Sequence[Run], cells: Sequence[Run]) -> str:
    places = {
        f"{run.environment.get('device')}, {run.environment.get('precision')}": 1
        for run in cells or pretrainings
    }
    seeds = {run.result.get("seed") for run in cells}
    hours = sum(run.duration_s or 0 for run in (*pretrainings, *cells)) / 3600
    return (
        f"`parts2whole benchmark recipes/{folder.name}.yaml`: {len(pretrainings)} pre-trainings and "
        f"{len(cells)} fine-tunings, up to {len(seeds)} seeds a cell; {hours:.1f} hours of one process "
        f"together ({'; '.join(places)}). Steps of fine-tuning: "
        + ", ".join(f"{task} {steps}" for task, steps in steps_of(cells).items())
        + "."
    )


def steps_of(cells: Sequence[Run]) -> dict[str, int]:
    names = task_names(cells)
    return {names[run.folder]: run.config["steps"] for run in cells}


def pretraining_table(runs: Sequence[Run]) -> list[str]:
    names = pretraining_names(runs)
    lines = [
        "| pre-training | scans | steps | minutes | peak MB | own loss | mean whole | stretched part "
        "| parts compared by | InfoNCE, first to last (equal embeddings) "
        "| part to its whole, first to last | curves |",
        "|---" * 12 + "|",
    ]
    for run in runs:
        features = features_of(run)
        pairs = paired_curves(run)
        result = run.result
        contrast = f"{pairs[0][2]:.2f} to {pairs[-1][2]:.2f}" if pairs else ""
        chance = run.last("validation", "info_nce_chance")
        which = run.series("validation", f"{features}which_whole")
        lines.append(
            f"| {names[run.folder]} | {result['train_cases']} + {result['validation_cases']} held out "
            f"| {result['steps']} | {(run.duration_s or 0) / 60:.1f} | {result['peak_memory_mb']:.0f} "
            f"| {result['validation_loss']:.4f} | {number(result.get('baseline_mean_whole'))} "
            f"| {number(result.get('baseline_stretched_part'))} "
            f"| {FEATURES[features]} | {contrast} ({number(chance, 2)}) "
            f"| {which[0][1]:.0%} to {which[-1][1]:.0%} "
            f"| {correlate(run).describe()} |"
        )
    return lines


def number(value: Any, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def every_run(rows: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> list[str]:
    """A table of all main results, from rows of `result_rows` or of a ``results.csv``."""
    main: dict[str, str] = {}
    for row in rows:
        if str(row["main"]) == "True":
            main[row["task"]] = row["metric"]
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        if main.get(row["task"], main_metric([row["metric"]])) == row["metric"]:
            count = int(row["labelled"])
            cases = f"{count} case{'s' * (count != 1)}"
            labels = f"{float(row['fraction']):.0%}" if row["fraction"] else cases
            found.setdefault((row["task"], labels, row["arm"]), {})[str(row["seed"])] = row["value"]
    seeds = sorted({seed for values in found.values() for seed in values}, key=int)
    order = {arm: place for place, arm in enumerate(arms)}
    tasks = {key[0]: place for place, key in enumerate(found)}
    keys = sorted(found, key=lambda k: (tasks[k[0]], int(re.findall(r"\d+", k[1])[0]), order[k[2]]))
    body = [[*key, *(score(found[key].get(seed)) for seed in seeds)] for key in keys]
    table = [["task", "labels", "arm", *(f"seed {seed}" for seed in seeds)], *body]
    if len(seeds) > 12:
        table = [list(column) for column in zip(*table, strict=True)]
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    return [lines[0], "|---" * len(table[0]) + "|", *lines[1:]]


def score(value: Any) -> str:
    return "" if value is None else f"{100 * float(value):.2f}"
