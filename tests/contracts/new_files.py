"""A method, a network and a task as somebody else would write them, each in one file."""

from __future__ import annotations

METHOD = '''"""Which way up: tell whether a whole stands on its head."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F

from parts2whole.methods.base import Discrimination
from parts2whole.networks.heads import PooledClassifier


@dataclasses.dataclass(frozen=True)
class WhichWayUp(Discrimination):
    """Turn every other whole upside down, and ask which.

    Attributes:
        hidden: width of the head's hidden layer.
    """

    citation: ClassVar[str] = "nobody yet"
    rows_are_independent: ClassVar[bool] = True
    hidden: int = 16

    def build(self, network, *, in_channels, whole_size):
        """Encoder and head."""
        return PooledClassifier(network.build_encoder(in_channels), classes=2, hidden=self.hidden)

    def views(self, wholes, generator):
        """``image`` (B, C, D, H, W), and ``turned``, 0 or 1."""
        turned = generator.uniform(1)[:, 0] < 0.5
        image = torch.where(turned[:, None, None, None, None], wholes.flip(2), wholes)
        return {"image": image, "turned": turned.long()}

    def loss(self, module, views):
        """Cross-entropy."""
        return {"loss": F.cross_entropy(module(views["image"]), views["turned"])}

    def candidates(self, wholes):
        """Up or down."""
        return 2
'''

NETWORK = '''"""Two convolutions."""

from __future__ import annotations

import dataclasses

from torch import nn

from parts2whole.networks.base import Encoder, Network


class TwoLevels(Encoder):
    """Stride 1, then 2."""

    def __init__(self, in_channels, width):
        super().__init__()
        self.in_channels, self.channels = in_channels, (width, 2 * width)
        self.strides, self.norm = ((1, 1, 1), (2, 2, 2)), "batch"
        self.input_axes = {"first.0.weight": 1}
        self.first = nn.Sequential(nn.Conv3d(in_channels, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU())
        self.second = nn.Sequential(
            nn.Conv3d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm3d(2 * width), nn.ReLU()
        )

    def forward(self, x):
        """Pyramid of two levels."""
        fine = self.first(x)
        return fine, self.second(fine)


@dataclasses.dataclass(frozen=True)
class Shallow(Network):
    """A shallow network.

    Attributes:
        width: of the finest level.
    """

    width: int = 4

    def build_encoder(self, in_channels):
        """A fresh encoder."""
        return TwoLevels(in_channels, self.width)
'''

TASK = '''"""Bright balls, in files called ``NN-ball.nii.gz`` and ``NN-mask.nii.gz``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from parts2whole.scans.case import SourceCase
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import write_nifti
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.tasks.labelled import FoundCases
from parts2whole.tasks.segmenting import SegmentationTask


@dataclasses.dataclass(frozen=True)
class BallSegmentation(SegmentationTask):
    """Balls."""

    def sources(self):
        """Every image with its mask."""
        images = sorted(Path(self.data).glob("*-ball.nii.gz"))
        return FoundCases([SourceCase(p.name[:2], (p,), p.with_name(p.name.replace("ball", "mask"))) for p in images])

    @classmethod
    def example(cls, folder):
        """Five balls."""
        for number in range(5):
            generator = np.random.default_rng(number)
            z, y, x = np.ogrid[:20, :20, :20]
            mask = ((z - 10) ** 2 + (y - 9) ** 2 + (x - 7 - number) ** 2 < 20).astype(np.uint8)
            image = (100 * mask + generator.normal(0, 10, mask.shape)).astype(np.int16)
            write_nifti(Volume(image), folder / f"{number:02d}-ball.nii.gz")
            write_nifti(LabelVolume(mask), folder / f"{number:02d}-mask.nii.gz")
        return cls(folder, preprocess=Preprocess(modality="MR"), patch_size=(16, 16, 16), test_fraction=0.4)
'''

FILES = {"methods": METHOD, "networks": NETWORK, "tasks": TASK}
"""Source by the folder it would be in, were it of the package."""

CLASSES = {"methods": "WhichWayUp", "networks": "Shallow", "tasks": "BallSegmentation"}
