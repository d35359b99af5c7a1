"""The store: cases come back voxel-exact, by crop, in other processes and in other programs."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from records import a_record, voxels

from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Box, Volume
from parts2whole.store import chunks
from parts2whole.store.store import Store, StoreError


def test_cases_come_back_exactly(store):
    assert [record.case_id for record in store.cases] == ["a", "b"]
    np.testing.assert_array_equal(store.read("b"), voxels((1, 20, 40, 35)))
    np.testing.assert_array_equal(store.read("a"), voxels((2, 9, 8, 7), seed=1))
    np.testing.assert_array_equal(store.read_label("a"), voxels((9, 8, 7), "uint8", seed=2) // 50)
    assert store.record("a").has_label
    assert store.record("a").label_values == (0, 1, 2, 3)
    assert store.record("a").patient == "p"
    assert not store.record("b").has_label
    assert store.preprocess == Preprocess("CT")
    assert repr(store).endswith("2 cases)")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_crop_equals_slicing(tmp_path_factory, data):
    shape = (2, 33, 34, 70)
    path = tmp_path_factory.getbasetemp() / "crops"
    if not path.exists():
        made = Store.create(path, preprocess=Preprocess())
        made.write_case(a_record("a", voxels(shape)), voxels(shape), voxels(shape[1:]))
        made.finish()
    store = Store.open(path)
    start = [data.draw(st.integers(0, edge)) for edge in shape[1:]]
    size = [data.draw(st.integers(0, edge - first)) for edge, first in zip(shape[1:], start, strict=True)]
    z, y, x = (slice(a, a + n) for a, n in zip(start, size, strict=True))
    box = Box(tuple(start), tuple(size))
    np.testing.assert_array_equal(store.read("a", box), voxels(shape)[:, z, y, x])
    np.testing.assert_array_equal(store.read_label("a", box), voxels(shape[1:])[z, y, x])


def bytes_read() -> int:
    (metric,) = tensorstore.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
    return sum(value["value"] for value in metric["values"])


def test_a_crop_reads_only_its_chunks(tmp_path):
    shape = (1, 64, 128, 128)
    made = Store.create(tmp_path / "s", preprocess=Preprocess())
    made.write_case(a_record(array=voxels(shape)), voxels(shape))
    made.read("a", Box((0, 0, 0), (1, 1, 1)))
    size = sum(path.stat().st_size for path in (made.path / "cases/a.zarr/0/c").rglob("*") if path.is_file())
    index = 4 * 4 * 4 * 16 + 4
    for start, chunk_count in {(16, 32, 32): 1, (17, 32, 32): 2, (17, 33, 33): 8}.items():
        before = bytes_read()
        made.read("a", Box(start, (16, 32, 32)))
        assert bytes_read() - before <= 1.1 * (size - index) / 64 * chunk_count + index


def test_a_shard_that_becomes_shorter_while_open(store):
    box = Box((0, 0, 0), (16, 32, 32))
    store.read("b", box)
    (shard,) = [path for path in (store.path / "cases" / "b.zarr" / "0" / "c").rglob("*") if path.is_file()]
    os.truncate(shard, 10)
    with pytest.raises(StoreError, match=r"b\.zarr.*truncated"):
        store.read("b", box)


def test_many_arrays_are_open_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "OPEN_ARRAYS", 3)
    made = Store.create(tmp_path / "s", preprocess=Preprocess())
    cases = [f"case{number}" for number in range(7)]
    for number, case in enumerate(cases):
        made.write_case(a_record(case), voxels((1, 4, 5, 6), seed=number))
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(2):
        for number, unit in enumerate(made.read_units([(case, None) for case in cases])):
            np.testing.assert_array_equal(np.rint(unit * 2000 - 1000), voxels((1, 4, 5, 6), seed=number))
    assert len(made._arrays) == 3
    assert files is None or len(os.listdir("/proc/self/fd")) <= files + 2


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float16"])
def test_every_stored_type(tmp_path, dtype):
    made = Store.create(tmp_path / "s", preprocess=Preprocess(), dtype=dtype)
    made.write_case(a_record(), voxels((1, 4, 5, 6), dtype))
    made.finish()
    read = Store.open(tmp_path / "s").read("a")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, voxels((1, 4, 5, 6), dtype))


def test_chunks_of_nothing_but_zero_are_zero(tmp_path):
    made = Store.create(tmp_path / "s", preprocess=Preprocess())
    image, label = np.zeros((1, 40, 40, 40), np.int16), np.zeros((40, 40, 40), np.uint8)
    image[0, 20, 20, 20] = 5
    made.write_case(a_record(array=image), image, label)
    np.testing.assert_array_equal(made.read("a"), image)
    np.testing.assert_array_equal(made.read_label("a"), label)
    for low, high in ((0, 16), (10, 30), (5, 5)):
        read = made.read("a", Box((low,) * 3, (high - low,) * 3))
        np.testing.assert_array_equal(read, image[:, low:high, low:high, low:high])


def test_what_networks_see_is_in_zero_to_one_and_zero_outside(tmp_path):
    made = Store.create(tmp_path / "s", preprocess=Preprocess("CT"))
    hu = np.array([-1200, -1000, 0, 250, 1000, 1500], np.int16).reshape(1, 1, 2, 3)
    made.write_case(a_record(array=hu), hu, np.ones((1, 2, 3), np.uint8))
    inside = np.array([[0, 0, 0.5], [0.625, 1, 1]], np.float32)
    unit = made.read_unit("a")
    assert unit.dtype == np.float32
    np.testing.assert_array_equal(unit[0, 0], inside)
    beyond = Box((-1, 0, 1), (2, 3, 4))
    np.testing.assert_array_equal(made.read_unit("a", beyond)[0, 1], np.pad(inside[:, 1:], ((0, 1), (0, 2))))
    assert not made.read_unit("a", beyond)[0, 0].any()
    assert (made.read("a", beyond)[0, 0] == -1000).all()
    assert made.read_label("a", beyond).sum() == 4
    one, other = made.read_units([("a", None), ("a", Box((5, 5, 5), (1, 1, 2)))])
    np.testing.assert_array_equal(one, unit)
    np.testing.assert_array_equal(other, np.zeros((1, 1, 1, 2), np.float32))


def test_a_record_that_does_not_fit_its_voxels_is_refused(store):
    manifest = store.path / "manifest.json"
    plain = json.loads(manifest.read_text())
    plain["cases"][0]["shape"] = [9, 8, 8]
    manifest.write_text(json.dumps(plain))
    with pytest.raises(StoreError, match=r"shape \(2, 9, 8, 7\), its record \(2, 9, 8, 8\)"):
        Store.open(store.path).read_unit("a")
    with pytest.raises(StoreError, match=r"shape \(9, 8, 7\), its record \(9, 8, 8\)"):
        Store.open(store.path).read_label("a")


def test_other_programs_open_it(store):
    group = zarr.open_group(store.path / "cases" / "a.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][...], store.read("a"))
    np.testing.assert_array_equal(group["labels/mask/0"][...], store.read_label("a"))
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store.path / "cases/b.zarr/0")}}
    np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), store.read("b"))


def test_it_is_ome_zarr(store):
    group = zarr.open_group(store.path / "cases" / "a.zarr", mode="r")
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    (image,) = ome["multiscales"]
    assert [(axis["name"], axis["type"]) for axis in image["axes"]] == [
        ("c", "channel"),
        ("z", "space"),
        ("y", "space"),
        ("x", "space"),
    ]
    (dataset,) = image["datasets"]
    assert dataset["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 3.0, 1.0, 1.0]},
        {"type": "translation", "translation": [0.0, 0.0, 0.0, 0.0]},
    ]
    assert group[dataset["path"]].metadata.dimension_names == ("c", "z", "y", "x")
    assert group["labels"].attrs["ome"] == {"version": "0.5", "labels": ["mask"]}
    mask = group["labels/mask"].attrs["ome"]
    assert mask["image-label"] == {"source": {"image": "../../"}}
    assert mask["multiscales"][0]["datasets"][0]["path"] == "0"


def test_a_validator_finds_it_ome_zarr(store):
    """Against the schema of OME-Zarr 0.5, by a library that knows nothing of this one."""
    models = pytest.importorskip(
        "ome_zarr_models.v05", reason="ome-zarr-models isn't installed (extra 'test')"
    )
    group = zarr.open_group(store.path / "cases" / "a.zarr", mode="r")
    image = models.Image.from_zarr(group)
    assert image.ome_attributes.multiscales[0].datasets[0].path == "0"
    assert models.Labels.from_zarr(group["labels"]).ome_attributes.labels == ["mask"]
    models.ImageLabel.from_zarr(group["labels/mask"])


def test_another_layout_is_read_by_tensorstore(tmp_path):
    array = voxels((1, 10, 12, 14))
    zarr.create_array(store=tmp_path / "x", data=array, chunks=(1, 4, 4, 4))
    opened = chunks.ChunkedArray(tmp_path / "x")
    np.testing.assert_array_equal(opened.read(Box((2, 0, 9), (5, 3, 5))), array[:, 2:7, 0:3, 9:14])


def test_write_volume_takes_ready_voxels(tmp_path):
    made = Store.create(tmp_path / "s", preprocess=Preprocess("unit"), dtype="uint8")
    array = voxels((4, 5, 6), "uint8")
    flipped = Volume(array[::-1], direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)))
    flipped = Volume(flipped.array, direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)))
    record = made.write_volume("a", flipped, patient="p")
    assert (record.scale, record.offset, record.modality) == (1 / 255, 0.0, "unit")
    np.testing.assert_array_equal(made.read("a")[0], array[::-1])


def test_fingerprint_is_of_content_alone(tmp_path):
    first = Store.create(tmp_path / "1", preprocess=Preprocess())
    second = Store.create(tmp_path / "2", preprocess=Preprocess("MR"))
    first.write_case(a_record("a", content_hash="h1"), voxels((1, 4, 5, 6)))
    first.write_case(a_record("b", content_hash="h2"), voxels((1, 4, 5, 6)))
    second.write_case(a_record("x", content_hash="h2"), voxels((1, 4, 5, 6)))
    assert first.fingerprint() != second.fingerprint()
    second.write_case(a_record("y", content_hash="h1"), voxels((1, 4, 5, 6)))
    assert first.fingerprint() == second.fingerprint()


def test_duplicates_are_named(tmp_path):
    made = Store.create(tmp_path / "s", preprocess=Preprocess())
    for case, content in (("a", "1"), ("b", "2"), ("c", "1"), ("d", "1")):
        made.write_case(a_record(case, content_hash=content), voxels((1, 4, 5, 6)))
    made.finish()
    assert made.duplicates() == {"c": "a", "d": "a"}
    assert json.loads((made.path / "manifest.json").read_text())["duplicates"] == {"c": "a", "d": "a"}


def test_it_pickles_without_open_files(store):
    store.read("a")
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read("a"), store.read("a"))
    assert again.cases == store.cases


def read_sum(store):
    return int(store.read("b").sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_reads_in_other_processes(store, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    expected = read_sum(store)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(read_sum, (store,)).get(timeout=60) == expected


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
def test_a_forked_process_uses_what_its_parent_had_open(store):
    expected = read_sum(store)

    def use() -> None:
        assert read_sum(store) == expected
        store.write_case(a_record("c"), voxels((1, 4, 5, 6)))
        assert store.damage("c") is None

    child = multiprocessing.get_context("fork").Process(target=use)
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0


def test_it_reads_in_threads(store):
    expected = store.read("b")
    with ThreadPoolExecutor(4) as pool:
        for read in pool.map(lambda _: store.read("b"), range(40)):
            np.testing.assert_array_equal(read, expected)


def test_replacing_a_case(store):
    new = voxels((1, 4, 5, 6), seed=9)
    store.read("b")
    store.write_case(a_record("b", new), new)
    np.testing.assert_array_equal(store.read("b"), new)
    store.finish()
    np.testing.assert_array_equal(Store.open(store.path).read("b"), new)


def test_excluding_a_case_removes_it(store):
    store.exclude("b", "it broke")
    store.finish()
    opened = Store.open(store.path)
    assert opened.set_aside == {"b": "it broke"}
    assert not opened.has("b")
    assert not (store.path / "cases" / "b.zarr").exists()
    with pytest.raises(StoreError, match="set aside: it broke"):
        opened.record("b")


def test_many_cases_open_without_their_files_and_read_flat(tmp_path):
    made = Store.create(tmp_path / "s", preprocess=Preprocess())
    array = voxels((1, 16, 16, 16))
    record = made.write_case(a_record("real", array), array)
    count = 5_000
    for number in range(count):
        made.add(a_record(f"{number:06d}", array, checksum=record.checksum))
    made.finish()
    store = Store.open(made.path)  # touches no file of any case: all but one have none
    assert len(store.cases) == count + 1
    store.read("real")
    tracemalloc.start()
    for _ in range(50):
        store.read("real")
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 1e6
