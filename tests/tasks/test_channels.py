"""Cases of several channels: complete ones are used, others set aside by name, in training and prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

from parts2whole.scans.case import SourceCase, read_channels
from parts2whole.scans.read import ReadError
from parts2whole.tasks.base import Task
from parts2whole.tasks.brain_tumour_segmentation import BrainTumourSegmentation
from parts2whole.tasks.brats import find_cases
from parts2whole.tasks.channels import group_channels
from parts2whole.tasks.labelled import TaskError
from parts2whole.tasks.pairs import pair_folders


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"-")
    return root


def grouped(paths, channels, names=()):
    cases = group_channels(Task.find_inputs(None, paths), channels, names)
    return [(case.case_id, [path.name for path in case.files()]) for case in cases]


def test_a_case_without_the_channels_of_the_others_is_set_aside(tmp_path):
    names = [f"{case}_{channel}" for case in "abcd" for channel in ("flair", "t1")]
    touch(tmp_path, *(f"images/{n}.nii.gz" for n in names), *(f"labels/{c}.nii.gz" for c in "abcd"))
    (tmp_path / "images/b_t1.nii.gz").unlink()
    touch(tmp_path, "images/d_t2.nii.gz")
    found = pair_folders(tmp_path / "images", tmp_path / "labels")
    assert {c.case_id: [p.name for p in c.images] for c in found.cases} == {
        c: [f"{c}_flair.nii.gz", f"{c}_t1.nii.gz"] for c in "ac"
    }
    assert found.set_aside == {"b": "it has no b_t1", "d": "d_t2 isn't a channel of the others"}


def test_upper_case_is_a_suffix_and_twins_are_refused(tmp_path):
    touch(tmp_path, "images/a.NII.GZ", "labels/a.Nii.gz", "images/b.nrrd", "labels/b.nii")
    assert [c.case_id for c in pair_folders(tmp_path / "images", tmp_path / "labels").cases] == ["a", "b"]
    touch(tmp_path, "images/b.nii")
    with pytest.raises(TaskError, match=r"b\.nii and b\.nrrd"):
        pair_folders(tmp_path / "images", tmp_path / "labels")


def test_new_scans_are_grouped_as_in_training(tmp_path):
    touch(
        tmp_path, *(f"{folder}/c_000{n}.nii.gz" for folder in ("p", "q") for n in (0, 1)), "p/d_0001.nii.gz"
    )
    touch(tmp_path, "p/four.nii.gz")
    pair = ["c_0000.nii.gz", "c_0001.nii.gz"]
    assert grouped([tmp_path], 2) == [
        ("p__c", pair),
        ("p__d", ["d_0001.nii.gz"]),
        ("p__four", ["four.nii.gz"]),
        ("q__c", pair),
    ]
    *_, lacking = group_channels(Task.find_inputs(None, [tmp_path / "p" / "d_0001.nii.gz"]), 2)
    with pytest.raises(ReadError, match="it has no d_0000; the model has 2 channels"):
        read_channels(lacking)


def test_named_files_of_equal_names_stay_apart(tmp_path):
    files = [f"{folder}/c_000{n}.nii.gz" for folder in ("p", "q") for n in (0, 1)]
    touch(tmp_path, *files)
    (first, _), (second, _) = grouped([tmp_path / file for file in files], 2)
    assert first == "c"
    assert second.startswith("c-")


def test_the_names_and_order_of_training_count(tmp_path):
    touch(tmp_path, "x_t2.nii", "x_adc.nii", "x_dwi.nii")
    found = grouped([tmp_path / f"x_{n}.nii" for n in ("t2", "adc", "dwi")], 3, ("adc", "dwi", "t2"))
    assert found == [("x", ["x_adc.nii", "x_dwi.nii", "x_t2.nii"])]


def test_one_channel_stays_one_file_a_case():
    case = SourceCase("c_0000", (Path("c_0000.nii"),))
    assert group_channels([case], 1) == [case]


def test_two_files_for_one_modality_of_brats_are_no_guess(tmp_path):
    files = ("x_t1.nii", "x_flair.nii", "x_FLAIR.NII.GZ", "y_flair.nii.gz")
    touch(tmp_path, *files)
    twice, once = find_cases([tmp_path / name for name in sorted(files)])
    assert twice.problem == "x_FLAIR.NII.GZ and x_flair.nii are both its flair: keep one of them"
    assert once.problem == ""
    first, second = BrainTumourSegmentation(tmp_path).find_inputs([tmp_path])
    with pytest.raises(ReadError, match="both its flair"):
        read_channels(first)
    assert second.files() == (tmp_path / "y_flair.nii.gz",)
