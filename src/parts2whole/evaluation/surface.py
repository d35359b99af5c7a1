"""Distances between the surfaces of two masks, in mm."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float64]
SLACK = 1e-6
"""Share of a tolerance that a distance may be above it: spacings are read with rounding errors."""


@dataclasses.dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm from every surface voxel of one mask to the nearest surface voxel of the other.

    A surface voxel is a voxel of the mask with a face on the outside; the border of the volume counts as
    outside. Every surface voxel counts alike, whatever area it stands for.

    Attributes:
        to_reference: from the prediction's surface; infinite where the reference is empty.
        to_prediction: from the reference's surface; infinite where the prediction is empty.
    """

    to_reference: Distances
    to_prediction: Distances

    @property
    def defined(self) -> bool:
        """Whether both masks have a surface."""
        return bool(len(self.to_reference) and len(self.to_prediction))

    def hd95_mm(self) -> float:
        """The larger of the 95th percentiles of the two directions; nan if a mask is empty."""
        if not self.defined:
            return math.nan
        return max(float(np.percentile(side, 95)) for side in (self.to_reference, self.to_prediction))

    def assd_mm(self) -> float:
        """Mean over the surface voxels of both masks; nan if a mask is empty."""
        return float(self._both().mean()) if self.defined else math.nan

    def surface_dice(self, tolerance_mm: float) -> float:
        """Share of the surface voxels of both masks within a tolerance of the other's surface.

        Nan if both masks are empty, 0 if one is.
        """
        both = self._both()
        return float((both <= tolerance_mm * (1 + SLACK)).mean()) if len(both) else math.nan

    def _both(self) -> Distances:
        return np.concatenate([self.to_reference, self.to_prediction])


def surface_distances(
    prediction: Mask, reference: Mask, spacing_mm: tuple[float, float, float]
) -> SurfaceDistances:
    """Distances between the surfaces of two masks (z, y, x) with voxel spacing (z, y, x) in mm."""
    box = _bounding_box(prediction | reference)
    if box is None:
        return SurfaceDistances(np.empty(0), np.empty(0))
    # Nothing outside the box that holds both masks matters, and a scan is mostly outside.
    surfaces = [_surface(mask[box]) for mask in (prediction, reference)]
    away = [_distance_to(surface, spacing_mm) for surface in surfaces]
    return SurfaceDistances(away[1][surfaces[0]], away[0][surfaces[1]])


def _surface(mask: Mask) -> Mask:
    inner: Mask = mask & ~ndimage.binary_erosion(mask)
    return inner


def _distance_to(surface: Mask, spacing_mm: tuple[float, float, float]) -> Distances:
    if not surface.any():
        return np.full(surface.shape, math.inf)
    distances: Distances = np.asarray(
        ndimage.distance_transform_edt(~surface, sampling=spacing_mm), np.float64
    )
    return distances


def _bounding_box(mask: Mask) -> tuple[slice, slice, slice] | None:
    """The smallest box that holds the mask; None if it is empty."""
    ranges = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(filled):
            return None
        ranges.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return ranges[0], ranges[1], ranges[2]
