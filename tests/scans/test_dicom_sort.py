"""One series in many ways: odd images, copies, and acquisitions that are told apart by what slices are.

Right values are the planes, places and groups that the files were made of.
"""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_files import AXIAL, find, only, voxels, write_series, write_slice
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import MRImageStorage

from parts2whole.scans.case import SourceCase
from parts2whole.scans.read import read_scan, read_volume

UID = "1.2.3.4"
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def add(folder, plane, z=0.0, *, name="odd", uid=UID, **tags):
    """One more image of the series."""
    return write_slice(folder / name, plane, tags.pop("position", (-10.0, -20.0, z)), uid=uid, **tags)


def usable(folder, count=1):
    """Sources of a folder, all of which must be usable."""
    found = find(folder)
    assert [source.problem for source in found] == [None] * count
    return found


def check(source, planes, places):
    """A source is these planes at these z."""
    volume = read_scan(source)
    np.testing.assert_array_equal(volume.array, planes)
    for index, z in enumerate(places):
        np.testing.assert_allclose((volume.affine() @ [index, 0, 0, 1])[:3], (-10, -20, z), atol=1e-4)


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


def passes(folder, places, *, shuffle=None, modality="CT", **tags):
    """Several passes in one series: z of the slices of each; tags are functions of (pass, slice, running number)."""
    number = 0
    order = []
    for which, along in enumerate(places):
        planes = voxels(len(along), seed=which)
        for k, z in enumerate(along):
            order.append((which, k, number, z, planes[k]))
            number += 1
    for which, k, number, z, plane in order:
        own = {tag: value(which, k, number) if callable(value) else value for tag, value in tags.items()}
        if modality == "MR":
            own |= {"SOPClassUID": MRImageStorage, "Modality": "MR", "intercept": -2000.0}
        own.setdefault("InstanceNumber", number + 1)
        place = own.pop("position", (-10.0, -20.0, z))
        write_slice(folder / f"IM{(number * 37) % 1009:04d}", plane, place, uid=UID, **own)
    return [voxels(len(along), seed=which) for which, along in enumerate(places)]


def assert_apart(folder, places, planes, by):
    found = usable(folder, len(places))
    found.sort(key=lambda source: source.case_id)
    for source, along, array in zip(found, places, planes, strict=True):
        order = np.argsort(along)
        check(source, array[order], np.sort(along))
        assert source.notes == (f"one of {len(places)} volumes of its series, told apart by {by}",)


GRIDS = {
    "half a slice apart": [np.arange(12) * 5.0, np.arange(12) * 5.0 + 2.5],
    "a fifth of a slice apart": [np.arange(12) * 5.0, np.arange(12) * 5.0 + 1.0],
    "three, woven": [np.arange(9) * 6.0, np.arange(9) * 6.0 + 2, np.arange(9) * 6.0 + 4],
    "the same places": [np.arange(10) * 3.0, np.arange(10) * 3.0],
    "an overlap at the same places": [np.arange(12) * 5.0, np.arange(8, 20) * 5.0],
    "an overlap between places": [np.arange(12) * 5.0, np.arange(8, 20) * 5.0 + 2.5],
    "the second backwards": [np.arange(12) * 5.0, np.arange(12)[::-1] * 5.0 + 2.5],
    "other spacings": [np.arange(12) * 5.0, np.arange(30) * 1.25 + 10],
    "one above the other, apart": [np.arange(10) * 5.0, np.arange(10) * 5.0 + 133],
    "one above the other, finer": [np.arange(10) * 5.0, np.arange(20) * 1.0 + 46],
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("AcquisitionNumber", lambda p, k, n: p + 1),
        ("TemporalPositionIdentifier", lambda p, k, n: p + 1),
        ("EchoTime", lambda p, k, n: 2.3 + 2.3 * p),
        ("DiffusionBValue", lambda p, k, n: 500.0 * p),
        ("ImageType", lambda p, k, n: ["ORIGINAL", "PRIMARY", "FPW"[p]]),
        ("AcquisitionTime", lambda p, k, n: f"12{p:02d}00"),
        ("ContentTime", lambda p, k, n: f"12{p:02d}00.000000"),
        ("FrameOfReferenceUID", lambda p, k, n: f"1.2.{p}"),
    ],
)
def test_acquisitions_that_a_tag_tells_apart(tmp_path, grid, tag, value):
    planes = passes(tmp_path, GRIDS[grid], **{tag: value})
    assert_apart(tmp_path, GRIDS[grid], planes, tag)


