"""Rules for the place of wholes: they find what they look for, from seed, step and index alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import parts2whole as p2w
from parts2whole.scans.nifti import write_nifti
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import CANONICAL, Volume
from parts2whole.store.histogram import BINS, CELL, bins_between, count_intensities, count_labels
from parts2whole.store.store import CaseRecord, Store
from parts2whole.wholes.sampler import SamplerError, WholeSampler, WholeSize
from parts2whole.wholes.where import (
    Anywhere,
    Body,
    GenesisTissue,
    Labelled,
    Lungs,
    WhereError,
    tissue_share,
    usual_where,
)

SIZE = (8, 16, 16)


def add(store, case, hu, *, label=None, modality="CT"):
    record = CaseRecord(
        case, case, modality, 1, hu.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), CANONICAL, 1 / 2000, 0.5, case
    )
    return store.write_case(record, hu[None].astype(np.int16), label)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Air, with a block of soft tissue that holds a block of lung and one labelled voxel; and two scans of air."""
    store = Store.create(tmp_path_factory.mktemp("where") / "s", preprocess=Preprocess(modality="CT"))
    hu = np.full((60, 120, 130), -1000)
    hu[32:48, 64:96, 64:96] = 40
    hu[48:60, 96:120, 0:32] = -800
    label = np.zeros(hu.shape, np.uint8)
    label[5, 100, 100], label[40, 3, 3] = 7, 2
    add(store, "body", hu, label=label)
    add(store, "air", np.full((40, 50, 60), -1000), label=np.zeros((40, 50, 60), np.uint8))
    add(store, "small air", np.full((4, 10, 60), -1000), label=np.zeros((4, 10, 60), np.uint8))
    store.finish()
    return store


def draw(store, where, n=60, **options):
    sampler = WholeSampler(store, size=WholeSize(SIZE), where=where, seed=3, **options)
    wholes = [sampler.draw(0, index) for index in range(n)]
    assert wholes == [sampler.draw(0, index) for index in range(n)]
    for whole in wholes:
        shape = store.record(whole.case_id).shape
        assert all(0 <= s <= e - w for s, e, w in zip(whole.box.start, shape, SIZE, strict=True) if e > w)
    return wholes


