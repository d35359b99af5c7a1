"""`predict` goes on when a scan fails, and its table says whose mask is which."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

import parts2whole as p2w
from brief import EXACT, finetune_briefly
from parts2whole.cli import main
from parts2whole.phantom.example import write_data_set
from parts2whole.phantom.write_lidc import Lidc
from parts2whole.scans.volume import LabelVolume
from parts2whole.store.store import Store
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.verbs.predict import PredictError, _volumes_ml, predict


def write(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def scan(seed: int, shape: tuple[int, ...] = (16, 17, 18)) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Two classes, called 3 and 7 in the label files."""
    folder = tmp_path_factory.mktemp("tuned")
    for number in range(5):
        label = np.zeros((16, 16, 16), np.uint8)
        label[3:8, 3:8, 3:8], label[9:14, 9:14, 9:14] = 3, 7
        write(folder / f"data/images/c{number}.nii.gz", scan(number, (16, 16, 16)) + 100 * label)
        write(folder / f"data/labels/c{number}.nii.gz", label)
    return finetune_briefly(folder / "data", modality="MR")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_scans_of_one_name_get_masks_of_their_own_and_the_table_says_whose_is_which(run, tmp_path):
    spacing = {"p1": 1.0, "p2": 2.0, "P3": 3.0}
    scans = [
        write(tmp_path / "in" / name / ("Scan.nii.gz" if name == "P3" else "scan.nii.gz"), scan(1), np.diag([1, 1, mm, 1.0]))
        for name, mm in spacing.items()
    ]  # fmt: skip
    done = predict(run, scans, out=tmp_path / "masks", hardware=EXACT, progress=False)
    rows = rows_of(tmp_path / "masks")
    assert len({row["mask"].lower() for row in rows}) == len(rows) == 3
    assert sorted(row["mask"] for row in rows) == sorted(path.name for path in done.written)
    for row in rows:
        assert row["status"] == "written"
        folder = Path(row["folder"])
        assert (folder / row["file"]).exists()
        assert nib.load(tmp_path / "masks" / row["mask"]).affine[2, 2] == spacing[folder.name]


def test_volumes_in_ml_are_those_of_the_mask_that_was_written(run, tmp_path, monkeypatch):
    classes = np.zeros((18, 17, 16), np.int64)
    classes[3, 4, 2:7] = 1
    classes[9, 5, 1:12] = 2
    monkeypatch.setattr(SegmentationTask, "segment", lambda *_: classes)
    sheared = np.array([[0.7, 0.2, 0, -4], [0, 0.9, 0.3, 2], [0, 0, -2.5, 8], [0, 0, 0, 1]])
    source = write(tmp_path / "a.nii.gz", scan(2), sheared)
    predict(run, [source], out=tmp_path / "m", hardware=EXACT, progress=False)
    mask = np.asarray(nib.load(tmp_path / "m/a.nii.gz").dataobj)
    assert ((mask == 3).sum(), (mask == 7).sum()) == (5, 11)
    (row,) = rows_of(tmp_path / "m")
    voxel_ml = 0.7 * 0.9 * 2.5 / 1000  # the determinant of a triangular matrix is the product of its diagonal
    assert float(row["ml_3"]) == pytest.approx(5 * voxel_ml, abs=1e-6)
    assert float(row["ml_7"]) == pytest.approx(11 * voxel_ml, abs=1e-6)


def test_classes_that_share_a_value_share_a_volume():
    card = SimpleNamespace(classes=("background", "whole", "core+whole", "node"), values=(0, 1, 1, 2))
    mask = LabelVolume(np.array([[[0, 1, 1, 1, 2]]], np.uint8), (10.0, 10.0, 10.0))
    assert _volumes_ml(mask, card) == pytest.approx({"whole or core+whole": 3, "node": 1})


def test_a_spacing_unlike_those_of_training_is_noted_and_how_it_was_treated(run, tmp_path):
    for name, mm in (("like", 2.0), ("coarse", 2.5), ("fine", 0.4)):
        write(tmp_path / "in" / f"{name}.nii.gz", scan(1), np.diag([1, 1, mm, 1.0]))
    done = predict(run, [tmp_path / "in"], out=tmp_path / "m", hardware=EXACT, progress=False)
    assert set(done.notes) == {"coarse", "fine"}
    notes = {row["scan"]: row["notes"] for row in rows_of(tmp_path / "m")}
    assert (
        "2.5 x 1 x 1 mm, is far from 1 mm to 1 mm of the training scans; it was not resampled"
        in notes["coarse"]
    )
    assert notes["coarse"] in done.summary()
    assert not notes["like"]
    card = run / "weights/model.json"
    new = card.read_text()
    try:  # as version 0.1.0 wrote it
        card.write_text(json.dumps({k: v for k, v in json.loads(new).items() if k != "spacing_range_mm"}))
        assert not predict(run, [tmp_path / "in"], out=tmp_path / "old", hardware=EXACT, progress=False).notes
    finally:
        card.write_text(new)


