"""VoCo: SwinUNETR, second version, that learned where crops of a CT come from.

L. Wu, J. Zhuang, H. Chen, "Large-Scale 3D Medical Image Pre-training with Geometric Context Priors", 2024,
https://arxiv.org/abs/2410.09890. Files ``VoCo_{B,L,H}_SSL_head.pt`` and ``VoComni_{B,L,H}.pt``, widths 48, 96
and 192.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from parts2whole.scans.preprocess import Preprocess
from parts2whole.weights.base import Provenance
from parts2whole.weights.swin import SwinWeights

PROVENANCE = Provenance(
    title="VoCo SwinUNETR",
    citation="L. Wu, J. Zhuang, H. Chen. Large-Scale 3D Medical Image Pre-training with Geometric Context "
    "Priors. arXiv:2410.09890, 2024.",
    licence="Apache-2.0 (Luffy03/Large-Scale-Medical)",
    where="VoCo_B_SSL_head.pt and others, on Hugging Face as Luffy503/VoCo",
    trained_on="PreCT-160K, 160,000 CT scans; VoComni with labels and pseudo-labels",
    expects="one channel, CT clipped to -175 to 250 HU and scaled to [0, 1], 1.5 mm; its chest CT was "
    "clipped to -1000 to 500 HU",
    preprocess=Preprocess(modality="CT", window_hu=(-175.0, 250.0), spacing_mm=(1.5, 1.5, 1.5)),
    whole_size=(64, 64, 64),
)


@dataclasses.dataclass(frozen=True)
class PublishedVoCo(SwinWeights):
    """VoCo's SwinUNETR."""

    prefix: ClassVar[str] = "voco"

    @property
    def provenance(self) -> Provenance:
        """Of all sizes."""
        return PROVENANCE