def centres(wholes):
    return np.array([np.add(whole.box.start, np.array(SIZE) // 2) for whole in wholes])


def test_where_most_voxels_are_air_wholes_are_drawn_in_the_body(store):
    # 2 % of "body" are no air.  Scans without any body have no place for a whole, so they may lie anywhere.
    assert usual_where(store, ["body"]) == Body()
    assert usual_where(store, ["air", "small air"]) == Anywhere()


def test_a_scan_full_of_body_is_drawn_from_anywhere(tmp_path):
    full = Store.create(tmp_path / "s", preprocess=Preprocess(modality="CT"))
    hu = np.full((40, 50, 60), 40)
    hu[:19] = -1000  # 19 of 40 slices are air
    add(full, "full", hu)
    hu[:21] = -1000
    add(full, "less", hu)
    full.finish()
    assert usual_where(full, ["full"]) == Anywhere()
    assert usual_where(full, ["less"]) == Body()
    assert usual_where(full, []) == Anywhere()
    wholes = draw(full, Anywhere())
    assert wholes == draw(full, None)


def prepared(folder, window):
    """A block of soft tissue in air, which is 2 % of the scan, through `prepare`."""
    hu = np.full((60, 120, 130), -1000, np.int16)
    hu[32:48, 64:96, 64:96] = 40
    write_nifti(Volume(hu), folder / "scans" / "body.nii.gz")
    return p2w.prepare(
        folder / "scans", out=folder / "store", modality="CT", window_hu=window, workers=0, progress=False
    )


@pytest.mark.parametrize("window", [(-200.0, 300.0), (-500.0, 500.0), (-499.0, 40.0), (-1000.0, 1000.0)])
def test_body_is_found_in_windows_that_begin_above_its_threshold(tmp_path, window):
    store = prepared(tmp_path, window)
    (case,) = (record.case_id for record in store.cases)
    assert usual_where(store, [case]) == Body()
    assert Body().counts(store, store.record(case)).sum() == 16 * 32 * 32
    places = centres(draw(store, Body(), n=20))
    assert (places >= (32, 64, 64)).all()
    assert (places < (48, 96, 96)).all()


def test_what_a_window_does_not_show_is_refused(tmp_path):
    soft, lung = prepared(tmp_path / "soft", (-200.0, 300.0)), prepared(tmp_path / "lung", (-1000.0, -600.0))
    assert usual_where(lung, [lung.cases[0].case_id]) == Anywhere()
    for store, rule in (
        (soft, Lungs()),
        (soft, Body(above_hu=300.0)),
        (soft, GenesisTissue(tissue_hu=-200.0, border_voxels=(0, 0, 0))),
        (lung, Lungs()),
        (lung, Body()),
        (lung, GenesisTissue(border_voxels=(0, 0, 0))),
    ):
        with pytest.raises(SamplerError, match=r"can't be told in .*store, whose window is -\d+ to -?\d+ HU"):
            draw(store, rule)
    with pytest.raises(WhereError, match="above_share of at least 0 and below 1, got 1"):
        Body(above_share=1.0)


def test_body_is_where_tissue_or_lung_is(store):
    wholes = draw(store, Body(above_hu=-500.0))
    assert {whole.case_id for whole in wholes} == {"body"}
    places = centres(wholes)
    assert (places >= (32, 64, 64)).all()
    assert (places < (48, 96, 96)).all()
    assert len(np.unique(places[:, 1])) > 15


def test_lungs_are_where_lung_is_and_wholes_are_moved_inside(store):
    places = centres(draw(store, Lungs()))
    assert (places[:, 0] >= 48).all()
    assert places[:, 0].max() == 60 - SIZE[0] // 2
    assert (places[:, 2] >= SIZE[2] // 2).all()
    assert (places[:, 2] < 32).all()


def test_labelled_is_on_a_label(store):
    wholes = draw(store, Labelled(), n=200)
    places = Counter(map(tuple, centres(wholes).tolist()))
    assert set(places) == {(5, 100, 100), (40, 8, 8)}  # the second is moved inside: it lies at (40, 3, 3)
    assert min(places.values()) > 70
    (only,) = set(map(tuple, centres(draw(store, Labelled((7, 9)))).tolist()))
    assert only == (5, 100, 100)


def test_the_centre_is_what_is_looked_for_not_only_near_it(tmp_path):
    """A thin oblique plate: most of every cell that it crosses is air, and each of its voxels is as likely."""
    store = Store.create(tmp_path / "s", preprocess=Preprocess(modality="CT"))
    z, y, x = np.indices((48, 96, 96))
    plate = np.abs(z - y // 2 + x // 8) < 2
    add(store, "plate", np.where(plate, 40, -1000), label=plate.astype(np.uint8))
    store.finish()
    for rule in (Body(), Lungs(hu=(0.0, 100.0)), Labelled()):
        sampler = WholeSampler(store, size=WholeSize((1, 1, 1)), where=rule, seed=0)
        places = np.array([sampler.draw(0, index).box.start for index in range(400)])
        assert plate[tuple(places.T)].all()
        expected = np.array([z[plate].mean(), y[plate].mean(), x[plate].mean()])
        spread = np.array([z[plate].std(), y[plate].std(), x[plate].std()])
        assert (np.abs(places.mean(axis=0) - expected) < 4 * spread / 20).all()  # four standard errors


def test_a_rule_that_finds_nothing_ends(store):
    with pytest.raises(SamplerError, match=r"Labelled\(values=\(9,\)\) finds no place in 100 scans"):
        draw(store, Labelled((9,)), n=1)


def test_rules_that_do_not_fit_are_refused(tmp_path):
    store = Store.create(tmp_path / "s", preprocess=Preprocess(modality="MR"))
    bright = np.full((20, 40, 40), -1000)
    bright[:16, :32, :32] = 200
    add(store, "a", bright, modality="MR")
    for rule in (Lungs(), GenesisTissue(), Labelled()):
        with pytest.raises(SamplerError, match="but case 'a'"):
            draw(store, rule, n=1)
    assert (centres(draw(store, Body()))[:, 1] < 32).all()
    with pytest.raises(WhereError, match="depth_slices"):
        GenesisTissue(depth_slices=1)


def genesis_by_the_voxel(tissue, depth):
    """The rule as nested loops over voxels, as its authors have it."""
    slices = tissue.shape[0] - depth
    total = 0.0
    for z, y, x in np.ndindex(slices, *tissue.shape[1:]):
        k = next((k for k in range(depth) if tissue[z + k, y, x]), depth - 1)
        total += 1 - k / (depth - 1)
    return total / (slices * tissue.shape[1] * tissue.shape[2])


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
def test_the_share_of_tissue_is_that_of_models_genesis(density):
    tissue = np.random.default_rng(0).random((9, 5, 6)) < density
    assert tissue_share(tissue, 3) == pytest.approx(genesis_by_the_voxel(tissue, 3))


def test_genesis_takes_lung_and_keeps_its_borders(tmp_path):
    store = Store.create(tmp_path / "s", preprocess=Preprocess(modality="CT"))
    hu = np.full((30, 60, 60), -800)
    hu[:, :, 30:] = -150  # the threshold itself is tissue
    add(store, "half", hu)
    add(store, "too thin", hu[:18])
    rule = GenesisTissue(border_voxels=(4, 10, 10))
    wholes = draw(store, rule, n=300)
    assert {whole.case_id for whole in wholes} == {"half"}
    z, y, x = np.array([whole.box.start for whole in wholes]).T
    # inclusive: border to edge - size - (depth in z) - 1 - border
    assert (z.min(), z.max()) == (4, 30 - 8 - 3 - 1 - 4)
    assert (y.min(), y.max()) == (10, 60 - 16 - 1 - 10)
    # of 16 columns at most 0.15 x 16 = 2 may be tissue
    assert (x.min(), x.max()) == (10, 30 - 16 + 2)


def test_cells_count_every_voxel_once():
    array = np.random.default_rng(0).integers(-1000, 1001, (1, 37, 70, 33)).astype(np.int16)
    counts = count_intensities(array, scale=1 / 2000, offset=0.5)
    assert counts.shape == (BINS, 3, 3, 2)
    assert counts.sum() == array.size
    for cell in [(0, 0, 0), (2, 2, 1), (1, 2, 0)]:
        box = tuple(slice(i * n, (i + 1) * n) for i, n in zip(cell, CELL, strict=True))
        hu = array[0][box]
        for number in range(BINS):
            low, high = -1000 + 100 * number, -1000 + 100 * (number + 1) + (number == BINS - 1)
            assert counts[number][cell] == ((hu >= low) & (hu < high)).sum()
    label = (array[0] > 0) * 5
    assert count_labels(label, (0, 5))[1].sum() == (array[0] > 0).sum()


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("int16", 32767), ("float16", 1)])
def test_cells_count_twentieths_in_every_type_of_a_store(dtype, top):
    twentieths = np.random.default_rng(0).integers(0, BINS, (1, 17, 40, 33))
    array = ((twentieths + 0.5) / BINS * top).round(0 if top > 1 else 4).astype(dtype)
    counts = count_intensities(array, scale=1 / top, offset=0.0)
    assert counts.shape == (BINS, 2, 2, 2)
    assert counts[:, 0, 1, 0].tolist() == [(twentieths[0, :16, 32:, :32] == n).sum() for n in range(BINS)]
    assert counts[:, 1, 1, 1].tolist() == [(twentieths[0, 16:, 32:, 32:] == n).sum() for n in range(BINS)]


@pytest.mark.parametrize(
    ("low", "high", "bins"),
    [
        (0.25, 1.0, (5, 20)),
        (0.0, 0.01, (0, 1)),
        (0.99, 1.0, (19, 20)),
        (0.5, 0.5, (10, 11)),
        (-3, 9, (0, 20)),
    ],
)
def test_ranges_become_bins(low, high, bins):
    assert bins_between(low, high) == slice(*bins)


def test_weights_decide_how_often_a_scan_is_drawn(store):
    def shares(**options):
        sampler = WholeSampler(store, size=WholeSize(SIZE), **options)
        counts = Counter(sampler.draw(0, index).case_id for index in range(2000))
        return [counts[case] / 2000 for case in ("air", "body", "small air")]

    voxels = np.array([40 * 50 * 60, 60 * 120 * 130, 4 * 10 * 60], float)
    assert shares(weights="voxels") == pytest.approx(voxels / voxels.sum(), abs=0.02)
    assert shares(weights={"air": 3, "body": 1, "small air": 0}) == pytest.approx([0.75, 0.25, 0], abs=0.03)
    assert shares() == pytest.approx([1 / 3] * 3, abs=0.04)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"air": 1.0}, "name no number for 2 cases, such as 'body'"),
        ({"air": -1.0, "body": 1.0, "small air": 1.0}, "not negative"),
        ({"air": 0.0, "body": 0.0, "small air": 0.0}, "not all zero"),
        ("size", "got 'size'"),
    ],
)
def test_impossible_weights_are_refused(store, weights, said):
    with pytest.raises(SamplerError, match=said):
        WholeSampler(store, size=WholeSize(SIZE), weights=weights)


def test_a_store_from_before_cells_says_so(tmp_path):
    store = Store.create(tmp_path / "s", preprocess=Preprocess(modality="CT"))
    add(store, "a", np.full((4, 4, 4), 40))
    for file in sorted((tmp_path / "s" / "cases" / "a.zarr" / "cells").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    with pytest.raises(SamplerError, match="prepare this case again"):
        draw(store, Body(), n=1)
