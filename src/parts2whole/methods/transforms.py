"""Transforms that spoil a volume: voxels shuffled in small blocks, a new intensity curve, painted windows.

Each is a pure function of a batch of volumes (B, C, D, H, W) in [0, 1] and of parameters that were drawn
before.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from parts2whole.scans.volume import Size

Integers = npt.NDArray[np.int64]

CURVE_POINTS = 8193
"""Points at which either half of an intensity curve is solved."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Small blocks of one volume, whose voxels change places.

    Attributes:
        start: (K, 3) first voxel along (z, y, x).
        size: (K, 3) extent.
        number: (K,) the order in which they are shuffled, from 0.
        order: for every voxel of every block (block after block, in C order), the number of the voxel in the
            block whose value it takes.
    """

    start: Integers
    size: Integers
    number: Integers
    order: Integers


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows inside volumes.

    Attributes:
        start: (B, K, 3) first voxel along (z, y, x).
        size: (B, K, 3) extent; 0 is no window.
    """

    start: Tensor
    size: Tensor

    def __getitem__(self, row: int) -> Windows:
        """Those of one volume, B = 1."""
        return Windows(self.start[row, None], self.size[row, None])


def flip(volumes: Tensor, flipped: Tensor) -> Tensor:
    """Mirror volumes along the axes chosen for each of them.

    Args:
        volumes: (B, C, D, H, W).
        flipped: (B, 3) booleans along (z, y, x).
    """
    mirrored = volumes.clone()
    for row, axes in enumerate(flipped.tolist()):
        if any(axes):
            mirrored[row] = volumes[row].flip([axis + 1 for axis in range(3) if axes[axis]])
    return mirrored


def shuffle_blocks(volumes: Tensor, blocks: Sequence[Blocks]) -> Tensor:
    """Let voxels change places inside small blocks, one block after the other.

    A block takes its voxels from the volume as given, and a later block overwrites an earlier one.

    Args:
        volumes: (B, C, D, H, W); all channels are shuffled alike.
        blocks: the blocks of every volume.
    """
    _, channels, depth, height, width = volumes.shape
    sources = torch.stack([_find_sources(one, (depth, height, width)) for one in blocks]).to(volumes.device)
    taken = volumes.flatten(2).gather(2, sources[:, None].expand(-1, channels, -1))
    return taken.reshape(volumes.shape)


def _find_sources(blocks: Blocks, shape: Size) -> Tensor:
    """For every voxel of one volume, the voxel whose value it has after all blocks: (D x H x W).

    Of all blocks that cover a voxel only the last counts.  So every voxel of every block writes (number of
    the block, voxel it takes its value from) to its place, and the largest wins.
    """
    voxels = math.prod(shape)
    bits = voxels.bit_length()
    size, count = blocks.size, blocks.size[:, 0] * blocks.size[:, 1] * blocks.size[:, 2]
    most_y, most_x, longest = (int(n) for n in (*size[:, 1:].max(axis=0), count.max()))
    offsets = _block_offsets(most_y, most_x, longest, shape)
    row = ((size[:, 1] - 1) * most_x + size[:, 2] - 1) * longest
    corner = (blocks.start[:, 0] * shape[1] + blocks.start[:, 1]) * shape[2] + blocks.start[:, 2]
    within = np.repeat(row - count.cumsum() + count, count) + np.arange(len(blocks.order))
    place = np.take(offsets, within) + np.repeat(corner, count)
    source = np.take(offsets, np.repeat(row, count) + blocks.order)
    source += np.repeat((1 + blocks.number << bits) + corner, count)  # 0 is a voxel that no block covers
    largest = torch.arange(voxels).scatter_reduce_(
        0, torch.from_numpy(place), torch.from_numpy(source), "amax"
    )
    return largest & (1 << bits) - 1


@functools.lru_cache(maxsize=4)
def _block_offsets(most_y: int, most_x: int, longest: int, shape: Size) -> Integers:
    """Where the n-th voxel of a block lies, counted from its corner, one row for every height and width."""
    y, x = np.arange(1, most_y + 1)[:, None, None], np.arange(1, most_x + 1)[None, :, None]
    n = np.arange(longest)
    offsets: Integers = n // (y * x) * (shape[1] * shape[2]) + n // x % y * shape[2] + n % x
    return offsets.ravel()


def bend_intensities(volumes: Tensor, controls: Tensor, falling: Tensor) -> Tensor:
    """Map intensities through a cubic Bezier curve from (0, 0) to (1, 1), or its falling counterpart.

    The curve is (x(s), y(s)), s from 0 to 1, and a voxel of value x(s) gets y(s), or y(1 - s) if falling.
    Both coordinates rise with s for any control points in the unit square.  The curve is solved at points
    that lie denser towards both ends, where it may start upright, and is linear between them.

    Args:
        volumes: (B, C, D, H, W) in [0, 1]; values outside are clamped.
        controls: (B, 4) inner control points (x1, y1, x2, y2), in [0, 1].
        falling: (B,) booleans: bright becomes dark.
    """
    curves = solve_curves(controls, falling)
    return torch.stack([look_up(volume, curve) for volume, curve in zip(volumes, curves, strict=True)])


