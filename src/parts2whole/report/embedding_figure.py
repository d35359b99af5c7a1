"""Parts of wholes as the networks of a study see them, before and after training, side by side, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from parts2whole.report.contrast import pretraining_names
from parts2whole.report.embedding import KINDS, STAGES, Embedding, read_embedding
from parts2whole.report.figures import INK, MUTED, FigureError, write_figure
from parts2whole.report.runs import Run

PROJECTION = "t-SNE"
IN_A_ROW = 2
COLOURS = colormaps["tab20"].colors  # type: ignore[attr-defined]
SHAPES = "os^Dv"


def write_embedding_figure(path: str | Path, runs: Sequence[Run]) -> Path:
    """Draw the t-SNE of every run that kept one, before training and, to the right, after it.

    Parts of one whole have one colour; the number is how often the nearest other part is of the same whole,
    in the embedding itself and not in the plane.

    Raises:
        FigureError: no run kept an embedding.
        RunError: a file of one is damaged.
    """
    read = [(run, read_embedding(run.folder)) for run in runs]
    found = [
        (run, embedding) for run, embedding in read if embedding and PROJECTION in embedding.points["after"]
    ]
    if not found:
        raise FigureError("no pre-training kept an embedding; see parts2whole embed")
    names = pretraining_names([run for run, _ in found])
    columns, rows = min(IN_A_ROW, len(found)), -(-len(found) // IN_A_ROW)
    figure = Figure(figsize=(4.6 * columns, 2.6 * rows), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, len(STAGES) * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_visible(False)
    for place, (run, embedding) in enumerate(found):
        row, column = divmod(place, columns)
        for beside, stage in enumerate(STAGES):
            _draw(grid[row, len(STAGES) * column + beside], embedding, stage, names[run.folder])
    return write_figure(Path(path), figure)


def _draw(axes: Axes, embedding: Embedding, stage: str, name: str) -> None:
    axes.set_visible(True)
    x, y = embedding.points[stage][PROJECTION].T
    for whole in range(len(embedding.names)):
        of = embedding.whole == whole
        colour, shape = COLOURS[whole % len(COLOURS)], SHAPES[whole // len(COLOURS) % len(SHAPES)]
        axes.scatter(x[of], y[of], s=11, color=colour, marker=shape, linewidths=0)
    start, _ = KINDS[embedding.features]
    numbers = embedding.numbers[stage]
    share, chance = numbers.get(f"{start}which_whole"), numbers.get("which_whole_chance")
    told = f": {100 * share:.0f} %" if share is not None else ""
    told += f" (chance {100 * chance:.0f} %)" if told and chance is not None and stage == "before" else ""
    title = f"{name if stage == 'before' else ''}\n{stage} training{told}"
    axes.set_title(title, fontsize=8.5, color=INK, loc="left", parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(MUTED)
        spine.set_linewidth(0.5)
