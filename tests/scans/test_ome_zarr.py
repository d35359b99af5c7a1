"""OME-Zarr in: others' images of both versions, NIfTI-Zarr, and the cases of our own stores."""

from __future__ import annotations

import io

import nibabel as nib
import numpy as np
import pytest
import zarr

from parts2whole.scans.find import find_scans
from parts2whole.scans.preprocess import Preprocess, prepare_volume
from parts2whole.scans.read import ReadError, file_stamp, read_label, read_scan, read_volume, write_label_like
from parts2whole.scans.volume import orientation_code, to_canonical
from parts2whole.store.ingest import SourceCase, store_cases
from parts2whole.store.store import Store

ARRAY = np.random.default_rng(0).integers(-1000, 400, (5, 6, 7)).astype(np.int16)
SCALE, FIRST = [2.5, 0.8, 0.7], [30.0, -20.0, -10.0]
LEFT = {"z": "superior-to-inferior", "y": "posterior-to-anterior", "x": "right-to-left"}


def axes_of(names, unit="millimeter", orientation=None):
    axes = []
    for name in names:
        axis = {"name": name, "type": {"t": "time", "c": "channel"}.get(name, "space")}
        if name in "zyx":
            axis |= {"unit": unit} if unit else {}
            axis |= {"orientation": {"type": "anatomical", "value": orientation[name]}} if orientation else {}
        axes.append(axis)
    return axes


def write(folder, array=ARRAY, names="zyx", version="0.5", transforms=None, extra=(), **about):
    """An image by hand, with a coarser resolution that isn't to be read."""
    group = zarr.open_group(folder, mode="w", zarr_format=2 if version == "0.4" else 3)
    lead = array.ndim - 3
    moves = [
        {"type": "scale", "scale": [1.0] * lead + SCALE},
        {"type": "translation", "translation": [0.0] * lead + FIRST},
    ]
    datasets = []
    for number, level in enumerate((array, array[..., ::2, ::2, ::2])):
        group.create_array(f"s{number}", data=level)
        datasets.append(
            {"path": f"s{number}", "coordinateTransformations": moves if transforms is None else transforms}
        )
    multiscale = {"axes": axes_of(names, **about), "datasets": datasets, "version": version}
    multiscale |= {"coordinateTransformations": list(extra)} if extra else {}
    group.attrs.update(
        {"multiscales": [multiscale]}
        if version == "0.4"
        else {"ome": {"version": version, "multiscales": [multiscale]}}
    )
    return folder


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_is_read_with_its_spacing_place_and_orientation(version, tmp_path):
    scan = read_volume(write(tmp_path / "a.ome.zarr", version=version, orientation=LEFT))
    assert np.array_equal(scan.array, ARRAY)
    assert scan.spacing_mm == (2.5, 0.8, 0.7)
    # z points down and y to the front: the first voxel lies at -30 up, +20 to the back, -10 to the left.
    assert scan.origin_mm == (-10.0, 20.0, -30.0)
    assert orientation_code(scan.direction) == "IAL"
    assert scan.notes == ()


def test_lengths_are_in_mm_and_what_is_not_said_is_noted(tmp_path):
    small = [{"type": "scale", "scale": [0.0025, 0.0008, 0.0007]}]
    more = [
        {"type": "scale", "scale": [2.0, 2.0, 2.0]},
        {"type": "translation", "translation": [0.01, 0.0, 0.0]},
    ]
    scan = read_volume(write(tmp_path / "a.zarr", transforms=small, extra=more, unit="meter"))
    assert scan.spacing_mm == pytest.approx((5.0, 1.6, 1.4))
    assert scan.origin_mm == pytest.approx((0, 0, 10.0))
    assert orientation_code(scan.direction) == "SPL"
    assert scan.notes[0].startswith("it says nothing of orientation")


