"""What a source of published weights is: a map of names, where they come from, and the input they expect.

A source knows nothing of files or of loading.  `convert` asks it, in this order, to `identify` the network
in a mapping of tensors, and for the `place` of every tensor.  A new source is one new file in this folder.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from parts2whole.errors import Parts2WholeError
from parts2whole.networks.base import Network
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Size
from parts2whole.spec import Spec

Layout = Literal["torch", "ras", "tensorflow", "prior"]
"""Order of a tensor's axes: PyTorch's; the same, with spatial axes to right, anterior and superior;
TensorFlow's kernels (three spatial, in, out); a channels-last map."""

Stem = Literal["sum", "mean", "repeat"]


class WeightsError(Parts2WholeError, ValueError):
    """Weights that are missing, damaged, or don't fit what they are loaded into."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where weights come from and what they expect.

    Attributes:
        title: what they are.
        citation: what to cite.
        licence: of the weights.
        where: how to get the file; nothing is ever downloaded.
        trained_on: the data.
        expects: the values and the size the network was trained on, in words.
        preprocess: how scans are brought to [0, 1] for it; ``unit`` where any window will do.
        whole_size: size in voxels (z, y, x) of what it was trained on.
    """

    title: str
    citation: str
    licence: str
    where: str
    trained_on: str
    expects: str
    preprocess: Preprocess
    whole_size: Size


@dataclasses.dataclass(frozen=True)
class Identified:
    """What a file holds.

    Attributes:
        network: how to build the encoder, and its own decoder or head.
        in_channels: number of input channels.
        own_classes: number of output channels of the decoder or head; None where the file has none.
        provenance: of these weights.
    """

    network: Network
    in_channels: int
    own_classes: int | None
    provenance: Provenance


@dataclasses.dataclass(frozen=True)
class Destination:
    """Where a tensor goes: ``encoder.`` or ``own.`` and the name there, and how its axes lie."""

    target: str
    layout: Layout = "torch"


@dataclasses.dataclass(frozen=True)
class WeightSource(Spec, abc.ABC):
    """Weights that somebody else trained.

    Attributes:
        stem: what becomes of the first layer where data have another number of channels: ``sum`` keeps the
            response to equal channels, ``mean`` averages, ``repeat`` takes the old channels in turn.
    """

    prefix: ClassVar[str]
    """What stands before the colon in ``SOURCE:PATH``."""

    stem: Stem = "sum"

    def __post_init__(self) -> None:
        if self.stem not in ("sum", "mean", "repeat"):
            raise WeightsError(f"unknown stem policy {self.stem!r}; choose sum, mean or repeat")

    @property
    def trained_axes(self) -> str:
        """Spatial axes of its kernels, first to last; ``zyx`` is this project's order."""
        return "zyx"

    def planned(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> WeightSource:
        """The source with what a file says of itself, in its tensors and beside them; first of all asked."""
        return self

    @abc.abstractmethod
    def identify(self, tensors: Mapping[str, Tensor], file: str) -> Identified:
        """The network that ``tensors`` belong to; ``file`` is the name of their file.

        Raises:
            WeightsError: they are of no network of this source.
        """

    @abc.abstractmethod
    def destination(self, name: str) -> Destination | str:
        """Where the tensor ``name`` goes, or the reason why it is left out."""

    def implied(self, target: str, tensors: Mapping[str, Tensor]) -> float | None:
        """The value of a tensor that files leave out because it is constant; None where there is none."""
        return 0.0 if target.endswith("num_batches_tracked") else None


def count_blocks(names: Iterable[str], pattern: str) -> tuple[int, ...]:
    """How many names match at every level, which is the pattern's group, finest first."""
    found = Counter(int(match[1]) for name in names if (match := re.fullmatch(pattern, name)))
    return tuple(found[level] for level in sorted(found))


def out_channels(tensors: Mapping[str, Tensor], last: str) -> int | None:
    """How many channels the layer with weights called ``last`` gives; None where the file has none."""
    return len(tensors[last]) if last in tensors else None


def none_match(title: str, tensors: Mapping[str, Tensor], expected: str) -> WeightsError:
    """The error for a file that holds other weights."""
    names = ", ".join(list(tensors)[:3]) or "nothing"
    return WeightsError(
        f"no tensor matches {title}: expected names like {expected}; the file's {len(tensors)} tensors have "
        f"names like {names}. Is it the file of another source?"
    )
