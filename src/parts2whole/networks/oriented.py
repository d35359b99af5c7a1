"""Networks that were trained on arrays that lie otherwise: images are turned for them, and maps back."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from parts2whole.networks.blocks import NetworkError

Orientation = Literal["SPL", "RAS"]
"""Where the axes of an array point, first to last: ``SPL``, to superior, posterior and left, is how arrays
lie here; ``RAS`` is what MONAI's pipelines make of a NIfTI file."""


def check_orientation(orientation: str) -> None:
    """Raise `NetworkError` unless it is an `Orientation`."""
    if orientation not in get_args(Orientation):
        known = ", ".join(get_args(Orientation))
        raise NetworkError(f"unknown orientation {orientation!r}; choose from {known}")


def turn(x: Tensor, orientation: str) -> Tensor:
    """(B, C, D, H, W) as it lies here, as the network wants it."""
    return x.permute(0, 1, 4, 3, 2).flip(2, 3) if orientation == "RAS" else x


def turn_back(x: Tensor, orientation: str) -> Tensor:
    """What `turn` undoes."""
    return x.flip(2, 3).permute(0, 1, 4, 3, 2) if orientation == "RAS" else x
