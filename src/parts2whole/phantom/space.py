"""Physical space: grids in mm, and smooth random functions of the place that look the same on any grid.

Anatomy is drawn in mm before a grid is chosen, so the same patient appears at any spacing.  Positions
are (z, y, x): z towards superior, y towards posterior, x towards the patient's left.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.scans.volume import LabelVolume, Triple, Volume

Array = npt.NDArray[Any]
"""Mostly float32, for speed."""
Slices = tuple[slice, slice, slice]
LATTICE = 32
"""Knots along each axis of a smooth function, after which it repeats."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Voxel centres in the patient.

    Attributes:
        shape: voxels along (z, y, x).
        spacing_mm: distance between voxel centres.
        centre_mm: where the middle of the grid is, in the patient.
        table_mm: where the patient's origin is in the scanner.
    """

    shape: tuple[int, int, int]
    spacing_mm: Triple
    centre_mm: Triple = (0.0, 0.0, 0.0)
    table_mm: Triple = (0.0, 0.0, 0.0)

    @property
    def first_mm(self) -> Triple:
        """Position (z, y, x) of voxel [0, 0, 0]."""
        z, y, x = (
            c - s * (n - 1) / 2 for c, s, n in zip(self.centre_mm, self.spacing_mm, self.shape, strict=True)
        )
        return z, y, x

    def axis(self, number: int) -> Array:
        """Coordinates of the voxel centres along one axis, in mm."""
        steps = np.arange(self.shape[number], dtype=np.float32)
        return np.asarray(self.first_mm[number] + self.spacing_mm[number] * steps, dtype=np.float32)

    def axes(self) -> tuple[Array, Array, Array]:
        """Coordinates along (z, y, x), shaped to broadcast to the grid."""
        return self.axis(0)[:, None, None], self.axis(1)[None, :, None], self.axis(2)[None, None, :]

    def box(self, low_mm: npt.ArrayLike, high_mm: npt.ArrayLike) -> Slices | None:
        """Slices that hold every voxel between two corners; None where there is none."""
        first, step = np.array(self.first_mm), np.array(self.spacing_mm)
        start = np.maximum(np.ceil((np.asarray(low_mm) - first) / step), 0).astype(int)
        stop = np.minimum(np.floor((np.asarray(high_mm) - first) / step) + 1, self.shape).astype(int)
        if (start >= stop).any():
            return None
        a, b, c = (slice(int(i), int(j)) for i, j in zip(start, stop, strict=True))
        return a, b, c

    def index(self, points_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions (..., 3) as fractional voxel indices."""
        return np.asarray((np.asarray(points_mm) - np.array(self.first_mm)) / np.array(self.spacing_mm))

    def finer(self, times: int) -> Grid:
        """The same slab cut into ``times`` as many slices."""
        z, y, x = self.spacing_mm
        return dataclasses.replace(
            self, shape=(self.shape[0] * times, *self.shape[1:]), spacing_mm=(z / times, y, x)
        )

    def volume(self, array: npt.NDArray[Any], modality: str | None = None) -> Volume:
        """An image on this grid, placed in the scanner."""
        return Volume(array, self.spacing_mm, self._origin(), modality=modality)

    def label(self, array: npt.NDArray[Any]) -> LabelVolume:
        """A label map on this grid, placed in the scanner."""
        return LabelVolume(array, self.spacing_mm, self._origin())

    def world(self, point_mm: npt.ArrayLike) -> Triple:
        """LPS coordinates (x, y, z) in the scanner of a position (z, y, x) in the patient."""
        z, y, x = (float(v) for v in np.asarray(point_mm) + np.array(self.table_mm))
        return x, y, z

    def _origin(self) -> Triple:
        return self.world(self.first_mm)


@dataclasses.dataclass(frozen=True, eq=False)
class Smooth:
    """A random function of the place, with mean 0 and variance about 1: a cubic B-spline over random knots.

    Attributes:
        knots: values, `LATTICE` along each axis, repeating.
        scale_mm: distance between knots.
    """

    knots: Array
    scale_mm: float

    @classmethod
    def draw(cls, generator: np.random.Generator, scale_mm: float) -> Smooth:
        """Draw one that changes over about ``scale_mm``."""
        knots = generator.standard_normal((LATTICE,) * 3, dtype=np.float32)
        # A cubic B-spline of independent knots keeps 0.479 of their variance along each axis.
        return cls(knots * np.float32(0.479**-1.5), scale_mm)

    def on(self, grid: Grid) -> Array:
        """Its values on a grid."""
        z, y, x = (_weights(grid.axis(number) / self.scale_mm) for number in range(3))
        along_z = np.tensordot(z, self.knots, axes=(1, 0))
        along_y = np.matmul(y, along_z)
        return np.asarray(np.matmul(along_y, x.T), dtype=np.float32)

    def at(self, points_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Its values at positions (n, 3)."""
        (i, u), (j, v), (k, w) = (_pieces(points_mm[:, number] / self.scale_mm) for number in range(3))
        near = self.knots[i[:, :, None, None], j[:, None, :, None], k[:, None, None, :]]
        along_x = np.matmul(near, w[:, None, :, None])[..., 0]
        along_y = np.matmul(along_x, v[:, :, None])[..., 0]
        return np.asarray((along_y * u).sum(axis=1), dtype=np.float64)


def _weights(places: npt.NDArray[Any]) -> Array:
    """Weights (n, LATTICE) of the knots for places in units of their distance."""
    knots, pieces = _pieces(places)
    weights = np.zeros((len(places), LATTICE), dtype=np.float32)
    np.put_along_axis(weights, knots, pieces.astype(np.float32), axis=1)
    return weights


def _pieces(places: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The four knots (n, 4) around places, and their weights."""
    whole = np.floor(places)
    t = places - whole
    pieces = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    knots = (whole.astype(np.int64)[:, None] + np.arange(-1, 3)) % LATTICE
    return knots, np.stack(pieces, axis=1) / 6