def solve_curves(controls: Tensor, falling: Tensor) -> Tensor:
    """What `look_up` needs of the curves of `bend_intensities`: (B, 2 x `CURVE_POINTS`)."""
    zero, one = torch.zeros_like(controls[:, 0]), torch.ones_like(controls[:, 0])
    x1, y1, x2, y2 = controls.unbind(dim=1)
    # Measured from the nearer end, no digits are lost.
    from_low = _solve(_polynomial(zero, x1, x2, one))
    from_high = _solve(_polynomial(zero, 1 - x2, 1 - x1, one))
    rising, sinking = (zero, y1, y2, one), (one, y2, y1, zero)
    y = _polynomial(*(torch.where(falling, down, up) for up, down in zip(rising, sinking, strict=True)))
    s = torch.cat([from_low, 1 - from_high], dim=1)
    return _evaluate(s, y[:, :, None].unbind(dim=1))


def look_up(volume: Tensor, table: Tensor) -> Tensor:
    """Every value of one volume in a table of `CURVE_POINTS` from 0 to 1/2, and as many from 1 to 1/2."""
    value = volume.flatten().clamp(0, 1)
    place = torch.minimum(value, 1 - value).mul_(2).sqrt_().mul_(CURVE_POINTS - 1)
    below = place.long().clamp_(max=CURVE_POINTS - 2)
    place.sub_(below)
    below.add_(value >= 0.5, alpha=CURVE_POINTS)
    found = torch.lerp(table.index_select(0, below), table[1:].index_select(0, below), place)
    return found.reshape(volume.shape)


def _polynomial(p0: Tensor, p1: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
    """Coefficients of 1, s, s^2, s^3 of the Bezier curve with these control points: (B, 4)."""
    return torch.stack([p0, 3 * (p1 - p0), 3 * (p0 - 2 * p1 + p2), p3 - p0 + 3 * (p1 - p2)], dim=1)


def _evaluate(s: Tensor, coefficients: Sequence[float | Tensor]) -> Tensor:
    """The polynomial with these coefficients (of 1, s, s^2, ...) at s."""
    *lower, top = coefficients
    value = s * top
    for coefficient in lower[:0:-1]:
        value.add_(coefficient).mul_(s)
    return value.add_(lower[0])


def _solve(coefficients: Tensor) -> Tensor:
    """The s at which a rising polynomial without constant term reaches p^2 / 2, p = 0 to 1: (B, points).

    By bisection at some points, and a Newton step at all of them.
    """
    by_power = coefficients[:, :, None].unbind(dim=1)
    few, p = (
        torch.linspace(0, 1, points, device=coefficients.device, dtype=coefficients.dtype)
        for points in ((CURVE_POINTS - 1) // 16 + 1, CURVE_POINTS)
    )
    s = torch.zeros(len(coefficients), len(few), device=few.device, dtype=few.dtype)
    for bit in range(1, 25):  # as many as float32 has
        s += 0.5**bit * (_evaluate(s + 0.5**bit, by_power) <= few**2 / 2)
    s = F.interpolate(s[:, None], len(p), mode="linear", align_corners=True)[:, 0]
    slope = _evaluate(s, [k * coefficient for k, coefficient in enumerate(by_power)][1:])
    error = _evaluate(s, by_power) - p**2 / 2
    return (s - error / slope.clamp(min=1e-6)).clamp(0, 1)


def paint(volumes: Tensor, windows: Windows, noise: Tensor, *, outside: Tensor) -> Tensor:
    """Fill windows with noise, or everything but the windows.

    Args:
        volumes: (B, C, D, H, W).
        windows: K windows a volume.
        noise: what is painted, like ``volumes``.
        outside: (B,) booleans: paint what lies in no window.
    """
    z, y, x = (_inside(windows, axis, edge, noise.dtype) for axis, edge in enumerate(volumes.shape[2:]))
    covered = torch.einsum("bkz,bky,bkx->bzyx", z, y, x).clamp_(max=1)
    painted = covered.sub_(outside.to(noise.dtype)[:, None, None, None]).abs_()
    return torch.lerp(volumes, noise, painted[:, None])


def _inside(windows: Windows, axis: int, edge: int, dtype: torch.dtype) -> Tensor:
    """1 where a voxel of an axis lies in a window, else 0: (B, K, edge)."""
    voxel = torch.arange(edge, device=windows.start.device)
    start, size = windows.start[..., axis, None], windows.size[..., axis, None]
    return ((voxel >= start) & (voxel < start + size)).to(dtype)
