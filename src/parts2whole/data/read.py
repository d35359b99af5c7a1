"""Reading scans and label maps: files in, `Volume` or `LabelVolume` out; the only file that knows formats.

Arrays come out in (z, y, x) with the geometry of the file, in LPS millimetres.  A header is checked before
anything is allocated, so that a broken or hostile file costs a line in a report and not the machine's memory.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import math
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from parts2whole.data.volume import LabelVolume, Triple, Volume, VolumeError, from_canonical_array

NIFTI_SUFFIXES = (".nii.gz", ".nii")
SUFFIXES = NIFTI_SUFFIXES
LARGEST_SCAN_VOXELS = 2**31
"""No scanner makes more in one scan; a header that promises more is refused unread."""

GZIP_LARGEST_RATIO = 1032
"""Deflate can't compress better, so a header that promises more bytes than this lies."""

BROKEN = (ImageFileError, HeaderDataError, WrapStructError, VolumeError, EOFError, OSError, zlib.error)
_nifti: Any = nib  # its annotations don't cover what images hold
Which = int | Literal["channels"] | None


class ReadError(ValueError):
    """A file that can't be read as a scan or a label map, and why."""


@dataclasses.dataclass(frozen=True)
class ScanSource:
    """Where one scan lies.

    Attributes:
        case_id: unique among the scans found, safe as a file name.
        paths: the file, or the files of a series in order.
        problem: why it can't be used, where that shows before reading.
    """

    case_id: str
    paths: tuple[Path, ...]
    problem: str | None = None


def find_scans(paths: Iterable[str | Path]) -> list[ScanSource]:
    """List scans in folders (with subfolders), globs, ``.txt`` lists of paths, and files.

    Below a folder that holds images and labels side by side, only images are scans.  The order, and the
    case ids, depend on names alone.

    Raises:
        ReadError: a path that doesn't exist, or a glob that matches nothing.
    """
    found: dict[str, tuple[Path, str, str | None]] = {}
    for path in paths:
        for file, name, problem in _expand(path):
            found.setdefault(os.path.abspath(file), (file, name, problem))
    sources, taken = [], set[str]()
    for file, name, problem in sorted(found.values(), key=lambda entry: (entry[1], str(entry[0]))):
        case_id = safe_name(strip_suffix(name))
        if case_id.lower() in taken:
            case_id = f"{case_id}-{hashlib.sha256(os.path.abspath(file).encode()).hexdigest()[:8]}"
        taken.add(case_id.lower())
        sources.append(ScanSource(case_id, (file,), problem))
    return sorted(sources, key=lambda source: source.case_id)


def read_volume(path: Path, *, which: Which = None) -> Volume:
    """Read a scan: int16 where the voxels are whole numbers that fit, else float32.

    Args:
        path: the file.
        which: of a 4-D file, the index of one volume, or ``"channels"`` for all; None refuses 4-D files
            that hold more than one volume.

    Raises:
        ReadError: missing, broken or colour file, impossible geometry, or voxels that aren't finite.
    """
    array, spacing, origin, direction = _read(Path(path), which)
    if min(array.shape[-3:]) < 2:
        raise ReadError(f"{path}: a single slice, shape {array.shape[-3:]} (z, y, x), is not a volume")
    return Volume(_compact(array, Path(path)), spacing, origin, direction)


def read_label(path: Path) -> LabelVolume:
    """Read a label map, in the smallest integer type that holds its values.

    Raises:
        ReadError: as `read_volume`, or values that aren't whole numbers.
    """
    array, spacing, origin, direction = _read(Path(path), None)
    if array.dtype.kind == "f":
        whole = np.rint(array)
        apart = np.abs(array - whole)
        if not np.isfinite(array).all() or apart.max() > 1e-3:
            raise ReadError(
                f"{path}: labels must be whole numbers, found {float(array.flat[apart.argmax()]):g}"
            )
        array = whole
    low, high = int(array.min()), int(array.max())
    for dtype in ("uint8", "int16", "int32"):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return LabelVolume(array.astype(dtype), spacing, origin, direction)
    raise ReadError(f"{path}: label values must fit 32 bits, found {low} to {high}")


def read_scan(source: ScanSource, *, which: Which = None) -> Volume:
    """Read what `find_scans` found.

    Raises:
        ReadError: as `read_volume`, or the problem found with it.
    """
    if source.problem is not None:
        raise ReadError(source.problem)
    return read_volume(source.paths[0], which=which)


def write_nifti(volume: Volume | LabelVolume, out: Path) -> None:
    """Write a volume as NIfTI, creating its folder.

    Raises:
        ReadError: ``out`` isn't ``.nii`` or ``.nii.gz``.
    """
    columns = (np.asarray(volume.direction) * np.asarray(volume.spacing_mm))[:, ::-1]
    affine = np.eye(4)
    affine[:3] = np.diag([-1.0, -1.0, 1.0]) @ np.column_stack([columns, volume.origin_mm])
    image: Any = _nifti.Nifti1Image(np.ascontiguousarray(volume.array.T), affine)
    image.header.set_xyzt_units("mm")
    _save(image, out)


