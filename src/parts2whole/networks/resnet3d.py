"""The dilated 3D ResNets of MedicalNet: depths 10 to 200, total stride 8.

S. Chen, K. Ma, Y. Zheng, "Med3D: Transfer Learning for 3D Medical Image Analysis", 2019,
https://arxiv.org/abs/1904.00625.  Layers 3 and 4 keep stride 8 and are dilated by 2 and 4 instead; other 3D
ResNets (MONAI's too) have the same names and shapes of tensors, but strides there, and so other features.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.networks.base import Network, Own
from parts2whole.networks.blocks import NetworkError
from parts2whole.networks.published import NamedEncoder, Scaling, scale_input
from parts2whole.networks.repeatable import max_pool

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
"""Blocks per layer. From 50 on they are bottlenecks, four times as wide."""

WIDTHS = (64, 128, 256, 512)
STRIDES = (1, 2, 1, 1)
DILATIONS = (1, 1, 2, 4)
Shortcut = Literal["by_depth", "A", "B"]


@dataclasses.dataclass(frozen=True)
class ResNet3D(Network):
    """MedicalNet's 3D ResNet.

    Attributes:
        depth: 10, 18, 34, 50, 101, 152 or 200.
        shortcut: where size or width change: ``A`` takes every second voxel and appends zero channels,
            ``B`` is a strided 1 x 1 x 1 convolution and batch norm; ``by_depth`` is A for 18 and 34, else
            B, as published.
        cut_gradient: no gradient through shortcuts A, as in the published code; it changes training only.
        scaling: what becomes of voxels in [0, 1] first.
    """

    least_divisor: ClassVar[int] = 8
    depth: Literal[10, 18, 34, 50, 101, 152, 200] = 10
    shortcut: Shortcut = "by_depth"
    cut_gradient: bool = False
    scaling: Scaling = "unit"

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS:
            raise NetworkError(f"unknown depth {self.depth!r}; choose from {', '.join(map(str, BLOCKS))}")
        if self.shortcut not in ("by_depth", "A", "B"):
            raise NetworkError(f"unknown shortcut {self.shortcut!r}; choose by_depth, A or B")
        scale_input(torch.zeros(1, 1, 1, 1, 1), self.scaling)

    def build_encoder(self, in_channels: int) -> ResNetEncoder:
        """A freshly initialised encoder."""
        shortcut = self.shortcut
        if shortcut == "by_depth":
            shortcut = "A" if self.depth in (18, 34) else "B"
        encoder = ResNetEncoder(in_channels, self.depth, shortcut, cut_gradient=self.cut_gradient)
        encoder.scaling = self.scaling
        return encoder

    def build_own(self, in_channels: int, out_channels: int) -> SegmentationHead:
        """The segmentation head of its code: logits at a quarter of the input's resolution."""
        return SegmentationHead(WIDTHS[-1] * expansion(self.depth), out_channels)


def expansion(depth: int) -> int:
    """How much wider a block's output is than its layer's nominal width."""
    return 4 if depth >= 50 else 1


class ResNetEncoder(NamedEncoder):
    """The backbone; its pyramid is the deepest map of every resolution: strides 2, 4 and 8."""

    def __init__(self, in_channels: int, depth: int, shortcut: str, *, cut_gradient: bool) -> None:
        super().__init__()
        wide = expansion(depth)
        self.in_channels = in_channels
        self.channels = (64, 64 * wide, 512 * wide)
        self.strides = ((2, 2, 2), (4, 4, 4), (8, 8, 8))
        self.norm = "batch"
        self.decoder_widths = (32, 64, 128)
        self.level_names = ("conv1", "layer1", "layer4")
        self.input_axes = {"conv1.weight": 1}
        self.conv1 = nn.Conv3d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        below = 64
        for index, count in enumerate(BLOCKS[depth]):
            blocks: list[nn.Module] = []
            for number in range(count):
                stride = STRIDES[index] if number == 0 else 1
                block = Block(
                    below,
                    WIDTHS[index],
                    stride,
                    DILATIONS[index],
                    wide=wide,
                    shortcut=shortcut,
                    cut=cut_gradient,
                )
                blocks.append(block)
                below = WIDTHS[index] * wide
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def levels(self) -> list[nn.Module]:
        """Its parts, finest first."""
        stem = nn.ModuleList([self.conv1, self.bn1])
        return [stem, *(getattr(self, f"layer{n}") for n in (1, 2, 3, 4))]

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """``conv1`` (after its ReLU) and ``layer1`` to ``layer4``."""
        x = F.relu(self.bn1(self.conv1(x)))
        found = {"conv1": x}
        x = max_pool(x, (3, 3, 3), (2, 2, 2), padding=1)
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(self, name)(x)
            found[name] = x
        return found


class Block(nn.Module):
    """Two 3 x 3 x 3 convolutions, or a bottleneck of 1, 3 and 1, added to a shortcut."""

    def __init__(
        self, in_channels: int, width: int, stride: int, dilation: int, *, wide: int, shortcut: str, cut: bool
    ) -> None:
        super().__init__()
        out = width * wide
        spatial = {"stride": stride, "padding": dilation, "dilation": dilation, "bias": False}
        if wide == 1:
            self.conv1 = nn.Conv3d(in_channels, width, 3, **spatial)  # type: ignore[arg-type]
            self.conv2 = nn.Conv3d(width, out, 3, padding=dilation, dilation=dilation, bias=False)
        else:
            self.conv1 = nn.Conv3d(in_channels, width, 1, bias=False)
            self.conv2 = nn.Conv3d(width, width, 3, **spatial)  # type: ignore[arg-type]
            self.conv3 = nn.Conv3d(width, out, 1, bias=False)
            self.bn3 = nn.BatchNorm3d(out)
        self.bn1 = nn.BatchNorm3d(width)
        self.bn2 = nn.BatchNorm3d(width)
        self.is_bottleneck = wide > 1
        self.stride, self.out, self.cut = stride, out, cut
        changes = stride != 1 or in_channels != out
        self.downsample: nn.Module | None = None
        if changes and shortcut == "B":
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, out, 1, stride=stride, bias=False), nn.BatchNorm3d(out)
            )
        self.appends_zeros = changes and shortcut == "A"

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, D, H, W) to (B, width x expansion, D/stride, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.is_bottleneck:
            y = self.bn3(self.conv3(F.relu(y)))
        return F.relu(y + self._identity(x))

    def _identity(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            identity: Tensor = self.downsample(x)
            return identity
        if not self.appends_zeros:
            return x
        x = x[:, :, :: self.stride, :: self.stride, :: self.stride]
        padded = F.pad(x, (0, 0, 0, 0, 0, 0, 0, self.out - x.shape[1]))
        return padded.detach() if self.cut else padded


class SegmentationHead(Own):
    """``conv_seg``: transposed convolution to stride 4, a 3 x 3 x 3 unit, and the classes."""

    final = "layers.6"
    is_decoder = True

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose3d(in_channels, 32, 2, stride=2),
            nn.BatchNorm3d(32),
            nn.ReLU(),
            nn.Conv3d(32, 32, 3, padding=1, bias=False),
            nn.BatchNorm3d(32),
            nn.ReLU(),
            nn.Conv3d(32, out_channels, 1, bias=False),
        )

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Pyramid, finest first, to logits (B, classes, D/4, H/4, W/4)."""
        logits: Tensor = self.layers(pyramid[-1])
        return logits

    def forward_endpoints(self, pyramid: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``seg``, the logits."""
        return {"seg": self(pyramid)}
