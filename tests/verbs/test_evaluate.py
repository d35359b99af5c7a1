"""`evaluate` counts what lies on the user's disk, and goes on when a case fails."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import parts2whole as p2w
from parts2whole.cli import main
from parts2whole.scans.preprocess import Preprocess
from parts2whole.training.leak import LeakError
from parts2whole.training.runtime import Hardware

EXACT = Hardware(accelerator="cpu", precision="32-true")
AFFINE = np.array([[-1.1, 0, 0, 30], [0, 0.9, 0, -8], [0, 0, 2.3, 5], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    """A run at 3.1 mm of scans at 1.1 x 0.9 x 2.3 mm, each with a lesion of one voxel."""
    folder = tmp_path_factory.mktemp("tuned")
    for number in range(8):
        generator = np.random.default_rng(number)
        image = generator.normal(100, 5, (22, 26, 13)).astype(np.float32)
        label = np.zeros(image.shape, np.uint8)
        x, y, z = generator.integers(2, 6, 3)
        label[x : x + 10, y : y + 12, z : z + 5] = 1
        label[20, 23, 11] = 2
        image[label == 1] += 100
        for kind, array in (("images", image), ("labels", label)):
            path = folder / f"data/{kind}/c{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, AFFINE), path)
    task = p2w.Segmentation(
        folder / "data",
        preprocess=Preprocess(modality="MR", spacing_mm=(3.1, 3.1, 3.1)),
        patch_size=(16, 16, 16),
        validation_fraction=0.25,
        test_fraction=0.3,
    )
    p2w.finetune(
        task,
        out=folder / "run",
        cache=folder / "cache",
        network=p2w.UNet3D(size="tiny"),
        steps=24,
        batch_size=2,
        validate_every=12,
        hardware=EXACT,
        progress=False,
    )
    return folder


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def test_evaluate_finetune_and_the_masks_of_predict_give_one_dice(tuned, tmp_path):
    found = p2w.evaluate(tuned / "run", cache=tuned / "cache", hardware=EXACT, progress=False)
    rows, tested = rows_of(found.csv), rows_of(tuned / "run/test_cases.csv")
    images = [tuned / f"data/images/{name}.nii.gz" for name in rows]
    p2w.predict(tuned / "run", images, out=tmp_path, hardware=EXACT, progress=False)
    means = []
    for name, row in rows.items():
        mask = np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj) == 1
        label = np.asarray(nib.load(tuned / f"data/labels/{name}.nii.gz").dataobj) == 1
        dice = 2 * (mask & label).sum() / (mask.sum() + label.sum())
        assert float(row["dice_1"]) == pytest.approx(dice, abs=1e-12)
        assert float(tested[name]["dice_1"]) == pytest.approx(dice, abs=1e-12)
        assert row["grid"] == tested[name]["grid"] == "native"
        means.append(dice)
    assert 0.1 < np.mean(means) < 1  # neither an empty mask nor a perfect one, so the figure says something
    assert found.metrics["dice_1"] == pytest.approx(np.mean(means))


def test_a_label_that_resampling_lost_counts_as_missed(tuned):
    result = json.loads((tuned / "run/result.json").read_text())
    assert result["grid"] == "native"
    assert result["validation_grid"] == "prepared"
    page = " ".join((tuned / "run/report.html").read_text().split())
    assert "Scored on the voxels of the label files." in page
    assert any(note.startswith("label 2 of ") and "vanished at 3.1 mm" in note for note in result["notes"])
    for row in rows_of(tuned / "run/test_cases.csv").values():
        assert float(row["dice_2"]) == 0
        assert float(row["dice_mean"]) == pytest.approx(float(row["dice_1"]) / 2)


def test_a_case_that_fails_is_listed_and_the_others_are_measured(tuned, tmp_path, capsys):
    cases = json.loads((tuned / "run/split.json").read_text())["test"]
    broken = tuned / f"data/images/{cases[0]}.nii.gz"
    whole = broken.read_bytes()
    try:
        broken.write_bytes(whole[:700])
        options = {"cache": tuned / "cache", "out": tmp_path / "out", "progress": False} | {
            "hardware.accelerator": "cpu"
        }
        code = main(["evaluate", str(tuned / "run"), *(f"--{key}={value}" for key, value in options.items())])
    finally:
        broken.write_bytes(whole)
    assert code == 1
    assert f"{cases[0]} was set aside: " in capsys.readouterr().out
    assert sorted(rows_of(tmp_path / "out/cases.csv")) == sorted(cases[1:])
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert list(metrics["set_aside"]) == [cases[0]]
    assert metrics["grid"] == "native"


def test_scans_that_the_step_was_chosen_on_count_as_seen(tuned, tmp_path):
    cases = json.loads((tuned / "run/split.json").read_text())["validation"]
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for case in cases:
            shutil.copy(tuned / f"data/{kind}/{case}.nii.gz", tmp_path / "data" / kind)
    about = {"data": tmp_path / "data", "cache": tmp_path / "cache", "hardware": EXACT, "progress": False}
    with pytest.raises(LeakError, match=f"{len(cases)} cases were seen in training"):
        p2w.evaluate(tuned / "run", out=tmp_path / "out", **about)
