"""The 3D U-Net of the Models Genesis line: four levels of two 3 x 3 x 3 units, widths 64 to 512.

Read off the public code of Models Genesis (pytorch/unet3d.py): a level's first unit has half of
its width, max-pooling by 2 follows the first three levels, so the bottleneck is 512 x D/8 x H/8 x W/8.
At ``size="base"`` the encoder has 7,027,776 parameters; with a decoder and one output channel the
network has 19,073,665 with skip connections and 16,751,233 without.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import Tensor, nn

from parts2whole.networks.base import Encoder, Network
from parts2whole.networks.blocks import ConvUnit, NetworkError, Norm, build_norm, check_input

WIDTHS = {"tiny": 8, "small": 16, "base": 64}
"""Width of the finest level; every further level doubles it. ``base`` is the published size."""


@dataclasses.dataclass(frozen=True)
class UNet3D(Network):
    """3D U-Net encoder with four levels.

    Attributes:
        size: ``tiny`` (widths 8-64, for a laptop), ``small`` (16-128) or ``base`` (64-512, as published).
        norm: ``batch``, ``instance``, ``group``, ``none``, or ``batch_statistics`` (batch norm that uses
            the statistics of the batch in eval mode too, as the published network does).
    """

    size: Literal["tiny", "small", "base"] = "small"
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        if self.size not in WIDTHS:
            raise NetworkError(f"unknown size {self.size!r}; choose from {', '.join(WIDTHS)}")
        build_norm(self.norm, 8)

    def build_encoder(self, in_channels: int) -> Encoder:
        """A freshly initialised encoder."""
        return UNetEncoder(in_channels, width=WIDTHS[self.size], norm=self.norm)


class UNetEncoder(Encoder):
    """Contracting path; see `UNet3D`."""

    def __init__(self, in_channels: int, *, width: int, norm: str) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = tuple(width * 2**level for level in range(4))
        self.strides = tuple((2**level,) * 3 for level in range(4))
        self.norm = norm
        self.levels = nn.ModuleList()
        below = in_channels
        for out in self.channels:
            # at base: 1-32-64, 64-64-128, 128-128-256, 256-256-512
            self.levels.append(nn.Sequential(ConvUnit(below, out // 2, norm), ConvUnit(out // 2, out, norm)))
            below = out
        self.pool = nn.MaxPool3d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, D, H, W) to four maps at strides 1, 2, 4, 8."""
        check_input(x, channels=self.in_channels, divisor=8)
        pyramid: list[Tensor] = []
        for level in self.levels:
            x = level(self.pool(x) if pyramid else x)
            pyramid.append(x)
        return tuple(pyramid)
