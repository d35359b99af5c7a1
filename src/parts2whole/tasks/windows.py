"""The windows that a segmented volume goes through: how large, how far they overlap, what they say."""

from __future__ import annotations

import dataclasses
import math

import torch.nn.functional as F
from torch import Tensor

from parts2whole.evaluation.inference import count_windows, sliding_window
from parts2whole.scans.volume import Size, size_of
from parts2whole.tasks.base import Predictor
from parts2whole.wholes.geometry import resize

OVERLAP, OVERLAP_OF_STATISTICS = 0.125, 0.5
"""Of neighbouring windows, as a share of the window, where a task says nothing, and where a norm takes its
statistics from the window; see docs/inference.md."""


@dataclasses.dataclass(frozen=True)
class Windows:
    """What a segmentation task says of its windows; see `parts2whole.tasks.segmenting.SegmentationTask`."""

    patch: Size
    crop: Size | None
    largest: Size | None
    overlap: float | None

    def logits(self, predictor: Predictor, image: Tensor) -> Tensor:
        """Logits (1, K, D, H, W) of a prepared image (1, C, D, H, W).

        An axis that is shorter than the patch is padded with zeros, as in training; one that is only no
        multiple of what the network needs, with its border: zeros there are what training never showed.
        """
        z, y, x = size_of(image)
        window = self.choose((z, y, x), predictor.divisor)
        if not self.resized:
            missing = [
                max(0, wanted - edge) if edge >= patch else 0
                for wanted, edge, patch in zip(window, (z, y, x), self.patch, strict=True)
            ]
            padded = F.pad(image, [n for short in reversed(missing) for n in (0, short)], mode="replicate")
            found = sliding_window(predictor, padded, window=window, overlap=self.share(predictor.norm))
            return found[..., :z, :y, :x]

        def resized(windows: Tensor) -> Tensor:
            found = predictor(resize(windows, self.patch))
            return F.interpolate(found, windows.shape[2:], mode="trilinear", align_corners=False)

        return sliding_window(resized, image, window=window, overlap=self.share(predictor.norm))

    def voxels(self, shape: Size, divisor: int, norm: str) -> int:
        """How many voxels a network computes for a volume."""
        window = self.choose(shape, divisor)
        return count_windows(shape, window, self.share(norm)) * math.prod(
            self.patch if self.resized else window
        )

    def share(self, norm: str) -> float:
        """Of a window, that its neighbour sees, too; ``norm`` is that of the encoder."""
        if self.overlap is not None:
            return self.overlap
        return OVERLAP if norm in ("batch", "none") else OVERLAP_OF_STATISTICS

    @property
    def resized(self) -> bool:
        """Whether windows are brought to the size of the patch."""
        return self.crop is not None and self.crop != self.patch

    def choose(self, shape: Size, divisor: int) -> Size:
        """The window for a volume: no axis is padded beyond the patch or what the network needs."""
        if self.crop is not None and self.resized:
            return self.crop
        z, y, x = (
            min(wanted, max(patch, math.ceil(edge / divisor) * divisor))
            for wanted, patch, edge in zip(self.largest or self.patch, self.patch, shape, strict=True)
        )
        return z, y, x
