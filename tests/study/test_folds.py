"""Folds of a study: every patient is tested once by a network that hasn't seen it, and counts once."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import parts2whole as p2w
from parts2whole.report.folds import pool_folds
from parts2whole.report.runs import read_run
from parts2whole.report.study import read_runs
from parts2whole.store.split import SplitError, fold_by_patient
from parts2whole.store.store import Store
from parts2whole.study.read import StudyError
from parts2whole.study.resolve import read_study
from parts2whole.tasks.labelled import TaskError
from parts2whole.verbs.benchmark import study_verbs

PATIENTS = 7
PLAIN: dict[str, Any] = {
    "data": {"stores": {"pool": {"scans": ["labelled/images", "others"], "modality": "MR"}}},
    "network": {"PlainUNet3D": {"widths": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]]}},
    "arms": {"scratch": "scratch", "Parts2Whole": "Parts2Whole"},
    "tasks": {
        "Balls": {
            "task": {
                "Segmentation": {
                    "data": "labelled",
                    "preprocess": {"modality": "MR"},
                    "patch_size": [8, 8, 8],
                    "validation_fraction": 0.15,
                    "patient_separator": "-",
                }
            },
            "folds": 3,
        }
    },
    "seeds": 1,
    "pretrain": {
        **{"store": "pool", "whole_size": [8, 8, 8], "steps": 1, "batch_size": 2, "embed_wholes": 2},
        **{"validation_wholes": 2, "validate_every": 1, "validation_fraction": 0.4, "held_out": "task"},
    },
    "finetune": {"steps": 1, "batch_size": 2, "validate_every": 1},
    "hardware": {"accelerator": "cpu", "precision": "32-true"},
    "keep_models": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight labelled scans of seven patients, and five others."""
    root = tmp_path_factory.mktemp("folds")
    names = [f"labelled/images/p{number}-a" for number in range(PATIENTS)]
    for case, name in enumerate([*names, "labelled/images/p0-b", *(f"others/o{n}" for n in range(5))]):
        generator = np.random.default_rng(case)
        label = np.zeros((8, 8, 8), np.uint8)
        z, y, x = generator.integers(0, 4, 3)
        label[z : z + 4, y : y + 4, x : x + 4] = 1
        image = (generator.normal(100, 5, label.shape) + 80 * label).astype(np.float32)
        for path, array in ((root / f"{name}.nii.gz", image), (root / f"{name}.nii.gz", label)):
            if array is label and "labelled" not in name:
                continue
            place = Path(str(path).replace("images", "labels")) if array is label else path
            place.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), place)
    (root / "study.yaml").write_text(yaml.safe_dump(PLAIN, sort_keys=False))
    return root


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield p2w.benchmark(folder / "study.yaml", out=folder / "out", workers=0, progress=False)


def resolve(folder: Path, **changed: Any) -> Any:
    path = folder / f"study-{len(list(folder.glob('*.yaml')))}.yaml"
    path.write_text(yaml.safe_dump(PLAIN | changed, sort_keys=False))
    return read_study(path, out=folder / "out", verbs=study_verbs())


@given(
    st.dictionaries(st.integers(0, 10**6), st.sampled_from("abc"), min_size=6, max_size=40),
    st.integers(2, 6),
    st.integers(0, 5),
)
@settings(max_examples=25, deadline=None)
def test_every_patient_is_tested_once_and_on_one_side(found, of, seed):
    patients = {f"{number}-{scan}": str(number) for number in found for scan in range(1 + number % 2)}
    strata = {case: found[int(patient)] for case, patient in patients.items()}
    folds = [
        fold_by_patient(patients, fold=fold, of=of, validation=0.15, seed=seed, strata=strata)
        for fold in range(1, of + 1)
    ]
    assert Counter(case for fold in folds for case in fold.test) == dict.fromkeys(patients, 1)
    for fold in folds:
        sides = [{patients[case] for case in side} for side in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, sides)) == len(set(patients.values())) == len(set.union(*sides))
        assert all(sides)
        sizes = Counter(found[int(patient)] for patient in sides[2])
        whole = Counter(found[int(patient)] for patient in set(patients.values()))
        assert all(abs(sizes[kind] - whole[kind] / of) < 1 for kind in whole)  # as many of a kind in all


