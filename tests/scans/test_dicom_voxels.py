"""Voxels of DICOM: what is stored, in any type, becomes what was measured."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import AXIAL, find, image_file, only, save, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from parts2whole.scans.read import ReadError, find_scans, read_scan, read_volume

SHAPE = (4, 5, 6)


def series(folder, stored, change=None, *, modality="CT", **values):
    """One classic series of planes as they are stored."""
    for number, plane in enumerate(stored):
        own = {name: value[number] if isinstance(value, list) else value for name, value in values.items()}
        image = image_file(
            CTImageStorage,
            plane,
            Modality=modality,
            ImagePositionPatient=[0, 0, 2.0 * number],
            ImageOrientationPatient=list(AXIAL),
            PixelSpacing=[1, 1],
            **own,
        )
        if change:
            change(image)
        save(image, folder / f"{number}.dcm")
    return folder


def integers(kind, low=None, high=None, seed=0):
    info = np.iinfo(kind)
    low, high = info.min if low is None else low, info.max if high is None else high
    return np.random.default_rng(seed).integers(low, high, SHAPE, endpoint=True).astype(kind)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_every_type_of_voxel(tmp_path, kind):
    stored = integers(kind) if np.iinfo(kind).bits < 32 else integers(kind, 0, 2**23)
    volume = read_volume(series(tmp_path, stored))
    np.testing.assert_array_equal(volume.array, stored.astype(float))


@pytest.mark.parametrize("rest", [0, 0b1011])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [10, 12, 15])
def test_bits_beside_the_voxel_are_not_part_of_it(tmp_path, bits, signed, rest):
    """Overlays in the upper bits, and signs that aren't extended into them."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = integers(np.int32, low, high)
    words = (values & (2**bits - 1)) | ((rest << bits) & 0xFFFF)
    series(
        tmp_path, words.astype(np.uint16), BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(signed)
    )
    np.testing.assert_array_equal(read_volume(tmp_path).array, values)


def test_voxels_in_the_upper_bits(tmp_path):
    values = integers(np.int32, 0, 4095)
    series(tmp_path, (values << 4 | 0b101).astype(np.uint16), BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read_volume(tmp_path).array, values)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2", ["MONOCHROME1", "MONOCHROME2"] * 2])
@pytest.mark.parametrize("compress", [False, True])
def test_how_an_image_is_shown_is_not_what_it_measures(tmp_path, photometric, compress):
    """MONOCHROME1 shows low values bright; the values are what they are."""
    stored = integers(np.int16, -1000, 3000)

    def change(image):
        if compress:
            image.compress(RLELossless)

    series(
        tmp_path, stored, change, PhotometricInterpretation=photometric, RescaleSlope=2, RescaleIntercept=-5
    )
    np.testing.assert_array_equal(read_volume(tmp_path).array, stored.astype(int) * 2 - 5)


