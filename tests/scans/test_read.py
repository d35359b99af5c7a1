"""Reading files: exact voxels and places for every format, and one clear line for every broken one."""

from __future__ import annotations

import gzip
import itertools
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from parts2whole.scans.read import (
    ReadError,
    ScanSource,
    file_stamp,
    find_scans,
    read_label,
    read_scan,
    read_volume,
    write_label_like,
    write_nifti,
)
from parts2whole.scans.volume import LabelVolume, Volume, to_canonical

AXES = [
    np.eye(3)[:, list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((-1, 1), repeat=3)
]


def voxels(shape=(5, 6, 7), dtype="int16", seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def affine(matrix=AXES[0], spacing=(0.7, 0.8, 3.0), origin=(10.0, -20.0, 30.0)):
    made = np.eye(4)
    made[:3, :3] = matrix * spacing
    made[:3, 3] = origin
    return made


def save(path, array, where=None, **header):
    image = nib.Nifti1Image(array, affine() if where is None else where)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


@st.composite
def affines(draw):
    tilt = Rotation.from_euler("zyx", [draw(st.floats(-20, 20)) for _ in range(3)], degrees=True).as_matrix()
    return affine(
        tilt @ draw(st.sampled_from(AXES)),
        [draw(st.floats(0.3, 6)) for _ in range(3)],
        [draw(st.floats(-300, 300)) for _ in range(3)],
    )


@settings(max_examples=40, deadline=None)
@given(affines(), st.sampled_from(["u1", "<i2", ">i2", "<u2", ">i4", "<f4", ">f8"]))
def test_nifti_is_exact(tmp_path_factory, where, dtype):
    path = tmp_path_factory.mktemp("nifti") / "a.nii"
    array = voxels(dtype=dtype)
    save(path, array, where)
    volume = read_volume(path)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, array.T)
    # nibabel maps (x, y, z) to RAS; ours maps (z, y, x) to LPS.
    index = np.array([3, 2, 1])
    ras = nib.load(path).affine @ [*index[::-1], 1]
    np.testing.assert_allclose((volume.affine() @ [*index, 1])[:3], ras[:3] * [-1, -1, 1], atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(affines(), st.sampled_from([".nii", ".nii.gz", ".mha", ".nrrd", ".mgz"]))
def test_a_mask_lands_on_the_voxels_of_its_scan(tmp_path_factory, where, suffix):
    folder = tmp_path_factory.mktemp("mask")
    scan, out = folder / f"scan{suffix}", folder / "out" / "mask.nii.gz"
    array = voxels((5, 6, 7), "uint8")
    if suffix in (".mha", ".nrrd"):
        save(folder / "x.nii", array, where)
        sitk.WriteImage(sitk.ReadImage(str(folder / "x.nii")), str(scan))
    else:
        nib.save((nib.MGHImage if suffix == ".mgz" else nib.Nifti1Image)(array, where), scan)
    canonical = to_canonical(read_volume(scan)).array
    write_label_like(scan, canonical.astype(np.int64), out)
    mask = nib.load(out)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), array)
    np.testing.assert_allclose(mask.affine, where, atol=1e-3)
    assert mask.get_data_dtype() == np.uint8
    assert read_label(out).same_grid(read_volume(scan), tolerance=1e-2)


def test_a_mask_keeps_both_forms_of_nifti_geometry(tmp_path):
    image = nib.Nifti1Image(voxels(), affine())
    image.set_qform(affine(origin=(1.0, 2.0, 3.0)), 1)
    image.set_sform(affine(), 4)
    image.header["descrip"] = b"DOE JOHN"
    nib.save(image, tmp_path / "a.nii.gz")
    write_label_like(tmp_path / "a.nii.gz", np.zeros((7, 6, 5), np.uint8), tmp_path / "m.nii.gz")
    mask = nib.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(mask.get_sform(), image.get_sform())
    np.testing.assert_allclose(mask.get_qform(), image.get_qform(), atol=1e-5)
    assert (int(mask.header["sform_code"]), int(mask.header["qform_code"])) == (4, 1)
    assert b"DOE" not in mask.header.binaryblock


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr", ".nii", ".nii.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_formats_agree(tmp_path, suffix, packed):
    image = sitk.GetImageFromArray(voxels((5, 6, 7)))
    image.SetSpacing((0.7, 0.8, 3.0))
    image.SetOrigin((10, -20, 30))
    image.SetDirection(Rotation.from_euler("zyx", [20, -90, 5], degrees=True).as_matrix().ravel())
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path), packed)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, voxels((5, 6, 7)))
    assert volume.spacing_mm == pytest.approx((3.0, 0.8, 0.7), rel=1e-5)
    for index in ((0, 0, 0), (4, 0, 0), (0, 5, 0), (4, 5, 6)):
        expected = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose((volume.affine() @ [*index, 1])[:3], expected, atol=1e-4)


