"""Whole volumes through a network that sees windows: overlapping windows, blended by a Gaussian."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from monai.inferers.utils import sliding_window_inference
from torch import Tensor


@torch.no_grad()
def sliding_window(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    window: tuple[int, int, int],
    overlap: float = 0.5,
    batch: int = 4,
) -> Tensor:
    """Apply a model to a volume of any size.

    Args:
        model: (B, C, \\*window) to logits (B, K, \\*window).
        image: (1, C, D, H, W); padded with zeros where it is smaller than the window.
        window: size in voxels.
        overlap: of neighbouring windows, as a share of the window.
        batch: windows at once.

    Returns:
        Logits (1, K, D, H, W).
    """
    shape = image.shape[2:]
    pad: list[int] = []
    for edge, wanted in zip(reversed(shape), reversed(window), strict=True):
        missing = max(0, wanted - edge)
        pad += [missing // 2, missing - missing // 2]
    padded = F.pad(image, pad)
    logits = sliding_window_inference(padded, window, batch, model, overlap=overlap, mode="gaussian")
    assert isinstance(logits, Tensor)
    starts = pad[4], pad[2], pad[0]
    z, y, x = (slice(start, start + edge) for start, edge in zip(starts, shape, strict=True))
    return logits[:, :, z, y, x]
