"""Building blocks: the convolution unit, and the decoder that goes on any encoder's pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.errors import Parts2WholeError
from parts2whole.networks.base import Encoder, Stride
from parts2whole.scans.volume import size_of

Norm = Literal["batch", "batch_statistics", "instance", "group", "none"]


class NetworkError(Parts2WholeError, ValueError):
    """A network that can't be built, or an input that doesn't fit it."""


class BatchStatisticsNorm3d(nn.BatchNorm3d):
    """Batch norm that uses the statistics of the current batch in eval mode too, as Models Genesis does.

    Running statistics are still updated at every forward; predictions depend on the batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            True,
            self.momentum or 0.1,
            self.eps,
        )


def build_norm(norm: str, channels: int) -> nn.Module:
    """The normalisation layer called ``norm``.

    Raises:
        NetworkError: there is no such normalisation.
    """
    if norm == "batch":
        return nn.BatchNorm3d(channels)
    if norm == "batch_statistics":
        return BatchStatisticsNorm3d(channels)
    if norm == "instance":
        return nn.InstanceNorm3d(channels, affine=True)
    if norm == "group":
        return nn.GroupNorm(min(8, max(1, channels // 4)), channels)
    if norm == "none":
        return nn.Identity()
    raise NetworkError(f"unknown norm {norm!r}; choose from {', '.join(get_args(Norm))}")


class ConvUnit(nn.Sequential):
    """Convolution 3 x 3 x 3 with bias, normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, padding=1),
            build_norm(norm, out_channels),
            nn.ReLU(inplace=True),
        )


def pad_same(x: Tensor, kernel: Stride, stride: Stride) -> Tensor:
    """Zero padding as TensorFlow's SAME: as much as the size needs, the smaller half in front.

    An even edge with kernel 3 and stride 2 gets 0 voxels in front and 1 behind; an odd one 1 and 1.
    """
    pads: list[int] = []
    for edge, size, step in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(size - (edge % step or step), 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads) if any(pads) else x


class SameConv3d(nn.Conv3d):
    """Convolution that pads as TensorFlow's SAME does, from the size of its actual input."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, D, H, W) to (B, out, ceil(D/s), ceil(H/s), ceil(W/s))."""
        kernel: Stride = self.kernel_size  # type: ignore[assignment]
        stride: Stride = self.stride  # type: ignore[assignment]
        padded = pad_same(x, kernel, stride)
        return F.conv3d(padded, self.weight, self.bias, self.stride)


class Decoder(nn.Module):
    """From a pyramid back to input resolution, with or without skip connections.

    At every step the deeper map is upsampled by a transposed convolution that keeps its width, joined
    with the encoder's map of that resolution (only if ``skips``), and passed through two units of that
    level's width.  An encoder whose finest map is below input resolution gets more steps without skips.
    With ``widths`` the decoder is narrower than the encoder: a transposed convolution then gives at most
    twice the width of its target.

    Attributes:
        out_channels: width of the map that comes out.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[Stride],
        *,
        skips: bool,
        norm: str,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.skips = skips
        self.levels = len(channels)
        self.ups = nn.ModuleList()
        self.units = nn.ModuleList()
        width = channels[-1]
        targets = [*zip(channels[:-1], strides[:-1], strict=True)]
        if strides[0] != (1, 1, 1):
            targets.insert(0, (0, (1, 1, 1)))
        narrows = widths is not None
        if widths is None:
            widths = [skip or max(channels[0] // 2, 8) for skip, _ in targets]
        if len(widths) != len(targets):
            raise NetworkError(f"a decoder of {len(targets)} steps needs as many widths, got {list(widths)}")
        below = strides[-1]
        for index in range(len(targets) - 1, -1, -1):
            (skip, stride), out = targets[index], widths[index]
            factor = tuple(b // s for b, s in zip(below, stride, strict=True))
            kept = min(width, 2 * out) if narrows else width
            self.ups.append(nn.ConvTranspose3d(width, kept, factor, stride=factor))  # type: ignore[arg-type]
            joined = kept + (skip if skips else 0)
            self.units.append(nn.Sequential(ConvUnit(joined, out, norm), ConvUnit(out, out, norm)))
            width, below = out, stride
        self.out_channels = width

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Pyramid (finest first) to (B, out_channels, D, H, W)."""
        x = pyramid[-1]
        finer = list(pyramid[:-1])
        for up, units in zip(self.ups, self.units, strict=True):
            x = up(x)
            if self.skips and finer:
                x = torch.cat([x, finer.pop()], dim=1)
            x = units(x)
        return x


def build_decoder(encoder: Encoder, *, skips: bool, width: int | None = None) -> Decoder:
    """A fresh decoder for ``encoder``, of its own widths or of one width at every step."""
    steps = len(encoder.channels) - (encoder.strides[0] == (1, 1, 1))
    widths = encoder.decoder_widths if width is None else (width,) * steps
    return Decoder(encoder.channels, encoder.strides, skips=skips, norm=encoder.norm, widths=widths)


def check_input(x: Tensor, *, channels: int, divisor: int) -> None:
    """Raise `NetworkError` unless ``x`` is (B, channels, D, H, W) with edges divisible by ``divisor``."""
    if x.ndim != 5 or x.shape[1] != channels:
        raise NetworkError(f"expected (batch, {channels}, depth, height, width), got {tuple(x.shape)}")
    if any(edge % divisor for edge in x.shape[2:]):
        raise NetworkError(f"edges must be divisible by {divisor}, got {size_of(x)}; pad or crop first")
