"""Exemplar: every whole of a fixed bank is a class of its own.

Alexey Dosovitskiy, Jost Tobias Springenberg, Martin Riedmiller, Thomas Brox: "Discriminative Unsupervised
Feature Learning with Convolutional Neural Networks", NIPS 2014, https://arxiv.org/abs/1406.6909

The idea.  Take a bank of N wholes.  Cut random parts and let a classifier say which whole each came from.
The classifier has one output a whole, so it grows with the bank: at 512 features and a million wholes it has
half a billion weights, where Parts2Whole has none.

    loss = -mean over parts of log softmax(V f(part) + b)[number of its whole]

Deviations.  The original spoils patches by colour, contrast and scale; here a class is made of the parts of
one whole, as everywhere in this package.  Features are the globally pooled deepest map.  Held-out wholes
have no class, so the validation loss is that of new parts of wholes of the bank.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.methods.base import FixedBank, MethodError, Views
from parts2whole.networks.base import Network
from parts2whole.networks.heads import Model, PooledClassifier
from parts2whole.scans.volume import Size
from parts2whole.wholes.geometry import check_band, cut_parts
from parts2whole.wholes.random import BatchGenerator


@dataclasses.dataclass(frozen=True)
class Exemplar(FixedBank):
    """Say which whole of the bank a part comes from.

    Attributes:
        bank: number of wholes, and of classes.
        part_fraction: band (low, high) of the part's edge over the whole's edge.
        per_axis: draw the fraction for every axis.
        parts_per_whole: parts cut from every whole in the batch.
    """

    citation: ClassVar[str] = (
        "Dosovitskiy, Springenberg, Riedmiller, Brox: Discriminative Unsupervised Feature Learning with "
        "Convolutional Neural Networks. NIPS 2014, arXiv:1406.6909"
    )
    rows_are_independent: ClassVar[bool] = True
    bank: int = 1024
    part_fraction: tuple[float, float] = (0.4, 0.7)
    per_axis: bool = True
    parts_per_whole: int = 1

    def __post_init__(self) -> None:
        check_band(self.part_fraction)
        if self.bank < 2:
            raise MethodError(f"bank must hold at least 2 wholes, got {self.bank}")
        if self.parts_per_whole < 1:
            raise MethodError(f"parts_per_whole must be at least 1, got {self.parts_per_whole}")

    def build(self, network: Network, *, in_channels: int, whole_size: Size) -> Model:
        """Encoder, global average pooling and one output for every whole of the bank."""
        return PooledClassifier(network.build_encoder(in_channels), classes=self.bank)

    def views(self, wholes: Tensor, generator: BatchGenerator, numbers: Tensor | None = None) -> Views:
        """``part`` (B x parts, C, D, H, W), and the ``number`` (B x parts) of its whole in the bank."""
        if numbers is None:
            numbers = generator.first + torch.arange(len(wholes), device=wholes.device)
        count = self.parts_per_whole
        parts = cut_parts(wholes, generator, fraction=self.part_fraction, per_axis=self.per_axis, count=count)
        return {"part": parts, "number": numbers.repeat_interleave(count)}

    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        """Cross-entropy of the true whole, and the share of parts whose whole is found."""
        logits = module(views["part"]).float()
        accuracy = (logits.detach().argmax(dim=1) == views["number"]).float().mean()
        return {"loss": F.cross_entropy(logits, views["number"]), "accuracy": accuracy}

    def candidates(self, wholes: int) -> int:
        """Every whole of the bank."""
        return self.bank
