"""Fine-tuning whose validation or test cases can't say anything: what decides then, and what is said."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import parts2whole as p2w
from parts2whole.scans.preprocess import Preprocess
from parts2whole.training.runtime import Hardware
from parts2whole.training.stop import Interrupted

MR = Preprocess(modality="MR")


def volume(seed: int, bright: bool) -> np.ndarray:
    array = np.random.default_rng(seed).normal(100, 10, (16, 16, 16)).astype(np.float32)
    array[4:10, 5:11, 6:12] += 100 * bright
    return array


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def classification(folder: Path, positives: set[int], count: int = 12) -> p2w.Classification:
    rows = ["path,label"]
    for number in range(count):
        save(folder / f"{number}.nii.gz", volume(number, number in positives))
        rows.append(f"{number}.nii.gz,{int(number in positives)}")
    (folder / "list.csv").write_text("\n".join(rows))
    return p2w.Classification(folder / "list.csv", preprocess=MR, patch_size=(16, 16, 16))


def segmentation(folder: Path, ill: set[int], count: int = 8) -> p2w.Segmentation:
    for number in range(count):
        label = np.zeros((16, 16, 16), np.uint8)
        label[4:10, 5:11, 6:12] = number in ill
        save(folder / "images" / f"{number}.nii.gz", volume(number, number in ill))
        save(folder / "labels" / f"{number}.nii.gz", label)
    return p2w.Segmentation(folder, preprocess=MR, patch_size=(16, 16, 16))


def run(task: Any, out: Path, **settings: Any) -> dict[str, Any]:
    defaults = {"steps": 8, "batch_size": 2, "validate_every": 2, "progress": False}
    task.labelled(cache=out.parent / "cache", workers=0, progress=False)  # quicker than by other processes
    hardware = Hardware(accelerator="cpu", devices=1, precision="32-true")
    done = p2w.finetune(
        task,
        out=out,
        cache=out.parent / "cache",
        network=p2w.UNet3D(size="tiny"),
        hardware=hardware,
        **(defaults | settings),
    )
    return done.result


def validated(out: Path, figure: str) -> dict[int, float | None]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[figure] for line in lines if line["split"] == "validation"}


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_where_validation_can_not_judge_its_loss_decides_and_nothing_stops_early(tmp_path, kind, capsys):
    if kind == "classification":
        task, figure, said = classification(tmp_path / "data", {2, 9}), "auc", "no positive (1) among the 2"
    else:
        task, figure, said = segmentation(tmp_path / "data", {1, 5}), "dice_mean", "no foreground among the 1"
    result = run(task, tmp_path / "run", patience=0, progress=True)
    assert f"Note: {said} validation patient" in capsys.readouterr().out
    assert any(said in note for note in result["notes"])
    losses = validated(tmp_path / "run", "loss")
    assert result["steps"] == 8
    assert sorted(losses) == [0, 2, 4, 6, 8]
    assert losses[result["best_step"]] == min(losses.values())
    assert result["validation"]["loss"] == pytest.approx(min(losses.values()))
    assert result["validation"][figure] != result["validation"][figure] or result["validation"][figure] == 0
    assert 0 <= result["test"][figure] <= 1  # of two, one is tested
    assert "loss" not in result["test"]


def test_the_loss_of_healthy_validation_cases_is_that_of_their_predictions(tmp_path):
    task = classification(tmp_path / "data", {2, 9})
    run(task, tmp_path / "run")
    found = p2w.evaluate(tmp_path / "run", side="validation", cache=tmp_path / "cache", progress=False)
    rows = [line.split(",") for line in found.csv.read_text().splitlines()]
    negative = rows[0].index("p_0")
    expected = [-math.log(float(row[negative])) for row in rows[1:]]
    assert found.metrics["loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_an_undefined_test_figure_is_said(tmp_path):
    task = segmentation(tmp_path / "data", {3})  # the only one is learnt from
    result = run(task, tmp_path / "run", steps=2)
    assert math.isnan(result["test"]["dice_mean"]) or result["test"]["dice_mean"] == 0
    assert any(note.startswith("dice_mean is undefined on the test side") for note in result["notes"])
    assert any(note.startswith("no foreground among the 2 test patients") for note in result["notes"])


def test_tied_figures_keep_the_last_step(tmp_path, monkeypatch):
    task = classification(tmp_path / "data", {0, 3, 4, 7, 8, 11})
    monkeypatch.setattr("parts2whole.tasks.classifying.classification_metrics", lambda p, t: {"auc": 1.0})
    assert run(task, tmp_path / "run")["best_step"] == 8


def test_a_run_goes_on_with_the_split_it_was_begun_with(tmp_path):
    task = segmentation(tmp_path / "data", set(range(8)))
    settings = {"steps": 6, "validate_every": 1, "checkpoint_every": 1}

    def stop(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*_, **__)

    original = p2w.Segmentation.loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(p2w.Segmentation, "loss", stop)
        with pytest.raises(Interrupted):
            run(task, tmp_path / "run", **settings)
    ours = {
        "train": ["0", "1", "2"],
        "validation": ["3", "4"],
        "test": ["5", "6", "7"],
    }  # as another version drew it
    drawn = json.loads((tmp_path / "run" / "split.json").read_text())
    assert any(drawn[side] != ours[side] for side in ours)
    (tmp_path / "run" / "split.json").write_text(json.dumps(ours))
    result = run(task, tmp_path / "run", resume=True, **settings)
    assert {side: result[f"{side}_cases"] for side in ours} == ours
    kept = json.loads((tmp_path / "run" / "split.json").read_text())
    assert {side: kept[side] for side in ours} == ours
