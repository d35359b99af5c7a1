"""Volumes: a voxel array in (z, y, x) order with the geometry that places it in the patient.

An image and a label map are different types, so that a label can't be interpolated by mistake.  World
coordinates are millimetres in the LPS frame that DICOM and ITK use (left, posterior, superior positive).
Canonical orientation is direction == `CANONICAL`: axis 0 grows towards superior, axis 1 towards
posterior, axis 2 towards the patient's left.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from parts2whole.errors import Parts2WholeError

Triple = tuple[float, float, float]
"""Three numbers along (z, y, x), such as a spacing in mm."""

Size = tuple[int, int, int]
"""Voxels along (z, y, x)."""

Direction = tuple[Triple, Triple, Triple]

CANONICAL: Direction = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Column i is the LPS unit vector of array axis i: z is superior, y posterior, x left."""

G = TypeVar("G", bound="_Grid")
T = TypeVar("T", bound=np.generic)


class VolumeError(Parts2WholeError, ValueError):
    """A volume whose array or geometry is impossible, or a box of less than no voxels."""


class _Shaped(Protocol):
    """An array or a tensor."""

    @property
    def shape(self) -> Sequence[int]: ...


def size_of(array: _Shaped) -> Size:
    """The last three axes of an array or tensor (..., z, y, x)."""
    z, y, x = array.shape[-3:]
    return (z, y, x)


def triple(values: npt.NDArray[np.float64]) -> Triple:
    """Three numbers as a tuple, without negative zeros."""
    a, b, c = (float(value) + 0.0 for value in values)
    return a, b, c


@dataclasses.dataclass(frozen=True)
class Box:
    """Part of an array, in voxels (z, y, x); it may leave the array.

    Attributes:
        start: first voxel; negative where the box begins before the array.
        size: edge lengths.
    """

    start: Size
    size: Size

    def __post_init__(self) -> None:
        if min(self.size) < 0:
            raise VolumeError(f"the size of a box can't be negative, got {self.size}")

    @classmethod
    def of(cls, array: _Shaped) -> Box:
        """All of an array (..., z, y, x)."""
        return cls((0, 0, 0), size_of(array))

    @classmethod
    def around(cls, centre: Sequence[float] | npt.NDArray[np.floating[Any]], size: Size) -> Box:
        """The box whose middle is nearest to a point, in voxels (z, y, x)."""
        z, y, x = (math.floor(c - s / 2 + 1) for c, s in zip(centre, size, strict=True))
        return cls((z, y, x), size)

    @property
    def stop(self) -> Size:
        """The voxel after the last."""
        z, y, x = (start + size for start, size in zip(self.start, self.size, strict=True))
        return (z, y, x)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index, for a box that doesn't begin before its array."""
        z, y, x = (slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))
        return (z, y, x)

    def inside(self, shape: Size) -> Box:
        """The part that lies in an array of this shape; it may be empty."""
        start = [min(max(0, a), edge) for a, edge in zip(self.start, shape, strict=True)]
        stop = [max(a, min(b, edge)) for a, b, edge in zip(start, self.stop, shape, strict=True)]
        z, y, x = (b - a for a, b in zip(start, stop, strict=True))
        return Box((start[0], start[1], start[2]), (z, y, x))

    def relative_to(self, other: Box) -> Box:
        """The same box, counted from the first voxel of another."""
        z, y, x = (mine - theirs for mine, theirs in zip(self.start, other.start, strict=True))
        return Box((z, y, x), self.size)

    def cut(self, array: npt.NDArray[T], fill: float = 0) -> npt.NDArray[T]:
        """Cut the box out of an array (..., z, y, x), with ``fill`` where it leaves the array.

        Contiguous; not a copy if the box is all of a contiguous array.
        """
        inside = self.inside(size_of(array))
        if inside == self:
            return np.ascontiguousarray(array[..., *self.slices])
        padded = np.full((*array.shape[:-3], *self.size), fill, dtype=array.dtype)
        padded[..., *inside.relative_to(self).slices] = array[..., *inside.slices]
        return padded


