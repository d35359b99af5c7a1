from __future__ import annotations

import numpy as np
import pytest

from parts2whole.phantom.brain import MODALITIES, Tissue, make_brain
from parts2whole.phantom.canvas import Canvas, Structure, tube_path
from parts2whole.phantom.ct import Resolution, make_ct
from parts2whole.phantom.sizes import CT, brain_grid
from parts2whole.phantom.space import Grid, Smooth
from parts2whole.phantom.trees import grow_tree

# Ranges of medians in adults, HU: lung -950..-750, fat -120..-70, muscle 30..70, portal-venous liver 80..130,
# spleen 90..140, bone of ribs and spine above 150.
RANGES = {
    "chest": {"LUNG": (-950, -750), "FAT": (-120, -70), "MUSCLE": (30, 70), "BONE": (150, 900)},
    "abdomen": {"LIVER": (80, 130), "SPLEEN": (90, 140), "KIDNEY": (100, 220), "FAT": (-120, -70)},
    "angiography": {"ARTERY": (180, 550), "AORTA": (90, 320), "LUNG": (-950, -700)},
}


@pytest.mark.parametrize("region", sorted(RANGES))
def test_organs_have_their_brightness(scans, region):
    scan = scans[region]
    for name, (low, high) in RANGES[region].items():
        voxels = scan.image.array[scan.structures == Structure[name]]
        assert len(voxels) > 30, name
        assert low < np.median(voxels) < high, name


def test_organs_are_where_they_belong(scans):
    """Radiological places: liver right, spleen left, heart left of the middle, spine behind, aorta before it."""
    chest, abdomen = scans["chest"].structures, scans["abdomen"].structures

    def middle(structures, *names):
        return np.mean(np.nonzero(np.isin(structures, [Structure[name] for name in names])), axis=1)

    x = abdomen.shape[2] / 2
    assert middle(abdomen, "LIVER")[2] < x < middle(abdomen, "SPLEEN")[2]
    assert middle(chest, "HEART")[2] > chest.shape[2] / 2
    assert middle(chest, "HEART")[1] < middle(chest, "LUNG")[1] < middle(chest, "BONE")[1] + 8
    assert middle(abdomen, "AORTA")[1] > middle(abdomen, "STOMACH")[1]
    assert middle(chest, "LIVER", "STOMACH")[0] < middle(chest, "LUNG")[0]


def test_sizes_are_those_of_adults():
    """Litres: both lungs 3 to 8, liver 0.9 to 2.7, spleen 0.1 to 0.45, one kidney 0.1 to 0.3."""
    for case in range(3):
        chest = make_ct("chest", CT["chest"]["tiny"], seed=1, case=case, lesions=0)
        abdomen = make_ct("abdomen", CT["abdomen"]["tiny"], seed=1, case=case, lesions=0)
        litre = [np.prod(scan.image.spacing_mm) / 1e6 for scan in (chest, abdomen)]
        assert 2.0 < litre[0] * (chest.structures == Structure.LUNG).sum() < 8
        assert 0.9 < litre[1] * (abdomen.structures == Structure.LIVER).sum() < 2.7
        assert 0.08 < litre[1] * (abdomen.structures == Structure.SPLEEN).sum() < 0.45
        assert 0.15 < litre[1] * (abdomen.structures == Structure.KIDNEY).sum() < 0.6


def test_a_scan_is_a_function_of_seed_and_case(scans):
    again = make_ct("chest", CT["chest"]["tiny"], seed=0, case=0, lesions=4)
    assert np.array_equal(again.image.array, scans["chest"].image.array)
    for other in ({"seed": 0, "case": 1}, {"seed": 1, "case": 0}):
        differs = make_ct("chest", CT["chest"]["tiny"], **other, lesions=4)
        assert not np.array_equal(differs.image.array, again.image.array)


def test_the_same_patient_appears_at_any_spacing():
    coarse, fine = (
        make_ct("chest", Resolution(pixels, slices=slices, smallest_mm=20.0), seed=0, case=0, lesions=2)
        for pixels, slices in ((40, 20), (80, 40))
    )
    assert [lesion.centre_mm for lesion in coarse.lesions] == [lesion.centre_mm for lesion in fine.lesions]
    lungs = [scan.structures == Structure.LUNG for scan in (coarse, fine)]
    volumes = [
        mask.sum() * np.prod(scan.image.spacing_mm) for mask, scan in zip(lungs, (coarse, fine), strict=True)
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.1)
    halved = lungs[1].reshape(20, 2, 40, 2, 40, 2).mean(axis=(1, 3, 5)) > 0.5
    overlap = 2 * (halved & lungs[0]).sum() / (halved.sum() + lungs[0].sum())
    assert overlap > 0.93


