"""`inspect`: everything is listed as what it is, what is broken says so, and proposals follow from the scans."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import parts2whole as p2w
from parts2whole.cli import main
from parts2whole.scans.read import write_nifti
from parts2whole.scans.volume import CANONICAL, LabelVolume, Volume
from parts2whole.survey.propose import Target, propose
from parts2whole.survey.thumbnail import draw_slices
from parts2whole.verbs.inspect import InspectError, inspect
from parts2whole.wholes.where import Body

EVIL = "<img src=x onerror=alert(1)>"


def hounsfield(seed=0, shape=(12, 16, 20)):
    return np.random.default_rng(seed).integers(-1100, 1500, shape).astype(np.int16)


def look(*paths, **settings):
    return inspect([str(path) for path in paths], progress=False, **settings)


def by_case(inspection):
    return {entry.case_id: entry for entry in inspection.survey.entries}


def write_series(folder, array, *, patient="DOE-4711", broken=None):
    """CT slices 2.5 mm apart, named like the patient."""
    folder.mkdir(parents=True)
    for number, plane in enumerate(array):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.PatientID, image.PatientName = patient, "Doe^Jane"
        image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", f"1.2.3.4{len(patient)}"
        image.Modality, image.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.Rows, image.Columns = plane.shape
        image.PixelSpacing, image.ImageOrientationPatient = [0.8, 0.7], [1, 0, 0, 0, 1, 0]
        image.ImagePositionPatient = [0, 0, 2.5 * number]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 1
        image.RescaleSlope, image.RescaleIntercept = 1, 0
        image.PixelData = plane.astype("<i2").tobytes()
        path = folder / f"Doe_Jane_{number}"
        image.save_as(path, enforce_file_format=True)
        if number == broken:
            path.write_bytes(path.read_bytes()[:-200])
    assert pydicom.dcmread(folder / "Doe_Jane_0").PatientID == patient


@pytest.fixture
def scans(tmp_path):
    """Two CT and a copy in another format and orientation, MR, DICOM, and label maps in both usual places."""
    root = tmp_path / "in"
    first, second = hounsfield(1), hounsfield(2)
    write_nifti(Volume(first, (3.0, 1.0, 1.0)), root / "set" / "imagesTr" / "a.nii.gz")
    write_nifti(Volume(second, (3.0, 1.0, 1.0)), root / "set" / "imagesTr" / "b.nii")
    label = np.zeros((12, 16, 20), np.uint8)
    label[3:9, 4:9, 5:15], label[4:6, 5:7, 6:9] = 1, 2
    write_nifti(LabelVolume(label, (3.0, 1.0, 1.0)), root / "set" / "labelsTr" / "a.nii.gz")
    turned = sitk.GetImageFromArray(second[::-1].copy())
    turned.SetSpacing((1.0, 1.0, 3.0))
    turned.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, -1))
    (root / "more").mkdir()
    sitk.WriteImage(turned, root / "more" / "copy_of_b.mha")
    sitk.WriteImage(sitk.GetImageFromArray(label * 5), root / "more" / "knee_seg.nrrd")
    sitk.WriteImage(sitk.GetImageFromArray(np.abs(first) + 1), root / "more" / "mr.mhd")
    write_series(root / "Doe_Jane", hounsfield(3))
    (root / "notes.txt").write_text("nothing")
    return root


def test_everything_is_listed_as_what_it_is(scans):
    found = by_case(look(scans))
    series = next(entry for entry in found.values() if entry.format == "DICOM")
    assert {name: (f.format, f.facts.kind, f.facts.modality) for name, f in found.items() if f != series} == {
        "set__imagesTr__a": ("NIfTI", "scan", "CT"),
        "set__imagesTr__b": ("NIfTI", "scan", "CT"),
        "set__labelsTr__a": ("NIfTI", "label map", None),
        "more__copy_of_b": ("MHA", "scan", "CT"),
        "more__knee_seg": ("NRRD", "label map", None),
        "more__mr": ("MHD", "scan", None),
    }
    first = found["set__imagesTr__a"].facts
    assert (first.shape, first.spacing_mm, first.orientation) == ((12, 16, 20), (3.0, 1.0, 1.0), "SPL")
    assert first.values == (hounsfield(1).min(), hounsfield(1).max())
    assert first.guessed
    assert found["set__labelsTr__a"].facts.label_values == (0, 1, 2)
    assert found["more__knee_seg"].facts.label_values == (0, 5, 10)
    assert found["more__copy_of_b"].facts.orientation == "IPL"
    assert {name: f.duplicate_of for name, f in found.items() if f.duplicate_of} == {
        "set__imagesTr__b": "more__copy_of_b"
    }
    assert (series.facts.modality, series.facts.guessed) == ("CT", False)
    assert series.facts.spacing_mm == (2.5, 0.8, 0.7)
    assert all(entry.problem is None for entry in found.values())


def test_no_patient_in_clear(scans, tmp_path, capsys):
    write_series(scans / "Roe_Richard", hounsfield(4), patient="ROE-1", broken=5)
    for name in ("s.csv", "s.html", "s.json"):
        inspection = look(scans, out=tmp_path / name)
        for clear in ("DOE-4711", "ROE-1", "Doe", "Roe", "1.2.3"):
            assert clear not in (tmp_path / name).read_text()
    broken = next(entry for entry in inspection.survey.unusable)
    assert "slice 6" in broken.problem
    people = {f.patient for f in inspection.survey.entries if f.format == "DICOM"}
    assert len(people) == 2
    assert all(re.fullmatch("[0-9a-f]{12}", each) for each in people)
    assert "Roe_Richard" in inspection.summary()  # on the screen, so that it can be found


def test_what_is_broken_is_one_clear_line(tmp_path):
    root = tmp_path / "in"
    write_nifti(Volume(hounsfield()), root / "good.nii.gz")
    (root / "sp ace ü.nii.gz").write_bytes((root / "good.nii.gz").read_bytes()[:3000])
    (root / "line\nbreak\x1b[31m.nii").write_bytes(b"nothing")
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 7, np.int16), np.eye(4)), root / "constant.nii")
    bomb = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_bytes()
    huge = np.array([3, 30000, 30000, 30000, 1, 1, 1, 1], "<i2").tobytes()
    (root / "bomb.nii.gz").write_bytes(gzip.compress(bomb[:40] + huge + bomb[56:]))
    (root / "loop").symlink_to(root)
    (root / "gone.mha").symlink_to(root / "nowhere")
    inspection = look(root, out=tmp_path / "s.html")
    found = by_case(inspection)
    assert {name for name, entry in found.items() if entry.problem is None} == {"good"}
    for name, reason in {
        "sp_ace_u": "truncated",
        "constant": "every voxel is 7",
        "bomb": "refused unread",
        "loop": "a link to a folder",
        "gone": "link to nowhere",
    }.items():
        assert reason in found[name].problem, name
    for entry in inspection.survey.unusable:
        assert (entry.problem + entry.source).isprintable()
    shown = [line for line in inspection.summary().splitlines() if line.startswith("can't be used")]
    assert len(shown) == 6


def test_names_that_are_not_text(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    try:
        (root / os.fsdecode(b"caf\xe9.nii")).write_bytes(b"nothing")
    except OSError:
        pytest.skip("this file system refuses names that aren't UTF-8")
    for suffix in ("csv", "html", "json"):
        assert "caf" in look(root, out=tmp_path / f"s.{suffix}").summary()


def test_several_volumes_and_doubtful_labels(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    four = np.random.default_rng(0).integers(0, 900, (5, 6, 7, 3)).astype(np.int16)
    nib.save(nib.Nifti1Image(four, np.eye(4)), root / "four.nii")
    blocks = np.kron(np.arange(8).reshape(2, 2, 2), np.ones((6, 6, 6))).astype(np.int16)
    write_nifti(Volume(blocks), root / "blocks.nii")
    write_nifti(Volume(blocks), root / "masks" / "m.nii")
    write_nifti(Volume(hounsfield()), root / "images" / "c.nii")
    write_nifti(Volume(hounsfield(1)), root / "labels" / "c.nii")
    write_nifti(LabelVolume(np.zeros((4, 4, 4), np.uint8)), root / "labels" / "empty.nii")
    found = by_case(look(root))
    assert (found["four"].facts.volumes, found["four"].facts.shape) == (3, (7, 6, 5))
    for name, kind, note in (
        ("four", "scan", "--volumes-4d"),
        ("blocks", "scan", "nothing in its name"),
        ("masks__m", "label map", ""),
        ("labels__c", "scan", "prepare passes it over"),
        ("labels__empty", "label map", "empty label map"),
    ):
        assert found[name].facts.kind == kind, name
        assert note in " ".join(found[name].notes), name
    assert found["images__c"].notes == ()


def test_the_formats_it_writes(scans, tmp_path):
    look(scans, out=tmp_path / "new" / "s.csv")
    rows = list(csv.DictReader((tmp_path / "new" / "s.csv").open()))
    row = next(row for row in rows if row["case"] == "set__labelsTr__a")
    assert (len(rows), row["kind"], row["label_values"], row["voxels_z"]) == (7, "label map", "0 1 2", "12")
    look(scans, out=tmp_path / "s.json")
    content = json.loads((tmp_path / "s.json").read_text())
    assert len(content["findings"]) == 7
    assert [p["modality"] for p in content["proposals"]] == ["CT", "unclear"]
    assert content["proposals"][0]["scans"] == 3  # the copy counts once
    assert content["other_files"] == {".txt": 1}
    with pytest.raises(InspectError, match=r"\.csv, \.html, \.json"):
        look(scans, out=tmp_path / "s.xlsx")


def test_the_page_is_whole_and_escaped(tmp_path):
    write_nifti(Volume(hounsfield()), tmp_path / EVIL.replace("/", "") / "a.nii")
    (tmp_path / f"{EVIL}.nii").write_bytes(b"nothing")
    look(tmp_path, out=tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["']?(http|//)""", page)
    assert page.count("data:image/png;base64,") == 1
    look(tmp_path, out=tmp_path / "s.html", thumbnails=False)
    assert "data:image/png" not in (tmp_path / "s.html").read_text()


