"""MONAI's SegResNet: residual blocks in front of which everything is normalised by groups.

A. Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization", BrainLes 2018,
https://arxiv.org/abs/1810.11654; without the autoencoder. Layers are MONAI's own, and tensors have its names.
"""

from __future__ import annotations

import dataclasses

from monai.networks.nets.segresnet import SegResNet as Whole
from torch import Tensor, nn

from parts2whole.networks.base import Network
from parts2whole.networks.blocks import NetworkError
from parts2whole.networks.oriented import Orientation, check_orientation, turn, turn_back
from parts2whole.networks.published import LogitsDecoder, NamedEncoder


@dataclasses.dataclass(frozen=True)
class SegResNet(Network):
    """SegResNet.

    Attributes:
        init_filters: width of the finest level; every further level doubles it. At least 8, the groups of a
            norm.
        blocks_down: residual blocks of every level, finest first.
        orientation: ``SPL`` as arrays lie here, or ``RAS``, for which images are turned.
    """

    init_filters: int = 16
    blocks_down: tuple[int, ...] = (1, 2, 2, 4)
    orientation: Orientation = "SPL"

    def __post_init__(self) -> None:
        check_orientation(self.orientation)
        if self.init_filters < 8 or self.init_filters % 8 or len(self.blocks_down) < 2:
            raise NetworkError(
                "init_filters must be a multiple of 8, and there must be two or more levels, got "
                f"{self.init_filters} and {self.blocks_down}"
            )

    def build_encoder(self, in_channels: int) -> SegResNetEncoder:
        """A freshly initialised encoder."""
        return SegResNetEncoder(self, self._whole(in_channels, 1), in_channels)

    def build_own(self, in_channels: int, out_channels: int) -> SegResNetDecoder:
        """The expanding path, whose skip connections are sums."""
        return SegResNetDecoder(self._whole(in_channels, out_channels), self.orientation)

    def _whole(self, in_channels: int, out_channels: int) -> Whole:
        up = (1,) * (len(self.blocks_down) - 1)
        return Whole(
            3, self.init_filters, in_channels, out_channels, blocks_down=self.blocks_down, blocks_up=up
        )


class SegResNetEncoder(NamedEncoder):
    """Contracting path; see `SegResNet`."""

    def __init__(self, spec: SegResNet, whole: Whole, in_channels: int) -> None:
        super().__init__()
        levels = range(len(spec.blocks_down))
        self.in_channels = in_channels
        self.channels = tuple(spec.init_filters * 2**level for level in levels)
        self.strides = tuple((2**level,) * 3 for level in levels)
        self.norm = "group"
        self.orientation = spec.orientation
        self.level_names = tuple(f"down{level}" for level in levels)
        self.input_axes = {"convInit.conv.weight": 1}
        self.convInit = whole.convInit
        self.down_layers = whole.down_layers

    @property
    def levels(self) -> list[nn.Module]:
        """Its parts, finest first."""
        return list(self.down_layers)

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """``down0`` to the deepest, at strides 1, 2, 4 and so on."""
        found = {}
        x = self.convInit(turn(x, self.orientation))
        for name, level in zip(self.level_names, self.levels, strict=True):
            x = level(x)
            found[name] = turn_back(x, self.orientation)
        return found


class SegResNetDecoder(LogitsDecoder):
    """Expanding path; see `SegResNet`."""

    final = "conv_final.2"

    def __init__(self, whole: Whole, orientation: str) -> None:
        super().__init__()
        self.orientation = orientation
        self.up_layers, self.up_samples, self.conv_final = whole.up_layers, whole.up_samples, whole.conv_final

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Pyramid, finest first, to logits (B, classes, D, H, W)."""
        x, *skips = (turn(level, self.orientation) for level in reversed(pyramid))
        for sample, layer, skip in zip(self.up_samples, self.up_layers, skips, strict=True):
            x = layer(sample(x) + skip)
        return turn_back(self.conv_final(x), self.orientation)
