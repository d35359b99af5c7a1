"""NIfTI and MGZ through nibabel: reading, and writing masks in the geometry of a scan."""

from __future__ import annotations

import math
import os
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

from parts2whole.scans.checks import check_size, geometry
from parts2whole.scans.source import Raw, ReadError, first_line
from parts2whole.scans.volume import Direction, LabelVolume, Triple, Volume, from_canonical_array

NIFTI_SUFFIXES = (".nii.gz", ".nii")
SUFFIXES = (*NIFTI_SUFFIXES, ".mgz", ".mgh")
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
    spacing, origin, direction = _geometry(image, path)
    try:
        voxels = np.asanyarray(image.dataobj)
    except BROKEN as error:
        raise ReadError(f"{path.name}: truncated or broken: {first_line(error)}") from error
    array = voxels.reshape(*shape, -1, order="F").T
    return Raw(array, spacing, origin, direction)


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
    _, _, direction = _geometry(image, reference)
    array = from_canonical_array(label, direction).T
    if array.shape != shape:
        raise ReadError(f"the mask has shape {array.shape} (x, y, z), {reference.name} has {shape}")
    mask = _kind(shape)(np.ascontiguousarray(array, dtype=smallest_integer(array)), image.affine)
    if isinstance(image, _nib.Nifti1Pair):
        mask.header.set_xyzt_units(image.header.get_xyzt_units()[0])
        mask.set_qform(image.get_qform(), int(image.header["qform_code"]))
        mask.set_sform(image.get_sform(), int(image.header["sform_code"]))
    _save(mask, out)


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
    try:
        image = _nib.load(path)
        shape = tuple(int(edge) for edge in image.shape)
        kind = image.get_data_dtype()
        start = int(image.dataobj.offset)
        if isinstance(image, _nib.Nifti1Pair):
            image.header.get_xyzt_units()
        size = path.stat().st_size
    except BROKEN as error:
        raise ReadError(f"{path.name} can't be read: {first_line(error)}") from error
    if not 3 <= len(shape) <= 5 or min(shape) < 1:
        raise ReadError(f"{path.name}: expected a 3-D or 4-D scan, the header says {shape}")
    if kind.kind not in "iuf":
        raise ReadError(f"{path.name}: colour or complex voxels ({kind}) are not a scan")
    packed = path.name.lower().endswith((".gz", ".mgz"))
    check_size(path.name, shape, kind.itemsize, start=start, size=size, packed=packed)
    return image


def _spatial_shape(image: Any, path: Path) -> tuple[int, int, int]:
    x, y, z, *more = (int(edge) for edge in image.shape)
    if math.prod(more) > 1 and len(more) == 2 and min(more) > 1:
        raise ReadError(f"{path.name}: five-dimensional, {image.shape}; expected one or several 3-D volumes")
    return x, y, z


def _geometry(image: Any, path: Path) -> tuple[Triple, Triple, Direction]:
    """Spacing, LPS origin and direction of an affine that maps (x, y, z) to RAS."""
    unit = 1.0
    if isinstance(image, _nib.Nifti1Pair):
        unit = {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)
    if image.affine is None:
        raise ReadError(f"{path.name}: it has no affine, so voxels have no place")
    lps = np.diag([-1.0, -1.0, 1.0]) @ image.affine[:3] * unit
    return geometry(lps[:, [2, 1, 0]], lps[:, 3], path.name)


def _kind(shape: tuple[int, ...]) -> Any:
    return _nib.Nifti1Image if max(shape) <= 32767 else _nib.Nifti2Image


def _save(image: Any, out: Path) -> None:
    """Write an image atomically."""
    if not out.name.endswith(NIFTI_SUFFIXES):
        raise ReadError(f"written files are .nii or .nii.gz, got {out.name!r}")
    suffix = ".nii.gz" if out.name.endswith(".nii.gz") else ".nii"
    beside = out.with_name(f".{out.name.removesuffix(suffix)}.{os.getpid()}.part{suffix}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        _nib.save(image, beside)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
