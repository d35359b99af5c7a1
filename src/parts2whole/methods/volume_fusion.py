"""VolumeFusion: two wholes are mixed block by block, and the network says of every voxel how.

Guotai Wang, Jianghao Wu, Xiangde Luo, Xinglong Liu, Kang Li, Shaoting Zhang: "MIS-FM: 3D Medical Image
Segmentation using Foundation Models Pretrained on a Large-Scale Unannotated Dataset", 2023,
https://arxiv.org/abs/2306.16925

The idea.  Take a share a of another whole F for every voxel of a whole W, where a is 0 but in random blocks,
each with one of K values.  Telling the K + 1 shares apart is a segmentation of which every label is known, so
a whole encoder-decoder with skip connections is pre-trained on the kind of task it will be used for.

    x = a F + (1 - a) W      a in {0, 1/K, ..., 1}, one a block; later blocks lie over earlier ones
    loss = cross-entropy(D(E(x)), K a) + 1 - mean over classes of the soft Dice of softmax(D(E(x))) and K a

K = 4, and 10 to 40 blocks with centres anywhere and edges of 1/8 to 5/8 of the whole's, are those of the
authors' public code for wholes of 64 x 128 x 128 (whose smallest edge within a slice is 1/16).

Deviations.  F is any other whole of the batch, drawn for every row; the public code takes the one before.
Dice is taken over the batch of all devices, with the class of no fusion, and weighs what cross-entropy does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.methods.base import Method, MethodError, Views
from parts2whole.methods.contrast import gather_rows
from parts2whole.networks.base import Network
from parts2whole.networks.heads import EncoderDecoder, Model
from parts2whole.networks.repeatable import map_cross_entropy
from parts2whole.scans.volume import Size, size_of
from parts2whole.wholes.geometry import check_band
from parts2whole.wholes.random import BatchGenerator

SMOOTH = 1e-5
"""Added to both sides of a Dice, for classes of which there is no voxel."""


@dataclasses.dataclass(frozen=True)
class VolumeFusion(Method):
    """Segment which share of another whole was mixed in.

    Attributes:
        shares: K; the shares are 0, 1/K, ..., 1.
        blocks: fewest and most blocks in a whole.
        block_fraction: band (low, high) of a block's edge over the whole's edge, drawn for every axis.
        skips: connect encoder and decoder by skip connections.
    """

    citation: ClassVar[str] = (
        "Wang, Wu, Luo, Liu, Li, Zhang: MIS-FM: 3D Medical Image Segmentation using Foundation Models "
        "Pretrained on a Large-Scale Unannotated Dataset. 2023, arXiv:2306.16925"
    )
    shares: int = 4
    blocks: tuple[int, int] = (10, 40)
    block_fraction: tuple[float, float] = (0.125, 0.625)
    skips: bool = True

    def __post_init__(self) -> None:
        check_band(self.block_fraction, "block_fraction")
        if not 1 <= self.shares <= 255:
            raise MethodError(f"shares must be from 1 to 255, got {self.shares}")
        blocks: Sequence[int] = self.blocks
        if len(blocks) != 2 or not 1 <= blocks[0] <= blocks[1]:
            raise MethodError(f"blocks must be (fewest, most) with 1 <= fewest <= most, got {self.blocks}")

    def build(self, network: Network, *, in_channels: int, whole_size: Size) -> Model:
        """Encoder and decoder with one output a share, with skip connections unless switched off."""
        encoder = network.build_encoder(in_channels)
        return EncoderDecoder(encoder, out_channels=self.shares + 1, skips=self.skips)

    def check_batch(self, wholes: int) -> None:
        """There must be another whole to mix in."""
        if wholes < 2:
            raise MethodError(f"VolumeFusion mixes wholes of a batch and needs at least 2, got {wholes}")

    def views(self, wholes: Tensor, generator: BatchGenerator) -> Views:
        """``whole``; ``share``: K a, (B, D, H, W); ``other``: (B,) which row of all devices is mixed in."""
        self.check_batch(generator.total)
        row = generator.first + torch.arange(len(wholes), device=wholes.device)
        further = 1 + (generator.uniform() * (generator.total - 1)).long()
        share = self.draw(generator, size_of(wholes)).to(wholes.device)
        return {"whole": wholes, "share": share, "other": (row + further) % generator.total}

    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        """Dice and cross-entropy, and the share of voxels whose class is found."""
        together = module.training
        logits = module(self.fuse(views, together=together)).float()
        found = (logits.detach().argmax(dim=1) == views["share"]).float().mean()
        return {"loss": compare(logits, views["share"].long(), together=together), "accuracy": found}

    def guess(self, views: Views) -> Tensor:
        """The loss of saying of every voxel how frequent the classes are."""
        share = views["share"].long()
        frequency = torch.bincount(share.flatten(), minlength=self.shares + 1) / share.numel()
        logits = frequency.log().clamp(min=-30)[None, :, None, None, None]
        return compare(logits.expand(len(share), -1, *share.shape[1:]), share, together=False)

    def fuse(self, views: Views, *, together: bool) -> Tensor:
        """What the network sees: (B, C, D, H, W), of ``views`` as they are (``together`` on all devices)."""
        whole = views["whole"]
        everyone = gather_rows(whole.flatten(1))[0].reshape(-1, *whole.shape[1:]) if together else whole
        share = views["share"][:, None].to(whole.dtype) / self.shares
        return torch.lerp(whole, everyone[views["other"]], share)

    def draw(self, generator: BatchGenerator, size: Size) -> Tensor:
        """K a of every voxel of every row: (B, *size) bytes, on the CPU."""
        edges = np.array(size)
        least, most = (np.maximum(np.rint(edges * part), 1).astype(int) for part in self.block_fraction)
        drawn = []
        for random in generator.row_generators():
            count = random.integers(*self.blocks, endpoint=True)
            extent = random.integers(least, most, (count, 3), endpoint=True)
            low = random.integers(0, edges, (count, 3)) - extent // 2
            shares = random.integers(1, self.shares, count, endpoint=True)
            map_ = np.zeros(size, dtype=np.uint8)
            for begin, end, share in zip(low.clip(min=0), low + extent, shares, strict=True):
                map_[tuple(map(slice, begin, end))] = share
            drawn.append(torch.from_numpy(map_))
        return torch.stack(drawn)


def compare(logits: Tensor, target: Tensor, *, together: bool) -> Tensor:
    """Cross-entropy plus one minus mean soft Dice over the batch.

    Args:
        logits: (B, classes, D, H, W).
        target: (B, D, H, W) class indices.
        together: Dice is that of the batch of all devices.
    """
    probability = logits.softmax(dim=1)
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(probability.dtype)
    over = (0, 2, 3, 4)
    sums = torch.stack([2 * (probability * truth).sum(over), probability.sum(over) + truth.sum(over)])[None]
    overlap, extent = (gather_rows(sums)[0] if together else sums).sum(dim=0)
    dice: Tensor = (overlap + SMOOTH) / (extent + SMOOTH)
    return map_cross_entropy(logits, target) + 1 - dice.mean()
