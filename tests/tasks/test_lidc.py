from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from scipy import ndimage

from parts2whole.scans.case import IngestError
from parts2whole.scans.volume import Volume
from parts2whole.tasks.lidc import LidcLabel, cluster, fill_outline, read_outlines, series_of
from task_trees import lidc_xml, ring, roi

SCAN = Volume(np.zeros((8, 30, 30), np.int16), (2.0, 1.0, 1.0), (0.0, 0.0, 100.0))
"""Slices at z = 100, 102 ... 114 mm."""


def label_of(path: Path, **settings) -> np.ndarray:
    return LidcLabel(path, **settings).read(SCAN).array


def box(z: int, rows: tuple[int, int], columns: tuple[int, int]) -> str:
    return roi(100 + 2 * z, ring(rows, columns))


def test_an_outline_is_the_first_pixel_outside():
    inside = fill_outline(ring((4, 8), (10, 12)), (30, 30))
    expected = np.zeros((30, 30), bool)
    expected[4:9, 10:13] = True
    assert np.array_equal(inside, expected)
    assert not fill_outline([(5, 5), (6, 5), (5, 6)], (30, 30)).any()


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_filled_as_a_polygon_is(seed):
    generator = np.random.default_rng(seed)
    angles = np.arange(12) * np.pi / 6 + generator.uniform(0, 0.3, 12)
    radii = generator.uniform(6, 15, 2)  # a convex polygon on an ellipse
    pixels = np.rint(20 + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(int)
    found = fill_outline([tuple(p) for p in pixels], (41, 41))
    grid = np.stack(np.meshgrid(np.arange(41), np.arange(41)), axis=-1).reshape(-1, 2)
    polygon = Polygon(pixels).contains_points(grid).reshape(41, 41)
    band = ndimage.binary_dilation(polygon, iterations=1) & ~ndimage.binary_erosion(polygon, iterations=1)
    assert np.array_equal(found & ~band, polygon & ~band)  # they may differ on the drawn line only


def test_half_of_the_readers_agree_on_a_voxel(tmp_path):
    rows = [(5, 9), (5, 9), (5, 8), (7, 8)]
    readers = [[[box(3, r, (5, 9)), box(4, r, (5, 9))]] for r in rows]
    lidc_xml(tmp_path / "a.xml", "1.2", readers)
    label = label_of(tmp_path / "a.xml")
    assert sorted(np.unique(label)) == [0, 1]
    expected = np.zeros(SCAN.shape, bool)
    expected[3:5, 5:10, 5:10] = True  # row 9 is in two of four, rows 5 and 6 in three
    assert np.array_equal(label > 0, expected)
    strict = label_of(tmp_path / "a.xml", consensus=0.75)
    assert np.array_equal(np.flatnonzero(strict.any(axis=(0, 2))), np.arange(5, 9))


def test_readers_outlines_are_clustered_into_nodules(tmp_path):
    near, far = [box(2, (5, 9), (5, 9))], [box(2, (5, 9), (20, 24))]
    small = [roi(104, [(15, 15)])]  # below 3 mm: a point
    lidc_xml(tmp_path / "a.xml", "1.2", [[near, far, small], [near], [far], []])
    label = label_of(tmp_path / "a.xml")
    assert sorted(np.unique(label)) == [0, 1, 2]
    assert len({label[2, 7, 7], label[2, 7, 22]} - {0}) == 2
    assert label[2, 15, 15] == 0
    lidc_xml(tmp_path / "b.xml", "1.2", [[near, far], [near], [], []])
    assert np.array_equal(label_of(tmp_path / "b.xml", minimum_readers=2) > 0, label == label[2, 7, 7])


def test_neighbours_of_one_reader_stay_two_nodules():
    def square(left: float) -> np.ndarray:
        return np.array([(0, r, left + c) for r in range(4) for c in range(4)], float)

    points = [square(0), square(5), square(0.2), square(5.2)]  # 2 mm between the nodules
    assert cluster(points, [0, 0, 1, 1], distance_mm=3.0) == [[0, 2], [1, 3]]
    assert cluster(points, [0, 1, 2, 3], distance_mm=3.0) == [[0, 1, 2, 3]]
    same = [square(0)] * 2
    assert cluster(same, [0, 0], distance_mm=3.0) == [[0], [1]]


def test_a_hole_is_cut(tmp_path):
    nodule = [box(3, (4, 14), (4, 14)), roi(106, ring((8, 9), (8, 9)), "FALSE")]
    lidc_xml(tmp_path / "a.xml", "1.2", [[nodule]])
    label = label_of(tmp_path / "a.xml")
    assert label[3, 4:15, 4:15].sum() == 121 - 16  # the hole's outline is outside the nodule too
    assert not label[3, 7:11, 7:11].any()


def test_a_flipped_scan_takes_contours_by_their_z(tmp_path):
    lidc_xml(tmp_path / "a.xml", "1.2", [[[box(1, (5, 9), (5, 9))]]])
    flipped = Volume(SCAN.array, SCAN.spacing_mm, (0.0, 0.0, 114.0), ((0, 0, 1), (0, 1, 0), (-1, 0, 0)))
    assert np.flatnonzero(LidcLabel(tmp_path / "a.xml").read(flipped).array.any(axis=(1, 2))).tolist() == [6]


def test_broken_files_say_what_is_wrong(tmp_path):
    path = tmp_path / "a.xml"
    lidc_xml(path, "1.2.3", [[[box(20, (5, 9), (5, 9))]]])
    assert series_of(path) == "1.2.3"
    with pytest.raises(IngestError, match="z = 140 mm, where the scan has no slice"):
        LidcLabel(path).read(SCAN)
    lidc_xml(path, "1.2.3", [[[box(2, (5, 9), (25, 32))]]])
    with pytest.raises(IngestError, match="leaves the slice of 30 x 30"):
        LidcLabel(path).read(SCAN)
    path.write_text("<LidcReadMessage><readingSession>")
    assert series_of(path) is None
    with pytest.raises(IngestError, match="not an XML file of LIDC-IDRI"):
        read_outlines(path)
