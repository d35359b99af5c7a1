"""Draws the README's picture: parts, what the network makes of them, the wholes; and a study's result.

    python benchmarks/readme_picture.py runs/abdomen runs/gain-one-label --write docs/images/parts2whole.png

The first folder is a pre-training, here of `UNet3D small` on the demo's synthetic abdomens (32x48x48 voxels,
batches of 16, 3,900 steps); the second a finished study.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from gain_page import COLOURS
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from parts2whole.report.figures import INK, MUTED, write_figure

SHOWN = (1, 2, 3)
"""Rows of the panel, all of validation wholes."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pretraining", type=Path)
    parser.add_argument("study", type=Path)
    parser.add_argument("--write", type=Path, required=True, metavar="PICTURE")
    chosen = parser.parse_args()
    figure = Figure(figsize=(10, 3.9), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(0.62, 1))
    draw_wholes(left, chosen.pretraining / "panels" / "latest.npz")
    draw_result(right, chosen.study)
    write_figure(chosen.write, figure)


def draw_wholes(figure: SubFigure, panel: Path) -> None:
    """A row an example: the part, what is rebuilt from it, the whole."""
    arrays = np.load(panel)
    axes = figure.subplots(len(SHOWN), 3, gridspec_kw={"wspace": 0.06, "hspace": 0.06})
    figure.subplots_adjust(left=0.02, right=0.97, top=0.9, bottom=0.04)
    for row, example in zip(axes, SHOWN, strict=True):
        for axis, kind in zip(row, ("part", "reconstruction", "whole"), strict=True):
            volume = arrays[kind][example]
            axis.imshow(volume[len(volume) // 2], cmap="gray", vmin=0, vmax=1, aspect="equal")
            axis.set_axis_off()
    for axis, title in zip(axes[0], ("a part", "rebuilt from it", "the whole"), strict=True):
        axis.set_title(title, fontsize=10, color=INK)


def draw_result(figure: SubFigure, study: Path) -> None:
    """A dot a run, lines between runs of equal seed, a bar for the mean."""
    arms: dict[str, dict[str, float]] = {}
    with (study / "results.csv").open(newline="") as opened:
        for row in csv.DictReader(opened):
            if row["main"] == "True":
                task = row["task"]
                arms.setdefault(row["arm"], {})[row["seed"]] = float(row["value"])
    axis = figure.subplots()
    figure.subplots_adjust(left=0.14, right=0.98, top=0.9, bottom=0.12)
    scores = list(arms.values())
    for seed in set.intersection(*(set(found) for found in scores)):
        axis.plot(range(len(arms)), [100 * found[seed] for found in scores], color="#d5d9de", linewidth=0.7)
    for place, (arm, found) in enumerate(arms.items()):
        colour = COLOURS[arm != "scratch"]
        values = [100 * value for value in found.values()]
        axis.scatter([place] * len(values), values, s=13, color=colour, zorder=2, linewidths=0)
        mean = float(np.mean(values))
        axis.plot([place - 0.22, place + 0.22], [mean] * 2, color=colour, linewidth=2.5, zorder=3)
        axis.text(place + 0.25, mean, f"{mean:.1f}", color=colour, fontsize=9, va="center")
    axis.set_xticks(range(len(arms)), [arm.replace(", ", ",\n") for arm in arms], fontsize=9, color=INK)
    axis.set_xlim(-0.5, len(arms) - 0.3)
    axis.set_ylabel("Dice, mean of classes, %", fontsize=9, color=MUTED)
    axis.set_title(f"{task}: one labelled volume, a dot a seed", fontsize=10, color=INK)
    axis.tick_params(axis="y", labelsize=8, colors=MUTED)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
