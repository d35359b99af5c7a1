"""Low-rank adapters: a frozen encoder whose layers learn a product of two small matrices on top of theirs.

E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
https://arxiv.org/abs/2106.09685.  The weight of a layer, laid out as (out, everything else), is

    W + B A,    A of (rank, everything else), random;    B of (out, rank), zero at first.

Deviations: convolutions in 3D, of any kernel; no dropout, and no factor on the product.  Merged, the layers
are plain ones again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from parts2whole.networks.blocks import NetworkError

WEIGHT = "weight"


class LowRank(nn.Module):
    """What is added to a weight of any shape (out, ...)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        rank = min(rank, rows, columns)
        self.a = nn.Parameter(weight.new_empty(rank, columns))
        self.b = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with the product of the two on top."""
        moved: Tensor = weight + (self.b @ self.a).view_as(weight)
        return moved


def add_low_rank(module: nn.Module, rank: int) -> int:
    """Give every convolution and linear layer an adapter; of the module nothing else learns from now on.

    Returns:
        How many layers there are.

    Raises:
        NetworkError: a rank below 1, or no such layer.
    """
    if rank < 1:
        raise NetworkError(f"the rank of adapters must be at least 1, got {rank}")
    layers = [layer for layer in module.modules() if isinstance(layer, _ConvNd | nn.Linear)]
    if not layers:
        raise NetworkError(f"{type(module).__name__} has no convolution and no linear layer to adapt")
    module.requires_grad_(False)
    for layer in layers:
        parametrize.register_parametrization(layer, WEIGHT, LowRank(layer.weight, rank))
    return len(layers)


@torch.no_grad()
def merge_low_rank(module: nn.Module) -> None:
    """Add every adapter to the weight that it is on, and take it off."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, WEIGHT):
            parametrize.remove_parametrizations(layer, WEIGHT, leave_parametrized=True)
