"""The residual encoder U-Net that nnU-Net plans in its presets M, L and XL, and that OpenMind pre-trains.

F. Isensee et al., "nnU-Net Revisited: A Call for Rigorous Validation in 3D Medical Image Segmentation",
MICCAI 2024, https://arxiv.org/abs/2404.09556.  Read off the public code (dynamic_network_architectures:
residual.py, residual_encoders.py, unet_decoder.py): a stem of one unit, then stages of residual blocks, the
first of which has the stride.  A block is two units, the second without activation, plus a way around that
averages over the stride and projects where the width changes; leaky ReLU follows the sum.  The decoder has
one unit a stage.

``base`` is the isotropic plan of six stages: 1, 3, 4, 6, 6, 6 blocks, widths 32 to 320, total stride 32.  M,
L and XL plan for more and more memory, which they spend on larger inputs, so they share it wherever six
stages are enough for these.  The encoder has 90,296,576 parameters with one input channel, and with decoder
and one output channel there are 102,348,193.  ``tiny`` and ``small`` are ours.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from torch import Tensor, nn

from parts2whole.networks.base import Network
from parts2whole.networks.blocks import NetworkError, Norm, build_norm
from parts2whole.networks.published import JoiningDecoder, NamedEncoder
from parts2whole.networks.repeatable import AveragePool

SLOPE = 0.01
PLANS = {
    "tiny": ((8, 16, 32, 64), (1, 1, 2, 2)),
    "small": ((16, 32, 64, 128), (1, 3, 4, 6)),
    "base": ((32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6)),
}
"""Widths and numbers of residual blocks of every stage, finest first."""


@dataclasses.dataclass(frozen=True)
class ResEncUNet3D(Network):
    """Residual encoder U-Net.

    Attributes:
        size: ``tiny`` (widths 8-64, four stages, for a laptop), ``small`` (16-128, four stages) or ``base``
            (32-320, six stages, as published).
        norm: as of `UNet3D`; ``instance`` is the published one.
    """

    least_divisor: ClassVar[int] = 8
    size: Literal["tiny", "small", "base"] = "small"
    norm: Norm = "instance"

    def __post_init__(self) -> None:
        if self.size not in PLANS:
            raise NetworkError(f"unknown size {self.size!r}; choose from {', '.join(PLANS)}")
        build_norm(self.norm, 8)

    def build_encoder(self, in_channels: int) -> ResEncEncoder:
        """A freshly initialised encoder."""
        widths, blocks = PLANS[self.size]
        return ResEncEncoder(in_channels, widths, blocks, self.norm)

    def build_own(self, in_channels: int, out_channels: int) -> ResEncDecoder:
        """The expanding path with skip connections, and a 1 x 1 x 1 convolution."""
        return ResEncDecoder(PLANS[self.size][0], out_channels, self.norm)


class Unit(nn.Sequential):
    """Convolution 3 x 3 x 3 with bias, normalisation, leaky ReLU unless ``activated`` is off."""

    def __init__(
        self, in_channels: int, out_channels: int, norm: str, *, stride: int = 1, activated: bool = True
    ) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1), build_norm(norm, out_channels)
        )
        if activated:
            self.append(nn.LeakyReLU(SLOPE, inplace=True))


class ResidualBlock(nn.Module):
    """Two units and a way around them (BasicBlockD): (B, in, D, H, W) to (B, out, D/s, H/s, W/s)."""

    def __init__(self, in_channels: int, out_channels: int, norm: str, *, stride: int) -> None:
        super().__init__()
        self.first = Unit(in_channels, out_channels, norm, stride=stride)
        self.second = Unit(out_channels, out_channels, norm, activated=False)
        self.around = nn.Sequential()
        if stride > 1:
            self.around.append(AveragePool(stride))
        if in_channels != out_channels:
            self.around.append(nn.Conv3d(in_channels, out_channels, 1, bias=False))
            self.around.append(build_norm(norm, out_channels))
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The activated sum."""
        total: Tensor = self.activation(self.second(self.first(x)) + self.around(x))
        return total


class ResEncEncoder(NamedEncoder):
    """Contracting path; see `ResEncUNet3D`."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], blocks: tuple[int, ...], norm: str) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = widths
        self.strides = tuple((2**level,) * 3 for level in range(len(widths)))
        self.norm = norm
        self.level_names = tuple(f"stage{number}" for number in range(len(widths)))
        self.input_axes = {"stem.0.weight": 1}
        self.stem = Unit(in_channels, widths[0], norm)
        self.levels = nn.ModuleList()
        below = widths[0]
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            first = ResidualBlock(below, width, norm, stride=2 if level else 1)
            others = (ResidualBlock(width, width, norm, stride=1) for _ in range(count - 1))
            self.levels.append(nn.Sequential(first, *others))
            below = width
        self.apply(_initialise)

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """``stage0`` to the deepest."""
        found: dict[str, Tensor] = {}
        x = self.stem(x)
        for name, level in zip(self.level_names, self.levels, strict=True):
            x = level(x)
            found[name] = x
        return found


class ResEncDecoder(JoiningDecoder):
    """Expanding path: a transposed convolution to the width of the skip, which follows it, and one unit."""

    def __init__(self, widths: tuple[int, ...], out_channels: int, norm: str) -> None:
        super().__init__()
        self.ups, self.stages = nn.ModuleList(), nn.ModuleList()
        for level in range(len(widths) - 1, 0, -1):
            below, skip = widths[level], widths[level - 1]
            self.ups.append(nn.ConvTranspose3d(below, skip, 2, stride=2))
            self.stages.append(Unit(2 * skip, skip, norm))
        self.classes = nn.Conv3d(widths[0], out_channels, 1)
        self.apply(_initialise)


def _initialise(module: nn.Module) -> None:
    """As nnU-Net does: He's normal weights, no bias, and blocks that begin as the way around them."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, ResidualBlock):
        for parameter in module.second[1].parameters():
            nn.init.zeros_(parameter)
