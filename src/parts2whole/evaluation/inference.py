"""Whole volumes through a network that sees windows: overlapping windows, blended by a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from monai.inferers.utils import sliding_window_inference
from monai.utils.enums import BlendMode
from torch import Tensor

from parts2whole.errors import Parts2WholeError, is_out_of_memory
from parts2whole.scans.volume import Size, size_of
from parts2whole.shapes import Float

SIGMA = 0.125
"""Of the Gaussian, as a share of the window's edge."""


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

    def checked(windows: Tensor) -> Tensor:
        logits = model(windows)
        if size_of(logits) != tuple(window):
            raise InferenceError(
                f"the model gave logits of size {size_of(logits)} for windows of size "
                f"{window}; both must be equal, so let the model resize its logits"
            )
        # In the image's precision, as half precision would add up; a window alone is a view of the image,
        # and logits are weighed in place.
        return logits.to(image.dtype, copy=len(windows) == 1)

    while True:
        # In batches of about the same size: one window alone at the end takes as long as several.
        count = count_windows(size_of(image), window, overlap)
        many = math.ceil(count / math.ceil(count / batch))
        try:
            blended = sliding_window_inference(
                image, window, many, checked, overlap=overlap, mode=BlendMode.GAUSSIAN, sigma_scale=SIGMA
            )
            assert isinstance(blended, Tensor)
            return blended
        except RuntimeError as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            batch //= 2


def count_windows(shape: Size, window: Size, overlap: float) -> int:
    """How many windows of this size `sliding_window` covers a volume with; the last ones move inwards."""
    steps = [max(1, int(edge * (1 - overlap))) for edge in window]
    return math.prod(
        math.ceil(max(0, size - edge) / step) + 1
        for size, edge, step in zip(shape, window, steps, strict=True)
    )
