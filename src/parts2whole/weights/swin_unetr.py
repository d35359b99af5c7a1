"""SwinUNETR as MONAI publishes it: pre-trained on CT by three pretext tasks, or fine-tuned from there.

Y. Tang et al., "Self-Supervised Pre-Training of Swin Transformers for 3D Medical Image Analysis", CVPR 2022,
https://arxiv.org/abs/2111.14791. Files ``model_swinvit.pt``, a dict whose "state_dict" has names that start
with "module.", and whole networks, whose names start with "swinViT.".
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from parts2whole.scans.preprocess import Preprocess
from parts2whole.weights.base import Provenance
from parts2whole.weights.swin import SwinWeights

PROVENANCE = Provenance(
    title="MONAI SwinUNETR",
    citation="Y. Tang, D. Yang, W. Li, H. R. Roth, B. Landman, D. Xu, V. Nath, A. Hatamizadeh. "
    "Self-Supervised Pre-Training of Swin Transformers for 3D Medical Image Analysis. CVPR 2022. "
    "arXiv:2111.14791.",
    licence="Apache-2.0 (Project-MONAI)",
    where="model_swinvit.pt, release 0.8.1 of github.com/Project-MONAI/MONAI-extra-test-data, linked in "
    "SwinUNETR of github.com/Project-MONAI/research-contributions",
    trained_on="5,050 CT scans of head, neck, chest, abdomen and pelvis",
    expects="one channel, CT clipped to -1000 to 1000 HU and scaled to [0, 1], 1.5 x 1.5 x 2 mm",
    preprocess=Preprocess(modality="CT", window_hu=(-1000.0, 1000.0), spacing_mm=(2.0, 1.5, 1.5)),
    whole_size=(96, 96, 96),
)


@dataclasses.dataclass(frozen=True)
class PublishedSwinUNETR(SwinWeights):
    """MONAI's SwinUNETR."""

    prefix: ClassVar[str] = "swin_unetr"

    @property
    def provenance(self) -> Provenance:
        """Of the self-supervised weights."""
        return PROVENANCE
