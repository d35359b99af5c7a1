"""Data or weights that change under a run, or under the finished part of a study, are told and not mixed in."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

import parts2whole as p2w
from parts2whole.report.study import read_listing
from parts2whole.scans.preprocess import Preprocess
from parts2whole.study.read import StudyError
from parts2whole.tasks.labelled import TaskError
from parts2whole.training.folder import RunFolderError
from parts2whole.training.optim import Constant
from parts2whole.training.runtime import Hardware

CPU = Hardware(accelerator="cpu", precision="32-true")
SMALL: dict[str, Any] = {"network": p2w.UNet3D(size="tiny"), "steps": 2, "batch_size": 2, "hardware": CPU}


def write_scan(path: Path, seed: int, *, label: bool = False) -> None:
    generator = np.random.default_rng(seed)
    image = generator.normal(100, 5, (16, 16, 16)).astype(np.float32)
    mask = np.zeros(image.shape, np.uint8)
    z, y, x = generator.integers(2, 8, 3)
    mask[z : z + 6, y : y + 6, x : x + 6] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask if label else image + 80 * mask, np.eye(4)), path)


def write_table(path: Path, rows: list[tuple[str, str, str]], **box: int) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "patient", *box])
        writer.writerows([*row, *box.values()] for row in rows)
    return path


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two classes of six patients each, one scan a row."""
    rows = []
    for number in range(12):
        write_scan(tmp_path / f"scan{number}.nii.gz", number)
        rows.append((f"scan{number}.nii.gz", "ab"[number % 2], f"p{number}"))
    return write_table(tmp_path / "table.csv", rows)


def classify(table: Path, out: Path, **changed: Any) -> Any:
    task = p2w.Classification(table, preprocess=Preprocess(modality="MR"), patch_size=(16, 16, 16))
    return p2w.finetune(task, out=out, progress=False, **(SMALL | changed))


def reorder(table: Path) -> None:
    """The same rows, the other way round."""
    heading, *rows = table.read_text().splitlines()
    table.write_text("\n".join([heading, *rows[::-1]]) + "\n")


def test_a_table_whose_rows_have_moved_is_not_evaluated_by_their_numbers(table: Path, tmp_path: Path) -> None:
    classify(table, tmp_path / "run")
    p2w.evaluate(tmp_path / "run", hardware=CPU, progress=False)
    reorder(table)
    with pytest.raises(TaskError, match=r"of the run in .* changed since .*rows of a table have moved"):
        p2w.evaluate(tmp_path / "run", hardware=CPU, progress=False)