@pytest.mark.parametrize("tag", ["AcquisitionTime", "AcquisitionNumber", "InstanceNumber"])
def test_slices_of_mr_that_overlap_are_two_acquisitions(tmp_path, tag):
    """Slices of 5 mm, 2.5 mm apart, of which every other one was acquired in another pass."""
    places = GRIDS["half a slice apart"]
    own = {} if tag == "InstanceNumber" else {tag: lambda p, k, n: f"{12 + p}0000"}
    planes = passes(tmp_path, places, modality="MR", SliceThickness=5.0, **own)
    assert_apart(tmp_path, places, planes, tag)


def test_private_b_values(tmp_path):
    for number, b in enumerate((0, 50, 800)):
        for path in write_series(tmp_path / str(b), voxels(6, number)):
            image = pydicom.dcmread(path)
            image.add_new((0x0019, 0x0010), "LO", "SIEMENS MR HEADER")
            image.add_new((0x0019, 0x100C), "IS", b)
            image.save_as(path)
    assert_apart(tmp_path, [30 + np.arange(6) * 2.5] * 3, [voxels(6, n) for n in range(3)], "private b-value (Siemens)")  # fmt: skip


def test_places_within_the_plane_tell_apart(tmp_path):
    """Left and right hip at the same heights."""
    z = np.arange(8) * 3.0
    planes = passes(tmp_path, [z, z], position=lambda p, k, n: (-10.0 + 200 * p, -20.0, 3.0 * k))
    found = sorted(usable(tmp_path, 2), key=lambda source: source.case_id)
    for source, array, x in zip(found, planes, (-10, 190), strict=True):
        volume = read_scan(source)
        np.testing.assert_array_equal(volume.array, array)
        assert volume.origin_mm == pytest.approx((x, -20, 0))


def test_slices_that_are_a_little_off_within_the_plane_are_one_volume(tmp_path):
    """Half a millimetre to and fro is how a patient breathes, and no second acquisition."""
    for number, plane in enumerate(voxels(12)):
        add(tmp_path, plane, name=str(number), position=(-10 + 0.55 * (number % 2), -20.0, 3.0 * number))
    (source,) = usable(tmp_path)
    np.testing.assert_array_equal(read_scan(source).array, voxels(12))


@pytest.mark.parametrize("lean", [0.2, 0.5, 1.0, 1.7])
def test_missing_slices_of_a_leaning_stack_are_missing_slices(tmp_path, lean):
    for number, plane in enumerate(voxels(24)):
        if number not in (7, 8, 15):
            add(tmp_path, plane, name=str(number), position=(-10 + lean * number, -20.0, 3.0 * number))
    assert only(tmp_path).problem.startswith("missing slices: about 3 of 24, in 2 gaps")


def test_two_tags_together(tmp_path):
    """Two echoes of magnitude and phase."""
    z = np.arange(6) * 3.0
    planes = passes(
        tmp_path,
        [z] * 4,
        modality="MR",
        EchoTime=lambda p, k, n: 2.3 + p // 2,
        ImageType=lambda p, k, n: ["ORIGINAL", "PRIMARY", "MP"[p % 2]],
        InstanceNumber=lambda p, k, n: 4 * k + p,
    )
    assert_apart(tmp_path, [z] * 4, planes, "EchoTime and ImageType")


@pytest.mark.parametrize("grid", [name for name in GRIDS if "above" not in name and "other" not in name])
@pytest.mark.parametrize("tag", ["AcquisitionNumber", "AcquisitionTime", "ContentTime", "InstanceNumber"])
def test_passes_of_ct_in_which_every_slice_has_its_own_number(tmp_path, grid, tag):
    """Many scanners number each slice: the passes are where places come again, or the table turns."""
    if "Time" in tag:
        own = {
            tag: lambda p, k, n: f"12{n // 60:02d}{n % 60:02d}.5",
            "InstanceNumber": lambda p, k, n: n * 7919 % 101,
        }
    else:
        own = {tag: lambda p, k, n: n + 1} | ({"InstanceNumber": None} if tag != "InstanceNumber" else {})
    planes = passes(tmp_path, GRIDS[grid], **own)
    assert_apart(tmp_path, GRIDS[grid], planes, tag)


