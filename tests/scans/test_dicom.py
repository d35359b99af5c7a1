"""DICOM: a tree of mixed series becomes exact volumes, or reasons, and no patient id in clear."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import find, only, voxels, write_series
from pydicom.uid import JPEGLSLossless, RLELossless
from scipy.spatial.transform import Rotation

from parts2whole.scans.read import (
    ReadError,
    file_stamp,
    find_scans,
    read_scan,
    read_volume,
    user_salt,
    write_label_like,
)
from parts2whole.scans.volume import to_canonical
from parts2whole.verbs.prepare import prepare


def test_a_series_is_exact(tmp_path):
    turned = Rotation.from_euler("zyx", [10, 5, -20], degrees=True).as_matrix()
    write_series(tmp_path, voxels(), orientation=(*turned[:, 0], *turned[:, 1]))
    source = only(tmp_path)
    assert source.problem is None
    volume = read_scan(source)
    assert volume.modality == "CT"
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, voxels())
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert volume.origin_mm == pytest.approx((-10, -20, 30))
    np.testing.assert_allclose(np.asarray(volume.direction), turned[:, [2, 1, 0]], atol=1e-6)
    np.testing.assert_array_equal(read_volume(tmp_path).array, voxels())


def test_slices_against_the_normal_are_sorted(tmp_path):
    write_series(tmp_path, voxels(), distance=-2.5)
    np.testing.assert_array_equal(read_scan(only(tmp_path)).array, voxels()[::-1])


def test_each_slice_has_its_own_slope(tmp_path):
    slopes = [1.0, 0.5, 2.0, 1.0, 0.25, 1.0]
    array = np.rint(voxels() / 2) * 2
    write_series(tmp_path, array, slope=slopes, intercept=[0.0, -1024.0, 10.0, 0.0, 0.0, -5.0])
    np.testing.assert_array_equal(read_scan(only(tmp_path)).array, array)


@pytest.mark.parametrize("compression", ["RLE", "JPEG-LS", "JPEG", "JPEG2000"])
def test_compressed_slices(tmp_path, compression):
    for number, path in enumerate(write_series(tmp_path, voxels(3))):
        image = pydicom.dcmread(path)
        if compression in ("RLE", "JPEG-LS"):
            if compression == "JPEG-LS":
                pytest.importorskip(
                    "jpeg_ls", reason="pyjpegls, which encodes for this test, isn't installed"
                )
            image.compress(RLELossless if compression == "RLE" else JPEGLSLossless)
        else:  # lossless, encoded by SimpleITK, around the same header
            writer = sitk.ImageFileWriter()
            writer.SetImageIO("GDCMImageIO")
            writer.SetCompressor(compression)
            writer.UseCompressionOn()
            writer.SetFileName(str(tmp_path / "x.dcm"))
            writer.Execute(sitk.GetImageFromArray((voxels(3)[number] + 1024)[None].astype(np.int16)))
            other = pydicom.dcmread(tmp_path / "x.dcm")
            image.file_meta.TransferSyntaxUID = other.file_meta.TransferSyntaxUID
            image.PixelData = other.PixelData
            image["PixelData"].VR = "OB"
            image["PixelData"].is_undefined_length = True
            (tmp_path / "x.dcm").unlink()
        image.save_as(path)
    np.testing.assert_array_equal(read_scan(only(tmp_path)).array, voxels(3))


def test_many_series_in_one_folder(tmp_path):
    write_series(tmp_path, voxels(5, 1), uid="1.1111")
    write_series(tmp_path, voxels(7, 2), uid="1.2222", PatientID="OTHER")
    found = find(tmp_path)
    assert sorted(len(source.paths) for source in found) == [5, 7]
    assert len({source.case_id for source in found}) == 2
    assert len({source.patient for source in found}) == 2
    for source in found:
        np.testing.assert_array_equal(
            read_scan(source).array, voxels(*((5, 1) if len(source.paths) == 5 else (7, 2)))
        )


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("AcquisitionNumber", ["9", "10"]),
        ("TemporalPositionIdentifier", ["1", "2"]),
        ("EchoTime", ["2.5", "10"]),
    ],
)
def test_phases_of_one_series(tmp_path, tag, values):
    for number, value in enumerate(values):
        write_series(tmp_path / value, voxels(4, number), **{tag: value})
    found = find(tmp_path)
    assert [source.problem for source in found] == [None, None]
    assert [source.case_id[-2:] for source in found] == ["-1", "-2"]
    for number, source in enumerate(found):
        np.testing.assert_array_equal(read_scan(source).array, voxels(4, number))


def test_stacks_of_several_orientations(tmp_path):
    write_series(tmp_path / "a", voxels(5, 1))
    write_series(tmp_path / "b", voxels(4, 2), orientation=(1, 0, 0, 0, 0, -1))
    write_series(tmp_path / "c", voxels(1, 3), orientation=(0, 1, 0, 0, 0, -1))
    found = find(tmp_path)
    assert [len(source.paths) for source in found] == [5, 4]
    assert [source.problem for source in found] == [None, None]
    assert {source.notes for source in found} == {("1 image left out: of another orientation or size",)}


def test_copies_are_left_out(tmp_path):
    for path in write_series(tmp_path / "a", voxels()):
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / path.name).write_bytes(path.read_bytes())
    source = only(tmp_path)
    assert source.notes == ("6 copies of slices left out",)
    np.testing.assert_array_equal(read_scan(source).array, voxels())


def test_gantry_tilt_is_kept_and_noted(tmp_path):
    places = [(-10.0, -20.0 + 0.6 * n, 30.0 + 2.5 * n) for n in range(6)]
    write_series(tmp_path, voxels(), position=places)
    source = only(tmp_path)
    assert "tilt of 13.5 degrees" in source.notes[0]
    volume = read_scan(source)
    for n, place in enumerate(places):
        np.testing.assert_allclose((volume.affine() @ [n, 0, 0, 1])[:3], place, atol=1e-5)


def test_positions_with_few_digits_are_even(tmp_path):
    places = [(0.0, 0.0, round(0.625 * n, 1)) for n in range(20)]
    write_series(tmp_path, voxels(20), position=places)
    assert only(tmp_path).problem is None


def drop(paths, *numbers):
    for number in numbers:
        paths[number].unlink()


def test_missing_slices(tmp_path):
    drop(write_series(tmp_path, voxels(9)), 3, 4, 6)
    assert only(tmp_path).problem.startswith("missing slices: about 3 of 9, in 2 gaps")


def test_uneven_slices(tmp_path):
    places = [(0.0, 0.0, z) for z in (0, 1, 2, 3, 4.3, 5.6)]
    write_series(tmp_path, voxels(), position=places)
    assert "non-uniform spacing: distances of slices from 1 to 1.3 mm" in only(tmp_path).problem


def test_slices_at_one_place(tmp_path):
    write_series(tmp_path / "a", voxels(4, 0))
    write_series(tmp_path / "b", voxels(4, 1))
    assert "up to 2 images at one position" in only(tmp_path).problem


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localiser"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"ImagePositionPatient": None, "ImageOrientationPatient": None}, "no place in the patient"),
        ({"NumberOfFrames": 4}, "multi-frame"),
        ({"Rows": None}, "an image without rows and columns"),
        ({"Rows": 60000, "Columns": 60000}, "more than any scan"),
    ],
)
def test_what_is_not_a_scan(tmp_path, tags, said):
    lists = {name: [value] * 3 for name, value in tags.items()}
    write_series(tmp_path, voxels(3), **lists)
    source = only(tmp_path)
    assert said in source.problem
    with pytest.raises(ReadError, match=said[:10]):
        read_scan(source)


@pytest.mark.parametrize(
    ("uid", "said"),
    [
        ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000"),
        ("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264"),
        ("1.2.840.10008.1.2.4.94", "JPIP Referenced"),
    ],
)
def test_compression_that_can_not_be_decoded_is_named(tmp_path, uid, said):
    for path in write_series(tmp_path, voxels(3)):
        image = pydicom.dcmread(path)
        image.file_meta.TransferSyntaxUID = uid
        del image.PixelData
        image.save_as(path)
    assert said in only(tmp_path).problem
    assert "store it uncompressed first" in only(tmp_path).problem


def test_broken_files_in_a_series(tmp_path):
    paths = write_series(tmp_path / "a", voxels())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"rubbish" * 9)
    paths[2].write_bytes(paths[2].read_bytes()[:-80])
    problems = sorted(str(source.problem) for source in find(tmp_path))
    assert len(problems) == 2
    assert any("broken DICOM" in problem or "not an image" in problem for problem in problems)
    good = next(source for source in find(tmp_path) if source.problem is None)
    with pytest.raises(ReadError, match="truncated"):
        read_scan(good)


def test_other_files_and_directories_are_passed_over(tmp_path):
    write_series(tmp_path, voxels())
    (tmp_path / "LICENSE").write_text("text " * 100)
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "short").write_bytes(b"x")
    assert len(only(tmp_path).paths) == 6


def test_a_mask_lands_on_the_slices(tmp_path):
    write_series(tmp_path / "in", voxels(), distance=-2.5)
    source = only(tmp_path / "in")
    volume = read_scan(source)
    mask = to_canonical(volume).array > 0
    write_label_like(source, mask.astype(np.uint8), tmp_path / "m.nii.gz")
    back = read_volume(tmp_path / "m.nii.gz")
    assert back.same_grid(volume, tolerance=1e-3)
    np.testing.assert_array_equal(back.array, volume.array > 0)


def test_no_identity_reaches_the_store(tmp_path, capsys):
    folder = tmp_path / "DOE-4711" / "Doe^Jane"
    write_series(folder / "one", voxels(5, 1), uid="1.2.840.1111")
    write_series(folder / "two", voxels(5, 2), uid="1.2.840.2222")
    drop(write_series(folder / "three", voxels(5, 3), uid="1.2.840.3333"), 2)
    store = prepare(tmp_path / "DOE-4711", out=tmp_path / "store", workers=0)
    assert [record.modality for record in store.cases] == ["CT", "CT"]
    assert len({record.patient for record in store.cases}) == 1
    assert list(store.set_aside.values()) == ["missing slices: about 1 of 5, in 1 gap; the usual distance is 2.5 mm, "
                                              "the largest 5 mm"]  # fmt: skip
    assert "Doe^Jane/three" in "".join(capsys.readouterr().err.split("\n"))
    for file in (tmp_path / "store").rglob("*"):
        text = str(file.relative_to(tmp_path)) + (
            file.read_bytes().decode("latin1") if file.is_file() else ""
        )
        for secret in ("DOE-4711", "Jane", "1.2.840.1111", "1.2.840.2222", "1.2.840.3333"):
            assert secret not in text, file
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert manifest["cases"][0]["source"] == ["5 DICOM files"]


def test_hashes_depend_on_the_salt_and_uids_stay_only_if_asked(tmp_path):
    write_series(tmp_path, voxels(), uid="1.2.3.99")
    (mine,) = find_scans([tmp_path], salt=b"mine")
    (same,) = find_scans([tmp_path], salt=b"mine")
    (other,) = find_scans([tmp_path], salt=b"other")
    assert mine == same
    assert {mine.patient, mine.case_id, mine.series}.isdisjoint({other.patient, other.case_id, other.series})
    (kept,) = find_scans([tmp_path], salt=b"mine", keep_series_uids=True)
    assert kept.series == "1.2.3.99"


def test_the_users_salt_is_made_once_and_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    salt = user_salt()
    assert len(salt) == 32
    assert user_salt() == salt
    assert (tmp_path / "config" / "parts2whole" / "salt").stat().st_mode & 0o077 == 0


def test_two_that_want_the_users_salt_at_once_get_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    making, go_on, draw = threading.Event(), threading.Event(), os.urandom

    def urandom(count):
        making.set()
        assert go_on.wait(60)
        return draw(count)

    monkeypatch.setattr(os, "urandom", urandom)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(user_salt)
        assert making.wait(60)
        second = pool.submit(user_salt)
        with pytest.raises(TimeoutError):
            second.result(timeout=0.2)  # it waits, as the salt isn't there yet
        go_on.set()
        assert first.result() == second.result() == user_salt()


@pytest.fixture(autouse=True)
def _own_config(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["dicom_ct_abdomen", "dicom_ct_jpeg2000"])
def test_real_series(shared, name):
    folder = shared / "formats" / name
    source = only(folder)
    volume = read_scan(source)
    reader = sitk.ImageSeriesReader()  # an independent path: sorting and reading by GDCM
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
    for index in ((0, 0, 0), tuple(n - 1 for n in volume.shape)):
        expected = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose((volume.affine() @ [*index, 1])[:3], expected, atol=1e-3)
    assert volume.modality == "CT"
    assert len(file_stamp(source.paths)) == 32
