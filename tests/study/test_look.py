"""Which scans a plan is made from, and what they are taken for."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from parts2whole.phantom.example import write_structure_sets
from parts2whole.study.look import StartError, look
from task_trees import write_series


def write(path: Path, array: np.ndarray, mm: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([mm, mm, mm, 1.0])), path)
    return path


def hounsfield(seed: int, shape=(16, 16, 16)) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 300, shape).astype(np.int16)


def bright(seed: int, shape=(16, 16, 16)) -> np.ndarray:
    return np.random.default_rng(seed).integers(50, 900, shape).astype(np.int16)


def test_a_modality_that_is_asked_for_decides_which_scans_the_plan_is_made_from(tmp_path):
    for number in range(3):
        study, uid = f"1.8.{number}", f"1.9.{number}"
        write_series(
            tmp_path / f"ct{number}", hounsfield(number), patient=f"p{number}", series=uid, study=study
        )
        write(tmp_path / f"other{number}.nii.gz", bright(number), mm=2.0)
    found = look(tmp_path, None, progress=False)
    mr, chosen, why = found.propose("MR")
    assert (chosen, why, mr.scans) == ("MR", "as --modality said", 3)
    assert mr.percentiles is not None
    assert mr.whole_mm == (32.0, 32.0, 32.0)  # of the scans at 2 mm, and not of the CTs
    ct, _, _ = found.propose("CT")
    assert ct.scans == 6  # what doesn't say what it is may be CT
    assert ct.window_hu is not None


def test_where_most_scans_say_nothing_a_few_cts_do_not_decide(tmp_path):
    write(tmp_path / "ct.nii.gz", hounsfield(0))
    for number in range(3):
        write(tmp_path / f"other{number}.nii.gz", bright(number))
    with pytest.raises(StartError, match="1 scans are CT, of 3 it is unclear what they are: say --modality"):
        look(tmp_path, None, progress=False).propose("auto")


def labelled(folder: Path, channel: str) -> Path:
    for number in range(3):
        label = np.zeros((16, 16, 16), np.uint8)
        label[4:9] = 1
        write(folder / f"imagesTr/c{number}_0000.nii.gz", hounsfield(number))  # as subtraction images look
        write(folder / f"labelsTr/c{number}.nii.gz", label)
    said = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, "x": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(said))
    return folder


def test_what_dataset_json_says_counts_before_a_guess(tmp_path):
    data = labelled(tmp_path / "data", "DCE-MRI subtraction")
    proposal, chosen, why = look(data, data, progress=False).propose("auto")
    assert (chosen, why) == ("MR", "dataset.json says so")
    assert proposal.percentiles is not None
    assert look(data, data, progress=False).propose("CT")[1] == "CT"


def series(folder: Path, number: int) -> np.ndarray:
    """A CT of 16 slices, and its voxels (z, y, x)."""
    array = hounsfield(number)
    write_series(
        folder / f"s{number}",
        array,
        patient=f"p{number}",
        series=f"1.9.{number}",
        study=f"1.8.{number}",
        spacing=(1.0, 1.0, 1.0),
    )
    return array


def write_like_series(path: Path, array: np.ndarray) -> None:
    """An array (z, y, x) of slices from the feet up, rows to the back and columns to the left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0])), path)


def test_series_of_dicom_are_scans_like_files(tmp_path):
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:9] = 1
    for number in range(6):
        array = series(tmp_path / "scans", number)
        if number < 3:  # the same scan, labelled, as a file
            write_like_series(tmp_path / "labelled" / "images" / f"c{number}.nii.gz", array)
            write_like_series(tmp_path / "labelled" / "labels" / f"c{number}.nii.gz", label)
    write(tmp_path / "scans" / "odd\x07name.nii.gz", hounsfield(9))  # which can't be printed
    found = look(tmp_path / "scans", tmp_path / "labelled", progress=False).taken_as("CT")
    assert (len(found.scans), found.sizes().scans, found.others) == (7, 7, 0)
    assert found.copies == 3
    assert sum(source.is_series for source in found.few_scans()) >= 3


def test_scans_of_another_modality_do_not_count(tmp_path):
    for number in range(2):
        series(tmp_path, number)
        write(tmp_path / f"other{number}.nii.gz", bright(number))
    found = look(tmp_path, None, progress=False)
    assert (len(found.scans), found.others) == (4, 0)
    mr = found.taken_as("MR")
    assert ([source.is_series for source in mr.scans], mr.others, mr.sizes().scans) == ([False, False], 2, 2)
    assert len(found.taken_as("CT").scans) == 4  # what doesn't say what it is may be CT


def test_scans_that_none_of_fits_the_labelled_are_refused(tmp_path):
    for number in range(3):
        write(tmp_path / "scans" / f"other{number}.nii.gz", bright(number))
    for number in range(5):
        label = np.zeros((16, 16, 16), np.uint8)
        label[4:9] = 1
        write(tmp_path / "labelled" / "images" / f"c{number}.nii.gz", hounsfield(number))
        write(tmp_path / "labelled" / "labels" / f"c{number}.nii.gz", label)
    found = look(tmp_path / "scans", tmp_path / "labelled", progress=False)
    with pytest.raises(StartError, match="none of the 3 scans can be prepared as CT"):
        found.taken_as("auto")


def test_series_that_are_labelled_under_another_patient_id_are_scans(tmp_path):
    labelled = write_structure_sets(tmp_path / "labelled", patients=3)
    for path in labelled.rglob("CT/*"):
        header = pydicom.dcmread(path)
        header.PatientID = f"new {header.PatientID}"
        copied = tmp_path / "scans" / path.relative_to(labelled)
        copied.parent.mkdir(parents=True, exist_ok=True)
        header.save_as(copied)
    found = look(tmp_path / "scans", labelled, progress=False)
    assert (len(found.scans), len(found.patients), found.copies, found.unusable) == (3, 3, 3, ())


def test_scans_of_several_volumes_are_left_out_of_a_plan(tmp_path):
    for number in range(2):
        write(tmp_path / f"one{number}.nii.gz", bright(number))
        write(tmp_path / f"two{number}.nii.gz", bright(number, (16, 16, 16, 2)), mm=3.0)
    found = look(tmp_path, None, progress=False)
    assert (len(found.scans), found.several) == (2, 2)
    assert found.propose("MR")[0].scans == 2
    for path in tmp_path.glob("one*"):
        path.unlink()
    with pytest.raises(StartError, match="holds several volumes: prepare them with --volumes-4d"):
        look(tmp_path, None, progress=False)
