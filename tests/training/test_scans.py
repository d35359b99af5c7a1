"""Which scans are pre-trained on, and whose they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Volume
from parts2whole.store.split import SplitError
from parts2whole.store.store import Store
from parts2whole.tasks.base import Task
from parts2whole.training.scans import choose_sides
from parts2whole.wholes.where import Anywhere, Lungs, usual_where


def make_store(folder: Path, patients: dict[str, str], copies: dict[str, str] | None = None) -> Store:
    """A store of noise; ``copies`` have the voxels of another case."""
    store = Store.create(folder, preprocess=Preprocess(modality="unit"), dtype="uint8")
    for case, patient in patients.items():
        seed = sorted(patients).index((copies or {}).get(case, case))
        voxels = np.random.default_rng(seed).integers(0, 256, (4, 5, 6)).astype(np.uint8)
        store.write_volume(case, Volume(voxels), patient=patient)
    store.finish()
    return store


class Held:
    """A target task that is to be tested on some scans of a store."""

    def __init__(self, store: Store, *cases: str) -> None:
        self.hashes = {store.record(case).content_hash for case in cases}

    def held_out_hashes(self, *, cache: Path) -> set[str]:
        return self.hashes


def sides_of(store: Store, held_out: Task | Held | None = None, seed: int = 0):
    return choose_sides(store, held_out=held_out, validation_fraction=0.3, seed=seed)


def test_all_scans_of_a_patient_are_on_one_side_copies_too(tmp_path):
    patients = {f"{modality}-{n}": f"p{n}" for n in range(8) for modality in ("ct", "mr")}
    store = make_store(tmp_path / "store", patients | {"again": "somebody"}, {"again": "ct-3"})
    for seed in range(6):
        sides = sides_of(store, seed=seed)
        for side in (sides.train, sides.validation):
            assert len({case for case in side if case[:2] == "ct"}) == len({c for c in side if c[:2] == "mr"})
            assert ("again" in side) == ("ct-3" in side)
        assert sides.counts["train"]["patients"] + sides.counts["validation"]["patients"] == 8
        assert sides.counts["train"]["images"] + sides.counts["validation"]["images"] == 17
    assert "make 1 of them one with another" in sides.describe()


def test_patients_of_held_out_scans_are_left_out_with_all_their_scans(tmp_path):
    patients = {f"{modality}-{n}": f"p{n}" for n in range(8) for modality in ("ct", "mr")}
    store = make_store(tmp_path / "store", patients)
    sides = sides_of(store, Held(store, "ct-2", "ct-5"))
    assert not {"ct-2", "mr-2", "ct-5", "mr-5"} & {*sides.train, *sides.validation}
    assert len({*sides.train, *sides.validation}) == 12
    (note,) = sides.notes
    assert note == (
        "2 of 16 scans belong to the held-out task, and 2 others of the same patients, and are left out"
    )
    with pytest.raises(SplitError, match="no scans to train on"):
        sides_of(store, Held(store, *(f"ct-{n}" for n in range(8))))


def test_a_run_goes_on_with_the_sides_it_was_begun_with(tmp_path):
    store = make_store(tmp_path / "store", {f"c{n}": f"p{n}" for n in range(9)})
    first, other = sides_of(store), sides_of(store, seed=3)
    assert first.validation != other.validation
    first.write(tmp_path / "split.json", where=Lungs())
    again = other.kept_in(tmp_path / "split.json")
    assert (again.train, again.validation) == (first.train, first.validation)
    assert other.kept_in(tmp_path / "nothing.json") == other
    assert other.choose_where(store, tmp_path / "split.json") == Lungs()
    assert other.choose_where(store, None) == usual_where(store, other.train)
    kept = json.loads((tmp_path / "split.json").read_text())
    assert kept["sides"]["validation"] == {"patients": 3, "images": 3}
    assert kept["patients_by"] == "the data set's own ids"
    del kept["where"]  # as version 0.1.0 left it
    (tmp_path / "old.json").write_text(json.dumps(kept))
    assert other.choose_where(store, tmp_path / "old.json") == Anywhere()
    smaller = make_store(tmp_path / "smaller", {f"c{n}": f"p{n}" for n in range(1, 9)})
    with pytest.raises(SplitError, match="the store has lost c0"):
        sides_of(smaller).kept_in(tmp_path / "split.json")
