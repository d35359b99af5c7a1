"""A model that learned from boxes of scans is asked about boxes, and sees of them what training saw."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import parts2whole as p2w
from brief import EXACT
from parts2whole.scans.preprocess import Preprocess
from parts2whole.verbs.evaluate import evaluate
from parts2whole.verbs.predict import PredictError, predict

BOX = "z_min,z_max,y_min,y_max,x_min,x_max"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight scans of which a box, off the middle and in a file with flipped axes, tells the class; two runs."""
    root = tmp_path_factory.mktemp("boxes")
    lines = []
    for number in range(8):
        voxels = np.random.default_rng(number).normal(-800, 20, (24, 22, 20))
        voxels[2:10, 9:17, 11:19] += 700 * (number % 2)
        nib.save(
            nib.Nifti1Image(voxels.T.astype(np.int16), np.diag([-1, 1, 1, 1])), root / f"s{number}.nii.gz"
        )
        lines.append(f"s{number}.nii.gz,{'yes' if number % 2 else 'no'},2,10,9,17,11,19")
    (root / "boxes.csv").write_text("\n".join([f"path,label,{BOX}", *lines]))
    (root / "scans.csv").write_text("\n".join(["path,label", *(line.rsplit(",", 6)[0] for line in lines)]))
    for name in ("boxes", "scans"):
        task = p2w.Classification(
            root / f"{name}.csv", preprocess=Preprocess(modality="CT"), patch_size=(8, 8, 8)
        )
        network = p2w.PlainUNet3D(widths=(4, 8), strides=((1, 1, 1), (2, 2, 2)))
        few = {"steps": 2, "batch_size": 2, "validate_every": 2, "hardware": EXACT, "progress": False}
        p2w.finetune(task, out=root / name, network=network, cache=root / "cache", **few)
    return root


def probabilities(file: Path, name: str) -> dict[str, float]:
    with file.open(newline="") as lines:
        return {row[name]: float(row["p_yes"]) for row in csv.DictReader(lines)}


def test_boxes_of_a_table_are_what_was_learned_and_evaluated(folder, tmp_path):
    evaluate(folder / "boxes", out=tmp_path / "measured", side="all", hardware=EXACT, progress=False)
    (folder / "new.csv").write_text(
        "\n".join([f"path,{BOX}", *(f"s{n}.nii.gz,2,10,9,17,11,19" for n in range(8))])
    )
    found = predict(
        folder / "boxes", [folder / "new.csv"], out=tmp_path / "new", hardware=EXACT, progress=False
    )
    measured = probabilities(next((tmp_path / "measured").rglob("cases.csv")), "case")
    predicted = probabilities(found.written[0], "scan")
    assert len(measured) == len(predicted) == 8
    for number in range(8):
        assert predicted[f"s{number}"] == pytest.approx(measured[f"{number:06d}"], abs=1e-6)
    assert len({round(p, 5) for p in predicted.values()}) > 1


def test_a_whole_scan_is_refused_and_boxes_of_one_scan_have_lines_of_their_own(folder, tmp_path):
    with pytest.raises(PredictError, match=r"learned from boxes of scans: name them in a CSV \(path, z_min"):
        predict(folder / "boxes", [folder / "s1.nii.gz"], out=tmp_path / "a", hardware=EXACT, progress=False)
    table = folder / "twice.csv"
    table.write_text(f"path,{BOX}\ns1.nii.gz,2,10,9,17,11,19\ns1.nii.gz,10,18,1,9,1,9\ns0.nii.gz,,,,,,\n")
    found = predict(folder / "boxes", [table], out=tmp_path / "b", hardware=EXACT, progress=False)
    predicted = probabilities(found.written[0], "scan")
    assert predicted.keys() == {"s1-line2", "s1-line3"}
    assert predicted["s1-line2"] != predicted["s1-line3"]
    assert "learned from boxes" in found.set_aside["s0"]


def test_a_model_of_whole_scans_takes_files_and_tables_alike_and_no_points(folder, tmp_path):
    alone = predict(
        folder / "scans", [folder / "s1.nii.gz"], out=tmp_path / "a", hardware=EXACT, progress=False
    )
    table = folder / "one.csv"
    table.write_text("path\ns1.nii.gz\n")
    listed = predict(folder / "scans", [table], out=tmp_path / "b", hardware=EXACT, progress=False)
    assert probabilities(listed.written[0], "scan") == probabilities(alone.written[0], "scan")
    with pytest.raises(PredictError, match="classifies scans as they are: leave --points out"):
        predict(folder / "scans", [table], out=tmp_path / "c", points=table, hardware=EXACT, progress=False)
