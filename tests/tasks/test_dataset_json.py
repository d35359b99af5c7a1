"""`dataset.json`: what nnU-Net v1 and v2 and the Decathlon write, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from parts2whole.evaluation.regions import IGNORED
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import write_nifti
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.tasks.dataset_json import read_dataset_json
from parts2whole.tasks.labelled import TaskError
from parts2whole.tasks.segmentation import Segmentation

LUNG = {"labels": {"background": 0, "lung": 1}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}


def write(root: Path, **keys) -> Path:
    root.mkdir(exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(keys))
    return root


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def task_of(root: Path, **settings) -> Segmentation:
    given = {"preprocess": Preprocess(modality="MR"), "patch_size": (8, 8, 8)} | settings
    return Segmentation(root, **given)


def store(root: Path, name: str, label: np.ndarray, *, channels: int = 0, seed: int = 0) -> None:
    """A noisy image (of several channels along the fourth axis) and its label map."""
    shape = (*([channels] if channels else []), *label.shape)
    image = np.random.default_rng(seed).normal(100, 9, shape).astype(np.float32)
    (root / "imagesTr").mkdir(parents=True, exist_ok=True)
    if channels:
        import nibabel

        nibabel.save(
            nibabel.Nifti1Image(image.T, np.diag([-1.0, -1, 1, 1])), root / "imagesTr" / f"{name}.nii.gz"
        )
    else:
        write_nifti(Volume(image), root / "imagesTr" / f"{name}_0000.nii.gz")
    (root / "labelsTr").mkdir(parents=True, exist_ok=True)
    write_nifti(LabelVolume(label), root / "labelsTr" / f"{name}.nii.gz")


def test_version_1_lists_cases_without_the_numbers_of_channels(tmp_path):
    touch(
        tmp_path,
        *(f"imagesTr/p{i}_000{c}.nii.gz" for i in range(3) for c in (0, 1)),
        *(f"labelsTr/p{i}.nii.gz" for i in range(3)),
    )
    (tmp_path / "imagesTr/p1_0001.nii.gz").unlink()
    training = [{"image": f"./imagesTr/p{i}.nii.gz", "label": f"./labelsTr/p{i}.nii.gz"} for i in range(3)]
    labels = {"0": "background", "2": "tumour", "1": "liver"}
    write(tmp_path, labels=labels, modality={"0": "T1", "1": "T2"}, training=training, numTraining=3)
    said = read_dataset_json(tmp_path)
    assert said.meaning.names == {0: "background", 1: "liver", 2: "tumour"}
    assert (said.channels, said.modality) == (("T1", "T2"), "MR")
    found = said.cases(None)
    assert [[p.name for p in case.images] for case in found.cases] == [
        ["p0_0000.nii.gz", "p0_0001.nii.gz"],
        ["p2_0000.nii.gz", "p2_0001.nii.gz"],
    ]
    assert found.set_aside == {"p1": "1 of 2 channels are there: p1_0000.nii.gz"}
    assert not found.notes


def test_version_2_takes_the_files_of_its_ending_and_counts_them(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0000.nii", "labelsTr/a.nii.gz", "labelsTr/a.mha")
    found = read_dataset_json(write(tmp_path, **LUNG, numTraining=2, mood="glad")).cases(None)
    assert [case.images[0].name for case in found.cases] == ["a_0000.nii.gz"]
    assert found.modality == "CT"
    assert any("numTraining 2" in note and "1 cases" in note for note in found.notes)
    assert any("mood" in note for note in found.notes)
    touch(tmp_path, "imagesTr/a_0000.NII.GZ")
    with pytest.raises(TaskError, match=r"a_0000\.NII\.GZ and a_0000\.nii\.gz"):
        read_dataset_json(tmp_path).cases(None)


def test_dataset_names_its_own_files(tmp_path):
    touch(tmp_path, "scans/one/t1.nii.gz", "scans/one/t2.nii.gz", "masks/one.nii.gz")
    dataset = {"one": {"images": ["scans/one/t1.nii.gz", "scans/one/t2.nii.gz"], "label": "masks/one.nii.gz"}}
    said = read_dataset_json(write(tmp_path, labels=LUNG["labels"], dataset=dataset))
    (case,) = said.cases(None).cases
    assert (case.case_id, len(case.images), case.label) == ("one", 2, tmp_path / "masks/one.nii.gz")


def test_a_linked_file_is_inside(tmp_path):
    touch(tmp_path, "elsewhere/a.nii.gz", "data/l.nii.gz")
    (tmp_path / "data/a.nii.gz").symlink_to(tmp_path / "elsewhere/a.nii.gz")
    training = [{"image": "a.nii.gz", "label": "l.nii.gz"}]
    assert (
        read_dataset_json(write(tmp_path / "data", labels=LUNG["labels"], training=training))
        .cases(None)
        .cases
    )
    training = [{"image": "../elsewhere/a.nii.gz", "label": "l.nii.gz"}]
    with pytest.raises(TaskError, match="leaves the folder"):
        read_dataset_json(write(tmp_path / "data", labels=LUNG["labels"], training=training))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "gives 1 to 'a' and 'b'"),
        ({"labels": {"0": "background", "1": "a", "2": "a"}}, "calls both 1 and 2 'a'"),
        ({"labels": {"background": 1, "a": 0}}, "background must be 0"),
        ({"labels": {"background": 0, "a": -1}}, r"\[-1\]"),
        ({"labels": {"background": 0, "a": 1.5}}, "'a' must be a whole number"),
        ({"labels": {"background": 0, "a": True}}, "'a' must be a whole number"),
        ({"labels": {"background": 0, "a b": 1, "a_b": 2}}, "'a b' and 'a_b' are alike"),
        ({"labels": {"background": 0}}, "nothing but background"),
        ({"labels": ["background", "a"]}, "must be an object"),
        ({}, "must be an object"),
        ({"labels": {"background": 0, "a": 1, "ignore": 0}}, "ignore must be one label value"),
        ({"labels": {"background": 0, "a": 1, "ignore": 1}}, "both ignore and a class"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}}, "need regions_class_order"),
        (
            {"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [1]},
            "each of the 2 regions",
        ),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [1, 0]}, "above 0"),
        ({"labels": {"background": 0, "a": [0, 2], "b": 2}, "regions_class_order": [1, 2]}, "value 0"),
        (LUNG | {"file_ending": ".png"}, "file_ending is '.png'"),
        (LUNG | {"overwrite_image_reader_writer": "NaturalImage2DIO"}, "'NaturalImage2DIO'"),
        (LUNG | {"tensorImageSize": "2D"}, "tensorImageSize is '2D'"),
        (LUNG | {"channel_names": {"1": "CT"}}, "number the channels from 0"),
        (LUNG | {"modality": {"0": "CT", "1": "PET"}}, "channel_names has 1 channels, modality 2"),
        (LUNG | {"validation": [{"image": "a", "label": "b"}]}, "validation lists cases"),
        (LUNG | {"training": [{"image": "a"}]}, "needs image and label"),
        (LUNG | {"training": [{"image": "a.nii", "label": "b"}] * 2}, "'a' is listed twice"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path, keys, said):
    with pytest.raises(TaskError, match=said) as refused:
        read_dataset_json(write(tmp_path, **keys))
    assert "dataset.json" in str(refused.value)


def test_a_key_twice_is_no_guess(tmp_path):
    tmp_path.joinpath("dataset.json").write_text('{"labels": {"0": "background", "1": "a", "1": "b"}}')
    with pytest.raises(TaskError, match="'1' is there twice"):
        read_dataset_json(tmp_path)


def test_names_instead_of_values_and_ignored_voxels_in_nothing(tmp_path):
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:4, 2:6, 2:6], label[5:7, 2:6, 2:6], label[7] = 5, 205, 255
    for case in range(3):
        store(tmp_path, f"c{case}", label, seed=case)
    labels = {"background": 0, "right kidney": 205, "liver": 5, "spleen": 3, "ignore": 255}
    task = task_of(write(tmp_path, labels=labels, channel_names={"0": "T2"}))
    data = task.labelled(cache=tmp_path / "cache", workers=0, progress=False)
    assert data.classes == ("background", "liver", "right kidney")
    assert any("spleen" in note for note in data.notes)
    assert task.mask_values(data.classes) == (0, 5, 205)
    assert task.regions(data.classes) == {"liver": (1,), "right_kidney": (2,)}
    expected = np.zeros(label.shape, np.int64)
    expected[label == 5], expected[label == 205], expected[label == 255] = 1, 2, IGNORED
    assert np.array_equal(task.reference(data, "c0"), expected)
    assert data.item("c0").holds == {1, 2}


def test_a_value_without_a_name_is_refused(tmp_path):
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:5, 2:5, 2:5], label[6, 6, 6] = 1, 7
    store(tmp_path, "c0", label)
    with pytest.raises(TaskError, match=r"hold 7, .* names 0, 1"):
        task_of(write(tmp_path, **LUNG)).labelled(cache=tmp_path / "cache", workers=0, progress=False)


def test_regions_are_unions_and_masks_get_their_values(tmp_path):
    label = np.zeros((8, 8, 8), np.uint8)
    label[1:7, 1:7, 1:7], label[2:6, 2:6, 2:6], label[3:5, 3:5, 3:5] = 1, 3, 2
    store(tmp_path, "c0", label)
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    task = task_of(write(tmp_path, labels=labels, regions_class_order=[7, 8, 9]))
    data = task.labelled(cache=tmp_path / "cache", workers=0, progress=False)
    regions, classes, values = (
        task.regions(data.classes),
        task.reference(data, "c0"),
        task.mask_values(data.classes),
    )
    for name, of in {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}.items():
        assert np.array_equal(np.isin(classes, regions[name]), np.isin(label, of)), name
    # nnU-Net paints 7, then 8 over it, then 9: what a perfect prediction would become.
    painted = np.select([label == 3, label == 2, label == 1], [9, 8, 7], 0)
    assert np.array_equal(np.array(values)[classes], painted)


def test_masks_that_do_not_tell_regions_apart_are_noted(tmp_path):
    labels = {"background": 0, "core": 2, "whole": [1, 2]}
    said = read_dataset_json(write(tmp_path, labels=labels, regions_class_order=[2, 1]))
    assert said.notes == ("by its regions_class_order, masks hold 1 for whole and core+whole alike",)
    nested = dict(reversed(labels.items()))
    assert read_dataset_json(write(tmp_path, labels=nested, regions_class_order=[1, 2])).notes == ()


def test_the_fourth_axis_is_channels_and_their_number_is_checked(tmp_path):
    label = np.zeros((6, 7, 8), np.uint8)
    label[2:4, 2:5, 2:5] = 1
    for case, channels in enumerate((2, 2, 3)):
        store(tmp_path, f"c{case}", label, channels=channels, seed=case)
    training = [{"image": f"./imagesTr/c{i}.nii.gz", "label": f"./labelsTr/c{i}.nii.gz"} for i in range(3)]
    keys = {"labels": {"0": "background", "1": "ball"}, "modality": {"0": "FLAIR", "1": "T1w"}}
    write(tmp_path, **keys, training=training, tensorImageSize="4D")
    data = task_of(tmp_path).labelled(cache=tmp_path / "cache", workers=0, progress=False)
    assert [(item.item_id, data.store.record(item.case_id).channels) for item in data.items] == [
        ("c0", 2),
        ("c1", 2),
    ]
    assert any("c2" in note and "expected 2 channels, the files hold 3" in note for note in data.notes)


def test_the_data_set_says_what_auto_would_guess(tmp_path):
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:5, 2:5, 2:5] = 1
    store(tmp_path, "c0", label)
    task = task_of(write(tmp_path, labels=LUNG["labels"], modality={"0": "MRI"}), preprocess=Preprocess())
    data = task.labelled(cache=tmp_path / "cache", workers=0, progress=False)
    assert data.store.record("c0").modality == "MR"


def test_one_window_does_not_fit_ct_and_pet(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii", "imagesTr/a_0001.nii", "labelsTr/a.nii")
    write(tmp_path, labels=LUNG["labels"], channel_names={"0": "CT", "1": "PET"})
    for modality in ("auto", "CT"):
        with pytest.raises(TaskError, match="channels are CT, PET"):
            task_of(tmp_path, preprocess=Preprocess(modality=modality)).sources()
    assert task_of(tmp_path).sources().modality is None