def test_scaled_integers_stay_integers(tmp_path):
    path = tmp_path / "ct.nii"
    save(path, voxels())
    data = bytearray(path.read_bytes())
    data[112:120] = struct.pack("<ff", 1.0, -1024.0)  # scl_slope, scl_inter
    path.write_bytes(data)
    volume = read_volume(path)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, voxels().T - 1024)
    data[112:120] = struct.pack("<ff", 0.5, 0.0)
    path.write_bytes(data)
    assert read_volume(path).array.dtype == np.float32


def test_numbers_that_need_floats(tmp_path):
    large = save(tmp_path / "a.nii", voxels(dtype="int32") * 1000)
    assert read_volume(large).array.dtype == np.float32
    fractions = save(tmp_path / "b.nii", voxels(dtype="float64") + 0.25)
    np.testing.assert_array_equal(read_volume(fractions).array, (voxels() + np.float32(0.25)).T)


def test_units_other_than_mm(tmp_path):
    image = nib.Nifti1Image(voxels(), affine(spacing=(700.0, 800.0, 3000.0)))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii").spacing_mm == pytest.approx((3.0, 0.8, 0.7))


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".nrrd", ".mha"])
def test_files_of_several_volumes(tmp_path, suffix):
    array, path = voxels((5, 6, 7, 3)), tmp_path / f"a{suffix}"
    if suffix in (".nrrd", ".mha"):
        sitk.WriteImage(sitk.GetImageFromArray(array.T, isVector=False), str(path))
    else:
        nib.save((nib.MGHImage if suffix == ".mgz" else nib.Nifti1Image)(array, affine()), path)
    with pytest.raises(ReadError, match="holds 3 volumes"):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(path, which=1).array, array[..., 1].T)
    np.testing.assert_array_equal(read_volume(path, which="channels").array, array.T)
    with pytest.raises(ReadError, match="no number 3"):
        read_volume(path, which=3)


def test_one_volume_in_four_dimensions(tmp_path):
    assert read_volume(save(tmp_path / "a.nii", voxels((5, 6, 7, 1)))).array.shape == (7, 6, 5)


def test_labels(tmp_path):
    for dtype in ("uint8", "float32", "int32", "float64"):
        label = read_label(save(tmp_path / "a.nii", voxels(dtype=dtype)))
        assert isinstance(label, LabelVolume)
        assert label.array.dtype == np.uint8
        np.testing.assert_array_equal(label.array, voxels().T)
    assert read_label(save(tmp_path / "b.nii", voxels() - 1)).array.dtype == np.int16
    assert read_label(save(tmp_path / "c.nii", voxels(dtype="int32") * 1000)).array.dtype == np.int32
    for wrong, said in ((0.5, "found 0.5"), (np.nan, "found nan")):
        array = voxels(dtype="float32")
        array[1, 2, 3] = wrong
        with pytest.raises(ReadError, match=said):
            read_label(save(tmp_path / "d.nii", array))
    with pytest.raises(ReadError, match="32 bits"):
        read_label(save(tmp_path / "e.nii", voxels(dtype="float64") * 1e9))


def lying_header(path, shape, packed=True):
    """A NIfTI header that promises ``shape``, and little behind it."""
    image = nib.Nifti2Image(np.zeros((2, 2, 2), np.int16), affine())
    header = image.header.copy()
    header.set_data_shape(shape)
    data = header.binaryblock + bytes(4) + bytes(200)
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


def test_promises_no_file_can_hold_are_refused_before_allocating(tmp_path, monkeypatch):
    bomb = lying_header(tmp_path / "a.nii.gz", (60000, 60000, 60000))
    with pytest.raises(ReadError, match="more than the 2,147,483,648 any scan may have"):
        read_volume(bomb)
    with monkeypatch.context() as patch:
        patch.setattr("parts2whole.scans.checks.physical_memory", lambda: 1e9)
        with pytest.raises(ReadError, match=r"promises 2\.0 GB of voxels, this machine has 1\.0 GB"):
            read_volume(lying_header(tmp_path / "b.nii.gz", (1000, 1000, 1000)))
    with pytest.raises(ReadError, match="truncated: the header promises"):
        read_volume(lying_header(tmp_path / "b.nii.gz", (1000, 1000, 1000)))
    with pytest.raises(ReadError, match="truncated: the header promises"):
        read_volume(lying_header(tmp_path / "c.nii", (10, 10, 10), packed=False))
    text = "NDims = 3\nDimSize = {}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    for name, size in (("d.mha", "60000 60000 60000"), ("e.mha", "1000 1000 1000")):
        (tmp_path / name).write_text(text.format(size))
        with pytest.raises(ReadError, match="the header promises"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".mha", ".nrrd", ".mhd"])
