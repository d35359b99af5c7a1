"""What a header may claim: sizes and geometry are checked before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from parts2whole.scans.source import ReadError
from parts2whole.scans.volume import Direction, Triple

LARGEST_SCAN_VOXELS = 2**31
"""No scanner makes more in one scan; a header that promises more is refused unread."""

DEFLATE_LARGEST_RATIO = 1032
"""Gzip and zlib can't compress better, so a header that promises more bytes than this lies."""


def check_size(
    name: str, shape: Sequence[int], itemsize: int, *, start: int, size: int, packed: bool
) -> None:
    """Refuse a header that promises more than its file, of ``size`` bytes, can hold.

    Raises:
        ReadError: too many voxels for any scan, for this machine, or for this file.
    """
    declared = 1
    for edge in shape:
        declared *= int(edge)
    if declared > LARGEST_SCAN_VOXELS:
        raise ReadError(
            f"{name}: the header promises {declared:,} voxels {tuple(shape)}, "
            f"more than the {LARGEST_SCAN_VOXELS:,} any scan may have; refused unread"
        )
    memory = physical_memory()
    if declared * itemsize > memory:
        raise ReadError(
            f"{name}: the header promises {declared * itemsize / 1e9:,.1f} GB of voxels, "
            f"this machine has {memory / 1e9:,.1f} GB of memory; refused unread"
        )
    room = size * DEFLATE_LARGEST_RATIO if packed else size
    needed = start + declared * itemsize
    if needed > room:
        raise ReadError(
            f"{name}: truncated: the header promises {needed:,} bytes, the file can hold {room:,}"
        )


def physical_memory() -> float:
    """Bytes of memory of this machine; infinite where the system doesn't tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def geometry(
    columns: npt.NDArray[np.float64], origin: npt.NDArray[np.float64], name: str
) -> tuple[Triple, Triple, Direction]:
    """Spacing, origin and direction from the LPS steps in mm, one column for each of z, y, x.

    Raises:
        ReadError: steps that aren't finite, or don't span space.
    """
    if not (np.isfinite(columns).all() and np.isfinite(origin).all()):
        raise ReadError(f"{name}: its geometry holds values that aren't numbers")
    spacing = np.linalg.norm(columns, axis=0)
    if spacing.min() <= 0 or abs(np.linalg.det(columns / np.where(spacing > 0, spacing, 1))) < 1e-3:
        raise ReadError(f"{name}: its axes don't span space, so voxels have no place: {columns.tolist()}")
    rows = columns / spacing
    return triple(spacing), triple(origin), (triple(rows[0]), triple(rows[1]), triple(rows[2]))


def triple(values: npt.NDArray[np.float64]) -> Triple:
    """Three numbers as a tuple, without negative zeros."""
    a, b, c = (float(value) + 0.0 for value in values)
    return a, b, c
