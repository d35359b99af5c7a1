"""HighRes3DNet: 20 layers at full resolution, dilated by 1, 2 and 4.

W. Li et al., "On the Compactness, Efficiency, and Representation of 3D Convolutional Networks: Brain
Parcellation as a Pretext Task", IPMI 2017, https://arxiv.org/abs/1707.01992.  Nothing is ever downsampled:
three groups of residual blocks, each batch norm, ReLU and a convolution twice; where they get wider, zero
channels go on both sides of the identity.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.networks.base import Network, Own
from parts2whole.networks.published import NamedEncoder, Scaling, scale_input

WIDTHS = (16, 32, 64)
DILATIONS = (1, 2, 4)
BLOCKS = 3
HIDDEN = 80


@dataclasses.dataclass(frozen=True)
class HighRes3DNet(Network):
    """High-resolution compact network.

    Attributes:
        scaling: what becomes of voxels in [0, 1] first.
    """

    scaling: Scaling = "unit"

    def __post_init__(self) -> None:
        scale_input(torch.zeros(1, 1, 1, 1, 1), self.scaling)

    def build_encoder(self, in_channels: int) -> HighResEncoder:
        """A freshly initialised encoder."""
        encoder = HighResEncoder(in_channels)
        encoder.scaling = self.scaling
        return encoder

    def build_own(self, in_channels: int, out_channels: int) -> HighResHead:
        """Its last two layers."""
        return HighResHead(out_channels)


class Block(nn.Module):
    """Batch norm, ReLU, convolution, twice; added to its input."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        self.bn_0 = nn.BatchNorm3d(in_channels)
        self.conv_0 = nn.Conv3d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn_1 = nn.BatchNorm3d(out_channels)
        self.conv_1 = nn.Conv3d(
            out_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.side = (out_channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, D, H, W) to (B, out, D, H, W)."""
        y = self.conv_0(F.relu(self.bn_0(x)))
        y = self.conv_1(F.relu(self.bn_1(y)))
        result: Tensor = y + F.pad(x, (0, 0, 0, 0, 0, 0, self.side, self.side))
        return result


class HighResEncoder(NamedEncoder):
    """All residual blocks; its pyramid has three levels of one resolution."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = WIDTHS
        self.strides = ((1, 1, 1),) * 3
        self.norm = "batch"
        self.decoder_widths = (16, 32)
        self.level_names = tuple(f"res_{group + 1}_{BLOCKS - 1}" for group in range(len(WIDTHS)))
        self.input_axes = {"conv_0_bn_relu.0.weight": 1}
        first = nn.Conv3d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.conv_0_bn_relu = nn.Sequential(first, nn.BatchNorm3d(WIDTHS[0]), nn.ReLU())
        below = WIDTHS[0]
        for group, (width, dilation) in enumerate(zip(WIDTHS, DILATIONS, strict=True)):
            for number in range(BLOCKS):
                self.add_module(f"res_{group + 1}_{number}", Block(below, width, dilation))
                below = width

    @property
    def levels(self) -> list[nn.Module]:
        """Its parts, finest first."""
        return list(self.children())

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """``conv_0_bn_relu`` and every block ``res_1_0`` to ``res_3_2``."""
        found: dict[str, Tensor] = {}
        for name, part in self.named_children():
            x = part(x)
            found[name] = x
        return found


class HighResHead(Own):
    """Two 1 x 1 x 1 convolutions with batch norm: to 80 channels, and to the classes."""

    final = "conv_2_bn"
    is_decoder = True

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        hidden = nn.Conv3d(WIDTHS[-1], HIDDEN, 1, bias=False)
        self.conv_1_bn_relu = nn.Sequential(hidden, nn.BatchNorm3d(HIDDEN), nn.ReLU())
        classes = nn.Conv3d(HIDDEN, out_channels, 1, bias=False)
        self.conv_2_bn = nn.Sequential(classes, nn.BatchNorm3d(out_channels))

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Pyramid, finest first, to logits (B, classes, D, H, W)."""
        return self.forward_endpoints(pyramid)["output"]

    def forward_endpoints(self, pyramid: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``conv_1_bn_relu`` and ``output``."""
        hidden = self.conv_1_bn_relu(pyramid[-1])
        return {"conv_1_bn_relu": hidden, "output": self.conv_2_bn(hidden)}
