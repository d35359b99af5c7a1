"""OME-Zarr: images in chunks, of versions 0.4 and 0.5, NIfTI-Zarr, and cases of this package's own stores.

OME-Zarr places voxels along axes by scale and translation, and says nothing of the patient unless axes have
an ``orientation`` (NGFF's RFC 4).  NIfTI-Zarr brings its NIfTI header along, with the slope and intercept of
its voxels, a store's case its affine; what else transforms (rotation, affine) is refused.  Of several
resolutions the first, the finest, is read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import zarr
from nibabel.spatialimages import HeaderDataError

from parts2whole.errors import first_line
from parts2whole.scans.checks import LARGEST_SCAN_VOXELS, check_size, geometry
from parts2whole.scans.source import Raw, ReadError

SUFFIXES = (".ome.zarr", ".nii.zarr", ".zarr")
OWN = "parts2whole"
"""Attribute of a store's cases with what OME-Zarr has no place for."""

UNITS_MM = {"meter": 1000.0, "centimeter": 10.0, "millimeter": 1.0, "micrometer": 1e-3, "nanometer": 1e-6}
TOWARDS = {
    "right-to-left": (1.0, 0.0, 0.0),
    "left-to-right": (-1.0, 0.0, 0.0),
    "anterior-to-posterior": (0.0, 1.0, 0.0),
    "posterior-to-anterior": (0.0, -1.0, 0.0),
    "inferior-to-superior": (0.0, 0.0, 1.0),
    "superior-to-inferior": (0.0, 0.0, -1.0),
}
"""LPS unit vectors of orientations."""

USUAL = {"z": "inferior-to-superior", "y": "anterior-to-posterior", "x": "right-to-left"}
NO_PLACE = "it says nothing of orientation: taken as z to superior, y to posterior, x to left"
BROKEN = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, MemoryError),
    HeaderDataError,
)
_nib: Any = nibabel


def is_ome_zarr(path: Path) -> bool:
    """Whether a path is a folder that is called as one; what is in it is another question."""
    return path.name.lower().endswith(SUFFIXES) and path.is_dir()


def files_of(path: Path) -> list[Path]:
    """Every file of an image, sorted."""
    found = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    return sorted(found)


def read_ome_zarr(path: Path) -> Raw:
    """Read the finest resolution of an image.

    Raises:
        ReadError: no image, one of other axes, or one whose voxels have no place.
    """
    try:
        group = zarr.open_group(path, mode="r")
        attributes: Any = dict(group.attrs)
        multiscale = (attributes.get("ome") or attributes)["multiscales"][0]
        names = [str(axis["name"]) for axis in multiscale["axes"]]
        array: Any = group[multiscale["datasets"][0]["path"]]
        kind = np.dtype(array.dtype)
        if kind.kind not in "iufb" or len(names) != array.ndim:
            raise ReadError(f"{path.name}: {kind} voxels with axes {', '.join(names)} are not a scan")
        check_size(path.name, array.shape, kind.itemsize, start=0, size=LARGEST_SCAN_VOXELS**2, packed=False)
        voxels = _volumes(np.asarray(array[...]), names, path.name)
        notes: tuple[str, ...] = ()
        own = attributes.get(OWN)
        if own is not None:
            affine = np.array(own["affine_lps"], dtype=np.float64)
        elif (path.resolve().parents[1] / "records" / f"{path.resolve().stem}.json").is_file():
            raise ReadError(
                f"{path.name} is a case of a store that doesn't say what its values mean: prepare it again"
            )
        elif "nifti" in group:
            header = _nifti_header(np.asarray(group["nifti"]).tobytes())
            affine = _nifti_affine(header, path)
            voxels = _nib.volumeutils.apply_read_scaling(voxels, *header.get_slope_inter())
        else:
            affine, notes = _affine(multiscale, path.name)
    except ReadError:
        raise
    except BROKEN as error:
        reason = "it holds no OME-Zarr image" if isinstance(error, KeyError) else first_line(error)
        raise ReadError(f"{path.name} can't be read: {reason}") from error
    spacing, origin, direction = geometry(affine[:3, :3], affine[:3, 3], path.name)
    if own is None:
        return Raw(voxels, spacing, origin, direction, notes=notes)
    voxels, modality = _as_scanned(voxels, own)
    return Raw(voxels, spacing, origin, direction, modality)


