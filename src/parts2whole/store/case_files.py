"""The files of one case in a store: built beside, read back, and only then put in place, the record last."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.files import replacing, write_json
from parts2whole.scans.preprocess import StoredType
from parts2whole.store.chunks import ChunkedArray, ChunkError, Place, write_cells, write_image, write_mask
from parts2whole.store.histogram import count_intensities, count_labels
from parts2whole.store.location import remove
from parts2whole.store.record import CaseRecord, StoreError

RECORDS, CASES = "records", "cases"


def case_path(path: Path, case_id: str) -> Path:
    """Folder of a case in the store in ``path``."""
    return path / CASES / f"{case_id}.zarr"


def remove_case(path: Path, case_id: str) -> None:
    """Remove a case, its record first."""
    (path / RECORDS / f"{case_id}.json").unlink(missing_ok=True)
    remove(case_path(path, case_id))


def damage(path: Path, record: CaseRecord) -> str | None:
    """What is wrong with the stored voxels and labels of a case; None if they have their checksum."""
    try:
        found = _read_back(case_path(path, record.case_id), record.has_label)
    except ChunkError as error:
        return str(error)
    return None if found == record.checksum else "its voxels or labels are not those that were written"


def write_case(
    path: Path,
    record: CaseRecord,
    array: npt.NDArray[Any],
    label: npt.NDArray[Any] | None = None,
    *,
    dtype: StoredType,
) -> CaseRecord:
    """`Store.write_case` for a worker, which needs the folder and not the records."""
    expected = (record.channels, *record.shape)
    if array.shape != expected or array.dtype != np.dtype(dtype):
        raise StoreError(f"{record.case_id}: expected {dtype} {expected}, got {array.dtype} {array.shape}")
    if label is not None and (label.shape != record.shape or label.dtype.kind not in "iu"):
        raise StoreError(
            f"{record.case_id}: expected an integer label {record.shape}, got {label.dtype} {label.shape}"
        )
    record = dataclasses.replace(
        record,
        checksum=_checksum(array, label),
        has_label=label is not None,
        label_values=() if label is None else tuple(int(value) for value in np.unique(label)),
    )
    final = case_path(path, record.case_id)
    about = path / RECORDS / f"{record.case_id}.json"
    try:
        with replacing(final) as beside:
            about.unlink(missing_ok=True)
            write_image(beside, record.case_id, array, _place(record, dtype))
            write_cells(beside, count_intensities(array, scale=record.scale, offset=record.offset))
            if label is not None:
                write_mask(beside, label, _place(record, dtype))
                write_cells(beside / "labels" / "mask", count_labels(label, record.label_values))
            if _read_back(beside, record.has_label) != record.checksum:
                raise StoreError(f"{record.case_id}: what was written reads back differently; check the disk")
            remove(final)
    except ChunkError as error:
        raise StoreError(str(error)) from error
    write_json(about, record.to_plain())
    return record


def _place(record: CaseRecord, dtype: StoredType) -> Place:
    """Where the voxels of a case lie, and whether they are Hounsfield units as they are; see `quantise`."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(record.direction) * np.asarray(record.spacing_mm)
    affine[:3, 3] = record.origin_mm
    low = record.offset / record.scale
    is_hu = dtype == "int16" and record.modality == "CT" and record.scale != 1 / np.iinfo(np.int16).max
    return Place(
        record.spacing_mm,
        affine,
        record.scale,
        record.offset,
        hounsfield=is_hu and abs(low - round(low)) < 1e-3,
    )


def _read_back(folder: Path, has_label: bool) -> str:
    """Checksum of what lies in a case's folder."""
    label = ChunkedArray(folder / "labels" / "mask" / "0").read() if has_label else None
    return _checksum(ChunkedArray(folder / "0").read(), label)


def _checksum(array: npt.NDArray[Any], label: npt.NDArray[Any] | None) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    for part in (array, label):
        if part is not None:
            hasher.update(f"{part.dtype.str}{part.shape}".encode())
            hasher.update(np.ascontiguousarray(part).data)
    return hasher.hexdigest()
