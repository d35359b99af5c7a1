"""MetaImage and NRRD whose data lies in many files, and units of length other than mm."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from parts2whole.scans.read import ReadError, file_stamp, find_scans, read_scan, read_volume
from parts2whole.scans.volume import to_canonical

META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 10 20 30
ElementSpacing = 0.5 0.6 2
DimSize = 8 6 4
ElementType = MET_SHORT
"""
NRRD = """NRRD0005
type: short
dimension: 3
space: left-posterior-superior
sizes: 8 6 4
space directions: (0.5,0,0) (0,0.6,0) (0,0,2)
space origin: (10,20,30)
endian: little
encoding: raw
"""
SLICES = "s0.raw\ns1.raw\ns2.raw\ns3.raw\n"


def voxels():
    return np.random.default_rng(0).integers(-1000, 1000, (4, 6, 8)).astype("<i2")


@pytest.fixture
def folder(tmp_path):
    for number, plane in enumerate(voxels()):
        (tmp_path / f"s{number}.raw").write_bytes(plane.tobytes())
        (tmp_path / f"s{number:03d}.raw").write_bytes(plane.tobytes())
    (tmp_path / "slab0.raw").write_bytes(voxels()[:2].tobytes())
    (tmp_path / "slab1.raw").write_bytes(voxels()[2:].tobytes())
    (tmp_path / "short.raw").write_bytes(voxels()[3].tobytes()[:50])
    return tmp_path


def write(folder, text, suffix):
    path = folder / f"a{suffix}"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".mhd", f"{META}ElementDataFile = LIST\n{SLICES}"),
        (".mhd", f"{META}ElementDataFile = LIST 2\n{SLICES}"),
        (".mhd", f"{META}ElementDataFile = LIST\r\n{SLICES}".replace("\n", "\r\n").replace("\r\r", "\r")),
        (".mhd", f"{META}ElementDataFile = s%d.raw 0 3 1\n"),
        (".mhd", f"{META}ElementDataFile = s%03d.raw 0 3 1\n"),
        (".mha", f"{META}ElementDataFile = LIST\n{SLICES}"),
        (".MHD", f"{META}ElementDataFile = LIST\n{SLICES}"),
        (".nhdr", f"{NRRD}data file: LIST\n{SLICES}"),
        (".nhdr", f"{NRRD}datafile: LIST\n{SLICES}"),
        (".nhdr", f"{NRRD}data file: s%03d.raw 0 3 1\n"),
        (".nhdr", f"{NRRD}data file: s%d.raw 0 3 1 2\n"),
        (".nhdr", f"{NRRD}data file: LIST 3\nslab0.raw\nslab1.raw\n"),
        (".nhdr", f"{NRRD}data file: slab%d.raw 0 1 1 3\n"),
    ],
)
def test_data_in_many_files(folder, suffix, text):
    path = write(folder, text, suffix)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, voxels())
    assert volume.spacing_mm == pytest.approx((2, 0.6, 0.5))
    assert volume.origin_mm == pytest.approx((10, 20, 30))
    (source,) = find_scans([folder])
    np.testing.assert_array_equal(to_canonical(read_scan(source)).array, voxels())
    before = file_stamp([path])
    last = folder / ("slab1.raw" if "slab" in text else "s003.raw" if "%03d" in text else "s3.raw")
    last.write_bytes(last.read_bytes() + b"xx")
    assert file_stamp([path]) != before


def test_numbers_may_count_down_in_nrrd(folder):
    path = write(folder, f"{NRRD}data file: s%d.raw 3 0 -1\n", ".nhdr")
    np.testing.assert_array_equal(read_volume(path).array, voxels()[::-1])


@pytest.mark.parametrize(
    ("suffix", "text", "said"),
    [
        (".mhd", f"{META}ElementDataFile = LIST\n{SLICES[:21]}", "names 3 data files for 4 slices"),
        (".mhd", f"{META}ElementDataFile = LIST\ns0.raw\n", "names 1 data files for 4 slices"),
        (".mhd", f"{META}ElementDataFile = LIST 3\nslab0.raw\nslab1.raw\n", "names 2 data files for 4 slices"),
        (".mhd", f"{META}ElementDataFile = LIST 3\n{SLICES}", "names 4 data files for 4 slices; one a slice"),
        (".mhd", f"{META}ElementDataFile = s%d.raw 0 2 1\n", "names 3 data files for 4 slices"),
        (".mhd", f"{META}ElementDataFile = s%d.raw 3 0 -1\n", "count down"),
        (".mhd", f"{META}ElementDataFile = s%d.raw\n", "aren't one number and its range"),
        (".mhd", f"{META}ElementDataFile = s%d.raw 0 3 0\n", "aren't one number and its range"),
        (".mhd", f"{META}ElementDataFile = %s%n 0 3 1\n", "aren't one number and its range"),
        (".nhdr", f"{NRRD}data file: %d%d.raw 0 3 1\n", "aren't one number and its range"),
        (".mhd", f"{META}ElementDataFile = s%d.raw 0 999999999999 1\n", "'s4.raw' is missing"),
        (".mhd", f"{META}ElementDataFile = LIST\n{SLICES[:21]}../s3.raw\n", "outside its folder"),
        (".nhdr", f"{NRRD}data file: LIST\n{SLICES[:21]}/etc/hostname\n", "outside its folder"),
        (".mhd", f"{META}ElementDataFile = LIST\n{SLICES[:21]}gone.raw\n", "'gone.raw' is missing"),
        (".mhd", f"{META}ElementDataFile = LIST\n{SLICES[:21]}short.raw\n", "'short.raw' is truncated: 96 bytes"),
        (".nhdr", f"{NRRD}data file: LIST\n{SLICES[:21]}short.raw\n", "'short.raw' is truncated: 96 bytes"),
        (".nhdr", f"{NRRD}data file: LIST\n{SLICES[:21]}", "expected 4 filenames"),
    ],
)  # fmt: skip
def test_data_in_many_files_that_cannot_be_read_whole(folder, suffix, text, said):
    with pytest.raises(ReadError) as caught:
        read_volume(write(folder, text, suffix))
    assert said in str(caught.value)
    assert ("truncated" in str(caught.value)) == ("short.raw" in text)


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".mha", META.replace("BinaryData = True", "BinaryData = False") + "ElementDataFile = LOCAL\n{numbers}\n"),
        (".nrrd", NRRD.replace("encoding: raw", "encoding: ascii") + "\n{numbers}\n"),
        (".nrrd", NRRD.replace("encoding: raw", "encoding: hex") + "\n{hexadecimal}\n"),
    ],
)  # fmt: skip
def test_voxels_as_text_are_not_truncated(tmp_path, suffix, text):
    array = np.zeros_like(voxels())  # two letters a voxel where int32 takes four bytes
    array[1, 2, 3] = 7
    numbers = " ".join(map(str, array.ravel().tolist()))
    text = text.format(numbers=numbers, hexadecimal=array.tobytes().hex())
    wider = (
        text.replace("MET_SHORT", "MET_INT").replace("type: short", "type: int")
        if "hex" not in text
        else text
    )
    np.testing.assert_array_equal(read_volume(write(tmp_path, wider, suffix)).array, array)


