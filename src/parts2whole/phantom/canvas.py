"""A canvas of grey values and structures, on which solids are painted with soft borders (partial volume)."""

from __future__ import annotations

import dataclasses
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.phantom.space import Array, Grid, Slices


class Structure(IntEnum):
    """What a voxel mostly belongs to."""

    AIR = 0
    TABLE = 1
    SKIN = 2
    FAT = 3
    MUSCLE = 4
    BONE = 5
    CARTILAGE = 6
    LUNG = 7
    MEDIASTINUM = 8
    HEART = 9
    AORTA = 10
    ARTERY = 11
    VEIN = 12
    AIRWAY = 13
    OESOPHAGUS = 14
    LIVER = 15
    SPLEEN = 16
    KIDNEY = 17
    STOMACH = 18
    BOWEL = 19
    PANCREAS = 20
    GALLBLADDER = 21
    NODE = 22


@dataclasses.dataclass(frozen=True, eq=False)
class Tubes:
    """Straight pieces of vessels.

    Attributes:
        start_mm: (n, 3) positions.
        end_mm: (n, 3) positions.
        radius_mm: (n, 2) at start and end.
    """

    start_mm: npt.NDArray[np.float64]
    end_mm: npt.NDArray[np.float64]
    radius_mm: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start_mm)

    def joined(self, *others: Tubes) -> Tubes:
        """These and others."""
        everything = (self, *others)
        return Tubes(
            np.concatenate([tubes.start_mm for tubes in everything]),
            np.concatenate([tubes.end_mm for tubes in everything]),
            np.concatenate([tubes.radius_mm for tubes in everything]),
        )

    def thinner(self, factor: float, less_mm: float = 0.0) -> Tubes:
        """The same centre lines with other radii."""
        radius = np.maximum(self.radius_mm * factor - less_mm, 0.2)
        return dataclasses.replace(self, radius_mm=radius)

    def chosen(self, which: npt.NDArray[Any]) -> Tubes:
        """Some of them."""
        return Tubes(self.start_mm[which], self.end_mm[which], self.radius_mm[which])


def tube_path(points: npt.ArrayLike, radius: npt.ArrayLike) -> Tubes:
    """Tubes along a polyline (n, 3), with one radius or one for each point."""
    places = np.asarray(points, dtype=float)
    radii = np.broadcast_to(np.asarray(radius, dtype=float), len(places))
    return Tubes(places[:-1], places[1:], np.stack([radii[:-1], radii[1:]], axis=1))