def test_truncated_files(tmp_path, suffix):
    array = np.random.default_rng(0).integers(-9999, 9999, (30, 40, 50)).astype(np.int16)
    path = tmp_path / f"a{suffix}"
    if suffix.startswith(".nii"):
        save(path, array)
    elif suffix == ".mgz":
        nib.save(nib.MGHImage(array, affine()), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path), suffix == ".mha")
    data = path.with_suffix(".raw") if suffix == ".mhd" else path
    data.write_bytes(data.read_bytes()[: data.stat().st_size * 2 // 3])
    with pytest.raises(ReadError, match=r"a\..*(truncated|broken|ended before)"):
        read_volume(path)


def test_broken_files_have_their_reason(tmp_path):
    cases = {
        "nothing.nii": (b"", "is empty"),
        "text.nii.gz": (b"this is text", "can't be read"),
        "text.nii": (b"this is text" * 99, "can't be read"),
        "text.mha": (b"this is text", "can't be read"),
        "text.nrrd": (b"this is text", "can't be read"),
        "text.mgz": (b"this is text", "can't be read"),
        "gone.mhd": (
            b"NDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = x.raw\n",
            "missing",
        ),
    }
    for name, (data, said) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ReadError, match=said) as caught:
            read_volume(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ReadError, match="doesn't exist"):
        read_volume(tmp_path / "x.nii")
    (tmp_path / "a.xyz").write_text("x")
    with pytest.raises(ReadError, match="unknown format"):
        read_volume(tmp_path / "a.xyz")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_voxels_that_are_not_finite(tmp_path, bad):
    array = voxels(dtype="float64")
    array[1, 1, 1:3] = bad
    with pytest.raises(ReadError, match="2 of 210 voxels are NaN or infinite"):
        read_volume(save(tmp_path / "a.nii", array))


def test_impossible_geometry_and_colour(tmp_path):
    flat = affine()
    flat[2, 2] = 0
    image = nib.Nifti1Image(voxels(), None)
    image.header["sform_code"] = 1
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = flat[:3]
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(ReadError, match="don't span space"):
        read_volume(tmp_path / "a.nii")
    colour = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ReadError, match="colour"):
        read_volume(save(tmp_path / "b.nii", colour))
    with pytest.raises(ReadError, match="colour"):
        read_volume(save(tmp_path / "c.nii", voxels(dtype="complex64")))
    sitk.WriteImage(
        sitk.GetImageFromArray(voxels((4, 5, 6, 3), "uint8"), isVector=True), str(tmp_path / "d.mha")
    )
    with pytest.raises(ReadError, match="colour"):
        read_volume(tmp_path / "d.mha")
    with pytest.raises(ReadError, match="single slice"):
        read_volume(save(tmp_path / "e.nii", voxels((5, 6, 1))))


def test_what_is_written_is_read_back(tmp_path):
    volume = Volume(
        voxels(), (3.0, 0.8, 0.7), (1.0, 2.0, 3.0), ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))
    )
    write_nifti(volume, tmp_path / "new" / "a.nii.gz")
    back = read_volume(tmp_path / "new" / "a.nii.gz")
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.same_grid(volume)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.nii.gz"]
    with pytest.raises(ReadError, match=r"\.nii\.gz"):
        write_nifti(volume, tmp_path / "a.mha")


def test_masks_that_do_not_fit(tmp_path):
    scan = save(tmp_path / "a.nii", voxels())
    with pytest.raises(ReadError, match="shape"):
        write_label_like(scan, np.zeros((7, 6, 6), np.uint8), tmp_path / "m.nii")
    with pytest.raises(ReadError, match="integers"):
        write_label_like(scan, np.zeros((7, 6, 5)), tmp_path / "m.nii")
    with pytest.raises(ReadError, match="written files"):
        write_label_like(scan, np.zeros((7, 6, 5), np.uint8), tmp_path / "m.png")


def test_the_stamp_follows_data_files(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(tmp_path / "a.mhd"))
    before = file_stamp([tmp_path / "a.mhd"])
    assert file_stamp([tmp_path / "a.mhd"]) == before
    (tmp_path / "a.raw").write_bytes((tmp_path / "a.raw").read_bytes() + b"x")
    assert file_stamp([tmp_path / "a.mhd"]) != before


def test_sources_with_a_problem_are_not_read():
    with pytest.raises(ReadError, match="a localiser"):
        read_scan(ScanSource("a", (), "a localiser"))


@pytest.mark.shared
def test_real_formats(shared):
    formats = shared / "formats"
    shapes = {}
    for source in find_scans([formats / "nrrd", formats / "nifti_ct"]):
        volume = read_scan(source)
        image = sitk.ReadImage(str(source.paths[0]))
        np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
        corner = tuple(n - 1 for n in volume.shape)
        expected = image.TransformIndexToPhysicalPoint(corner[::-1])
        np.testing.assert_allclose((volume.affine() @ [*corner, 1])[:3], expected, atol=1e-2)
        shapes[source.case_id] = volume.shape
    assert shapes["example_ct"] == (112, 101, 122)
    assert len(shapes) == 8
