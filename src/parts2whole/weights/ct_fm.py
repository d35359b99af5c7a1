"""CT-FM: a SegResNet encoder that learned to tell crops of one CT apart.

S. Pai et al., "Vision Foundation Models for Computed Tomography", 2025, https://arxiv.org/abs/2501.09001.
Files ``model.safetensors`` of the feature extractor, whose names start with "conv_init." and "layers.", and
of the whole SegResNet, fine-tuned on TotalSegmentator, whose encoder's names start with "encoder.". Arrays
run to superior, posterior and left, as here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from parts2whole.networks.segresnet_ds import SegResNetDS
from parts2whole.scans.preprocess import Preprocess
from parts2whole.weights.base import (
    Destination,
    Identified,
    Provenance,
    WeightSource,
    count_blocks,
    none_match,
    out_channels,
)

PROVENANCE = Provenance(
    title="CT-FM SegResNet",
    citation="S. Pai, I. Hadzic, D. Bontempi, K. Bressem, B. H. Kann, A. Fedorov, R. H. Mak, "
    "H. J. W. L. Aerts. Vision Foundation Models for Computed Tomography. arXiv:2501.09001, 2025.",
    licence="as stated on its pages on Hugging Face (project-lighter); read it before you fine-tune or share",
    where="model.safetensors, on Hugging Face as project-lighter/ct_fm_feature_extractor and "
    "project-lighter/ct_fm_segresnet",
    trained_on="148,000 CT scans of the Imaging Data Commons; the segmentation model: TotalSegmentator, too",
    expects="one channel, CT clipped to -1024 to 2048 HU and scaled to [0, 1], 3 x 1 x 1 mm (z, y, x)",
    preprocess=Preprocess(modality="CT", window_hu=(-1024.0, 2048.0), spacing_mm=(3.0, 1.0, 1.0)),
    whole_size=(32, 128, 128),
)
SCOPE = "encoder."


@dataclasses.dataclass(frozen=True)
class PublishedCTFM(WeightSource):
    """CT-FM's SegResNet."""

    prefix: ClassVar[str] = "ct_fm"

    def identify(self, tensors: Mapping[str, Tensor], file: str) -> Identified:
        """Width and blocks from the tensors themselves."""
        found = {name.removeprefix(SCOPE): tensor for name, tensor in tensors.items()}
        if "conv_init.weight" not in found or "layers.0.blocks.0.conv1.weight" not in found:
            raise none_match(PROVENANCE.title, tensors, "conv_init.weight, layers.0.blocks.0.conv1.weight")
        width, channels = found["conv_init.weight"].shape[:2]
        blocks = count_blocks(found, r"layers\.(\d+)\.blocks\.\d+\.norm1\.weight")
        network = SegResNetDS(init_filters=width, blocks_down=blocks)
        classes = out_channels(found, f"up_layers.{len(blocks) - 2}.head.weight")
        return Identified(network, channels, classes, PROVENANCE)

    def destination(self, name: str) -> Destination | str:
        """Names stay; the encoder's may begin with its name."""
        if name.startswith("up_layers."):
            return Destination(f"own.{name}")
        name = name.removeprefix(SCOPE)
        if name.startswith(("conv_init.", "layers.")):
            return Destination(f"encoder.{name}")
        return "no part of the published network"