@settings(max_examples=25, deadline=None)
@given(
    slopes=st.lists(st.floats(1e-4, 50), min_size=4, max_size=4),
    intercepts=st.lists(st.floats(-2000, 2000), min_size=4, max_size=4),
)
def test_slopes_of_every_slice(tmp_path_factory, slopes, intercepts):
    """As in PET, where each slice uses its own range; decimal strings hold 16 letters."""
    slopes, intercepts = ([float(f"{v:.8g}") for v in values] for values in (slopes, intercepts))
    stored = integers(np.int16, 0, 32767)
    folder = series(
        tmp_path_factory.mktemp("pet"),
        stored,
        modality="PT",
        RescaleSlope=slopes,
        RescaleIntercept=intercepts,
    )
    volume = read_volume(folder)
    expected = stored * np.array(slopes)[:, None, None] + np.array(intercepts)[:, None, None]
    np.testing.assert_allclose(volume.array, expected, rtol=1e-6, atol=1e-3)
    for number, plane in enumerate(
        volume.array
    ):  # its reader of series would take the first slice's type for all
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{number}.dcm")))[0]
        np.testing.assert_allclose(plane, theirs, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_uncompressed_transfer_syntaxes(tmp_path, syntax):
    stored = integers(np.int16)

    def change(image):
        image.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            image.set_original_encoding(False, False)
            image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()

    series(tmp_path, stored, change)
    np.testing.assert_array_equal(read_volume(tmp_path).array, stored)


def test_files_without_preamble_and_meta(tmp_path):
    stored = integers(np.int16)
    for path in series(tmp_path / "a", stored).iterdir():
        image = pydicom.dcmread(path)
        del image.file_meta
        image.preamble = None
        (tmp_path / "b").mkdir(exist_ok=True)
        pydicom.dcmwrite(tmp_path / "b" / path.name, image, implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(read_volume(tmp_path / "b").array, stored)


def test_voxels_that_are_cut_are_truncated_wherever_they_end(tmp_path):
    def change(image):
        image.PixelData = image.PixelData[:40]

    with pytest.raises(ReadError, match=r"0\.dcm: truncated: image 1 lacks 20 of 60 bytes"):
        read_volume(series(tmp_path, integers(np.int16), change))  # the file is whole, its voxels aren't


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"BitsAllocated": 64, "BitsStored": 64, "HighBit": 63}, "voxels of 64 bits can't be read"),
        ({"BitsStored": 12, "HighBit": 17}, "12 bits up to bit 17 don't fit 16 bits"),
        ({"BitsStored": 17, "HighBit": 16}, "17 bits up to bit 16 don't fit 16 bits"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "its RescaleSlope is 0"),
        ({"ModalityLUTSequence": {"ModalityLUTType": "HU"}}, "modality look-up table"),
    ],
)
def test_what_cannot_be_read_rightly_is_refused(tmp_path, change, said):
    with pytest.raises(ReadError, match=said):
        read_volume(series(tmp_path, integers(np.int16), **change))


def test_no_voxels(tmp_path):
    def change(image):
        del image.PixelData

    with pytest.raises(ReadError, match="it has no voxels"):
        read_volume(series(tmp_path, integers(np.int16), change))


def test_compressed_voxels_that_are_rubbish(tmp_path):
    def change(image):
        image.compress(RLELossless)
        image.PixelData = pydicom.encaps.encapsulate([b"rubbish" * 4])

    with pytest.raises(ReadError, match=r"0\.dcm: its compressed voxels can't be decoded: .*RLE header"):
        read_volume(series(tmp_path / "rle", integers(np.int16), change))

    def other(image):
        change(image)
        image.file_meta.TransferSyntaxUID = JPEG2000Lossless

    with pytest.raises(ReadError, match=r"0\.dcm: its compressed voxels can't be decoded"):
        read_volume(series(tmp_path / "jpeg", integers(np.int16), other))


@pytest.mark.parametrize("name", ["a.dcm", "a.IMA", "a.dicom"])
@pytest.mark.parametrize("content", [b"", b"this is text" * 30, b"\0" * 400])
def test_a_dicom_file_by_its_name_alone_is_listed(tmp_path, name, content):
    """An interrupted copy leaves empty files; they are no less a part of their series."""
    write_series(tmp_path / "series", integers(np.int16, 0, 100).astype(int))
    (tmp_path / "series" / name).write_bytes(content)
    problems = {source.problem: source for source in find(tmp_path)}
    assert set(problems) == {None, "1 file is broken DICOM"}
    assert problems[None].notes == ("1 broken DICOM file beside it",)


def test_an_index_is_no_scan(tmp_path):
    write_series(tmp_path, integers(np.int16, 0, 100).astype(int))
    index = pydicom.dcmread(only(tmp_path).paths[0])
    index.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    index.SOPClassUID = "1.2.840.10008.1.3.10"
    save(index, tmp_path / "DICOMDIR")
    assert only(tmp_path).problem is None
    assert len(only(tmp_path).paths) == 4
    (named,) = find_scans([tmp_path / "DICOMDIR"])
    assert named.problem == "DICOMDIR is a DICOMDIR, an index of DICOM files: name its folder"
    with pytest.raises(ReadError, match="name its folder"):
        read_scan(named)


def test_a_folder_without_dicom_is_called_that(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ReadError, match="holds no DICOM image"):
        read_volume(tmp_path)
