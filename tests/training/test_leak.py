"""Scans that training saw, found by their voxels or by their series UIDs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import CANONICAL, content_hash
from parts2whole.store.store import CaseRecord, Store
from parts2whole.tasks.labelled import Item, LabelledData
from parts2whole.training.leak import ACCEPTANCE, LeakError, check_leaks, find_leaks, hashes_of


@pytest.fixture
def labelled(tmp_path: Path) -> LabelledData:
    """Three scans; the first is of a series, the second is called by its series UID, as in LUNA16."""
    store = Store.create(tmp_path / "store", preprocess=Preprocess(modality="CT"))
    for number, (case, series) in enumerate((("a", "1.2.840.1"), ("1.2.840.2", ""), ("c", ""))):
        array = np.full((4, 4, 4), number, np.int16)
        record = CaseRecord(
            case_id=case,
            patient=case,
            modality="CT",
            channels=1,
            shape=array.shape,
            spacing_mm=(1.0, 1.0, 1.0),
            origin_mm=(0.0, 0.0, 0.0),
            direction=CANONICAL,
            scale=1 / 2000,
            offset=0.5,
            content_hash=content_hash(array),
            series=series,
        )
        store.write_case(record, array[None])
    store.finish()
    items = tuple(Item(f"item-{record.case_id}", record.case_id, "p", 0) for record in store.cases)
    return LabelledData(store, items, ("0", "1"))


def names(labelled: LabelledData) -> list[str]:
    return [item.item_id for item in labelled.items]


def test_a_copy_is_found_by_its_voxels(labelled):
    seen = hashes_of(labelled, ["item-c"])
    assert find_leaks(labelled, names(labelled), seen=seen) == ("c",)
    assert find_leaks(labelled, ["item-a"], seen=seen) == ()


@pytest.mark.parametrize(("uid", "case"), [("1.2.840.1", "a"), ("1.2.840.2", "1.2.840.2")])
def test_a_changed_copy_is_found_by_its_series_uid(labelled, uid, case):
    assert find_leaks(labelled, names(labelled), seen=["other voxels"], series=["9.9", uid]) == (case,)


def test_scans_without_a_series_uid_are_not_taken_for_each_other(labelled):
    assert find_leaks(labelled, names(labelled), seen=[], series=[""]) == ()


def test_no_leak_needs_no_acceptance():
    assert check_leaks((), accept_leak=None, where="test") is None
    assert check_leaks((), accept_leak=ACCEPTANCE, where="test") is None
    with pytest.raises(LeakError, match=r"2 test cases were seen in training.*a, b"):
        check_leaks(("a", "b"), accept_leak=None, where="test")
    with pytest.raises(LeakError, match="must be exactly"):
        check_leaks(("a",), accept_leak="yes", where="test")
