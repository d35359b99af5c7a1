"""DenseVNet, the network of NiftyNet's multi-organ segmentation of abdominal CT.

E. Gibson et al., "Automatic Multi-Organ Segmentation on Abdominal CT With Dense V-Networks", IEEE TMI 37,
2018, https://doi.org/10.1109/TMI.2018.2806309.  The input, averaged to half resolution, and a strided
convolution of it go through three stacks of densely connected units at strides 2, 4 and 8; what each stack
gives is resized to half resolution and joined.  Padding is TensorFlow's SAME; resizing has neither aligned
corners nor half-voxel offsets.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor, nn

from parts2whole.networks.base import Network, Own
from parts2whole.networks.blocks import SameConv3d, pad_same
from parts2whole.networks.published import NamedEncoder, Scaling, scale_input
from parts2whole.networks.repeatable import average_pool

UNITS = (5, 10, 10)
GROWTH = (4, 8, 16)
SKIPS = (12, 24, 24)
STEM = 24
DOWN = 24


@dataclasses.dataclass(frozen=True)
class DenseVNet(Network):
    """Dense V-network.

    Attributes:
        scaling: what becomes of voxels in [0, 1] first.
        prior_size: edge of the learnt map of prior probability that its own decoder adds to the logits; 0
            is none.
    """

    least_divisor: ClassVar[int] = 8
    scaling: Scaling = "unit"
    prior_size: int = 0

    def __post_init__(self) -> None:
        scale_input(torch.zeros(1, 1, 1, 1, 1), self.scaling)

    def build_encoder(self, in_channels: int) -> DenseVNetEncoder:
        """A freshly initialised encoder."""
        encoder = DenseVNetEncoder(in_channels)
        encoder.scaling = self.scaling
        return encoder

    def build_own(self, in_channels: int, out_channels: int) -> JoinedSkips:
        """Its decoder: skips resized to half resolution, joined, and one convolution."""
        return JoinedSkips(in_channels, out_channels, prior_size=self.prior_size)


class Unit(nn.Sequential):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            SameConv3d(in_channels, out_channels, 3, stride=stride, bias=False),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(inplace=True),
        )


class DenseStack(nn.Module):
    """Units that see the input and all earlier units; gives all of that joined."""

    def __init__(self, in_channels: int, units: int, growth: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(Unit(in_channels + n * growth, growth) for n in range(units))
        self.out_channels = in_channels + units * growth

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, D, H, W) to (B, in + units x growth, D, H, W)."""
        for unit in self.units:
            x = torch.cat([x, unit(x)], dim=1)
        return x


class DenseVNetEncoder(NamedEncoder):
    """The three dense stacks; the first channels of its finest map are the input at half resolution."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.strides = ((2, 2, 2), (4, 4, 4), (8, 8, 8))
        self.norm = "batch"
        self.decoder_widths = (16, 32, 64)
        self.level_names = ("stack1", "stack2", "stack3")
        self.input_norm = nn.BatchNorm3d(in_channels)
        self.stem = SameConv3d(in_channels, STEM, 5, stride=2, bias=False)
        self.stem_norm = nn.BatchNorm3d(STEM)
        below = (in_channels + STEM, DOWN, DOWN)
        self.stacks = nn.ModuleList(
            DenseStack(width, units, growth)
            for width, units, growth in zip(below, UNITS, GROWTH, strict=True)
        )
        self.channels = stack_widths(in_channels)
        self.downs = nn.ModuleList(Unit(width, DOWN, stride=2) for width in self.channels[:-1])
        vectors = ("weight", "bias", "running_mean", "running_var")
        self.input_axes = {f"input_norm.{name}": 0 for name in vectors} | {
            "stem.weight": 1,
            "downs.0.0.weight": 1,
        }
        self.input_axes |= {f"stacks.0.units.{n}.0.weight": 1 for n in range(UNITS[0])}

    @property
    def levels(self) -> list[nn.Module]:
        """Its parts, finest first."""
        first = nn.ModuleList([self.input_norm, self.stem, self.stem_norm, self.stacks[0]])
        deeper = (
            nn.ModuleList([down, stack]) for down, stack in zip(self.downs, self.stacks[1:], strict=True)
        )
        return [first, *deeper]

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """``stack1`` to ``stack3``."""
        halved = self.input_norm(average_pool_same(x))
        x = torch.cat([halved, self.stem_norm(self.stem(x))], dim=1)
        found: dict[str, Tensor] = {}
        for number, stack in enumerate(self.stacks):
            x = stack(self.downs[number - 1](x) if number else x)
            found[f"stack{number + 1}"] = x
        return found


class JoinedSkips(Own):
    """Its decoder, for inputs whose edges are divisible by 8."""

    final = "classes"
    is_decoder = True

    def __init__(self, in_channels: int, out_channels: int, *, prior_size: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.skips = nn.ModuleList(
            Unit(width, out) for width, out in zip(stack_widths(in_channels), SKIPS, strict=True)
        )
        self.classes = SameConv3d(in_channels + sum(SKIPS), out_channels, 3)
        self.prior = nn.Parameter(torch.ones(1, 1, *[prior_size] * 3)) if prior_size else None
        self.input_axes = {"skips.0.0.weight": 1, "classes.weight": 1}

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Pyramid, finest first, to logits (B, classes, D, H, W)."""
        return self.forward_endpoints(pyramid)["output"]

    def forward_endpoints(self, pyramid: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``skip1`` to ``skip3``, ``half_res_logits`` and ``output``."""
        found = {
            f"skip{number + 1}": skip(level)
            for number, (skip, level) in enumerate(zip(self.skips, pyramid, strict=True))
        }
        half = tuple(pyramid[0].shape[2:])
        resized = [resize_legacy(skip, half) for skip in found.values()]
        logits = self.classes(torch.cat([pyramid[0][:, : self.in_channels], *resized], dim=1))
        if self.prior is not None:
            logits = logits + resize_legacy(self.prior, half).log()
        found["half_res_logits"] = logits
        found["output"] = resize_legacy(logits, tuple(2 * edge for edge in half))
        return found


def stack_widths(in_channels: int) -> tuple[int, ...]:
    """Widths of the three stacks: 45, 104 and 184 for one input channel."""
    below = (in_channels + STEM, DOWN, DOWN)
    return tuple(w + units * growth for w, units, growth in zip(below, UNITS, GROWTH, strict=True))


def average_pool_same(x: Tensor) -> Tensor:
    """Mean of 3 x 3 x 3 voxels at stride 2, padded as SAME; padding doesn't count."""
    kernel, stride = (3, 3, 3), (2, 2, 2)
    counted = pad_same(torch.ones_like(x[:1, :1]), kernel, stride)
    total = average_pool(pad_same(x, kernel, stride), kernel, stride)
    return total / average_pool(counted, kernel, stride)


def resize_legacy(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Linear resizing in which voxel i of n lies at i times old / new: no aligned corners, no half voxel.

    The last voxels repeat the border. TensorFlow 1 resizes so; `torch.nn.functional.interpolate` has no
    such mode.
    """
    for axis, new in enumerate(size, start=2):
        old = x.shape[axis]
        if old == new:
            continue
        places = torch.arange(new, device=x.device, dtype=torch.float32) * (old / new)
        low = places.floor().long()
        high = (low + 1).clamp(max=old - 1)
        share = (places - low).to(x.dtype).reshape(-1, *[1] * (4 - axis))
        lower = x.index_select(axis, low)
        x = lower + (x.index_select(axis, high) - lower) * share
    return x
