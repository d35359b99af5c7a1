"""What a network is: a spec that builds an encoder, and an encoder that gives a pyramid of features."""

from __future__ import annotations

import abc
import dataclasses
import math

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
    """

    in_channels: int
    channels: tuple[int, ...]
    strides: tuple[Stride, ...]
    norm: str

    @abc.abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, D, H, W) to one (B, channels[i], D/s, H/s, W/s) per level."""

    @property
    def divisor(self) -> int:
        """Input edges must be multiples of this many voxels."""
        return math.lcm(*(s for stride in self.strides for s in stride))


@dataclasses.dataclass(frozen=True)
class Network(Spec, abc.ABC):
    """How an encoder is built."""

    @abc.abstractmethod
    def build_encoder(self, in_channels: int) -> Encoder:
        """A freshly initialised encoder for ``in_channels`` input channels."""


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
