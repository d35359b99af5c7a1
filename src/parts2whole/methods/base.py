"""What a pretext task is: a spec that turns a batch of wholes into views, and views into a loss.

A method knows nothing of the loop, the store or the devices.  The loop calls, in this order,
`build` once, then at every step `views` (no gradient) and `loss`.  A batch is a tensor of wholes; only a
`FixedBank` is also told which wholes of its bank they are.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.errors import Parts2WholeError
from parts2whole.networks.base import Network
from parts2whole.networks.heads import Model
from parts2whole.scans.volume import Size
from parts2whole.spec import Spec
from parts2whole.wholes.geometry import Boxes
from parts2whole.wholes.random import BatchGenerator

Views = dict[str, Tensor]
Batch = Tensor | dict[str, Tensor]


class MethodError(Parts2WholeError, ValueError):
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

    def check_batch(self, wholes: int) -> None:
        """Raise `MethodError` unless a batch of so many wholes can be learned from; here any can."""

    @abc.abstractmethod
    def views(self, wholes: Tensor, generator: BatchGenerator) -> Views:
        """What the network sees and what it should give, from (B, C, D, H, W) wholes in [0, 1]."""

    @abc.abstractmethod
    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        """Scalars to log, with the one to minimise under ``loss``."""

    def guess(self, views: Views) -> Tensor | None:
        """The loss of an answer that is the same whatever the network sees; None where that says nothing."""
        return None


@dataclasses.dataclass(frozen=True)
class Reconstruction(Method, abc.ABC):
    """A pretext task whose output is an image: it can be looked at, and has trivial baselines.

    `views` gives ``part`` (what the network sees) and ``whole`` (what it should give), where one whole
    may serve several parts in a row.  Where the loss is more than the error of the image, `loss` also gives
    that error, as ``reconstruction``: it is what the trivial baselines are compared with.
    """

    rows_are_independent: ClassVar[bool] = True

    @abc.abstractmethod
    def reconstruct(self, module: nn.Module, part: Tensor) -> Tensor:
        """The image the module makes of ``part``: (B, C, D, H, W) in [0, 1]."""

    def boxes(self, whole_size: Size, generator: BatchGenerator) -> Boxes | None:
        """Where `views` cuts parts from, given the same ``generator``; None where parts are no boxes."""
        return None

    def unmoved(self) -> Reconstruction:
        """The method with a target that lies as the whole does, so that errors have a place in it."""
        return self

    def error(self, image: Tensor, views: Views) -> Tensor:
        """Error of a rebuilt (or any other) ``image`` of ``part``, as the loss counts it; low is good.

        Mean squared error to the whole, unless a method counts otherwise.
        """
        whole = views["whole"]
        return F.mse_loss(image, repeat_rows(whole, len(image) // len(whole)))


@dataclasses.dataclass(frozen=True)
class Discrimination(Method, abc.ABC):
    """A pretext task that asks which whole a part comes from; guessing costs the log of the candidates."""

    @abc.abstractmethod
    def candidates(self, wholes: int) -> int:
        """Number of answers to choose from, in a batch of ``wholes``."""


@dataclasses.dataclass(frozen=True)
class FixedBank(Discrimination, abc.ABC):
    """A pretext task that knows its wholes by number, so it trains on a fixed bank of them.

    Attributes:
        bank: number of wholes.
    """

    bank: int

    @abc.abstractmethod
    def views(self, wholes: Tensor, generator: BatchGenerator, numbers: Tensor | None = None) -> Views:
        """As `Method.views`, with the (B,) numbers of the wholes in the bank.

        Without ``numbers`` the rows of the global batch are taken for the first wholes of the bank.
        """


def make_views(method: Method, batch: Batch, generator: BatchGenerator) -> Views:
    """The views of what the loader delivers: wholes, or ``{"whole": wholes, "number": numbers}``."""
    if isinstance(batch, Tensor):
        return method.views(batch, generator)
    if not isinstance(method, FixedBank):
        return method.views(batch["whole"], generator)
    return method.views(batch["whole"], generator, batch["number"])


def repeat_rows(wholes: Tensor, count: int) -> Tensor:
    """Every row ``count`` times in a row, so that it lines up with its parts."""
    return wholes.repeat_interleave(count, dim=0) if count > 1 else wholes
