"""Boxes inside volumes, and cutting them out: draw a box, then crop and resize it.

An axis-aligned crop-and-resize is separable: one small interpolation matrix per axis, applied as three
matrix products.  That is several times faster than sampling a dense grid, and it is exact: the result equals
cropping first and interpolating the crop.  Accelerators cut a batch at once.  On a CPU box follows box,
because what lies outside a box then costs nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from parts2whole.errors import Parts2WholeError
from parts2whole.scans.volume import Size, size_of
from parts2whole.shapes import Float, Int
from parts2whole.wholes.random import BatchGenerator


class GeometryError(Parts2WholeError, ValueError):
    """A box or a band of sizes that can't be cut."""


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Axis-aligned boxes in voxel units, one a row.

    Attributes:
        start: (B, 3) first voxel along (z, y, x).
        size: (B, 3) extent in voxels along (z, y, x).
    """

    start: Int[Tensor, "b 3"]
    size: Int[Tensor, "b 3"]


def check_band(band: Sequence[float], name: str = "part_fraction") -> None:
    """Raise `GeometryError` unless ``band`` is (low, high) with 0 < low <= high <= 1."""
    if len(band) != 2 or not 0 < band[0] <= band[1] <= 1:
        raise GeometryError(f"{name} must be (low, high) with 0 < low <= high <= 1, got {tuple(band)}")


def draw_boxes(
    generator: BatchGenerator,
    whole_size: Size,
    *,
    fraction: tuple[float, float],
    per_axis: bool = True,
    count: int = 1,
) -> Boxes:
    """Draw ``count`` boxes for every row: a size fraction from a band, a position uniform inside.

    Args:
        generator: the random numbers of this step.
        whole_size: size of the whole in voxels, (z, y, x).
        fraction: band (low, high) of the box's edge over the whole's edge.
        per_axis: draw the fraction anew for every axis; otherwise the box keeps the whole's shape.
        count: boxes per row.

    Returns:
        Boxes with (rows x count, 3) integers; the boxes of one row follow each other.
    """
    check_band(fraction)
    numbers = generator.uniform(count, 6).reshape(-1, 6)
    whole = torch.tensor(whole_size, device=numbers.device, dtype=numbers.dtype)
    low, high = fraction
    drawn = numbers[:, :3] if per_axis else numbers[:, :1].expand(-1, 3)
    size = ((low + (high - low) * drawn) * whole).round().clamp(min=1).minimum(whole)
    start = (numbers[:, 3:] * (whole - size + 1)).floor().minimum(whole - size)
    return Boxes(start.long(), size.long())


def octants(size: Size, *, moved: float = 0.0) -> Boxes:
    """The 2 x 2 x 2 boxes that fill a volume of ``size`` voxels, x changing fastest.

    Where an edge is odd they overlap by a voxel. ``moved`` is how far they are moved towards the middle of
    the volume along every axis, as a share of their own edges.
    """
    whole = torch.tensor(size)
    half = (whole + 1) // 2
    step = (moved * half).round().long()
    sides = torch.cartesian_prod(*[torch.arange(2)] * 3)
    return Boxes(torch.where(sides == 0, step, whole - half - step), half.expand(8, 3))


def interpolation_matrix(
    start: Int[Tensor, " b"], size: Int[Tensor, " b"], n_in: int, n_out: int, *, antialias: bool
) -> Float[Tensor, "b {n_out} {n_in}"]:
    """Linear interpolation of one axis as a matrix, one for each box.

    Sample centres lie half a voxel inside the box's borders (``align_corners=False``), and only voxels
    of the box take part.  With ``antialias`` the kernel widens when the box shrinks.

    Args:
        start: (B,) first voxel of the box.
        size: (B,) extent of the box in voxels.
        n_in: length of the axis.
        n_out: number of samples.
        antialias: low-pass when shrinking.

    Returns:
        (B, n_out, n_in) rows that sum to one.
    """
    scale = (size / n_out)[:, None, None]
    centres = (torch.arange(n_out, device=size.device) + 0.5)[None, :, None] * scale - 0.5
    voxels = torch.arange(n_in, device=size.device)[None, None, :] - start[:, None, None]
    width = scale.clamp(min=1.0) if antialias else torch.ones_like(scale)
    weights = (1 - (centres - voxels).abs() / width).clamp(min=0)
    inside = (voxels >= 0) & (voxels < size[:, None, None])
    weights = weights * inside
    return weights / weights.sum(dim=2, keepdim=True)


def crop_resize(
    volumes: Float[Tensor, "b c d h w"], boxes: Boxes, size: Size, *, antialias: bool = True
) -> Float[Tensor, "bk c {size[0]} {size[1]} {size[2]}"]:
    """Cut one or more boxes out of every volume and resize each to ``size``.

    Args:
        volumes: (B, C, D, H, W) floats.
        boxes: B x K boxes, the K boxes of one volume following each other.
        size: output size in voxels.
        antialias: low-pass when a box is larger than ``size``.

    Returns:
        (B x K, C, *size).

    Raises:
        GeometryError: the number of boxes is not a multiple of the number of volumes.
    """
    batch = len(volumes)
    count, rest = divmod(len(boxes.start), batch)
    if rest or not count:
        raise GeometryError(f"{len(boxes.start)} boxes don't divide over {batch} volumes")
    if volumes.device.type == "cpu" and not volumes.requires_grad:
        return _cut_in_turn(volumes, boxes, size, count, antialias=antialias)
    return _cut_at_once(volumes, boxes, size, count, antialias=antialias)


def cut_parts(
    wholes: Tensor,
    generator: BatchGenerator,
    *,
    fraction: tuple[float, float],
    per_axis: bool = True,
    count: int = 1,
) -> Tensor:
    """``count`` random parts of every whole (B, C, D, H, W), stretched to its size: (B x count, C, D, H, W).

    Arguments and errors as of `draw_boxes`.
    """
    size = size_of(wholes)
    boxes = draw_boxes(generator, size, fraction=fraction, per_axis=per_axis, count=count)
    return crop_resize(wholes, boxes, size)


def resize(
    volumes: Float[Tensor, "b c d h w"], size: Size, *, antialias: bool = True
) -> Float[Tensor, "b c {size[0]} {size[1]} {size[2]}"]:
    """Resize whole volumes (B, C, D, H, W) to ``size``."""
    start = torch.zeros(len(volumes), 3, dtype=torch.long, device=volumes.device)
    extent = torch.tensor([size_of(volumes)] * len(volumes), device=volumes.device)
    return crop_resize(volumes, Boxes(start, extent), size, antialias=antialias)


def to_size(volume: Tensor, size: Size) -> Tensor:
    """Resize one volume (C, D, H, W) to ``size``; the volume itself if that is its size."""
    return volume if size_of(volume) == size else resize(volume[None], size)[0]


def _cut_at_once(volumes: Tensor, boxes: Boxes, size: Size, count: int, *, antialias: bool) -> Tensor:
    """`crop_resize` by batched products with matrices as long as the volumes."""
    batch, channels, *shape = volumes.shape
    matrices = [
        interpolation_matrix(boxes.start[:, a], boxes.size[:, a], shape[a], size[a], antialias=antialias)
        .to(volumes.dtype)
        .reshape(batch, count, size[a], shape[a])
        for a in range(3)
    ]
    # b batch, k box, c channel; d h w input axes; z y x output axes
    cut = torch.einsum("bkzd,bcdhw->bkczhw", matrices[0], volumes)
    cut = torch.einsum("bkyh,bkczhw->bkczyw", matrices[1], cut)
    cut = torch.einsum("bkxw,bkczyw->bkczyx", matrices[2], cut)
    return cut.reshape(batch * count, channels, *size)


def _cut_in_turn(volumes: Tensor, boxes: Boxes, size: Size, count: int, *, antialias: bool) -> Tensor:
    """`crop_resize` box by box, on the voxels of the box alone."""
    out = volumes.new_empty(len(boxes.start), volumes.shape[1], *size)
    lows, extents = boxes.start.tolist(), boxes.size.tolist()
    for row, ((z, y, x), (depth, height, width)) in enumerate(zip(lows, extents, strict=True)):
        box = volumes[row // count, :, z : z + depth, y : y + height, x : x + width]
        out[row] = _resize_box(box, size, antialias=antialias)
    return out


def _resize_box(box: Tensor, size: Size, *, antialias: bool) -> Tensor:
    """Resize (C, D, H, W) to ``size``: rows first, while there are few, then all planes."""
    _, depth, height, width = box.shape
    if (depth, height, width) == size:
        return box
    cut = torch.matmul(box, _cached_matrix(width, size[2], antialias, box.dtype).T)
    if antialias and (depth > size[0] or height > size[1]):
        cut = torch.matmul(_cached_matrix(height, size[1], antialias, box.dtype), cut)
        cut = torch.matmul(_cached_matrix(depth, size[0], antialias, box.dtype), cut.flatten(2))
        return cut.reshape(len(box), *size)
    # Where z and y don't shrink a sample is a mean of four voxels.  With x in the place of the channels, and
    # last in memory, one call takes whole rows of them, several times faster than two products.
    planes = F.interpolate(cut.permute(0, 3, 1, 2), size[:2], mode="bilinear", align_corners=False)
    return planes.permute(0, 2, 3, 1)


@functools.lru_cache(maxsize=1024)
def _cached_matrix(extent: int, n_out: int, antialias: bool, dtype: torch.dtype) -> Tensor:
    """(n_out, extent): `interpolation_matrix` of an axis whose box is all of it."""
    whole, start = torch.tensor([extent]), torch.tensor([0])
    return interpolation_matrix(start, whole, extent, n_out, antialias=antialias)[0].to(dtype)
