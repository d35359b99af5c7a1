"""What a header may claim: sizes and geometry are checked before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from parts2whole.scans.source import Raw, ReadError
from parts2whole.scans.volume import Direction, Triple, triple

LARGEST_SCAN_VOXELS = 2**31
"""No scanner makes more in one scan; a header that promises more is refused unread."""

DEFLATE_LARGEST_RATIO = 1032
"""Gzip and zlib can't compress better, so a header that promises more bytes than this lies."""

PLAUSIBLE_MM = (0.02, 20.0)
"""A spacing outside is a unit gone wrong more often than a scan."""

SQUARE = 0.999
"""Axes whose unit vectors span less than this volume aren't at right angles."""


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
    if not places_voxels(columns):
        raise ReadError(f"{name}: its axes don't span space, so voxels have no place: {columns.tolist()}")
    spacing = np.linalg.norm(columns, axis=0)
    rows = columns / spacing
    return triple(spacing), triple(origin), (triple(rows[0]), triple(rows[1]), triple(rows[2]))


def places_voxels(columns: npt.NDArray[np.float64]) -> bool:
    """Whether three steps, one a column, are finite and span space."""
    lengths = np.linalg.norm(columns, axis=0)
    if not (np.isfinite(lengths).all() and lengths.min() > 0):
        return False
    return bool(abs(np.linalg.det(columns / lengths)) >= 1e-3)


def odd_geometry(raw: Raw) -> tuple[str, ...]:
    """Notes on a geometry that may be right and seldom is; the tilt of DICOM series is noted elsewhere."""
    notes = []
    if min(raw.spacing_mm) < PLAUSIBLE_MM[0] or max(raw.spacing_mm) > PLAUSIBLE_MM[1]:
        mm = " ".join(f"{each:.3g}" for each in raw.spacing_mm)
        notes.append(f"a spacing of {mm} mm is not plausible: its unit may be wrong")
    if raw.modality is None and abs(float(np.linalg.det(np.asarray(raw.direction)))) < SQUARE:
        notes.append("its axes are not at right angles")
    return tuple(notes)
