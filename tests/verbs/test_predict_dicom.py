"""From DICOM to DICOM: a CT series in, a segmentation of it out, the same voxels as the NIfTI mask."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK

from brief import EXACT, finetune_briefly
from parts2whole.cli import main
from parts2whole.phantom.example import write_pairs
from parts2whole.phantom.write_dicom import write_series
from parts2whole.scans.dicom_labels import DicomLabel
from parts2whole.scans.read import read_label, read_volume, user_salt
from parts2whole.scans.source import hashed
from parts2whole.scans.volume import Volume, to_canonical
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.verbs.masks import SHEARED, MaskError
from parts2whole.verbs.predict import predict

CODES = """
3:
  category: [123037004, SCT, Anatomical Structure]
  type: [10200004, SCT, Liver]
7:
  category: [123037004, SCT, Anatomical Structure]
  type: [64033007, SCT, Kidney]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A model of two classes, called 3 and 7 in the label files."""
    folder = tmp_path_factory.mktemp("tuned")
    data = write_pairs(folder / "data")
    for file in (data / "labels").iterdir():
        image = nib.load(file)
        label = 3 * (np.asarray(image.dataobj) > 0).astype(np.uint8)
        label[:8, :8, :8] = 7
        nib.save(nib.Nifti1Image(label, image.affine), file)
    return finetune_briefly(data, modality="CT")


@pytest.fixture
def series(tmp_path) -> Path:
    """A CT in DICOM that is larger along every axis than the others."""
    hu = np.random.default_rng(0).integers(-1000, 300, (18, 20, 22)).astype(np.int16)
    image = Volume(hu, (2.5, 0.8, 0.7), (-20.0, 11.0, 40.0))
    write_series(image, tmp_path / "ct", patient="Doe^Jane", study_uid="1.2.3", series_uid="1.2.3.4")
    return tmp_path / "ct"


@pytest.fixture
def drawn(monkeypatch) -> np.ndarray:
    """What the model is made to predict: class indices on the canonical grid."""
    classes = np.random.default_rng(1).choice([0, 0, 0, 1, 2], (18, 20, 22))
    classes[:3] = 0
    monkeypatch.setattr(SegmentationTask, "segment", lambda *_: classes)
    return classes


@pytest.fixture
def codes(tmp_path) -> Path:
    (tmp_path / "codes.yaml").write_text(CODES)
    return tmp_path / "codes.yaml"


def only_row(folder: Path) -> dict[str, str]:
    with (folder / "predictions.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    return row


def test_a_second_reader_finds_the_voxels_and_the_geometry_of_the_nifti_mask(
    run, series, drawn, codes, tmp_path
):
    (nifti,) = predict(run, [series], out=tmp_path / "nifti", hardware=EXACT, progress=False).written
    done = predict(
        run, [series], out=tmp_path / "seg", format="dicom-seg", codes=codes, hardware=EXACT, progress=False
    )
    (file,) = done.written
    reader = Path(sys.executable).with_name("segimage2itkimage")
    out = tmp_path / "dcmqi"
    out.mkdir()
    subprocess.run(
        [reader, "--inputDICOM", file, "--outputDirectory", out, "-t", "nii"], check=True, capture_output=True
    )
    mask = nib.load(nifti)
    for number, value in ((1, 3), (2, 7)):
        found = nib.load(out / f"{number}.nii.gz")
        index = np.argwhere(np.asarray(found.dataobj))
        world = np.c_[index, np.ones(len(index))] @ found.affine.T
        here = world @ np.linalg.inv(mask.affine).T
        np.testing.assert_allclose(here, np.rint(here), atol=1e-3)
        again = np.zeros(mask.shape, bool)
        again[tuple(np.rint(here[:, :3]).astype(int).T)] = True
        assert np.array_equal(again, np.asarray(mask.dataobj) == value)
        assert again.sum() == (drawn == number).sum() > 0
    again = DicomLabel((file,), ("3", "7")).read(read_volume(series))
    assert np.array_equal(to_canonical(again).array, drawn)
    made = pydicom.dcmread(file)
    assert made.PatientID == "Doe^Jane"
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.4"
    row, other = only_row(tmp_path / "seg"), only_row(tmp_path / "nifti")
    assert row.pop("mask") == file.name == f"{row['scan']}.dcm"
    assert other.pop("mask") == nifti.name
    assert row == other
    assert (row["folder"], row["file"], row["status"]) == (str(series), "18 DICOM files", "written")
    assert row["series"] == hashed("1.2.3.4", user_salt())
    assert float(row["ml_7"]) == pytest.approx((drawn == 2).sum() * 2.5 * 0.8 * 0.7 / 1000, abs=1e-6)


def test_masks_that_itk_cannot_read_are_told_of_once(run, series, drawn, codes, tmp_path):
    """The slices of a gantry that was tilted lie shifted along y."""
    for number in "12":
        shutil.copytree(series, tmp_path / "tilted" / number)
    for file in (tmp_path / "tilted").rglob("*.dcm"):
        slice_ = pydicom.dcmread(file)
        x, y, z = map(float, slice_.ImagePositionPatient)
        slice_.ImagePositionPatient = [x, f"{y + 0.2 * (z - 40):.4f}", z]
        uid = f"1.2.3.{file.parent.name}"
        slice_.StudyInstanceUID = slice_.SeriesInstanceUID = slice_.PatientID = uid
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{slice_.InstanceNumber}"
        slice_.save_as(file)
    scans, options = [series, tmp_path / "tilted"], {"hardware": EXACT, "progress": False}
    nifti = predict(run, scans, out=tmp_path / "nifti", **options)
    assert nifti.summary().count("can't read NIfTI of sheared axes; with --format dicom-seg") == 1
    told = {name for name, notes in nifti.notes.items() if SHEARED in notes}
    assert len(nifti.written) == len(told) + 1 == 3
    for mask in nifti.written:
        assert nib.load(mask).header["qform_code"] == 0
        if mask.name.partition(".")[0] in told:
            with pytest.raises(RuntimeError, match="orthonormal"):
                SimpleITK.ReadImage(mask)
        else:
            SimpleITK.ReadImage(mask)
    seg = predict(run, scans, out=tmp_path / "seg", format="dicom-seg", codes=codes, **options)
    assert (len(seg.written), seg.set_aside) == (3, {})
    assert "sheared" not in seg.summary()


def test_what_does_not_go_together_is_refused_before_anything_is_written(
    run, series, codes, tmp_path, capsys
):
    def refused(*options: str) -> str:
        given = ["predict", str(run), str(series), "--out", str(tmp_path / "m"), *options]
        assert main(given) != 0
        assert not (tmp_path / "m").exists()
        return capsys.readouterr().err

    assert "by codes: --codes codes.yaml, with 3, 7 in it" in refused("--format", "dicom-seg")
    assert "nifti has no place for them" in refused("--codes", str(codes))
    codes.write_text(CODES.replace("7:", "kidney:"))
    said = refused("--format", "dicom-seg", "--codes", str(codes))
    assert "has no code for 7; it has 3, kidney" in said
    with pytest.raises(MaskError, match="unknown format 'dicom'; choose from nifti, dicom-seg, ome-zarr"):
        predict(run, [series], out=tmp_path / "m", format="dicom", progress=False)


def test_ome_zarr_holds_the_mask_where_the_scan_is(run, series, drawn, tmp_path):
    (file,) = predict(
        run, [series], out=tmp_path / "m", format="ome-zarr", hardware=EXACT, progress=False
    ).written
    mask, scan = read_label(file), read_volume(series)
    assert np.array_equal(mask.array, np.array([0, 3, 7])[drawn])
    assert mask.same_grid(to_canonical(scan))
    assert only_row(tmp_path / "m")["mask"] == file.name
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == sorted([file.name, "predictions.csv"])


def test_a_scan_that_is_no_series_is_set_aside(run, series, drawn, codes, tmp_path):
    nib.save(
        nib.Nifti1Image(np.random.default_rng(2).normal(0, 300, (22, 20, 18)), np.eye(4)),
        tmp_path / "a.nii.gz",
    )
    done = predict(
        run,
        [series, tmp_path / "a.nii.gz"],
        out=tmp_path / "m",
        format="dicom-seg",
        codes=codes,
        hardware=EXACT,
        progress=False,
    )
    assert len(done.written) == 1
    assert "refers to a DICOM series, which this isn't: --format nifti" in done.set_aside["a"]
    assert sorted(path.suffix for path in (tmp_path / "m").iterdir()) == [".csv", ".dcm"]
