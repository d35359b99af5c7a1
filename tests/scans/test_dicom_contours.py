"""Contours become the voxels whose centres they enclose, or are refused."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pydicom
import pytest
from dicom_files import dataset
from hypothesis import given
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Outline

from parts2whole.phantom.write_rtstruct import trace_edges, write_structures
from parts2whole.scans.case import IngestError
from parts2whole.scans.dicom_contours import check_planes, fill_polygon, read_contours
from parts2whole.scans.volume import LabelVolume, Volume

OBLIQUE = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]


AXIAL = np.eye(3)[::-1]


def scan(shape=(6, 20, 24), direction=AXIAL) -> Volume:
    return Volume(
        np.zeros(shape, np.int16), (2.5, 0.8, 0.7), (-3.0, 11.0, 40.0), tuple(map(tuple, direction))
    )


def structures(scan, *contours, kind="CLOSED_PLANAR"):
    """A structure set of contours in voxels (z, y, x)."""
    drawn = []
    for contour in contours:
        points = np.c_[np.array(contour, float), np.ones(len(contour))] @ scan.affine().T
        drawn.append(
            {"ContourGeometricType": kind, "ContourData": [round(v, 4) for v in points[:, :3].ravel()]}
        )
    return dataset(ROIContourSequence=[{"ReferencedROINumber": 1, "ContourSequence": drawn}])


def box(z, low, high, columns=None):
    """A square with its sides between voxels."""
    left, right = columns or (low, high)
    return [
        (z, low - 0.5, left - 0.5),
        (z, low - 0.5, right - 0.5),
        (z, high - 0.5, right - 0.5),
        (z, high - 0.5, left - 0.5),
    ]


@given(st.integers(0, 10**6), st.integers(3, 9))
def test_a_polygon_has_the_pixels_whose_centres_it_encloses(seed, corners):
    points = np.random.default_rng(seed).uniform(-3, 16, (corners, 2))
    centres = np.argwhere(np.ones((12, 13)))
    # matplotlib counts crossings too, but of self-crossing outlines fills all; those of a star don't cross.
    middle = points.mean(axis=0)
    star = points[np.argsort(np.arctan2(*(points - middle).T))]
    expected = Outline(star).contains_points(centres).reshape(12, 13)
    assert np.array_equal(fill_polygon(star, (12, 13)), expected)


@given(arrays(bool, (7, 8)))
def test_any_mask_comes_back_from_its_edges(inside):
    loops = trace_edges(inside)
    filled = np.zeros_like(inside)
    for loop in loops:
        filled ^= fill_polygon(loop, inside.shape)
    assert np.array_equal(filled, inside)


def test_polygons_that_share_a_border_share_no_pixel():
    one, other = np.array([(1, 1), (1, 4), (5, 4), (5, 1.0)]), np.array([(1, 4), (1, 7), (5, 7), (5, 4.0)])
    both = fill_polygon(one, (8, 8)).astype(int) + fill_polygon(other, (8, 8))
    assert both.max() == 1
    assert both.sum() == 4 * 6


@pytest.mark.parametrize("direction", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_contours_holes_and_islands_in_them(direction, kind):
    volume = scan(direction=direction)
    outer, hole, island, other = box(2, 2, 16), box(2, 4, 12), box(2, 6, 9), box(3, 10, 12, (18, 23))
    mask = read_contours(structures(volume, hole, other, outer, island, kind=kind), 1, volume)
    expected = np.zeros(volume.shape, bool)
    expected[2, 2:16, 2:16] = True
    expected[2, 4:12, 4:12] = False
    expected[2, 6:9, 6:9] = True
    expected[3, 10:12, 18:23] = True
    assert np.array_equal(mask, expected)
    assert not read_contours(structures(volume, outer), 7, volume).any()


def test_a_hole_joined_to_its_outline_by_a_channel():
    volume = scan()
    outer, hole = box(1, 2, 16), box(1, 5, 9)
    keyhole = [*outer, outer[0], hole[0], *hole[::-1], outer[0]]
    expected = np.zeros(volume.shape, bool)
    expected[1, 2:16, 2:16] = True
    expected[1, 5:9, 5:9] = False
    assert np.array_equal(read_contours(structures(volume, keyhole), 1, volume), expected)


def test_what_leaves_the_scan_within_a_plane_is_cut_off():
    volume = scan()
    mask = read_contours(structures(volume, box(0, -5, 4)), 1, volume)
    assert mask.sum() == mask[0, :4, :4].sum() == 16


@pytest.mark.parametrize(
    ("contours", "said"),
    [
        ([box(2.3, 2, 6)], "0.30 of a slice beside plane 2"),
        ([[(2, 1, 1), (2, 1, 9), (3, 9, 9)]], "beside plane 2"),
        ([box(6, 2, 6)], "on plane 6, the scan has planes 0 to 5"),
        ([box(-1, 2, 6)], "on plane -1"),
        ([box(2, 2, 8), box(2, 5, 12)], "share 9 of 49 and 36 voxels, none lies in the other"),
        ([box(2, 2, 8), box(2, 2, 8)], "share 36 of 36 and 36"),
        ([box(0, 2, 8), box(2, 2, 8), box(4, 2, 8)], "on planes 0, 2, 4, ..., with others left out"),
        ([box(z, 2, 8) for z in (0, 2, 4, 5)], "on planes 0, 2, 4, 5, ..., with others left out"),
    ],
)
def test_what_leaves_open_which_voxels_are_meant_is_refused(contours, said):
    volume = scan()
    with pytest.raises(IngestError, match=said):
        read_contours(structures(volume, *contours), 1, volume)


@pytest.mark.parametrize(
    ("planes", "told"),
    [
        ([10, 12, 14, 16, 18, 20, 22, 23], True),  # two neighbours at the end don't make up for the rest
        ([10, 13, 15, 18, 19], True),
        ([10, 12, 14], True),
        ([10, 11, 12, 20, 21], False),  # two pieces
        ([10, 11, 20], False),
        ([10, 20], False),
        ([5, 10, 15, 20], True),
        ([5, 6, 20, 40], False),  # lesions on a plane or two each
        ([0, 4, 8, 12], True),
        ([3, 4, 5, 7, 8, 10, 11], False),
        ([], False),
    ],
)
def test_planes_are_left_out_where_most_steps_pass_over_some(planes, told):
    if told:
        with pytest.raises(IngestError, match="with others left out between most of them"):
            check_planes(np.array(planes))
    else:
        check_planes(np.array(planes, int))


def test_contours_of_another_kind_are_refused_and_those_of_two_points_enclose_nothing():
    volume = scan()
    with pytest.raises(IngestError, match="type OPEN_PLANAR encloses no voxels"):
        read_contours(structures(volume, box(1, 2, 5), kind="OPEN_PLANAR"), 1, volume)
    assert not read_contours(structures(volume, box(1, 2, 5)[:2]), 1, volume).any()
    broken = structures(volume, box(1, 2, 5))
    broken.ROIContourSequence[0].ContourSequence[0].ContourData = [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(IngestError, match="4 coordinates, which are no points"):
        read_contours(broken, 1, volume)


def test_a_label_map_comes_back_from_the_structure_set_that_is_written_of_it(tmp_path):
    values = np.random.default_rng(3).choice([0, 0, 1, 2], (6, 20, 24)).astype(np.uint8)
    grid = scan(direction=OBLIQUE)
    label = LabelVolume(values, grid.spacing_mm, grid.origin_mm, grid.direction)
    write_structures(
        label, {1: "a", 2: "b"}, tmp_path / "rt.dcm", patient="p", study_uid="1.2", series_uid="1.2.3"
    )
    made = pydicom.dcmread(tmp_path / "rt.dcm")
    for value in (1, 2):
        assert np.array_equal(read_contours(made, value, grid), values == value)