@pytest.mark.parametrize(
    ("suffix", "field", "mm"),
    [
        (".mhd", "DistanceUnits = mm\n", 1),
        (".mhd", "DistanceUnits = cm\n", 10),
        (".mhd", "DistanceUnits = um\n", 0.001),
        (".mhd", "DistanceUnits = ?\n", 1),
        (".nhdr", 'space units: "mm" "mm" "mm"\n', 1),
        (".nhdr", 'space units: "cm" "cm" "cm"\n', 10),
        (".nhdr", 'space units: "m" "m" "m"\n', 1000),
        (".nhdr", 'space units: "um" "um" "um"\n', 0.001),
        (".nhdr", 'space units: "\N{MICRO SIGN}m" "\N{MICRO SIGN}m" "\N{MICRO SIGN}m"\n', 0.001),
        (".nhdr", 'Space Units: "microns" "microns" "microns"\n', 0.001),
        (".nhdr", 'space units: "" "" ""\n', 1),
    ],
)
def test_lengths_come_out_in_mm(folder, suffix, field, mm):
    list_of = "ElementDataFile = LIST" if suffix == ".mhd" else "data file: LIST"
    text = f"{META if suffix == '.mhd' else NRRD}{field}{list_of}\n{SLICES}"
    path = folder / f"a{suffix}"
    path.write_text(text, encoding="utf-8")
    volume = read_volume(path)
    assert volume.spacing_mm == pytest.approx((2 * mm, 0.6 * mm, 0.5 * mm))
    assert volume.origin_mm == pytest.approx((10 * mm, 20 * mm, 30 * mm))
    assert bool(volume.notes) == (mm in (0.001, 1000))  # 0.0005 mm and 2 m are told


def test_units_of_axes_without_a_space(folder):
    text = 'NRRD0004\ntype: short\ndimension: 3\nsizes: 8 6 4\nspacings: 0.05 0.06 0.2\nunits: "cm" "cm" "cm"\nendian: little\n'
    volume = read_volume(write(folder, f"{text}encoding: raw\ndata file: LIST\n{SLICES}", ".nhdr"))
    assert volume.spacing_mm == pytest.approx((2, 0.6, 0.5))


@pytest.mark.parametrize(
    ("space", "noted"),
    [
        ("space: left-posterior-superior", False),
        ("space: RAS", False),
        ("space: left-anterior-superior", False),
        ("space: scanner-xyz", True),
        ("space: 3D-right-handed", True),
        ("space dimension: 3", True),
    ],
)
def test_an_nrrd_whose_space_is_not_the_patients_is_noted(folder, space, noted):
    text = NRRD.replace("space: left-posterior-superior", space)
    volume = read_volume(write(folder, f"{text}data file: LIST\n{SLICES}", ".nhdr"))
    assert any("axes are taken as left, posterior, superior" in note for note in volume.notes) == noted


def test_units_that_are_unknown_are_noted_and_those_that_differ_refused(folder):
    path = write(
        folder, f'{NRRD}space units: "furlong" "furlong" "furlong"\ndata file: LIST\n{SLICES}', ".nhdr"
    )
    assert read_volume(path).notes == ("its unit of length, 'furlong', is unknown: taken for mm",)
    path = write(folder, f'{NRRD}space units: "mm" "mm" "cm"\ndata file: LIST\n{SLICES}', ".nhdr")
    with pytest.raises(ReadError, match="different units of length"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".MHA", ".MHD", ".NRRD", ".NHDR", ".Nrrd"])
def test_suffixes_in_capitals(tmp_path, suffix):
    lower = tmp_path / f"a{suffix.lower()}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(lower))
    lower.rename(tmp_path / f"A{suffix}")
    np.testing.assert_array_equal(read_volume(tmp_path / f"A{suffix}").array, voxels())
