"""Where wholes come from: rules for their place in a scan.  `usual_where` is the rule where none is given.

A rule draws a place with the random numbers of one whole, so it stays a function of (seed, step, index).
`Body`, `Lungs` and `Labelled` draw a cell by counts that the store keeps (`cells`), and centre a whole on one
of the voxels in it that they look for, at the same cost in scans of any size.  `GenesisTissue` is the rule by
which Models Genesis cut its cubes; it looks at the voxels of each candidate.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from parts2whole.errors import Parts2WholeError
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Box, Size
from parts2whole.spec import Spec
from parts2whole.store.histogram import BINS, bins_between, bins_of, draw_cell
from parts2whole.store.store import CaseRecord, Store


class WhereError(Parts2WholeError, ValueError):
    """A rule that can't be applied to this store."""


@dataclasses.dataclass(frozen=True)
class Where(Spec, abc.ABC):
    """A rule for the place of a whole in its scan."""

    @abc.abstractmethod
    def place(
        self, store: Store, record: CaseRecord, size: Size, generator: np.random.Generator
    ) -> Size | None:
        """First voxel (z, y, x) of a whole of ``size`` voxels, or None if the scan has no such place.

        Raises:
            WhereError: the rule doesn't fit the store.
        """


@dataclasses.dataclass(frozen=True)
class Anywhere(Where):
    """Every place in the scan is equally likely."""

    def place(
        self, store: Store, record: CaseRecord, size: Size, generator: np.random.Generator
    ) -> Size | None:
        """See `Where.place`."""
        z, y, x = (
            int(generator.integers(edge - wanted + 1)) if edge > wanted else (edge - wanted) // 2
            for edge, wanted in zip(record.shape, size, strict=True)
        )
        return z, y, x


@dataclasses.dataclass(frozen=True)
class Body(Where):
    """A whole centred on a voxel that is no air.

    Attributes:
        above_hu: CT voxels above are body, to a twentieth of the window.  Where that is below the window,
            which shows all that is darker alike, those above its lowest twentieth are.
        above_share: in other modalities, voxels above this share of the intensity range are.
    """

    above_hu: float = -500.0
    above_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.above_share < 1:
            raise WhereError(f"Body needs above_share of at least 0 and below 1, got {self.above_share}")

    def place(
        self, store: Store, record: CaseRecord, size: Size, generator: np.random.Generator
    ) -> Size | None:
        """See `Where.place`."""
        return _centred_on_bins(store, record, self._bins(store, record), size, generator)

    def counts(self, store: Store, record: CaseRecord) -> npt.NDArray[np.float64]:
        """Voxels of the body in every cell of the scan."""
        return _count_bins(store, record, self._bins(store, record))

    def _bins(self, store: Store, record: CaseRecord) -> slice:
        if record.modality != "CT":
            return bins_between(self.above_share, 1.0)
        low = _share(self.above_hu, store.preprocess)
        if low >= 1:
            raise WhereError(f"Body above {self.above_hu:g} HU {_not_in(store)}")
        return bins_between(max(low, 1 / BINS), 1.0)


@dataclasses.dataclass(frozen=True)
class Lungs(Where):
    """A whole centred on a CT voxel with the density of lung; rims of bodies in air have it too, but are few.

    Attributes:
        hu: range of Hounsfield units, to a twentieth of the window.
    """

    hu: tuple[float, float] = (-900.0, -500.0)

    def place(
        self, store: Store, record: CaseRecord, size: Size, generator: np.random.Generator
    ) -> Size | None:
        """See `Where.place`."""
        if record.modality != "CT":
            raise WhereError(f"Lungs needs CT, but case {record.case_id!r} is {record.modality}")
        low, high = (_share(hu, store.preprocess) for hu in self.hu)
        if low < 0 or high > 1:  # all that is beyond looks like what is at the end
            raise WhereError(f"Lungs of {self.hu[0]:g} to {self.hu[1]:g} HU {_not_in(store)}")
        return _centred_on_bins(store, record, bins_between(low, high), size, generator)


@dataclasses.dataclass(frozen=True)
class Labelled(Where):
    """A whole centred on a labelled voxel.

    Attributes:
        values: label values; empty takes all but 0.
    """

    values: tuple[int, ...] = ()

    def place(
        self, store: Store, record: CaseRecord, size: Size, generator: np.random.Generator
    ) -> Size | None:
        """See `Where.place`."""
        if not record.has_label:
            raise WhereError(
                f"Labelled needs label maps, but case {record.case_id!r} in {store.path} has none"
            )
        wanted = self.values or tuple(value for value in record.label_values if value)
        kinds = [record.label_values.index(value) for value in wanted if value in record.label_values]
        counts = store.read_cells(record.case_id, label=True)[kinds].sum(axis=0, dtype=np.float64)
        return _centred(
            counts,
            lambda cell: np.isin(store.read_label(record.case_id, cell), wanted),
            record,
            size,
            generator,
        )


