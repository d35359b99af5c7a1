"""The 3D U-Net of the Models Genesis line: four levels of two 3 x 3 x 3 units, widths 64 to 512.

Read off the public code of Models Genesis (pytorch/unet3d.py): a level's first unit has half of
its width, max-pooling by 2 follows the first three levels, so the bottleneck is 512 x D/8 x H/8 x W/8.
At ``size="base"`` the encoder has 7,027,776 parameters; with a decoder and one output channel the
network has 19,073,665 with skip connections and 16,751,233 without.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from parts2whole.networks.base import Network, Own
from parts2whole.networks.blocks import ConvUnit, Decoder, NetworkError, Norm, build_norm
from parts2whole.networks.published import NamedEncoder
from parts2whole.networks.repeatable import max_pool

WIDTHS = {"tiny": 8, "small": 16, "base": 64}
"""Width of the finest level; every further level doubles it. ``base`` is the published size."""


@dataclasses.dataclass(frozen=True)
class UNet3D(Network):
    """3D U-Net encoder with four levels.

    It maps (B, C, D, H, W), whose edges are multiples of 8, to maps at strides 1, 2, 4 and 8.

    Attributes:
        size: ``tiny`` (widths 8-64, for a laptop), ``small`` (16-128) or ``base`` (64-512, as published).
        norm: ``batch``, ``instance``, ``group``, ``none``, or ``batch_statistics`` (batch norm that uses
            the statistics of the batch in eval mode too, as the published network does).
    """

    least_divisor: ClassVar[int] = 8
    size: Literal["tiny", "small", "base"] = "small"
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        if self.size not in WIDTHS:
            raise NetworkError(f"unknown size {self.size!r}; choose from {', '.join(WIDTHS)}")
        build_norm(self.norm, 8)

    def build_encoder(self, in_channels: int) -> UNetEncoder:
        """A freshly initialised encoder."""
        return UNetEncoder(in_channels, width=WIDTHS[self.size], norm=self.norm)

    def build_own(self, in_channels: int, out_channels: int) -> UNetDecoder:
        """The expanding path with skip connections, and a 1 x 1 x 1 convolution."""
        return UNetDecoder(self.build_encoder(in_channels), out_channels)


class UNetEncoder(NamedEncoder):
    """Contracting path; see `UNet3D`."""

    def __init__(self, in_channels: int, *, width: int, norm: str) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = tuple(width * 2**level for level in range(4))
        self.strides = tuple((2**level,) * 3 for level in range(4))
        self.norm = norm
        self.level_names = tuple(f"out{width}" for width in self.channels)
        self.input_axes = {"levels.0.0.0.weight": 1}
        self.levels = nn.ModuleList()
        below = in_channels
        for out in self.channels:
            # at base: 1-32-64, 64-64-128, 128-128-256, 256-256-512
            self.levels.append(nn.Sequential(ConvUnit(below, out // 2, norm), ConvUnit(out // 2, out, norm)))
            below = out

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """Maps at strides 1, 2, 4, 8, named by their widths: ``out64`` to ``out512`` at ``size="base"``."""
        found: dict[str, Tensor] = {}
        for name, level in zip(self.level_names, self.levels, strict=True):
            x = level(max_pool(x, (2, 2, 2), (2, 2, 2)) if found else x)
            found[name] = x
        return found


class UNetDecoder(Own):
    """The expanding path of the published network; a sigmoid gives its reconstruction."""

    final = "head"
    is_decoder = True

    def __init__(self, encoder: UNetEncoder, out_channels: int) -> None:
        super().__init__()
        self.decoder = Decoder(encoder.channels, encoder.strides, skips=True, norm=encoder.norm)
        self.head = nn.Conv3d(self.decoder.out_channels, out_channels, 1)

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Pyramid, finest first, to logits (B, classes, D, H, W)."""
        logits: Tensor = self.head(self.decoder(pyramid))
        return logits

    def forward_endpoints(self, pyramid: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``final_conv``, the logits, and ``output``, their sigmoid."""
        logits = self(pyramid)
        return {"final_conv": logits, "output": torch.sigmoid(logits)}
