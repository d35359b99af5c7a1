"""SuPreM: a 3D U-Net (that of Models Genesis) and a SegResNet, trained to segment 25 organs in CT.

W. Li, A. Yuille, Z. Zhou, "How Well Do Supervised 3D Models Transfer to Medical Imaging Tasks?", ICLR 2024,
https://arxiv.org/abs/2501.11253. Files ``supervised_suprem_unet_2100.pth`` and
``supervised_suprem_segresnet_2100.pth``, a dict whose "net" has names that start with "module." and, of the
U-Net, go on with "backbone.". Arrays run to right, anterior and superior: the U-Net's kernels are turned,
which is exact; strided convolutions would not be, so `SegResNet` turns images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from parts2whole.networks.segresnet import SegResNet
from parts2whole.networks.unet3d import UNet3D
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
from parts2whole.weights.models_genesis import PublishedModelsGenesis

PROVENANCE = Provenance(
    title="SuPreM",
    citation="W. Li, A. Yuille, Z. Zhou. How Well Do Supervised 3D Models Transfer to Medical Imaging Tasks? "
    "ICLR 2024. arXiv:2501.11253.",
    licence="MIT (LICENSE of MrGiovanni/SuPreM); the data, AbdomenAtlas, have terms of their own: read both "
    "before you fine-tune or share",
    where="supervised_suprem_unet_2100.pth and supervised_suprem_segresnet_2100.pth, linked in the README of "
    "github.com/MrGiovanni/SuPreM",
    trained_on="AbdomenAtlas 1.0 and 1.1, abdominal CT, 25 structures; the U-Net began as Models Genesis",
    expects="one channel, CT clipped to -175 to 250 HU and scaled to [0, 1], 1.5 mm",
    preprocess=Preprocess(modality="CT", window_hu=(-175.0, 250.0), spacing_mm=(1.5, 1.5, 1.5)),
    whole_size=(96, 96, 96),
)
SCOPE = "backbone."
UNET, SEGRESNET = "down_tr64.ops.0.conv1.weight", "convInit.conv.weight"


@dataclasses.dataclass(frozen=True)
class PublishedSuPreM(WeightSource):
    """SuPreM's U-Net and SegResNet."""

    prefix: ClassVar[str] = "suprem"

    def identify(self, tensors: Mapping[str, Tensor], file: str) -> Identified:
        """The network from the tensors themselves."""
        found = {name.removeprefix(SCOPE): tensor for name, tensor in tensors.items()}
        if UNET in found:
            last, channels = "out_tr.final_conv.weight", found[UNET].shape[1]
            network: UNet3D | SegResNet = UNet3D(size="base", norm="batch_statistics")
        elif SEGRESNET in found:
            last, (width, channels) = "conv_final.2.conv.weight", found[SEGRESNET].shape[:2]
            blocks = count_blocks(found, r"down_layers\.(\d+)\.\d+\.norm1\.weight")
            network = SegResNet(init_filters=width, blocks_down=blocks, orientation="RAS")
        else:
            raise none_match(PROVENANCE.title, tensors, f"{SCOPE}{UNET}, or {SEGRESNET}")
        return Identified(network, channels, out_channels(found, last), PROVENANCE)

    def destination(self, name: str) -> Destination | str:
        """Names of the U-Net are those of Models Genesis, names of the SegResNet stay."""
        name = name.removeprefix(SCOPE)
        if name.startswith(("convInit.", "down_layers.")):
            return Destination(f"encoder.{name}")
        if name.startswith(("up_layers.", "up_samples.", "conv_final.")):
            return Destination(f"own.{name}")
        found = PublishedModelsGenesis().destination(name)
        return found if isinstance(found, str) else Destination(found.target, "ras")