class Canvas:
    """Grey values and structures on a grid.

    Attributes:
        grid: where the voxels are.
        value: grey values.
        structure: what every voxel mostly belongs to, such as a `Structure`.
        lesion: 0, or the number of a lesion.
        edge_mm: width over which a border is blurred by the size of a voxel.
    """

    def __init__(self, grid: Grid, value: float) -> None:
        self.grid = grid
        self.value: Array = np.full(grid.shape, value, dtype=np.float32)
        self.structure: npt.NDArray[np.uint8] = np.zeros(grid.shape, dtype=np.uint8)
        self.lesion: npt.NDArray[np.uint8] = np.zeros(grid.shape, dtype=np.uint8)
        self.edge_mm = float(np.mean(grid.spacing_mm))

    def paint(
        self,
        distance: Array,
        value: float | Array,
        structure: IntEnum | None = None,
        *,
        where: Slices = (slice(None), slice(None), slice(None)),
        soft_mm: float = 0.0,
        strength: float | Array = 1.0,
        only: npt.NDArray[np.bool_] | None = None,
        lesion: int = 0,
    ) -> None:
        """Paint a solid given by its signed distance in mm, negative inside.

        Args:
            distance: on the voxels of ``where``.
            value: its grey value.
            structure: what its voxels become; None leaves what they are.
            where: the box it lies in.
            soft_mm: width of its border where that is wider than a voxel.
            strength: share of the value that comes through, for what is thinner than a voxel.
            only: voxels it may touch.
            lesion: number of the lesion its voxels become part of.
        """
        width = max(self.edge_mm, soft_mm)
        cover = np.clip(0.5 - distance * np.float32(1 / width), 0, 1)
        if only is not None:
            cover = cover * only
        cover = cover * np.asarray(strength, dtype=np.float32)
        inside = cover >= 0.5
        view = self.value[where]
        view += cover * (np.asarray(value, dtype=np.float32) - view)
        if structure is not None:
            self.structure[where][inside] = structure
        if lesion:
            self.lesion[where][inside] = lesion

    def paint_tubes(
        self,
        tubes: Tubes,
        value: float | npt.NDArray[np.float64],
        structure: IntEnum | None = None,
        *,
        inside: tuple[IntEnum, ...] = (),
        lesion: int = 0,
        soft_mm: float = 0.0,
    ) -> None:
        """Paint vessels, each with the one value or its own, only inside some structures if any are given."""
        values = np.broadcast_to(np.asarray(value, dtype=float), len(tubes))
        z, y, x = self.grid.axes()
        thin = np.minimum(1.0, 2 * tubes.radius_mm.max(axis=1) / self.edge_mm) ** 1.3
        reach = tubes.radius_mm.max(axis=1) + max(self.edge_mm, soft_mm)
        low = np.minimum(tubes.start_mm, tubes.end_mm) - reach[:, None]
        high = np.maximum(tubes.start_mm, tubes.end_mm) + reach[:, None]
        for number in np.flatnonzero(thin > 0.1):
            where = self.grid.box(low[number], high[number])
            if where is None:
                continue
            distance = tube_distance(
                z[where[0]], y[:, where[1]], x[:, :, where[2]], tubes.start_mm[number], tubes.end_mm[number],
                tubes.radius_mm[number],
            )  # fmt: skip
            only = np.isin(self.structure[where], inside) if inside else None
            self.paint(
                distance, float(values[number]), structure, where=where, strength=float(thin[number]),
                only=only, lesion=lesion, soft_mm=soft_mm,
            )  # fmt: skip


def tube_distance(
    z: Array, y: Array, x: Array,
    start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], radius: npt.NDArray[np.float64],
) -> Array:  # fmt: skip
    """Signed distance in mm to a tube with round ends whose radius changes from start to end."""
    dz, dy, dx = (float(v) for v in end - start)
    length2 = max(dz * dz + dy * dy + dx * dx, 1e-6)
    z0, y0, x0 = (float(v) for v in start)
    rz, ry, rx = z - z0, y - y0, x - x0
    along = np.clip((rz * dz + ry * dy + rx * dx) / length2, 0, 1)
    square = (rz - along * dz) ** 2 + (ry - along * dy) ** 2 + (rx - along * dx) ** 2
    width = float(radius[0]) + along * float(radius[1] - radius[0])
    return np.asarray(np.sqrt(square) - width, dtype=np.float32)


def ellipsoid_distance(
    z: Array,
    y: Array,
    x: Array,
    centre: npt.ArrayLike,
    radii: npt.ArrayLike,
    turn: npt.ArrayLike | None = None,
) -> Array:
    """About the signed distance in mm to an ellipsoid, whose axes may be turned by a rotation matrix."""
    (z0, y0, x0), (a, b, c) = (tuple(float(v) for v in np.asarray(t)) for t in (centre, radii))
    u, v, w = z - z0, y - y0, x - x0
    if turn is not None:
        m = np.asarray(turn, dtype=np.float32)
        u, v, w = (m[i, 0] * u + m[i, 1] * v + m[i, 2] * w for i in range(3))
    u, v, w = u * np.float32(1 / a), v * np.float32(1 / b), w * np.float32(1 / c)
    q = np.sqrt(u**2 + v**2 + w**2)
    slope = np.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2)
    return np.asarray(q * (q - 1) / np.maximum(slope, 1e-4 / min(a, b, c)), dtype=np.float32)
