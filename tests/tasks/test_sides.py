"""Who is on which side: copies of a scan, and what is said of sides that are too small."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from parts2whole.scans.preprocess import Preprocess
from parts2whole.store.split import read_split, write_split
from parts2whole.tasks.classification import Classification
from parts2whole.tasks.labelled import TaskError
from parts2whole.tasks.segmentation import Segmentation
from parts2whole.tasks.sides import about_split, count_sides, describe_sides, remarks
from task_trees import write_series

MR = Preprocess(modality="MR")


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, (9, 10, 11)).astype(np.float32)


def listed(folder: Path, rows: list[str], *, heading: str = "path,label") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list.csv").write_text("\n".join([heading, *rows]))
    return folder / "list.csv"


def segmentation(folder: Path, healthy: set[int], count: int = 10, **settings) -> Segmentation:
    for number in range(count):
        label = np.zeros((9, 10, 11), np.uint8)
        if number not in healthy:
            label[2:6, 3:7, 4:8] = 1
        save(folder / "images" / f"c{number}.nii.gz", noise(number) + 50 * label)
        save(folder / "labels" / f"c{number}.nii.gz", label)
    return Segmentation(folder, preprocess=MR, patch_size=(8, 8, 8), **settings)


def opened(task, cache: Path):
    labelled = task.labelled(cache=cache, workers=0, progress=False)
    return labelled, task.split(labelled)


def test_copies_of_a_scan_are_one_patient_in_a_csv(tmp_path):
    rows = []
    for number in range(12):
        save(tmp_path / f"a{number}.nii.gz", noise(number))
        save(tmp_path / f"copy-of-{number}.nii.gz", noise(number))
        rows += [f"a{number}.nii.gz,{number % 2}", f"copy-of-{number}.nii.gz,{number % 2}"]
    labelled, split = opened(Classification(listed(tmp_path, rows), preprocess=MR), tmp_path / "cache")
    for side in count_sides(labelled, split):
        assert side.items == side.images == 2 * side.patients
    scan = {f"{2 * n + twin:06d}": n for n in range(12) for twin in range(2)}
    sides = [{scan[item] for item in side} for side in (split.train, split.validation, split.test)]
    assert sum(map(len, sides)) == 12


def npz(path: Path, **sides: list[int]) -> Path:
    """Volumes by the numbers of their scans; the class is whether the number is odd."""
    arrays = {}
    for side, numbers in sides.items():
        volumes = [np.random.default_rng(n).integers(0, 255, (8, 8, 8), np.uint8) for n in numbers]
        for volume in volumes:
            volume[0, 0, 0] = 255  # so that every side has the same scale
        arrays |= {f"{side}_images": np.stack(volumes), f"{side}_labels": np.array(numbers)[:, None] % 2}
    np.savez(path, **arrays)
    return path


def test_a_copy_on_two_sides_of_an_npz_counts_once_where_it_counts_most(tmp_path):
    path = npz(tmp_path / "set.npz", train=[0, 1, 2, 3, 8, 9], val=[4, 5, 1, 9], test=[6, 7, 2, 9])
    task = Classification(path, patch_size=(8, 8, 8))
    labelled, split = opened(task, tmp_path / "cache")
    assert split.test == tuple(f"test_{i:06d}" for i in range(4))
    assert split.validation == ("val_000000", "val_000001", "val_000002")  # 9 is tested
    assert split.train == ("train_000000", "train_000003", "train_000004")  # 1, 2 and 9 are elsewhere
    assert any(
        "4 items of the data set's own split left out" in note for note in remarks(task, labelled, split)
    )


def test_validation_cut_from_an_npz_leaves_no_copy_in_training(tmp_path):
    train = [n for n in range(20) for _ in range(2)]
    task = Classification(npz(tmp_path / "set.npz", train=train, val=[0, 1, 20, 21]), validation_fraction=0.3)
    _, split = opened(task, tmp_path / "cache")
    scans = {f"train_{i:06d}": n for i, n in enumerate(train)}
    chosen = {scans[item] for item in split.validation}
    assert not chosen & {scans[item] for item in split.train}
    assert not {0, 1} & {scans[item] for item in (*split.train, *split.validation)}
    assert len(split.validation) == 2 * len(chosen)


def test_series_of_one_dicom_patient_are_on_one_side(tmp_path):
    rows = []
    for number in range(12):
        folder = tmp_path / f"series{number}"
        write_series(folder, noise(number), patient=f"P{number // 2}")
        rows.append(f"{folder.name},{number // 2 % 2}")
    task = Classification(listed(tmp_path, rows), preprocess=Preprocess(modality="CT"))
    labelled, split = opened(task, tmp_path / "cache")
    assert [side.patients for side in count_sides(labelled, split)] == [2, 2, 2]
    assert [side.images for side in count_sides(labelled, split)] == [4, 4, 4]
    assert not any("P0" in item.patient for item in labelled.items)  # hashed


def test_a_column_of_patients_counts_before_all_else(tmp_path):
    rows = []
    for number in range(12):
        save(tmp_path / f"{number}.nii.gz", noise(number))
        rows.append(f"{number}.nii.gz; {number % 2} ;{number // 4}")
    task = Classification(listed(tmp_path, rows, heading="path;label;Patient"), preprocess=MR)
    labelled, split = opened(task, tmp_path / "cache")
    assert [side.patients for side in count_sides(labelled, split)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["a.nii,benign", "b.nii,Benign"], r"'Benign' and 'benign'"),
        (["a.nii,1", "b.nii,1.0"], r"'1' and '1.0'"),
        (["a.nii,very bad", "b.nii,very  bad"], "in several ways"),
        (["a.nii,x", "b.nii,y", "a.nii,y"], r"a.nii is 'x' in line 2, 'y' in line 4"),
        (["a.nii,x", "b.nii,"], "line 3: path or label is empty"),
        (["a.nii,x"], "only one class, 'x'"),
        ([], "lists no volumes"),
    ],
)
def test_labels_that_contradict_each_other_are_refused(tmp_path, rows, reason):
    with pytest.raises(TaskError, match=reason):
        Classification(listed(tmp_path, rows), preprocess=MR).labelled(cache=tmp_path / "cache")


@pytest.mark.parametrize(("one", "other"), [("01", "1"), ("1", "1.0"), ("P1", "p1"), ("A  B", "A B")])
def test_a_patient_in_two_spellings_is_refused(tmp_path, one, other):
    rows = [f"a.nii,x,{one}", f"b.nii,y,{other}", "c.nii,y,2", "d.nii,y,"]
    path = listed(tmp_path, rows, heading="path,label,patient")
    named = " and ".join(map(repr, sorted((one, other))))
    with pytest.raises(TaskError, match=f"one patient in several ways, or nearly so: {named};"):
        Classification(path, preprocess=MR).labelled(cache=tmp_path / "cache")


def test_a_column_of_patients_with_blanks_is_noted(tmp_path):
    for number in range(6):
        save(tmp_path / f"{number}.nii.gz", noise(number))
    rows = [f"{number}.nii.gz,{number % 2},{'' if number == 4 else number % 3}" for number in range(6)]
    path = listed(tmp_path, rows, heading="path,label,patient")
    labelled, _ = opened(Classification(path, preprocess=MR), tmp_path / "cache")
    assert labelled.notes == (
        "1 of 6 rows name no patient, though others do: they are told apart by folders and names",
    )
    assert len(set(labelled.patients().values())) == 4


def test_blanks_and_marks_make_no_class_of_their_own(tmp_path):
    rows = [f"{n}.nii.gz;{'benign' if n % 2 else 'malignant'}{' ' * (n % 3)}" for n in range(6)]
    for number in range(6):
        save(tmp_path / f"{number}.nii.gz", noise(number))
    path = listed(tmp_path, rows, heading="\ufeffpath;label")
    labelled, _ = opened(Classification(path, preprocess=MR), tmp_path / "cache")
    assert labelled.classes == ("benign", "malignant")
    assert len(labelled.items) == 6


def test_copies_with_different_classes_are_named(tmp_path):
    rows = []
    for number in range(8):
        save(tmp_path / f"{number}.nii.gz", noise(number % 7))
        rows.append(f"{number}.nii.gz,{number % 2}")
    task = Classification(listed(tmp_path, rows), preprocess=MR)
    labelled, split = opened(task, tmp_path / "cache")
    assert "copies of one scan have different classes: 000007" in remarks(task, labelled, split)


def test_no_positive_on_a_side_is_said(tmp_path):
    rows = []
    for number in range(20):
        save(tmp_path / f"{number}.nii.gz", noise(number))
        rows.append(f"{number}.nii.gz,{'ill' if number in (3, 11) else 'healthy'}")
    task = Classification(listed(tmp_path, rows), preprocess=MR)
    labelled, split = opened(task, tmp_path / "cache")
    notes = remarks(task, labelled, split)
    assert "no positive (ill) among the 3 validation patients" in notes
    assert any(note.startswith("auc is undefined on the validation side") for note in notes)
    assert not any("test side" in note for note in notes)


def test_every_class_that_is_absent_is_named(tmp_path):
    rows = []
    for number in range(20):
        save(tmp_path / f"{number}.nii.gz", noise(number))
        rows.append(f"{number}.nii.gz,{number if number < 2 else 'common'}")
    task = Classification(listed(tmp_path, rows), preprocess=MR)
    labelled, split = opened(task, tmp_path / "cache")
    notes = remarks(task, labelled, split)
    assert "no 0, 1 among the 3 validation patients" in notes
    assert "no 0, 1 among the 6 test patients" in notes


def test_foreground_is_on_every_side_of_a_segmentation_if_it_can_be(tmp_path):
    for seed in range(4):
        healthy = set(range(7)) if seed % 2 else set(range(3, 10))
        task = segmentation(tmp_path / str(seed), healthy, split_seed=seed)
        labelled, split = opened(task, tmp_path / "cache")
        assert [side.classes["1"] for side in count_sides(labelled, split)] == [1, 1, 1]


def test_no_foreground_on_a_side_is_said(tmp_path):
    task = segmentation(tmp_path / "data", set(range(8)))
    labelled, split = opened(task, tmp_path / "cache")
    notes = remarks(task, labelled, split)
    assert "no foreground among the 2 validation patients" in notes
    assert any(note.startswith("dice_mean is undefined on the validation side") for note in notes)
    assert "a test side of 3 patients says next to nothing of others" in notes


def test_sides_of_one_patient_are_said_to_be_so(tmp_path):
    task = segmentation(tmp_path / "data", set(), count=3)
    labelled, split = opened(task, tmp_path / "cache")
    notes = remarks(task, labelled, split)
    assert "a training side of 1 patient: much depends on who that is" in notes
    assert "a validation side of 1 patient: much depends on who that is" in notes
    assert "a test side of 1 patient says next to nothing of others" in notes


def test_the_table_of_sides_is_told_and_kept(tmp_path):
    task = segmentation(tmp_path / "data", {0}, patient_separator="n")  # no name has it: each its own
    labelled, split = opened(task, tmp_path / "cache")
    told = "\n".join(describe_sides(labelled, split))
    assert "training    5 patients, 5 images; patients with '1': " in told
    write_split(split, tmp_path / "split.json", **about_split(labelled, split))
    kept = json.loads((tmp_path / "split.json").read_text())
    assert kept["sides"]["test"]["patients"] == 3
    assert kept["patients_by"] in told
    assert read_split(tmp_path / "split.json") == split


def pairs(folder: Path, names: list[str], **settings) -> Segmentation:
    """Images and labels of these names, every one another scan."""
    for number, name in enumerate(names):
        label = np.zeros((9, 10, 11), np.uint8)
        label[2:6, 3:7, 4:8] = 1
        save(folder / "images" / f"{name}.nii.gz", noise(number) + 50 * label)
        save(folder / "labels" / f"{name}.nii.gz", label)
    return Segmentation(folder, preprocess=MR, patch_size=(8, 8, 8), **settings)


def people(labelled, split) -> list[set[str]]:
    return [
        {labelled.item(item).patient for item in side} for side in (split.train, split.validation, split.test)
    ]


def test_sessions_of_a_bids_subject_are_on_one_side(tmp_path):
    names = [f"sub-{n:02d}_ses-{s}_T1w" for n in range(10) for s in (1, 2)]
    for seed in range(3):
        task = pairs(tmp_path / "data", names, split_seed=seed)
        labelled, split = opened(task, tmp_path / "cache")
        sides = people(labelled, split)
        assert sum(map(len, sides)) == 10
        assert set.union(*sides) == {f"sub-{n:02d}" for n in range(10)}
        assert [side.images for side in count_sides(labelled, split)] == [2 * len(side) for side in sides]
    assert describe_sides(labelled, split)[-1].endswith("told apart by BIDS subjects.")
    assert about_split(labelled, split)["patients_by"] == "BIDS subjects"


def test_names_that_say_nothing_of_patients_stay_patients_of_their_own(tmp_path):
    names = [f"case_{n:04d}_{modality}" for n in range(4) for modality in ("t1", "t2")]
    labelled, split = opened(pairs(tmp_path / "data", names), tmp_path / "cache")
    assert set.union(*people(labelled, split)) == set(names)
    assert labelled.patients_by == "names, each image a patient of its own"


def test_a_pattern_tells_patients_apart(tmp_path):
    names = [f"case_{n:04d}_{modality}" for n in range(6) for modality in ("t1", "t2")]
    task = pairs(tmp_path / "data", names, patient_pattern=r"(case_\d+)")
    labelled, split = opened(task, tmp_path / "cache")
    assert set.union(*people(labelled, split)) == {f"case_{n:04d}" for n in range(6)}
    assert labelled.patients_by == "patient_pattern"
    with pytest.raises(TaskError, match=r"--task.patient_pattern '\(t1\)' finds no patient in 6 of 12"):
        opened(task.replace(patient_pattern="(t1)"), tmp_path / "cache")
    plain, _ = opened(task.replace(patient_pattern=None), tmp_path / "cache")
    assert len({item.patient for item in plain.items}) == 12  # another cache: neither undoes the other


def test_one_patient_in_two_folders_of_modalities_is_on_one_side_of_a_csv(tmp_path):
    rows = []
    for number in range(8):
        for seed, modality in enumerate(("CT", "MR_T1")):
            save(tmp_path / modality / "images" / f"P_{number:03d}.nii.gz", noise(10 * number + seed))
            rows.append(f"{modality}/images/P_{number:03d}.nii.gz,{number % 2}")
    labelled, split = opened(Classification(listed(tmp_path, rows), preprocess=MR), tmp_path / "cache")
    sides = people(labelled, split)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 8
    assert labelled.patients_by == "equal names in folders of modalities"


def test_rows_of_one_file_are_one_patient(tmp_path):
    rows = []
    for number in range(6):
        save(tmp_path / f"{number}.nii.gz", noise(number))
        rows += [f"{number}.nii.gz,{kind},{4 * kind},{4 * kind + 4},0,8,0,8" for kind in (0, 1)]
    heading = "path,label,z_min,z_max,y_min,y_max,x_min,x_max"
    task = Classification(listed(tmp_path, rows, heading=heading), preprocess=MR)
    labelled, split = opened(task, tmp_path / "cache")
    assert [side.items for side in count_sides(labelled, split)] == [
        2 * len(p) for p in people(labelled, split)
    ]


def test_joined_patients_are_counted(tmp_path):
    task = pairs(tmp_path / "data", [f"c{n}" for n in range(6)])
    for kind in ("images", "labels"):
        source = tmp_path / "data" / kind / "c0.nii.gz"
        (tmp_path / "data" / kind / "again.nii.gz").write_bytes(source.read_bytes())
    labelled, _ = opened(task, tmp_path / "cache")
    assert labelled.patients_by == (
        "names, each image a patient of its own; scans equal voxel for voxel make 1 of them one with another"
    )


def test_a_separator_counts_for_every_case_before_the_folders(tmp_path):
    """Two visits of eight people in a BIDS tree, of which the cases of a data set take one name with a suffix."""
    listed = {}
    for number in range(8):
        for case, visit in ((f"sub-{number:02d}", "ses-1"), (f"sub-{number:02d}_fu", "ses-2")):
            stem = f"raw/sub-{number:02d}/{visit}/sub-{number:02d}_{visit}"
            listed[case] = {"images": [f"{stem}_T1w.nii.gz"], "label": f"{stem}_seg.nii.gz"}
            for kind in ("T1w", "seg"):
                (tmp_path / f"{stem}_{kind}.nii.gz").parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / f"{stem}_{kind}.nii.gz").touch()
    said = {"labels": {"background": 0, "x": 1}, "channel_names": {"0": "T1"}, "dataset": listed}
    (tmp_path / "dataset.json").write_text(json.dumps(said))

    def people(separator):
        task = Segmentation(tmp_path, patient_separator=separator)
        return {case.case_id: case.patient for case in task.tell_patients(task.sources().cases)}

    assert people("_") == {case: case[:6] for case in listed}
    assert people("+") == people(None) == {case: f"raw/{case[:6]}" for case in listed}  # as the folders say


def test_the_fingerprint_of_labels_is_that_of_labels_alone(tmp_path):
    def found(folder, **settings):
        task = segmentation(tmp_path / folder, {0}, count=3, **settings)
        return task.labelled(cache=tmp_path / "cache", workers=0, progress=False)

    first, again = found("a"), found("b")
    assert first.fingerprint() == again.fingerprint() != ""
    resampled = segmentation(tmp_path / "d", {0}, count=3).replace(
        preprocess=MR.replace(spacing_mm=(2, 2, 2))
    )
    coarse = resampled.labelled(cache=tmp_path / "cache", workers=0, progress=False)
    assert coarse.fingerprint() == first.fingerprint()
    task = segmentation(tmp_path / "e", {0}, count=3)
    corrected = np.zeros((9, 10, 11), np.uint8)
    corrected[2:6, 3:7, 4:7] = 1
    save(tmp_path / "e/labels/c1.nii.gz", corrected)
    other = task.labelled(cache=tmp_path / "cache", workers=0, progress=False)
    assert other.store.fingerprint() == first.store.fingerprint()
    assert other.fingerprint() != first.fingerprint()


def test_the_fingerprint_of_classes_changes_with_a_class(tmp_path):
    for number in range(4):
        save(tmp_path / f"s{number}.nii.gz", noise(number))

    def found(*classes):
        task = Classification(
            listed(tmp_path, [f"s{n}.nii.gz,{name}" for n, name in enumerate(classes)]), preprocess=MR
        )
        return task.labelled(cache=tmp_path / "cache", workers=0, progress=False).fingerprint()

    assert found("a", "b", "a", "b") == found("a", "b", "a", "b") != found("a", "b", "b", "b")
