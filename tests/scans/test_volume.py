"""Geometry of volumes: canonical orientation keeps every voxel where it is, and can be undone."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from parts2whole.scans.volume import (
    CANONICAL,
    Box,
    LabelVolume,
    Volume,
    VolumeError,
    content_hash,
    from_canonical_array,
    orientation_code,
    size_of,
    to_canonical,
)

AXES = [
    np.eye(3)[:, order] * signs
    for order in map(list, itertools.permutations(range(3)))
    for signs in itertools.product((-1, 1), repeat=3)
]


def as_direction(matrix):
    return tuple(tuple(float(v) for v in row) for row in matrix)


@st.composite
def volumes(draw, tilt=20.0, channels=False):
    """Volumes in any of the 48 orientations, tilted by up to ``tilt`` degrees about each axis."""
    angles = [draw(st.floats(-tilt, tilt)) for _ in range(3)]
    matrix = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() @ draw(st.sampled_from(AXES))
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    if channels:
        shape = (draw(st.integers(1, 3)), *shape)
    spacing = tuple(draw(st.floats(0.2, 7.0)) for _ in range(3))
    origin = tuple(draw(st.floats(-500, 500)) for _ in range(3))
    array = np.random.default_rng(draw(st.integers(0, 99))).integers(-999, 999, shape).astype(np.int16)
    return Volume(array, spacing, origin, as_direction(matrix))


@settings(max_examples=80, deadline=None)
@given(volumes())
def test_canonical_keeps_every_voxel_at_its_place(volume):
    canonical = to_canonical(volume)
    assert sorted(canonical.shape) == sorted(volume.shape)
    to_original = np.linalg.inv(volume.affine()) @ canonical.affine()
    for index in itertools.product(*(range(n) for n in canonical.shape)):
        there = to_original @ [*index, 1]
        place = tuple(np.rint(there[:3]).astype(int))
        np.testing.assert_allclose(there[:3], place, atol=1e-6)
        assert canonical.array[index] == volume.array[place]


@settings(max_examples=80, deadline=None)
@given(volumes(channels=True))
def test_canonical_is_undone(volume):
    canonical = to_canonical(volume)
    np.testing.assert_array_equal(from_canonical_array(canonical.array, volume.direction), volume.array)


@settings(max_examples=60, deadline=None)
@given(volumes())
def test_canonical_is_canonical_and_stays_so(volume):
    canonical = to_canonical(volume)
    assert orientation_code(canonical.direction) == "SPL"
    again = to_canonical(canonical)
    np.testing.assert_array_equal(again.array, canonical.array)
    assert again.affine() == pytest.approx(canonical.affine())


@settings(max_examples=60, deadline=None)
@given(volumes())
def test_canonical_agrees_with_nibabel(volume):
    # nibabel's own reorientation, an independent derivation, with its axes x, y, z and RAS world.
    columns = (np.asarray(volume.direction) * volume.spacing_mm)[:, ::-1]
    affine = np.eye(4)
    affine[:3] = np.diag([-1, -1, 1]) @ np.column_stack([columns, volume.origin_mm])
    image = nib.Nifti1Image(volume.array.T, affine)
    moves = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt("LPS")
    )
    expected = image.as_reoriented(moves)
    canonical = to_canonical(volume)
    np.testing.assert_array_equal(canonical.array.T, np.asarray(expected.dataobj))
    ours = np.eye(4)
    ours[:3] = np.diag([-1, -1, 1]) @ canonical.affine()[:3][:, [2, 1, 0, 3]]
    np.testing.assert_allclose(ours, expected.affine, atol=1e-6)


@pytest.mark.parametrize("matrix", AXES)
def test_orientation_code_names_world_directions(matrix):
    code = orientation_code(as_direction(matrix))
    for axis, letter in enumerate(code):
        world = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}[letter]
        assert matrix[world, axis] == (1 if letter in "LPS" else -1)


def test_content_hash_ignores_storage():
    array = np.arange(24).reshape(2, 3, 4)
    same = [array.astype(t) for t in ("int16", "float32", "float64", ">i4", "uint8")]
    same.append(np.asfortranarray(array))
    same.append(np.ascontiguousarray(array[:, ::-1])[:, ::-1])
    assert {content_hash(a) for a in same} == {content_hash(array)}
    assert content_hash(np.array([[[-0.0, 1.0]]])) == content_hash(np.array([[[0.0, 1.0]]]))


def test_content_hash_sees_values_and_shape():
    array = np.arange(24.0).reshape(2, 3, 4)
    changed = array.copy()
    changed[1, 1, 1] += 1e-6
    assert len({content_hash(a) for a in (array, changed, array.reshape(3, 2, 4), array[None])}) == 4


def test_same_grid_measures_in_voxels():
    volume = Volume(np.zeros((5, 6, 7)), (2.0, 1.0, 1.0), (1.0, 2.0, 3.0))
    near = Volume(np.zeros((5, 6, 7)), (2.0, 1.0, 1.0), (1.0005, 2.0, 3.0))
    wider = Volume(np.zeros((5, 6, 7)), (2.0, 1.0, 1.02), (1.0, 2.0, 3.0))
    assert volume.same_grid(LabelVolume(np.zeros((5, 6, 7), int), (2.0, 1.0, 1.0), (1.0, 2.0, 3.0)))
    assert volume.same_grid(near)
    assert not volume.same_grid(wider)
    assert volume.same_grid(wider, tolerance=0.2)
    assert not volume.same_grid(Volume(np.zeros((5, 6, 8)), (2.0, 1.0, 1.0), (1.0, 2.0, 3.0)))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"array": np.zeros((2, 2))}, "shape"),
        ({"array": np.zeros((0, 2, 2))}, "empty"),
        ({"array": np.zeros((2, 2, 2)), "spacing_mm": (1, 0, 1)}, "spacing"),
        ({"array": np.zeros((2, 2, 2)), "spacing_mm": (1, float("nan"), 1)}, "spacing"),
        ({"array": np.zeros((2, 2, 2)), "direction": ((1, 0, 0), (1, 0, 0), (0, 0, 1))}, "singular"),
    ],
)
def test_impossible_volumes_are_refused(arguments, complaint):
    with pytest.raises(VolumeError, match=complaint):
        Volume(**arguments)


def test_labels_are_integers():
    with pytest.raises(VolumeError, match="integers"):
        LabelVolume(np.zeros((2, 2, 2), dtype=np.float32))
    assert LabelVolume(np.zeros((2, 2, 2), dtype=bool)).direction == CANONICAL


@st.composite
def boxes(draw):
    """A box and the shape of an array that it lies in, leaves, holds, or misses."""
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    start = tuple(draw(st.integers(-8, 8)) for _ in range(3))
    return shape, Box(start, tuple(draw(st.integers(0, 9)) for _ in range(3)))


@settings(deadline=None)
@given(boxes())
def test_a_box_is_cut_voxel_by_voxel(drawn):
    shape, box = drawn
    array = np.arange(1, 1 + 2 * np.prod(shape), dtype=np.int16).reshape(2, *shape)
    cut = box.cut(array, fill=-7)
    assert cut.shape == (2, *box.size)
    assert cut.dtype == array.dtype
    for place in np.ndindex(box.size):
        at = tuple(int(p + s) for p, s in zip(place, box.start, strict=True))
        there = all(0 <= a < edge for a, edge in zip(at, shape, strict=True))
        np.testing.assert_array_equal(cut[:, *place], array[:, *at] if there else [-7, -7])


@settings(deadline=None)
@given(boxes())
def test_the_part_inside_is_found_in_the_array_and_in_the_box(drawn):
    shape, box = drawn
    array = np.arange(np.prod(shape)).reshape(shape)
    inside = box.inside(shape)
    assert all(0 <= a <= b <= edge for a, b, edge in zip(inside.start, inside.stop, shape, strict=True))
    assert inside.inside(shape) == inside
    cut = box.cut(array, fill=-1)
    assert np.prod(inside.size) == (cut >= 0).sum()
    if 0 not in inside.size:
        np.testing.assert_array_equal(cut[inside.relative_to(box).slices], array[inside.slices])


def test_boxes_around_points_and_of_arrays():
    assert Box.around((4, 4, 4.5), (1, 2, 3)) == Box((4, 4, 4), (1, 2, 3))
    assert Box.around((0.0, 0.4, 0.6), (4, 3, 3)) == Box((-1, -1, 0), (4, 3, 3))
    assert Box.of(np.zeros((5, 2, 3, 4))) == Box((0, 0, 0), (2, 3, 4))
    assert size_of(np.zeros((5, 2, 3, 4))) == (2, 3, 4)
    array = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(Box.of(array).cut(array), array)
    with pytest.raises(VolumeError, match=r"can't be negative, got \(1, -1, 1\)"):
        Box((0, 0, 0), (1, -1, 1))
