"""Batch and instance norm that keep up with memory, for channels-last maps on a CPU.

A channels-last map is a matrix with a row for every voxel and a column for every channel. PyTorch's kernels
go through it row by row, and with few channels, as in the finest and largest maps, a row fills no register;
for instance norm they copy the map into another order. Here the same memory is seen as a matrix with fewer,
longer rows of several voxels each, PyTorch's kernels run over that, and the statistics of all columns of a
channel are put together. Values, gradients and running statistics are PyTorch's up to rounding, and nearer
to exact ones: a kernel adds up a whole column in one float, and columns are shorter here.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from parts2whole.networks.blocks import BatchStatisticsNorm3d

COLUMNS = 256
"""Numbers in a row, at most: several vector registers; more gain little."""
REGISTER = 16
"""Channels that fill a register of AVX-512; PyTorch's batch norm is fast at multiples of that."""
SMALLEST = 2**16
"""Numbers of a map, or of an instance of it, below which the way there costs more than it saves."""


def speed_up_norms(module: nn.Module) -> None:
    """Make the norms of a module go the fast way where there is one; the module is changed."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm3d) and type(norm) in (nn.BatchNorm3d, BatchStatisticsNorm3d):
            norm.forward = functools.partial(_batch_norm, norm)  # type: ignore[method-assign]
        if type(norm) is nn.InstanceNorm3d and norm.affine and not norm.track_running_stats:
            norm.forward = functools.partial(_instance_norm, norm)  # type: ignore[method-assign]


def _instance_norm(norm: nn.InstanceNorm3d, x: Tensor) -> Tensor:
    """Each channel of each row of (B, C, D, H, W) normalised by itself."""
    voxels = _voxels_of_row(x, groups=len(x))
    return _normalise(norm, x, len(x), voxels)[0] if voxels > 1 else nn.InstanceNorm3d.forward(norm, x)


def _batch_norm(norm: nn.BatchNorm3d, x: Tensor) -> Tensor:
    """Each channel of (B, C, D, H, W) normalised, as the norm's own class does it."""
    voxels = 1 if norm.num_features % REGISTER == 0 else _voxels_of_row(x, groups=1)
    if voxels == 1 or not norm.affine:
        plain: Tensor = type(norm).forward(norm, x)
        return plain
    running_mean, running_variance = norm.running_mean, norm.running_var
    if running_mean is None or running_variance is None:
        return _normalise(norm, x, 1, voxels)[0]
    counts = type(norm) is nn.BatchNorm3d
    if counts and not norm.training:
        mean, variance, weight, bias = (
            tensor.repeat(voxels) for tensor in (running_mean, running_variance, norm.weight, norm.bias)
        )
        y = F.batch_norm(_rows(x, 1, voxels)[0], mean, variance, weight, bias, eps=norm.eps)
        return y.view(x.movedim(1, -1).shape).movedim(-1, 1)
    y, means, variances = _normalise(norm, x, 1, voxels)
    share = norm.momentum or 0.1
    if counts and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    count = x.numel() / x.shape[1]
    running_mean.lerp_(means[0], share)
    running_variance.lerp_(variances[0] * (count / (count - 1)), share)
    return y


def _normalise(
    norm: nn.BatchNorm3d | nn.InstanceNorm3d, x: Tensor, groups: int, voxels: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A map normalised by its own statistics, and these; see `_Normalised`."""
    found: tuple[Tensor, Tensor, Tensor] = _Normalised.apply(  # type: ignore[no-untyped-call]
        x, norm.weight, norm.bias, norm.eps, groups, voxels
    )
    return found


def _voxels_of_row(x: Tensor, groups: int) -> int:
    """How many voxels are seen as one row; 1 leaves the map to PyTorch."""
    fits = x.ndim == 5 and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    if not fits or x.numel() < SMALLEST * groups or not x.is_contiguous(memory_format=torch.channels_last_3d):
        return 1
    voxels = x.numel() // x.shape[1] // groups
    return next((n for n in range(COLUMNS // x.shape[1], 1, -1) if voxels % n == 0), 1)


def _rows(x: Tensor, groups: int, voxels: int) -> Tensor:
    """A map as (groups, rows, voxels * C)."""
    return x.movedim(1, -1).reshape(groups, -1, voxels * x.shape[1])


class _Normalised(torch.autograd.Function):
    """(B, C, D, H, W) with statistics of its own, and these: means and biased variances (groups, C)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, groups: int, voxels: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.empty_like(x, memory_format=torch.channels_last_3d)
        wide_weight, wide_bias = weight.repeat(voxels), bias.repeat(voxels)
        means, variances = weight.new_empty(2, groups, len(weight))
        unused = weight.new_empty(0)
        for number, (rows, target) in enumerate(
            zip(_rows(x, groups, voxels), _rows(y, groups, voxels), strict=True)
        ):
            # Buffers of float32 make the statistics of bfloat16 float32, too; their values don't matter.
            buffers = torch.zeros(2, rows.shape[1], dtype=weight.dtype)
            found = torch.ops.aten.batch_norm_update_stats(rows, *buffers, 0.0)
            each_mean, each_variance = (wide.view(voxels, -1) for wide in found)
            means[number] = each_mean.mean(0)
            variances[number] = each_variance.mean(0) + each_mean.var(0, correction=0)
            statistics = means[number].repeat(voxels), variances[number].repeat(voxels)
            torch.ops.aten.native_batch_norm.out(
                rows, wide_weight, wide_bias, *statistics, False, 0.0, eps,
                out=target, save_mean=unused, save_invstd=unused,
            )  # fmt: skip
        ctx.save_for_backward(x, weight, means, variances)
        ctx.eps, ctx.voxels = eps, voxels
        ctx.mark_non_differentiable(means, variances)
        return y, means, variances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, means, variances = ctx.saved_tensors
        groups, voxels = len(means), ctx.voxels
        dx = torch.empty_like(x, memory_format=torch.channels_last_3d)
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        maps = (_rows(map_, groups, voxels) for map_ in (gradient, x, dx))
        for dy, rows, target, mean, variance in zip(*maps, means, variances, strict=True):
            statistics = mean.repeat(voxels), variance.repeat(voxels)
            _, *sums = torch.ops.aten.native_batch_norm_backward(
                dy, rows, None, *statistics, None, None, False, ctx.eps, [False, True, True]
            )
            by_value, total = (wide.view(voxels, -1).sum(0) for wide in sums)
            of_weight += by_value
            of_bias += total
            count = rows.numel() / len(weight)
            scale = (variance + ctx.eps).rsqrt()
            # dx = scale * weight * (dy - mean of dy - normalised x * mean of (dy * normalised x))
            slope = -scale.square() * weight * by_value / count
            shift = -scale * weight * total / count - slope * mean
            wide_slope, wide_shift, wide_scale = (t.repeat(voxels) for t in (slope, shift, scale * weight))
            if rows.dtype == weight.dtype:
                torch.addcmul(wide_shift, rows, wide_slope, out=target).addcmul_(dy, wide_scale)
            else:
                target.copy_(torch.addcmul(wide_shift, rows, wide_slope).addcmul_(dy, wide_scale))
        return dx, of_weight, of_bias, None, None, None
