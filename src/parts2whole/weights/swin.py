"""What sources of SwinUNETR have in common: the transformer is taken, whatever was trained on it is not."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Mapping

from torch import Tensor

from parts2whole.networks.swin_unetr import SwinUNETR
from parts2whole.weights.base import Destination, Identified, Provenance, WeightSource, none_match

SCOPE = re.compile(r"(?:backbone\.)?(?:swinViT\.)?(?=patch_embed\.|layers[1-4]c?\.)")
"""What stands before the names of the transformer."""
RENAMED = {"mlp.fc1.": "mlp.linear1.", "mlp.fc2.": "mlp.linear2."}
"""As the transformer's layers were called before MONAI 0.9."""
FIRST = "patch_embed.proj.weight"


@dataclasses.dataclass(frozen=True)
class SwinWeights(WeightSource, abc.ABC):
    """Weights of a SwinUNETR that was trained on arrays to right, anterior and superior."""

    @property
    @abc.abstractmethod
    def provenance(self) -> Provenance:
        """Of these weights."""

    def identify(self, tensors: Mapping[str, Tensor], file: str) -> Identified:
        """Width and version from the tensors themselves."""
        names = {strip(name): name for name in tensors if SCOPE.match(name)}
        if FIRST not in names:
            raise none_match(self.provenance.title, tensors, f"swinViT.{FIRST}")
        width, channels = tensors[names[FIRST]].shape[:2]
        v2 = any(name.startswith("layers1c.") for name in names)
        network = SwinUNETR(feature_size=width, v2=v2, orientation="RAS")
        return Identified(network, channels, None, self.provenance)

    def destination(self, name: str) -> Destination | str:
        """Names of the transformer stay, those of its first version are brought up to date."""
        if not SCOPE.match(name):
            return "no part of the transformer: the published decoder, or a head of the pretext task"
        found = strip(name)
        for old, new in RENAMED.items():
            found = found.replace(old, new)
        return Destination(f"encoder.swinViT.{found}")


def strip(name: str) -> str:
    """The name of a tensor within the transformer."""
    return SCOPE.sub("", name, count=1)
