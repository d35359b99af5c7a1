"""What segmentation tasks minimise: overlap of prediction and label map, and cross-entropy."""

from __future__ import annotations

from typing import Literal

import torch
from monai.losses.dice import DiceLoss
from monai.networks.utils import one_hot
from torch import Tensor

from parts2whole.evaluation.regions import IGNORED
from parts2whole.networks.repeatable import map_cross_entropy

LossFunction = Literal["dice_ce", "dice_balanced_ce", "dice"]
"""What they are, `parts2whole.tasks.segmenting.SegmentationTask` says."""


def segmentation_loss(logits: Tensor, label: Tensor, kind: LossFunction) -> Tensor:
    """Dice over the batch, foreground classes alike, plus cross-entropy if asked; of annotated voxels.

    Balanced, a class weighs as the square root of the number of its voxels in the batch.

    Args:
        logits: (B, K, D, H, W), K classes with the background first.
        label: class indices (B, 1, D, H, W), or `IGNORED`.
        kind: which loss.

    Returns:
        A scalar.
    """
    counted = label != IGNORED
    truth = one_hot(label * counted, logits.shape[1]) * counted
    smooth = 1.0 if kind == "dice" else 1e-5
    overlap = DiceLoss(include_background=False, batch=True, smooth_nr=smooth, smooth_dr=smooth)
    loss: Tensor = overlap(torch.softmax(logits, dim=1) * counted, truth)
    if kind == "dice":
        return loss
    sizes = truth.sum(dim=(0, 2, 3, 4))
    weight = sizes.clamp(min=1) ** -0.5 if kind == "dice_balanced_ce" else None
    entropy = map_cross_entropy(logits, label[:, 0], weight=weight, ignore_index=IGNORED, reduction="sum")
    whole = counted.sum() if weight is None else (weight * sizes).sum()
    return loss + entropy / whole.clamp(min=1)
