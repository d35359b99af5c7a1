from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.source import ScanSource
from parts2whole.scans.volume import Volume
from parts2whole.tasks import embolism_false_positives
from parts2whole.tasks.emboli import negatives, positives
from parts2whole.tasks.embolism_false_positives import EXAM_CLASSES, EmbolismFalsePositives
from parts2whole.tasks.labelled import TaskError
from parts2whole.wholes.random import sample_generator
from task_trees import SMALL, angiogram, cad_pe, write_csv, write_nrrd, write_series


def opened(root: Path, cache: Path, **settings):
    task = EmbolismFalsePositives(root, away_mm=10, hidden=8, **(SMALL | settings))
    return task, task.labelled(cache=cache, workers=0, progress=False)


def fumpe(root: Path, patients: int = 4) -> Path:
    (root / "GroundTruth").mkdir(parents=True)
    for number in range(1, patients + 1):
        hu, label = angiogram(number)
        name = f"PAT{number:03d}"
        write_series(root / "CT_scans" / name, hu, patient="ANON", spacing=(1.5, 1.5, 1.5), downwards=True)
        by_instance = np.moveaxis(label[::-1] > 0, 0, 2)  # instance 1 is the highest slice
        savemat(root / "GroundTruth" / f"{name}.mat", {"Mask": by_instance.astype(np.uint8)})
    return root


def check_candidates(task, labelled) -> None:
    """Positives lie in emboli, negatives on vessels away from them."""
    for item in labelled.items:
        hu = task.image(labelled, item.item_id)[0].numpy()[7:9, 7:9, 7:9].max() * 2000 - 1000
        centre = tuple(round(c) for c in item.centre)
        label = labelled.store.read_label(item.case_id)
        assert bool(label[centre]) == bool(item.target) == bool(item.lesions)
        if not item.target:
            places = np.argwhere(label)
            assert np.linalg.norm((places - item.centre) * 1.5, axis=1).min() >= 9
            assert hu > 0


def test_candidates_of_cad_pe(tmp_path):
    task, labelled = opened(cad_pe(tmp_path / "cad", 4), tmp_path / "cache")
    check_candidates(task, labelled)
    assert {case: len(names) for case, names in labelled.lesions.items()} == {
        "CT001": 2,
        "CT002": 1,
        "CT003": 2,
        "CT004": 1,
    }
    assert min(sum(not i.target for i in labelled.items if i.case_id == c) for c in labelled.lesions) >= 2
    again = opened(tmp_path / "cad", tmp_path / "another cache")[1]
    assert again.items == labelled.items


def test_candidates_of_fumpe_with_slices_counted_downwards(tmp_path):
    task, labelled = opened(fumpe(tmp_path / "fumpe"), tmp_path / "cache")
    check_candidates(task, labelled)
    for number in range(1, 5):
        stored = labelled.store.read_label(f"PAT{number:03d}")
        assert np.array_equal(stored > 0, angiogram(number)[1] > 0)
    assert {item.patient for item in labelled.items} == {f"PAT{number:03d}" for number in range(1, 5)}
    assert labelled.patients_by == "the data set's own ids"


def test_fumpe_cases_that_do_not_fit(tmp_path):
    root = fumpe(tmp_path / "fumpe")
    (root / "GroundTruth" / "PAT001.mat").unlink()
    savemat(root / "GroundTruth" / "PAT002.mat", {"Mask": np.zeros((3, 4, 5), np.uint8)})
    savemat(root / "GroundTruth" / "PAT003.mat", {"a": np.zeros((3, 4, 5)), "b": np.zeros((3, 4, 5))})
    _, labelled = opened(root, tmp_path / "cache")
    assert {item.case_id for item in labelled.items} == {"PAT004"}
    text = " ".join(labelled.notes)
    for reason in ("PAT001.mat is missing", "PAT002.mat has (3, 4, 5)", "holds 2 3-D arrays"):
        assert reason in text


def test_a_scan_without_emboli_gives_negatives_only(tmp_path):
    root = cad_pe(tmp_path / "cad", 4)
    write_nrrd(root / "rs" / "CT002RefStd.nrrd", np.zeros((28, 40, 40), np.uint8))
    (root / "rs" / "CT003RefStd.nrrd").unlink()
    _, labelled = opened(root, tmp_path / "cache")
    assert {item.target for item in labelled.items if item.case_id == "CT002"} == {0}
    assert any("CT003 was set aside: no reference" in note for note in labelled.notes)
    for number in (1, 4):
        write_nrrd(root / "rs" / f"CT{number:03d}RefStd.nrrd", np.zeros((28, 40, 40), np.uint8))
    with pytest.raises(TaskError, match=r"no scan .* has an embolus"):
        opened(root, tmp_path / "cache")


