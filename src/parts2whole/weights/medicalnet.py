"""MedicalNet: 3D ResNets trained to segment many organs in CT and MR.

S. Chen, K. Ma, Y. Zheng, "Med3D: Transfer Learning for 3D Medical Image Analysis", 2019,
https://arxiv.org/abs/1904.00625.  Files ``resnet_{10,18,34,50,101,152,200}.pth`` and
``resnet_{10,18,34,50}_23dataset.pth``, a dict whose "state_dict" has names that start with "module.".
Released files hold the backbone alone; fine-tuned ones also ``conv_seg``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from parts2whole.networks.resnet3d import BLOCKS, ResNet3D, Shortcut
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
    title="MedicalNet 3D ResNet",
    citation="S. Chen, K. Ma, Y. Zheng. Med3D: Transfer Learning for 3D Medical Image Analysis. "
    "arXiv:1904.00625, 2019.",
    licence="MIT (Tencent/MedicalNet)",
    where="MedicalNet_pytorch_files.zip, linked in the README of github.com/Tencent/MedicalNet, or on "
    "Hugging Face as TencentMedicalNet/MedicalNet-Resnet10 (and other depths)",
    trained_on="3DSeg-8, eight segmentation sets of CT and MR; files named _23dataset: 23 sets",
    expects="one channel, zero mean and unit deviation over the voxels above 0 of a volume (done by the "
    "encoder from voxels in [0, 1]); background voxels, which were noise in training, become 0",
    preprocess=Preprocess(modality="unit"),
    whole_size=(56, 448, 448),
)


@dataclasses.dataclass(frozen=True)
class PublishedMedicalNet(WeightSource):
    """MedicalNet's 3D ResNets.

    Attributes:
        cut_gradient: no gradient through shortcuts A (depths 18 and 34) in fine-tuning, as in the published
            code.
    """

    prefix: ClassVar[str] = "medicalnet"
    cut_gradient: bool = False

    def identify(self, tensors: Mapping[str, Tensor], file: str) -> Identified:
        """Depth and shortcut from the tensors themselves, checked against the file's name."""
        if "conv1.weight" not in tensors or "layer1.0.conv1.weight" not in tensors:
            raise none_match(PROVENANCE.title, tensors, "conv1.weight, layer1.0.conv1.weight")
        depth = find_depth(tensors)
        named = re.search(r"resnet_?(\d+)", file)
        if named and int(named.group(1)) != depth:
            raise WeightsError(
                f"{file} says depth {named.group(1)}, but its tensors are those of a ResNet-{depth}; rename "
                "the file if its name is wrong"
            )
        has_convolution = "layer2.0.downsample.0.weight" in tensors
        shortcut: Shortcut = "B" if has_convolution else "A"
        if has_convolution == (depth not in (18, 34)):
            shortcut = "by_depth"
        network = ResNet3D(
            depth=depth,  # type: ignore[arg-type]
            shortcut=shortcut,
            cut_gradient=self.cut_gradient,
            scaling="zscore",
        )
        classes = out_channels(tensors, "conv_seg.6.weight")
        return Identified(network, tensors["conv1.weight"].shape[1], classes, PROVENANCE)

    def destination(self, name: str) -> Destination | str:
        """``conv_seg.N`` is the head, everything else keeps its name."""
        if name.startswith("conv_seg."):
            return Destination("own.layers." + name.removeprefix("conv_seg."))
        return Destination("encoder." + name)


def find_depth(tensors: Mapping[str, Tensor]) -> int:
    """The depth whose blocks the tensors are.

    Raises:
        WeightsError: they are those of no published depth.
    """
    blocks: dict[int, set[int]] = {}
    for name in tensors:
        found = re.match(r"layer(\d+)\.(\d+)\.conv1\.weight$", name)
        if found:
            blocks.setdefault(int(found.group(1)), set()).add(int(found.group(2)))
    counts = tuple(len(blocks[layer]) for layer in sorted(blocks))
    is_bottleneck = "layer1.0.conv3.weight" in tensors
    for depth, expected in BLOCKS.items():
        if counts == expected and is_bottleneck == (depth >= 50):
            return depth
    kind = "bottlenecks" if is_bottleneck else "basic blocks"
    raise WeightsError(
        f"layers of {', '.join(map(str, counts))} {kind} are no MedicalNet; depths are "
        f"{', '.join(map(str, BLOCKS))}"
    )
