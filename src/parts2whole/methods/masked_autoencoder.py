"""Masked autoencoder: rebuild a whole of which most is hidden.

Kaiming He, Xinlei Chen, Saining Xie, Yanghao Li, Piotr Dollar, Ross Girshick: "Masked Autoencoders Are
Scalable Vision Learners", CVPR 2022, https://arxiv.org/abs/2111.06377; for convolutions: Keyu Tian et al.,
"Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling" (SparK), ICLR 2023,
https://arxiv.org/abs/2301.03580; in 3D: Tassilo Wald et al., "An OpenMind for 3D medical vision
self-supervised learning", 2024, https://arxiv.org/abs/2412.17041

The idea.  Hide random cubes of a whole and make an encoder-decoder fill them in from what is left.  Where
most is hidden, copying from nearby is not enough: the network must know what the body looks like.

    x = W (1 - m)      m: 1 in round(ratio x cubes) cubes of a regular grid, drawn for every whole
    loss = mean over hidden voxels of (sigmoid(D(E(x))) - W)^2

The dense variant.  The published encoder sees nothing but visible patches, and SparK's convolutions leave
hidden voxels out.  Here convolutions are ordinary and hidden voxels are 0, so any network will do; OpenMind
compares a dense masked autoencoder of this kind with a sparse one.

What is ours.  Cubes of 8 voxels, the stride of the deepest map of `UNet3D`; 60 % hidden, the rate of SparK
(He et al. hide 75 %).  Targets are voxels in [0, 1], not normalised per cube.  Cubes at the far border are
cut off where the whole's edge is no multiple of theirs.  Skip connections are on by default: all that they
carry of a hidden cube is what surrounds it.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.methods.base import MethodError, Reconstruction, Views
from parts2whole.networks.base import Network
from parts2whole.networks.heads import EncoderDecoder, Model
from parts2whole.scans.volume import Size, size_of
from parts2whole.wholes.random import BatchGenerator


@dataclasses.dataclass(frozen=True)
class MaskedAutoencoder(Reconstruction):
    """Rebuild the hidden cubes of a whole from the visible ones.

    Attributes:
        mask_ratio: share of the cubes that is hidden, above 0 and below 1.
        patch_voxels: edge of a cube, in voxels.
        all_voxels: the loss is taken over visible voxels, too.
        skips: connect encoder and decoder by skip connections.
    """

    citation: ClassVar[str] = (
        "He, Chen, Xie, Li, Dollar, Girshick: Masked Autoencoders Are Scalable Vision Learners. CVPR 2022, "
        "arXiv:2111.06377; dense and in 3D as in Wald et al.: An OpenMind for 3D medical vision "
        "self-supervised learning. 2024, arXiv:2412.17041"
    )
    mask_ratio: float = 0.6
    patch_voxels: int = 8
    all_voxels: bool = False
    skips: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise MethodError(f"mask_ratio must be above 0 and below 1, got {self.mask_ratio}")
        if self.patch_voxels < 1:
            raise MethodError(f"patch_voxels must be at least 1, got {self.patch_voxels}")

    def build(self, network: Network, *, in_channels: int, whole_size: Size) -> Model:
        """Encoder and decoder, with skip connections unless switched off."""
        self.hidden_cubes(whole_size)
        return EncoderDecoder(network.build_encoder(in_channels), out_channels=in_channels, skips=self.skips)

    def views(self, wholes: Tensor, generator: BatchGenerator) -> Views:
        """``part``: the whole with its hidden voxels at 0; ``whole``; ``hidden``: 1 where it is hidden.

        The first two are (B, C, D, H, W), the last (B, 1, D, H, W): all channels are hidden alike.
        """
        hidden = self.draw(generator, size_of(wholes)).to(wholes.dtype)
        return {"part": wholes * (1 - hidden), "whole": wholes, "hidden": hidden}

    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        """Mean squared error over hidden voxels, or all."""
        return {"loss": self.error(self.reconstruct(module, views["part"]), views)}

    def error(self, image: Tensor, views: Views) -> Tensor:
        """Mean squared error over hidden voxels, or all; wholes count alike."""
        if self.all_voxels:
            return F.mse_loss(image, views["whole"])
        hidden = views["hidden"].expand_as(image)
        squares = (image - views["whole"]).square() * hidden
        return (squares.sum(dim=(1, 2, 3, 4)) / hidden.sum(dim=(1, 2, 3, 4))).mean()

    def reconstruct(self, module: nn.Module, part: Tensor) -> Tensor:
        """Sigmoid of the decoder's output."""
        return torch.sigmoid(module(part).float())

    def draw(self, generator: BatchGenerator, size: Size) -> Tensor:
        """Which voxels of every row are hidden: (B, 1, *size) booleans.

        Raises:
            MethodError: all cubes of such a whole would be hidden, or none.
        """
        hide = self.hidden_cubes(size)
        grid = self._grid(size)
        # Every cube gets a number, and those with the smallest are hidden: so many, whatever was drawn.
        rank = generator.uniform(grid[0] * grid[1] * grid[2]).argsort(dim=1).argsort(dim=1)
        cubes = (rank < hide).reshape(-1, 1, *grid)
        for axis, edge in enumerate(size, start=2):
            cubes = cubes.repeat_interleave(self.patch_voxels, dim=axis).narrow(axis, 0, edge)
        return cubes

    def hidden_cubes(self, size: Size) -> int:
        """Number of cubes that are hidden in a whole of this size.

        Raises:
            MethodError: it would be all of them, or none.
        """
        depth, height, width = self._grid(size)
        cubes = depth * height * width
        hide = round(self.mask_ratio * cubes)
        if not 0 < hide < cubes:
            raise MethodError(
                f"a whole of {size} voxels has {cubes} cubes of {self.patch_voxels}, and a mask_ratio of "
                f"{self.mask_ratio} hides {hide} of them: choose smaller patch_voxels or larger wholes"
            )
        return hide

    def _grid(self, size: Size) -> Size:
        """Cubes along (z, y, x)."""
        z, y, x = (-(-edge // self.patch_voxels) for edge in size)
        return z, y, x
