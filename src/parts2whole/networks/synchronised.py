"""Batch norm over the batch of all processes, so that several devices train what one would.

PyTorch's own SyncBatchNorm works on GPUs only and drops the statistics of the batch in eval mode; it is used
where it fits, and the layer below elsewhere.  Parameters and buffers keep their names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm


class SynchronisedNorm(_BatchNorm):
    """Batch norm whose training statistics are those of all processes' rows.

    On CPUs it has no faster way, as `training/cpu_norm.py` is for one process: that has the whole way back in
    one function, which needed an exchange between its sums and its slopes, and an order of exchanges that the
    processes keep; written out, autograd sees to both.

    Attributes:
        original: computes eval mode, by its own rules and on this process's rows alone.
    """

    def __init__(self, original: _BatchNorm) -> None:
        super().__init__(original.num_features, original.eps, original.momentum, original.affine)
        self._parameters, self._buffers = original._parameters, original._buffers
        self.original = (original,)  # in a tuple, so that its tensors aren't listed twice
        # torch.compile would put another gradient in the place of this one.
        self.sum = torch.compiler.disable(_Sum.apply)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) to the same shape."""
        if not self.training:
            self.original[0].eval()
            evaluated: Tensor = self.original[0](x)
            return evaluated
        shape = (1, -1) + (1,) * (x.ndim - 2)
        axes = (0, *range(2, x.ndim))
        # Near the mean already, so that little is lost in the difference of squares.
        near = torch.zeros(self.num_features) if self.running_mean is None else self.running_mean.clone()
        values = x.float() - near.to(x.device).view(shape)
        count = torch.full((1,), values.numel() / values.shape[1], device=x.device)
        mine = torch.cat([count, values.sum(axes), values.square().sum(axes)])
        sums: Tensor = self.sum(mine)
        count = sums[0]
        mean, mean_of_squares = (sums[1:] / count).chunk(2)
        variance = (mean_of_squares - mean.square()).clamp_min(0)
        self._follow(near + mean.detach(), variance.detach() * count.detach() / (count.detach() - 1))
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        shift = self.bias - mean * scale if self.affine else -mean * scale
        return (values * scale.view(shape) + shift.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of this batch."""
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _Sum(torch.autograd.Function):
    """Sum over processes; what all of them lose by a summand is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone()
        dist.all_reduce(summed)
        return summed


def synchronise_norms(module: nn.Module, *, device: torch.device) -> None:
    """Replace every batch norm below ``module``, in place; nothing to do with one process."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    for name, child in list(module.named_children()):
        if type(child) is nn.BatchNorm3d and device.type == "cuda":
            setattr(module, name, _convert(child))
        elif isinstance(child, _BatchNorm):
            setattr(module, name, SynchronisedNorm(child))
        else:
            synchronise_norms(child, device=device)
