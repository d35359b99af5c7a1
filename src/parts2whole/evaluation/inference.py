"""Whole volumes through a network that sees windows: overlapping windows, blended by a Gaussian."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from parts2whole.errors import Parts2WholeError, is_out_of_memory
from parts2whole.scans.volume import Size, size_of
from parts2whole.shapes import Float

SIGMA = 0.125
"""Of the Gaussian, as a share of the window's edge."""
LEAST = 1e-3
"""Weight of a voxel, at least, where that of the middle is 1."""


class InferenceError(Parts2WholeError, ValueError):
    """An image, a window or a model that sliding windows can't work with."""


@torch.no_grad()
def sliding_window(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    window: Size,
    overlap: float = 0.5,
    batch: int = 4,
) -> Float[Tensor, "1 classes d h w"]:
    r"""Apply a model to a volume of any size.

    The image and the blended logits stay on the image's device; the model sees ``batch`` windows at once
    and may move them elsewhere, as long as it brings the logits back. So a GPU holds a few windows, never
    the volume. A volume that is smaller than the window is padded with zeros on both sides, and the
    logits are cropped back. Where memory runs out, fewer windows go at once.

    Args:
        model: (B, C, \*window) to logits (B, K, \*window).
        image: (1, C, D, H, W).
        window: size in voxels (z, y, x).
        overlap: of neighbouring windows, as a share of the window, at least; at least 0, below 1.
        batch: windows at once.

    Returns:
        Logits (1, K, D, H, W), in the image's type.

    Raises:
        InferenceError: not one volume, a window without voxels, or logits of another size than the window.
    """
    if image.ndim != 5 or image.shape[0] != 1 or not image.numel():
        raise InferenceError(f"the image must be one volume (1, C, D, H, W), got {tuple(image.shape)}")
    if min(window) < 1:
        raise InferenceError(f"the window must be three sizes in voxels (z, y, x), got {tuple(window)}")
    if not 0 <= overlap < 1:
        raise InferenceError(f"overlap must be at least 0 and below 1, got {overlap}")
    if batch < 1:
        raise InferenceError(f"batch must be at least 1 window, got {batch}")
    shape = size_of(image)
    short = [max(0, edge - size) for edge, size in zip(window, shape, strict=True)]
    padded = F.pad(image, [side for n in reversed(short) for side in (n // 2, n - n // 2)])
    axes = [_starts(size, edge, overlap) for size, edge in zip(size_of(padded), window, strict=True)]
    places = [*itertools.product(*axes)]
    alone = len(places) == 1
    weight = _bell(window).to(image)
    weights = image.new_zeros(size_of(padded))
    blended: Tensor | None = None
    while places:
        # In batches of about the same size: one window alone at the end takes as long as several.
        count = math.ceil(len(places) / math.ceil(len(places) / batch))
        boxes = [_box(place, window) for place in places[:count]]
        try:
            logits = model(torch.cat([padded[:, :, z, y, x] for z, y, x in boxes]))
        except RuntimeError as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            batch //= 2
            continue
        if size_of(logits) != tuple(window):
            raise InferenceError(
                f"the model gave logits of size {size_of(logits)} for windows of size "
                f"{window}; both must be equal, so let the model resize its logits"
            )
        # In the image's precision: half precision would add up.
        logits = logits.to(image.dtype)
        if alone:
            blended = logits
        elif blended is None:
            blended = image.new_zeros(1, logits.shape[1], *size_of(padded))
        for (z, y, x), found in zip(() if alone else boxes, logits, strict=False):
            assert blended is not None
            blended[0, :, z, y, x].addcmul_(found, weight)
            weights[z, y, x] += weight
        del places[:count]
    assert blended is not None
    blended = blended if alone else blended.div_(weights)
    z, y, x = (slice(n // 2, n // 2 + size) for n, size in zip(short, shape, strict=True))
    return blended[:, :, z, y, x]


def count_windows(shape: Size, window: Size, overlap: float) -> int:
    """How many windows of this size `sliding_window` covers a volume with."""
    return math.prod(len(_starts(max(s, e), e, overlap)) for s, e in zip(shape, window, strict=True))


def _starts(size: int, edge: int, overlap: float) -> list[int]:
    """Where windows begin along an axis; the last is moved inwards.  MONAI's inferer places them alike."""
    step = max(1, int(edge * (1 - overlap)))
    return [min(number * step, size - edge) for number in range(math.ceil((size - edge) / step) + 1)]


def _box(start: tuple[int, ...], size: Size) -> tuple[slice, slice, slice]:
    """The voxels of a window."""
    z, y, x = (slice(first, first + edge) for first, edge in zip(start, size, strict=True))
    return z, y, x


def _bell(window: Size) -> Tensor:
    """How much each voxel of a window weighs."""
    axes = [torch.arange(edge) - (edge - 1) / 2 for edge in window]
    z, y, x = (
        torch.exp(-0.5 * (away / (SIGMA * edge)) ** 2) for away, edge in zip(axes, window, strict=True)
    )
    return (z[:, None, None] * y[:, None] * x).clamp_min(LEAST)
