"""Writes docs/results.md: what finished studies of gain show, a table and a picture each.

    python benchmarks/gain_page.py runs/gain-hippocampus --write docs/results.md

Every number comes from a file of a study's folder; the prose is in ``study_notes/``, by the folder's name.
"""

from __future__ import annotations

import argparse
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from study_page import NOTES, describe, every_run

from parts2whole.files import write_text
from parts2whole.report.figures import INK, MUTED, write_figure
from parts2whole.report.learning import study_figures
from parts2whole.report.results import test_figures
from parts2whole.report.runs import Run
from parts2whole.report.study import read_listing

COLOURS = {True: "#087f8c", False: "#98a1ab"}
LOST = 0.15
"""Dice of a class that a run has not learned."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+", help="folders of finished studies")
    parser.add_argument("--write", type=Path, required=True, metavar="PAGE")
    chosen = parser.parse_args()
    studies = " ".join(f"runs/{folder.name}" for folder in chosen.studies)
    lines = [
        *(NOTES / "gain.md").read_text().splitlines(),
        "",
        f"Written by `python benchmarks/gain_page.py {studies} --write {chosen.write}` on "
        f"{datetime.now(UTC):%Y-%m-%d}. Every seed is in the tables.",
        "",
    ]
    for folder in chosen.studies:
        lines += section(folder, chosen.write)
    write_text(chosen.write, "\n".join(lines).rstrip() + "\n")


def section(folder: Path, page: Path) -> list[str]:
    """Verdict, picture, table, and every run of a study."""
    listing = read_listing(folder)
    if listing is None:
        raise SystemExit(f"{folder} is not the folder of a benchmark")
    runs = listing.read()
    pretrainings = [run for run in runs if run.kind == "pretrain"]
    done = [run for run in runs if run.kind == "finetune" and run.finished]
    scratch = (arm for arm in listing.arms if arm.lower() == "scratch")
    reference = listing.table.get("against") or next(scratch)
    name = listing.name.removeprefix("What pre-training gains, ")
    name = name[0].upper() + name[1:]
    verdict = (folder / "verdict.txt").read_text().strip().splitlines()
    lines = [f"## {name}", "", *(f"- {sentence}" for sentence in verdict), ""]
    table = listing.tabulate(done)
    for number, figure in enumerate(f for f in study_figures(table, reference) if f["dots"]):
        picture = page.parent / "figures" / f"{folder.name}-{number}.png"
        draw_dots(figure, picture)
        lines += [f"![{figure['title']}: a dot a run](figures/{picture.name})", ""]
    lines += [(folder / "table.md").read_text().strip(), "", lost_classes(done), ""]
    contrast = folder / "contrast.png"
    if contrast.exists():
        target = page.parent / "figures" / f"{folder.name}-contrast.png"
        shutil.copyfile(contrast, target)
        lines += ["### Does the contrastive loss fall with that of reconstruction?", ""]
        lines += [f"![Loss and InfoNCE of every pre-training](figures/{target.name})", ""]
    notes = NOTES / f"{folder.name}.md"
    lines += [notes.read_text().strip(), ""] if notes.exists() else []
    details = [describe(folder, pretrainings, done), "", *every_run(folder / "results.csv", listing.arms)]
    return [*lines, "### Every run", "", *details, ""]


def lost_classes(runs: list[Run]) -> str:
    """How many runs never learned one of their classes, arm by arm."""
    lost: dict[str, int] = {}
    for run in runs:
        dice = [v for k, v in test_figures(run).items() if k.startswith("dice_") and k.count("_") == 1]
        classes = [v for k, v in test_figures(run).items() if k.startswith("dice_") and k != "dice_mean"]
        if min(classes or dice) < LOST:
            arm = str(run.result.get("arm"))
            lost[arm] = lost.get(arm, 0) + 1
    told = ", ".join(f"{arm} {count}" for arm, count in lost.items()) or "none"
    return f"Runs of {len(runs)} that have not learned one of the classes (Dice below {LOST:g}): {told}."


def draw_dots(drawn: dict[str, Any], path: Path) -> None:
    """A dot a seed and arm, lines between pairs of equal seed, means as bars."""
    figure = Figure(figsize=(7.4, 3.3), dpi=140, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    share = 100 if drawn["percent"] else 1
    reference, focus = drawn["compared"]
    for (xa, a), (xb, b) in drawn["pairs"]:
        axes.plot([xa, xb], [share * a, share * b], color="#c9ced4", linewidth=0.7, zorder=1)
    for arm in drawn["dots"]:
        if arm["arm"] in drawn["compared"]:
            xs, ys = zip(*((x, share * y) for x, y, _ in arm["points"]), strict=True)
            axes.scatter(xs, ys, s=14, color=COLOURS[arm["arm"] == focus], zorder=2, linewidths=0)
    for arm in drawn["means"]:
        (x0, y), (x1, _) = arm["points"]
        shown = arm["arm"] in drawn["compared"]
        colour = COLOURS[arm["arm"] == focus] if shown else "#c9ced4"
        axes.plot([x0, x1], [share * y] * 2, color=colour, linewidth=2 if shown else 1, zorder=3)
        if not shown:
            words = arm["arm"].replace(", ", ",\n")
            axes.text((x0 + x1) / 2, share * y, words, fontsize=6.5, color=MUTED, ha="center", va="bottom")
    axes.set_xticks(*zip(*drawn["ticks"], strict=True), fontsize=8)
    axes.set_xlim(*drawn["range"])
    axes.set_ylabel(drawn["value"] + (", %" if drawn["percent"] else ""), fontsize=8, color=INK)
    axes.set_xlabel(drawn["x"], fontsize=8, color=MUTED)
    axes.tick_params(labelsize=8, colors=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    for number, (name, colour) in enumerate(((focus, COLOURS[True]), (reference, COLOURS[False]))):
        axes.text(
            0.99, 0.04 + 0.07 * number, name, transform=axes.transAxes, color=colour, ha="right", fontsize=8.5
        )
    write_figure(path, figure)


if __name__ == "__main__":
    main()
