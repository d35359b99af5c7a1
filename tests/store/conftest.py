"""A store of two cases for the tests of this folder."""

from __future__ import annotations

import pytest
from records import a_record, voxels

from parts2whole.scans.preprocess import Preprocess
from parts2whole.store.store import Store


@pytest.fixture
def store(tmp_path):
    made = Store.create(tmp_path / "store", preprocess=Preprocess("CT"))
    made.write_case(a_record("b", voxels((1, 20, 40, 35))), voxels((1, 20, 40, 35)))
    image, label = voxels((2, 9, 8, 7), seed=1), voxels((9, 8, 7), "uint8", seed=2) // 50
    made.write_case(a_record("a", image, patient="p"), image, label)
    made.finish()
    return Store.open(made.path)
