"""Writes docs/results-0.1.0.md from the finished runs of real_data.py; every number comes from a file."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from study_page import study_section

from parts2whole.report.formats import to_markdown
from parts2whole.report.results import tabulate
from parts2whole.report.runs import read_run

NOTES = Path(__file__).with_name("real_data_notes.md")
"""What was tried and why: prose, without numbers that a command could write."""


def write_page(
    chosen: Sequence[Any], out: Path, page: Path, *, seeds: int, studies: Sequence[Path] = ()
) -> None:
    added = f" --studies {' '.join(f'runs/{study.name}' for study in studies)}" if studies else ""
    lines = [
        "# Results",
        "",
        f"Written by `python benchmarks/real_data.py --write {page}{added}` on {datetime.now(UTC):%Y-%m-%d}, "
        f"from runs on {describe_machine(out)}. Every seed is in the tables; nothing was chosen on "
        "test cases.",
        "",
    ]
    for one in chosen:
        folder = out / one.name
        lines += [f"## {one.name.capitalize()}", ""]
        unfinished = [labels for labels in one.labels if len(finished_cells(folder, labels)) < 2 * seeds]
        if unfinished:
            lines += [f"**Not finished:** transfer at {', '.join(map(describe, unfinished))}.", ""]
        if not folder.exists():
            lines += ["Nothing of this set has been run yet.", ""]
            continue
        lines += pretraining(folder, one)
        lines += transfer(
            [
                cell
                for labels in one.labels
                if labels not in unfinished
                for cell in finished_cells(folder, labels)
            ]
        )
        lines += probes(folder)
    if NOTES.exists():
        lines += [NOTES.read_text().strip(), ""]
    for study in studies:
        lines += study_section(study, page)
    page.write_text("\n".join(lines))
    print(f"wrote {page}")


def finished_cells(folder: Path, labels: dict[str, Any]) -> list[Path]:
    """Run folders of both arms at this number of labels."""
    ((kind, value),) = labels.items()
    return sorted(path.parent for path in folder.glob(f"cells/*-{kind}{value}-seed*/result.json"))


def describe(labels: dict[str, Any]) -> str:
    ((kind, value),) = labels.items()
    return f"{value} labelled cases" if kind == "cases" else f"{value:.0%} of the labels"


def describe_machine(out: Path) -> str:
    found = next(out.rglob("environment.json"), None)
    if found is None:
        return platform.platform()
    environment = json.loads(found.read_text())
    packages = environment["packages"]
    return (
        f"CPU cores, no GPU, one thread a run, {environment['precision']}, "
        f"torch {packages.get('torch')}, Python {environment['python']}"
    )


def pretraining(folder: Path, one: Any) -> list[str]:
    lines = [
        "### Pre-training: reconstruction loss against predictions that need no learning",
        "",
        "Mean squared error on the same held-out wholes with the same parts.",
        "",
        "| method | scans | steps | network | mean whole | stretched part |",
        "|---|---|---|---|---|---|",
    ]
    for name in one.methods:
        run = folder / f"pretrain-{name}"
        if not (run / "result.json").exists():
            continue
        result = json.loads((run / "result.json").read_text())
        stretched = result.get("baseline_stretched_part")
        lines.append(
            f"| {name} | {result['train_cases']} + {result['validation_cases']} held out | {result['steps']} "
            f"| {result['validation_loss']:.5f} | {result['baseline_mean_whole']:.5f} "
            f"| {'none: it sees the whole' if stretched is None else format(stretched, '.5f')} |"
        )
    where = "Panels (part, reconstruction, whole, error) are in each run's `report.html`."
    return [*lines, "", where, ""]


def transfer(cells: Sequence[Path]) -> list[str]:
    finished = [read_run(path) for path in cells]
    if not finished:
        return []
    lines = ["### Transfer: test cases, same splits, labels and seeds in both arms", ""]
    for metric in ("dice_mean", "iou_mean"):
        lines += [to_markdown(tabulate(finished, metric=metric)).strip(), ""]
    return [*lines, "Dice of every run (test cases):", "", *every_seed(finished)]


def every_seed(runs: Sequence[Any]) -> list[str]:
    values: dict[tuple[str, str], dict[int, float]] = {}
    for run in runs:
        labels = f"{len(run.result['train_cases'])} cases"
        arm = "scratch" if run.result["method"] is None else "Parts2Whole"
        values.setdefault((labels, arm), {})[run.result["seed"]] = run.result["test"]["dice_mean"]
    seeds = sorted({seed for row in values.values() for seed in row})
    lines = [
        "| labels | arm | " + " | ".join(f"seed {s}" for s in seeds) + " |",
        "|---" * (len(seeds) + 2) + "|",
    ]
    for (labels, arm), row in sorted(
        values.items(), key=lambda item: (int(item[0][0].split()[0]), item[0][1])
    ):
        cells = " | ".join(f"{100 * row[s]:.2f}" if s in row else "" for s in seeds)
        lines.append(f"| {labels} | {arm} | {cells} |")
    return [*lines, ""]


def probes(folder: Path) -> list[str]:
    found = [row for path in sorted(folder.glob("probe-*.json")) for row in json.loads(path.read_text())]
    if not found:
        return []
    lines = [
        "### Frozen features, test cases",
        "",
        "| encoder | probe | labelled | metric | mean ± sd | seeds |",
    ]
    lines.append("|---|---|---|---|---|---|")
    keys = dict.fromkeys((row["encoder"], row["probe"], row["labelled"]) for row in found)
    for encoder, probe, labelled in keys:
        mine = [r for r in found if (r["encoder"], r["probe"], r["labelled"]) == (encoder, probe, labelled)]
        metric = "iou_mean" if "iou_mean" in mine[0] else "auc"
        v = np.array([row[metric] for row in mine])
        spread = f"{v.mean():.3f} ± {v.std(ddof=1):.3f}" if len(v) > 1 else f"{v.mean():.3f}"
        lines.append(f"| {encoder} | {probe} | {labelled} | {metric} | {spread} | {len(v)} |")
    return [*lines, ""]
