"""What networks with published weights share: named feature maps, and the values they expect of voxels."""

from __future__ import annotations

import abc
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from parts2whole.networks.base import Encoder, Own
from parts2whole.networks.blocks import NetworkError, check_input

Scaling = Literal["unit", "signed", "hounsfield", "zscore"]
"""What becomes of voxels in [0, 1] before the first layer: nothing; 2x - 1; 2000x - 1000, which undoes the
window of -1000 to 1000 HU; or, per volume and channel, zero mean and unit deviation of the voxels above 0."""


def scale_input(x: Tensor, scaling: str) -> Tensor:
    """Voxels in [0, 1] as values that a network was trained on; see `Scaling`.

    ``zscore`` leaves voxels of 0 at the mean, 0.

    Raises:
        NetworkError: there is no such scaling.
    """
    if scaling == "unit":
        return x
    if scaling == "signed":
        return 2 * x - 1
    if scaling == "hounsfield":
        return 2000 * x - 1000
    if scaling == "zscore":
        inside = (x > 0).to(x.dtype)
        count = inside.sum(dim=(2, 3, 4), keepdim=True).clamp(min=1)
        mean = (x * inside).sum(dim=(2, 3, 4), keepdim=True) / count
        apart = (x - mean) * inside
        deviation = (apart.square().sum(dim=(2, 3, 4), keepdim=True) / count).sqrt()
        return apart / deviation.clamp(min=1e-6)
    raise NetworkError(f"unknown input scaling {scaling!r}; choose from {', '.join(get_args(Scaling))}")


class NamedEncoder(Encoder):
    """An encoder that knows its feature maps by name.

    Attributes:
        level_names: which of them are the pyramid, finest first.
        scaling: what `forward` does to voxels in [0, 1] first; `forward_endpoints` takes them scaled.
    """

    level_names: tuple[str, ...]
    scaling: str = "unit"

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, D, H, W) in [0, 1] to one map per level, finest first."""
        check_input(x, channels=self.in_channels, divisor=self.divisor)
        found = self.forward_endpoints(scale_input(x, self.scaling))
        return tuple(found[name] for name in self.level_names)

    @abc.abstractmethod
    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """Scaled (B, C, D, H, W) of any size to every named map."""


class LogitsDecoder(Own):
    """A decoder whose only named result is its logits."""

    is_decoder = True

    def forward_endpoints(self, pyramid: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``output``, the logits (B, classes, D, H, W)."""
        return {"output": self(pyramid)}


class JoiningDecoder(LogitsDecoder):
    """The expanding path of nnU-Net: level by level upwards, joined to the skip, and through a stage.

    Attributes:
        ups: doubles what comes from below, to the width of the skip; deepest first.
        stages: mixes that and the skip, which follows it; deepest first.
        classes: logits of the finest level.
    """

    final = "classes"
    ups: nn.ModuleList
    stages: nn.ModuleList
    classes: nn.Conv3d

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Pyramid, finest first, to logits (B, classes, D, H, W)."""
        x = pyramid[-1]
        for up, stage, skip in zip(self.ups, self.stages, reversed(pyramid[:-1]), strict=True):
            x = stage(torch.cat([up(x), skip], dim=1))
        logits: Tensor = self.classes(x)
        return logits


class WholeNetwork(Encoder):
    """An encoder with the decoder or head it was published with.

    As an encoder it is its encoder; `forward_endpoints` runs all of it.
    """

    def __init__(self, encoder: NamedEncoder, own: Own | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.own = own
        self.in_channels = encoder.in_channels
        self.channels = encoder.channels
        self.strides = encoder.strides
        self.norm = encoder.norm
        self.decoder_widths = encoder.decoder_widths

    @property
    def levels(self) -> list[nn.Module]:
        """Parts of the encoder, finest first."""
        levels = getattr(self.encoder, "levels", None)
        return list(levels) if levels is not None else [self.encoder]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, D, H, W) in [0, 1] to the encoder's pyramid, finest first."""
        pyramid: tuple[Tensor, ...] = self.encoder(x)
        return pyramid

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """Run the whole network and name its results as they are published.

        Args:
            x: (B, C, D, H, W), axes (z, y, x), in the range of values that the network was trained on: unlike
                `forward`, this converts nothing.

        Returns:
            Feature maps of the encoder, then results of the decoder or head where there is one.
        """
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            raise NetworkError(
                f"expected (batch, {self.in_channels}, depth, height, width), got {tuple(x.shape)}"
            )
        found = self.encoder.forward_endpoints(x)
        if self.own is not None:
            found |= self.own.forward_endpoints(tuple(found[name] for name in self.encoder.level_names))
        return found


def spread_channels(weight: Tensor, axis: int, old: int, new: int, policy: str) -> Tensor:
    """Weights for ``new`` input channels made from weights for ``old``.

    Args:
        weight: its first ``old`` entries along ``axis`` belong to the input channels. Vectors (of a norm on
            the input) are repeated or averaged whatever the policy.
        axis: of the input channels.
        old: number of input channels it was trained with.
        new: number of input channels wanted.
        policy: ``sum``: the response to ``new`` equal channels is that to ``old`` equal ones, so three
            channels become one by their sum; ``mean``: every new channel weighs as much as an old one on
            average; ``repeat``: old channels in turn, times old / new.

    Raises:
        NetworkError: there is no such policy.
    """
    head, tail = weight.narrow(axis, 0, old), weight.narrow(axis, old, weight.shape[axis] - old)
    if weight.ndim < 2:
        taken = (
            head.repeat(-(-new // old))[:new] if new >= old else head.mean(dim=0, keepdim=True).repeat(new)
        )
    elif policy == "sum":
        taken = (head.sum(dim=axis, keepdim=True) / new).repeat_interleave(new, dim=axis)
    elif policy == "mean":
        taken = head.mean(dim=axis, keepdim=True).repeat_interleave(new, dim=axis)
    elif policy == "repeat":
        order = torch.arange(new, device=weight.device) % old
        taken = head.index_select(axis, order) * (old / new)
    else:
        raise NetworkError(f"unknown stem policy {policy!r}; choose sum, mean or repeat")
    return torch.cat([taken, tail], dim=axis)
