"""Volumes in an ``.npz``: what is stored is what was given, on one scale, or the file is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parts2whole.scans.preprocess import Preprocess
from parts2whole.tasks.classification import Classification
from parts2whole.tasks.labelled import TaskError

CUBE = (6, 6, 6)


def arrays(kind=lambda x: x, **sizes: int) -> dict[str, np.ndarray]:
    """Cubes with values from -1 to 1 on every side, through ``kind``; odd ones are of class 1."""
    found = {}
    for seed, (side, count) in enumerate((sizes or {"train": 6, "val": 4, "test": 4}).items()):
        images = np.random.default_rng(seed).uniform(-1, 1, (count, *CUBE))
        found |= {f"{side}_images": kind(images), f"{side}_labels": np.arange(count)[:, None] % 2}
    return found


def opened(folder: Path, modality: str = "auto", **keys: np.ndarray):
    np.savez(folder / "set.npz", **keys)
    task = Classification(folder / "set.npz", preprocess=Preprocess(modality=modality), patch_size=(8, 8, 8))
    return task.labelled(cache=folder / "cache", workers=0, progress=False)


def read(data, item: str) -> np.ndarray:
    return data.store.read_unit(data.item(item).case_id)[0]


def test_bytes_are_divided_by_255_on_every_side(tmp_path):
    given = arrays(
        lambda x: np.rint((x + 1) * 100).astype(np.uint8)
    )  # up to 200, and not the same on each side
    data = opened(tmp_path, **given)
    for side in ("train", "val", "test"):
        for number, image in enumerate(given[f"{side}_images"]):
            assert np.allclose(read(data, f"{side}_{number:06d}"), image / 255, atol=1e-6)
    assert data.classes == ("0", "1")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_numbers_in_the_unit_interval_stay_as_they_are(tmp_path, dtype):
    given = arrays(lambda x: ((x + 1) / 4).astype(dtype))
    data = opened(tmp_path, **given)
    assert np.allclose(read(data, "val_000002"), given["val_images"][2], atol=2e-5)


def test_percentiles_of_signed_numbers_as_in_files(tmp_path):
    given = arrays(lambda x: (x * 3).astype(np.float32))
    data = opened(tmp_path, "MR", **given)
    image = given["test_images"][1]
    low, high = np.percentile(image, (0.5, 99.5))
    assert np.allclose(read(data, "test_000001"), np.clip((image - low) / (high - low), 0, 1), atol=2e-5)
    assert data.store.record("test_000001").modality == "MR"


@pytest.mark.parametrize("modality", ["CT", "auto"])
def test_hounsfield_units_are_windowed_as_in_files(tmp_path, modality):
    given = arrays(lambda x: np.rint(x * 1500).astype(np.int16))
    data = opened(tmp_path, modality, **given)
    expected = (np.clip(given["train_images"][3], -1000, 1000) + 1000) / 2000
    assert np.allclose(read(data, "train_000003"), expected, atol=1e-6)


@pytest.mark.parametrize(
    "kind", [lambda x: x, lambda x: (x + 1) * 3, lambda x: ((x + 1) * 300).astype(np.uint16)]
)
@pytest.mark.parametrize("modality", ["auto", "unit"])
def test_what_has_no_clear_scale_is_refused_with_its_range(tmp_path, kind, modality):
    with pytest.raises(TaskError, match=r"range from .* to .*--task.preprocess.modality CT"):
        opened(tmp_path, modality, **arrays(kind))


def test_constant_and_infinite_volumes_are_set_aside_by_name(tmp_path):
    given = arrays(lambda x: (x + 1) / 2)
    given["train_images"][2], given["test_images"][0, 0, 0, 0] = 0.25, np.nan
    for _ in range(2):  # made, and opened again
        data = opened(tmp_path, **given)
        assert len(data.items) == 12
        assert any("train_000002 was set aside: constant volume" in note for note in data.notes)
        assert any(
            "test_000000 was set aside" in note and "1 of 216 voxels are NaN" in note for note in data.notes
        )


def test_classes_are_the_labels_that_occur(tmp_path):
    given = arrays(lambda x: (x + 1) / 2)
    words = {key: np.where(value == 1, "benign ", "x") for key, value in given.items() if "labels" in key}
    assert opened(tmp_path, **given | words).classes == ("benign", "x")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"val_labels": np.array([0, 1, 0, -1])}, "val_labels must be whole numbers from 0, found -1"),
        ({"val_labels": np.array([0, 1, 0, 0.5])}, "found 0.5"),
        ({"val_labels": np.array([0, 1, np.nan, 0])}, "found nan"),
        ({"val_labels": np.array([0, 1, 0])}, "4 val_images but 3 val_labels"),
        ({"val_labels": np.eye(4)}, r"one class an item.*\(4, 4\)"),
        ({"val_labels": np.array(["0", "1", "0", "1"])}, "of others text"),
        (
            {"train_labels": np.ones(6), "val_labels": np.ones(4), "test_labels": np.ones(4)},
            "only one class, 1",
        ),
        ({"val_images": np.zeros((4, 6, 6))}, r"val_images must be numbers \(n, depth, height, width\)"),
        ({"val_images": np.zeros((4, 28, 28, 3))}, "colour pictures"),
        ({"val_images": np.zeros((4, 1, 28, 28))}, "single slices"),
        ({"val_images": np.full((4, *CUBE), "a")}, "must be numbers"),
    ],
)
def test_what_is_no_class_or_volume_is_refused(tmp_path, keys, said):
    with pytest.raises(TaskError, match=said):
        opened(tmp_path, **arrays(lambda x: (x + 1) / 2) | keys)


def test_other_archives_are_refused(tmp_path):
    with pytest.raises(TaskError, match=r"not in MedMNIST layout.*it holds x"):
        opened(tmp_path, x=np.zeros(3))
    (tmp_path / "set.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(TaskError, match=r"set\.npz is no \.npz"):
        Classification(tmp_path / "set.npz").labelled(cache=tmp_path, workers=0, progress=False)
    lacking = arrays(lambda x: (x + 1) / 2)
    del lacking["val_labels"]
    with pytest.raises(TaskError, match="val_images, but no val_labels"):
        opened(tmp_path, **lacking)
