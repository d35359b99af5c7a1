"""What every rule for the place of a whole promises."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from parts2whole.contracts.base import Contract, promise
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import CANONICAL, Size, content_hash, size_of
from parts2whole.store.store import CaseRecord, Store
from parts2whole.wholes.random import sample_generator
from parts2whole.wholes.where import Where, WhereError

SHAPE = (72, 220, 220)
"""Large enough for the borders of `parts2whole.wholes.where.GenesisTissue`."""


class WhereContract(Contract):
    """Promises of a rule for the place of a whole.

    Attributes:
        whole_size: size in voxels (z, y, x) of the wholes.
        store: a CT of a body with lungs, in which a lesion is labelled, and a tiny one of air.
    """

    family = Where
    spec: Where
    whole_size: ClassVar[Size] = (8, 16, 16)
    store: ClassVar[Store]

    @classmethod
    def setup_class(cls) -> None:
        """Also write the store."""
        super().setup_class()
        cls.store = write_store(cls.folder / "store")

    def place(self, case: str, seed: int) -> Size | None:
        """A place in a scan of the store; None where it has none."""
        return self.spec.place(self.store, self.store.record(case), self.whole_size, sample_generator(seed))

    def test_it_finds_places_in_a_body(self) -> None:
        """In a CT of a body with lungs and a labelled lesion it finds places, and not always the same."""
        found = {self.place("body", seed) for seed in range(20)} - {None}
        promise(len(found) > 1, f"twenty tries in a scan of {SHAPE} voxels gave {len(found)} places")

    def test_a_whole_lies_in_its_scan(self) -> None:
        """A whole lies inside its scan; along an axis where it is longer, it covers it."""
        for case in ("body", "small"):
            shape = self.store.record(case).shape
            for seed in range(20):
                place = self.place(case, seed)
                if place is None:
                    continue
                for start, size, edge in zip(place, self.whole_size, shape, strict=True):
                    slack = sorted((0, edge - size))
                    inside = slack[0] <= start <= slack[1]
                    promise(inside, f"{place} for {self.whole_size} voxels leaves a scan of {shape}")

    def test_a_place_depends_on_the_generator_alone(self) -> None:
        """The place is a function of the scan and the generator."""
        for seed in range(5):
            first, again = self.place("body", seed), self.place("body", seed)
            promise(first == again, f"{first}, then {again}, with the same generator")

    def test_a_scan_that_does_not_fit_is_refused_or_has_a_place(self) -> None:
        """In an MR scan without labels it finds a place or none, or says by WhereError that it can't."""
        record = self.store.record("mr")
        try:
            place = self.spec.place(self.store, record, self.whole_size, sample_generator(0))
        except WhereError:
            return
        promise(place is None or len(place) == 3, f"{place!r} is no place")


def write_store(path: Path) -> Store:
    """A body with lungs and a labelled lesion, a small scan of nothing but air, and an MR scan."""
    store = Store.create(path, preprocess=Preprocess(modality="CT"))
    z, y, x = np.ogrid[tuple(slice(-1, 1, complex(0, n)) for n in SHAPE)]
    hu = np.full(SHAPE, -1000, np.int16)
    hu[np.broadcast_to(y**2 + x**2 < 0.8, SHAPE)] = 40
    for side in (-0.6, 0.1):
        hu[(z / 0.9) ** 2 + (y / 0.6) ** 2 + ((x - side) / 0.35) ** 2 < 1] = -800
    lesion = (8 * z**2 + y**2 + (x - 0.1) ** 2 < 0.01).astype(np.uint8)
    air = np.full((6, 20, 12), -1000, np.int16)
    for case, modality, array, label in (
        ("body", "CT", hu, lesion),
        ("small", "CT", air, np.zeros(air.shape, np.uint8)),
        ("mr", "MR", np.ascontiguousarray(hu[::3, ::3, ::3]), None),
    ):
        record = CaseRecord(
            case_id=case,
            patient=case,
            modality=modality,
            channels=1,
            shape=size_of(array),
            spacing_mm=(1.0, 1.0, 1.0),
            origin_mm=(0.0, 0.0, 0.0),
            direction=CANONICAL,
            scale=1 / 2000,
            offset=0.5,
            content_hash=content_hash(array),
        )
        store.write_case(record, array[None], label)
    store.finish()
    return store
