"""Segmentations and structure sets as label maps: written by others, read back on the voxels of their series."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_files import dataset, only, voxels, write_series
from pydicom.uid import generate_uid

from parts2whole.phantom.write_rtstruct import write_structures
from parts2whole.scans.case import IngestError
from parts2whole.scans.dicom_labels import DicomLabel, find_label_objects
from parts2whole.scans.read import find_scans, read_scan
from parts2whole.scans.volume import LabelVolume

CODE = {"CodeValue": "10200004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Liver"}
OBLIQUE = (0.96, 0.28, 0.0, 0.28 * 0.6, -0.96 * 0.6, 0.8)


def write_by_dcmqi(folder: Path, series: Path, scan, masks: dict[str, np.ndarray]) -> Path:
    """A segmentation with a segment a mask, as dcmqi makes it from NIfTI files."""
    folder.mkdir()
    z, y, x = scan.spacing_mm
    for name, mask in masks.items():
        image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing((x, y, z))
        image.SetOrigin(scan.origin_mm)
        image.SetDirection(np.asarray(scan.direction)[:, ::-1].ravel().tolist())
        SimpleITK.WriteImage(image, folder / f"{name}.nrrd")
    about = {
        "ContentCreatorName": "Doe",
        "SeriesDescription": "s",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "segmentAttributes": [
            [
                {
                    "labelID": 1,
                    "SegmentDescription": name,
                    "SegmentLabel": name,
                    "SegmentAlgorithmType": "MANUAL",
                    "SegmentedPropertyCategoryCodeSequence": CODE,
                    "SegmentedPropertyTypeCodeSequence": CODE,
                }
            ]
            for name in masks
        ],
    }
    (folder / "about.json").write_text(json.dumps(about))
    command = [Path(sys.executable).with_name("itkimage2segimage"), "--inputDICOMDirectory", series]
    command += ["--inputImageList", ",".join(str(folder / f"{name}.nrrd") for name in masks)]
    command += ["--inputMetadata", folder / "about.json", "--outputDICOM", folder / "seg.dcm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "seg.dcm"


def complete_series(folder: Path, **tags) -> Path:
    """A series with what dcmqi asks for."""
    common = {
        "FrameOfReferenceUID": "1.2.9",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyDate": "20200101",
    }
    common |= {"StudyTime": "000000", "AccessionNumber": "", "StudyID": "", "SliceThickness": 2.5}
    write_series(folder, voxels(), **common, **tags)
    return folder


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE], ids=str)
def test_a_segmentation_that_dcmqi_made_comes_back(orientation, tmp_path):
    series = complete_series(tmp_path / "in", orientation=orientation)
    scan = read_scan(only(series))
    values = np.random.default_rng(0).choice([0, 0, 1, 2], scan.shape)
    file = write_by_dcmqi(tmp_path / "seg", series, scan, {"Liver": values == 1, "Lesion": values == 2})
    label = DicomLabel((file,), ("Liver|LIVER", "Lesion")).read(scan)
    assert np.array_equal(label.array, values)
    assert label.same_grid(scan)
    swapped = DicomLabel((file,), ("nothing", "Lesion", "hepar|Liver")).read(scan)
    assert np.array_equal(swapped.array, np.choose(values, [0, 3, 2]))


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_that_highdicom_made_of_some_slices_comes_back(kind, tmp_path):
    series = complete_series(tmp_path / "in")
    scan = read_scan(only(series))
    values = np.zeros(scan.shape, np.uint8)
    values[2:5] = np.random.default_rng(0).choice([0, 1, 2], (3, *scan.shape[1:]))
    headers = sorted(map(pydicom.dcmread, series.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    segments = [
        highdicom.seg.SegmentDescription(n, name, *[highdicom.sr.CodedConcept(*CODE.values())] * 2, "MANUAL")
        for n, name in ((1, "Liver"), (2, "Lesion"))
    ]
    made = highdicom.seg.Segmentation(
        headers[:1:-1],  # from above
        values[:1:-1],
        kind,
        segments,
        generate_uid(),
        1,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "1",
    )
    made.save_as(tmp_path / "seg.dcm")
    label = DicomLabel((tmp_path / "seg.dcm",), ("Liver", "Lesion")).read(scan)
    assert np.array_equal(label.array, values)
    other = read_scan(only(complete_series(tmp_path / "shifted", origin=(-10.0, -20.3, 30.0))))
    with pytest.raises(IngestError, match="Liver in the SEG: it lies on another grid than the scan"):
        DicomLabel((tmp_path / "seg.dcm",), ("Liver",)).read(other)
    below = read_scan(only(complete_series(tmp_path / "below", origin=(-10.0, -20.0, 40.0))))
    with pytest.raises(IngestError, match="it leaves the scan"):
        DicomLabel((tmp_path / "seg.dcm",), ("Liver",)).read(below)


def test_probabilities_are_refused(tmp_path):
    series = complete_series(tmp_path / "in")
    scan = read_scan(only(series))
    file = write_by_dcmqi(tmp_path / "seg", series, scan, {"Liver": np.ones(scan.shape)})
    made = pydicom.dcmread(file)
    made.SegmentationType = "FRACTIONAL"
    made.save_as(file)
    with pytest.raises(IngestError, match="its voxels are FRACTIONAL"):
        DicomLabel((file,), ("Liver",)).read(scan)


def test_objects_are_found_among_series_and_the_later_structure_is_painted_over_the_earlier(tmp_path):
    series = complete_series(tmp_path / "in")
    scan = read_scan(only(series))
    organ = np.zeros(scan.shape, bool)
    organ[1:5, 2:7, 2:8] = True
    inner = np.zeros(scan.shape, bool)
    inner[2:4, 3:5, 3:5] = True
    write_by_dcmqi(tmp_path / "seg", series, scan, {"Liver": organ, "unused": ~organ})
    drawn = LabelVolume(inner.astype(np.uint8), scan.spacing_mm, scan.origin_mm, scan.direction)
    names = {"patient": "DOE-4711", "study_uid": "1.2.3", "series_uid": "1.2.3.4"}
    write_structures(drawn, {1: "Lesion"}, tmp_path / "rt.dcm", **names)
    found = find_label_objects(find_scans([tmp_path], salt=b"x"))
    assert sorted((one.kind, one.series, tuple(one.names.values())) for one in found) == [
        ("RTSTRUCT", ("1.2.3.4",), ("Lesion",)),
        ("SEG", ("1.2.3.4",), ("Liver", "unused")),
    ]
    objects = tuple(one.path for one in found)
    label = DicomLabel(objects, ("Liver", "Lesion")).read(scan)
    assert np.array_equal(label.array, organ + inner.astype(int))
    label = DicomLabel(objects, ("Lesion", "Liver")).read(scan)
    assert np.array_equal(label.array, 2 * organ)
    write_structures(drawn, {1: "Liver"}, tmp_path / "other.dcm", **names)
    with pytest.raises(IngestError, match="Liver is in 2 files"):
        DicomLabel((*objects, tmp_path / "other.dcm"), ("Liver",)).read(scan)


def test_objects_that_name_no_series_are_of_that_of_their_images(tmp_path):
    """In segmentations as dcmqi writes them, frame by frame; in structure sets contour by contour."""
    series = complete_series(tmp_path / "ct/a")
    complete_series(tmp_path / "ct/b", uid="1.2.3.5")
    scan = read_scan(only(series))
    organ = np.zeros(scan.shape, bool)
    organ[2:4, 2:7, 2:8] = True
    file = write_by_dcmqi(tmp_path / "seg", series, scan, {"Liver": organ})
    segmentation = pydicom.dcmread(file)
    del segmentation.ReferencedSeriesSequence
    segmentation.save_as(file)
    drawn = LabelVolume(organ.astype(np.uint8), scan.spacing_mm, scan.origin_mm, scan.direction)
    about = {"patient": "DOE-4711", "study_uid": "1.2.3", "series_uid": "1.2.3.4"}
    write_structures(drawn, {1: "Liver"}, tmp_path / "rt.dcm", **about)
    structures = pydicom.dcmread(tmp_path / "rt.dcm")
    study = structures.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    study.ReferencedSOPInstanceUID = "1.2.3"
    study.RTReferencedSeriesSequence[0].SeriesInstanceUID = ""
    structures.save_as(tmp_path / "rt.dcm")

    def found():
        return {one.kind: one.series for one in find_label_objects(find_scans([tmp_path], salt=b"x"))}

    assert found() == {"SEG": ("1.2.3.4",), "RTSTRUCT": ()}
    drawn_on = next(map(pydicom.dcmread, series.iterdir())).SOPInstanceUID
    image = dataset(ContourImageSequence={"ReferencedSOPInstanceUID": drawn_on})
    structures.ROIContourSequence[0].ContourSequence[1].update(image)
    structures.save_as(tmp_path / "rt.dcm")
    assert found() == {"SEG": ("1.2.3.4",), "RTSTRUCT": ("1.2.3.4",)}
    shutil.rmtree(series)
    assert found() == {"SEG": (), "RTSTRUCT": ()}


def test_a_broken_object_is_told(tmp_path):
    scan = read_scan(only(complete_series(tmp_path / "in")))
    (tmp_path / "cut.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00")
    with pytest.raises(IngestError, match=r"cut\.dcm: broken DICOM"):
        DicomLabel((tmp_path / "cut.dcm",), ("Liver",)).read(scan)
