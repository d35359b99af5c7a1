"""The trunk of a patient: its size and shape, drawn once, and where its surfaces are.

One model serves chest and abdomen, so a chest scan ends in the liver and an abdominal one starts in lungs.
Shapes are given for a reference body in mm and mapped to the patient by a scale and a smooth warp.  z = 0 is
at the level of the carina, y = x = 0 in the middle of the rib cage.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.phantom.canvas import ellipsoid_distance
from parts2whole.phantom.space import Array, Grid, Slices, Smooth
from parts2whole.scans.volume import Triple

WARP_MM = 3.5
LEVELS = (-420, -300, -200, -110, -50, 20, 80, 115, 140, 160, 190)
CAGE_X = (124, 120, 127, 134, 132, 122, 98, 70, 46, 30, 26)
CAGE_Y = (80, 80, 90, 98, 98, 92, 76, 58, 42, 30, 28)
CAGE_MIDDLE = (0, 0, 0, 0, 0, 4, 14, 20, 26, 28, 28)
BODY_X = (146, 140, 148, 160, 164, 172, 190, 196, 180, 120, 66)
BODY_Y = (98, 98, 106, 116, 118, 116, 110, 98, 84, 70, 62)
SPINE_Y = (44, 42, 52, 60, 63, 64, 60, 54, 46, 40, 36)
# x of the mediastinal pleura, right and left, before heart and vessels push it out.
MEDIASTINUM = (26, 26, 26, 24, 22, 26, 28, 30, 26, 22, 20)


@dataclasses.dataclass(frozen=True, eq=False)
class Torso:
    """One patient's trunk.

    Attributes:
        scale: size along (z, y, x) against the reference body.
        fat_mm: thickness of the fat below the skin.
        dome_mm: z of the top of the right and of the left dome of the diaphragm.
        dome_depth_mm: how far the diaphragm descends towards the ribs.
        rib_phase: place of the first rib, in ribs.
        spine_phase: place of the discs, in vertebrae.
        heart_scale: size of the heart.
        warp_y: displacement along y, in units of `WARP_MM`.
        warp_x: displacement along x.
        wobble: irregularity of organ surfaces, over 25 mm.
        fine: texture over 7 mm.
    """

    scale: Triple
    fat_mm: float
    dome_mm: tuple[float, float]
    dome_depth_mm: float
    rib_phase: float
    spine_phase: float
    heart_scale: float
    warp_y: Smooth
    warp_x: Smooth
    wobble: Smooth
    fine: Smooth

    @classmethod
    def draw(cls, generator: np.random.Generator) -> Torso:
        """Draw a patient."""
        size = generator.uniform(0.92, 1.08)
        z, y, x = (float(v) for v in size * generator.uniform(0.95, 1.05, 3))
        breath = generator.uniform(-16, 14)
        return cls(
            (z, y, x),
            float(generator.gamma(4.0, 4.0) + 4),
            (float(-92 + breath), float(-104 + breath + generator.uniform(-8, 8))),
            float(generator.uniform(70, 100)),
            float(generator.uniform(-0.3, 0.3)),
            float(generator.uniform(0, 1)),
            float(generator.uniform(0.9, 1.15)),
            Smooth.draw(generator, 85.0),
            Smooth.draw(generator, 85.0),
            Smooth.draw(generator, 25.0),
            Smooth.draw(generator, 7.0),
        )

    def to_patient(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions (n, 3) in the reference body as positions in the patient."""
        wanted = np.atleast_2d(np.asarray(points, dtype=float))
        scale = np.asarray(self.scale)
        found = wanted * scale
        for _ in range(6):
            shift = np.zeros_like(found)
            shift[:, 1] = WARP_MM * self.warp_y.at(found)
            shift[:, 2] = WARP_MM * self.warp_x.at(found)
            found = (wanted - shift) * scale
        return np.asarray(found)

    def cage(self, z: Array, y: Array, x: Array) -> Array:
        """Distance in mm from the inner surface of the rib cage and, below it, of the abdominal wall."""
        y = y - _level(z, CAGE_MIDDLE)
        hollow = 26 * np.exp(-((x / np.float32(40)) ** 2)) * np.clip(y / np.float32(45), 0, 1)
        return _rounded(y + hollow, x, _level(z, CAGE_Y), _level(z, CAGE_X))

    def skin(self, z: Array, y: Array, x: Array) -> Array:
        """Distance in mm from the skin."""
        belly = np.clip((-z - 60) / 160, 0, 1)
        forward = self.fat_mm * (0.15 + 0.5 * belly)
        wide = _level(z, BODY_X) + self.fat_mm * (0.8 + 0.4 * belly)
        deep = _level(z, BODY_Y) + self.fat_mm * (0.7 + 0.4 * belly)
        return _rounded(y + forward, x, deep, wide)

    def dome(self, y: Array, x: Array) -> Array:
        """Z of the diaphragm."""
        right = ((x + 62) / np.float32(72)) ** 2 + ((y + 8) / np.float32(92)) ** 2
        left = ((x - 66) / np.float32(66)) ** 2 + ((y + 8) / np.float32(92)) ** 2
        depth = self.dome_depth_mm
        high = self.dome_mm[0] - np.minimum(depth * right, 1.5 * depth)
        low = self.dome_mm[1] - np.minimum(depth * left, 1.5 * depth)
        return np.asarray(np.maximum(high, low), dtype=np.float32)

    def heart(self, z: Array, y: Array, x: Array) -> Array:
        """Distance in mm from the surface of the heart."""
        s = self.heart_scale
        return ellipsoid_distance(z, y, x, self.heart_centre, (52 * s, 40 * s, 53 * s), HEART_TURN)

    @property
    def heart_centre(self) -> Triple:
        """Middle of the heart: it rides on the diaphragm."""
        return (self.dome_mm[1] + 46 + 8 * (self.heart_scale - 1), -30.0, 20.0)

    def spine_y(self, z: Array) -> Array:
        """Y of the middle of the vertebral bodies."""
        return _level(z, SPINE_Y)

    def lung(
        self, z: Array, y: Array, x: Array, cage: Array | None = None, wobble: float | Array = 0.0
    ) -> Array:
        """Distance in mm from the surface of either lung."""
        cage = self.cage(z, y, x) if cage is None else cage
        narrow = np.clip((y + 55) / np.float32(50), 0.35, 1)
        medial = _level(z, MEDIASTINUM) * narrow - np.abs(x - 4) + 4.5 * wobble
        spine = 27 - np.hypot(x, y - self.spine_y(z) - 4)
        # Radial distances overrate depth where the cage tapers, so its apex is cut by a plane as well.
        surfaces = (cage + 2.5, self.dome(y, x) + 2 - z, medial, spine, 4 - self.heart(z, y, x), z - 132)
        distance = surfaces[0]
        for surface in surfaces[1:]:
            distance = np.maximum(distance, surface)
        return np.asarray(distance, dtype=np.float32)

    def liver(self, z: Array, y: Array, x: Array, cage: Array, wobble: float | Array = 0.0) -> Array:
        """Distance in mm from the surface of the liver."""
        top = self.dome_mm[0]
        right = ellipsoid_distance(z, y, x, (top - 74, -6, -62), (92, 90, 74))
        left = ellipsoid_distance(z, y, x, (top - 46, -50, 18), (40, 40, 66))
        blend = np.clip(0.5 + 0.5 * (left - right) / 24, 0, 1)
        both = left + blend * (right - left) - 24 * blend * (1 - blend)
        # Stomach, bowel and kidney hollow it from below and from the left.
        hollow = -ellipsoid_distance(z, y, x, (top - 168, 18, 34), (108, 86, 94))
        limits = (cage + 5, z - self.dome(y, x) + 5, hollow)
        distance = both + 3.5 * wobble
        for limit in limits:
            distance = np.maximum(distance, limit)
        return np.asarray(distance, dtype=np.float32)