def write_label_like(reference: ScanSource | Path, label: npt.NDArray[Any], out: Path) -> None:
    """Write a label map as NIfTI in the exact geometry of a scan: same shape, affine and voxel order.

    Args:
        reference: the scan the label belongs to.
        label: integers (z, y, x) in canonical orientation, at the scan's own spacing.
        out: a ``.nii`` or ``.nii.gz`` file, replaced if it exists.

    Raises:
        ReadError: the shape isn't the scan's, or ``out`` has another suffix.
    """
    if isinstance(reference, ScanSource):
        reference = reference.paths[0]
    if label.dtype.kind not in "iub":
        raise ReadError(f"a mask holds integers, got {label.dtype}")
    image = _open_nifti(reference)
    shape, affine = _spatial_shape(image, reference), image.affine
    _, _, direction = _geometry(affine, 1.0, reference)
    array = from_canonical_array(label, direction).T
    if array.shape != shape:
        raise ReadError(f"the mask has shape {array.shape} (x, y, z), {reference.name} has {shape}")
    kind = image.__class__ if max(shape) <= 32767 else _nifti.Nifti2Image
    smallest = next(d for d in ("uint8", "int16", "int32") if _fits(array, d))
    mask = kind(np.ascontiguousarray(array, dtype=smallest), affine)
    mask.header.set_xyzt_units(image.header.get_xyzt_units()[0])
    mask.set_qform(image.get_qform(), int(image.header["qform_code"]))
    mask.set_sform(image.get_sform(), int(image.header["sform_code"]))
    _save(mask, out)


