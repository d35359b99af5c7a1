"""From `dataset.json` to masks: names in every figure, label values in every mask, channels found again."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import parts2whole as p2w
from brief import EXACT, finetune_briefly
from parts2whole.tasks.labelled import TaskError
from parts2whole.training.model import load_model
from parts2whole.verbs.evaluate import evaluate
from parts2whole.verbs.predict import predict
from parts2whole.weights.native import WeightsError

VALUES = {"background": 0, "left kidney": 300, "liver": 5, "ignore": 9}


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def write_channels(
    folder: Path, name: str, label: np.ndarray, seed: int, channels: tuple[int, ...] = (0, 1)
) -> None:
    noise = np.random.default_rng(seed).normal(100, 10, label.shape).astype(np.float32)
    for channel in channels:
        write(folder / f"{name}_000{channel}.nii.gz", noise + (channel + 1) * (label % 9))


@pytest.fixture(scope="module")
def label() -> np.ndarray:
    found = np.zeros((16, 16, 16), np.int16)
    found[2:8, 2:8, 2:8], found[9:14, 9:14, 2:8], found[:, :, 12:] = 5, 300, 9
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory, label) -> Path:
    folder = tmp_path_factory.mktemp("named")
    for case in range(5):
        write_channels(folder / "data/imagesTr", f"c{case}", label, case)
        write(folder / f"data/labelsTr/c{case}.nii.gz", label)
    about = {
        "labels": VALUES,
        "channel_names": {"0": "T1", "1": "T2"},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (folder / "data/dataset.json").write_text(json.dumps(about))
    return finetune_briefly(folder / "data", modality="MR")


def test_names_are_in_results_tables_and_the_card(run):
    result = json.loads((run / "result.json").read_text())
    assert result["classes"] == ["background", "liver", "left kidney"]
    names = {key for key in result["test"] if key.startswith("dice_") and not key.endswith("_pooled")}
    assert names == {"dice_liver", "dice_left_kidney", "dice_mean"}
    (row,) = csv.DictReader((run / "test_cases.csv").open(newline=""))
    assert {"dice_liver", "hd95_mm_left_kidney"} <= set(row)
    _, card = load_model(run)
    assert (card.values, card.channel_names) == ((0, 5, 300), ("0000", "0001"))


def test_the_weights_of_a_finetuning_are_shown_and_are_none_to_start_from(run):
    shown = p2w.show_weights(run)
    module, card = load_model(run)
    assert {name: [*value.shape] for name, value in shown.tensors.items()} == {
        name: [*value.shape] for name, value in module.state_dict().items()
    }
    assert shown.card == card
    values = sum(parameter.numel() for parameter in module.state_dict().values())
    assert f"{len(shown.tensors)} tensors, {values:,} values" in shown.summary()
    with pytest.raises(
        WeightsError, match="is a fine-tuning, whose model is for predict, evaluate and encode"
    ):
        p2w.load_encoder(run)


def test_masks_hold_label_values_and_never_what_is_ignored(run, label, tmp_path):
    write_channels(tmp_path / "new", "a", label, 11)
    write_channels(tmp_path / "new", "b", label, 12, channels=(1,))
    done = predict(run, [tmp_path / "new"], out=tmp_path / "masks", hardware=EXACT, progress=False)
    assert [path.name for path in done.written] == ["a.nii.gz"]
    assert done.set_aside == {"b": "it has no b_0000; the model has 2 channels"}
    mask = np.asarray(nib.load(done.written[0]).dataobj)
    assert set(np.unique(mask)) <= {0, 5, 300}
    first, second = csv.DictReader(done.table.open(newline=""))
    for name, value in (("liver", 5), ("left kidney", 300)):
        assert float(first[f"ml_{name}"]) == pytest.approx(np.count_nonzero(mask == value) / 1000)
    assert (second["file"], second["status"]) == ("b_0001.nii.gz", "failed")


def test_evaluate_gives_what_finetune_gave(run, tmp_path):
    again = evaluate(run, cache=run.parent / "cache", out=tmp_path, hardware=EXACT, progress=False)
    told = json.loads((run / "result.json").read_text())["test"]
    assert again.metrics["dice_liver"] == pytest.approx(told["dice_liver"], nan_ok=True)


def test_other_data_may_lack_a_class_but_not_have_another(run, label, tmp_path):
    about = {"labels": VALUES, "channel_names": {"0": "T1", "1": "T2"}}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    for case in range(2):
        fewer = np.where(label == 5, 0, label)
        write_channels(tmp_path / "imagesTr", f"d{case}", fewer, 20 + case)
        write(tmp_path / f"labelsTr/d{case}.nii.gz", fewer)
    settings = {"data": tmp_path, "cache": tmp_path / "cache", "hardware": EXACT, "progress": False}
    found = evaluate(run, out=tmp_path / "out", **settings)
    rows = list(csv.DictReader(found.csv.open(newline="")))
    assert len(rows) == 2
    for row in rows:
        assert row["dice_liver"] in ("nan", "0.0")  # none was there to be found
        assert 0 <= float(row["dice_left_kidney"]) <= 1
    (tmp_path / "dataset.json").write_text(
        json.dumps(about | {"labels": VALUES | {"left kidney": 2, "cyst": 300}})
    )
    with pytest.raises(
        TaskError, match=r"knows the classes background, liver, left kidney.* have background, cyst"
    ):
        evaluate(run, out=tmp_path / "out2", **settings)


def test_a_model_of_version_0_1_0_called_classes_by_values(run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run, old)
    card = json.loads((old / "weights/model.json").read_text())
    del card["mask_values"], card["channel_names"]
    (old / "weights/model.json").write_text(json.dumps(card | {"classes": ["0", "5", "300"]}))
    settings = {"cache": run.parent / "cache", "hardware": EXACT, "progress": False}
    found = evaluate(old, out=tmp_path / "out", **settings).metrics
    assert found == pytest.approx(evaluate(run, out=tmp_path / "out2", **settings).metrics, nan_ok=True)
    scans = [run.parent / f"data/imagesTr/c0_000{channel}.nii.gz" for channel in (0, 1)]
    done = predict(old, scans, out=tmp_path / "masks", hardware=EXACT, progress=False)
    assert set(np.unique(np.asarray(nib.load(done.written[0]).dataobj))) <= {0, 5, 300}
