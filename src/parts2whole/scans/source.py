"""What reading works with: where a scan lies, what came out of a file, and why it can't be read."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import unicodedata
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from parts2whole.errors import Parts2WholeError
from parts2whole.scans.volume import Direction, Triple

Which = int | Literal["channels"] | None
"""Of a file with several volumes: one by its index, all as channels, or None to refuse it."""


class ReadError(Parts2WholeError, ValueError):
    """A file that can't be read as a scan or a label map, and why."""


@dataclasses.dataclass(frozen=True)
class ScanSource:
    """Where one scan lies.

    Attributes:
        case_id: unique among the scans found, safe as a file name, without names of patients from DICOM.
        paths: the file, or the files of a DICOM series in the order of slices.
        problem: why it can't be used, where that shows before reading.
        patient: a salted hash of the patient id, or of the study where a DICOM series has an empty one.
        patient_named: whether it is that of a patient id.
        series: a salted hash of the series UID, or the UID itself if that was asked for.
        notes: what the user should know.
        frames: of multi-frame DICOM objects, for every slice in order the number of its file in ``paths`` and
            of its frame in the file; empty where every file is one slice.
    """

    case_id: str
    paths: tuple[Path, ...]
    problem: str | None = None
    patient: str | None = None
    series: str = ""
    notes: tuple[str, ...] = ()
    frames: tuple[tuple[int, int], ...] = ()
    patient_named: bool = True

    def slices(self) -> list[tuple[Path, int]]:
        """The file and the frame of every slice of a DICOM volume, in order."""
        return [(self.paths[file], frame) for file, frame in self.frames] or [
            (path, 0) for path in self.paths
        ]

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
        notes: what the user should know of how it was read.
    """

    array: npt.NDArray[Any]
    spacing_mm: Triple
    origin_mm: Triple
    direction: Direction
    modality: str | None = None
    notes: tuple[str, ...] = ()


def safe_name(name: str) -> str:
    """A relative path as one file name: letters, digits, dot, dash and underscore, at most 100 of them."""
    plain = unicodedata.normalize("NFKD", name.replace("\\", "/").replace("/", "__"))
    without_accents = "".join(letter for letter in plain if not unicodedata.combining(letter))
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", without_accents).strip(".").lstrip("-")
    if safe.strip("_-.") and len(safe) <= 100:
        return safe
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return "-".join(part for part in (safe[:80].strip("_-."), digest) if part)


def hashed(identity: str, salt: bytes) -> str:
    """An identity, such as a series UID, as the hash that stands for it in whatever is written."""
    return hashlib.blake2b(
        identity.encode(errors="surrogateescape"), key=salt[:64], digest_size=6
    ).hexdigest()
