"""Augmentation for fine-tuning, in the batch and on the device: draw parameters, then apply them.

Geometry is one affine resampling for image and label alike (linear and nearest); intensity changes touch
the image alone.  Ranges follow common practice in 3D segmentation (nnU-Net's, narrowed for small data).
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from parts2whole.spec import Spec
from parts2whole.wholes.random import BatchGenerator


@dataclasses.dataclass(frozen=True)
class Augmentation(Spec):
    """How far training samples are changed.

    Attributes:
        probability: of each kind of change, per sample.
        rotation_degrees: largest rotation about every axis.
        scale: band of the zoom factor; above 1 enlarges.
        flip_axes: axes (0 z, 1 y, 2 x) that may be mirrored.
        noise_std: largest standard deviation of added noise, in units of the [0, 1] range.
        contrast: band of the factor about the mean.
        gamma: band of the exponent.
    """

    probability: float = 0.3
    rotation_degrees: float = 15.0
    scale: tuple[float, float] = (0.8, 1.25)
    flip_axes: tuple[int, ...] = ()
    noise_std: float = 0.05
    contrast: tuple[float, float] = (0.75, 1.25)
    gamma: tuple[float, float] = (0.7, 1.5)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Parameters of one batch: an affine matrix, and per-sample intensity changes.

    Attributes:
        theta: (B, 3, 4) affine matrix in normalised (x, y, z) coordinates.
        noise: (B, 1, D, H, W) to add.
        contrast: (B,) factor about the mean.
        gamma: (B,) exponent.
    """

    theta: Tensor
    noise: Tensor
    contrast: Tensor
    gamma: Tensor


def draw_augmentation(spec: Augmentation, generator: BatchGenerator, size: tuple[int, int, int]) -> Drawn:
    """Draw the parameters for every row of a batch whose samples have ``size`` voxels (z, y, x)."""
    applied = generator.uniform(5) < spec.probability
    numbers = generator.uniform(10)
    angles = (numbers[:, :3] * 2 - 1) * math.radians(spec.rotation_degrees) * applied[:, :1]
    zoom = torch.exp(_within(numbers[:, 3], math.log(spec.scale[0]), math.log(spec.scale[1])))
    zoom = torch.where(applied[:, 1], zoom, torch.ones_like(zoom))
    flips = torch.ones(len(numbers), 3, device=numbers.device)
    for axis in spec.flip_axes:
        flips[:, 2 - axis] = torch.where(numbers[:, 4 + axis] < 0.5, -1.0, 1.0)
    # Rotate in voxels, not in normalised units: axes of different length would shear.
    edges = torch.tensor(size[::-1], dtype=numbers.dtype, device=numbers.device)
    matrix = _rotation(angles) / zoom[:, None, None]
    matrix = matrix * edges[None, None, :] / edges[None, :, None] * flips[:, None, :]
    theta = torch.cat([matrix, torch.zeros_like(matrix[:, :, :1])], dim=2)
    spread = numbers[:, 7] * spec.noise_std * applied[:, 2]
    one = torch.ones(len(numbers), device=numbers.device)
    return Drawn(
        theta=theta,
        noise=generator.normal(1, *size) * spread[:, None, None, None, None],
        contrast=torch.where(applied[:, 3], _within(numbers[:, 8], *spec.contrast), one),
        gamma=torch.where(applied[:, 4], _within(numbers[:, 9], *spec.gamma), one),
    )


def augment_image(image: Tensor, drawn: Drawn) -> Tensor:
    """(B, C, D, H, W) in [0, 1] to the same, changed."""
    grid = F.affine_grid(drawn.theta, list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    mean = image.mean(dim=(2, 3, 4), keepdim=True)
    image = ((image - mean) * _expand(drawn.contrast) + mean).clamp(0, 1)
    image = image ** _expand(drawn.gamma)
    return (image + drawn.noise).clamp(0, 1)


def augment_label(label: Tensor, drawn: Drawn) -> Tensor:
    """(B, 1, D, H, W) class indices to the same, moved as the image is; nearest neighbour."""
    grid = F.affine_grid(drawn.theta, list(label.shape), align_corners=False)
    moved = F.grid_sample(label.float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    return moved.round().long()


def _within(numbers: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * numbers


def _expand(values: Tensor) -> Tensor:
    return values[:, None, None, None, None]


def _rotation(angles: Tensor) -> Tensor:
    """(B, 3) angles about x, y, z in radians to (B, 3, 3) rotation matrices."""
    result = torch.eye(3, device=angles.device).expand(len(angles), 3, 3)
    for axis in range(3):
        i, j = [a for a in range(3) if a != axis]
        sine, cosine = torch.sin(angles[:, axis]), torch.cos(angles[:, axis])
        turn = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1)
        turn[:, i, i] = turn[:, j, j] = cosine
        turn[:, i, j], turn[:, j, i] = -sine, sine
        result = result @ turn
    return result