def test_the_command_and_the_public_name(scans, capsys):
    assert main(["inspect", str(scans / "set"), "--progress", "false"]) == 0
    shown = capsys.readouterr().out
    assert "2 scans, 1 label map" in shown
    assert "parts2whole prepare ... --modality CT" in shown
    assert p2w.inspect(scans / "more" / "mr.mhd", progress=False).survey.proposals[0].modality == "unclear"


def test_nothing_to_inspect(tmp_path):
    with pytest.raises(InspectError, match="no scans found"):
        look(tmp_path)
    with pytest.raises(InspectError, match="doesn't exist"):
        look(tmp_path / "nowhere")


def proposal(shapes, spacings, *, modality="CT", lung=0.0, body=0.8, targets=()):
    count = len(shapes)
    return propose(
        modality,
        shapes=shapes,
        spacings_mm=spacings,
        largest_values=[1000.0] * count,
        lung_shares=[lung] * count,
        body_shares=[body] * count,
        targets=targets,
    )


@pytest.mark.parametrize(
    ("shape", "spacing", "whole"),
    [
        ((300, 300, 300), (1.0, 1.0, 1.0), (48, 48, 48)),  # 131072 ** (1 / 3) = 50.8
        ((63, 190, 190), (3.27, 0.98, 0.98), (24, 72, 72)),  # 74.4 mm: 22.7, 75.9
        ((20, 300, 300), (1.0, 1.0, 1.0), (16, 88, 88)),  # (131072 / 16) ** (1 / 2) = 90.5
        ((10, 10, 10), (1.0, 1.0, 1.0), (16, 16, 16)),  # nothing smaller makes sense
    ],
)
def test_the_whole_is_a_cube_in_mm_that_fits(shape, spacing, whole):
    made = proposal([shape] * 4, [spacing] * 4)
    assert (made.whole_voxels, made.spacing_mm) == (whole, None)
    assert made.whole_mm == pytest.approx([n * mm for n, mm in zip(whole, spacing, strict=True)], abs=0.06)
    held = all(a >= b for a, b in zip(shape, whole, strict=True))
    assert f"{4 * held} of 4 scans hold it" in made.whole_why


