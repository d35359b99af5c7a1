"""Acquisitions in one series, told apart by a tag or by the order of their slices; and volumes that stay one.

Right values are the planes, places and groups that the files were made of.
"""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_files import (
    AXIAL,
    SAGITTAL,
    UID,
    add,
    check,
    find,
    only,
    usable,
    voxels,
    write_series,
    write_slice,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import MRImageStorage

from parts2whole.scans.read import read_scan


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
