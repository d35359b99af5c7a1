"""What torch can't repeat to the bit on a GPU, made of what it can.

`torch.use_deterministic_algorithms` makes it an error there to go back through pooling, trilinear
interpolation or the cross-entropy of maps: their kernels add up in the order in which threads arrive.  With
that switch on, a GPU gets other operations here, slower and equal but for rounding; everything else gets
torch's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.networks.base import Stride
from parts2whole.scans.volume import Size
from parts2whole.shapes import Float, Int
from parts2whole.wholes.geometry import resize


def needs_other_way(x: Tensor) -> bool:
    """Whether ``x`` is on a GPU and everything must be repeatable."""
    return torch.are_deterministic_algorithms_enabled() and x.is_cuda  # a trace asks no device


def max_pool(
    x: Float[Tensor, "b c d h w"], kernel: Stride, stride: Stride, padding: int = 0
) -> Float[Tensor, "b c z y x"]:
    """Largest voxel of every window, the first of equal ones; as `torch.nn.functional.max_pool3d`."""
    if not needs_other_way(x):
        return F.max_pool3d(x, kernel, stride, padding)
    return max_pool_slices(x, kernel, stride, padding)


def max_pool_slices(x: Tensor, kernel: Stride, stride: Stride, padding: int = 0) -> Tensor:
    """`max_pool` by comparing shifted maps."""
    padded = F.pad(x, [padding] * 6, value=-torch.inf) if padding else x
    return _pool(padded, kernel, stride, lambda a, b: torch.where((a >= b) | a.isnan(), a, b))


def average_pool(x: Float[Tensor, "b c d h w"], kernel: Stride, stride: Stride) -> Float[Tensor, "b c z y x"]:
    """Mean of every window; as `torch.nn.functional.avg_pool3d`."""
    if not needs_other_way(x):
        return F.avg_pool3d(x, kernel, stride)
    return _pool(x, kernel, stride, torch.add) / (kernel[0] * kernel[1] * kernel[2])


def _pool(x: Tensor, kernel: Stride, stride: Stride, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Join the voxels of every window, axis by axis, x first, each axis from its lower end."""
    for axis in (4, 3, 2):
        size, step = kernel[axis - 2], stride[axis - 2]
        reach = (x.shape[axis] - size) // step * step + 1
        shifted = (slice(first, first + reach, step) for first in range(size))
        x = functools.reduce(join, [x[(slice(None),) * axis + (places,)] for places in shifted])
    return x


class AveragePool(nn.Module):
    """`average_pool` of windows that don't overlap."""

    def __init__(self, edge: int) -> None:
        super().__init__()
        self.windows: Stride = (edge, edge, edge)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, C, D / edge, H / edge, W / edge)."""
        return average_pool(x, self.windows, self.windows)


def average_cells(x: Float[Tensor, "b c d h w"], cells: int) -> Float[Tensor, "b c {cells} {cells} {cells}"]:
    """Means of ``cells`` x ``cells`` x ``cells`` boxes; as `torch.nn.functional.adaptive_avg_pool3d`."""
    if not needs_other_way(x):
        return F.adaptive_avg_pool3d(x, cells)
    means = (_cell_means(edge, cells).to(x) for edge in x.shape[2:])
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum("zd,yh,xw,bcdhw->bczyx", *means, x)


def _cell_means(edge: int, cells: int) -> Tensor:
    """(cells, edge): each row the mean of a cell; neighbours share a voxel where the edge doesn't divide."""
    matrix = torch.zeros(cells, edge)
    for cell, row in enumerate(matrix):
        first, end = cell * edge // cells, -(-(cell + 1) * edge // cells)
        row[first:end] = 1 / (end - first)
    return matrix


def enlarge(x: Float[Tensor, "b c d h w"], size: Size) -> Float[Tensor, "b c {size[0]} {size[1]} {size[2]}"]:
    """Trilinear interpolation without aligned corners; as `torch.nn.functional.interpolate`."""
    if not needs_other_way(x):
        return F.interpolate(x, size, mode="trilinear", align_corners=False)
    with torch.autocast(x.device.type, enabled=False):
        return resize(x, size, antialias=False)


def map_cross_entropy(
    logits: Float[Tensor, "b k d h w"], target: Int[Tensor, "b d h w"], **options: Any
) -> Float[Tensor, ""]:
    """Cross-entropy of every voxel; ``options`` and result as of `torch.nn.functional.cross_entropy`."""
    if needs_other_way(logits):
        logits, target = logits.movedim(1, -1).reshape(-1, logits.shape[1]), target.reshape(-1)
    return F.cross_entropy(logits, target, **options)