def _save(image: Any, out: Path) -> None:
    """Write a NIfTI image atomically."""
    if not out.name.endswith(NIFTI_SUFFIXES):
        raise ReadError(f"written files are .nii or .nii.gz, got {out.name!r}")
    suffix = ".nii.gz" if out.name.endswith(".nii.gz") else ".nii"
    beside = out.with_name(f".{out.name.removesuffix(suffix)}.{os.getpid()}.part{suffix}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        nib.save(image, beside)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


def file_stamp(paths: Sequence[Path]) -> str:
    """A hash that changes when files are renamed, resized or rewritten, without reading them."""
    hasher = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        hasher.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return hasher.hexdigest()[:32]


def strip_suffix(name: str) -> str:
    """A file name without the suffix of a scan."""
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def safe_name(name: str) -> str:
    """A relative path as one file name: letters, digits, dot, dash and underscore, at most 100 of them."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name.replace("\\", "/").replace("/", "__")).strip(".")
    if not safe.strip("_-.") or len(safe) > 100:
        return f"{safe[:80].strip('.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")
    return safe.lstrip("-")


def _expand(path: str | Path) -> list[tuple[Path, str, str | None]]:
    """Files named by one argument: (file, name that becomes the case id, problem)."""
    text, place = str(path), Path(path)
    if place.is_dir():
        return _walk(place)
    if place.suffix == ".txt" and place.is_file():
        lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines()]
        listed = [place.parent / line for line in lines if line and not line.startswith("#")]
        return [_single(file) for file in listed]
    if place.exists():
        return [_single(place)]
    if glob.has_magic(text):
        matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            raise ReadError(f"nothing matches {text!r}")
        return [entry for match in matches for entry in _expand(match) if _is_scan(entry[0])]
    raise ReadError(f"{text!r} doesn't exist; name folders, files, globs, or a .txt list of paths")


def _single(file: Path) -> tuple[Path, str, str | None]:
    problem = None
    if not file.is_file():
        problem = f"{file} doesn't exist"
    elif not _is_scan(file):
        problem = f"{file.name}: unknown format; known are {', '.join(SUFFIXES)}"
    return file, file.name, problem


def _walk(root: Path) -> list[tuple[Path, str, str | None]]:
    found: list[tuple[Path, str, str | None]] = []
    seen: dict[tuple[int, int], str] = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        stat = here.stat()
        key = (stat.st_dev, stat.st_ino)
        if key in seen:
            folders.clear()
            found.append(
                (here, str(here.relative_to(root)), f"a link back to {seen[key]}, not followed again")
            )
            continue
        seen[key] = str(here)
        siblings = set(folders)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not _is_label_folder(name, siblings)
        )
        for name in sorted(files):
            file = here / name
            if _is_scan(file):
                problem = None if file.exists() else f"{name} is a link to nowhere"
                found.append((file, str(file.relative_to(root)), problem))
    return found


def _is_label_folder(name: str, siblings: set[str]) -> bool:
    """``labels`` beside ``images``, ``labelsTr`` beside ``imagesTr``."""
    lower = {sibling.lower() for sibling in siblings}
    return name.lower().startswith("labels") and "images" + name.lower().removeprefix("labels") in lower


def _is_scan(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES) and not file.name.startswith(".")


def _read(path: Path, which: Which) -> tuple[npt.NDArray[Any], Triple, Triple, tuple[Triple, Triple, Triple]]:
    """Voxels (z, y, x) or (channel, z, y, x), spacing, origin and direction."""
    if not _is_scan(path):
        raise ReadError(f"{path.name}: unknown format; known are {', '.join(SUFFIXES)}")
    image = _open_nifti(path)
    shape = _spatial_shape(image, path)
    count = math.prod(image.shape) // math.prod(shape)
    if count > 1 and which is None:
        raise ReadError(
            f"{path.name} holds {count} volumes of {shape}: choose one by its index, or all as channels"
        )
    if isinstance(which, int) and not 0 <= which < count:
        raise ReadError(f"{path.name} holds {count} volumes, there is no number {which}")
    unit = {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)
    geometry = _geometry(image.affine, unit, path)
    try:
        voxels = np.asanyarray(image.dataobj)
    except MemoryError as error:
        raise ReadError(f"{path.name}: not enough memory for {image.shape} voxels") from error
    except (*BROKEN, ValueError) as error:
        raise ReadError(f"{path.name}: truncated or broken: {_first_line(error)}") from error
    array = voxels.reshape(*shape, count, order="F").T
    return (array if which == "channels" else array[which or 0], *geometry)


def _open_nifti(path: Path) -> Any:
    """The header of a NIfTI file, checked against what the file can hold; no voxels yet."""
    if not path.is_file():
        raise ReadError(f"{path} doesn't exist")
    if path.stat().st_size == 0:
        raise ReadError(f"{path.name} is empty")
    try:
        image = _nifti.load(path)
        declared = math.prod(int(edge) for edge in image.shape)
        kind = image.get_data_dtype()
        start = int(image.dataobj.offset)
    except (*BROKEN, ValueError, OverflowError) as error:
        raise ReadError(f"{path.name} is not a readable NIfTI file: {_first_line(error)}") from error
    if not 3 <= len(image.shape) <= 5 or min(image.shape) < 1:
        raise ReadError(f"{path.name}: expected a 3-D or 4-D scan, the header says {image.shape}")
    if kind.kind not in "iuf":
        raise ReadError(f"{path.name}: colour or complex voxels ({kind}) are not a scan")
    if declared > LARGEST_SCAN_VOXELS:
        raise ReadError(
            f"{path.name}: the header promises {declared:,} voxels {image.shape}, "
            f"more than the {LARGEST_SCAN_VOXELS:,} any scan may have; refused unread"
        )
    size = path.stat().st_size
    room = size * GZIP_LARGEST_RATIO if path.name.lower().endswith(".gz") else size
    needed = start + declared * kind.itemsize
    if needed > room:
        raise ReadError(
            f"{path.name}: truncated: the header promises {needed:,} bytes, the file can hold {room:,}"
        )
    return image


def _spatial_shape(image: Any, path: Path) -> tuple[int, int, int]:
    x, y, z, *more = (int(edge) for edge in image.shape)
    if len(more) == 2 and min(more) > 1:
        raise ReadError(f"{path.name}: five-dimensional, {image.shape}; expected one or several 3-D volumes")
    return x, y, z


def _geometry(
    affine: npt.NDArray[np.float64] | None, unit: float, path: Path
) -> tuple[Triple, Triple, tuple[Triple, Triple, Triple]]:
    """Spacing (z, y, x), LPS origin and direction of a NIfTI affine, which maps (x, y, z) to RAS."""
    if affine is None or not np.isfinite(affine).all():
        raise ReadError(f"{path.name}: the affine holds values that aren't numbers")
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3] * unit
    columns = lps[:, [2, 1, 0]]
    spacing = np.linalg.norm(columns, axis=0)
    if spacing.min() <= 0 or abs(np.linalg.det(columns / np.where(spacing > 0, spacing, 1))) < 1e-3:
        raise ReadError(
            f"{path.name}: the affine is singular, so voxels have no place: {affine[:3].tolist()}"
        )
    rows = (columns / spacing).tolist()
    direction = (_triple(rows[0]), _triple(rows[1]), _triple(rows[2]))
    return _triple(spacing), _triple(lps[:, 3]), direction


def _triple(values: Sequence[float] | npt.NDArray[np.float64]) -> Triple:
    a, b, c = (float(value) + 0.0 for value in values)
    return a, b, c


def _compact(array: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """int16 where voxels are whole numbers that fit, else float32; refuses what isn't finite."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise ReadError(f"{path.name}: {bad:,} of {array.size:,} voxels are NaN or infinite")
        if not all(np.array_equal(plane, np.rint(plane)) for plane in array):
            return array
    return array.astype(np.int16 if _fits(array, "int16") else np.float32)


def _fits(array: npt.NDArray[Any], dtype: str) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= int(array.min()) and int(array.max()) <= limits.max)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
