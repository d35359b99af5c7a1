"""One series in many ways: odd images that are left out, copies, and patients that share a UID.

Right values are the planes and places that the files were made of.
"""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_files import SAGITTAL, UID, add, check, find, only, usable, voxels, write_series, write_slice

from parts2whole.scans.case import SourceCase
from parts2whole.scans.read import read_scan, read_volume

ODD = {
    "scout": (lambda d: add(d, voxels(1)[0], orientation=SAGITTAL, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "a localiser"),
    "scout without its type": (lambda d: add(d, voxels(1)[0], orientation=SAGITTAL), "of another orientation or size"),
    "axial scout": (lambda d: add(d, voxels(1, 9)[0], 32.5, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "a localiser"),
    "two scouts": (lambda d: [add(d, voxels(1)[0], name=n, orientation=o) for n, o in (("a", SAGITTAL), ("b", (1, 0, 0, 0, 0, -1)))], "of another orientation or size"),
    "dose page": (lambda d: add(d, voxels(1)[0], ImagePositionPatient=None, ImageType=["DERIVED", "SECONDARY", "OTHER"]), "no place in the patient"),
    "dose page of the slices' type": (lambda d: add(d, voxels(1)[0], ImagePositionPatient=None), "no place in the patient"),
    "dose page of another size": (lambda d: add(d, np.zeros((30, 40)), ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None), "no place in the patient"),
    "screen capture in colour": (lambda d: add(d, voxels(1)[0], SamplesPerPixel=3, PhotometricInterpretation="RGB"), "a colour image"),
    "screen capture with a palette": (lambda d: add(d, voxels(1)[0], PhotometricInterpretation="PALETTE COLOR"), "a colour image"),
    "no pixels": (lambda d: add(d, voxels(1)[0], Rows=None, Columns=None), "an image without rows and columns (CT Image Storage)"),
    "structures": (lambda d: add(d, voxels(1)[0], Rows=None, Columns=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3"), "not an image but RT Structure Set Storage"),
    "thumbnail": (lambda d: add(d, voxels(1)[0][:4, :4], 32.5), "of another orientation or size"),
    "other zoom": (lambda d: add(d, voxels(1)[0], 32.5, PixelSpacing=[1.6, 1.4]), "of another orientation or size"),
    "derived image at a slice's place": (lambda d: add(d, voxels(1, 9)[0], 32.5, ImageType=["DERIVED", "SECONDARY", "MIP"]), "of another ImageType"),
    "monitoring image far away": (lambda d: add(d, voxels(1, 9)[0], 300.0, AcquisitionNumber=7), "of another AcquisitionNumber"),
    "monitoring images": (lambda d: [add(d, voxels(1, 9 + n)[0], 35.0, name=f"m{n}", AcquisitionNumber=7, ContentTime=f"12000{n}") for n in range(4)], "of another AcquisitionNumber"),
    "impossible orientation": (lambda d: add(d, voxels(1)[0], orientation=(1, 0, 0, 1, 0, 0)), "no place in the patient"),
    "spacing of nothing": (lambda d: add(d, voxels(1)[0], PixelSpacing=[0, 0], ImageType=["DERIVED"]), "no place in the patient"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_odd_images_are_left_out_of_their_series(tmp_path, kind):
    write_series(tmp_path, voxels(20), AcquisitionNumber=1)
    make, said = ODD[kind]
    made = make(tmp_path)
    count = len(made) if isinstance(made, list) else 1
    (source,) = usable(tmp_path)
    check(source, voxels(20), [30 + 2.5 * n for n in range(20)])
    assert len(source.notes) == 1
    assert source.notes[0].startswith(f"{count} image{'s' * (count > 1)} left out: {said}")
    assert not source.case_id.endswith("-1")
    assert read_volume(tmp_path).notes == source.notes


def test_odd_images_first_or_last_in_the_folder_make_no_difference(tmp_path):
    """Nothing is decided by the first header."""
    for name in ("0", "z"):
        folder = tmp_path / name
        write_series(folder, voxels(8))
        add(folder, np.zeros((30, 40)), name=name, ImagePositionPatient=None, Modality="OT", PhotometricInterpretation="RGB", SamplesPerPixel=3)  # fmt: skip
        (source,) = usable(folder)
        assert source.case_id.startswith("CT-")
        check(source, voxels(8), [30.0])


def test_slices_that_lost_their_place_are_no_oddity(tmp_path):
    paths = write_series(tmp_path, voxels(10))
    for number in (7, 8, 9):
        image = pydicom.dcmread(paths[number])
        del image.ImagePositionPatient
        image.save_as(paths[number])
    assert only(tmp_path).problem == "3 of 10 images have no place in the patient (secondary capture?)"
    image = pydicom.dcmread(paths[7])
    image.ImagePositionPatient = [-10, -20, 47.5]
    image.save_as(paths[7])
    image = pydicom.dcmread(paths[4])
    del image.ImagePositionPatient
    image.save_as(paths[4])
    paths[8].unlink()
    paths[9].unlink()
    assert only(tmp_path).problem == (
        "missing slices: about 1 of 8, in 1 gap; the usual distance is 2.5 mm, the largest 5 mm; "
        "1 image left out: no place in the patient (secondary capture?)"
    )


def test_what_is_left_out_is_named_where_slices_are_missing(tmp_path):
    paths = write_series(tmp_path, voxels(10))
    write_slice(paths[4], np.zeros((12, 12), np.int16), (-10.0, -20.0, 40.0), uid=UID)
    assert only(tmp_path).problem == (
        "missing slices: about 1 of 10, in 1 gap; the usual distance is 2.5 mm, the largest 5 mm; "
        "1 image left out: of another orientation or size"
    )


def test_two_studies_under_one_series_uid_are_two_scans(tmp_path):
    write_series(tmp_path / "a", voxels(6), StudyInstanceUID="1.2.1", PatientID="A")
    write_series(tmp_path / "b", voxels(6, 9), StudyInstanceUID="1.2.2", PatientID="B")
    one, other = usable(tmp_path, 2)
    assert one.case_id != other.case_id
    assert one.patient != other.patient
    assert {read_scan(each).array.tobytes() for each in (one, other)} == {
        read_scan(only(tmp_path / name)).array.tobytes() for name in "ab"
    }


@pytest.mark.parametrize(
    ("issuers", "patients"),
    [(("NORTH", "SOUTH"), 2), (("NORTH", "NORTH"), 1), (("NORTH", ""), 1), (("NORTH", "SOUTH", ""), 1)],
)
def test_an_id_that_is_there_without_an_issuer_is_one_patients(tmp_path, issuers, patients):
    for number, issuer in enumerate(issuers):
        said = {"IssuerOfPatientID": issuer} if issuer else {}
        study = f"1.2.{number + 1}"
        write_series(
            tmp_path / str(number), voxels(6, number), uid=f"{study}.9", StudyInstanceUID=study, **said
        )
    assert len({each.patient for each in usable(tmp_path, len(issuers))}) == patients


def test_reasons_of_a_series_that_is_no_scan_are_all_named(tmp_path):
    add(tmp_path, voxels(1)[0], name="a", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    add(tmp_path, voxels(1)[0], name="b", PhotometricInterpretation="RGB", SamplesPerPixel=3)
    assert only(tmp_path).problem == "1 of 2 files: a localiser; 1 of 2 files: a colour image"


def test_images_that_are_no_volume(tmp_path):
    add(tmp_path / "one", voxels(1)[0])
    assert only(tmp_path / "one").problem == "a single slice"
    for number in range(5):
        add(tmp_path / "cine", voxels(1, number)[0], name=str(number), uid="1.9", InstanceNumber=number)
    assert only(tmp_path / "cine").problem == "5 images at one position"
    for number, angle in enumerate(np.linspace(0, np.pi, 6, endpoint=False)):
        radial = (np.cos(angle), np.sin(angle), 0, 0, 0, -1)
        add(tmp_path / "radial", voxels(1, number)[0], name=str(number), uid="1.8", orientation=radial)
    assert only(tmp_path / "radial").problem == "6 images, no two of which are neighbours"


COPY_TAGS = [
    {},
    {"InstanceNumber": 99},
    {"AcquisitionNumber": 2},
    {"AcquisitionTime": "120007.5", "ContentTime": "130007.5"},
    {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]},
    {"PatientID": "DOE-4711", "StationName": "ARCHIVE"},
]


@pytest.mark.parametrize("again", COPY_TAGS)
@pytest.mark.parametrize("numbers", [(7,), (0, 1, 2), (3, 11, 19)])
@pytest.mark.parametrize("name", ["0copy", "zcopy"])
def test_the_same_slice_under_a_new_uid_is_left_out(tmp_path, again, numbers, name):
    counted = {
        "AcquisitionNumber": [1] * 20,
        "AcquisitionTime": [f"1200{n:02d}.0" for n in range(20)],
        "ContentTime": [f"1300{n:02d}.0" for n in range(20)],
    }
    write_series(tmp_path, voxels(20), **counted)
    for number in numbers:
        own = (
            {tag: values[number] for tag, values in counted.items()}
            | {"InstanceNumber": number + 100}
            | again
        )
        add(tmp_path, voxels(20)[number], 30 + 2.5 * number, name=f"{name}{number}", **own)
    (source,) = usable(tmp_path)
    check(source, voxels(20), [30 + 2.5 * n for n in range(20)])
    many = f"{len(numbers)} copies of slices" if len(numbers) > 1 else "1 copy of a slice"
    assert source.notes == (f"{many} left out",)


def test_copies_may_be_stored_otherwise(tmp_path):
    """Another slope, intercept, type or compression, and a position of fewer digits: the voxels are the same."""
    array = voxels(8)
    write_series(tmp_path, array, distance=2.501)
    add(tmp_path, array[2], 35.002, name="a", slope=0.5, intercept=-2000.0)
    add(tmp_path, array[3], 37.503, name="b", intercept=-1024.0 - 32768, PixelRepresentation=0)
    compressed = pydicom.dcmread(add(tmp_path, array[4], 40.0, name="c"))
    compressed.ImagePositionPatient = [-10, -20, 40.004]
    compressed.compress(pydicom.uid.RLELossless)
    compressed.save_as(tmp_path / "c")
    (source,) = usable(tmp_path)
    check(source, array, [30 + 2.501 * n for n in range(8)])
    assert source.notes == ("3 copies of slices left out",)


def test_a_series_sent_twice_is_one_volume(tmp_path):
    for time in ("12", "13"):
        write_series(tmp_path / time, voxels(8), ContentTime=f"{time}0000", AcquisitionTime="110000")
    (source,) = usable(tmp_path)
    check(source, voxels(8), [30.0])
    assert source.notes == ("8 copies of slices left out",)


def test_a_copy_that_is_cut_is_left_out(tmp_path):
    paths = write_series(tmp_path, voxels(8))
    cut = tmp_path / "0cut"
    cut.write_bytes(paths[3].read_bytes()[:-60])
    (source,) = usable(tmp_path)
    check(source, voxels(8), [30.0])
    assert source.notes == ("1 broken copy of a slice left out",)


def test_one_uid_for_many_slices(tmp_path):
    """UIDs don't make slices equal; only the same voxels at the same place are."""
    write_series(tmp_path, voxels(10), SOPInstanceUID="1.2.3")
    (source,) = usable(tmp_path)
    assert source.notes == ()
    check(source, voxels(10), [30 + 2.5 * n for n in range(10)])


@pytest.mark.parametrize("same_uid", [True, False])
def test_two_different_slices_at_one_position(tmp_path, same_uid):
    tags = {"AcquisitionNumber": [1] * 20, "AcquisitionTime": [f"1200{n:02d}" for n in range(20)]}
    tags["SOPInstanceUID"] = [f"1.2.5.{n}" for n in range(20)]
    write_series(tmp_path, voxels(20), **tags)
    instance = "1.2.5.7" if same_uid else "1.2.5.99"
    add(tmp_path, voxels(1, 9)[0], 47.5, AcquisitionNumber=1, AcquisitionTime="120007.5", SOPInstanceUID=instance, InstanceNumber=21)  # fmt: skip
    under = " under one SOPInstanceUID" if same_uid else ""
    assert (
        only(tmp_path).problem
        == f"up to 2 images at one position{under}, and no tag sorts all of them into regular volumes"
    )


def test_a_volume_of_its_series_is_set_aside_alone(tmp_path):
    paths = write_series(tmp_path / "a", voxels(8, 1), AcquisitionNumber=1)
    write_series(tmp_path / "b", voxels(8, 2), AcquisitionNumber=2, distance=2.0)
    write_series(tmp_path / "c", voxels(12, 3), orientation=(1, 0, 0, 0, 0, -1))
    assert len(paths) == 8
    (tmp_path / "c" / "IM0028_.3.4").unlink()
    problems = {len(source.paths): source.problem for source in find(tmp_path)}
    assert problems[11].startswith("missing slices: about 1 of 12")
    assert problems[8] is None


def test_rescaling_that_some_slices_lack_is_refused(tmp_path):
    paths = write_series(tmp_path, voxels(8))
    for number in (2, 3):
        image = pydicom.dcmread(paths[number])
        del image.RescaleSlope, image.RescaleIntercept
        image.save_as(paths[number])
    assert only(tmp_path).problem == "2 of 8 images have no rescale slope and intercept, the others do"


@pytest.mark.parametrize("shared", ["SeriesInstanceUID", "StudyInstanceUID", "both"])
def test_patients_under_one_uid_are_never_mixed(tmp_path, shared):
    """Some tools that remove identities write one UID everywhere."""
    for number in range(2):
        series, study = "1.2.3.4", "1.2.3"
        if shared == "SeriesInstanceUID":
            study = f"1.2.3.{number}"
        if shared == "StudyInstanceUID":
            series = f"1.2.3.4.{number}"
        places = [(0.0, 0.0, 3.0 * k + 1.5 * number) for k in range(8)]  # woven, and otherwise alike
        write_series(tmp_path / str(number), voxels(8, number), uid=series, StudyInstanceUID=study, PatientID=f"P{number}", position=places, SOPInstanceUID=[f"1.2.{k}" for k in range(8)])  # fmt: skip
    found = usable(tmp_path, 2)
    assert len({source.case_id for source in found}) == 2
    assert len({source.patient for source in found}) == 2
    got = {read_scan(source).array.tobytes() for source in found}
    assert got == {voxels(8, number).tobytes() for number in range(2)}


def test_images_without_a_patient_belong_to_the_only_one(tmp_path):
    paths = write_series(tmp_path, voxels(8))
    for number in (0, 3, 7):
        image = pydicom.dcmread(paths[number])
        del image.PatientID
        image.save_as(paths[number])
    (source,) = usable(tmp_path)
    check(source, voxels(8), [30.0])


def test_the_stamp_knows_nothing_of_files_that_are_left_out(tmp_path):
    write_series(tmp_path, voxels(8))
    before = SourceCase("x", (only(tmp_path),)).stamp()
    add(tmp_path, voxels(1)[0], ImagePositionPatient=None)
    assert SourceCase("x", (only(tmp_path),)).stamp() == before
