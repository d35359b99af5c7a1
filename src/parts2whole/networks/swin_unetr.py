"""The encoder of MONAI's SwinUNETR: a Swin transformer of four stages on patches of 2 x 2 x 2 voxels.

A. Hatamizadeh et al., "Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors in MRI
Images", BrainLes 2021, https://arxiv.org/abs/2201.01266. Second version: Y. He et al., "SwinUNETR-V2", MICCAI
2023. Layers are MONAI's own, and tensors have its names. The published decoder isn't here: its finest skip
connection comes from the image itself, not from this encoder.
"""

from __future__ import annotations

import dataclasses

import torch
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import Tensor, nn

from parts2whole.networks.base import Network
from parts2whole.networks.blocks import NetworkError
from parts2whole.networks.oriented import Orientation, check_orientation, turn, turn_back
from parts2whole.networks.published import NamedEncoder

STAGES = 4


@dataclasses.dataclass(frozen=True)
class SwinUNETR(Network):
    """Encoder of SwinUNETR.

    Attributes:
        feature_size: width of the finest level, a multiple of 12; as published 48, 96 or 192. Every further
            level doubles it.
        v2: a residual convolution in front of every stage.
        orientation: ``SPL`` as arrays lie here, or ``RAS``, for which images are turned.
    """

    feature_size: int = 24
    v2: bool = False
    orientation: Orientation = "SPL"

    def __post_init__(self) -> None:
        check_orientation(self.orientation)
        if self.feature_size < 12 or self.feature_size % 12:
            raise NetworkError(f"feature_size must be a multiple of 12, got {self.feature_size}")

    def build_encoder(self, in_channels: int) -> SwinEncoder:
        """A freshly initialised encoder."""
        return SwinEncoder(self, in_channels)


class SwinEncoder(NamedEncoder):
    """Five levels, at strides 2 to 32; see `SwinUNETR`."""

    def __init__(self, spec: SwinUNETR, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = tuple(spec.feature_size * 2**level for level in range(STAGES + 1))
        self.strides = tuple((2 ** (level + 1),) * 3 for level in range(STAGES + 1))
        self.norm = "instance"
        self.orientation = spec.orientation
        self.level_names = tuple(f"hidden{level}" for level in range(STAGES + 1))
        self.input_axes = {"swinViT.patch_embed.proj.weight": 1}
        with torch.device("cpu"):  # MONAI reads a tensor while it builds, which one without memory can't
            self.swinViT = SwinTransformer(
                in_chans=in_channels,
                embed_dim=spec.feature_size,
                window_size=(7, 7, 7),
                patch_size=(2, 2, 2),
                depths=(2, 2, 2, 2),
                num_heads=(3, 6, 12, 24),
                mlp_ratio=4.0,
                qkv_bias=True,
                norm_layer=nn.LayerNorm,
                spatial_dims=3,
                downsample="merging",
                use_v2=spec.v2,
            )

    @property
    def levels(self) -> list[nn.Module]:
        """The embedding of patches and the four stages, finest first."""
        swin = self.swinViT
        stages = [
            [getattr(swin, f"layers{stage}"), getattr(swin, f"layers{stage}c", None)]
            for stage in range(1, STAGES + 1)
        ]
        return [swin.patch_embed, *(nn.ModuleList(filter(None, parts)) for parts in stages)]

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """``hidden0`` to ``hidden4``, each normalised over its channels, as the decoder gets them."""
        maps = self.swinViT(turn(x, self.orientation).contiguous(), normalize=True)
        return {
            name: turn_back(found, self.orientation)
            for name, found in zip(self.level_names, maps, strict=True)
        }