def test_spacings_that_differ_are_brought_to_the_median():
    made = proposal([(60, 99, 99)] * 3, [(1.0, 0.7, 0.7), (2.5, 0.7, 0.7), (5.0, 0.7, 0.7)])
    assert made.spacing_mm == (2.5, 0.7, 0.7)
    assert "z runs from 1 to 5 mm" in made.spacing_why


def test_the_window_follows_the_lung():
    assert proposal([(60, 60, 60)], [(1.0, 1.0, 1.0)], lung=0.5).window_hu == (-1000.0, 1000.0)
    assert proposal([(60, 60, 60)], [(1.0, 1.0, 1.0)], lung=0.1).window_hu == (-200.0, 300.0)
    mr = proposal([(60, 60, 60)], [(1.0, 1.0, 1.0)], modality="MR")
    assert (mr.window_hu, mr.percentiles) == (None, (0.5, 99.5))


def test_the_window_is_widened_to_what_is_labelled():
    scans = [(60, 60, 60)], [(1.0, 1.0, 1.0)]
    muscle, bone = Target(1, 9, 100.0, (20.0, 80.0), (50, 80)), Target(5, 9, 100.0, (310.0, 1420.0), (90, 99))
    air = Target(7, 9, 100.0, (-990.0, -905.0), (1, 9))
    assert proposal(*scans, targets=[muscle]).window_hu == (-200.0, 300.0)
    made = proposal(*scans, targets=[muscle, bone, air])
    assert made.window_hu == (-1000.0, 1450.0)
    assert "5 (310 to 1420 HU), 7 (-990 to -905 HU)." in made.window_why
    for rank, percentiles in ((99.4, (0.5, 99.5)), (99.8, (0.1, 99.9)), (99.95, (0.0, 100.0))):
        lesion = Target(1, 9, 100.0, (900.0, 1000.0), (97.0, rank))
        assert proposal(*scans, modality="MR", targets=[lesion]).percentiles == percentiles


