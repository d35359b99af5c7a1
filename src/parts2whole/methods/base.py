"""What a pretext task is: a spec that turns a batch of wholes into views, and views into a loss.

A method knows nothing of the loop, the store or the devices.  The loop calls, in this order,
`build` once, then at every step `views` (no gradient) and `loss`.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from torch import Tensor, nn

from parts2whole.data.geometry import Size
from parts2whole.data.random import BatchGenerator
from parts2whole.networks.base import Network
from parts2whole.networks.heads import Model
from parts2whole.spec import Spec

Views = dict[str, Tensor]


class MethodError(ValueError):
    """A method's field that makes no sense."""


@dataclasses.dataclass(frozen=True)
class Method(Spec, abc.ABC):
    """A pretext task.

    Attributes:
        citation: what to cite, kept in the card of the weights.
        rows_are_independent: the loss is a mean over wholes that don't see each other. Only then may a batch
            be computed in pieces, or divided unevenly over devices.
    """

    citation: ClassVar[str] = ""
    rows_are_independent: ClassVar[bool] = False

    @abc.abstractmethod
    def build(self, network: Network, *, in_channels: int, whole_size: Size) -> Model:
        """The trainable module, on top of a fresh encoder of ``network``."""

    @abc.abstractmethod
    def views(self, wholes: Tensor, generator: BatchGenerator) -> Views:
        """What the network sees and what it should give, from (B, C, D, H, W) wholes in [0, 1]."""

    @abc.abstractmethod
    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        """Scalars to log, with the one to minimise under ``loss``."""


@dataclasses.dataclass(frozen=True)
class Reconstruction(Method, abc.ABC):
    """A pretext task whose output is an image: it can be looked at, and has trivial baselines.

    `views` gives ``part`` (what the network sees) and ``whole`` (what it should give), where one whole
    may serve several parts in a row.
    """

    rows_are_independent: ClassVar[bool] = True

    @abc.abstractmethod
    def reconstruct(self, module: nn.Module, part: Tensor) -> Tensor:
        """The image the module makes of ``part``: (B, C, D, H, W) in [0, 1]."""


def repeat_rows(wholes: Tensor, count: int) -> Tensor:
    """Every row ``count`` times in a row, so that it lines up with its parts."""
    return wholes.repeat_interleave(count, dim=0) if count > 1 else wholes
