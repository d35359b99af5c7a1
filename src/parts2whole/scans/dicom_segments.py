"""Segments of a DICOM segmentation as voxels of the scan it refers to, placed frame by frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.scans.case import SAME_GRID_VOXELS, IngestError
from parts2whole.scans.dicom_contours import Mask, check_planes
from parts2whole.scans.volume import Volume


def segment_names(header: Any) -> dict[int, str]:
    """The labels of the segments of a segmentation, by their numbers."""
    return {
        int(item.SegmentNumber): str(item.get("SegmentLabel") or "").strip()
        for item in header.get("SegmentSequence") or ()
    }


def read_segment(segmentation: Any, number: int, scan: Volume) -> Mask:
    """The voxels (z, y, x) of one segment, on the scan's grid; all False if it has no frames.

    Args:
        segmentation: the object with its voxels.
        number: of the segment.
        scan: that it was drawn on.

    Raises:
        IngestError: voxels that are probabilities, or that lie on another grid.
    """
    kind = str(segmentation.get("SegmentationType"))
    if kind not in ("BINARY", "LABELMAP"):
        raise IngestError(f"its voxels are {kind}, which leaves open where a segment ends; expected BINARY")
    pixels = segmentation.pixel_array
    frames = pixels[None] if pixels.ndim == 2 else pixels
    mask = np.zeros(scan.shape, bool)
    to_voxels: npt.NDArray[np.float64] = np.linalg.inv(scan.affine()).astype(np.float64)
    for frame, own in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        if kind == "LABELMAP":
            inside = frame == number
        elif int(own.SegmentIdentificationSequence[0].ReferencedSegmentNumber) == number:
            inside = frame != 0
        else:
            continue
        if inside.any():
            mask[_places(inside, _affine(segmentation, own), to_voxels, scan)] = True
    check_planes(np.flatnonzero(mask.any(axis=(1, 2))))
    return mask


def _affine(segmentation: Any, own: Any) -> npt.NDArray[np.float64]:
    """From (row, column, 1) of a frame to LPS mm (DICOM PS3.3 C.7.6.2.1.1)."""
    shared = (segmentation.get("SharedFunctionalGroupsSequence") or [{}])[0]
    measures, orientation, position = (
        (own.get(name) or shared.get(name))[0]
        for name in ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence")
    )
    between_rows, between_columns = map(float, measures.PixelSpacing)
    along_row, along_column = np.split(np.array(orientation.ImageOrientationPatient, dtype=np.float64), 2)
    start = np.array(position.ImagePositionPatient, dtype=np.float64)
    return np.column_stack([along_column * between_rows, along_row * between_columns, start])


def _places(
    inside: Mask, affine: npt.NDArray[np.float64], to_voxels: npt.NDArray[np.float64], scan: Volume
) -> tuple[npt.NDArray[np.int64], ...]:
    """Indices (z, y, x) of the voxels of a scan that those of a frame are.

    Raises:
        IngestError: they lie between voxels, or outside of the scan.
    """
    steps = to_voxels[:3, :3] @ affine
    steps[:, 2] += to_voxels[:3, 3]
    whole = np.rint(steps).astype(np.int64)
    far = np.abs(steps - whole) @ [*inside.shape, 1]
    if far.max() > SAME_GRID_VOXELS or np.abs(whole[:, :2]).sum() != 2:
        raise IngestError(
            "it lies on another grid than the scan: resample it onto the series that it is to be used with"
        )
    rows, columns = np.nonzero(inside)
    z, y, x = whole @ np.stack([rows, columns, np.ones_like(rows)])
    edges = np.array(scan.shape)[:, None]
    if ((np.stack([z, y, x]) < 0) | (np.stack([z, y, x]) >= edges)).any():
        raise IngestError("it leaves the scan: it was drawn on another one")
    return z, y, x
