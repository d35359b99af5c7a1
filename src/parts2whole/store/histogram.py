"""Cells: a coarse map of what lies where in a volume, so that wholes can be drawn from where something is.

A volume is divided into cells of `CELL` voxels.  For each is counted how many voxels lie in every twentieth
of the intensity range, and, of a label map, how many carry every label.  Counts are made once, when a case is
stored.  Drawing a cell by them, and a voxel in it, costs the same in a small scan and in a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.scans.preprocess import to_unit
from parts2whole.scans.volume import Box, Size

CELL = (16, 32, 32)
"""Voxels (z, y, x) of a cell."""

BINS = 20
"""Equal parts of the intensity range [0, 1]."""

Counts = npt.NDArray[np.uint16]
"""(kind, z, y, x): voxels of each kind in each cell; a cell has 16,384 voxels, so 16 bits hold them."""


def count_intensities(array: npt.NDArray[Any], *, scale: float, offset: float) -> Counts:
    """Voxels of every twentieth of the range, of the first channel.

    Args:
        array: stored voxels (channel, z, y, x); value in [0, 1] = array * scale + offset.
        scale: see ``array``.
        offset: see ``array``.
    """
    # By a table of all values there are: int16, uint8 and float16 have 65,536 at most.
    bits = np.dtype(f"u{array.itemsize}")
    every = np.nan_to_num(np.arange(np.iinfo(bits).max + 1, dtype=bits).view(array.dtype))
    unit = to_unit(every, scale=scale, offset=offset)
    return _count(array[0].view(bits), bins_of(unit).take, BINS)


def count_labels(label: npt.NDArray[Any], values: Sequence[int]) -> Counts:
    """Voxels of every one of ``values``, which are ascending and all that occur."""
    return _count(label, np.asarray(values).searchsorted, len(values))


def bins_between(low: float, high: float) -> slice:
    """The bins nearest to a range of values in [0, 1]; at least one."""
    first = int(np.clip(round(low * BINS), 0, BINS - 1))
    return slice(first, int(np.clip(round(high * BINS), first + 1, BINS)))


def bins_of(unit: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """The bin of every value in [0, 1]; one on the border of two, but for rounding, is in the upper one."""
    return np.clip(np.floor(unit * BINS + 1e-4), 0, BINS - 1).astype(np.intp)


def draw_cell(chances: npt.NDArray[np.float64], shape: Size, generator: np.random.Generator) -> Box | None:
    """The voxels of a cell of a volume of ``shape``, drawn by ``chances`` (z, y, x); None without chances."""
    sums = np.cumsum(chances)
    if not sums[-1] > 0:
        return None
    number = int(np.searchsorted(sums, generator.random() * sums[-1], side="right"))
    z, y, x = (int(index) * n for index, n in zip(np.unravel_index(number, chances.shape), CELL, strict=True))
    d, h, w = (min(n, edge - at) for n, edge, at in zip(CELL, shape, (z, y, x), strict=True))
    return Box((z, y, x), (d, h, w))


def _count(
    array: npt.NDArray[Any], to_kinds: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], number: int
) -> Counts:
    """Counts (kind, z, y, x) of the cells of an array (z, y, x), plane by plane, as these fit the cache."""
    z, y, x = (np.arange(edge) // cell for edge, cell in zip(array.shape, CELL, strict=True))
    shape = (int(z[-1]) + 1, int(y[-1]) + 1, int(x[-1]) + 1, number)
    first = (y[:, None] * shape[2] + x) * number
    counts = np.zeros((shape[0], np.prod(shape[1:])), np.int64)
    for slab, plane in zip(z, array, strict=True):
        counts[slab] += np.bincount((to_kinds(plane) + first).ravel(), minlength=counts.shape[1])
    return np.moveaxis(counts.reshape(shape), 3, 0).astype(np.uint16, order="C")
