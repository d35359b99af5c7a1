"""Random wholes from a store: which scan and where is a function of (seed, step, index) alone.

The sampler delivers wholes and nothing else; parts and other views are cut later, on the device, in the
batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from parts2whole.errors import Parts2WholeError
from parts2whole.scans.volume import Box, Size, Triple
from parts2whole.store.store import CaseRecord, Store, StoreError
from parts2whole.wholes.geometry import to_size
from parts2whole.wholes.random import sample_generator
from parts2whole.wholes.where import Anywhere, Where, WhereError

CaseWeights = Literal["scans", "voxels"] | Mapping[str, float]
"""How often each case is drawn."""

Sample = Tensor | dict[str, Tensor]


class SamplerError(Parts2WholeError, ValueError):
    """Wholes that can't be drawn from this store."""


@dataclasses.dataclass(frozen=True)
class WholeSize:
    """Size of a whole: in voxels of the network input and, if given, its extent in mm.

    Attributes:
        voxels: edge lengths (z, y, x) the network sees.
        mm: extent (z, y, x) cut from the scan and resized to ``voxels``; None cuts ``voxels`` at native
            spacing.
    """

    voxels: Size = (32, 64, 64)
    mm: Triple | None = None

    def __post_init__(self) -> None:
        for name, edges in (("whole_size", self.voxels), ("whole_mm", self.mm)):
            if edges is not None and sum(edge > 0 for edge in edges) != 3:
                raise SamplerError(f"{name} must be three edges (z, y, x) above 0, got {edges}")

    @property
    def shown_mm(self) -> Triple | None:
        """Spacing (z, y, x) of the network input in mm; None where it is that of each scan."""
        if self.mm is None:
            return None
        z, y, x = (mm / voxels for mm, voxels in zip(self.mm, self.voxels, strict=True))
        return z, y, x

    def in_scan(self, spacing_mm: Triple) -> Size:
        """Edge lengths in voxels of a scan with ``spacing_mm``."""
        if self.mm is None:
            return self.voxels
        z, y, x = (max(1, round(mm / spacing)) for mm, spacing in zip(self.mm, spacing_mm, strict=True))
        return (z, y, x)


@dataclasses.dataclass(frozen=True)
class Whole:
    """A box that a method learns from.

    Attributes:
        case_id: the scan.
        box: where in it, in voxels of the scan; it may reach past the border (padded).
        number: its number in the sampler's bank; None without a bank.
    """

    case_id: str
    box: Box
    number: int | None = None


SCANS_TRIED = 100
"""Scans drawn for one whole before giving up, where ``where`` finds no place in them."""


