"""Pictures of volumes: reconstruction panels, segmentation contours, and sprite sheets for the page.

Axes are (z, y, x) in canonical orientation (superior, posterior, left), so that axial slices show in the
radiological convention as they are, and coronal and sagittal slices with their z axis turned up.
Matplotlib is used through its objects only: no global state, no display.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from parts2whole.errors import Parts2WholeError
from parts2whole.files import replacing
from parts2whole.report.runs import Panel, Spacing

Plane = Literal["axial", "coronal", "sagittal"]
Array = npt.NDArray[Any]

AXIS: dict[Plane, int] = {"axial": 0, "coronal": 1, "sagittal": 2}
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
ERROR_MAP = "magma"
INK, MUTED = "#1c2126", "#68707a"
REFERENCE, PREDICTION = "#35d0ba", "#ff9f1c"
CLASSES = ("#35d0ba", "#ff9f1c", "#e85d9e", "#6ea8fe", "#c3e88d", "#f5e663", "#b48ef0")
TILE_INCHES = 1.65
LONGEST_NAME = 22


class FigureError(Parts2WholeError, ValueError):
    """Arrays that make no picture."""


def take_slice(volume: Array, plane: Plane, index: int) -> Array:
    """A slice of a (z, y, x) volume as it is looked at: rows downwards, superior at the top."""
    flat: Array = np.take(volume, index, axis=AXIS[plane])
    return flat if plane == "axial" else flat[::-1]


def pixel_aspect(plane: Plane, spacing_mm: Spacing) -> float:
    """Height over width of a pixel of `take_slice`."""
    z, y, x = spacing_mm
    return {"axial": y / x, "coronal": z / x, "sagittal": z / y}[plane]


def write_panel(
    path: str | Path,
    panel: Panel,
    *,
    title: str = "",
    planes: Sequence[Plane] = ("axial",),
    error_max: float = 0.5,
) -> Path:
    """Draw samples of a reconstruction as PNG: part, reconstruction, whole and absolute error.

    Grey is fixed to 0..1 and error to 0..``error_max``, so that panels of different steps can be compared.
    Where a part is a box of its whole, slices of the whole go through its middle, and it is drawn on them.

    Args:
        path: the PNG file.
        panel: the samples.
        title: drawn above.
        planes: slices to draw of every sample, through its middle; `PLANES` for all three.
        error_max: error at the end of the colour scale.

    Raises:
        FigureError: no sample.
    """
    whole, boxes, spacings = panel.whole, panel.boxes, panel.spacings_mm
    if not len(whole):
        raise FigureError("a panel without a sample makes no picture")
    columns = [(panel.seen, panel.part), ("Reconstruction", panel.reconstruction), ("Whole", whole)]
    columns.append(("Absolute error", np.abs(panel.reconstruction - whole)))
    rows = [(sample, plane) for sample in range(len(whole)) for plane in planes]
    grid = _Grid(
        widths=[TILE_INCHES] * 4,
        heights=[
            TILE_INCHES * min(1.35, _height_over_width(whole.shape[1:], plane, spacings[sample]))
            for sample, plane in rows
        ],
        left=0.62,
        right=0.66,
        top=0.66 if title else 0.34,
    )
    figure = grid.figure
    for row, (sample, plane) in enumerate(rows):
        for column, (label, array) in enumerate(columns):
            axes = grid.axes(row, column)
            middle = array.shape[1 + AXIS[plane]] // 2
            if boxes is not None and column:
                middle = int(boxes[sample, AXIS[plane]].mean())
            error = column == 3
            axes.imshow(
                take_slice(array[sample], plane, middle),
                cmap=ERROR_MAP if error else "gray",
                vmin=0,
                vmax=error_max if error else 1,
                aspect=pixel_aspect(plane, spacings[sample]),
                interpolation="nearest",
            )
            if boxes is not None and column == 2:
                _draw_box(axes, boxes[sample], plane, array.shape[1])
            if row == 0:
                axes.set_title(label, fontsize=9, color=INK, pad=5)
        name = panel.names[sample] if sample < len(panel.names) else f"sample {sample + 1}"
        lines = [_shorten(name)] if plane == planes[0] else []
        lines += [plane] if len(planes) > 1 else []
        grid.axes(row, 0).set_ylabel("\n".join(lines), fontsize=7.5, color=MUTED, parse_math=False)
    if title:
        grid.title(title)
    scale = ScalarMappable(Normalize(0, error_max), ERROR_MAP)
    bar = figure.colorbar(scale, cax=grid.beside(), extend="max")
    bar.ax.tick_params(labelsize=7, colors=MUTED)
    bar.outline.set_visible(False)
    return write_figure(Path(path), figure)


def write_segmentation_panel(
    path: str | Path,
    image: Array,
    reference: Array,
    prediction: Array,
    *,
    spacing_mm: Spacing = (1.0, 1.0, 1.0),
    classes: Sequence[str] = (),
    title: str = "",
) -> Path:
    """Draw one segmented case as PNG: three planes, plain and with the contours of both masks.

    The slices are those where the reference (or, where there is none, the prediction) is largest.

    Args:
        path: the PNG file.
        image: (z, y, x) in [0, 1].
        reference: true classes, integers alike, 0 is background.
        prediction: found classes, alike.
        spacing_mm: distance between voxels along (z, y, x).
        classes: their names, background included.
        title: drawn above, such as "worst case: P012, Dice 0.41".

    Raises:
        FigureError: shapes that differ.
    """
    shapes = {image.shape, reference.shape, prediction.shape}
    if len(shapes) > 1 or image.ndim != 3:
        raise FigureError(f"image, reference and prediction must be alike (z, y, x), got {sorted(shapes)}")
    found = [int(v) for v in np.union1d(np.unique(reference), np.unique(prediction)) if v > 0]
    ratios = [_height_over_width(image.shape, plane, spacing_mm) for plane in PLANES]
    height = 2.2
    widths = [min(4.0, height / ratio) for ratio in ratios]
    grid = _Grid(
        widths=widths, heights=[height] * 2, left=0.1, right=0.1, top=0.66 if title else 0.34, bottom=0.42
    )
    for column, plane in enumerate(PLANES):
        index = _largest_slice(reference if reference.any() else prediction, AXIS[plane])
        for row in range(2):
            axes = grid.axes(row, column)
            axes.imshow(
                take_slice(image, plane, index),
                cmap="gray",
                vmin=0,
                vmax=1,
                aspect=pixel_aspect(plane, spacing_mm),
                interpolation="nearest",
            )
            if row == 0:
                axes.set_title(
                    f"{plane}, slice {index + 1} of {image.shape[AXIS[plane]]}", fontsize=8.5, color=INK
                )
                continue
            for value in found:
                solid, dashed = _contour_colours(value, found)
                _contour(axes, take_slice(reference == value, plane, index), solid, "solid")
                _contour(axes, take_slice(prediction == value, plane, index), dashed, (0, (3, 1.5)))
    if title:
        grid.title(title)
    handles = []
    for value in found:
        name = str(classes[value]) if value < len(classes) else f"class {value}"
        prefix = "" if len(found) == 1 and value >= len(classes) else f"{name}: "
        solid, dashed = _contour_colours(value, found)
        handles.append(Line2D([], [], color=solid, linestyle="-", label=f"{prefix}reference"))
        handles.append(Line2D([], [], color=dashed, linestyle="--", label=f"{prefix}prediction"))
    if handles:
        legend = grid.figure.legend(
            handles=handles,
            loc="lower center",
            ncols=min(4, len(handles)),
            fontsize=8,
            frameon=False,
            labelcolor=INK,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return write_figure(Path(path), grid.figure)


@dataclass(frozen=True)
class Sprite:
    """All slices of a sample's part, reconstruction and whole in one grey PNG.

    Tiles are axial slices, left to right and top to bottom: all of the part, then of the reconstruction,
    then of the whole.

    Attributes:
        png: the file.
        shape: size (z, y, x) of each of the three volumes in it.
        columns: tiles in a row.
        thinned: every how many-th voxel was kept to make it fit.
    """

    png: bytes
    shape: tuple[int, int, int]
    columns: int
    thinned: int


def make_sprite(part: Array, reconstruction: Array, whole: Array, *, max_bytes: int) -> Sprite:
    """Pack three volumes (z, y, x) in [0, 1] into one PNG of at most about ``max_bytes``."""
    for thinned in range(1, 65):
        stack = np.stack([v[::thinned, ::thinned, ::thinned] for v in (part, reconstruction, whole)])
        _, z, y, x = stack.shape
        grey = np.rint(np.clip(np.nan_to_num(stack), 0, 1) * 255).astype(np.uint8).reshape(-1, y, x)
        columns = max(1, round(math.sqrt(len(grey) * y / x)))
        rows = -(-len(grey) // columns)
        sheet = np.zeros((rows * columns, y, x), np.uint8)
        sheet[: len(grey)] = grey
        png = grey_png(sheet.reshape(rows, columns, y, x).swapaxes(1, 2).reshape(rows * y, columns * x))
        if len(png) <= max_bytes:
            break
    return Sprite(png, (z, y, x), columns, thinned)


def grey_png(image: npt.NDArray[np.uint8]) -> bytes:
    """An 8-bit grey PNG of a (row, column) image, without colour management, so that values stay exact."""
    above = np.vstack([np.zeros_like(image[:1]), image[:-1]])
    lines = np.hstack([np.full((len(image), 1), 2, np.uint8), image - above])  # filter 2: difference to above
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def error_colours() -> bytes:
    """The 256 colours of the error scale, three bytes each."""
    table = matplotlib.colormaps[ERROR_MAP](np.arange(256))[:, :3]
    return bytes(np.rint(table * 255).astype(np.uint8))


class _Grid:
    """A figure of images in rows and columns, laid out in inches so that nothing is stretched or cut."""

    def __init__(
        self,
        *,
        widths: Sequence[float],
        heights: Sequence[float],
        left: float,
        right: float,
        top: float,
        bottom: float = 0.1,
        gap: float = 0.06,
    ) -> None:
        self.widths, self.heights, self.left, self.gap = widths, heights, left, gap
        self.width = left + sum(widths) + gap * (len(widths) - 1) + right
        self.height = top + sum(heights) + gap * (len(heights) - 1) + bottom
        self.top, self.right = top, right
        self.figure = Figure(figsize=(self.width, self.height), dpi=130, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.made: dict[tuple[int, int], Axes] = {}

    def axes(self, row: int, column: int) -> Axes:
        """The axes at a place, made when first asked for."""
        if (row, column) not in self.made:
            x = self.left + sum(self.widths[:column]) + self.gap * column
            y = self.height - self.top - sum(self.heights[: row + 1]) - self.gap * row
            axes = self._add(x, y, self.widths[column], self.heights[row])
            axes.set(xticks=[], yticks=[], facecolor="black")
            for spine in axes.spines.values():
                spine.set_visible(False)
            self.made[row, column] = axes
        return self.made[row, column]

    def beside(self) -> Axes:
        """Narrow axes right of the grid, for a colour bar."""
        height = min(3.0, sum(self.heights) * 0.9)
        middle = self.height - self.top - (sum(self.heights) + self.gap * (len(self.heights) - 1)) / 2
        return self._add(self.width - self.right + 0.12, middle - height / 2, 0.11, height)

    def title(self, text: str) -> None:
        """Text at the top left."""
        self.figure.text(
            self.left / self.width,
            1 - 0.16 / self.height,
            text,
            fontsize=11,
            weight="bold",
            color=INK,
            va="top",
            parse_math=False,
        )

    def _add(self, x: float, y: float, width: float, height: float) -> Axes:
        return self.figure.add_axes(
            (x / self.width, y / self.height, width / self.width, height / self.height)
        )


def _height_over_width(shape: Sequence[int], plane: Plane, spacing_mm: Spacing) -> float:
    """Proportion of a slice, kept within what fits a page."""
    sides = [size * step for size, step in zip(shape, spacing_mm, strict=True)]
    del sides[AXIS[plane]]
    return min(3.0, max(0.15, sides[0] / sides[1]))


def _largest_slice(mask: Array, axis: int) -> int:
    """Index along ``axis`` of the slice with most foreground; the middle where there is none."""
    counts = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
    return int(counts.argmax()) if counts.any() else mask.shape[axis] // 2


def _contour_colours(value: int, found: Sequence[int]) -> tuple[str, str]:
    """Colours of the reference and the prediction; with several classes the colour says which class."""
    if len(found) == 1:
        return REFERENCE, PREDICTION
    colour = CLASSES[found.index(value) % len(CLASSES)]
    return colour, colour


def _contour(axes: Axes, mask: Array, colour: str, style: Any) -> None:
    """The outline of a mask, closed at the border of the image."""
    if not mask.any():
        return
    padded = np.pad(mask.astype(np.float32), 1)
    rows, columns = (np.arange(size) - 1 for size in padded.shape)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.contour(columns, rows, padded, levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.2)
    axes.set(xlim=limits[0], ylim=limits[1])


def _draw_box(axes: Axes, box: Array, plane: Plane, depth: int) -> None:
    """The outline of a box on a slice through it, of a whole with ``depth`` voxels along z."""
    down, across = (axis for axis in range(3) if axis != AXIS[plane])
    top, bottom = box[down] if plane == "axial" else depth - box[down][::-1]
    left, right = box[across]
    corner = (left - 0.5, top - 0.5)  # pixels are centred on whole numbers
    outline = Rectangle(
        corner, right - left, bottom - top, fill=False, edgecolor=PREDICTION, linestyle="--", linewidth=1.2
    )
    outline.set_clip_on(False)
    axes.add_patch(outline)


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 :]}"


def write_figure(path: Path, figure: Figure) -> Path:
    """Write a figure as PNG."""
    with replacing(path) as beside:
        figure.savefig(beside, format="png")
    return path
