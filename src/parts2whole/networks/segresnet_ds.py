"""MONAI's SegResNetDS, the SegResNet of Auto3DSeg and CT-FM: batch norm, and an encoder of its own.

A. Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization", BrainLes 2018,
https://arxiv.org/abs/1810.11654; without the autoencoder. Layers are MONAI's own, and tensors have its names;
of the heads for deep supervision, the last is kept.
"""

from __future__ import annotations

import dataclasses

from monai.networks.nets.segresnet_ds import SegResNetDS as Whole
from torch import Tensor, nn

from parts2whole.networks.base import Network
from parts2whole.networks.blocks import NetworkError
from parts2whole.networks.published import LogitsDecoder, NamedEncoder


@dataclasses.dataclass(frozen=True)
class SegResNetDS(Network):
    """SegResNetDS.

    Attributes:
        init_filters: width of the finest level, as published 32; every further level doubles it.
        blocks_down: residual blocks of every level, finest first.
    """

    init_filters: int = 16
    blocks_down: tuple[int, ...] = (1, 2, 2, 4, 4)

    def __post_init__(self) -> None:
        if self.init_filters < 1 or len(self.blocks_down) < 2:
            raise NetworkError(
                "init_filters must be at least 1, and there must be two or more levels, got "
                f"{self.init_filters} and {self.blocks_down}"
            )

    def build_encoder(self, in_channels: int) -> SegResNetDSEncoder:
        """A freshly initialised encoder."""
        return SegResNetDSEncoder(self, in_channels)

    def build_own(self, in_channels: int, out_channels: int) -> SegResNetDSDecoder:
        """The expanding path, whose skip connections are sums."""
        return SegResNetDSDecoder(self._whole(in_channels, out_channels).up_layers)

    def _whole(self, in_channels: int, out_channels: int) -> Whole:
        return Whole(3, self.init_filters, in_channels, out_channels, blocks_down=self.blocks_down)


class SegResNetDSEncoder(NamedEncoder):
    """Contracting path; see `SegResNetDS`."""

    def __init__(self, spec: SegResNetDS, in_channels: int) -> None:
        super().__init__()
        found = spec._whole(in_channels, 1).encoder
        numbers = range(len(spec.blocks_down))
        self.in_channels = in_channels
        self.channels = tuple(spec.init_filters * 2**level for level in numbers)
        self.strides = tuple((2**level,) * 3 for level in numbers)
        self.norm = "batch"
        self.level_names = tuple(f"level{level}" for level in numbers)
        self.input_axes = {"conv_init.weight": 1}
        self.conv_init = found.conv_init
        self.layers = found.layers

    @property
    def levels(self) -> list[nn.Module]:
        """Its parts, finest first."""
        return list(self.layers)

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """``level0`` to the deepest, at strides 1, 2, 4 and so on."""
        found = {}
        x = self.conv_init(x)
        for name, level in zip(self.level_names, self.layers, strict=True):
            parts = dict(level.named_children())
            found[name] = parts["blocks"](x)
            x = parts["downsample"](found[name])
        return found


class SegResNetDSDecoder(LogitsDecoder):
    """Expanding path; see `SegResNetDS`."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.up_layers = layers
        self.final = f"up_layers.{len(layers) - 1}.head"

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Pyramid, finest first, to logits (B, classes, D, H, W)."""
        x, *skips = reversed(pyramid)
        for level, skip in zip(self.up_layers, skips, strict=True):
            parts = dict(level.named_children())
            x = parts["head"](parts["blocks"](parts["upsample"](x) + skip))
        return x
