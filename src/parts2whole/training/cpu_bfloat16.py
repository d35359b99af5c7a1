"""Which convolutions may run in bfloat16 on a CPU.

In torch 2.13 the kernel that computes weight gradients of bfloat16 convolutions on CPUs with AVX-512 is wrong
where a map is not much deeper than the convolution: a part of the gradient is whatever was in memory, and
with kernels of 7 it writes past its end.  benchmarks/bfloat16.py compares with float32, with memory full of
NaN: kernels of 3 at a depth of 2, of 5 at 2 to 4, and of 7 with stride 2 at 3 to 7 are wrong.  Kernels of up
to 3 at depths from 3 are right, and they do nearly all the work of the networks here.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

LARGEST_KERNEL = 3
SMALLEST_DEPTH = 3


def keep_float32_where_wrong(module: nn.Module) -> None:
    """Make the convolutions of a module that bfloat16 gets wrong ignore autocast; the module is changed."""
    for convolution in module.modules():
        if isinstance(convolution, nn.Conv3d) and max(convolution.kernel_size) > 1:
            convolution.forward = functools.partial(_forward, convolution)  # type: ignore[method-assign]


def _forward(convolution: nn.Conv3d, x: Tensor) -> Tensor:
    original = type(convolution).forward
    if max(convolution.kernel_size) <= LARGEST_KERNEL and x.shape[2] >= SMALLEST_DEPTH:
        return original(convolution, x)
    with torch.autocast("cpu", enabled=False):
        return original(convolution, x.float())
