"""What a store writes about its cases: records, as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from parts2whole.errors import Parts2WholeError
from parts2whole.files import read_json
from parts2whole.scans.volume import Direction, Triple


class StoreError(Parts2WholeError, ValueError):
    """A store that can't be opened or written, or a case that isn't in it."""


OWN_IDS = "the data set's own ids"
"""What told a patient where a record doesn't say."""


@dataclasses.dataclass(frozen=True, slots=True)
class CaseRecord:
    """What the store knows of a case.

    Attributes:
        case_id: unique in the store.
        patient: never split over two sides.
        modality: what it was prepared as: CT, MR or unit.
        channels: number of channels.
        shape: voxels (z, y, x) in canonical orientation.
        spacing_mm: distance between voxels (z, y, x).
        origin_mm: LPS position (x, y, z) of the first voxel.
        direction: columns are the LPS unit vectors of the array axes.
        scale: value in [0, 1] = stored * scale + offset.
        offset: see ``scale``.
        content_hash: of the original voxels in canonical orientation, before any preprocessing.
        channel_hashes: the same of every channel by itself, where there are several.
        checksum: of the stored voxels and labels.
        series: of a DICOM series a salted hash of its UID, or the UID if that was asked for.
        source: names of the files it was made from, without folders.
        has_label: whether a label map is stored.
        place: a hash of the folder that its files were in; empty for DICOM, and in stores of version 0.1.0.
        label_hash: of the original label map in canonical orientation; empty in stores of version 0.1.0.
        label_values: the values in it, ascending.
        file_spacing_mm: distance between voxels (z, y, x) of the files; None in stores of version 0.1.0.
        labels_lost: values of the label file that resampling has lost, ascending.
        notes: what the user should know.
        quantisation_error: largest difference, in [0, 1], made by storing.
        stamp: changes when the source files change.
        patient_by: what the patient was told by, in words; empty where the data set's own ids say so.
    """

    case_id: str
    patient: str
    modality: str
    channels: int
    shape: tuple[int, int, int]
    spacing_mm: Triple
    origin_mm: Triple
    direction: Direction
    scale: float
    offset: float
    content_hash: str
    checksum: str = ""
    series: str = ""
    source: tuple[str, ...] = ()
    has_label: bool = False
    label_values: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    quantisation_error: float = 0.0
    stamp: str = ""
    channel_hashes: tuple[str, ...] = ()
    labels_lost: tuple[int, ...] = ()
    patient_by: str = ""
    label_hash: str = ""
    place: str = ""
    file_spacing_mm: Triple | None = None

    def hashes(self) -> frozenset[str]:
        """Hashes of the scan and of every channel by itself: what it shares with a copy of any of them."""
        return frozenset((self.content_hash, *self.channel_hashes))

    def __post_init__(self) -> None:
        """Manifests may come from others: a case stays in the store's folder, and sizes make sense."""
        if not is_plain_name(self.case_id):
            raise StoreError(f"case id {self.case_id!r} is not a plain name, as those that prepare gives")
        shape: tuple[Any, ...] = self.shape
        spacing: tuple[Any, ...] = self.spacing_mm
        if len(shape) != 3 or not all(type(n) is int and 1 <= n < 2**31 for n in (self.channels, *shape)):
            raise StoreError(f"case {self.case_id}: impossible size {self.shape}, {self.channels} channels")
        if len(spacing) != 3 or not all(1e-6 < float(edge) < 1e6 for edge in spacing):
            raise StoreError(f"case {self.case_id}: impossible spacing {self.spacing_mm} mm")
        if not (math.isfinite(self.scale) and math.isfinite(self.offset) and self.scale != 0):
            raise StoreError(f"case {self.case_id}: impossible scale {self.scale} or offset {self.offset}")

    def to_plain(self) -> dict[str, Any]:
        """Data for JSON."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> CaseRecord:
        """Read what `to_plain` made.

        Raises:
            StoreError: values that no record of this program has.
            TypeError: fields are missing, unknown, or of another kind.
        """
        return cls(**{key: _tuples(value) if type(value) is list else value for key, value in plain.items()})


_FIELDS = tuple(field.name for field in dataclasses.fields(CaseRecord))


def describe_patients(records: Sequence[CaseRecord], patients: Collection[str]) -> str:
    """What patients of some cases are told apart by, in words, and how many were joined since.

    Args:
        records: of the cases.
        patients: who they are, where those that share a scan are one.
    """
    ways = Counter(record.patient_by or OWN_IDS for record in records)
    said = [f"{way} ({count} images)" if len(ways) > 1 else way for way, count in ways.most_common()]
    joined = len({record.patient for record in records}) - len(patients)
    copies = f"; scans equal voxel for voxel make {joined} of them one with another" if joined > 0 else ""
    return " and ".join(said) + copies


def is_plain_name(name: object) -> bool:
    """Whether a name can be that of a file in a folder and nothing else: no path, no hidden file."""
    return (
        isinstance(name, str)
        and 0 < len(name.encode(errors="replace")) <= 240
        and not name.startswith(".")
        and not any(sign in name for sign in "/\\\0")
    )


def read_records(folder: Path) -> list[CaseRecord]:
    """Every record in a folder."""
    found = []
    for file in sorted(folder.glob("*.json")):
        if not file.name.startswith("."):
            try:
                found.append(CaseRecord.from_plain(read_json(file)))
            except (ValueError, TypeError, AttributeError) as error:
                raise StoreError(f"{file} is not a record: {error}; delete it and prepare again") from error
    return found


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
