"""Croissant metadata beside a store, as the reference implementation reads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Volume
from parts2whole.store.croissant import FILE
from parts2whole.store.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    """Two volumes of one patient and one of another."""
    made = Store.create(tmp_path / "my store", preprocess=Preprocess(modality="CT"))
    for number, patient in enumerate(("a", "a", "b")):
        array = np.random.default_rng(number).integers(0, 9, (4 + number, 5, 6)).astype(np.int16)
        made.write_volume(f"c{number}", Volume(array, (2.5, 0.8, 0.7)), patient=patient)
    made.finish()
    return made


def test_the_reference_implementation_validates_it_and_reads_the_cases(store):
    mlcroissant = pytest.importorskip("mlcroissant", reason="the extra test has it")
    read = mlcroissant.Dataset(jsonld=str(store.path / FILE))
    assert not read.metadata.ctx.issues.errors
    assert read.metadata.name == "my store"
    rows = list(read.records("cases"))
    assert len(rows) == 3
    for row, record in zip(rows, store.cases, strict=True):
        plain = {key.removeprefix("cases/"): value for key, value in row.items()}
        assert plain["case_id"].decode() == record.case_id
        assert plain["patient"].decode() == record.patient
        assert list(plain["shape"]) == list(record.shape)
        assert list(plain["spacing_mm"]) == list(record.spacing_mm)
        assert plain["has_label"] is False or plain["has_label"] == 0


def test_it_is_of_the_manifest_beside_it_and_gone_while_cases_are_written(store):
    about = json.loads((store.path / FILE).read_text())
    manifest, volumes = about["distribution"]
    assert manifest["sha256"] == hashlib.sha256((store.path / "manifest.json").read_bytes()).hexdigest()
    assert "3 volumes" in about["description"]
    assert "2 patients" in about["description"]
    found = {path.relative_to(store.path).parts[1] for path in store.path.glob(volumes["includes"])}
    assert found == {"c0.zarr", "c1.zarr", "c2.zarr"}
    again = Store.open(store.path)
    again.begin()
    assert not (store.path / FILE).exists()
    again.finish()
    assert json.loads((store.path / FILE).read_text()) == about


def test_no_path_of_the_machine_is_in_it(store, tmp_path):
    text = (store.path / FILE).read_text()
    assert str(tmp_path) not in text
    assert Path.home().name == "" or str(Path.home()) not in text
