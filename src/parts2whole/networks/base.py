"""What a network is: a spec that builds an encoder, and an encoder that gives a pyramid of features."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from parts2whole.spec import Spec

Stride = tuple[int, int, int]


class Encoder(nn.Module, abc.ABC):
    """Maps (B, C, D, H, W) to a tuple of feature maps, finest first.

    Attributes:
        in_channels: C.
        channels: width of every level, finest first.
        strides: total stride (z, y, x) of every level, finest first.
        norm: normalisation, so that a decoder built on top matches.
        decoder_widths: width of a fresh decoder at input resolution (only where ``strides[0]`` isn't 1) and
            at every level but the deepest, finest first; None is the widths of the encoder.
        input_axes: for every tensor of its state that grows with ``in_channels``, the axis along which it
            does; its first ``in_channels`` entries are those of the input channels.
    """

    in_channels: int
    channels: tuple[int, ...]
    strides: tuple[Stride, ...]
    norm: str
    decoder_widths: tuple[int, ...] | None = None
    input_axes: Mapping[str, int] = {}

    @abc.abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, D, H, W) to one (B, channels[i], D/s, H/s, W/s) per level."""

    @property
    def divisor(self) -> int:
        """Input edges must be multiples of this many voxels."""
        return math.lcm(*(s for stride in self.strides for s in stride))

    def takes(self, size: tuple[int, ...]) -> bool:
        """Whether an input may have these edges (z, y, x)."""
        return len(size) == 3 and all(edge > 0 and edge % self.divisor == 0 for edge in size)


class Own(nn.Module, abc.ABC):
    """The decoder or head that a network was published with.

    Attributes:
        final: name of the last layer, which is fresh where classes change.
        is_decoder: it gives a map of logits; otherwise logits of the whole volume.
        input_axes: as for `Encoder`.
    """

    final: str
    is_decoder: bool
    input_axes: Mapping[str, int] = {}

    @abc.abstractmethod
    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Pyramid (finest first) to logits (B, classes, d, h, w), or (B, classes, time) of a video head."""

    @abc.abstractmethod
    def forward_endpoints(self, pyramid: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Pyramid to every named result, by its published name."""


@dataclasses.dataclass(frozen=True)
class Network(Spec, abc.ABC):
    """How an encoder is built.

    Attributes:
        usual: the class that is meant where only fields are given.
        least_divisor: whatever its fields are, edges of inputs must be multiples of it; the encoder's own
            ``divisor`` may be larger.
    """

    usual: ClassVar[str] = "UNet3D"
    least_divisor: ClassVar[int] = 1

    @abc.abstractmethod
    def build_encoder(self, in_channels: int) -> Encoder:
        """A freshly initialised encoder for ``in_channels`` input channels."""

    def build_own(self, in_channels: int, out_channels: int) -> Own | None:
        """The decoder or head it was published with, freshly initialised; None where there is none."""
        return None


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
