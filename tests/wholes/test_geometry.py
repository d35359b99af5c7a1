from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from parts2whole.wholes.geometry import (
    Boxes,
    GeometryError,
    check_band,
    crop_resize,
    draw_boxes,
    interpolation_matrix,
    octants,
    resize,
)
from parts2whole.wholes.random import BatchGenerator

edge = st.integers(2, 12)


def box_of(start: tuple[int, ...], size: tuple[int, ...]) -> Boxes:
    return Boxes(torch.tensor([start]), torch.tensor([size]))


@st.composite
def cuts(draw):
    shape = tuple(draw(edge) for _ in range(3))
    size = tuple(draw(st.integers(1, e)) for e in shape)
    start = tuple(draw(st.integers(0, e - s)) for e, s in zip(shape, size, strict=True))
    out = tuple(draw(st.integers(1, 14)) for _ in range(3))
    return shape, start, size, out


@settings(max_examples=60, deadline=None)
@given(cuts())
def test_equals_cropping_then_interpolating(cut):
    shape, start, size, out = cut
    volume = torch.from_numpy(np.random.default_rng(0).random((1, 2, *shape)).astype(np.float32))
    z, y, x = (slice(b, b + s) for b, s in zip(start, size, strict=True))
    expected = F.interpolate(volume[:, :, z, y, x], size=out, mode="trilinear", align_corners=False)
    found = crop_resize(volume, box_of(start, size), out, antialias=False)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_equals_scipy_inside_the_box():
    volume = np.random.default_rng(1).random((9, 10, 11)).astype(np.float32)
    start, size, out = (2, 1, 3), (5, 6, 4), (10, 6, 8)
    axes = [
        np.clip(b + (np.arange(o) + 0.5) * s / o - 0.5, b, b + s - 1)
        for b, s, o in zip(start, size, out, strict=True)
    ]
    expected = map_coordinates(volume, np.meshgrid(*axes, indexing="ij"), order=1)
    found = crop_resize(torch.from_numpy(volume)[None, None], box_of(start, size), out, antialias=False)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-5)


def test_antialiasing_equals_torch_in_two_dimensions():
    image = torch.from_numpy(np.random.default_rng(2).random((1, 1, 1, 24, 30)).astype(np.float32))
    expected = F.interpolate(image[:, :, 0], size=(7, 11), mode="bilinear", antialias=True)
    torch.testing.assert_close(resize(image, (1, 7, 11))[:, :, 0], expected, atol=1e-5, rtol=0)


def matrix(start: int, size: int, n_in: int, n_out: int, *, antialias: bool = True) -> torch.Tensor:
    found = interpolation_matrix(
        torch.tensor([start]), torch.tensor([size]), n_in, n_out, antialias=antialias
    )
    return found[0]


def test_the_kernel_is_as_wide_as_two_samples():
    # 4 voxels to 2 samples, at 0.5 and 2.5: a triangle that reaches 2 voxels weighs 3/4, 3/4, 1/4 and 0.
    expected = torch.tensor([[3.0, 3.0, 1.0, 0.0], [0.0, 1.0, 3.0, 3.0]]) / 7
    torch.testing.assert_close(matrix(0, 4, 4, 2), expected)
    torch.testing.assert_close(matrix(3, 4, 9, 2)[:, 3:7], expected)
    assert matrix(3, 4, 9, 2).sum(dim=1).tolist() == pytest.approx([1, 1])
    # 2 voxels to 4 samples, at -0.25, 0.25, 0.75 and 1.25: the triangle reaches 1 voxel, and no less.
    expected = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])
    torch.testing.assert_close(matrix(0, 2, 2, 4), expected)


@pytest.mark.parametrize(("size", "n_out"), [(16, 5), (16, 8), (16, 15), (16, 16), (7, 16), (9, 1), (30, 4)])
def test_rows_of_the_matrix_are_those_of_torch(size, n_out):
    unit = torch.eye(size)[None, None]  # row i of an image that is 1 at voxel i
    for antialias in (True, False):
        expected = F.interpolate(unit, (n_out, size), mode="bilinear", antialias=antialias)[0, 0]
        found = matrix(2, size, size + 5, n_out, antialias=antialias)
        torch.testing.assert_close(found[:, 2 : 2 + size], expected, atol=1e-6, rtol=0)
        assert float(found[:, :2].abs().sum() + found[:, 2 + size :].abs().sum()) == 0


