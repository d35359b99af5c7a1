"""NIfTI and MGZ through nibabel: reading, and writing masks in the geometry of a scan."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from parts2whole.errors import first_line
from parts2whole.files import replacing
from parts2whole.scans.checks import check_size, geometry, places_voxels
from parts2whole.scans.source import Raw, ReadError
from parts2whole.scans.volume import Direction, LabelVolume, Triple, Volume, from_canonical_array

NIFTI_SUFFIXES = (".nii.gz", ".nii")
SUFFIXES = (*NIFTI_SUFFIXES, ".mgz", ".mgh")
GZIP = b"\x1f\x8b"
HEADER_BYTES = 348
HEADER_STARTS = tuple(n.to_bytes(4, order) for n in (HEADER_BYTES, 540) for order in ("little", "big"))
"""The sizes of the headers of NIfTI-1 and NIfTI-2, with which they begin."""

ITK_SQUARE = 1e-4
"""The largest cosine of the angle of two axes with which ITK still reads NIfTI (tried with SimpleITK 2.5)."""

UNITS_MM = {"unknown": 1.0, "meter": 1000.0, "mm": 1.0, "micron": 0.001}
"""NIfTI's units of length, in the order of their codes."""

BROKEN = (
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    MGHError,
    EOFError,
    OSError,
    zlib.error,
    ValueError,
    KeyError,  # an unknown voxel type
    OverflowError,
    MemoryError,
)
_nib: Any = nibabel  # its annotations don't cover what images hold


def read_nifti(path: Path) -> Raw:
    """Read every volume of a file.

    Raises:
        ReadError: broken, truncated, in colour, or without a place in space.
    """
    image = _open(path)
    shape = _spatial_shape(image, path)
    affine, notes = _affine(image, path)
    spacing, origin, direction = _geometry(image, affine, path)
    try:
        voxels = _unpacked(image, path) if _is_packed(path) else np.asanyarray(image.dataobj)
    except BROKEN as error:
        what = "truncated" if isinstance(error, EOFError) or "Expected" in str(error) else "broken"
        raise ReadError(f"{path.name}: {what}: {first_line(error)}") from error
    array = voxels.reshape(*shape, -1, order="F").T
    return Raw(array, spacing, origin, direction, notes=notes)


def write_nifti(volume: Volume | LabelVolume, out: Path) -> None:
    """Write a volume as NIfTI, creating its folder.

    Raises:
        ReadError: ``out`` isn't ``.nii`` or ``.nii.gz``.
    """
    columns = (np.asarray(volume.direction) * np.asarray(volume.spacing_mm))[:, ::-1]
    affine = np.eye(4)
    affine[:3] = np.diag([-1.0, -1.0, 1.0]) @ np.column_stack([columns, volume.origin_mm])
    # NIfTI's qform can't hold sheared axes, so those are left to the sform.
    image = _kind(volume.shape)(np.ascontiguousarray(volume.array.T), affine)
    image.header.set_xyzt_units("mm")
    _save(image, out)


def write_mask_like(reference: Path, label: npt.NDArray[Any], out: Path) -> None:
    """Write a canonical label map in the exact geometry of a NIfTI or MGZ scan.

    Raises:
        ReadError: the shape isn't the scan's, or ``out`` has another suffix.
    """
    image = _open(reference)
    shape = _spatial_shape(image, reference)
    affine, _ = _affine(image, reference)
    _, _, direction = _geometry(image, affine, reference)
    array = from_canonical_array(label, direction).T
    if array.shape != shape:
        raise ReadError(f"the mask has shape {array.shape} (x, y, z), {reference.name} has {shape}")
    mask = _kind(shape)(np.ascontiguousarray(array, dtype=smallest_integer(array)), affine)
    if isinstance(image, _nib.Nifti1Pair):
        mask.header.set_xyzt_units(_unit(image))
        sound = _forms(image)[0]
        mask.set_sform(sound.get("sform"), int(image.header["sform_code"]) if "sform" in sound else 0)
        mask.set_qform(sound.get("qform"), int(image.header["qform_code"]) if "qform" in sound else 0)
    _save(mask, out)


def itk_reads(direction: Direction) -> bool:
    """Whether ITK, and what is built on it, reads NIfTI of these axes: they must be at right angles."""
    matrix = np.asarray(direction)
    return bool(np.abs(matrix.T @ matrix - np.eye(3)).max() <= ITK_SQUARE)


def smallest_integer(array: npt.NDArray[Any]) -> str:
    """The smallest of the types used for labels that holds an array's values.

    Raises:
        ReadError: they don't fit 32 bits.
    """
    low, high = int(array.min()), int(array.max())
    for dtype in ("uint8", "int16", "int32"):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    raise ReadError(f"label values must fit 32 bits, found {low} to {high}")


def _open(path: Path) -> Any:
    """The header, checked against what the file can hold; no voxels yet."""
    packed = _is_packed(path)
    try:
        image = _nib.load(path)
        shape = tuple(int(edge) for edge in image.shape)
        kind = image.get_data_dtype()
        start = int(image.dataobj.offset)
        size = path.stat().st_size
    except BROKEN as error:
        reason = _why_not_loaded(path, error) or first_line(error)
        raise ReadError(f"{path.name} can't be read: {reason}") from error
    if not 3 <= len(shape) <= 5 or min(shape) < 1:
        raise ReadError(f"{path.name}: expected a 3-D or 4-D scan, the header says {shape}")
    if kind.kind not in "iuf":
        raise ReadError(f"{path.name}: colour or complex voxels ({kind}) are not a scan")
    check_size(path.name, shape, kind.itemsize, start=start, size=size, packed=packed)
    return image