@dataclasses.dataclass(frozen=True, eq=False)
class _Grid:
    """What an image and a label map share: array and geometry.

    Attributes:
        array: voxels, (z, y, x) or (channel, z, y, x).
        spacing_mm: distance between voxel centres along (z, y, x), in mm.
        origin_mm: LPS position (x, y, z) of the centre of voxel [0, 0, 0], in mm.
        direction: 3 x 3 matrix as nested tuples; column i is the LPS unit vector of array axis i.
    """

    array: npt.NDArray[Any]
    spacing_mm: Triple = (1.0, 1.0, 1.0)
    origin_mm: Triple = (0.0, 0.0, 0.0)
    direction: Direction = CANONICAL

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4):
            raise VolumeError(f"expected (z, y, x) or (channel, z, y, x), got shape {self.array.shape}")
        if min(self.array.shape) < 1:
            raise VolumeError(f"a volume can't be empty, got shape {self.array.shape}")
        if not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise VolumeError(f"spacing must be positive, got {self.spacing_mm} mm")
        if abs(np.linalg.det(np.asarray(self.direction))) < 1e-3:
            raise VolumeError(f"direction matrix is singular: {self.direction}")

    @property
    def shape(self) -> Size:
        """Size in voxels along (z, y, x), without the channel axis."""
        return size_of(self.array)

    def affine(self) -> npt.NDArray[np.float64]:
        """4 x 4 matrix from array index (z, y, x, 1) to LPS position (x, y, z, 1) in mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(self.direction) * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    def same_grid(self, other: _Grid, *, tolerance: float = 1e-3) -> bool:
        """Whether two volumes have the same shape and place voxels within ``tolerance`` voxels."""
        if self.shape != other.shape:
            return False
        corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
        corners[:, :3] *= np.asarray(self.shape) - 1
        apart = np.abs((self.affine() - other.affine()) @ corners.T).max()
        return bool(apart <= tolerance * min(self.spacing_mm))


@dataclasses.dataclass(frozen=True, eq=False)
class Volume(_Grid):
    """An image: real-valued voxels that may be interpolated.

    Attributes:
        modality: what the file says it is (CT, MR, ...); None where the format can't say.
        notes: what the user should know of how it was read.
    """

    modality: str | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class LabelVolume(_Grid):
    """A label map: integer voxels, resampled by nearest neighbour only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.array.dtype.kind not in "iub":
            raise VolumeError(f"labels must be integers, got {self.array.dtype}")


def orientation_code(direction: Direction) -> str:
    """Three letters naming where array axes (z, y, x) point, such as ``SPL`` for canonical."""
    letters = (("R", "L"), ("A", "P"), ("I", "S"))
    matrix = np.asarray(direction)
    axes = _closest_axes(matrix)
    return "".join(letters[axis][int(matrix[axis, i] > 0)] for i, axis in enumerate(axes))


def to_canonical(volume: G) -> G:
    """Permute and flip axes so that they point nearest to superior, posterior and left.

    Voxel values don't change; an oblique volume stays oblique.  `from_canonical_array` undoes it.
    """
    order, flips = _canonical_moves(volume.direction)
    array = np.moveaxis(volume.array, [a - 3 for a in order], [-3, -2, -1])
    array = np.flip(array, tuple(a - 3 for a in range(3) if flips[a]))
    matrix = np.asarray(volume.direction)[:, order]
    z, y, x = (volume.spacing_mm[a] for a in order)
    spacing = (z, y, x)
    shape = [volume.shape[a] for a in order]
    origin = np.asarray(volume.origin_mm, dtype=float)
    for axis in range(3):
        if flips[axis]:
            origin = origin + matrix[:, axis] * spacing[axis] * (shape[axis] - 1)
            matrix[:, axis] *= -1
    return dataclasses.replace(
        volume,
        array=array,
        spacing_mm=spacing,
        origin_mm=triple(origin),
        direction=(triple(matrix[0]), triple(matrix[1]), triple(matrix[2])),
    )


def from_canonical_array(array: npt.NDArray[Any], direction: Direction) -> npt.NDArray[Any]:
    """Bring a canonical (..., z, y, x) array back to the axes of a volume with ``direction``."""
    order, flips = _canonical_moves(direction)
    array = np.flip(array, tuple(a - 3 for a in range(3) if flips[a]))
    return np.moveaxis(array, [-3, -2, -1], [a - 3 for a in order])


def content_hash(array: npt.NDArray[Any]) -> str:
    """SHA-256 of the voxel values, the same for any file format, axis order of storage or dtype.

    Values are compared as float64 in C order, so a re-encoded copy of a scan hashes alike.
    """
    hasher = hashlib.sha256(str(array.shape).encode())
    for plane in array.reshape(-1, *array.shape[-2:]):
        hasher.update((np.ascontiguousarray(plane, dtype="<f8") + 0.0).data)  # + 0.0 makes -0.0 hash as 0.0
    return hasher.hexdigest()


def _closest_axes(matrix: npt.NDArray[np.float64]) -> list[int]:
    """The world axis (0 x, 1 y, 2 z) that each array axis runs along, each used once."""
    strength = np.abs(matrix / np.linalg.norm(matrix, axis=0))
    axes = [-1, -1, -1]
    for _ in range(3):
        world, array_axis = np.unravel_index(np.argmax(strength), strength.shape)
        axes[int(array_axis)] = int(world)
        strength[world, :] = -1
        strength[:, array_axis] = -1
    return axes


def _canonical_moves(direction: Direction) -> tuple[list[int], list[bool]]:
    """Which array axis becomes z, y, x, and whether it is flipped afterwards."""
    matrix = np.asarray(direction, dtype=float)
    axes = _closest_axes(matrix)
    order = [axes.index(world) for world in (2, 1, 0)]
    flips = [bool(matrix[world, axis] < 0) for world, axis in zip((2, 1, 0), order, strict=True)]
    return order, flips