def test_times_and_channels_are_volumes(tmp_path):
    several = np.stack([ARRAY, ARRAY + 1])[None]
    folder = write(tmp_path / "a.zarr", several, "tczyx")
    assert np.array_equal(read_volume(folder, which="channels").array, several[0])
    assert np.array_equal(read_volume(folder, which=1).array, several[0, 1])
    with pytest.raises(ReadError, match="holds 2 volumes"):
        read_volume(folder)
    with pytest.raises(ReadError, match="several times of several channels"):
        read_volume(write(tmp_path / "b.zarr", np.stack([several[0], several[0]]), "tczyx"), which="channels")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"transforms": [{"type": "rotation", "rotation": []}]}, "a transformation of type rotation"),
        ({"transforms": [{"type": "scale", "scale": [1.0, -1.0, 1.0]}]}, "its scale must be positive"),
        ({"unit": "parsec"}, "its unit of length 'parsec' isn't one of meter"),
        (
            {"orientation": LEFT | {"x": "dorsal-to-ventral"}},
            "the orientation 'dorsal-to-ventral' isn't one of",
        ),
        ({"names": "xyz"}, "its axes are x, y, z; expected z, y, x"),
        ({"array": ARRAY.astype(np.complex64)}, "complex64 voxels"),
    ],
)
def test_what_does_not_place_voxels_is_refused(fields, said, tmp_path):
    with pytest.raises(ReadError, match=said):
        read_volume(write(tmp_path / "a.zarr", **fields))


def test_a_folder_that_is_no_image_is_told(tmp_path):
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(ReadError, match=r"a\.zarr can't be read: it holds no OME-Zarr image"):
        read_volume(tmp_path / "a.zarr")
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(ReadError, match=r"b\.zarr can't be read"):
        read_volume(tmp_path / "b.zarr")