@pytest.mark.parametrize("antialias", [True, False])
def test_boxes_cut_at_once_are_those_cut_in_turn(antialias):
    volumes = torch.rand(2, 2, 9, 12, 14)
    boxes = Boxes(torch.tensor([[0, 2, 1], [3, 0, 4]]), torch.tensor([[9, 7, 12], [5, 12, 3]]))
    in_turn = crop_resize(volumes, boxes, (4, 5, 6), antialias=antialias)
    at_once = crop_resize(volumes.requires_grad_(), boxes, (4, 5, 6), antialias=antialias)
    torch.testing.assert_close(at_once, in_turn)


def test_a_checkerboard_shrinks_to_grey_and_not_to_one_colour():
    board = (torch.arange(16)[:, None, None] + torch.arange(16)[:, None] + torch.arange(16)) % 2
    small = resize(board[None, None].float(), (4, 4, 4))
    assert (small - 0.5).abs().max() < 0.1


def test_several_boxes_of_one_volume_equal_one_at_a_time():
    volumes = torch.rand(2, 1, 8, 8, 8)
    boxes = draw_boxes(BatchGenerator.of_step(0, rows=2), (8, 8, 8), fraction=(0.3, 0.9), count=3)
    together = crop_resize(volumes, boxes, (8, 8, 8))
    for row in range(6):
        alone = Boxes(boxes.start[row : row + 1], boxes.size[row : row + 1])
        torch.testing.assert_close(together[row], crop_resize(volumes[row // 3 :][:1], alone, (8, 8, 8))[0])


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.booleans(),
    st.integers(0, 10),
)
def test_boxes_lie_inside_and_have_the_size_asked_for(whole, a, b, per_axis, seed):
    low, high = min(a, b), max(a, b)
    generator = BatchGenerator.of_step(seed, rows=8)
    boxes = draw_boxes(generator, whole, fraction=(low, high), per_axis=per_axis, count=2)
    assert boxes.start.shape == boxes.size.shape == (16, 3)
    for axis, length in enumerate(whole):
        start, size = boxes.start[:, axis], boxes.size[:, axis]
        assert (start >= 0).all()
        assert (start + size <= length).all()
        assert (size >= 1).all()
        assert (size >= max(1, np.floor(low * length + 0.5) - 1)).all()
        assert (size <= max(1, np.ceil(high * length))).all()


def test_positions_cover_every_place():
    generator = BatchGenerator.of_step(0, rows=4000)
    start = draw_boxes(generator, (8, 8, 8), fraction=(0.5, 0.5)).start[:, 0]
    counts = torch.bincount(start, minlength=5)
    assert len(counts) == 5
    assert counts.min() > 4000 / 5 * 0.8


@pytest.mark.parametrize("band", [(0.0, 0.5), (0.6, 0.5), (0.5, 1.2), (0.5,)])
def test_an_impossible_band_is_refused(band):
    with pytest.raises(GeometryError, match="low <= high"):
        check_band(band)


def test_boxes_that_do_not_divide_over_the_volumes_are_refused():
    with pytest.raises(GeometryError, match="don't divide"):
        crop_resize(torch.rand(2, 1, 4, 4, 4), box_of((0, 0, 0), (2, 2, 2)), (4, 4, 4))


@pytest.mark.parametrize("size", [(8, 4, 16), (7, 4, 9), (3, 2, 5)])
def test_octants_fill_a_volume(size):
    boxes = octants(size)
    covered = torch.zeros(size, dtype=torch.long)
    for start, extent in zip(boxes.start.tolist(), boxes.size.tolist(), strict=True):
        covered[tuple(slice(a, a + n) for a, n in zip(start, extent, strict=True))] += 1
    assert covered.min() == 1
    assert (covered.max() == 1) == all(edge % 2 == 0 for edge in size)


def test_octants_move_towards_the_middle():
    still, moved = octants((8, 16, 4)), octants((8, 16, 4), moved=0.25)
    assert still.start[[0, 1, 7]].tolist() == [[0, 0, 0], [0, 0, 2], [4, 8, 2]]
    assert (moved.start - still.start)[[0, 1, 7]].tolist() == [
        [1, 2, 0],
        [1, 2, 0],
        [-1, -2, 0],
    ]  # 0.5 to even
    assert torch.equal(moved.size, still.size)
