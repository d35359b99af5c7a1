"""OpenMind and other weights of nnssl: nnU-Net's ResEnc-L, pre-trained by any of its methods.

T. Wald et al., "An OpenMind for 3D medical vision self-supervised learning", ICCV 2025,
https://arxiv.org/abs/2412.17041. Files ``checkpoint_final.pth``, a dict with "network_weights", whose tensors
appear twice (``conv``, ``norm`` and in ``all_modules``) and the encoder once more in the decoder, and with
"nnssl_adaptation_plan", which says the network, the size of patches and the spacing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from parts2whole.networks.resenc_unet3d import PLANS, ResEncUNet3D
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Size, Triple
from parts2whole.weights.base import (
    Destination,
    Identified,
    Provenance,
    WeightsError,
    WeightSource,
    count_blocks,
    none_match,
)

PROVENANCE = Provenance(
    title="OpenMind ResEnc-L",
    citation="T. Wald, C. Ulrich, J. Suprijadi, S. Ziegler, M. Nohel, R. Peretzke, G. Köhler, "
    "K. H. Maier-Hein. An OpenMind for 3D medical vision self-supervised learning. ICCV 2025. "
    "arXiv:2412.17041.",
    licence="as stated on the page of the model; read it before you fine-tune or share",
    where="checkpoint_final.pth, on Hugging Face, linked in the README of github.com/MIC-DKFZ/nnssl",
    trained_on="OpenMind, 114,000 MR volumes of the head; others as stated where they come from",
    expects="one channel, zero mean and unit deviation of the whole volume; voxels in [0, 1] do as well, as "
    "the instance norm behind the first convolution takes shift and scale out again, but for what borders "
    "are padded with",
    preprocess=Preprocess(modality="unit"),
    whole_size=(160, 160, 160),
)
PLAN = "nnssl_adaptation_plan"
ARCHITECTURES = ("ResEncL", "ResidualEncoderUNet")
SCOPE = re.compile(r"(?:(?:online_)?encoder\.)?(?=stem\.|stages\.)")
"""What stands before the encoder's names; that of a teacher, a moving average of it, isn't taken."""
PARTS = {"conv": "0", "norm": "1"}
UNITS = {"conv1": "first", "conv2": "second"}
BLOCK = r"stages\.(\d+)\.blocks\.\d+\.conv2\.conv\.weight"


@dataclasses.dataclass(frozen=True)
class PublishedOpenMind(WeightSource):
    """ResEnc-L of nnssl.

    Attributes:
        patch_size: size in voxels (z, y, x) of patches; what a file's plan says counts more.
        spacing_mm: spacing (z, y, x) that scans are brought to; what a file's plan says counts more.
        stages: of the network; what a file holds counts more.
    """

    prefix: ClassVar[str] = "openmind"
    patch_size: Size = (160, 160, 160)
    spacing_mm: Triple | None = (1.0, 1.0, 1.0)
    stages: int = 6

    def planned(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> PublishedOpenMind:
        """The source with what the adaptation plan of a file says."""
        stages = len(count_blocks(map(_strip, tensors), BLOCK))
        changes: dict[str, Any] = {"stages": stages} if stages else {}
        plan = about.get(PLAN)
        if not isinstance(plan, Mapping):
            return self.replace(**changes)
        named = plan.get("architecture_plans", {}).get("arch_class_name") or plan.get("architecture_name")
        if named not in (None, *ARCHITECTURES):
            raise WeightsError(f"the file's plan says {named}; of nnssl's networks only ResEncL can be used")
        patch = plan.get("recommended_downstream_patchsize") or plan.get("input_patch_size")
        settings = plan.get("pretrain_plan", {}).get("configurations", {}).values()
        spacings = [one["spacing"] for one in settings if "spacing" in one]
        try:
            if patch is not None:
                z, y, x = (int(edge) for edge in patch)
                changes["patch_size"] = (z, y, x)
            if spacings:
                changes["spacing_mm"] = None if spacings[0] is None else tuple(map(float, spacings[0]))
        except (TypeError, ValueError) as error:
            raise WeightsError(f"the file's {PLAN} can't be read: {error}") from error
        return self.replace(**changes)

    def identify(self, tensors: Mapping[str, Tensor], file: str) -> Identified:
        """The size from the tensors themselves."""
        names = {_strip(name): name for name in tensors if SCOPE.match(name)}
        first = names.get("stem.convs.0.conv.weight")
        if first is None:
            raise none_match(PROVENANCE.title, tensors, "encoder.stem.convs.0.conv.weight")
        blocks = count_blocks(names, BLOCK)
        firsts = (
            names.get(f"stages.{stage}.blocks.0.conv2.conv.weight", first) for stage in range(len(blocks))
        )
        found = tuple(len(tensors[name]) for name in firsts), blocks
        size = next((size for size, plan in PLANS.items() if plan == found), None)
        if size is None:
            raise WeightsError(
                f"{file} holds stages of widths {found[0]} with {found[1]} blocks; known are "
                f"{', '.join(f'{plan} ({size})' for size, plan in PLANS.items())}"
            )
        steps = len(blocks) - 1
        last = tensors.get(f"decoder.seg_layers.{steps - 1}.weight")
        complete = last is not None and f"decoder.transpconvs.{steps - 1}.weight" in tensors
        about = dataclasses.replace(
            PROVENANCE,
            preprocess=PROVENANCE.preprocess.replace(spacing_mm=self.spacing_mm),
            whole_size=self.patch_size,
        )
        network = ResEncUNet3D(size=size)  # type: ignore[arg-type]
        channels, classes = tensors[first].shape[1], len(last) if complete and last is not None else None
        return Identified(network, channels, classes, about)

    def destination(self, name: str) -> Destination | str:
        """Units are a convolution (0) and a norm (1)."""
        if ".all_modules." in name:
            return "the same tensor as the one under conv or norm"
        if name.startswith("decoder.encoder."):
            return "the encoder once more"
        if name.startswith("decoder."):
            return _decoder(name.removeprefix("decoder."), steps=self.stages - 1)
        if not SCOPE.match(name):
            return "no part of the published network"
        name = _strip(name)
        unit = re.fullmatch(r"stem\.convs\.0\.(conv|norm)\.(\w+)", name)
        if unit:
            return Destination(f"encoder.stem.{PARTS[unit[1]]}.{unit[2]}")
        unit = re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.(conv1|conv2)\.(conv|norm)\.(\w+)", name)
        if unit:
            stage, block, which, part, rest = unit.groups()
            return Destination(f"encoder.levels.{stage}.{block}.{UNITS[which]}.{PARTS[part]}.{rest}")
        unit = re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.skip\.(\d+)\.(conv|norm)\.(\w+)", name)
        if (
            unit
        ):  # around a block: an average, where it has a stride, then a projection, which is one unit there
            stage, block, at, part, rest = unit.groups()
            place = int(at) + int(PARTS[part])
            return Destination(f"encoder.levels.{stage}.{block}.around.{place}.{rest}")
        return "no part of the published network"


def _strip(name: str) -> str:
    """The name of a tensor within the encoder."""
    return SCOPE.sub("", name, count=1)


def _decoder(name: str, *, steps: int) -> Destination | str:
    """Where a tensor of the decoder goes; of its heads, the last is its own."""
    unit = re.fullmatch(r"stages\.(\d+)\.convs\.0\.(conv|norm)\.(\w+)", name)
    if unit:
        return Destination(f"own.stages.{unit[1]}.{PARTS[unit[2]]}.{unit[3]}")
    if name.startswith("transpconvs."):
        return Destination("own.ups." + name.removeprefix("transpconvs."))
    if name.startswith(f"seg_layers.{steps - 1}."):
        return Destination("own.classes." + name.rpartition(".")[2])
    return "a head for deep supervision, or no part of the published network"
