"""I3D: Inception-v1 with its 2D kernels inflated to 3D, trained on videos.

J. Carreira, A. Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017,
https://arxiv.org/abs/1705.07750.  Slices take the place of video frames.  Padding is TensorFlow's SAME,
from the size of the actual input; batch norm has eps 1e-3; total stride is 8 along z and 32 along y and x.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.networks.base import Network, Own, Stride
from parts2whole.networks.blocks import SameConv3d, pad_same
from parts2whole.networks.published import NamedEncoder, Scaling, scale_input
from parts2whole.networks.repeatable import average_pool, max_pool

MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
"""Widths of the six units of every block: 1x1; 1x1, 3x3; 1x1, 3x3; 1x1 after a pool."""

POOLS: dict[str, tuple[Stride, Stride]] = {
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
"""Kernel and stride of the max-pool in front of a unit or block."""

HEAD_POOL = (2, 7, 7)


@dataclasses.dataclass(frozen=True)
class I3D(Network):
    """Inflated Inception-v1.

    Attributes:
        scaling: what becomes of voxels in [0, 1] first.
        averages_time: its own head gives one row of logits a clip, (B, classes), instead of one for every
            place along z, (B, classes, places).
    """

    least_divisor: ClassVar[int] = 32
    scaling: Scaling = "unit"
    averages_time: bool = False

    def __post_init__(self) -> None:
        scale_input(torch.zeros(1, 1, 1, 1, 1), self.scaling)

    def build_encoder(self, in_channels: int) -> I3DEncoder:
        """A freshly initialised encoder."""
        encoder = I3DEncoder(in_channels)
        encoder.scaling = self.scaling
        return encoder

    def build_own(self, in_channels: int, out_channels: int) -> VideoHead:
        """The video classifier."""
        return VideoHead(out_channels, averages_time=self.averages_time)


class Unit(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = SameConv3d(in_channels, out_channels, kernel, stride=stride, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, D, H, W) to (B, out, D/stride, H/stride, W/stride)."""
        return F.relu(self.bn(self.conv3d(x)), inplace=True)


class Mixed(nn.Module):
    """Four branches side by side: 1; 1 then 3; 1 then 3; max-pool then 1."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        a, b, c, d, e, f = widths
        self.b0 = Unit(in_channels, a, 1)
        self.b1a, self.b1b = Unit(in_channels, b, 1), Unit(b, c, 3)
        self.b2a, self.b2b = Unit(in_channels, d, 1), Unit(d, e, 3)
        self.b3b = Unit(in_channels, f, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, D, H, W) to (B, a + c + e + f, D, H, W)."""
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


class I3DEncoder(NamedEncoder):
    """Everything up to ``Mixed_5c``; its pyramid is the deepest map of every resolution."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = (64, 192, 480, 832, 1024)
        self.strides = ((2, 2, 2), (2, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))
        self.norm = "batch"
        self.decoder_widths = (16, 32, 64, 128, 128)
        self.level_names = ("Conv3d_1a_7x7", "Conv3d_2c_3x3", "Mixed_3c", "Mixed_4f", "Mixed_5c")
        self.input_axes = {"Conv3d_1a_7x7.conv3d.weight": 1}
        self.Conv3d_1a_7x7 = Unit(in_channels, 64, 7, stride=2)
        self.Conv3d_2b_1x1 = Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        below = 192
        for name, widths in MIXED.items():
            self.add_module(name, Mixed(below, widths))
            below = widths[0] + widths[2] + widths[4] + widths[5]

    @property
    def levels(self) -> list[nn.Module]:
        """Its parts, finest first."""
        return list(self.children())

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """Every unit and block by its published name."""
        found: dict[str, Tensor] = {}
        for name, part in self.named_children():
            if name in POOLS:
                x = max_pool_same(x, *POOLS[name])
            x = part(x)
            found[name] = x
        return found


class VideoHead(Own):
    """Average pool, and a 1 x 1 x 1 convolution to the classes.

    The pool is 2 x 7 x 7 with stride 1 where the map is that large, and global where it isn't.
    """

    final = "logits"
    is_decoder = False

    def __init__(self, out_channels: int, *, averages_time: bool) -> None:
        super().__init__()
        self.averages_time = averages_time
        self.logits = nn.Conv3d(1024, out_channels, 1)

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """(B, classes, places along z), or (B, classes)."""
        return self.forward_endpoints(pyramid)["logits"]

    def forward_endpoints(self, pyramid: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``pooled`` and ``logits``."""
        deepest = pyramid[-1]
        if all(edge >= size for edge, size in zip(deepest.shape[2:], HEAD_POOL, strict=True)):
            pooled = average_pool(deepest, HEAD_POOL, (1, 1, 1))
        else:
            pooled = F.adaptive_avg_pool3d(deepest, 1)
        logits = self.logits(pooled).mean(dim=(3, 4))
        return {"pooled": pooled, "logits": logits.mean(dim=2) if self.averages_time else logits}


def max_pool_same(x: Tensor, kernel: Stride, stride: Stride) -> Tensor:
    """Max-pool padded as TensorFlow's SAME; zeros do no harm, because ``x`` comes out of a ReLU."""
    return max_pool(pad_same(x, kernel, stride), kernel, stride)
