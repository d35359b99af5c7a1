from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from parts2whole.tasks.candidates import detection_metrics
from parts2whole.tasks.labelled import TaskError
from parts2whole.tasks.nodule_false_positives import NoduleFalsePositives
from task_trees import PATCH, luna16, write_csv

POINTS = ["seriesuid", "coordX", "coordY", "coordZ"]


def opened(root: Path, cache: Path, **settings):
    task = NoduleFalsePositives(root, patch_size=PATCH, **settings)
    return task, task.labelled(cache=cache, workers=0, progress=False)


def test_candidates_are_placed_in_flipped_and_straight_scans(tmp_path):
    task, labelled = opened(luna16(tmp_path / "luna"), tmp_path / "cache")
    assert len(labelled.items) == 60
    for item in labelled.items:
        patch = task.image(labelled, item.item_id)[0].numpy()
        middle = patch[7:9, 7:9, 7:9].mean()
        assert (middle > 0.45) == bool(item.target), item  # 40 HU is 0.52, lung at -800 HU is 0.1


def test_official_subsets_are_the_folds(tmp_path):
    task, labelled = opened(luna16(tmp_path / "luna", per_subset=1), tmp_path / "cache")
    split = task.split(labelled)
    subset = {path.stem: int(path.parent.name[-1]) for path in (tmp_path / "luna").rglob("*.mhd")}
    for items, wanted in (
        (split.train, {0, 1, 2, 3, 4}),
        (split.validation, {5, 6}),
        (split.test, {7, 8, 9}),
    ):
        assert {subset[labelled.item(item).case_id] for item in items} == wanted


def test_a_partial_download_needs_an_own_split(tmp_path):
    luna16(tmp_path / "luna", subsets=range(4))
    with pytest.raises(TaskError, match=r"validation side.*subset 5, 6.*folds patient"):
        opened(tmp_path / "luna", tmp_path / "cache")
    task, labelled = opened(tmp_path / "luna", tmp_path / "cache", folds="patient")
    assert len(task.split(labelled).test) == 6


def test_hits_follow_the_challenge(tmp_path):
    root = luna16(tmp_path / "luna")
    nodules = {row["seriesuid"]: row for row in csv.DictReader((root / "annotations.csv").open())}
    uid = sorted(nodules)[8]
    x, y, z = (float(nodules[uid][f"coord{axis}"]) for axis in "XYZ")
    rows = [list(row.values()) for row in csv.DictReader((root / "candidates_V2.csv").open())]
    rows += [[uid, x, y, z + 4.9, 0], [uid, x, y, z + 5.0, 0]]  # radius 5 mm: within, and just not
    write_csv(root / "candidates_V2.csv", [*POINTS, "class"], rows)
    write_csv(root / "annotations_excluded.csv", [*POINTS, "diameter_mm"], [[uid, x, y, z + 12, -1]])
    _, labelled = opened(root, tmp_path / "cache")
    edge, beside = sorted(labelled.items, key=lambda item: item.item_id)[-2:]  # named by their lines
    assert edge.lesions
    assert not edge.irrelevant  # 7.1 mm from an excluded finding that counts as 10 mm wide
    assert not beside.lesions
    rows = [
        {"case": item.item_id, "scan": item.case_id, "p_lesion": 0.9 if item.lesions else 0.1}
        for item in labelled.items
    ]
    found = detection_metrics(labelled, rows)
    assert found["cpm"] == found["auc_lesions"] == 1
    for row in rows:  # the last scan's nodule is missed by every candidate
        if row["scan"] == uid and labelled.item(row["case"]).lesions:
            row["p_lesion"] = 0.01
    assert detection_metrics(labelled, rows)["sensitivity_at_0.125_fp"] < 1


def test_what_is_wrong_is_an_error_or_a_note(tmp_path):
    root = luna16(tmp_path / "luna")
    rows = [list(row.values()) for row in csv.DictReader((root / "candidates_V2.csv").open())]
    outside = [rows[0][0], "5000", "0", "0", "0"]
    write_csv(root / "candidates_V2.csv", [*POINTS, "class"], [*rows, outside, ["1.2.3", 0, 0, 0, 0]])
    _, labelled = opened(root, tmp_path / "a")
    assert any("1 candidates lie outside their scans" in note for note in labelled.notes)
    assert any("1 candidates belong to 1 scans that are not here" in note for note in labelled.notes)
    assert any("annotations_excluded" in note for note in labelled.notes)
    raw = next((root / "subset3").glob("*.raw"))
    raw.write_bytes(raw.read_bytes()[:100])
    _, labelled = opened(root, tmp_path / "b")
    assert any(raw.stem in note and "set aside" in note for note in labelled.notes)
    negative = [[*row[:4], 0] for row in rows]
    write_csv(root / "candidates_V2.csv", [*POINTS, "class"], negative)
    with pytest.raises(TaskError, match=r"no candidate .* as a nodule"):
        opened(root, tmp_path / "b")
    write_csv(root / "candidates_V2.csv", [*POINTS, "class"], [[*rows[0][:3], "deep", 1]])
    with pytest.raises(TaskError, match=r"line 2: .* must be numbers"):
        opened(root, tmp_path / "b")
    write_csv(root / "candidates_V2.csv", POINTS, [])
    with pytest.raises(TaskError, match="class is missing"):
        opened(root, tmp_path / "b")
    (root / "candidates_V2.csv").unlink()
    with pytest.raises(TaskError, match=r"candidates_V2.csv is missing"):
        opened(root, tmp_path / "b")


def test_only_a_sample_of_the_negatives_is_judged_while_training(tmp_path):
    task, labelled = opened(luna16(tmp_path / "luna"), tmp_path / "cache", quick_negatives=5)
    items = [item.item_id for item in labelled.items]
    chosen = task._sampled(labelled, items)
    targets = [labelled.item(item).target for item in chosen]
    assert (targets.count(1), targets.count(0)) == (20, 5)
    assert np.array_equal(chosen, task._sampled(labelled, items))
