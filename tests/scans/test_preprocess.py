"""Preprocessing: windows, percentiles, resampling and what the store makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from parts2whole.scans.preprocess import (
    Preprocess,
    PreprocessError,
    crop,
    guess_modality,
    looks_like_label,
    onto_grid,
    prepare_label,
    prepare_volume,
    quantise,
    resample,
    to_unit,
)
from parts2whole.scans.volume import Box, LabelVolume, Volume
from parts2whole.spec import spec_from_dict

FLIPPED = ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))


def scan(seed=0, shape=(6, 9, 8), low=-1100, high=1500):
    return Volume(np.random.default_rng(seed).integers(low, high, shape).astype(np.int16), (3.0, 1.0, 1.5))


def test_ct_window():
    array = np.array([[[-2000, -1000], [-500, 0]], [[500, 1000], [3000, 250]]], dtype=np.int16)
    prepared = prepare_volume(Volume(array), Preprocess(modality="CT"))
    expected = np.array([[[0, 0], [0.25, 0.5]], [[0.75, 1], [1, 0.625]]])
    np.testing.assert_allclose(prepared.volume.array, expected, atol=1e-7)
    assert prepared.volume.array.dtype == np.float32
    assert prepared.modality == "CT"
    assert prepared.integral


def test_mr_percentiles_of_the_volume_itself():
    array = np.random.default_rng(0).gamma(2, 300, (8, 8, 8)).astype(np.float32)
    prepared = prepare_volume(Volume(array), Preprocess(modality="MR", percentiles=(5, 95)))
    low, high = np.percentile(array, (5, 95))
    np.testing.assert_allclose(prepared.volume.array, np.clip((array - low) / (high - low), 0, 1), atol=1e-6)
    scaled = prepare_volume(Volume(array * 1000 + 5), Preprocess(modality="MR", percentiles=(5, 95)))
    np.testing.assert_allclose(scaled.volume.array, prepared.volume.array, atol=1e-5)


def test_each_channel_has_its_own_percentiles():
    array = np.random.default_rng(0).random((2, 5, 6, 7)).astype(np.float32)
    array[1] *= 500
    prepared = prepare_volume(Volume(array), Preprocess(modality="MR"))
    assert prepared.volume.array.shape == (2, 5, 6, 7)
    for channel in prepared.volume.array:
        assert (channel.min(), channel.max()) == (0, 1)


def test_mostly_empty_mr_falls_back_to_its_range():
    array = np.zeros((10, 10, 10), dtype=np.float32)
    array[5, 5, 5] = 7
    assert prepare_volume(Volume(array), Preprocess(modality="MR")).volume.array.max() == 1


def test_orientation_becomes_canonical():
    volume = Volume(scan().array, direction=FLIPPED)
    prepared = prepare_volume(volume, Preprocess(modality="CT"))
    back = np.flip(prepared.volume.array) * 2000 - 1000
    np.testing.assert_allclose(back, np.clip(volume.array, -1000, 1000), atol=1e-3)


@pytest.mark.parametrize("value", [0, -1000, 2000])
def test_constant_volume_is_refused(value):
    with pytest.raises(PreprocessError, match=f"constant volume: every voxel is {value}"):
        prepare_volume(Volume(np.full((4, 4, 4), value, np.int16)), Preprocess(modality="MR"))


def test_constant_inside_the_window_is_refused():
    array = scan(low=1200, high=1900).array
    with pytest.raises(PreprocessError, match="constant volume"):
        prepare_volume(Volume(array), Preprocess(modality="CT"))


def test_unit_volumes_must_lie_in_unit_range():
    inside = prepare_volume(Volume(np.random.default_rng(0).random((3, 3, 3))), Preprocess(modality="unit"))
    assert inside.window == ((0.0, 1.0),)
    with pytest.raises(PreprocessError, match=r"\[0, 1\]"):
        prepare_volume(scan(), Preprocess(modality="unit"))


def test_ct_is_guessed_from_air():
    guess, reason = guess_modality(scan())
    assert guess == "CT"
    assert "Hounsfield" in reason
    prepared = prepare_volume(scan(), Preprocess())
    assert prepared.modality == "CT"
    assert "guessed" in prepared.notes[0]


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).integers(0, 4000, (5, 5, 5)),
        np.random.default_rng(0).normal(0, 1, (5, 5, 5)),
        np.random.default_rng(0).normal(0, 100, (5, 5, 5)),
        np.random.default_rng(0).integers(-30, 900, (5, 5, 5)),
        np.random.default_rng(0).integers(-200000, 900, (5, 5, 5)),
    ],
)
def test_nothing_else_is_guessed(array):
    assert guess_modality(Volume(array))[0] is None
    with pytest.raises(PreprocessError, match="--modality MR"):
        prepare_volume(Volume(array), Preprocess())


def test_the_file_is_believed_and_contradiction_refused():
    tagged = Volume(scan().array, modality="MR")
    assert prepare_volume(tagged, Preprocess()).modality == "MR"
    with pytest.raises(PreprocessError, match="the file says MR"):
        prepare_volume(tagged, Preprocess(modality="CT"))
    assert guess_modality(Volume(scan().array, modality="PT"))[0] is None


@pytest.mark.parametrize("named", ["PT", "NM", "US"])
def test_what_is_named_otherwise_has_no_hounsfield_units(named):
    tagged = Volume(scan().array, modality=named)
    with pytest.raises(PreprocessError, match=f"the file says {named}"):
        prepare_volume(tagged, Preprocess(modality="CT"))
    assert prepare_volume(tagged, Preprocess(modality="MR")).modality == "MR"  # by its own percentiles


def test_ct_without_air_is_noted():
    notes = prepare_volume(scan(low=0, high=4000), Preprocess(modality="CT")).notes
    assert any("Hounsfield" in note for note in notes)


@pytest.mark.parametrize("window", [(-1000.0, 1000.0), (-150.0, 250.0), (-32768.0, 32767.0)])
def test_whole_hounsfield_units_are_stored_exactly(window):
    volume = scan(low=-3000, high=3071)
    stored = quantise(prepare_volume(volume, Preprocess("CT", window_hu=window)), "int16")
    np.testing.assert_array_equal(stored.array[0], np.clip(volume.array, *window))
    assert stored.error == 0
    assert stored.scale == pytest.approx(1 / (window[1] - window[0]))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["int16", "uint8", "float16"]), st.integers(0, 99), st.booleans())
def test_quantisation_error_is_what_it_says(dtype, seed, is_ct):
    array = np.random.default_rng(seed).normal(-100, 400, (4, 5, 6)).astype(np.float32)
    prepared = prepare_volume(Volume(array), Preprocess("CT" if is_ct else "MR"))
    stored = quantise(prepared, dtype)
    assert stored.array.dtype == dtype
    assert stored.array.shape == (1, 4, 5, 6)
    back = stored.array[0].astype(np.float64) * stored.scale + stored.offset
    error = np.abs(back - prepared.volume.array).max()
    assert error == pytest.approx(stored.error, abs=1e-9)
    assert stored.error <= {"int16": 0.6 / 32767, "uint8": 0.51 / 255, "float16": 3e-4}[dtype]


def test_identical_spacing_leaves_voxels_alone():
    volume = scan()
    assert resample(volume, (3.0, 1.0005, 1.5)).array is volume.array


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.floats(0.4, 1.0)] * 3), st.integers(0, 50))
def test_finer_grid_is_linear_interpolation(factors, seed):
    volume = scan(seed)
    spacing = tuple(s * f for s, f in zip(volume.spacing_mm, factors, strict=True))
    fine = resample(volume, spacing)
    to_old = np.linalg.inv(volume.affine()) @ fine.affine()
    index = np.indices(fine.shape).reshape(3, -1)
    places = (to_old @ np.vstack([index, np.ones(index.shape[1])]))[:3]
    expected = map_coordinates(volume.array.astype(float), places, order=1, mode="nearest")
    np.testing.assert_allclose(fine.array.ravel(), expected, atol=0.02)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.floats(0.3, 4.0)] * 3))
def test_resampling_keeps_the_middle_and_straight_lines(factors):
    shape = (12, 15, 14)
    ramp = np.add.outer(np.add.outer(3.0 * np.arange(12), 2.0 * np.arange(15)), np.arange(14))
    volume = Volume(ramp.astype(np.float32), (2.0, 1.0, 1.5), (5.0, 6.0, 7.0), FLIPPED)
    spacing = tuple(s * f for s, f in zip(volume.spacing_mm, factors, strict=True))
    changed = resample(volume, spacing)
    middle = [v.affine() @ [*(np.array(v.shape) / 2 - 0.5), 1] for v in (volume, changed)]
    np.testing.assert_allclose(*middle, atol=1e-3)
    index = np.indices(changed.shape).reshape(3, -1)
    places = (
        np.linalg.inv(volume.affine()) @ changed.affine() @ np.vstack([index, np.ones(index.shape[1])])
    )[:3]
    reach = 1 + np.maximum(1, factors)[:, None] / 2
    inside = ((places >= reach) & (places <= np.array(shape)[:, None] - 1 - reach)).all(axis=0)
    np.testing.assert_allclose(changed.array.ravel()[inside], ([3.0, 2.0, 1.0] @ places)[inside], atol=0.01)


def test_coarser_grid_does_not_alias():
    array = np.zeros((4, 4, 64), dtype=np.float32)
    array[..., ::2] = 100.0
    coarse = resample(Volume(array), (1.0, 1.0, 3.0)).array
    np.testing.assert_allclose(coarse[..., 2:-2], 50, atol=7)


def test_labels_take_the_nearest_voxel():
    array = np.random.default_rng(0).integers(0, 9, (6, 7, 8)).astype(np.uint8)
    label = prepare_label(LabelVolume(array), Preprocess(spacing_mm=(0.5, 0.7, 2.3)))
    assert label.array.dtype == np.uint8
    assert set(np.unique(label.array)) <= set(range(9))
    image = prepare_volume(
        Volume(array.astype(float), direction=label.direction), Preprocess("MR", spacing_mm=(0.5, 0.7, 2.3))
    )
    assert image.volume.same_grid(label)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.floats(0.3, 1.0)] * 3))
def test_labels_come_back_from_a_finer_grid(factors):
    label = LabelVolume(np.random.default_rng(0).integers(0, 5, (5, 6, 7)), (2.0, 1.0, 1.5), (1.0, 2.0, 3.0))
    spacing = tuple(s * f for s, f in zip(label.spacing_mm, factors, strict=True))
    back = onto_grid(resample(label, spacing), label)
    assert back.same_grid(label)
    np.testing.assert_array_equal(back.array, label.array)


def test_onto_grid_needs_the_same_axes():
    with pytest.raises(PreprocessError, match="same axes"):
        onto_grid(scan(), Volume(scan().array, direction=FLIPPED))


def test_crop_keeps_the_place_of_voxels():
    volume = Volume(scan().array, (3.0, 1.0, 1.5), (10.0, 20.0, 30.0), FLIPPED)
    part = crop(volume, Box((1, 2, 0), (3, 7, 5)))
    assert part.shape == (3, 7, 5)
    np.testing.assert_allclose(part.affine() @ [0, 0, 0, 1], volume.affine() @ [1, 2, 0, 1])
    for bad in (Box((0, 0, 0), (7, 1, 1)), Box((3, 0, 0), (0, 1, 1)), Box((-1, 0, 0), (2, 1, 1))):
        with pytest.raises(PreprocessError, match="inside the volume"):
            crop(volume, bad)


def test_stored_voxels_come_back_as_networks_see_them():
    stored = np.array([[-1300, -1000], [0, 2000]], np.int16)
    unit = to_unit(stored, scale=1 / 2000, offset=0.5)
    assert unit.dtype == np.float32
    np.testing.assert_array_equal(unit, np.array([[0, 0], [0.5, 1]], np.float32))
    assert (stored == [[-1300, -1000], [0, 2000]]).all()


def test_label_maps_are_told_from_scans():
    blob = np.zeros((12, 24, 24), dtype=np.int16)
    blob[3:9, 5:18, 6:20] = 2
    blob[4:6, 8:12, 8:14] = 5
    assert looks_like_label(Volume(blob))
    assert not looks_like_label(scan())
    noisy = np.where(blob > 0, np.random.default_rng(0).integers(1, 90, blob.shape), 0)
    assert not looks_like_label(Volume(noisy))
    assert not looks_like_label(Volume(blob + 0.5))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"modality": "XR"}, "auto, CT, MR or unit"),
        ({"window_hu": (100, -100)}, "low < high"),
        ({"window_hu": (1, 2, 3)}, "low, high"),
        ({"percentiles": (-1, 50)}, r"\[0, 100\]"),
        ({"spacing_mm": (1, 1)}, "three positive"),
        ({"spacing_mm": (1, 1, 0)}, "three positive"),
    ],
)
def test_impossible_settings_are_refused(arguments, complaint):
    with pytest.raises(PreprocessError, match=complaint):
        Preprocess(**arguments)


def test_settings_travel_as_plain_data():
    given_settings = Preprocess("MR", spacing_mm=(2, 1, 1))
    assert spec_from_dict(given_settings.to_dict(), Preprocess) == given_settings
    assert spec_from_dict(Preprocess().to_dict(), Preprocess) == Preprocess()
