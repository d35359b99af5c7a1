"""What reading works with: where a scan lies, what came out of a file, and why it can't be read."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from parts2whole.data.volume import Direction, Triple

Which = int | Literal["channels"] | None
"""Of a file with several volumes: one by its index, all as channels, or None to refuse it."""

LARGEST_SCAN_VOXELS = 2**31
"""No scanner makes more in one scan; a header that promises more is refused unread."""

DEFLATE_LARGEST_RATIO = 1032
"""Gzip and zlib can't compress better, so a header that promises more bytes than this lies."""


class ReadError(ValueError):
    """A file that can't be read as a scan or a label map, and why."""


@dataclasses.dataclass(frozen=True)
class ScanSource:
    """Where one scan lies.

    Attributes:
        case_id: unique among the scans found, safe as a file name, without names of patients from DICOM.
        paths: the file, or the files of a DICOM series in the order of slices.
        problem: why it can't be used, where that shows before reading.
        patient: a salted hash of the patient id, where the file holds one.
        series: a salted hash of the series UID, or the UID itself if that was asked for.
        notes: what the user should know.
    """

    case_id: str
    paths: tuple[Path, ...]
    problem: str | None = None
    patient: str | None = None
    series: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_series(self) -> bool:
        """Whether it comes from DICOM files."""
        return bool(self.series)


@dataclasses.dataclass(frozen=True, eq=False)
class Raw:
    """What a file holds.

    Attributes:
        array: (volume, z, y, x), in the order of the file.
        spacing_mm: of (z, y, x).
        origin_mm: LPS position of the first voxel.
        direction: columns are the LPS unit vectors of the array axes.
        modality: what the file says it is.
    """

    array: npt.NDArray[Any]
    spacing_mm: Triple
    origin_mm: Triple
    direction: Direction
    modality: str | None = None


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


def safe_name(name: str) -> str:
    """A relative path as one file name: letters, digits, dot, dash and underscore, at most 100 of them."""
    plain = unicodedata.normalize("NFKD", name.replace("\\", "/").replace("/", "__"))
    without_accents = "".join(letter for letter in plain if not unicodedata.combining(letter))
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", without_accents).strip(".").lstrip("-")
    if safe.strip("_-.") and len(safe) <= 100:
        return safe
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return "-".join(part for part in (safe[:80].strip("_-."), digest) if part)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its class."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
