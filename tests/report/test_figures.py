"""Pictures: layout of slices, panels that open, sprite sheets that hold every voxel."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from parts2whole.report.figures import (
    PLANES,
    FigureError,
    Plane,
    error_colours,
    grey_png,
    make_sprite,
    pixel_aspect,
    take_slice,
    write_panel,
    write_segmentation_panel,
)
from parts2whole.report.runs import Panel

MakePanel = Callable[..., Panel]


def read(path: Path) -> np.ndarray:
    return np.asarray(matplotlib.image.imread(path))


def test_superior_is_at_the_top() -> None:
    volume = np.zeros((3, 4, 5))
    volume[2, 1, 0] = 1  # most superior, anterior, right
    assert np.argwhere(take_slice(volume, "axial", 2)).tolist() == [[1, 0]]
    assert np.argwhere(take_slice(volume, "coronal", 1)).tolist() == [[0, 0]]
    assert np.argwhere(take_slice(volume, "sagittal", 0)).tolist() == [[0, 1]]


@pytest.mark.parametrize(("plane", "aspect"), [("axial", 2.0), ("coronal", 6.0), ("sagittal", 3.0)])
def test_pixels_keep_their_proportion(plane: Plane, aspect: float) -> None:
    assert pixel_aspect(plane, (6.0, 2.0, 1.0)) == aspect


def test_a_panel_is_as_wide_as_it_has_columns(tmp_path: Path, panel: MakePanel) -> None:
    views = panel()
    arrays = views.part, views.reconstruction, views.whole
    one = write_panel(tmp_path / "new" / "one.png", Panel(*arrays, names=("$x", "<b>")), title="step 20")
    three = write_panel(tmp_path / "three.png", Panel(*arrays, (3.0, 1.0, 1.0)), planes=PLANES)
    assert read(one).shape[1] == read(three).shape[1]
    assert read(three).shape[0] > 1.5 * read(one).shape[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "three.png"]


def test_every_sample_is_drawn_in_its_own_proportion(tmp_path: Path) -> None:
    """Axial slices of 40 x 40 voxels: one square, one half as high as wide."""
    flat = np.full((2, 4, 40, 40), 0.5, np.float32)
    spacings = (1.0, 1.0, 1.0), (1.0, 0.5, 1.0)
    both = read(write_panel(tmp_path / "both.png", Panel(flat, flat, flat, spacings)))
    alone = [
        read(write_panel(tmp_path / f"{i}.png", Panel(flat[:1], flat[:1], flat[:1], spacing)))
        for i, spacing in enumerate(spacings)
    ]
    tile = 1.65 * 130  # inches, dots per inch
    assert alone[0].shape[0] - alone[1].shape[0] == pytest.approx(tile / 2, abs=2)
    assert both.shape[0] - alone[0].shape[0] == pytest.approx(tile / 2 + 0.06 * 130, abs=2)


def test_grey_is_fixed_so_that_panels_can_be_compared(tmp_path: Path) -> None:
    flat = np.full((1, 4, 6, 6), 0.5, np.float32)
    image = read(write_panel(tmp_path / "flat.png", Panel(flat, flat, flat)))
    middle = image[image.shape[0] // 2, image.shape[1] // 5, :3]
    np.testing.assert_allclose(middle, 0.5, atol=0.01)


def test_panels_that_differ_are_refused(tmp_path: Path, panel: MakePanel) -> None:
    views = panel()
    with pytest.raises(FigureError, match="without a sample"):
        write_panel(tmp_path / "x.png", Panel(views.part[:0], views.whole[:0], views.whole[:0]))
    with pytest.raises(FigureError, match="must be alike"):
        write_segmentation_panel(tmp_path / "x.png", views.whole[0], np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("found", [True, False])
def test_segmentation_panels(tmp_path: Path, classes: int, found: bool) -> None:
    image = np.linspace(0, 1, 8 * 9 * 10).reshape(8, 9, 10)
    reference = np.zeros(image.shape, int)
    reference[2:6, 3:, 3:7] = 1 + np.arange(4) % classes
    prediction = np.roll(reference, 1, axis=2) if found else np.zeros_like(reference)
    names = ["background", "a_{1}", "$b", "c"][: classes + 1]
    path = write_segmentation_panel(
        tmp_path / "s.png", image, reference, prediction, classes=names, title="worst $"
    )
    drawn = read(path)[..., :3]
    coloured = (drawn.max(axis=2) - drawn.min(axis=2)) > 0.3
    assert coloured.sum() > 100


def test_nothing_to_outline_is_no_error(tmp_path: Path) -> None:
    empty = np.zeros((3, 4, 5), int)
    assert write_segmentation_panel(tmp_path / "e.png", empty.astype(float), empty, empty).exists()


def test_a_png_holds_exactly_what_was_put_in() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 11)).astype(np.uint8)
    back = matplotlib.image.imread(io.BytesIO(grey_png(image)), format="png")
    np.testing.assert_array_equal(np.rint(back * 255).astype(np.uint8), image)


def test_a_sprite_holds_every_slice(panel: MakePanel) -> None:
    views = panel()
    sprite = make_sprite(views.part[0], views.reconstruction[0], views.whole[0], max_bytes=10_000)
    sheet = np.rint(matplotlib.image.imread(io.BytesIO(sprite.png), format="png") * 255)
    z, y, x = sprite.shape
    assert (z, y, x, sprite.thinned) == (4, 6, 5, 1)
    for volume, array in enumerate((views.part[0], views.reconstruction[0], views.whole[0])):
        for index in range(z):
            row, column = divmod(volume * z + index, sprite.columns)
            tile = sheet[row * y : (row + 1) * y, column * x : (column + 1) * x]
            np.testing.assert_array_equal(tile, np.rint(array[index] * 255))


def test_a_sprite_is_thinned_until_it_fits() -> None:
    noise = np.random.default_rng(0).uniform(size=(3, 24, 24, 24))
    sprite = make_sprite(*noise, max_bytes=8_000)
    assert len(sprite.png) <= 8_000
    assert sprite.thinned > 1


def test_values_outside_the_range_are_clipped() -> None:
    odd = np.array([np.nan, -1.0, 2.0, 0.5]).reshape(1, 2, 2)
    sheet = matplotlib.image.imread(
        io.BytesIO(make_sprite(odd, odd, odd, max_bytes=10_000).png), format="png"
    )
    assert set(np.rint(np.unique(sheet) * 255)) == {0, 128, 255}


def test_error_colours_go_from_dark_to_light() -> None:
    table = np.frombuffer(error_colours(), np.uint8).reshape(256, 3).astype(int).sum(axis=1)
    assert (np.diff(table) >= -3).all()
    assert table[0] < 20
    assert table[-1] > 500


@pytest.mark.parametrize("plane", PLANES)
def test_the_box_of_a_part_is_drawn_on_its_whole(tmp_path: Path, plane: Plane) -> None:
    size, box = (8, 10, 12), np.array([[5, 8], [1, 6], [3, 12]], np.float32)
    dark = np.zeros((1, *size), np.float32)
    panel = Panel(dark, dark, dark, boxes=box[None])
    picture = write_panel(tmp_path / "box.png", panel, planes=[plane])
    image = read(picture)[..., :3]
    rows, columns = np.nonzero((np.abs(image - (1, 0.62, 0.11)) < 0.1).all(axis=2))
    tile = 1.65 * 130  # inches, dots per inch
    left = (0.62 + 2 * (1.65 + 0.06)) * 130  # the third tile
    down, across = (axis for axis in range(3) if axis != ("axial", "coronal", "sagittal").index(plane))
    low, high = box[across] / size[across] * tile + left
    assert columns.min() == pytest.approx(low, abs=3)
    assert columns.max() == pytest.approx(high, abs=3)
    height = tile * size[down] / size[across]
    low, high = box[down] / size[down] if plane == "axial" else 1 - box[down][::-1] / size[down]
    top = 0.34 * 130
    assert rows.min() == pytest.approx(top + low * height, abs=3)
    assert rows.max() == pytest.approx(top + high * height, abs=3)