def test_wholes_come_from_the_body_where_most_is_air():
    scans = [(60, 60, 60)], [(1.0, 1.0, 1.0)]
    dense = proposal(*scans, body=0.6)
    assert (dense.above_hu, dense.above_share) == (None, None)
    assert proposal(*scans, lung=0.5, body=0.3).above_hu == -500  # as `Body` has it
    assert proposal(*scans, body=0.3).above_hu == -175  # a twentieth into a window that begins above
    assert proposal(*scans, body=0.3, modality="MR").above_share == Body().above_share
    assert Body().above_hu == -500


def test_one_pass_at_inference_where_a_scan_is_no_larger_than_that():
    small, large = proposal([(90, 120, 120)], [(1.0,) * 3]), proposal([(300, 300, 300)], [(1.0,) * 3])
    assert small.window_voxels == (96, 120, 120)
    assert large.window_voxels == large.whole_voxels


EDGES = st.tuples(*[st.integers(2, 700)] * 3)
STEPS = st.tuples(*[st.floats(0.1, 10)] * 3)


@given(st.lists(st.tuples(EDGES, STEPS), min_size=1, max_size=12))
def test_any_scans_get_a_whole_the_network_takes(scans):
    made = proposal([shape for shape, _ in scans], [spacing for _, spacing in scans])
    assert all(edge % 8 == 0 and edge >= 16 for edge in made.whole_voxels)
    assert all(why.endswith(".") for why in (made.spacing_why, made.window_why, made.whole_why))


def test_pictures_have_superior_at_the_top_and_keep_proportions():
    array = np.zeros((10, 40, 20), np.int16)
    array[8:] = 100  # the two uppermost slices
    sheet = draw_slices(Volume(array, (4.0, 1.0, 1.0), direction=CANONICAL), window=(0, 100))
    coronal, sagittal = sheet[:, 66:130], sheet[:, 132:]
    # 40 mm high and 20 mm wide: half as wide as the frame is high, and bright in the upper fifth.
    assert (coronal[2, 16:48] == 255).all()
    assert not coronal[:, :16].any()
    assert not coronal[20:].any()
    assert (sagittal[2] == 255).all()
    assert not sheet[:, :64].any()


@pytest.mark.shared
def test_real_formats(shared, tmp_path):
    inspection = look(shared / "formats", out=tmp_path / "s.html")
    survey = inspection.survey
    assert survey.unusable == survey.duplicates == ()
    series = sorted(f.facts.shape for f in survey.scans if f.format == "DICOM")
    assert series == [(20, 512, 512), (41, 512, 512)]
    named = {f.case_id: f.facts for f in survey.entries if f.format != "DICOM"}
    assert len(named) == 8
    for path in sorted((shared / "formats").rglob("*.nrrd")):
        image = sitk.ReadImage(str(path))
        facts = named[f"nrrd__{path.stem}"]
        assert facts.shape == image.GetSize()[::-1]
        assert facts.spacing_mm == pytest.approx(image.GetSpacing()[::-1])
        extremes = sitk.MinimumMaximumImageFilter()
        extremes.Execute(image)
        assert facts.values == (extremes.GetMinimum(), extremes.GetMaximum())
        assert facts.kind == ("label map" if path.stem.endswith("label") else "scan")
    organs = named["nifti_ct__example_seg"].label_values
    real = np.asarray(nib.load(shared / "formats" / "nifti_ct" / "example_seg.nii.gz").dataobj)
    assert organs == tuple(np.unique(real).astype(int))
    assert named["nifti_ct__example_ct"].modality == "CT"
