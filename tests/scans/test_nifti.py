"""NIfTI headers as they come: two forms of geometry, units, compression, and what isn't NIfTI at all.

Headers are patched at the offsets of the standard, and expected places computed from the numbers put there.
"""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from parts2whole.scans.case import SourceCase, read_channels
from parts2whole.scans.nifti import itk_reads, write_nifti
from parts2whole.scans.preprocess import Preprocess, prepare_volume
from parts2whole.scans.read import ReadError, read_volume, write_label_like
from parts2whole.scans.volume import LabelVolume, to_canonical

PIXDIM, UNITS, QFORM_CODE, SFORM_CODE, QUATERNION, SROW, MAGIC = 76, 123, 252, 254, 256, 280, 344
SFORM = np.array([[-0.7, 0.1, 0.0, 10.0], [0.05, 0.8, 0.2, -20.0], [0.0, -0.1, 3.0, 30.0], [0, 0, 0, 1]])
QFORM = np.eye(4)
QFORM[:3] = np.column_stack(
    [Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix() * (0.7, 0.8, 3.0), (5.0, 6.0, 7.0)]
)
NO_ROTATION = struct.pack("<3f", 0.9, 0.9, 0.9)  # b² + c² + d² of a unit quaternion is at most 1
SINGULAR = struct.pack("<4f", 0, 0, 0, 5)
NOT_A_NUMBER = struct.pack("<4f", np.nan, 0, 0, 5)


def voxels(shape=(5, 6, 7)):
    return np.random.default_rng(0).integers(-1000, 1500, shape).astype(np.int16)


def write(path, patches=(), *, sform=SFORM, qform=QFORM, codes=(1, 1), array=None, kind=nib.Nifti1Image):
    """A file with both forms and ``codes`` of (sform, qform), changed at bytes that the patches name."""
    image = kind(voxels() if array is None else array, np.eye(4))
    image.set_sform(sform, 1)
    image.set_qform(qform, 1)
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    for place, new in (
        (SFORM_CODE, struct.pack("<h", codes[0])),
        (QFORM_CODE, struct.pack("<h", codes[1])),
        *patches,
    ):
        content[place : place + len(new)] = new
    path.write_bytes(bytes(content))
    return path


def place_lps(volume, index_zyx):
    return (volume.affine() @ [*index_zyx, 1])[:3]


def expected_lps(ras, index_zyx):
    return (ras @ [*index_zyx[::-1], 1])[:3] * (-1, -1, 1)


@pytest.mark.parametrize(
    ("patches", "codes", "used", "said"),
    [
        ([], (1, 1), SFORM, []),
        ([], (0, 1), QFORM, []),
        ([(QUATERNION, NO_ROTATION)], (1, 1), SFORM, ["its qform is no rotation; its sform is used"]),
        ([(SROW, SINGULAR)], (1, 1), QFORM, ["its sform's axes don't span space; its qform is used"]),
        ([(SROW + 16, NOT_A_NUMBER)], (4, 1), QFORM, ["its sform's axes don't span space; its qform is used"]),
        ([(SROW, bytes(48))], (2, 1), QFORM, ["its sform's axes don't span space; its qform is used"]),
        ([(QUATERNION, NO_ROTATION)], (1, 0), SFORM, []),
    ],
)  # fmt: skip
def test_one_good_form_is_enough(tmp_path, patches, codes, used, said):
    path = write(tmp_path / "a.nii", patches, codes=codes)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, voxels().T)
    for index in ((0, 0, 0), (6, 5, 4), (1, 2, 3)):
        np.testing.assert_allclose(place_lps(volume, index), expected_lps(used, index), atol=1e-4)
    assert [note for note in volume.notes if "right angles" not in note] == said
    mask = to_canonical(volume).array > 0
    write_label_like(path, mask.astype(np.uint8), tmp_path / "mask.nii.gz")
    back = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(back.dataobj), voxels() > 0)
    np.testing.assert_allclose(back.affine, used, atol=1e-5)


@pytest.mark.parametrize(
    ("patches", "codes", "said"),
    [
        ([(QUATERNION, NO_ROTATION), (SROW, SINGULAR)], (1, 1), "its sform's axes don't span space and its qform is no rotation"),
        ([(QUATERNION, NO_ROTATION)], (0, 1), "its qform is no rotation, and it has no sform"),
        ([(SROW, SINGULAR)], (1, 0), "its sform's axes don't span space"),
    ],
)  # fmt: skip
def test_no_good_form_is_refused_with_what_is_wrong(tmp_path, patches, codes, said):
    with pytest.raises(ReadError, match=said):
        read_volume(write(tmp_path / "a.nii", patches, codes=codes))


def test_a_guess_is_noted(tmp_path):
    assert (
        "orientation and place are a guess" in read_volume(write(tmp_path / "a.nii", codes=(0, 0))).notes[0]
    )
    zero = [(PIXDIM + 12, struct.pack("<f", 0))]
    assert (
        "its spacing is 0 along an axis: taken for 1"
        in read_volume(write(tmp_path / "b.nii", zero, codes=(0, 1))).notes
    )
    assert not any(
        "is 0" in note for note in read_volume(write(tmp_path / "c.nii", zero)).notes
    )  # the sform has it


