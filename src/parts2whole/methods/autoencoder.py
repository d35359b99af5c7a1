"""Autoencoder: the control in which the part is the whole.

The idea.  Everything of Parts2Whole but the cutting: the same network without skip connections, the
same loss.  What Parts2Whole gains over this is what the part-whole relation teaches.

    loss = mean (sigmoid(D(E(W))) - W)^2

Hinton, Salakhutdinov: "Reducing the Dimensionality of Data with Neural Networks", Science 2006,
https://doi.org/10.1126/science.1127647 (the principle; the network here is convolutional).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor, nn

from parts2whole.methods.base import Reconstruction, Views
from parts2whole.networks.base import Network
from parts2whole.networks.heads import EncoderDecoder, Model
from parts2whole.scans.volume import Size
from parts2whole.wholes.random import BatchGenerator


@dataclasses.dataclass(frozen=True)
class Autoencoder(Reconstruction):
    """Rebuild the whole from itself, through the bottleneck.

    Attributes:
        skips: connect encoder and decoder by skip connections, which makes the task trivial.
    """

    citation: ClassVar[str] = (
        "Hinton, Salakhutdinov: Reducing the Dimensionality of Data with Neural Networks. Science 313 (2006) "
        "504-507, doi:10.1126/science.1127647"
    )
    skips: bool = False

    def build(self, network: Network, *, in_channels: int, whole_size: Size) -> Model:
        """Encoder and decoder."""
        return EncoderDecoder(network.build_encoder(in_channels), out_channels=in_channels, skips=self.skips)

    def views(self, wholes: Tensor, generator: BatchGenerator) -> Views:
        """The whole, twice."""
        return {"part": wholes, "whole": wholes}

    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        """Mean squared error."""
        return {"loss": self.error(self.reconstruct(module, views["part"]), views)}

    def reconstruct(self, module: nn.Module, part: Tensor) -> Tensor:
        """Sigmoid of the decoder's output."""
        return torch.sigmoid(module(part).float())
