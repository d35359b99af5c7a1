"""Parts2Whole: learn contrastive features by rebuilding a whole from its parts.

Ruibin Feng, Zongwei Zhou, Michael B. Gotway, Jianming Liang: "Parts2Whole: Self-supervised Contrastive
Learning via Reconstruction", MICCAI Workshop DART 2020, LNCS 12444, pages 85-95,
https://doi.org/10.1007/978-3-030-60548-3_9

The idea.  Cut a random part out of a 3D whole, stretch it to the size of the whole, and make an
encoder-decoder rebuild the whole from it.  All parts of one whole must give the same picture, so their
features come together; parts of different wholes must give different pictures, so theirs move apart.
There is no contrastive loss, no large batch and no memory bank.  The decoder gets nothing but the
bottleneck: skip connections would let details of the part pass around it.

    part = resize(crop(W, box))      box: edge fraction ~ U[low, high], position uniform
    loss = mean (sigmoid(D(E(part))) - W)^2

What is ours.  The paper's part sizes, whole size and optimiser could not be read in a public source.
The band of part sizes here is a preset chosen on validation data of our own (docs/results-0.1.0.md), not
the paper's.  Trilinear interpolation, several parts per whole, and parts in the whole's proportions are
choices (stretching a part differently along each axis gave worse features, docs/results-0.1.0.md).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor, nn

from parts2whole.methods.base import MethodError, Reconstruction, Views
from parts2whole.networks.base import Network
from parts2whole.networks.heads import EncoderDecoder, Model
from parts2whole.scans.volume import Size, size_of
from parts2whole.wholes.geometry import Boxes, check_band, crop_resize, draw_boxes
from parts2whole.wholes.random import BatchGenerator


@dataclasses.dataclass(frozen=True)
class Parts2Whole(Reconstruction):
    """Rebuild a whole from one of its parts.

    Attributes:
        part_fraction: band (low, high) of the part's edge over the whole's edge, above 0 and at most 1.
        per_axis: draw the fraction for every axis; else a part keeps the whole's proportions.
        parts_per_whole: parts cut from every whole in the batch, at least 1.
        skips: connect encoder and decoder by skip connections; only for the ablation.
    """

    citation: ClassVar[str] = (
        "Feng, Zhou, Gotway, Liang: Parts2Whole: Self-supervised Contrastive Learning via Reconstruction. "
        "DART 2020, LNCS 12444:85-95, doi:10.1007/978-3-030-60548-3_9"
    )
    part_fraction: tuple[float, float] = (0.4, 0.7)
    per_axis: bool = False
    parts_per_whole: int = 1
    skips: bool = False

    def __post_init__(self) -> None:
        check_band(self.part_fraction)
        if self.parts_per_whole < 1:
            raise MethodError(f"parts_per_whole must be at least 1, got {self.parts_per_whole}")

    def build(self, network: Network, *, in_channels: int, whole_size: Size) -> Model:
        """Encoder and decoder, without skip connections unless asked for."""
        return EncoderDecoder(network.build_encoder(in_channels), out_channels=in_channels, skips=self.skips)

    def views(self, wholes: Tensor, generator: BatchGenerator) -> Views:
        """``part`` (B x parts, C, D, H, W), and the ``whole`` (B, C, D, H, W) they were cut from."""
        size = size_of(wholes)
        return {"part": crop_resize(wholes, self.boxes(size, generator), size), "whole": wholes}

    def boxes(self, whole_size: Size, generator: BatchGenerator) -> Boxes:
        """Random boxes of every whole, those of one whole following each other."""
        return draw_boxes(
            generator,
            whole_size,
            fraction=self.part_fraction,
            per_axis=self.per_axis,
            count=self.parts_per_whole,
        )

    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        """Mean squared error between the rebuilt and the true whole."""
        return {"loss": self.error(self.reconstruct(module, views["part"]), views)}

    def reconstruct(self, module: nn.Module, part: Tensor) -> Tensor:
        """Sigmoid of the decoder's output."""
        return torch.sigmoid(module(part).float())