def _as_scanned(voxels: npt.NDArray[Any], own: Mapping[str, Any]) -> tuple[npt.NDArray[Any], str | None]:
    """Hounsfield units, where a store kept them, or values in [0, 1]."""
    if own.get("label") or own.get("hounsfield"):
        return voxels, "CT" if own.get("hounsfield") else None
    return voxels.astype(np.float32) * np.float32(own["scale"]) + np.float32(own["offset"]), None


def _volumes(array: npt.NDArray[Any], names: list[str], name: str) -> npt.NDArray[Any]:
    """(volume, z, y, x) of an array of any number of times and channels, of which one is several."""
    if names[-3:] != ["z", "y", "x"] or not set(names[:-3]) <= {"t", "c"}:
        raise ReadError(f"{name}: its axes are {', '.join(names)}; expected z, y, x, and before them t or c")
    if sum(edge > 1 for edge in array.shape[:-3]) > 1:
        raise ReadError(f"{name}: several times of several channels, {array.shape}; write one of them")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    return array.reshape(-1, *array.shape[-3:])


def _affine(multiscale: Mapping[str, Any], name: str) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """From (z, y, x) to LPS mm by scales, translations and orientations, and notes on what isn't said."""
    axes, notes = multiscale["axes"], []
    scale, place = np.ones(len(axes)), np.zeros(len(axes))
    for transform in (
        *multiscale["datasets"][0].get("coordinateTransformations", ()),
        *multiscale.get("coordinateTransformations", ()),
    ):
        kind = transform["type"]
        if kind == "scale":
            factors = np.array(transform["scale"], dtype=np.float64)
            scale, place = scale * factors, place * factors
        elif kind == "translation":
            place = place + np.array(transform["translation"], dtype=np.float64)
        elif kind != "identity":
            raise ReadError(
                f"{name}: its voxels are placed by a transformation of type {kind}, not read here"
            )
    if (scale[-3:] <= 0).any():
        raise ReadError(f"{name}: its scale must be positive, got {scale[-3:].tolist()}")
    units = [axis.get("unit") for axis in axes[-3:]]
    unknown = [unit for unit in units if unit is not None and unit not in UNITS_MM]
    if unknown:
        raise ReadError(f"{name}: its unit of length {unknown[0]!r} isn't one of {', '.join(UNITS_MM)}")
    factor = np.array([UNITS_MM[unit] if unit else 1.0 for unit in units])
    said = [axis.get("orientation") for axis in axes[-3:]]
    if None in said:
        notes.append(NO_PLACE)
        said = list(USUAL.values())
    values = [str(one.get("value") if isinstance(one, Mapping) else one) for one in said]
    wrong = [value for value in values if value not in TOWARDS]
    if wrong:
        raise ReadError(f"{name}: the orientation {wrong[0]!r} isn't one of {', '.join(TOWARDS)}")
    towards = np.array([TOWARDS[value] for value in values]).T
    affine = np.eye(4)
    affine[:3, :3] = towards * (scale[-3:] * factor)
    affine[:3, 3] = towards @ (place[-3:] * factor)
    return affine, tuple(notes)


def _nifti_header(header: bytes) -> Any:
    """The header of a NIfTI file, of either version."""
    size = int.from_bytes(header[:4], "little")
    kind = _nib.Nifti2Header if size in (540, 469893120) else _nib.Nifti1Header
    return kind.from_fileobj(io.BytesIO(header), check=False)


def _nifti_affine(header: Any, path: Path) -> npt.NDArray[np.float64]:
    """From (z, y, x) to LPS mm by the header of a NIfTI file."""
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise ReadError(f"{path.name}: voxels have no place: its NIfTI header has no sform and no qform")
    unit = {"meter": 1000.0, "micron": 1e-3}.get(header.get_xyzt_units()[0], 1.0)
    lps = np.diag([-unit, -unit, unit]) @ header.get_best_affine()[:3]
    affine = np.eye(4)
    affine[:3] = lps[:, [2, 1, 0, 3]]
    return affine
