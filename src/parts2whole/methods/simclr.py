"""SimCLR in 3D: two parts of one whole attract, parts of different wholes repel.

Ting Chen, Simon Kornblith, Mohammad Norouzi, Geoffrey Hinton: "A Simple Framework for Contrastive Learning of
Visual Representations", ICML 2020, https://arxiv.org/abs/2002.05709

The idea.  Show the encoder two random parts of every whole in a large batch.  A small head maps each to a
unit vector z.  Every part must find the other one of its whole among all parts in the batch; the head is
thrown away afterwards.

    loss = -mean over (a, p) of log( exp(z_a.z_p / t) / sum over c != a of exp(z_a.z_c / t) )

Deviations.  Positives are parts of the same whole, cut as in Parts2Whole, with no colour distortion or blur:
intensities of CT are measurements, and both methods then see the same.  More than two parts a whole may be
cut; the loss is then the mean over all positives.  The head has no batch norm and is as wide as the encoder.
The batch is gathered over devices with its gradients, so that many small devices are one large one.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor, nn

from parts2whole.methods.base import Discrimination, Views
from parts2whole.methods.contrast import (
    Projector,
    check_others,
    check_parts,
    check_temperature,
    contrast_parts,
)
from parts2whole.networks.base import Network
from parts2whole.networks.heads import Model
from parts2whole.scans.volume import Size
from parts2whole.wholes.geometry import check_band, cut_parts
from parts2whole.wholes.random import BatchGenerator


@dataclasses.dataclass(frozen=True)
class SimCLR(Discrimination):
    """Find the other part of the same whole in the batch.

    Attributes:
        temperature: t; small values care for the hardest negatives.
        part_fraction: band (low, high) of the part's edge over the whole's edge.
        per_axis: draw the fraction for every axis.
        parts_per_whole: parts cut from every whole, at least 2.
        features: length of z.
    """

    citation: ClassVar[str] = (
        "Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning of Visual "
        "Representations. ICML 2020, arXiv:2002.05709"
    )
    temperature: float = 0.1
    part_fraction: tuple[float, float] = (0.4, 0.7)
    per_axis: bool = True
    parts_per_whole: int = 2
    features: int = 128

    def __post_init__(self) -> None:
        check_band(self.part_fraction)
        check_temperature(self.temperature)
        check_parts(self.parts_per_whole)

    def build(self, network: Network, *, in_channels: int, whole_size: Size) -> Model:
        """Encoder and projection head."""
        return Projector(network.build_encoder(in_channels), out=self.features)

    def check_batch(self, wholes: int) -> None:
        """There must be parts of other wholes to tell from."""
        check_others(wholes)

    def views(self, wholes: Tensor, generator: BatchGenerator) -> Views:
        """``part``: (B x parts, C, D, H, W), parts of one whole following each other."""
        parts = cut_parts(
            wholes,
            generator,
            fraction=self.part_fraction,
            per_axis=self.per_axis,
            count=self.parts_per_whole,
        )
        return {"part": parts}

    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        """NT-Xent over the parts of all devices, and the share of parts that find one of their whole."""
        loss, accuracy = contrast_parts(
            module(views["part"]),
            training=module.training,
            parts_per_whole=self.parts_per_whole,
            temperature=self.temperature,
        )
        return {"loss": loss, "accuracy": accuracy}

    def candidates(self, wholes: int) -> int:
        """All other parts in the batch."""
        return self.parts_per_whole * wholes - 1
