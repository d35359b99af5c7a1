"""The picture of a study of gain: how far its arms are from the reference arm, a dot a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from parts2whole.evaluation.endpoints import mean_interval
from parts2whole.report.figures import INK, MUTED, write_figure

ACCENT, OTHER = "#087f8c", "#7d8792"
SPREAD = 0.22
"""How far dots are moved to both sides so that they don't hide each other, of the distance between lines."""


@dataclass(frozen=True)
class Line:
    """An arm at one number of labels.

    Attributes:
        differences: of pairs of equal seed, as shown.
        told: whether their mean is told from zero.
        accent: whether it is the arm of interest.
    """

    differences: Sequence[float]
    told: bool
    accent: bool


def draw_differences(
    lines: Mapping[str, Mapping[str, Line]], labels: Sequence[str], path: Path, unit: str
) -> None:
    """Draw ``lines``, by arm and by labels: arms down and labels across; of one arm alone, labels down."""
    panels = {name: {arm: of[name] for arm, of in lines.items() if name in of} for name in labels}
    down = list(lines)
    if len(lines) == 1:
        ((arm, of_one),) = lines.items()
        panels, down = {arm: dict(of_one)}, list(labels)
    figure = Figure(figsize=(8.2, 1.0 + 0.38 * len(down)), dpi=140, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (title, shown) in zip(grid, panels.items(), strict=True):
        axes.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
        for name, line in shown.items():
            _draw(axes, down.index(name), line)
        axes.set_title(title, fontsize=8.5, color=INK, parse_math=False)
        axes.set_yticks(range(len(down)), down, fontsize=8.5, color=INK)
        axes.set_ylim(len(down) - 0.5, -0.5)
        axes.tick_params(labelsize=8, colors=MUTED, length=2)
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.supxlabel(unit, fontsize=8.5, color=MUTED)
    write_figure(path, figure)


def _draw(axes: Axes, place: int, line: Line) -> None:
    """Dots, their mean with its 95 % interval; the mean is filled where it is told from zero."""
    colour = ACCENT if line.accent else OTHER
    moved = place + SPREAD * np.linspace(-1, 1, max(2, len(line.differences)))[: len(line.differences)]
    axes.scatter(line.differences, moved, s=10, color=colour, alpha=0.5, linewidths=0, zorder=1)
    mean = float(np.mean(line.differences))
    interval = mean_interval(line.differences)
    if interval is not None:
        axes.plot(interval, [place] * 2, color=colour, linewidth=2.2, zorder=2)
    face = colour if line.told else "white"
    axes.scatter([mean], [place], s=34, facecolor=face, edgecolor=colour, linewidths=1.6, zorder=3)
