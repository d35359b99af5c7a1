"""Contours of an RTSTRUCT as voxels: those whose centres lie inside, by the even-odd rule.

A contour that lies in another is a hole in it, whether drawn as such (CLOSEDPLANAR_XOR), as an inner contour,
or joined to the outer one by a channel.  What can't be told is refused: contours between the planes of the
scan, with planes left out between most of them, or that overlap without one lying in the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.scans.case import SAME_GRID_VOXELS, IngestError
from parts2whole.scans.volume import Volume

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
SHORTEST = 3
"""Points of a contour that encloses something."""

LEFT_OUT = 3
"""Planes that people leave out between two that they draw on, at most; more lie between two pieces."""
FEWEST_PLANES = 3
"""Of which it shows whether some were left out; two may be two pieces."""

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


def structure_names(header: Any) -> dict[int, str]:
    """The names of the regions of a structure set, by their numbers."""
    return {
        int(item.ROINumber): str(item.get("ROIName") or "").strip()
        for item in header.get("StructureSetROISequence") or ()
    }


def drawn_regions(header: Any) -> set[int]:
    """Numbers of the regions that somebody drew; templates name regions that nobody did."""
    return {
        int(item.ReferencedROINumber)
        for item in header.get("ROIContourSequence") or ()
        if any(_is_drawn(contour) for contour in item.get("ContourSequence") or ())
    }


def read_contours(structures: Any, number: int, scan: Volume) -> Mask:
    """The voxels (z, y, x) of one region of a structure set, on the scan's grid; all False if it is empty.

    Raises:
        IngestError: contours that aren't closed, or that don't say which voxels are meant.
    """
    mask = np.zeros(scan.shape, bool)
    for plane, contours in sorted(_by_plane(_contours(structures, number), scan).items()):
        if not 0 <= plane < len(mask):
            raise IngestError(f"a contour lies on plane {plane}, the scan has planes 0 to {len(mask) - 1}")
        mask[plane] = _combine([fill_polygon(one, mask.shape[1:]) for one in contours], plane)
    check_planes(np.flatnonzero(mask.any(axis=(1, 2))))
    return mask


def check_planes(planes: npt.NDArray[np.intp]) -> None:
    """Refuse planes without neighbours, or with a few left out between most: these were to be interpolated.

    Some may lie further apart, as the pieces of a structure do.

    Raises:
        IngestError: there are three of them, or more.
    """
    steps = np.diff(planes)
    if len(planes) < FEWEST_PLANES:
        return
    left_out = np.count_nonzero((steps > 1) & (steps <= LEFT_OUT + 1))
    if steps.min() > 1 or left_out > len(steps) / 2:
        raise IngestError(
            f"it is drawn on planes {', '.join(map(str, planes[:4]))}, ..., with others left out between "
            "most of them: interpolate it where it was drawn"
        )


def fill_polygon(points: Points, shape: tuple[int, ...]) -> Mask:
    """The pixels whose centres lie inside of a polygon, by the even-odd rule.

    Of centres on its border those on the sides of low coordinates count, so that polygons which share a
    border share no pixel.

    Args:
        points: corners (row, column), in pixels; the last is joined to the first.
        shape: rows and columns.
    """
    rows, columns = shape
    start, end = points, np.roll(points, -1, axis=0)
    low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
    first = np.clip(np.ceil(low), 0, rows).astype(np.int64)
    last = np.clip(np.ceil(high), 0, rows).astype(np.int64)  # half open: a corner is of one edge only
    count = last - first
    edge = np.repeat(np.arange(len(points)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (y0, x0), (y1, x1) = start[edge].T, end[edge].T
    crossing = x0 + (row - y0) * (x1 - x0) / (y1 - y0)
    column = np.clip(np.ceil(crossing), 0, columns).astype(np.int64)
    crossings = np.zeros((rows, columns + 1), np.int64)
    np.add.at(crossings, (row, column), 1)
    inside: Mask = np.cumsum(crossings[:, :columns], axis=1) % 2 == 1
    return inside


def _is_drawn(contour: Any) -> bool:
    """Whether a contour encloses something, or is of another kind, which reading it refuses."""
    kind, values = str(contour.get("ContourGeometricType")), contour.get("ContourData") or ()
    return len(values) >= 3 * SHORTEST if kind in CLOSED else len(values) > 0


def _contours(structures: Any, number: int) -> Iterable[Points]:
    """Contours of a region in mm (n, 3), LPS."""
    for region in structures.get("ROIContourSequence") or ():
        if int(region.ReferencedROINumber) != number:
            continue
        for contour in region.get("ContourSequence") or ():
            kind = str(contour.get("ContourGeometricType"))
            if kind not in CLOSED:
                raise IngestError(
                    f"a contour of type {kind} encloses no voxels; expected {' or '.join(CLOSED)}"
                )
            points = np.array(contour.get("ContourData") or (), dtype=np.float64)
            if points.size % 3 or not np.isfinite(points).all():
                raise IngestError(f"a contour has {points.size} coordinates, which are no points in space")
            if points.size >= 3 * SHORTEST:
                yield points.reshape(-1, 3)


def _by_plane(contours: Iterable[Points], scan: Volume) -> dict[int, list[Points]]:
    """Contours in voxels (row, column) by the plane of the scan that they lie on."""
    found: dict[int, list[Points]] = defaultdict(list)
    to_voxels = np.linalg.inv(scan.affine())
    for contour in contours:
        voxels = contour @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        plane = round(float(voxels[:, 0].mean()))
        off = float(np.abs(voxels[:, 0] - plane).max())
        if off > SAME_GRID_VOXELS:
            raise IngestError(
                f"a contour lies {off:.2f} of a slice beside plane {plane} of the scan: it was drawn on "
                "another grid, so draw or resample it on this one"
            )
        found[plane].append(voxels[:, 1:])
    return found


def _combine(masks: list[Mask], plane: int) -> Mask:
    """Contours of one plane together: what lies in an odd number of them.

    Raises:
        IngestError: two overlap, and none lies in the other.
    """
    for index, one in enumerate(masks):
        for other in masks[:index]:
            both, ones, others = (int(np.count_nonzero(each)) for each in (one & other, one, other))
            if both and (both < min(ones, others) or ones == others):
                raise IngestError(
                    f"two contours on plane {plane} share {both} of {ones} and {others} voxels, none lies "
                    "in the other: whether these belong to it can't be known"
                )
    inside: Mask = np.logical_xor.reduce(masks)
    return inside
