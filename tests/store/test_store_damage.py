"""What befalls stores: crashes, full disks, damaged files and misuse leave nothing half, and are said."""

from __future__ import annotations

import errno
import multiprocessing
import os

import numpy as np
import pytest
from records import a_record, voxels

from parts2whole.files import DiskFullError, this_process
from parts2whole.scans.preprocess import Preprocess
from parts2whole.store import chunks
from parts2whole.store.store import Store, StoreError


def test_damage_is_found_by_its_checksum(store):
    assert store.damage("b") is None
    shard = store.path / "cases" / "b.zarr" / "0" / "c" / "0" / "0" / "0" / "0"
    other = store.path / "cases" / "a.zarr" / "0" / "c" / "0" / "0" / "0" / "0"
    raw = bytearray(shard.read_bytes())
    raw[40] ^= 255
    shard.write_bytes(raw)
    assert store.damage("b") is not None
    other.unlink()  # read as zeros, which isn't what was written
    assert "not those that were written" in store.damage("a")


def test_an_unfinished_store_opens_with_what_it_has(tmp_path):
    made = Store.create(tmp_path / "s", preprocess=Preprocess())
    made.write_case(a_record("a"), voxels((1, 4, 5, 6)))
    opened = Store.open(tmp_path / "s")  # as after a crash: `finish` was never called
    assert [record.case_id for record in opened.cases] == ["a"]
    np.testing.assert_array_equal(opened.read("a"), voxels((1, 4, 5, 6)))


def test_a_crash_leaves_no_half_case(tmp_path, monkeypatch):
    made = Store.create(tmp_path / "s", preprocess=Preprocess())

    def crash(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("parts2whole.store.case_files.write_mask", crash)
    with pytest.raises(KeyboardInterrupt):
        made.write_case(a_record("a"), voxels((1, 4, 5, 6)), voxels((4, 5, 6)))
    assert list((made.path / "cases").iterdir()) == []
    assert Store.open(made.path).cases == ()


def test_leftovers_of_killed_processes_are_swept(store):
    killed = multiprocessing.get_context("spawn").Process(target=print)
    killed.start()
    killed.join()
    part = store.path / "cases" / f".x.zarr.{this_process().split('.')[0]}.{killed.pid}.part"
    part.mkdir()
    mine = store.path / "cases" / f".y.zarr.{this_process()}.part"
    mine.mkdir()
    store.begin()
    assert not part.exists()
    assert mine.exists()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), chunks.ChunkError("x: no space left on device")],
)
def test_a_full_disk_is_said_and_leaves_nothing(store, monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("parts2whole.store.case_files.write_image", full)
    with pytest.raises(DiskFullError, match="no space is left"):
        store.write_case(a_record("c"), voxels((1, 4, 5, 6)))
    assert not any("c.zarr" in path.name for path in (store.path / "cases").iterdir())
    assert not store.has("c")


def test_damage_is_noticed(store):
    shard = store.path / "cases/b.zarr/0/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[:200] = os.urandom(200)
    shard.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        store.read("b")
    with pytest.raises(StoreError, match=r"damaged.*prepare this case again"):
        store.read_units([("a", None), ("b", None)])
    shard.write_bytes(b"xx")
    with pytest.raises(StoreError, match="truncated"):
        Store.open(store.path).read("b")
    with pytest.raises(StoreError, match="prepare this case again"):
        Store.open(store.path).read_units([("b", None)])
    (store.path / "cases/a.zarr/0/zarr.json").unlink()
    with pytest.raises(StoreError, match="prepare this case again"):
        Store.open(store.path).read("a")


def test_misuse_is_explained(store, tmp_path):
    with pytest.raises(StoreError, match="not a store"):
        Store.open(tmp_path)
    with pytest.raises(StoreError, match="in use"):
        Store.create(store.path, preprocess=Preprocess())
    with pytest.raises(StoreError, match="dtype"):
        Store.create(tmp_path / "n", preprocess=Preprocess(), dtype="int32")
    with pytest.raises(StoreError, match="no case 'z'"):
        store.read("z")
    with pytest.raises(StoreError, match="no label"):
        store.read_label("b")
    with pytest.raises(StoreError, match="expected int16"):
        store.write_case(a_record(), voxels((1, 4, 5, 6), "uint8"))
    with pytest.raises(StoreError, match="label"):
        store.write_case(a_record(), voxels((1, 4, 5, 6)), voxels((4, 5, 7)))
    (tmp_path / "bad").mkdir()
    for text in ("{", "{}", '{"version": 1, "preprocess": {}}'):
        (tmp_path / "bad" / "manifest.json").write_text(text)
        with pytest.raises(StoreError, match="not a manifest"):
            Store.open(tmp_path / "bad")
    (tmp_path / "bad" / "manifest.json").write_text('{"version": 99}')
    with pytest.raises(StoreError, match="version 99"):
        Store.open(tmp_path / "bad")


def test_another_preparation_is_refused(store):
    with pytest.raises(StoreError, match=r"modality='CT' \(asked for 'MR'\)"):
        Store.open_or_create(store.path, preprocess=Preprocess("MR"))
    with pytest.raises(StoreError, match=r"dtype='int16' \(asked for 'uint8'\)"):
        Store.open_or_create(store.path, preprocess=Preprocess("CT"), dtype="uint8")
    assert len(Store.open_or_create(store.path, preprocess=Preprocess("CT")).cases) == 2
