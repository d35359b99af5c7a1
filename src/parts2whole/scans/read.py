"""Reading scans and label maps: files in, `Volume` or `LabelVolume` out; the only package that knows formats.

Arrays come out in (z, y, x) with the geometry of the file, in LPS millimetres.  A header is checked before
anything is allocated, so that a broken or hostile file costs a line in a report and not the machine's memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.scans.checks import odd_geometry
from parts2whole.scans.dicom import find_series, instance_numbers, read_series, user_salt
from parts2whole.scans.find import SUFFIXES, find_scans, name_twins, scan_files, strip_suffix
from parts2whole.scans.itk import SUFFIXES as ITK_SUFFIXES
from parts2whole.scans.itk import data_files, read_itk
from parts2whole.scans.layout import is_dicom
from parts2whole.scans.matlab import read_matlab
from parts2whole.scans.nifti import read_nifti, smallest_integer, write_mask_like, write_nifti
from parts2whole.scans.ome_zarr import files_of, is_ome_zarr, read_ome_zarr
from parts2whole.scans.source import Raw, ReadError, ScanSource, Which, safe_name
from parts2whole.scans.stamps import stamp_files
from parts2whole.scans.volume import LabelVolume, Volume, from_canonical_array

__all__ = [
    "SUFFIXES",
    "ReadError",
    "ScanSource",
    "Which",
    "compact",
    "file_stamp",
    "find_scans",
    "instance_numbers",
    "name_twins",
    "read_label",
    "read_matlab",
    "read_scan",
    "read_volume",
    "safe_name",
    "scan_files",
    "strip_suffix",
    "user_salt",
    "write_label_like",
    "write_nifti",
]


def read_scan(source: ScanSource, *, which: Which = None) -> Volume:
    """Read what `find_scans` found.

    Raises:
        ReadError: as `read_volume`, or the problem found with it.
    """
    if source.problem is not None:
        raise ReadError(source.problem)
    if source.is_series:
        return _as_volume(read_series(source), "the series", which)
    return read_volume(source.paths[0], which=which)


def read_volume(path: Path, *, which: Which = None) -> Volume:
    """Read a scan: int16 where the voxels are whole numbers that fit, else float32.

    Args:
        path: the file, or a folder that holds one DICOM volume.
        which: of a file with several volumes, one by its index, or ``"channels"`` for all; None refuses it.

    Raises:
        ReadError: missing, broken or colour file, impossible geometry, or voxels that aren't finite.
    """
    path = Path(path)
    return _as_volume(_read(path), path.name, which)


def read_label(path: Path) -> LabelVolume:
    """Read a label map, in the smallest integer type that holds its values.

    Raises:
        ReadError: as `read_volume`, or values that aren't whole numbers.
    """
    path = Path(path)
    raw = _read(path)
    array = _choose(raw, path.name, None)
    if array.dtype.kind == "f":
        whole = np.rint(array)
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(array - whole) <= 1e-3)
        if wrong.any():
            raise ReadError(f"{path.name}: labels must be whole numbers, found {float(array[wrong][0]):g}")
        array = whole
    label = array.astype(smallest_integer(array))
    return LabelVolume(label, raw.spacing_mm, raw.origin_mm, raw.direction)


def write_label_like(reference: ScanSource | Path, label: npt.NDArray[Any], out: Path) -> None:
    """Write a label map as NIfTI in the exact geometry of a scan: same shape, affine and voxel order.

    Args:
        reference: the scan the label belongs to.
        label: integers (z, y, x) in canonical orientation, at the scan's own spacing.
        out: a ``.nii`` or ``.nii.gz`` file, replaced if it exists.

    Raises:
        ReadError: the shape isn't the scan's, or ``out`` has another suffix.
    """
    if label.dtype.kind not in "iub":
        raise ReadError(f"a mask holds integers, got {label.dtype}")
    source = reference if isinstance(reference, ScanSource) else None
    path = source.paths[0] if source else Path(str(reference))
    if (
        path.is_file()
        and path.name.lower().endswith(SUFFIXES)
        and not path.name.lower().endswith(ITK_SUFFIXES)
    ):
        return write_mask_like(path, label, out)
    raw = read_series(source) if source and source.is_series else _read(path)
    array = from_canonical_array(label, raw.direction)
    if array.shape != raw.array.shape[1:]:
        raise ReadError(f"the mask has shape {array.shape} (z, y, x), the scan has {raw.array.shape[1:]}")
    array = array.astype(smallest_integer(array))
    return write_nifti(LabelVolume(array, raw.spacing_mm, raw.origin_mm, raw.direction), out)


def file_stamp(paths: Sequence[Path]) -> str:
    """A hash that changes when files, or data files they name, are renamed, resized or rewritten.

    Files are not read for it.

    Raises:
        OSError: a file is missing.
        ReadError: a data file is missing.
    """
    found = []
    for path in paths:
        stats = [path.stat()]
        if is_ome_zarr(path):
            stats += [file.stat() for file in files_of(path)]
        elif path.is_dir():
            stats += [file.stat() for file in sorted(path.iterdir()) if file.is_file()]
        if path.name.lower().endswith(ITK_SUFFIXES):
            stats += [file.stat() for file in data_files(path)[1:]]
        found.append((path.name, stats))
    return stamp_files(found)


def _read(path: Path) -> Raw:
    """Every volume of a file, or of a folder with one DICOM volume."""
    if is_ome_zarr(path):
        return read_ome_zarr(path)
    if path.is_dir():
        return _read_dicom(
            path.name, sorted(file for file in path.iterdir() if file.is_file() and is_dicom(file))
        )
    if not path.is_file():
        raise ReadError(f"{path} doesn't exist")
    if path.stat().st_size == 0:
        raise ReadError(f"{path.name} is empty")
    name = path.name.lower()
    if name.endswith(ITK_SUFFIXES):
        return read_itk(path)
    if name.endswith(SUFFIXES):
        return read_nifti(path)
    if is_dicom(path):
        return _read_dicom(path.name, [path])
    raise ReadError(f"{path.name}: unknown format; known are {', '.join(SUFFIXES)}, and folders of DICOM")


def _read_dicom(name: str, files: Sequence[Path]) -> Raw:
    """The one volume of DICOM files."""
    sources = find_series(files, salt=b"")
    usable = [source for source in sources if source.problem is None]
    if not sources:
        raise ReadError(f"{name} holds no DICOM image")
    if len(usable) != 1:
        problems = "; ".join(source.problem for source in sources if source.problem) or "no others"
        raise ReadError(f"{name} holds {len(usable)} usable DICOM volumes, expected one ({problems})")
    raw = read_series(usable[0])
    return dataclasses.replace(raw, notes=(*raw.notes, *usable[0].notes))


def _as_volume(raw: Raw, name: str, which: Which) -> Volume:
    array = _choose(raw, name, which)
    if min(array.shape[-3:]) < 2:
        raise ReadError(f"{name}: a single slice, shape {array.shape[-3:]} (z, y, x), is not a volume")
    notes = (*raw.notes, *odd_geometry(raw))
    return Volume(compact(array, name), raw.spacing_mm, raw.origin_mm, raw.direction, raw.modality, notes)


def _choose(raw: Raw, name: str, which: Which) -> npt.NDArray[Any]:
    """One volume (z, y, x), or all as (channel, z, y, x)."""
    count = len(raw.array)
    if which == "channels":
        return raw.array
    if count > 1 and which is None:
        raise ReadError(
            f"{name} holds {count} volumes: choose one by its index, or all as channels (of scans by "
            "--volumes-4d, of labelled data by a dataset.json with channel_names)"
        )
    if not 0 <= (which or 0) < count:
        raise ReadError(f"{name} holds {count} volumes, there is no number {which}")
    chosen: npt.NDArray[Any] = raw.array[which or 0]
    return chosen


def compact(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """int16 where voxels (..., z, y, x) are whole numbers that fit, else float32.

    Raises:
        ReadError: some aren't finite.
    """
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise ReadError(f"{name}: {bad:,} of {array.size:,} voxels are NaN or infinite")
        if not all(np.array_equal(plane, np.rint(plane)) for plane in array):
            return array
    limits = np.iinfo(np.int16)
    fits = limits.min <= int(array.min()) and int(array.max()) <= limits.max
    return array.astype(np.int16 if fits else np.float32)