def _turn(degrees_z: float, degrees_y: float) -> npt.NDArray[np.float64]:
    """Rotation of (z, y, x) about z and then y."""
    a, b = np.radians([degrees_z, degrees_y])
    about_z = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]])
    return np.asarray(about_y @ about_z)


HEART_TURN = _turn(-35, -30)
"""The long axis of the heart, x of its own frame, points to the left, forwards and down."""


class Space:
    """A grid in a patient: for every voxel its place in the reference body.

    Attributes:
        grid: the voxels.
        z: (n, 1, 1) place along z.
        y: place along y of every voxel.
        x: place along x of every voxel.
    """

    def __init__(self, grid: Grid, torso: Torso) -> None:
        self.grid = grid
        self.scale = np.asarray(torso.scale)
        z, y, x = grid.axes()
        self.z = z / np.float32(self.scale[0])
        self.y = WARP_MM * torso.warp_y.on(grid) + y / np.float32(self.scale[1])
        self.x = WARP_MM * torso.warp_x.on(grid) + x / np.float32(self.scale[2])

    def cut(self, where: Slices) -> tuple[Array, Array, Array]:
        """Coordinates in a box."""
        return self.z[where[0]], self.y[where], self.x[where]

    def box(self, low: npt.ArrayLike, high: npt.ArrayLike) -> Slices | None:
        """A box of voxels that surely holds the part of the reference body between two corners."""
        margin = np.array([2.0, 3.5 * WARP_MM, 3.5 * WARP_MM])
        return self.grid.box(
            (np.asarray(low) - margin) * self.scale, (np.asarray(high) + margin) * self.scale
        )


def _level(z: Any, values: tuple[int, ...]) -> Array:
    """A quantity that changes with height, for an array of heights."""
    return np.asarray(np.interp(z, LEVELS, values), dtype=np.float32)


def _rounded(y: Array, x: Array, half_y: Array, half_x: Array) -> Array:
    """Radial distance in mm from an ellipse with somewhat fuller corners."""
    u, v = (x / half_x) ** 2, (y / half_y) ** 2
    q = np.sqrt(u + v - np.float32(0.35) * np.minimum(u, 1.5) * np.minimum(v, 1.5))
    return np.asarray(np.hypot(x, y) * (1 - 1 / np.maximum(q, 1e-3)), dtype=np.float32)