def test_what_fails_is_listed_with_its_reason_and_the_scans_after_it_are_segmented(run, tmp_path, capsys):
    folder = tmp_path / "in"
    write(folder / "a_good.nii.gz", scan(0))
    cut = write(folder / "b_cut.nii.gz", scan(1))
    cut.write_bytes(cut.read_bytes()[:900])
    write(folder / "c_constant.nii.gz", np.full((16, 16, 16), 7, np.int16))
    hole = scan(2)
    hole[4, 4, 4] = np.nan
    write(folder / "d_nan.nii.gz", hole)
    write(folder / "e_slice.nii.gz", scan(3)[:, :, :1])
    write(folder / "f_series.nii.gz", scan(4, (8, 8, 8, 3)))
    odd = write(folder / "g_qform.nii", scan(5))
    header = bytearray(odd.read_bytes())
    header[252:256] = np.array([1, 0], "<i2").tobytes()  # the qform alone, whose quaternion is no rotation
    header[256:268] = np.array([1, 1, 1], "<f4").tobytes()
    odd.write_bytes(bytes(header))
    (folder / "h_text.nii.gz").write_text("not a scan")
    write(folder / "z_good.nii.gz", scan(6))
    assert main(["predict", str(run), str(folder), "--out", str(tmp_path / "m"), "--hardware.accelerator", "cpu", "--progress", "false"]) == 1  # fmt: skip
    rows = {row["scan"]: row for row in rows_of(tmp_path / "m")}
    good = {name for name, row in rows.items() if row["status"] == "written"}
    assert good == {"a_good", "z_good"}
    assert {path.name for path in (tmp_path / "m").glob("*.nii.gz")} == {f"{name}.nii.gz" for name in good}
    said = capsys.readouterr().out
    for word, name in (
        ("constant", "c_constant"),
        ("NaN", "d_nan"),
        ("single slice", "e_slice"),
        ("3", "f_series"),
        ("rotation", "g_qform"),
    ):
        assert word in rows[name]["reason"]
    for name in set(rows) - good:
        assert rows[name]["status"] == "failed"
        assert not rows[name]["mask"]
        assert f"{name} was set aside: {rows[name]['reason']}" in said


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory: 9 bytes"), "not enough memory"),
        (ZeroDivisionError("odd"), "unexpected ZeroDivisionError: odd"),
    ],
)
def test_an_error_in_one_scan_leaves_the_others(run, tmp_path, monkeypatch, error, reason):
    segment = SegmentationTask.segment

    def fails_on_large(self, predictor, image):
        if image.shape[-1] > 20:
            raise error
        return segment(self, predictor, image)

    monkeypatch.setattr(SegmentationTask, "segment", fails_on_large)
    write(tmp_path / "in/a.nii.gz", scan(1, (24, 24, 24)))
    write(tmp_path / "in/b.nii.gz", scan(2))
    done = predict(run, [tmp_path / "in"], out=tmp_path / "m", hardware=EXACT, progress=False)
    assert done.failed
    assert list(done.set_aside) == ["a"]
    assert reason in done.set_aside["a"]
    assert [path.name for path in done.written] == ["b.nii.gz"]


def test_where_no_scan_can_be_used_the_table_is_there_all_the_same(run, tmp_path):
    write(tmp_path / "flat.nii.gz", np.zeros((8, 8, 8), np.int16))
    with pytest.raises(PredictError, match=r"no scan could be used\. flat was set aside: constant volume"):
        predict(run, [tmp_path / "flat.nii.gz"], out=tmp_path / "m", hardware=EXACT, progress=False)
    assert [row["status"] for row in rows_of(tmp_path / "m")] == ["failed"]


def test_calls_that_share_a_folder_keep_each_others_masks_and_rows(run, tmp_path):
    first, second = write(tmp_path / "a/s.nii.gz", scan(1)), write(tmp_path / "b/s.nii.gz", scan(2))
    flat = write(tmp_path / "b/flat.nii.gz", np.zeros((8, 8, 8), np.int16))
    out = tmp_path / "m"
    predict(run, [first, flat], out=out, hardware=EXACT, progress=False)
    before = (out / "s.nii.gz").read_bytes()
    write(flat, scan(3))
    done = predict(run, [second, flat], out=out, hardware=EXACT, progress=False)
    assert "exists already" in done.set_aside["s"]
    assert (out / "s.nii.gz").read_bytes() == before
    found = [(Path(row["folder"]).name, row["file"], row["status"]) for row in rows_of(out)]
    assert found == [
        ("a", "s.nii.gz", "written"),
        ("b", "flat.nii.gz", "written"),
        ("b", "s.nii.gz", "failed"),
    ]


def test_series_are_hashed_as_in_a_store_unless_they_are_to_be_kept(run, tmp_path):
    series = sorted({file.parent for file in write_data_set(Lidc(), tmp_path / "lidc").rglob("*.dcm")})[:1]
    store = p2w.prepare(series, out=tmp_path / "store", modality="CT", workers=0, progress=False)
    # The run is of MR, so the scan is refused; its row is there nevertheless.
    for keep in (False, True):
        with pytest.raises(PredictError, match="the file says CT"):
            predict(run, series, out=tmp_path / f"m{keep}", keep_series_uids=keep, hardware=EXACT, progress=False)  # fmt: skip
    (hashed,), (kept,) = rows_of(tmp_path / "mFalse"), rows_of(tmp_path / "mTrue")
    assert hashed["series"] == Store.open(store.path).cases[0].series
    assert kept["series"].count(".") > 2
    assert hashed["file"] == kept["file"] == Store.open(store.path).cases[0].source[0]