class WholeSampler:
    """Draws the boxes of wholes, and reads them.

    Args:
        store: where the scans are.
        cases: which of them; default all.
        size: size of a whole.
        seed: another seed, other wholes.
        where: rule for the place in a scan; default anywhere.  Scans without such a place are passed over.
        weights: how often each case is drawn, against the others: ``scans`` all alike, ``voxels`` by their
            number of voxels, or a number for every case.
        bank: draw from this many fixed wholes only, which depend on the seed alone; default: endlessly many.
    """

    def __init__(
        self,
        store: Store,
        *,
        size: WholeSize,
        cases: Sequence[str] | None = None,
        seed: int = 0,
        where: Where | None = None,
        weights: CaseWeights = "scans",
        bank: int | None = None,
    ) -> None:
        if bank is not None and bank < 1:
            raise SamplerError(f"a bank must hold at least 1 whole, got {bank}")
        self.store = store
        self.where = where or Anywhere()
        self.size = size
        self.seed = seed
        self.bank = bank
        self.records: tuple[CaseRecord, ...] = (
            store.cases if cases is None else tuple(store.record(case) for case in cases)
        )
        if not self.records:
            raise SamplerError(f"no cases to draw wholes from in {store.path}")
        channels = {record.channels for record in self.records}
        if len(channels) > 1:
            raise SamplerError(f"scans with different numbers of channels in one store: {sorted(channels)}")
        self.channels = channels.pop()
        self._shares = None if weights == "scans" else _cumulated(self.records, weights)

    def draw(self, *labels: int | str) -> Whole:
        """The whole that belongs to ``labels`` (such as step, index): a scan, and a place in it."""
        if self.bank is None:
            return self._place(*labels)
        number = int(sample_generator(self.seed, "number", *labels).integers(self.bank))
        return dataclasses.replace(self._place("bank", number), number=number)

    def _place(self, *labels: int | str) -> Whole:
        generator = sample_generator(self.seed, "whole", *labels)
        for _ in range(SCANS_TRIED):
            if (whole := self._placed(self._choose(generator), generator)) is not None:
                return whole
        raise SamplerError(f"{self.where} finds no place in {SCANS_TRIED} scans drawn from {self.store.path}")

    def _choose(self, generator: np.random.Generator) -> CaseRecord:
        if self._shares is None:
            return self.records[int(generator.integers(len(self.records)))]
        return self.records[int(np.searchsorted(self._shares, generator.random(), side="right"))]

    def _placed(self, record: CaseRecord, generator: np.random.Generator) -> Whole | None:
        """A whole where ``where`` wants it, if it finds a place in this scan."""
        size = self.size.in_scan(record.spacing_mm)
        try:
            start = self.where.place(self.store, record, size, generator)
        except (WhereError, StoreError) as error:
            raise SamplerError(str(error)) from error
        return None if start is None else Whole(record.case_id, Box(start, size))

    def network_spacing(self, whole: Whole) -> Triple:
        """Distance between voxels of a whole as the network sees it, (z, y, x) in mm."""
        spacing = self.store.record(whole.case_id).spacing_mm
        z, y, x = (s * w / v for s, w, v in zip(spacing, whole.box.size, self.size.voxels, strict=True))
        return (z, y, x)

    def padded_cases(self) -> tuple[str, ...]:
        """Cases smaller than the whole on some axis: their wholes are padded with the lowest value."""
        return tuple(
            record.case_id
            for record in self.records
            if any(e < w for e, w in zip(record.shape, self.size.in_scan(record.spacing_mm), strict=True))
        )

    def read(self, whole: Whole) -> Tensor:
        """The whole as (C, D, H, W) floats in [0, 1]."""
        return self._resized(self.store.read_unit(whole.case_id, whole.box))

    def read_sample(self, whole: Whole) -> Sample:
        """The whole, or, with a bank, ``{"whole": the whole, "number": its number in the bank}``."""
        return self._sample(whole, self.read(whole))

    def read_samples(self, wholes: Sequence[Whole]) -> list[Sample]:
        """What `read_sample` gives for each, read together."""
        read = self.store.read_units([(whole.case_id, whole.box) for whole in wholes])
        return [self._sample(whole, self._resized(unit)) for whole, unit in zip(wholes, read, strict=True)]

    def _resized(self, unit: npt.NDArray[np.float32]) -> Tensor:
        return to_size(torch.from_numpy(unit), self.size.voxels)

    def _sample(self, whole: Whole, voxels: Tensor) -> Sample:
        return voxels if whole.number is None else {"whole": voxels, "number": torch.tensor(whole.number)}


def _cumulated(records: Sequence[CaseRecord], weights: CaseWeights) -> npt.NDArray[np.float64]:
    """Where each case ends, of [0, 1)."""
    if weights == "voxels":
        found = np.array([float(np.prod(record.shape)) for record in records])
    elif isinstance(weights, Mapping):
        missing = [record.case_id for record in records if record.case_id not in weights]
        if missing:
            raise SamplerError(f"weights name no number for {len(missing)} cases, such as {missing[0]!r}")
        found = np.array([float(weights[record.case_id]) for record in records])
    else:
        raise SamplerError(f"weights must be scans, voxels or a number for every case, got {weights!r}")
    if not (np.isfinite(found).all() and found.min() >= 0 and found.sum() > 0):
        raise SamplerError("weights must be finite, not negative, and not all zero")
    sums: npt.NDArray[np.float64] = np.cumsum(found) / found.sum()
    sums[-1] = 1.0
    return sums


class Wholes(Dataset[Sample]):
    """The endless sequence of a sampler's samples: sample number = step x batch size + index."""

    def __init__(self, sampler: WholeSampler, batch_size: int) -> None:
        self.sampler = sampler
        self.batch_size = batch_size

    def __getitem__(self, number: int) -> Sample:
        return self.sampler.read_sample(self._whole(number))

    def __getitems__(self, numbers: Sequence[int]) -> list[Sample]:
        """Several samples at once, as loaders ask for them."""
        return self.sampler.read_samples([self._whole(number) for number in numbers])

    def case_of(self, number: int) -> str:
        """The case that sample ``number`` is cut from."""
        return self._whole(number).case_id

    def _whole(self, number: int) -> Whole:
        step, index = divmod(number, self.batch_size)
        return self.sampler.draw(step, index)