@dataclasses.dataclass(frozen=True)
class GenesisTissue(Where):
    """The rule of Models Genesis for LUNA16: mostly lung and air (Zhou et al., Models Genesis, 2019).

    As in the authors' ``infinite_generator_3D.py``: a place is drawn uniformly inside the borders.  A voxel
    counts 1 where it is tissue, 0.5 where tissue begins in the next slice, else 0; the cube is kept if the
    mean is at most ``largest_share``.  For 32 x 64 x 64 voxels of unresampled CT; the defaults are theirs.

    Attributes:
        tissue_hu: voxels at or above are tissue.
        largest_share: of tissue; there is no lower bound.
        border_voxels: kept clear on both sides, (z, y, x).
        depth_slices: slices looked at, from each voxel on towards superior.
        tries: candidates in one scan before another scan is drawn, as they try 50 for each of their cubes.
    """

    tissue_hu: float = -150.0
    largest_share: float = 0.15
    border_voxels: Size = (30, 100, 100)
    depth_slices: int = 3
    tries: int = 50

    def __post_init__(self) -> None:
        if self.depth_slices < 2 or self.tries < 1 or min(self.border_voxels) < 0:
            raise WhereError(
                "GenesisTissue needs depth_slices of at least 2, tries of at least 1 and no negative border, "
                f"got {self.depth_slices}, {self.tries}, {self.border_voxels}"
            )

    def place(
        self, store: Store, record: CaseRecord, size: Size, generator: np.random.Generator
    ) -> Size | None:
        """See `Where.place`."""
        if record.modality != "CT":
            raise WhereError(f"GenesisTissue needs CT, but case {record.case_id!r} is {record.modality}")
        deep = (size[0] + self.depth_slices, size[1], size[2])
        last = [
            edge - wanted - 1 - border
            for edge, wanted, border in zip(record.shape, deep, self.border_voxels, strict=True)
        ]
        if any(end < border for end, border in zip(last, self.border_voxels, strict=True)):
            return None
        threshold = _share(self.tissue_hu, store.preprocess)
        if not 0 < threshold <= 1:
            raise WhereError(f"GenesisTissue from {self.tissue_hu:g} HU on {_not_in(store)}")
        for _ in range(self.tries):
            z, y, x = (
                int(generator.integers(b, e + 1)) for b, e in zip(self.border_voxels, last, strict=True)
            )
            unit = store.read_unit(record.case_id, Box((z, y, x), deep))[0]
            if tissue_share(unit >= threshold - 1e-6, self.depth_slices) <= self.largest_share:
                return z, y, x
        return None


LOOKED_AT = 32
"""Scans that say whether scans are mostly air."""


def usual_where(store: Store, cases: Sequence[str]) -> Where:
    """`Body` where scans are mostly air, so that wholes have something to show; else `Anywhere`.

    Args:
        store: with the scans.
        cases: ids; some, evenly spaced, are looked at.
    """
    records = [store.record(case) for case in cases[:: max(1, len(cases) // LOOKED_AT)]]
    try:
        shares = [Body().counts(store, record).sum() / math.prod(record.shape) for record in records]
    except WhereError:  # a window that ends below what is body
        return Anywhere()
    return Body() if shares and 0 < statistics.median(shares) < 0.5 else Anywhere()


def tissue_share(tissue: npt.NDArray[np.bool_], depth_slices: int) -> float:
    """Mean over voxels of 1 - k / (depth - 1), where tissue begins k slices on, and 0 where it doesn't.

    Args:
        tissue: (z + depth, y, x); the mean is over the first z slices.
        depth_slices: slices looked at, the voxel's own among them.
    """
    slices = len(tissue) - depth_slices
    near = np.zeros((slices, *tissue.shape[1:]))
    for k in reversed(range(depth_slices)):
        near[tissue[k : k + slices]] = 1 - k / (depth_slices - 1)
    return float(near.mean())


def _share(hu: float, preprocess: Preprocess) -> float:
    """Hounsfield units as a value in [0, 1]."""
    low, high = preprocess.window_hu
    return (hu - low) / (high - low)


def _not_in(store: Store) -> str:
    """What is wrong with a threshold, after it."""
    low, high = store.preprocess.window_hu
    return (
        f"can't be told in {store.path}, whose window is {low:g} to {high:g} HU; prepare it with a wider one"
    )


def _count_bins(store: Store, record: CaseRecord, bins: slice) -> npt.NDArray[np.float64]:
    """Voxels in a range of values in every cell."""
    counts: npt.NDArray[np.float64] = store.read_cells(record.case_id)[bins].sum(axis=0, dtype=np.float64)
    return counts


def _centred_on_bins(
    store: Store, record: CaseRecord, bins: slice, size: Size, generator: np.random.Generator
) -> Size | None:
    """A whole around a voxel in a range of values."""

    def inside(cell: Box) -> npt.NDArray[np.bool_]:
        found = bins_of(store.read_unit(record.case_id, cell)[0])
        chosen: npt.NDArray[np.bool_] = (found >= bins.start) & (found < bins.stop)
        return chosen

    return _centred(_count_bins(store, record, bins), inside, record, size, generator)


def _centred(
    chances: npt.NDArray[np.float64],
    looked_for: Callable[[Box], npt.NDArray[np.bool_]],
    record: CaseRecord,
    size: Size,
    generator: np.random.Generator,
) -> Size | None:
    """A whole around one of the voxels that are ``looked_for``, moved inside the scan.

    Args:
        chances: how many there are in every cell.
        looked_for: which they are in a cell.
        record: of the scan.
        size: of the whole.
        generator: of random numbers.
    """
    cell = draw_cell(chances, record.shape, generator)
    if cell is None:
        return None
    places = np.argwhere(looked_for(cell))
    centre = places[generator.integers(len(places))] + cell.start
    z, y, x = (
        int(min(max(0, middle - wanted // 2), edge - wanted)) if edge > wanted else (edge - wanted) // 2
        for middle, wanted, edge in zip(centre, size, record.shape, strict=True)
    )
    return z, y, x
