"""Montages: what a data set of phantoms looks like, one row for each patient."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from parts2whole.files import replacing
from parts2whole.phantom.brain import BrainScan
from parts2whole.phantom.ct import CtScan

LUNG_WINDOW, LIVER_WINDOW, ARTERY_WINDOW = (-1000.0, 400.0), (-160.0, 240.0), (-150.0, 500.0)
HEIGHT_INCHES, DOTS = 1.45, 110
CONTOUR = "#ff9f1c"
GREYS = 28
"""Few colours compress well, so that pages with montages load fast."""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A slice to show.

    Attributes:
        grey: rows downwards.
        window: values shown black and white.
        aspect: height over width of a pixel.
        mask: outlined.
    """

    grey: npt.NDArray[Any]
    window: tuple[float, float]
    aspect: float
    mask: npt.NDArray[np.bool_]


def picture_ct(scan: CtScan, mask: npt.NDArray[np.bool_], window: tuple[float, float]) -> list[Picture]:
    """Three axial slices from below upwards, the slice with most of a mask, and a coronal one."""
    array = scan.image.array
    z, y, x = scan.image.spacing_mm
    empty = np.zeros_like(mask[0])
    levels = [round(share * (len(array) - 1)) for share in (0.2, 0.45, 0.7)]
    row = [Picture(array[level], window, y / x, empty) for level in levels]
    most = int(mask.sum(axis=(1, 2)).argmax())
    row.append(Picture(array[most], window, y / x, mask[most]))
    front = array[::-1, array.shape[1] // 2]
    return [*row, Picture(front, window, z / x, np.zeros_like(front, dtype=bool))]


def picture_brain(scan: BrainScan) -> list[Picture]:
    """The slice with most tumour in every modality, and once more with its outline."""
    label = scan.label.array
    level = int((label > 0).sum(axis=(1, 2)).argmax())
    row = []
    for image in scan.images.values():
        plane = image.array[level]
        high = float(np.percentile(plane[plane > 0], 99.5))
        row.append(Picture(plane, (0.0, high), 1.0, np.zeros_like(plane, dtype=bool)))
    return [*row, dataclasses.replace(row[-1], mask=label[level] > 0)]


def write_montage(path: Path, rows: Sequence[Sequence[Picture]]) -> Path:
    """Write pictures as PNG, whole."""
    widths = [_width(picture) for picture in rows[0]]
    figure = Figure(figsize=(sum(widths), HEIGHT_INCHES * len(rows)), dpi=DOTS, facecolor="black")
    canvas: Any = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(rows),
        len(widths),
        width_ratios=widths,
        left=0,
        right=1,
        bottom=0,
        top=1,
        wspace=0.01,
        hspace=0.01,
    )
    for number, row in enumerate(rows):
        for column, shown in enumerate(row):
            axes = figure.add_subplot(grid[number, column])
            low, high = shown.window
            axes.imshow(shown.grey, cmap="gray", vmin=low, vmax=high, aspect=shown.aspect)
            if shown.mask.any():
                axes.contour(shown.mask, levels=[0.5], colors=CONTOUR, linewidths=0.6)
            axes.set_axis_off()
    canvas.draw()
    picture = Image.fromarray(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    with replacing(path) as beside:
        picture.quantize(palette=_palette(), dither=Image.Dither.NONE).save(beside, "png", optimize=True)
    return path


def _palette() -> Image.Image:
    """Greys, and the colour of contours."""
    greys = [round(255 * step / (GREYS - 1)) for step in range(GREYS)]
    contour = [int(CONTOUR[place : place + 2], 16) for place in (1, 3, 5)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(value for grey in greys for value in (grey, grey, grey)), *contour])
    return palette


def _width(picture: Picture) -> float:
    rows, columns = picture.grey.shape
    return HEIGHT_INCHES * min(1.7, float(columns / (rows * picture.aspect)))