def _is_packed(path: Path) -> bool:
    """Whether a file is compressed, as its name says.

    Raises:
        ReadError: its name says otherwise.
    """
    named = path.name.lower().endswith((".gz", ".mgz"))
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    if start[:2] == GZIP and not named:
        raise ReadError(f"{path.name} is compressed with gzip, which its suffix doesn't say: rename it")
    if named and start[:2] != GZIP:
        reason = "it isn't compressed, though its suffix says so: rename it"
        raise ReadError(f"{path.name} can't be read: {reason if _like_header(start) else _begins(start)}")
    return named


def _why_not_loaded(path: Path, error: Exception) -> str:
    """What nibabel doesn't say of files that it won't load; empty where its own words serve."""
    if "w2 should be positive" in str(error):  # the fourth number of the quaternion, squared
        return "its qform is no rotation, and it has no sform"
    if not isinstance(error, ImageFileError):
        return ""
    try:
        with (gzip.open if _is_packed(path) else open)(path, "rb") as file:
            start = bytes(file.read(HEADER_BYTES))
    except BROKEN as broken:
        return f"its compressed data is truncated or broken: {first_line(broken)}"
    if len(start) < HEADER_BYTES and not path.name.lower().endswith((".mgh", ".mgz")):
        return f"{len(start)} bytes are less than a header; " + _begins(start)
    if _like_header(start):
        return "it has the header of Analyze 7.5, or one of NIfTI without its magic word; convert it to NIfTI"
    return _begins(start)


def _like_header(start: bytes) -> bool:
    return start[:4] in HEADER_STARTS and len(start) == HEADER_BYTES


def _begins(start: bytes) -> str:
    return f"it isn't what its suffix says: it begins with {start[:12]!r}"


def _unpacked(image: Any, path: Path) -> npt.NDArray[Any]:
    """The voxels of a compressed file, read to its end, where the checksum is."""
    with gzip.open(path) as file:
        again = type(image).from_file_map({"image": _nib.FileHolder(fileobj=file)})
        voxels: npt.NDArray[Any] = np.asanyarray(again.dataobj)
        for _ in range(64):  # little may follow the voxels; what doesn't end is left alone
            if not file.read(1 << 20):
                break
    return voxels


def _spatial_shape(image: Any, path: Path) -> tuple[int, int, int]:
    x, y, z, *more = (int(edge) for edge in image.shape)
    if math.prod(more) > 1 and len(more) == 2 and min(more) > 1:
        raise ReadError(f"{path.name}: five-dimensional, {image.shape}; expected one or several 3-D volumes")
    return x, y, z


def _geometry(image: Any, affine: npt.NDArray[np.float64], path: Path) -> tuple[Triple, Triple, Direction]:
    """Spacing, LPS origin and direction of a RAS affine in the file's unit of length."""
    unit = 1.0
    if isinstance(image, _nib.Nifti1Pair):
        unit, code = UNITS_MM[_unit(image)], int(image.header["xyzt_units"]) & 7
        if code >= len(UNITS_MM):
            raise ReadError(
                f"{path.name} can't be read: its unit of length has code {code}, which means none"
            )
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3] * unit
    return geometry(lps[:, [2, 1, 0]], lps[:, 3], path.name)


def _affine(image: Any, path: Path) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """The affine from (x, y, z) to RAS in the file's unit of length, and notes on it."""
    if not isinstance(image, _nib.Nifti1Pair):
        if image.affine is None:
            raise ReadError(f"{path.name}: it has no affine, so voxels have no place")
        return image.affine, ()
    sound, wrong = _forms(image)
    if wrong and not sound:
        raise ReadError(f"{path.name}: voxels have no place: {' and '.join(wrong.values())}")
    form = next(iter(sound), None)
    notes = [f"{what}; its {form} is used" for what in wrong.values()]
    if form is None:
        notes.append("neither its sform nor its qform is set: orientation and place are a guess")
    if form != "sform" and not all(_pixdim(image, path)):
        notes.append("its spacing is 0 along an axis: taken for 1")
    return (image.affine if form is None else sound[form]), tuple(notes)


def _forms(image: Any) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, str]]:
    """Of sform and qform, in this order, those that place voxels, and what is wrong with those that don't."""
    sound: dict[str, npt.NDArray[np.float64]] = {}
    wrong: dict[str, str] = {}
    for name, get in (("sform", image.get_sform), ("qform", image.get_qform)):
        try:
            matrix, code = get(coded=True)
        except (HeaderDataError, ValueError):
            wrong[name] = f"its {name} is no rotation"
            continue
        if code <= 0:
            continue
        if places_voxels(matrix[:3, :3]) and np.isfinite(matrix).all():
            sound[name] = matrix
        else:
            wrong[name] = f"its {name}'s axes don't span space"
    return sound, wrong


def _pixdim(image: Any, path: Path) -> tuple[float, ...]:
    """The spacing as the file has it: nibabel makes 1 of 0."""
    with _nib.openers.ImageOpener(path) as file:
        return tuple(map(float, type(image.header).from_fileobj(file, check=False)["pixdim"][1:4]))


def _unit(image: Any) -> str:
    return dict(enumerate(UNITS_MM)).get(int(image.header["xyzt_units"]) & 7, "unknown")


def _kind(shape: tuple[int, ...]) -> Any:
    return _nib.Nifti1Image if max(shape) <= 32767 else _nib.Nifti2Image


def _save(image: Any, out: Path) -> None:
    """Write an image."""
    if not out.name.endswith(NIFTI_SUFFIXES):
        raise ReadError(f"written files are .nii or .nii.gz, got {out.name!r}")
    suffix = ".nii.gz" if out.name.endswith(".nii.gz") else ".nii"
    with replacing(out, suffix=suffix) as beside:
        _nib.save(image, beside)