def test_nifti_zarr_has_the_geometry_of_its_header(tmp_path):
    affine = np.array([[-0.7, 0.1, 0, 5], [0.05, 0.8, 0.2, -6], [0, -0.1, 2.5, 7], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(ARRAY.T, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "same.nii")
    folder = write(tmp_path / "a.nii.zarr", version="0.4")
    header = io.BytesIO()
    image.header.write_to(header)
    zarr.open_group(folder).create_array("nifti", data=np.frombuffer(header.getvalue()[:348], np.uint8))
    ours, theirs = read_volume(folder), read_volume(tmp_path / "same.nii")
    assert np.array_equal(ours.array, theirs.array)
    assert ours.same_grid(theirs, tolerance=1e-4)
    assert ours.notes == theirs.notes


def nifti_zarr(folder, stored, slope, inter):
    """Stored voxels with a NIfTI header that says what they mean, and one place for all of these."""
    header = nib.Nifti1Image(stored.T, np.diag([-0.7, -0.8, 2.5, 1])).header
    header["scl_slope"], header["scl_inter"] = slope, inter
    write(folder, stored, version="0.4")
    zarr.open_group(folder).create_array("nifti", data=np.frombuffer(header.binaryblock, np.uint8))
    return folder


@pytest.mark.parametrize(
    ("slope", "inter", "expected"),
    [
        (1.0, -1024.0, ARRAY),
        (0.5, 3.0, 0.5 * (ARRAY + 1024.0) + 3),
        (-2.0, 0.0, -2.0 * (ARRAY + 1024.0)),
        *((slope, -1024.0, ARRAY + 1024) for slope in (0.0, np.nan, np.inf)),  # these mean: as stored
        (1.0, 0.0, ARRAY + 1024),
    ],
)
def test_voxels_of_nifti_zarr_mean_what_slope_and_intercept_of_the_header_say(
    slope, inter, expected, tmp_path
):
    scan = read_volume(nifti_zarr(tmp_path / "a.nii.zarr", (ARRAY + 1024).astype(np.uint16), slope, inter))
    assert np.array_equal(scan.array, expected)
    assert scan.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


def test_labels_of_nifti_zarr_are_scaled_too_and_a_broken_intercept_is_told(tmp_path):
    stored = np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(np.uint8) % 3
    label = read_label(nifti_zarr(tmp_path / "a.nii.zarr", stored, 2.0, 1.0))
    assert np.array_equal(label.array, np.array([1, 3, 5])[stored])
    with pytest.raises(ReadError, match=r"b\.nii\.zarr can't be read: .*invalid intercept"):
        read_volume(nifti_zarr(tmp_path / "b.nii.zarr", stored, 2.0, np.nan))


def test_images_are_found_as_scans_and_not_looked_into(tmp_path):
    write(tmp_path / "in/deep/a.ome.zarr")
    write(tmp_path / "in/b.zarr")
    found = find_scans([tmp_path / "in"], salt=b"x")
    assert [source.case_id for source in found] == ["b", "deep__a"]
    assert [source.problem for source in found] == [None, None]
    assert np.array_equal(read_scan(found[1]).array, ARRAY)
    assert [one.case_id for one in find_scans([tmp_path / "in/b.zarr"], salt=b"x")] == ["b"]
    assert len(find_scans([str(tmp_path / "in/*.zarr")], salt=b"x")) == 1


def test_a_changed_voxel_changes_the_stamp(tmp_path):
    folder = write(tmp_path / "a.zarr")
    before = file_stamp([folder])
    assert file_stamp([folder]) == before
    zarr.open_group(folder)["s0"][0, 0, 0] = 7
    assert file_stamp([folder]) != before


def test_labels_are_read_and_masks_written_in_its_geometry(tmp_path):
    folder = write(tmp_path / "a.zarr", (ARRAY > 0).astype(np.uint8), orientation=LEFT)
    label = read_label(folder)
    assert np.array_equal(label.array, ARRAY > 0)
    write_label_like(folder, to_canonical(label).array, tmp_path / "mask.nii.gz")
    again = read_label(tmp_path / "mask.nii.gz")
    assert again.same_grid(label)
    assert np.array_equal(again.array, label.array)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_cases_of_a_store_come_back_where_they_were(modality, tmp_path):
    turn = np.linalg.qr(np.eye(3) + 0.1 * np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.sign(np.diag(turn))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([-0.7, 0.8, 2.5]), (5, -6, 7)
    nib.save(nib.Nifti1Image(ARRAY.T, affine), tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image((ARRAY.T > 0).astype(np.uint8), affine), tmp_path / "label.nii.gz")
    preprocess = Preprocess(modality=modality)
    case = SourceCase("a", (tmp_path / "a.nii.gz",), tmp_path / "label.nii.gz")
    store, _ = store_cases([case], tmp_path / "store", preprocess=preprocess, workers=0, progress=False)
    folder = tmp_path / "store/cases/a.zarr"
    scan, original = read_volume(folder), to_canonical(read_volume(tmp_path / "a.nii.gz"))
    assert scan.same_grid(original, tolerance=1e-5)
    if modality == "CT":
        assert scan.modality == "CT"
        assert np.array_equal(scan.array, original.array)
    else:
        unit = prepare_volume(original, preprocess).volume.array
        np.testing.assert_allclose(scan.array, unit, atol=1 / 32767)
    (tmp_path / "mask.zarr").symlink_to(folder / "labels/mask")
    label = read_label(tmp_path / "mask.zarr")
    assert np.array_equal(label.array, to_canonical(read_label(tmp_path / "label.nii.gz")).array)
    assert label.same_grid(original, tolerance=1e-5)
    about = zarr.open_group(folder).attrs["ome"]["multiscales"][0]
    assert [axis.get("orientation", {}).get("value") for axis in about["axes"]] == [
        None,
        "inferior-to-superior",
        "anterior-to-posterior",
        "right-to-left",
    ]
    place = next(t for t in about["datasets"][0]["coordinateTransformations"] if t["type"] == "translation")
    assert place["translation"][1:] == pytest.approx(original.origin_mm[::-1])
    del zarr.open_group(folder).attrs["parts2whole"]  # as version 0.1.0 wrote it
    assert np.array_equal(Store.open(store.path).read("a")[0], store.read("a")[0])
    with pytest.raises(ReadError, match="a case of a store that doesn't say what its values mean"):
        read_volume(folder)
