"""Label maps as their files have them, and the way of a prediction onto their voxels."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import parts2whole as p2w
from parts2whole.scans.case import SourceCase
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Box
from parts2whole.store.ingest import store_cases
from parts2whole.store.split import Split
from parts2whole.tasks.labelled import TaskError
from parts2whole.tasks.native import read_original
from parts2whole.tasks.sides import count_sides, remarks

AFFINE = np.array([[-1.0, 0, 0, 30], [0, 0, 1.5, -8], [0, 0.8, 0, 5], [0, 0, 0, 1]])
"""Axes flipped and swapped, three spacings."""


def write_pair(folder: Path, seed: int = 0) -> SourceCase:
    generator = np.random.default_rng(seed)
    image = generator.normal(100, 9, (14, 22, 12)).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    label[3:11, 4:16, 2:9] = 1
    label[5:8, 6:11, 4:7] = 2
    folder.mkdir(exist_ok=True)
    for name, array in (("image", image), ("label", label)):
        nib.save(nib.Nifti1Image(array, AFFINE), folder / f"{name}.nii.gz")
    return SourceCase("one", (folder / "image.nii.gz",), folder / "label.nii.gz")


def stored(case: SourceCase, out: Path, spacing: tuple[float, float, float] = (2.1, 2.3, 1.7)):
    preprocess = Preprocess(modality="MR", spacing_mm=spacing)
    return store_cases([case], out, preprocess=preprocess, workers=0, progress=False)[0]


@pytest.mark.parametrize("box", [None, Box((1, 3, 2), (10, 15, 11))])
def test_the_value_of_a_voxel_of_the_file_is_that_of_the_nearest_prepared_one(tmp_path, box):
    case = SourceCase(**(vars(write_pair(tmp_path / "in")) | {"box": box}))
    store = stored(case, tmp_path / "store")
    original, record = read_original(case, store), store.cases[0]
    lps = np.diag([-1, -1, 1]) @ AFFINE[:3]
    in_file = np.asarray(nib.load(case.label).dataobj)
    brought = original.bring(np.arange(np.prod(record.shape)).reshape(record.shape))
    to_prepared = np.linalg.inv(np.asarray(record.direction) * np.asarray(record.spacing_mm))
    seen = 0
    for x, y, z in np.ndindex(in_file.shape):
        if box is not None and not all(
            a <= i < b for a, i, b in zip(box.start, (z, y, x), box.stop, strict=True)
        ):
            continue
        place = lps @ [x, y, z, 1]
        mine = np.rint(np.linalg.inv(original.label.affine()) @ [*place, 1])[:3].astype(int)
        assert original.label.array[tuple(mine)] == in_file[x, y, z]
        at = np.clip(to_prepared @ (place - record.origin_mm), 0, np.array(record.shape) - 1)
        taken = np.unravel_index(brought[tuple(mine)], record.shape)
        assert np.abs(taken - at).max() <= 0.5 + 1e-6  # half a voxel away, two are equally near
        seen += 1
    assert seen == original.label.array.size == brought.size


def test_a_label_file_that_is_gone_or_another_is_said(tmp_path):
    case = write_pair(tmp_path / "in")
    store = stored(case, tmp_path / "store")
    label = nib.load(case.label)
    changed = np.asarray(label.dataobj).copy()
    changed[2:12] = 1
    nib.save(nib.Nifti1Image(changed, AFFINE), case.label)
    with pytest.raises(TaskError, match="have changed since they were prepared"):
        read_original(case, store)
    os.remove(case.label)
    with pytest.raises(TaskError, match=r"label\.nii\.gz is gone: put the files of one back"):
        read_original(case, store)


def test_labels_that_resampling_loses_are_named_even_where_all_cases_lose_them(tmp_path):
    for number in range(4):
        generator = np.random.default_rng(number)
        image = generator.normal(100, 5, (16, 16, 16)).astype(np.float32)
        label = np.zeros(image.shape, np.uint8)
        label[2:10, 2:10, 2:10] = 1
        label[12, 12, 12] = (
            9  # at 4 mm the centres of voxels are 1.5, 5.5, 9.5 and 13.5; the nearest are 2, 6, 10, 14
        )
        for kind, array in (("images", image), ("labels", label)):
            path = tmp_path / f"data/{kind}/c{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    task = p2w.Segmentation(tmp_path / "data", preprocess=Preprocess(modality="MR", spacing_mm=(4, 4, 4)))
    labelled = task.labelled(cache=tmp_path / "cache", workers=0, progress=False)
    assert len(labelled.classes) == 3
    assert {record.labels_lost for record in labelled.store.cases} == {(9,)}
    (note,) = labelled.notes
    assert note.startswith("label 9 of c0, c1, c2, c3 vanished at 4 mm")
    assert "label 9 vanished at 4 mm" in labelled.store.record("c2").notes
    split = Split(train=("c0",), validation=("c1",), test=("c2", "c3"))
    train, validation, test = count_sides(labelled, split)
    assert train.classes == validation.classes == {"1": 1, "9": 0}
    assert test.classes == {"1": 2, "9": 2}  # scored on the voxels of the file
    assert not any("9 among the 2 test" in remark for remark in remarks(task, labelled, split))
    more = task.with_classes(labelled, ("0", "1", "5", "9"))
    assert {more.classes[index] for item in more.items for index in item.lost} == {"9"}
    native = task.replace(preprocess=Preprocess(modality="MR"))
    assert native.labelled(cache=tmp_path / "cache", workers=0, progress=False).notes == ()
