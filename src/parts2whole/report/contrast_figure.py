"""The figure of the poster's claim for print: loss and InfoNCE of every method side by side, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from parts2whole.report.contrast import correlate, curve_names, paired_curves, pretraining_names
from parts2whole.report.figures import INK, MUTED, FigureError, write_figure
from parts2whole.report.runs import Run

OWN, CONTRAST = "#087f8c", "#b5306e"
IN_A_ROW = 3


def write_contrast_figure(path: str | Path, runs: Sequence[Run]) -> Path:
    """Draw both curves of every run that recorded them, each on its own axis, with their correlation.

    Raises:
        FigureError: no run recorded both.
    """
    shown = [run for run in runs if len(paired_curves(run)) > 1]
    if not shown:
        raise FigureError("no pre-training recorded a loss and InfoNCE at two validations or more")
    names = pretraining_names(shown)
    columns = min(IN_A_ROW, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.3 * columns, 2.5 * rows), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(shown):
            axes.set_visible(False)
            continue
        run = shown[place]
        steps, losses, contrast = zip(*paired_curves(run), strict=True)
        words = curve_names(run)
        axes.plot(steps, losses, color=OWN, marker="o", markersize=3)
        axes.set_ylabel(words[0], color=OWN, fontsize=8)
        axes.set_xlabel("step", color=MUTED, fontsize=8)
        beside = axes.twinx()
        beside.plot(steps, contrast, color=CONTRAST, marker="s", markersize=3)
        beside.set_ylabel(words[1], color=CONTRAST, fontsize=8)
        title = f"{names[run.folder]}\n{correlate(run).describe()}"
        axes.set_title(title, fontsize=7.5, color=INK, loc="left", parse_math=False)  # as wide as the axes
        for one in (axes, beside):
            one.tick_params(labelsize=7, colors=MUTED)
            one.spines[["top"]].set_visible(False)
    return write_figure(Path(path), figure)