@settings(max_examples=30, deadline=None)
@given(
    unit=st.sampled_from([(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001)]),
    time_unit=st.sampled_from([0, 8, 16, 24]),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    origin=st.tuples(*[st.floats(-200, 200)] * 3),
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
)
def test_lengths_come_out_in_mm(tmp_path_factory, unit, time_unit, spacing, origin, kind):
    code, mm = unit
    path = tmp_path_factory.mktemp("unit") / "a.nii"
    ras = np.diag([*(s / mm for s in spacing), 1.0])
    ras[:3, 3] = np.array(origin) / mm
    image = kind(voxels(), ras)
    image.header["xyzt_units"] = code | time_unit
    nib.save(image, path)
    volume = read_volume(path)
    assert volume.spacing_mm == pytest.approx(spacing[::-1], rel=1e-5)
    assert volume.origin_mm == pytest.approx(np.array(origin) * (-1, -1, 1), rel=1e-5, abs=1e-3)
    write_label_like(path, np.zeros(volume.shape, np.uint8), path.with_name("m.nii"))
    assert read_volume(path.with_name("m.nii")).same_grid(
        volume, tolerance=1e-3
    )  # the mask has the scan's unit


def test_an_odd_spacing_is_noted_and_reaches_who_prepares(tmp_path):
    path = write(tmp_path / "a.nii", sform=np.diag([0.0007, 0.0008, 0.003, 1]))  # metres without a unit
    note = "a spacing of 0.003 0.0008 0.0007 mm is not plausible: its unit may be wrong"
    assert read_volume(path).notes == (note,)
    fine = write(tmp_path / "b.nii", sform=np.diag([0.0007, 0.0008, 0.003, 1]), patches=[(UNITS, b"\x01")])
    assert read_volume(fine).notes == ()
    channels = (
        read_channels(
            SourceCase("x", (fine, path)),
        )
        if False
        else read_channels(SourceCase("x", (path, path)))
    )
    assert channels.notes == (note,)
    assert prepare_volume(channels, Preprocess(modality="CT")).notes[0] == note


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("text.nii", b"patient,age\n" * 99, "it isn't what its suffix says: it begins with b'patient,age"),
        ("text.nii.gz", b"patient,age\n" * 99, "it isn't what its suffix says: it begins with b'patient,age"),
        ("text.nii.gz", gzip.compress(b"patient,age\n" * 99, mtime=0), "it begins with b'patient,age"),
        ("short.nii", b"patient", "7 bytes are less than a header"),
        ("html.nii.gz", b"<!DOCTYPE html><html>", "it begins with b'<!DOCTYPE ht"),
        ("text.mgz", b"patient,age\n" * 99, "it begins with b'patient,age"),
    ],
)
def test_what_is_no_nifti_is_called_what_it_is(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReadError) as caught:
        read_volume(tmp_path / name)
    assert said in str(caught.value)
    assert "truncated" not in str(caught.value)


def test_compression_against_the_suffix(tmp_path):
    plain = write(tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii").write_bytes(gzip.compress(plain))
    with pytest.raises(ReadError, match="is compressed with gzip, which its suffix doesn't say: rename it"):
        read_volume(tmp_path / "b.nii")
    (tmp_path / "c.nii.gz").write_bytes(plain)
    with pytest.raises(ReadError, match="it isn't compressed, though its suffix says so: rename it"):
        read_volume(tmp_path / "c.nii.gz")
    (tmp_path / "b.nii").rename(tmp_path / "B.NII.GZ")
    np.testing.assert_array_equal(read_volume(tmp_path / "B.NII.GZ").array, voxels().T)


def test_analyze_is_named(tmp_path):
    path = write(tmp_path / "a.nii", [(MAGIC, bytes(4))])
    with pytest.raises(
        ReadError, match=r"the header of Analyze 7\.5, or one of NIfTI without its magic word"
    ):
        read_volume(path)


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_cut_archive_is_truncated_and_a_changed_one_broken(tmp_path, cut):
    noise = np.random.default_rng(1).integers(-3000, 3000, (20, 20, 20)).astype(np.int16)
    packed = gzip.compress(write(tmp_path / "a.nii", array=noise).read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(packed[: int(len(packed) * cut)])
    with pytest.raises(ReadError, match="truncated"):
        read_volume(tmp_path / "a.nii.gz")
    changed = bytearray(packed)
    changed[-8] ^= 0xFF  # the checksum
    (tmp_path / "b.nii.gz").write_bytes(bytes(changed))
    with pytest.raises(ReadError, match="broken") as caught:
        read_volume(tmp_path / "b.nii.gz")
    assert "truncated" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((5, 6), np.int16), r"expected a 3-D or 4-D scan, the header says \(5, 6\)"),
        (np.zeros((5, 6, 1), np.int16), "a single slice"),
        (np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colour or complex voxels"),
        (np.zeros((4, 4, 4), np.complex64), "colour or complex voxels"),
    ],
)
def test_what_is_no_volume(tmp_path, array, said):
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ReadError, match=said):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("angle", [0.0, 0.003, 0.01, 0.3, 15.0])
def test_itk_reads_what_it_is_said_to(angle, tmp_path):
    """Slices that a gantry tilted by some degrees moves along; turned as a whole, they are read."""
    lean, turn = np.radians(angle), Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    direction = turn @ np.array([[0, 0, 1], [np.sin(lean), 1, 0], [np.cos(lean), 0, 0]])
    label = LabelVolume(np.ones((4, 5, 6), np.uint8), (2.5, 0.8, 0.7), direction=tuple(map(tuple, direction)))
    write_nifti(label, tmp_path / "a.nii.gz")
    try:
        SimpleITK.ReadImage(tmp_path / "a.nii.gz")
        read = True
    except RuntimeError:
        read = False
    assert itk_reads(label.direction) == read == (angle < 0.005)