def test_folds_that_can_not_be_are_refused(folder):
    people = {"a": "a", "b": "b", "c": "c"}
    with pytest.raises(SplitError, match="folds must be from 2 to the number of patients, 3; got 4"):
        fold_by_patient(people, fold=1, of=4, validation=0.2)
    with pytest.raises(SplitError, match="a fold of 3 must be from 1 to 3, got 0"):
        fold_by_patient(people, fold=0, of=3, validation=0.2)
    task = PLAIN["tasks"]["Balls"]
    with pytest.raises(StudyError, match=r"tasks\.Balls\.folds must be 2 or more, got 1"):
        resolve(folder, tasks={"Balls": task | {"folds": 1}})
    with pytest.raises(StudyError, match=r"tasks\.Balls\.folds must be a whole number"):
        resolve(folder, tasks={"Balls": task | {"folds": "five"}})
    whole = {key: value for key, value in task.items() if key != "folds"}
    with pytest.raises(StudyError, match=r"held_out is fold, and tasks\.Balls has no folds"):
        resolve(folder, tasks={"Balls": whole}, pretrain=PLAIN["pretrain"] | {"held_out": "fold"})


def test_a_data_set_that_says_who_is_tested_has_no_folds(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 8)).astype(np.uint8)
    sides = {f"{side}_images": images[i::3] for i, side in enumerate(("train", "val", "test"))}
    labels = {f"{side}_labels": np.arange(3)[:, None] % 2 for side in ("train", "val", "test")}
    np.savez(tmp_path / "set.npz", **sides, **labels)
    task = p2w.Classification(tmp_path / "set.npz", patch_size=(8, 8, 8), fold=(1, 2))
    with pytest.raises(TaskError, match="says who is tested, so there can be no folds"):
        task.split(task.labelled(cache=tmp_path / "cache", progress=False))


def test_without_folds_nothing_is_called_otherwise_than_before():
    task = p2w.Segmentation("data")
    assert "fold" not in task.to_dict()["init_args"]
    assert task.replace(fold=(1, 3)).to_dict()["init_args"]["fold"] == [1, 3]
    assert task.replace(fold=(1, 3)).digest() != task.digest()


def test_one_pretraining_for_all_folds_or_one_for_each(folder):
    study = resolve(folder)
    assert len(study.finetunings) == 2 * 1 * 3
    assert {one.fold for one in study.finetunings} == {(1, 3), (2, 3), (3, 3)}
    assert [one.settings["held_out"].fold for one in study.pretrainings.values()] == [(0, 3)]
    assert "1 seed, 3 folds: 6 fine-tunings and 1 pre-training" in study.describe()
    study = resolve(folder, pretrain=PLAIN["pretrain"] | {"held_out": "fold"})
    assert [one.settings["held_out"].fold for one in study.pretrainings.values()] == [(1, 3), (2, 3), (3, 3)]
    for one in study.finetunings:
        if one.pretraining:
            assert study.pretrainings[one.pretraining].settings["held_out"] == one.settings["task"]


def test_patients_are_tested_once_a_seed_by_what_has_not_seen_them(folder, finished):
    assert not finished.failures
    tested: dict[Any, Counter[str]] = {}
    for path in (folder / "out/cells").glob("*/cell.json"):
        about = json.loads(path.read_text())
        sides = json.loads((path.parent / "split.json").read_text())
        people = [
            {case.partition("-")[0] for case in sides[side]} for side in ("train", "validation", "test")
        ]
        assert sum(map(len, people)) == PATIENTS == len(set.union(*people))
        rows = list(csv.DictReader((path.parent / "test_cases.csv").open()))
        assert {row["case"] for row in rows} == set(sides["test"])
        tested.setdefault((about["arm"], about["seed"]), Counter()).update(row["case"] for row in rows)
    labelled = [path.name.removesuffix(".nii.gz") for path in (folder / "labelled/images").iterdir()]
    assert set(tested) == {(arm, seed) for arm in ("scratch", "Parts2Whole") for seed in (0,)}
    assert all(count == dict.fromkeys(labelled, 1) for count in tested.values())
    (pretraining,) = (folder / "out/pretraining").glob("*/weights/card.json")
    seen = json.loads(pretraining.read_text())["seen"]
    (store,) = (folder / "out/stores").glob("pool-*")
    opened = Store.open(store)
    others = [record for record in opened.cases if "o" in record.case_id.partition("_")[0]]
    assert {hash_ for record in others for hash_ in record.hashes()} >= set(seen)
    assert len(others) == 5
    assert seen


