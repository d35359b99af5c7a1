"""Whole volumes through a network that sees windows: overlapping windows, blended by a Gaussian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from parts2whole.errors import Parts2WholeError
from parts2whole.scans.volume import size_of
from parts2whole.shapes import Float


class InferenceError(Parts2WholeError, ValueError):
    """An image, a window or a model that sliding windows can't work with."""


@torch.no_grad()
def sliding_window(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    window: tuple[int, int, int],
    overlap: float = 0.5,
    batch: int = 4,
) -> Float[Tensor, "1 classes d h w"]:
    r"""Apply a model to a volume of any size.

    The image and the blended logits stay on the image's device; the model sees ``batch`` windows at once
    and may move them elsewhere, as long as it brings the logits back. So a GPU holds a few windows, never
    the volume. A volume that is smaller than the window is padded with zeros on both sides, and the
    logits are cropped back.

    Args:
        model: (B, C, \*window) to logits (B, K, \*window).
        image: (1, C, D, H, W).
        window: size in voxels (z, y, x).
        overlap: of neighbouring windows, as a share of the window; at least 0, below 1.
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

    def apply(windows: Tensor) -> Tensor:
        logits = model(windows)
        if size_of(logits) != size_of(windows):
            raise InferenceError(
                f"the model gave logits of size {size_of(logits)} for windows of size "
                f"{size_of(windows)}; both must be equal, so let the model resize its logits"
            )
        # A copy in the image's precision: windows are weighted in place, and half precision would add up.
        return logits.to(image.dtype, copy=True)

    blended = sliding_window_inference(
        image, window, batch, apply, overlap=overlap, mode="gaussian", padding_mode="constant", cval=0.0
    )
    assert isinstance(blended, Tensor)
    return blended