def test_examinations_of_rsna(tmp_path):
    root = tmp_path / "rsna"
    rows = []
    for number in range(6):
        hu, _ = angiogram(number)
        uid, study = f"1.2.{number}", f"1.1.{number}"
        if number < 5:
            write_series(root / "train" / study / uid, hu[:6], patient=f"p{number}", series=uid, study=study)
        rows += [[study, uid, f"{uid}.{k}", k % 2, number % 2, int(number == 4)] for k in range(6)]
    columns = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "pe_present_on_image"]
    write_csv(root / "train.csv", [*columns, "negative_exam_for_pe", "indeterminate"], rows)
    task, labelled = opened(root, tmp_path / "cache")
    assert labelled.classes == EXAM_CLASSES
    assert [item.target for item in labelled.items].count(1) == 2
    assert len(labelled.items) == 4
    assert task.image(labelled, labelled.items[0].item_id).shape == (1, *SMALL["patch_size"])
    text = " ".join(labelled.notes)
    assert "labelled indeterminate" in text
    assert "its series is not in train/" in text


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(TaskError, match="none of the known data sets"):
        opened(tmp_path, tmp_path / "cache")


def test_positives_are_the_middle_and_what_is_farthest():
    emboli = np.zeros((30, 9, 9), np.uint8)
    emboli[2:28, 4, 4] = 1
    emboli[5, 0, 0] = 2  # 1 mm3
    task = EmbolismFalsePositives(Path("data"), per_embolus=3)
    rows = positives(emboli, (1.0, 1.0, 1.0), task.rules(numbered=True))
    assert [row["embolus"] for row in rows] == [1, 1, 1]
    assert sorted(row["centre"][0] for row in rows) == [2, 14, 27]


def test_negatives_lie_on_tubes_not_on_blobs_or_in_thick_tissue():
    hu, _ = angiogram(0, (28, 60, 60))
    hu[:, 40:, :25] = 50  # soft tissue
    hu[10:20, 8:18, 40:50] = 300  # a block
    task = EmbolismFalsePositives(Path("data"))
    rows = negatives(
        Volume(hu, (1.5,) * 3), np.zeros(hu.shape, bool), task.rules(numbered=True), sample_generator(0)
    )
    on_tubes = [
        min(np.hypot(y - r, x - c) for r, c in ((10, 10), (30, 30), (10, 30))) <= 3
        for _, y, x in (row["centre"] for row in rows)
    ]
    assert sum(on_tubes) >= 6
    for z, y, x in (row["centre"] for row in rows):
        assert not (y >= 40 and x < 25)
        assert not (13 <= z < 17 and 11 <= y < 15 and 43 <= x < 47)  # the block's edges look like tubes


@pytest.mark.parametrize("window", [(-1000.0, 500.0), (-400.0, 1000.0)])
def test_a_window_without_lung_or_bone_is_refused(window):
    task = EmbolismFalsePositives(Path("data"), preprocess=Preprocess(modality="CT", window_hu=window))
    with pytest.raises(TaskError, match=f"a window from {window[0]:g} to {window[1]:g} HU"):
        task.rules(numbered=True)


def test_a_series_of_two_volumes_is_no_examination(tmp_path, monkeypatch):
    def volume(name, series, problem=None):
        return ScanSource(name, (Path(f"{name}.dcm"),), problem, patient=name, series=series)

    found = [volume("a-1", "1.0"), volume("a-2", "1.0"), volume("b-1", "1.1"), volume("b-2", "1.1", "lost")]
    found += [volume("c", "1.2", "broken"), volume("d", "1.3")]
    monkeypatch.setattr(embolism_false_positives, "find_scans", lambda *_, **__: found)
    columns = ["StudyInstanceUID", "SeriesInstanceUID", "negative_exam_for_pe", "indeterminate"]
    write_csv(tmp_path / "train.csv", columns, [["1", f"1.{n}", int(n == 1), 0] for n in range(4)])
    made = embolism_false_positives._rsna(tmp_path)
    assert [case.case_id for case in made.cases] == ["b-1", "d"]
    assert made.set_aside == {
        "a-1": "its series holds 2 volumes, and which one was judged can't be known",
        "c": "broken",
    }