def one(folder, count, problem=None, **tags):
    """One volume in one pass, with tags as `passes`."""
    z = np.arange(count) * 2.5
    (planes,) = passes(folder, [z], **tags)
    (source,) = find(folder)
    assert source.problem == problem
    assert source.notes == ()
    check(source, planes, z)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize(
    "tags",
    [
        {"AcquisitionNumber": lambda p, k, n: k + 1},
        {"AcquisitionNumber": lambda p, k, n: k // 4},
        {"AcquisitionNumber": lambda p, k, n: k // 4, "AcquisitionTime": lambda p, k, n: f"12{k // 4:02d}00"},
        {"AcquisitionNumber": lambda p, k, n: k // 8, "InstanceNumber": lambda p, k, n: 24 - k},
        {"AcquisitionTime": lambda p, k, n: f"1200{k:02d}", "ContentTime": lambda p, k, n: f"1300{k:02d}"},
        {"ImageType": lambda p, k, n: ["ORIGINAL", "PRIMARY", "AXIAL", "A" if k < 12 else "B"]},
        {"ImageType": lambda p, k, n: ["ORIGINAL", "PRIMARY", "A" if k != 5 else "B"]},
        {"SliceThickness": 5.0, "AcquisitionNumber": lambda p, k, n: k + 1},
        {"InstanceNumber": 1},
        {"InstanceNumber": lambda p, k, n: k * 7919 % 101},
    ],
)
def test_one_volume_stays_one(tmp_path, modality, tags):
    one(tmp_path, 24, modality=modality, **tags)


@pytest.mark.parametrize(
    "planned", [{"SliceThickness": 2.5}, {"SliceThickness": 2.0, "SpacingBetweenSlices": 2.5}]
)
@pytest.mark.parametrize(
    "tags",
    [
        {"AcquisitionTime": lambda p, k, n: f"1200{k // 2 + 12 * (k % 2):02d}"},
        {"AcquisitionTime": lambda p, k, n: f"12{k % 2:02d}00", "AcquisitionNumber": lambda p, k, n: k % 2},
        {"InstanceNumber": lambda p, k, n: k // 2 + 12 * (k % 2)},
    ],
)
def test_interleaved_slices_of_mr_are_one_volume(tmp_path, planned, tags):
    """Every other slice is acquired first; the planned distance says that they belong together."""
    one(tmp_path, 24, modality="MR", **planned, **tags)


def test_missing_slices_of_interleaved_mr_stay_missing(tmp_path):
    z = np.array([k for k in range(24) if k != 22]) * 2.5
    passes(
        tmp_path,
        [z],
        modality="MR",
        SliceThickness=2.5,
        AcquisitionTime=lambda p, k, n: f"1200{(j := round(z[k] / 2.5)) // 2 + 12 * (j % 2):02d}",
        AcquisitionNumber=lambda p, k, n: round(z[k] / 2.5) % 2,
    )
    assert only(tmp_path).problem.startswith("missing slices: about 1 of 24, in 1 gap")


def test_a_lost_station_of_a_scan_in_steps_is_missing_slices(tmp_path):
    z = np.array([k for k in range(24) if not 8 <= k < 12]) * 2.5
    passes(tmp_path, [z], AcquisitionNumber=lambda p, k, n: int(z[k] / 2.5) // 4)
    assert only(tmp_path).problem.startswith("missing slices: about 4 of 24, in 1 gap")


def test_phases_of_a_heart_at_every_place(tmp_path):
    """Trigger times differ from slice to slice, and images are numbered slice by slice."""
    z = np.arange(6) * 8.0
    planes = passes(
        tmp_path,
        [z] * 5,
        modality="MR",
        TriggerTime=lambda p, k, n: 31.7 * p + 0.9 * k * (p > 0),
        InstanceNumber=lambda p, k, n: 5 * k + p,
    )
    assert_apart(tmp_path, [z] * 5, planes, "TriggerTime")


def test_dynamic_mr_in_interleaved_order(tmp_path):
    """Each phase acquires the odd slices first; only times tell, and they are all different."""
    z = np.arange(8) * 3.0
    planes = passes(
        tmp_path,
        [z] * 3,
        modality="MR",
        AcquisitionTime=lambda p, k, n: f"12{p:02d}{k // 2 + 4 * (k % 2):02d}",
        InstanceNumber=lambda p, k, n: 3 * k + p,
    )
    assert_apart(tmp_path, [z] * 3, planes, "AcquisitionTime")


@pytest.mark.parametrize("grid", ["the same places", "half a slice apart", "an overlap at the same places"])
@pytest.mark.parametrize("tag", ["AcquisitionNumber", "EchoTime", "AcquisitionTime"])
def test_a_lost_slice_costs_its_own_volume_alone(tmp_path, grid, tag):
    first, second = GRIDS[grid]
    planes, _ = passes(tmp_path, [first, np.delete(second, 4)], **{tag: lambda p, k, n: f"{12 + p}0000"})
    whole, broken = sorted(find(tmp_path), key=lambda source: source.case_id)
    check(whole, planes, first)
    assert broken.problem.startswith(f"missing slices: about 1 of {len(second)}, in 1 gap")
    assert broken.notes == (f"one of 2 volumes of its series, told apart by {tag}",)


def test_nothing_tells_apart(tmp_path):
    z = np.arange(8) * 3.0
    passes(tmp_path, [z, z], InstanceNumber=None)
    assert (
        only(tmp_path).problem
        == "up to 2 images at one position, and no tag sorts all of them into regular volumes"
    )


def test_passes_that_share_air(tmp_path):
    """Equal slices at one place aren't copies where two passes are whole only with them."""
    z = np.arange(10) * 3.0
    for which in range(2):
        array = voxels(10, which)
        array[:3] = -1024
        for k in range(10):
            add(tmp_path, array[k], z[k], name=f"{which}-{k}", AcquisitionTime=f"12{which:02d}{k:02d}", InstanceNumber=2 * k + which)  # fmt: skip
    found = sorted(usable(tmp_path, 2), key=lambda source: source.case_id)
    for which, source in enumerate(found):
        expected = voxels(10, which)
        expected[:3] = -1024
        check(source, expected, z)


@pytest.mark.parametrize(
    ("z", "said"),
    [
        ([0, 1, 2, 5, 7, 8], "missing slices: about 3 of 9, in 2 gaps"),
        ([0, 1, 2, 3, 8, 13, 18, 23], "non-uniform spacing: distances of slices from 1 to 5 mm"),
        ([0, 1, 2, 3, 4.5, 5.5, 6.5], "non-uniform spacing"),
        ([0, 1, 2, 3, 4.7, 5.7, 6.7], "non-uniform spacing"),
        ([0, 5, 10, 15, 15.5, 20, 25], "non-uniform spacing"),
    ],
)
def test_gaps_are_missing_slices_only_where_slices_fit_into_them(tmp_path, z, said):
    passes(tmp_path, [np.array(z, float)], InstanceNumber=None)
    assert only(tmp_path).problem.startswith(said)


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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(3, 8),
    passes_=st.integers(1, 3),
    spacing=st.floats(0.6, 7),
    shift=st.floats(0, 1),
    copies=st.integers(0, 3),
    odd=st.booleans(),
    tilt=st.floats(-0.3, 0.3),
    seed=st.integers(0, 99),
)
def test_any_series_of_numbered_passes(
    tmp_path_factory, count, passes_, spacing, shift, copies, odd, tilt, seed
):
    """Whatever shift, tilt, copies, odd images and order of files: the passes come out, each exact."""
    folder = tmp_path_factory.mktemp("series")
    random = np.random.default_rng(seed)
    expected = []
    written = []
    for which in range(passes_):
        planes = voxels(count, 100 + which)
        start = round(which * shift * spacing, 3)
        places = [(round(tilt * k * spacing, 4), -20.0, round(start + k * spacing, 4)) for k in range(count)]
        expected.append((planes, places))
        written += [(plane, place, which) for plane, place in zip(planes, places, strict=True)]
    written += [written[i] for i in random.integers(0, len(written), copies)]
    names = random.permutation(len(written))
    for (plane, place, which), name in zip(written, names, strict=True):
        write_slice(folder / str(name), plane, place, uid=UID, AcquisitionNumber=which, orientation=AXIAL)
    if odd:
        write_slice(folder / "odd", voxels(1)[0], (0, 0, 0), uid=UID, orientation=SAGITTAL)
    found = sorted(usable(folder, passes_), key=lambda source: source.case_id)
    for source, (planes, places) in zip(found, expected, strict=True):
        volume = read_scan(source)
        np.testing.assert_array_equal(volume.array, planes)
        for k in (0, count - 1):
            np.testing.assert_allclose((volume.affine() @ [k, 0, 0, 1])[:3], places[k], atol=2e-3)
    assert sum("left out: of another orientation" in note for note in found[0].notes) == odd
    assert bool([note for note in found[0].notes if "cop" in note]) == bool(copies)


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
