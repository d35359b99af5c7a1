"""Masks as DICOM segmentations: what dcmqi, and the standard's attributes read by hand, say of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import enhanced, find, groups, only, save, voxels, write_series

from parts2whole.scans.codes import CodesError, read_codes
from parts2whole.scans.dicom_seg import Segment, write_segmentation
from parts2whole.scans.read import ReadError, read_scan, write_label_like
from parts2whole.scans.volume import to_canonical

YAML = """
liver:
  category: [123037004, SCT, Anatomical Structure]
  type: [10200004, SCT, Liver]
left kidney:
  category: [123037004, SCT, Anatomical Structure]
  type: [64033007, SCT, Kidney]
  modifier: [7771000, SCT, Left]
"""
OBLIQUE = (0.96, 0.28, 0.0, 0.28 * 0.6, -0.96 * 0.6, 0.8)
VALUES = {"liver": 3, "left kidney": 7}


@pytest.fixture
def segments(tmp_path) -> list[Segment]:
    file = tmp_path / "codes.yaml"
    file.write_text(YAML)
    codes = read_codes(file, list(VALUES))
    return [Segment(name, value, codes[name]) for name, value in VALUES.items()]


def mask_of(source, seed: int = 0) -> np.ndarray:
    """A mask in canonical orientation with both values, and planes that are empty."""
    shape = to_canonical(read_scan(source)).shape
    mask = np.random.default_rng(seed).choice([0, 0, 3, 7], shape).astype(np.uint8)
    mask[0] = mask[-1] = 0
    return mask


def run_dcmqi(file: Path, out: Path) -> dict[str, nib.Nifti1Image]:
    """Every segment as NIfTI, by its label, as dcmqi reads it."""
    out.mkdir()
    reader = Path(sys.executable).with_name("segimage2itkimage")
    command = [reader, "--inputDICOM", file, "--outputDirectory", out, "-t", "nii", "-p", "s"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    about = json.loads((out / "s-meta.json").read_text())["segmentAttributes"]
    return {one["SegmentLabel"]: nib.load(out / f"s-{one['labelID']}.nii.gz") for (one,) in about}


def check_with_dcmqi(file: Path, nifti: Path, out: Path) -> None:
    """Every voxel of a NIfTI mask that has a value is one of the segment, at the same place, and no other."""
    image = nib.load(nifti)
    mask = np.asarray(image.dataobj)
    found = run_dcmqi(file, out)
    assert list(found) == list(VALUES)
    for name, value in VALUES.items():
        places = []
        for one, wanted in ((image, mask == value), (found[name], np.asarray(found[name].dataobj) > 0)):
            index = np.argwhere(wanted)
            world = index @ one.affine[:3, :3].T + one.affine[:3, 3]
            places.append(world[np.lexsort(np.round(world, 2).T)])
        assert len(places[0]) == len(places[1]) > 0
        np.testing.assert_allclose(places[1], places[0], atol=2e-3)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE], ids=str)
def test_dcmqi_reads_the_voxels_and_the_places_of_the_nifti_mask(segments, tmp_path, orientation):
    write_series(tmp_path / "in", voxels(), orientation=orientation, FrameOfReferenceUID="1.2.9")
    source = only(tmp_path / "in")
    mask = mask_of(source)
    write_segmentation(source, mask, segments, tmp_path / "seg.dcm", model="abc")
    write_label_like(source, mask, tmp_path / "mask.nii.gz")
    check_with_dcmqi(tmp_path / "seg.dcm", tmp_path / "mask.nii.gz", tmp_path / "out")


def test_its_attributes_say_what_the_standard_asks(segments, tmp_path):
    files = write_series(tmp_path / "in", voxels(), FrameOfReferenceUID="1.2.9")
    source = only(tmp_path / "in")
    mask = mask_of(source)
    write_segmentation(source, mask, segments, tmp_path / "seg.dcm", model="abc")
    made = pydicom.dcmread(tmp_path / "seg.dcm")
    slices = {str(one.SOPInstanceUID): one for one in map(pydicom.dcmread, files)}
    assert (made.Modality, made.SegmentationType) == ("SEG", "BINARY")
    assert (made.PatientID, made.StudyInstanceUID) == ("DOE-4711", "1.2.3")
    assert made.FrameOfReferenceUID == "1.2.9"
    (series,) = made.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.4" != made.SeriesInstanceUID
    assert {str(one.ReferencedSOPInstanceUID) for one in series.ReferencedInstanceSequence} == set(slices)
    kidney = made.SegmentSequence[1]
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kidney.SegmentLabel, kind.CodeValue, kind.CodeMeaning) == ("left kidney", "64033007", "Kidney")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert made.SegmentSequence[0].SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
    # Frame by frame, from the attributes of the standard: which segment, which slice, which voxels.
    bits = np.unpackbits(np.frombuffer(made.PixelData, np.uint8), bitorder="little")
    frames = bits[: made.NumberOfFrames * made.Rows * made.Columns].reshape(-1, made.Rows, made.Columns)
    planes = {float(one.ImagePositionPatient[2]): uid for uid, one in slices.items()}
    left = {value: mask == value for value in VALUES.values()}
    for frame, about in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        number = about.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        position = about.PlanePositionSequence[0].ImagePositionPatient
        (origin,) = about.DerivationImageSequence[0].SourceImageSequence
        assert planes[float(position[2])] == origin.ReferencedSOPInstanceUID
        z = round((float(position[2]) - 30) / 2.5)
        value = list(VALUES.values())[number - 1]
        assert np.array_equal(frame, left[value][z])
        left[value][z] = False
    assert not any(one.any() for one in left.values())


def test_frames_of_a_multi_frame_object_keep_their_places(segments, tmp_path):
    stored = voxels(5) + 1024
    order = [3, 0, 4, 1, 2]  # frame k shows plane order[k]
    frames = [groups((-10, -20, 30 + 2.5 * z), slope=1, intercept=-1024) for z in order]
    image = enhanced(stored[order].astype(np.uint16), frames, FrameOfReferenceUID="1.2.9", SeriesNumber=1)
    for keyword, value in (("ContentDate", "20200101"), ("ContentTime", "000000"), ("InstanceNumber", 1)):
        setattr(image, keyword, value)
    save(image, tmp_path / "in/enhanced.dcm")
    source = only(tmp_path / "in")
    assert np.array_equal(read_scan(source).array, stored - 1024)
    mask = mask_of(source)
    write_segmentation(source, mask, segments, tmp_path / "seg.dcm", model="abc")
    write_label_like(source, mask, tmp_path / "mask.nii.gz")
    check_with_dcmqi(tmp_path / "seg.dcm", tmp_path / "mask.nii.gz", tmp_path / "out")


def test_an_empty_mask_is_written_too(segments, tmp_path):
    write_series(tmp_path / "in", voxels(), FrameOfReferenceUID="1.2.9")
    source = only(tmp_path / "in")
    write_segmentation(source, mask_of(source) * 0, segments, tmp_path / "seg.dcm", model="abc")
    made = pydicom.dcmread(tmp_path / "seg.dcm")
    assert len(made.SegmentSequence) == 2
    assert not made.pixel_array.any()


def test_what_cannot_be_written_leaves_nothing(segments, tmp_path):
    write_series(tmp_path / "in", voxels())  # no frame of reference
    source = only(tmp_path / "in")
    mask = mask_of(source)
    with pytest.raises(ReadError, match="no Frame Of Reference UID"):
        write_segmentation(source, mask, segments, tmp_path / "out/seg.dcm", model="abc")
    with pytest.raises(ReadError, match=r"the mask has shape \(5, 8, 10\) .*, the scan has \(6, 8, 10\)"):
        write_segmentation(source, mask[1:], segments, tmp_path / "out/seg.dcm", model="abc")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(ReadError, match=r"a\.nii\.gz is no DICOM series"):
        write_segmentation(
            find(tmp_path / "a.nii.gz")[0], mask, segments, tmp_path / "out/seg.dcm", model="abc"
        )
    assert not list(tmp_path.glob("out/*"))
    assert not list(tmp_path.glob("out/.*"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (YAML.replace("liver", "Liver"), "has no code for liver; it has Liver, left kidney"),
        ("- liver", "must name classes, each with category"),
        ("liver: [", "can't be read as YAML"),
        ("liver: {type: [1, SCT, Liver]}\nleft kidney: {}", "liver must have category, type and perhaps modifier"),
        (YAML.replace("[10200004, SCT, Liver]", "10200004"), r"liver: type must be \[VALUE, SCHEME, MEANING\]"),
        (YAML.replace("10200004", "10200004102000041"), "at most 16, 16, 64 characters"),
        (YAML.replace("Liver]", "''"), "can't be read as YAML"),
    ],
)  # fmt: skip
def test_codes_that_cannot_be_used_are_refused(text, said, tmp_path):
    (tmp_path / "codes.yaml").write_text(text)
    with pytest.raises(CodesError, match=said):
        read_codes(tmp_path / "codes.yaml", list(VALUES))


def test_a_code_keeps_its_digits(tmp_path):
    (tmp_path / "codes.yaml").write_text("a: {category: [0010, X, c], type: ['1e3', X, t]}")
    codes = read_codes(tmp_path / "codes.yaml", ["a"])["a"]
    assert (codes.category.value, codes.type.value, codes.modifier) == ("0010", "1e3", None)


def test_a_real_series(segments, shared, tmp_path):
    source = only(shared / "formats/dicom_ct_abdomen")
    mask = np.zeros_like(mask_of(source))
    mask[3:7, 100:130, 200:260], mask[30:, 300:350, 250:260] = 3, 7
    write_segmentation(source, mask, segments, tmp_path / "seg.dcm", model="abc")
    write_label_like(source, mask, tmp_path / "mask.nii.gz")
    check_with_dcmqi(tmp_path / "seg.dcm", tmp_path / "mask.nii.gz", tmp_path / "out")
