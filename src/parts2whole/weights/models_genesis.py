"""Models Genesis: a 3D U-Net trained to restore distorted chest CT.

Z. Zhou et al., "Models Genesis: Generic Autodidactic Models for 3D Medical Image Analysis", MICCAI 2019,
https://arxiv.org/abs/1908.06912, and Medical Image Analysis 67, 2021, https://arxiv.org/abs/2004.07882.  File
``Genesis_Chest_CT.pt``, a dict whose "state_dict" has names that start with "module.".  Cubes were (x, y,
z) in training, so kernels are turned round here.  Its batch norm uses the statistics of the batch at all
times.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from parts2whole.networks.unet3d import UNet3D
from parts2whole.scans.preprocess import Preprocess
from parts2whole.weights.base import (
    Destination,
    Identified,
    Provenance,
    WeightsError,
    WeightSource,
    none_match,
    out_channels,
)

PROVENANCE = Provenance(
    title="Models Genesis Chest CT",
    citation="Z. Zhou, V. Sodha, J. Pang, M. B. Gotway, J. Liang. Models Genesis. Medical Image Analysis "
    "67:101840, 2021. arXiv:2004.07882.",
    licence="Arizona State University: academic and non-commercial use only, patent pending "
    "(MrGiovanni/ModelsGenesis); read it before you fine-tune or share",
    where="Genesis_Chest_CT.pt, from github.com/MrGiovanni/ModelsGenesis, or on Hugging Face as "
    "MrGiovanni/ModelsGenesis",
    trained_on="LUNA16 (chest CT), subsets 0-4 to train and 5-6 to validate",
    expects="one channel, CT clipped to -1000 to 1000 HU and scaled to [0, 1]; MR was clipped to [0, "
    "4000] by its authors, here it is scaled by percentiles",
    preprocess=Preprocess(modality="CT", window_hu=(-1000.0, 1000.0)),
    whole_size=(32, 64, 64),
)
DOWN = ("64", "128", "256", "512")
UP = ("256", "128", "64")


@dataclasses.dataclass(frozen=True)
class PublishedModelsGenesis(WeightSource):
    """Models Genesis' 3D U-Net.

    Attributes:
        norm: ``batch_statistics`` normalises by the current batch in eval mode too, as published;
            ``batch`` uses the stored running statistics then, so that predictions don't depend on the batch.
    """

    prefix: ClassVar[str] = "models_genesis"
    norm: Literal["batch_statistics", "batch"] = "batch_statistics"

    @property
    def trained_axes(self) -> str:
        """Its cubes are (x, y, z)."""
        return "xyz"

    def identify(self, tensors: Mapping[str, Tensor], file: str) -> Identified:
        """Always the U-Net of base size."""
        first = tensors.get("down_tr64.ops.0.conv1.weight")
        if first is None:
            raise none_match(PROVENANCE.title, tensors, "down_tr64.ops.0.conv1.weight")
        if any(name.endswith("activation.weight") for name in tensors):
            raise WeightsError(f"{file} was trained with PReLU; only the published ReLU network can be used")
        network = UNet3D(size="base", norm=self.norm)
        classes = out_channels(tensors, "out_tr.final_conv.weight")
        return Identified(network, first.shape[1], classes, PROVENANCE)

    def destination(self, name: str) -> Destination | str:
        """Units are a convolution (0) and a norm (1)."""
        unit = re.fullmatch(r"(down|up)_tr(\d+)\.ops\.([01])\.(conv1|bn1)\.(\w+)", name)
        if unit:
            way, width, number, kind, rest = unit.groups()
            below = f"{number}.{0 if kind == 'conv1' else 1}.{rest}"
            if way == "down" and width in DOWN:
                return Destination(f"encoder.levels.{DOWN.index(width)}.{below}")
            if way == "up" and width in UP:
                return Destination(f"own.decoder.units.{UP.index(width)}.{below}")
        up = re.fullmatch(r"up_tr(256|128|64)\.up_conv\.(\w+)", name)
        if up:
            return Destination(f"own.decoder.ups.{UP.index(up.group(1))}.{up.group(2)}")
        if name.startswith("out_tr.final_conv."):
            return Destination("own.head." + name.rpartition(".")[2])
        return "no part of the published network"