def test_nodules_lie_in_lungs_and_have_their_size(scans):
    scan = scans["chest"]
    plain = make_ct("chest", CT["chest"]["tiny"], seed=0, case=0, lesions=0)
    in_lung = (Structure.LUNG, Structure.ARTERY, Structure.VEIN, Structure.AIRWAY)
    assert np.isin(plain.structures[scan.lesion > 0], in_lung).all()
    voxel = np.prod(scan.image.spacing_mm)
    assert len(scan.lesions) >= 2
    for number, nodule in enumerate(scan.lesions, start=1):
        mask = scan.lesion == number
        ball = 4 / 3 * np.pi * (nodule.diameter_mm / 2) ** 3
        assert 0.25 * ball < mask.sum() * voxel < 1.7 * ball
        assert np.median(scan.image.array[mask]) > np.median(scan.image.array[scan.structures == 7]) + 60


def test_emboli_fill_arteries_and_nothing_else(scans):
    scan = scans["angiography"]
    assert scan.lesion.max() >= 2
    assert (scan.structures[scan.lesion > 0] == Structure.ARTERY).all()
    arteries = (scan.structures == Structure.ARTERY) & (scan.lesion == 0)
    assert np.median(scan.image.array[scan.lesion > 0]) < np.median(scan.image.array[arteries]) - 50


def test_tumours_are_dark_and_in_the_liver(scans):
    scan = scans["abdomen"]
    label = scan.liver_label().array
    assert set(np.unique(label)) == {0, 1, 2}
    assert (scan.structures[label > 0] == Structure.LIVER).all()
    assert scan.image.array[label == 2].mean() < scan.image.array[label == 1].mean() - 15


def test_a_brain_looks_different_in_each_modality():
    scan = make_brain(brain_grid("tiny"), seed=0, case=0)
    assert tuple(scan.images) == MODALITIES
    fluid, white = scan.tissue == Tissue.FLUID, scan.tissue == Tissue.WHITE
    for name, brighter in (("t1", white), ("t1ce", white), ("t2", fluid), ("flair", white)):
        image = scan.images[name].array
        darker = fluid if brighter is white else white
        assert np.median(image[brighter]) > 1.15 * np.median(image[darker]), name
        assert (image[scan.tissue == 0] == 0).all()
    label = scan.label.array
    assert set(np.unique(label)) == {0, 1, 2, 4}
    rim, core = (scan.images["t1ce"].array[label == value] for value in (4, 1))
    assert np.median(rim) > 1.3 * np.median(core)
    assert np.median(scan.images["flair"].array[label == 2]) > np.median(scan.images["flair"].array[white])


def test_a_head_keeps_its_skull_unless_stripped():
    options = {"seed": 0, "case": 0, "tumour": False, "modalities": ("t1",)}
    head = make_brain(brain_grid("tiny"), stripped=False, **options)
    brain = make_brain(brain_grid("tiny"), **options)
    assert {Tissue.SCALP, Tissue.SKULL} <= set(np.unique(head.tissue))
    assert not brain.label.array.any()
    assert 0.9 < (brain.tissue > 0).sum() * 4.6**3 / 1e6 < 1.9  # litres


def test_smooth_functions_agree_on_grids_and_at_points():
    smooth = Smooth.draw(np.random.default_rng(0), 11.0)
    grid = Grid((4, 5, 6), (3.0, 7.0, 5.0), (10.0, -40.0, 3.0))
    corners = np.stack(np.meshgrid(*(grid.axis(number) for number in range(3)), indexing="ij"), axis=-1)
    assert smooth.at(corners.reshape(-1, 3).astype(float)) == pytest.approx(smooth.on(grid).ravel(), abs=1e-4)
    many = smooth.on(Grid((40, 40, 40), (9.0, 9.0, 9.0)))
    assert abs(many.mean()) < 0.1
    assert many.std() == pytest.approx(1, abs=0.1)


def test_a_tube_has_the_volume_of_a_cylinder_at_any_spacing():
    for step in (0.5, 1.0, 2.0):
        edge = round(40 / step)
        canvas = Canvas(Grid((edge, edge, edge), (step, step, step)), 0.0)
        canvas.paint_tubes(tube_path([(-12, -3, 2), (12, 5, -4)], 4.0), 1.0)
        expected = np.pi * 16 * np.sqrt(24**2 + 8**2 + 6**2) + 4 / 3 * np.pi * 64  # with its round ends
        assert canvas.value.sum() * step**3 == pytest.approx(expected, rel=0.05)


def test_a_tree_reaches_every_target_and_thins_outwards():
    targets = np.random.default_rng(1).uniform((-50, -50, 30), (50, 50, 130), (80, 3))
    tree = grow_tree((0, 0, 0), (0, 0, 1), targets, leaf_radius_mm=0.5, generator=np.random.default_rng(2))
    assert {tuple(point) for point in targets} <= {tuple(point) for point in tree.nodes_mm}
    assert (tree.parent[1:] < np.arange(1, 81)).all()
    assert (tree.radius_mm[1:] <= tree.radius_mm[tree.parent[1:]]).all()
    assert tree.chain(80, 1e9)[-1] == 0
