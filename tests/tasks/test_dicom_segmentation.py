"""Structures of DICOM series as a target task: what is a case, what is set aside, and a whole round."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from parts2whole.phantom.ct import make_ct
from parts2whole.phantom.sizes import CT
from parts2whole.scans.read import user_salt
from parts2whole.scans.source import hashed
from parts2whole.tasks.dicom_segmentation import DicomSegmentation, usual_structures
from parts2whole.tasks.labelled import TaskError


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> DicomSegmentation:
    return DicomSegmentation.example(tmp_path_factory.mktemp("structures"))


@pytest.fixture
def task(example, tmp_path) -> DicomSegmentation:
    """The example, to be changed."""
    return example.replace(data=Path(shutil.copytree(example.data, tmp_path / "data")))


def test_what_was_drawn_is_what_is_learned(example, tmp_path):
    labelled = example.labelled(cache=tmp_path, workers=0, progress=False)
    assert labelled.classes == ("background", "Liver", "Lesion")
    assert example.mask_values(labelled.classes) == (0, 1, 2)
    expected = sorted(
        make_ct("abdomen", CT["abdomen"]["tiny"], seed=0, case=case).liver_label().array.tobytes()
        for case in range(5)
    )
    stored = [labelled.store.read_label(item.case_id) for item in labelled.items]
    assert sorted(one.astype(np.uint8).tobytes() for one in stored) == expected
    assert len({item.patient for item in labelled.items}) == 5
    assert not any("p0" in item.case_id for item in labelled.items)


def test_without_structures_it_says_what_there_is(example):
    with pytest.raises(
        TaskError, match=r"--task\.structures; .* holds: Lesion \(5\), Liver \(4\), liver \(1\)"
    ):
        example.replace(structures=(), may_lack=()).sources()


def test_a_series_without_a_structure_is_set_aside_unless_it_may_lack_it(example):
    strict = example.replace(structures=("Liver",), may_lack=()).sources()
    assert len(strict.cases) == 4
    (reason,) = strict.set_aside.values()
    assert reason.startswith("it has no Liver but")
    assert "join names of one structure by |" in reason
    lax = example.replace(structures=("Liver", "Spleen"), may_lack=("Liver", "Spleen")).sources()
    assert len(lax.cases) == 5


def test_what_is_drawn_on_nearly_all_series_is_proposed(task):
    structures, why = usual_structures(task.data)
    assert structures == ("Liver|liver", "Lesion")  # the larger one first, by its voxels
    assert why.startswith("drawn on 90% or more of 5 series; where two overlap, the later")
    for patient, change in ((0, ""), (1, "LI-VER")):
        path = task.data / f"p{patient}/RTSTRUCT/1.dcm"
        content = pydicom.dcmread(path)
        regions = {str(item.ROIName): item for item in content.StructureSetROISequence}
        if change:
            regions["Liver"].ROIName = change
        else:
            number = regions["Lesion"].ROINumber
            drawn = [item for item in content.ROIContourSequence if item.ReferencedROINumber != number]
            content.ROIContourSequence = drawn
        content.save_as(path)
    structures, why = usual_structures(task.data)
    assert [sorted(one.split("|")) for one in structures] == [["LI-VER", "Liver", "liver"]]
    assert why.endswith(". Fewer have Lesion (4)")
    broken = min((task.data / "p2").rglob("*-*.dcm"))
    broken.write_bytes(broken.read_bytes()[:-100])
    assert usual_structures(task.data)[0] == structures  # that one says nothing of their sizes
    for path in task.data.glob("p[0-4]/RTSTRUCT/1.dcm"):
        path.unlink()
    with pytest.raises(TaskError, match=r"no DICOM segmentation or structure set in .* names a structure"):
        usual_structures(task.data)


@pytest.mark.parametrize("left", ["no item", "an empty item", "a line", "nothing"])
def test_a_region_that_is_named_but_not_drawn_is_one_that_isnt_there(left, task):
    path = task.data / "p0/RTSTRUCT/1.dcm"
    content = pydicom.dcmread(path)
    numbers = {str(item.ROIName): item.ROINumber for item in content.StructureSetROISequence}
    region = next(item for item in content.ROIContourSequence if item.ReferencedROINumber == numbers["Liver"])
    if left == "no item":
        content.ROIContourSequence.remove(region)
    elif left == "an empty item":
        del region.ContourSequence
    elif left == "a line":  # of two points, which encloses nothing
        region.ContourSequence = region.ContourSequence[:1]
        region.ContourSequence[0].ContourData = region.ContourSequence[0].ContourData[:6]
    else:
        del content.ROIContourSequence
    content.save_as(path)
    strict = task.sources()
    assert len(strict.cases) == 4
    (reason,) = strict.set_aside.values()
    assert re.match(
        r"it has no Liver but (Lesion|nothing) \(named, but not drawn: (Lesion, )?Liver\)", reason
    )
    lax = task.replace(may_lack=("Liver", "Lesion")).sources()
    assert len(lax.cases) == 5


def test_series_and_objects_that_have_no_counterpart_are_told(task):
    shutil.rmtree(task.data / "p0/CT")
    shutil.rmtree(task.data / "p1/RTSTRUCT")
    found = task.sources()
    assert len(found.cases) == 3
    assert found.notes == ("1 series have no segmentation and no structure set",)
    lost = pydicom.dcmread(task.data / "p0/RTSTRUCT/1.dcm").ReferencedFrameOfReferenceSequence[0]
    uid = lost.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID
    ((name, reason),) = found.set_aside.items()
    assert name == f"RTSTRUCT-{hashed(uid, user_salt())}"
    assert reason.startswith("the series that it refers to isn't below")


def test_an_object_that_names_no_series_is_of_that_of_its_images_or_told(task):
    for patient in ("p1", "p3"):
        path = task.data / patient / "RTSTRUCT/1.dcm"
        content = pydicom.dcmread(path)
        del content.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
        if patient == "p3":
            image = Dataset()
            image.ReferencedSOPInstanceUID = pydicom.dcmread(task.data / "p3/CT/1-005.dcm").SOPInstanceUID
            content.ROIContourSequence[0].ContourSequence[0].ContourImageSequence = [image]
        content.save_as(path)
    found = task.sources()
    assert len(found.cases) == 4
    assert found.notes == ("1 series have no segmentation and no structure set",)
    ((name, reason),) = found.set_aside.items()
    assert name.startswith("RTSTRUCT-")
    assert reason == (
        f"p1/RTSTRUCT/1.dcm names no series, and no image that it refers to is below {task.data}"
    )


def test_what_was_drawn_is_nothing_to_predict_for(task):
    (task.data / "p0/broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00")
    found = task.find_inputs([task.data])
    assert sum(case.images[0].problem is None for case in found) == 5
    (broken,) = (case.images[0] for case in found if case.images[0].problem)
    assert [path.name for path in broken.paths] == ["broken.dcm"]
    assert [len(case.images[0].paths) for case in task.find_inputs([task.data / "p1"])] == [32]
    assert task.find_inputs([task.data / "p1/RTSTRUCT"]) == []


def test_a_series_of_two_volumes_is_set_aside(task):
    for file in (task.data / "p2/CT").iterdir():
        slice_ = pydicom.dcmread(file)
        slice_.ConvolutionKernel = "sharp"
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = (
            f"{slice_.SOPInstanceUID}"[:-1] + "7"
        )
        slice_.PixelData = bytes(reversed(slice_.PixelData))
        slice_.save_as(file.with_name(f"again-{file.name}"))
        first = pydicom.dcmread(file)
        first.ConvolutionKernel = "soft"
        first.save_as(file)
    found = task.sources()
    assert len(found.cases) == 4
    assert set(found.set_aside.values()) == {
        "its series holds 2 volumes, and which one was drawn on can't be known"
    }


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"structures": ("a|b", "b")}, "structures name b twice"),
        ({"structures": ("a|",)}, "hold an empty name"),
        ({"structures": ("a|b",), "may_lack": ("b",)}, "may_lack names b, the classes are a"),
    ],
)
def test_names_that_contradict_each_other_are_refused(fields, said):
    with pytest.raises(TaskError, match=said):
        DicomSegmentation("data", **fields)


def test_another_choice_of_structures_is_another_cache(example, tmp_path):
    assert example.cache_folder(tmp_path) != example.replace(may_lack=()).cache_folder(tmp_path)