def test_a_run_does_not_go_on_with_a_table_whose_rows_have_moved(table: Path, tmp_path: Path) -> None:
    classify(table, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()  # as if it had been killed before its test
    reorder(table)
    with pytest.raises(TaskError, match=r"8 of 8 cases of the run in .*/run changed since"):
        classify(table, tmp_path / "run", resume=True)
    reorder(table)
    assert classify(table, tmp_path / "run", resume=True).result["test"]


def test_what_was_mended_before_anything_was_learned_is_taken(table: Path, tmp_path: Path) -> None:
    classify(table, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # as if it had been killed in its first steps
    reorder(table)
    assert classify(table, tmp_path / "run", resume="auto").result["test"]
    assert p2w.evaluate(tmp_path / "run", hardware=CPU, progress=False).metrics


def test_other_boxes_are_other_data(table: Path, tmp_path: Path) -> None:
    rows = [tuple(line.split(",")) for line in table.read_text().splitlines()[1:]]
    found = []
    for start in (0, 4):
        box = {f"{axis}_{end}": start + 8 * (end == "max") for axis in "zyx" for end in ("min", "max")}
        path = write_table(tmp_path / "boxes.csv", rows, **box)  # type: ignore[arg-type]
        task = p2w.Classification(path, preprocess=Preprocess(modality="MR"), patch_size=(8, 8, 8))
        labelled = task.labelled(cache=tmp_path / f"cache{start}", workers=0, progress=False)
        found.append((labelled.fingerprint(), labelled.marks(["000000"])["000000"]))
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


def test_a_pretraining_does_not_go_on_with_other_scans_of_the_same_names(tmp_path: Path) -> None:
    for number in range(6):
        write_scan(tmp_path / "scans" / f"s{number}.nii.gz", number)
    store = p2w.prepare(
        [tmp_path / "scans"], out=tmp_path / "store", modality="MR", workers=0, progress=False
    )
    settings: dict[str, Any] = SMALL | {"whole_size": (16, 16, 16), "progress": False, "embed_wholes": 0}
    p2w.pretrain(store.path, method=p2w.Parts2Whole(), out=tmp_path / "run", **settings)
    (tmp_path / "run" / "result.json").unlink()
    write_scan(tmp_path / "scans" / "s0.nii.gz", 100)
    p2w.prepare([tmp_path / "scans"], out=tmp_path / "store", modality="MR", workers=0, progress=False)
    with pytest.raises(
        ValueError, match=r"s0 in the store are other scans than those that .*/run was begun with"
    ):
        p2w.pretrain(store.path, method=p2w.Parts2Whole(), out=tmp_path / "run", resume=True, **settings)


def test_a_finished_run_without_checkpoints_is_not_made_longer_from_nothing(tmp_path: Path) -> None:
    for number in range(4):
        write_scan(tmp_path / "scans" / f"s{number}.nii.gz", number)
    store = p2w.prepare(
        [tmp_path / "scans"], out=tmp_path / "store", modality="MR", workers=0, progress=False
    )
    settings = SMALL | {
        "whole_size": (16, 16, 16),
        "progress": False,
        "embed_wholes": 0,
        "schedule": Constant(),
    }
    p2w.pretrain(store.path, method=p2w.Parts2Whole(), out=tmp_path / "run", **settings)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = (tmp_path / "run" / "result.json").read_bytes()
    longer = settings | {"steps": 4}
    with pytest.raises(RunFolderError, match="keeps no checkpoint to go on from"):
        p2w.pretrain(store.path, method=p2w.Parts2Whole(), out=tmp_path / "run", resume=True, **longer)
    assert (tmp_path / "run" / "result.json").read_bytes() == before


PLAIN: dict[str, Any] = {
    "data": {"stores": {"pool": {"scans": "labelled/images", "modality": "MR"}}},
    "network": {"UNet3D": {"size": "tiny"}},
    "arms": {"scratch": "scratch", "first": "Parts2Whole", "second": "ModelsGenesis"},
    "tasks": {
        "Cubes": {
            "task": {
                "Segmentation": {
                    "data": "labelled",
                    "preprocess": {"modality": "MR"},
                    "patch_size": [16, 16, 16],
                    "validation_fraction": 0.25,
                    "test_fraction": 0.25,
                }
            }
        }
    },
    "cases": [3],
    "seeds": 1,
    "pretrain": {
        **{"store": "pool", "whole_size": [16, 16, 16], "steps": 2, "batch_size": 2, "embed_wholes": 0},
        **{"validation_wholes": 2, "validate_every": 2, "validation_fraction": 0.5, "held_out": "task"},
    },
    "finetune": {"steps": 2, "batch_size": 2, "validate_every": 2},
    "hardware": {"accelerator": "cpu", "precision": "32-true"},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    for case in range(8):
        for kind in ("images", "labels"):
            write_scan(root / f"labelled/{kind}/c{case}.nii.gz", case, label=kind == "labels")
    done = run(root)
    assert (done.finished, done.failures) == (3, {})
    return root


def run(root: Path, **changed: Any) -> Any:
    path = root / "study.yaml"
    path.write_text(yaml.safe_dump(PLAIN | changed, sort_keys=False))
    return p2w.benchmark(path, out=root / "out", workers=0, progress=False)


def test_arms_that_change_their_names_take_their_pretrainings_along(study: Path) -> None:
    def methods() -> dict[str, str]:
        listing = read_listing(study / "out")
        assert listing is not None
        found = [one for one in listing.read() if one.kind == "pretrain"]
        return {one.result["arm"]: one.result["method"]["class_path"].rpartition(".")[2] for one in found}

    assert methods() == {"first": "Parts2Whole", "second": "ModelsGenesis"}
    run(study, arms={"scratch": "scratch", "first": "ModelsGenesis", "second": "Parts2Whole"})
    assert methods() == {"first": "ModelsGenesis", "second": "Parts2Whole"}
    run(study)


def test_labels_that_change_under_a_finished_study_are_refused(study: Path) -> None:
    label = study / "labelled/labels/c0.nii.gz"
    whole = label.read_bytes()
    write_scan(label, 99, label=True)
    try:
        with pytest.raises(StudyError, match=r"c0 of Cubes changed since Cubes, 3 cases, .* was finished"):
            run(study)
    finally:
        label.write_bytes(whole)
    assert run(study).reused == 3


def test_weights_that_change_under_a_finished_study_are_refused(study: Path) -> None:
    start = next((study / "out/pretraining").glob("first-*"))
    shutil.copytree(start, study / "mine")
    arms = {"scratch": "scratch", "mine": {"init": "mine"}}
    assert run(study, arms=arms).finished == 2
    assert run(study, arms=arms).reused == 2
    other = next((study / "out/pretraining").glob("second-*"))
    shutil.copy(other / "weights/encoder.safetensors", study / "mine/weights/encoder.safetensors")
    with pytest.raises(
        StudyError, match="aren't those that Cubes, 3 cases, mine, seed 0 was fine-tuned from"
    ):
        run(study, arms=arms)


def test_a_study_sets_the_fold_itself(study: Path) -> None:
    task = PLAIN["tasks"]["Cubes"]["task"]["Segmentation"] | {"fold": [1, 2]}
    with pytest.raises(StudyError, match=r"tasks\.Cubes\.task: a study sets fold itself; write folds: 5"):
        run(study, tasks={"Cubes": {"task": {"Segmentation": task}}})


def test_a_rate_that_diverges_is_not_chosen_and_ends_nothing(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parts2whole.training import loop, rates

    def diverging(*given: Any, **named: Any) -> Any:
        if named["optimiser"].base_lr > 2e-3:
            raise loop.LossError("the loss is not finite; start again with a lower learning rate")
        return fit(*given, **named)

    fit = loop.fit
    monkeypatch.setattr("parts2whole.verbs.finetune.fit", diverging)
    result = classify(table, tmp_path / "run", lr="auto", optimiser=p2w.AdamW(lr=1e-3)).result
    tried = json.loads((tmp_path / "run" / "rates" / rates.FOUND).read_text())
    assert tried["tried"]["0.003"] is None
    assert tried["chosen"] <= 1e-3
    assert result["test"]
    monkeypatch.setattr(
        "parts2whole.verbs.finetune.fit",
        lambda *_, **named: diverging(**named | {"optimiser": p2w.AdamW(lr=1.0)}),
    )
    with pytest.raises(loop.LossError):
        classify(table, tmp_path / "all", lr="auto", optimiser=p2w.AdamW(lr=1e-3))
