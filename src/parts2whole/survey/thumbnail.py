"""Small grey pictures of the middle of a volume: axial, coronal and sagittal, at the scale of the patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.scans.preprocess import resample
from parts2whole.scans.volume import LabelVolume, Triple, Volume

TILE, GAP = 64, 2
"""Edge of the picture of a slice, and what separates it from the next, in pixels."""


def draw_slices(
    volume: Volume, *, window: tuple[float, float] = (0.0, 1.0), labels: Sequence[int] = ()
) -> npt.NDArray[np.uint8]:
    """Three slices side by side, seen as radiologists do, with superior at the top.

    Args:
        volume: (z, y, x), in canonical orientation.
        window: values shown black and white.
        labels: of a label map, the values in it, each shown in a grey of its own; then the slices that hold
            most of it are drawn instead of those in the middle.

    Returns:
        A picture (row, column) of 64 by 196 pixels.
    """
    sheet = np.zeros((TILE, 3 * TILE + 2 * GAP), np.uint8)
    inside = volume.array != 0 if labels else None
    for axis in range(3):
        if inside is None:
            index = volume.shape[axis] // 2
        else:
            index = int(np.count_nonzero(inside, axis=tuple({0, 1, 2} - {axis})).argmax())
        plane = np.take(volume.array, index, axis=axis)
        height, width = (mm for other, mm in enumerate(volume.spacing_mm) if other != axis)
        tile = _fit(_grey(plane, window, labels), (1.0, height, width), nearest=bool(labels))
        tile = tile[::-1] if axis else tile
        top, left = (TILE - tile.shape[0]) // 2, (TILE - tile.shape[1]) // 2 + axis * (TILE + GAP)
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _grey(
    plane: npt.NDArray[Any], window: tuple[float, float], labels: Sequence[int]
) -> npt.NDArray[np.floating[Any]]:
    """Values as 0 to 255."""
    if labels:
        ranks = np.searchsorted(labels, plane)
        return np.where(plane == 0, 0.0, 80.0 + 175.0 * ranks / max(1, len(labels) - 1))
    low, high = window if window[0] < window[1] else (float(plane.min()), float(plane.max()))
    grey: npt.NDArray[np.float32] = 255 * np.clip(
        (plane.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1
    )
    return grey


def _fit(grey: npt.NDArray[Any], spacing_mm: Triple, *, nearest: bool) -> npt.NDArray[np.uint8]:
    """A slice with square pixels, as large as fits a tile."""
    extent = max(grey.shape[0] * spacing_mm[1], grey.shape[1] * spacing_mm[2])
    wanted = (1.0, extent / TILE, extent / TILE)
    if nearest:
        array = resample(LabelVolume(np.rint(grey[None]).astype(np.uint8), spacing_mm), wanted).array[0]
    else:
        array = resample(Volume(grey[None].astype(np.float32), spacing_mm), wanted).array[0]
    tile: npt.NDArray[np.uint8] = np.clip(np.rint(array), 0, 255).astype(np.uint8)[:TILE, :TILE]
    return tile
