"""What is exported: an encoder alone, or a fine-tuned model, with what a format needs to know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from parts2whole.errors import Parts2WholeError
from parts2whole.networks.base import Encoder, Network
from parts2whole.networks.heads import Model, OwnDecoder
from parts2whole.scans.volume import Size

TOLERANCE = 1e-4


class ExportError(Parts2WholeError, ValueError):
    """Weights that a format can't take, or an export that doesn't give the same results."""


@dataclasses.dataclass(frozen=True)
class Exportable:
    """A module and how it was built.

    Attributes:
        module: an encoder, or a model on top of one; in eval mode.
        network: how its encoder is built.
        in_channels: number of input channels.
        size: size in voxels (z, y, x) of an example input.
        classes: names of the classes; empty for an encoder.
        beside: other tensors that came with an encoder, by the file that they are kept in.
    """

    module: Encoder | Model
    network: Network
    in_channels: int
    size: Size
    classes: tuple[str, ...] = ()
    beside: Mapping[str, Mapping[str, Tensor]] = dataclasses.field(default_factory=dict)

    @property
    def encoder(self) -> Encoder:
        """The encoder."""
        return self.module.encoder if isinstance(self.module, Model) else self.module

    @property
    def own(self) -> nn.Module | None:
        """The network's own decoder, where the model has it."""
        return self.module.decoder if isinstance(self.module, OwnDecoder) else None

    def example(self, seed: int = 0) -> Tensor:
        """One random input in [0, 1]."""
        shape = (1, self.in_channels, *self.size)
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def run(self, x: Tensor) -> list[Tensor]:
        """What it gives, as a list: one map a level, or logits."""
        found = self.module(x)
        return list(found) if isinstance(found, tuple) else [found]


def compare(expected: list[Tensor], got: list[Tensor], what: str) -> float:
    """Largest difference, relative to the largest expected value of its map but at least 1.

    Raises:
        ExportError: other shapes, or a difference above `TOLERANCE`.
    """
    worst = 0.0
    if [tuple(t.shape) for t in expected] != [tuple(t.shape) for t in got]:
        raise ExportError(f"{what} gives maps of other shapes than the weights here")
    for wanted, found in zip(expected, got, strict=True):
        apart = float((wanted - found).abs().max()) / max(1.0, float(wanted.abs().max()))
        worst = apart if not apart <= worst else worst
    if not worst <= TOLERANCE:
        raise ExportError(f"{what} differs by {worst:.1e}, more than {TOLERANCE:g}: not written")
    return worst