def test_the_table_is_the_mean_over_all_patients_by_hand(folder, finished):
    by_hand: dict[Any, list[float]] = {}
    for path in (folder / "out/cells").glob("*/cell.json"):
        about = json.loads(path.read_text())
        for row in csv.DictReader((path.parent / "test_cases.csv").open()):
            by_hand.setdefault((about["arm"], about["seed"]), []).append(float(row["dice_mean"]))
    assert {len(values) for values in by_hand.values()} == {8}
    (row,) = finished.table.rows
    for arm, cell in row.cells.items():
        assert cell.values == pytest.approx({0: np.mean(by_hand[arm, 0])})
    results = list(csv.DictReader((folder / "out/results.csv").open()))
    assert sum(one["metric"] == "dice_mean" for one in results) == 2
    assert finished.finished == 6
    runs = [run for run in read_runs(folder / "out") if run.kind == "finetune"]
    assert {len({case["patient"] for case in run.cases}) for run in runs} == {PATIENTS}
    again = p2w.compare([folder / "out/cells"], focus="Parts2Whole").table
    assert {arm: cell.values for arm, cell in again.rows[0].cells.items()} == {
        arm: cell.values for arm, cell in row.cells.items()
    }
    assert p2w.benchmark(folder / "study.yaml", out=folder / "out", workers=0, progress=False).reused == 6


def test_a_seed_counts_when_all_of_its_folds_are_tested(folder, finished):
    runs = [read_run(path.parent) for path in sorted((folder / "out/cells").glob("*/cell.json"))]
    lost = runs[-1]
    left, waiting = sorted(
        pool_folds(run for run in runs if run is not lost), key=lambda run: not run.finished
    )
    assert left.result["arm"] == next(iter({run.result["arm"] for run in runs} - {lost.result["arm"]}))
    assert (left.result["folds"], len(left.cases)) == (3, 8)
    assert (waiting.finished, waiting.waits) == (False, True)
    others = [run for run in runs if run.result["arm"] == lost.result["arm"] and run is not lost]
    assert waiting.duration_s == pytest.approx(sum(run.duration_s for run in others))
    (note,) = waiting.notes
    assert note.startswith(lost.result["arm"])
    assert "2 of 3 folds are finished" in note


def test_the_probabilities_of_folds_are_ranked_together(tmp_path):
    """Each fold alone has an AUC of 1; over all four patients a negative beats a positive."""
    scores = {1: [("a", "no", 0.1), ("b", "yes", 0.3)], 2: [("c", "no", 0.6), ("d", "yes", 0.9)]}
    for fold, rows in scores.items():
        place = tmp_path / str(fold)
        place.mkdir()
        result = {"kind": "finetune", "test": {"auc": 1.0}, "seed": 0, "fraction": 1.0, "train_cases": ["x"]}
        (place / "result.json").write_text(json.dumps(result))
        (place / "cell.json").write_text(json.dumps({"arm": "one", "task_name": "t", "fold": [fold, 2]}))
        (place / "config.yaml").write_text("steps: 1\n")
        lines = [f"{case},{target},{1 - p},{p}" for case, target, p in rows]
        (place / "test_cases.csv").write_text("\n".join(["case,target,p_no,p_yes", *lines]) + "\n")
    (run,) = pool_folds(read_run(tmp_path / str(fold)) for fold in (1, 2))
    assert run.result["test"] == {"auc": pytest.approx(3 / 4)}  # of 4 pairs all but b below c
