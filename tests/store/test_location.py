"""Stores at a URL: what fsspec knows behaves as a local folder does."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from records import a_record, voxels

from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Box
from parts2whole.store.location import LocationError
from parts2whole.store.store import Store, StoreError

URL = "memory://bucket/a store"


def fill(store):
    """A large case, one with channels and a label, one of zeros."""
    image, label = voxels((2, 9, 8, 7), seed=1), voxels((9, 8, 7), "uint8", seed=2) // 50
    store.write_case(a_record("a", image), image, label)
    for case, array in {"b": voxels((1, 20, 40, 35)), "zero": np.zeros((1, 3, 4, 5), np.int16)}.items():
        store.write_case(a_record(case, array), array)
    store.finish()
    return store.path


@pytest.fixture
def store(tmp_path):
    return Store.open(fill(Store.create(tmp_path / "s", preprocess=Preprocess("CT"))))


@pytest.fixture
def remote():
    """In fsspec's object store in memory."""
    upath = pytest.importorskip("upath", reason="universal-pathlib isn't installed (extra 'remote')")
    fill(Store.create(URL, preprocess=Preprocess("CT")))
    yield Store.open(URL)
    upath.UPath(URL).fs.rm("/bucket", recursive=True)


def test_a_remote_store_is_as_a_local_one(remote, store):
    assert [record.case_id for record in remote.cases] == ["a", "b", "zero"]
    for case in ("a", "b"):
        assert remote.record(case) == store.record(case)
        np.testing.assert_array_equal(remote.read(case), store.read(case))
        np.testing.assert_array_equal(remote.read_cells(case), store.read_cells(case))
    box = Box((3, 30, 5), (16, 12, 30))
    np.testing.assert_array_equal(remote.read("b", box), store.read("b", box))
    np.testing.assert_array_equal(remote.read_label("a"), store.read_label("a"))
    assert not remote.read("zero").any()
    assert [remote.damage(case) for case in ("a", "b", "zero")] == [None] * 3
    assert len(pickle.loads(pickle.dumps(remote)).read("b")) == 1


def test_a_remote_case_without_its_record_is_not_there(remote, monkeypatch):
    def crash(*_):
        raise RuntimeError("killed")

    array = voxels((1, 4, 4, 4))
    monkeypatch.setattr("parts2whole.store.case_files.write_json", crash)
    with pytest.raises(RuntimeError, match="killed"):
        remote.write_case(a_record("b", array), array)
    monkeypatch.undo()
    assert [record.case_id for record in Store.open(URL).cases] == ["a", "zero"]
    remote.exclude("a", "unwanted")
    assert not (remote.path / "cases" / "a.zarr").exists()


@pytest.mark.parametrize("left", [0, 2, 100, 20_000])
def test_remote_damage_is_noticed(remote, left):
    (shard,) = [path for path in (remote.path / "cases/b.zarr/0/c").rglob("*") if path.is_file()]
    shard.write_bytes(shard.read_bytes()[:left])
    with pytest.raises(StoreError, match=r"b\.zarr.*truncated.*prepare this case again"):
        remote.read("b")
    (remote.path / "cases/a.zarr/0/zarr.json").unlink()
    with pytest.raises(StoreError, match=r"a\.zarr.*can't be opened.*prepare this case again"):
        remote.read("a")


def test_a_url_of_the_local_file_system_is_a_folder(store):
    pytest.importorskip("upath", reason="universal-pathlib isn't installed (extra 'remote')")
    assert Store.open(f"file://{store.path}").path == store.path


def test_an_unknown_url_names_what_is_missing():
    pytest.importorskip("upath", reason="universal-pathlib isn't installed (extra 'remote')")
    with pytest.raises(LocationError, match=r"pip install .*\[remote\]'"):
        Store.open("nowhere://bucket/store")
