"""Multi-frame DICOM: enhanced objects, converted ones, nuclear medicine, and frames that have no place.

Expected affines are those of DICOM PS3.3 C.7.6.2.1.1, written out here; GDCM (through SimpleITK) and highdicom
are asked for a second opinion where they can read an object.
"""

from __future__ import annotations

import itertools

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import (
    AXIAL,
    ENHANCED_CT,
    ENHANCED_MR,
    dataset,
    enhanced,
    find,
    groups,
    image_file,
    only,
    save,
    voxels,
    write_series,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless
from scipy.spatial.transform import Rotation

from parts2whole.scans.case import SourceCase
from parts2whole.scans.read import ReadError, file_stamp, read_scan, read_volume, write_label_like
from parts2whole.scans.volume import to_canonical
from parts2whole.verbs.prepare import prepare

ORIGIN = np.array([-10.0, -20.0, 30.0])
NUCLEAR_MEDICINE = "1.2.840.10008.5.1.4.1.1.20"
SC_WORD = "1.2.840.10008.5.1.4.1.1.7.3"


def stored(count=6, seed=0):
    """Unsigned voxels as they are stored (frame, row, column)."""
    return np.random.default_rng(seed).integers(0, 4000, (count, 8, 10)).astype(np.uint16)


def turned(*degrees):
    return tuple(Rotation.from_euler("zyx", degrees, degrees=True).as_matrix()[:, :2].T.ravel())


def along(orientation, count, distance=2.5, origin=ORIGIN):
    normal = np.cross(orientation[:3], orientation[3:])
    return [origin + normal * distance * n for n in range(count)]


def lps(index_zyx, orientation, step, origin=ORIGIN, spacing=(0.8, 0.7)):
    """The place of a voxel by the standard: rows are (spacing between rows) apart along the column direction."""
    k, row, column = index_zyx
    return (
        np.asarray(origin)
        + k * np.asarray(step)
        + row * spacing[0] * np.array(orientation[3:])
        + column * spacing[1] * np.array(orientation[:3])
    )


def check(volume, array, orientation=AXIAL, step=(0, 0, 2.5), origin=ORIGIN, spacing=(0.8, 0.7)):
    np.testing.assert_allclose(volume.array, array, rtol=1e-6)
    corners = itertools.product(*((0, n - 1) for n in array.shape))
    for index in corners:
        expected = lps(index, orientation, step, origin, spacing)
        np.testing.assert_allclose((volume.affine() @ [*index, 1])[:3], expected, atol=1e-4)


@pytest.mark.parametrize("sop_class", [ENHANCED_CT, ENHANCED_MR, "1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.2.2"])  # fmt: skip
@pytest.mark.parametrize("orientation", [AXIAL, turned(10, 5, -20), turned(0, 90, 0)])
def test_an_enhanced_object_is_exact(tmp_path, sop_class, orientation):
    """Frames in any order; what is shared and what is a frame's own may be divided in any way."""
    places = along(orientation, 6)
    order = [3, 0, 5, 1, 4, 2]
    slopes = [1.0, 2.0, 0.5, 1.0, 0.25, 3.0]
    frames = [groups(places[k], orientation, slope=slopes[k], intercept=-1000 + k) for k in order]
    shared = {name: frames[0][name] for name in ("PlaneOrientationSequence", "PixelMeasuresSequence")}
    for frame in frames:
        for name in shared:
            del frame[name]
    modality = {"1.2.840.10008.5.1.4.1.1.130": {"Modality": "PT"}}.get(sop_class, {})
    save(enhanced(stored()[order], frames, shared, sop_class, **modality), tmp_path / "a.dcm")
    source = only(tmp_path)
    assert (source.problem, len(source.paths), len(source.frames)) == (None, 1, 6)
    assert [frame for _, frame in source.frames] == [order.index(k) for k in range(6)]
    values = np.stack([stored()[k] * slopes[k] - 1000 + k for k in range(6)])
    volume = read_scan(source)
    check(volume, values, orientation, 2.5 * np.cross(orientation[:3], orientation[3:]))
    assert volume.modality == {ENHANCED_MR: "MR"}.get(sop_class, modality.get("Modality", "CT"))
    for named in (tmp_path, tmp_path / "a.dcm"):  # a folder, and the file itself
        np.testing.assert_array_equal(read_volume(named).array, volume.array)


@settings(max_examples=25, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-60, 60)] * 3),
    spacing=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
    distance=st.floats(0.5, 6),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    sop_class=st.sampled_from([ENHANCED_CT, ENHANCED_MR]),
)
def test_three_readers_agree_on_enhanced_objects(
    tmp_path_factory, angles, spacing, distance, origin, sop_class
):
    orientation = turned(*angles)
    spacing = tuple(round(s, 6) for s in spacing)
    origin = np.round(origin, 4)
    places = along(orientation, 5, distance, origin)
    frames = [groups(place, orientation, spacing, slope=1, intercept=-1000) for place in places]
    for number, frame in enumerate(frames):
        frame["FrameContentSequence"] = {"DimensionIndexValues": [1, number + 1], "InStackPositionNumber": number + 1, "StackID": "1"}  # fmt: skip
    dimensions = [
        {"DimensionIndexPointer": 0x00209056, "FunctionalGroupPointer": 0x00209111, "DimensionOrganizationUID": "1.2.9"},
        {"DimensionIndexPointer": 0x00209057, "FunctionalGroupPointer": 0x00209111, "DimensionOrganizationUID": "1.2.9"},
    ]  # fmt: skip
    image = enhanced(stored(5), frames, sop_class=sop_class, DimensionIndexSequence=dimensions, FrameOfReferenceUID="1.2.8", DimensionOrganizationSequence={"DimensionOrganizationUID": "1.2.9"})  # fmt: skip
    path = save(image, tmp_path_factory.mktemp("enhanced") / "a.dcm")
    volume = read_volume(path)
    step = distance * np.cross(orientation[:3], orientation[3:])
    check(volume, stored(5).astype(float) - 1000, orientation, step, origin, spacing)
    itk = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(itk))
    for index in ((0, 0, 0), (4, 7, 9)):
        place = itk.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose((volume.affine() @ [*index, 1])[:3], place, atol=1e-2)


def test_highdicom_agrees(tmp_path):
    highdicom = pytest.importorskip("highdicom", reason="highdicom, the second opinion, isn't installed")
    orientation = turned(10, 5, -20)
    frames = [groups(place, orientation, slope=2, intercept=-1000) for place in along(orientation, 6)]
    save(enhanced(stored(), frames, FrameOfReferenceUID="1.2.8"), tmp_path / "a.dcm")
    theirs = highdicom.imread(tmp_path / "a.dcm").get_volume()
    ours = read_volume(tmp_path / "a.dcm")
    flips = np.linalg.inv(theirs.affine) @ ours.affine()  # they may order slices the other way
    matrix = np.rint(flips)
    np.testing.assert_allclose(flips, matrix, atol=1e-3)
    index = np.stack(np.indices(ours.shape), -1) @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(
        theirs.array[tuple(np.moveaxis(index.astype(int), -1, 0))], ours.array, atol=1e-4
    )


@pytest.mark.parametrize("compression", [RLELossless, JPEGLSLossless, JPEG2000Lossless, "JPEG"])
@pytest.mark.parametrize("signed", [False, True])
def test_compressed_frames(tmp_path, compression, signed):
    if compression == JPEGLSLossless:
        pytest.importorskip("jpeg_ls", reason="pyjpegls, which encodes for this test, isn't installed")
    kind = np.int16 if signed and compression == RLELossless else np.uint16
    frames = [groups(place, slope=1, intercept=-1024) for place in along(AXIAL, 5)]
    image = enhanced(stored(5).astype(kind), frames)
    if compression in (RLELossless, JPEGLSLossless):
        image.compress(compression)
    else:
        parts = []
        for plane in stored(5):
            writer = sitk.ImageFileWriter()
            writer.SetImageIO("GDCMImageIO")
            writer.SetCompressor("JPEG" if compression == "JPEG" else "JPEG2000")
            writer.UseCompressionOn()
            writer.SetFileName(str(tmp_path / "x.dcm"))
            writer.Execute(sitk.GetImageFromArray(plane[None]))
            encoded = pydicom.dcmread(tmp_path / "x.dcm")
            parts.append(pydicom.encaps.get_frame(encoded.PixelData, 0, number_of_frames=1))
            image.file_meta.TransferSyntaxUID = encoded.file_meta.TransferSyntaxUID
        (tmp_path / "x.dcm").unlink()
        image.PixelData = pydicom.encaps.encapsulate(parts, has_bot=not signed)
        image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    save(image, tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_scan(only(tmp_path)).array, stored(5).astype(int) - 1024)


def dynamic(count, volumes, name, values):
    """Frames of several volumes, one place after another; ``name`` makes the groups that tell them apart."""
    frames, planes = [], []
    for k, v in itertools.product(range(count), range(volumes)):
        frames.append(groups(along(AXIAL, count)[k], slope=1, **name(values[v], k, v)))
        planes.append(stored(count, seed=v)[k])
    return np.stack(planes), frames


def content(**values):
    return {"FrameContentSequence": values}


APART = {
    "TemporalPositionIndex": lambda value, k, v: content(TemporalPositionIndex=v + 1),
    "FrameAcquisitionNumber": lambda value, k, v: content(FrameAcquisitionNumber=v + 1),
    "FrameReferenceDateTime": lambda value, k, v: content(FrameReferenceDateTime=f"202001011200{v:02d}"),
    "EffectiveEchoTime": lambda value, k, v: {"MREchoSequence": {"EffectiveEchoTime": 2.5 * (v + 1)}},
    "DiffusionBValue": lambda value, k, v: {"MRDiffusionSequence": {"DiffusionBValue": 500.0 * v}},
    "DiffusionGradientOrientation": lambda value, k, v: {
        "MRDiffusionSequence": {"DiffusionBValue": 1000.0, "DiffusionGradientDirectionSequence": {"DiffusionGradientOrientation": list(np.eye(3)[v % 3])}}
    },
    "FrameType": lambda value, k, v: {"MRImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "DIXON", "ABC"[v]]}},
    "ComplexImageComponent": lambda value, k, v: {"MRImageFrameTypeSequence": {"FrameType": ["ORIGINAL"], "ComplexImageComponent": ["MAGNITUDE", "PHASE", "REAL"][v]}},
    "NominalPercentageOfCardiacPhase": lambda value, k, v: {"CardiacSynchronizationSequence": {"NominalPercentageOfCardiacPhase": 30.0 * v}},
    "NominalCardiacTriggerDelayTime": lambda value, k, v: {"CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": 33.0 * v + 0.7 * k * (v > 0)}},
    "TemporalPositionTimeOffset": lambda value, k, v: {"TemporalPositionSequence": {"TemporalPositionTimeOffset": 1.5 * v}},
    "EchoTime": lambda value, k, v: {"UnassignedPerFrameConvertedAttributesSequence": {"EchoTime": 2.5 * (v + 1)}},
}  # fmt: skip


@pytest.mark.parametrize("tag", APART)
def test_volumes_of_one_object_are_told_apart(tmp_path, tag):
    planes, frames = dynamic(5, 3, APART[tag], range(3))
    save(enhanced(planes, frames, sop_class=ENHANCED_MR), tmp_path / "a.dcm")
    found = sorted(find(tmp_path), key=lambda source: source.case_id)
    assert [source.problem for source in found] == [None] * 3
    order = [0, 1, 2] if tag != "DiffusionGradientOrientation" else [2, 1, 0]
    for source, v in zip(found, order, strict=True):
        check(read_scan(source), stored(5, seed=v).astype(float))
        assert source.notes[-1] == f"one of 3 volumes of its series, told apart by {tag}"
    with pytest.raises(ReadError, match="holds 3 usable DICOM volumes"):
        read_volume(tmp_path / "a.dcm")


def test_dimensions_tell_volumes_apart_where_the_standard_knows_no_tag(tmp_path):
    """A private dimension, such as an energy, beside the position in the stack."""
    private = 0x00E11001
    planes, frames = dynamic(5, 2, lambda value, k, v: content(DimensionIndexValues=[v + 1, k + 1]), range(2))
    dimensions = [{"DimensionIndexPointer": private, "DimensionOrganizationUID": "1.2.9"}, {"DimensionIndexPointer": 0x00200032, "DimensionOrganizationUID": "1.2.9"}]  # fmt: skip
    save(enhanced(planes, frames, DimensionIndexSequence=dimensions), tmp_path / "a.dcm")
    found = sorted(find(tmp_path), key=lambda source: source.case_id)
    assert [source.problem for source in found] == [None, None]
    for v, source in enumerate(found):
        check(read_scan(source), stored(5, seed=v).astype(float))


def test_echoes_and_phases_together(tmp_path):
    def both(value, k, v):
        return {"MREchoSequence": {"EffectiveEchoTime": 2.0 + v // 2}} | content(
            TemporalPositionIndex=v % 2 + 1
        )

    planes, frames = dynamic(4, 4, both, range(4))
    save(enhanced(planes, frames, sop_class=ENHANCED_MR), tmp_path / "a.dcm")
    found = sorted(find(tmp_path), key=lambda source: source.case_id)
    assert [source.problem for source in found] == [None] * 4
    got = {read_scan(source).array.tobytes() for source in found}
    assert got == {stored(4, seed=v).astype(np.int16).tobytes() for v in range(4)}


def test_stacks_of_one_object(tmp_path):
    """A localiser's planes, or a spine's: two orientations in one object."""
    coronal = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    frames = [groups(place) for place in along(AXIAL, 5)] + [
        groups(place, coronal) for place in along(coronal, 4)
    ]
    save(enhanced(stored(9), frames), tmp_path / "a.dcm")
    first, second = sorted(find(tmp_path), key=lambda source: source.case_id)
    check(read_scan(first), stored(9)[:5].astype(float))
    check(read_scan(second), stored(9)[5:].astype(float), coronal, (0, 2.5, 0))


def test_volumes_in_files_of_one_series(tmp_path):
    """One file a phase, one file a slice, and one volume in two files: the place counts, not the file."""
    planes = stored(6)
    for number, part in enumerate((slice(0, 4), slice(4, 6))):
        frames = [groups(place) for place in along(AXIAL, 6)[part]]
        save(enhanced(planes[part], frames, InstanceNumber=number), tmp_path / "two" / f"{number}.dcm")
    source = only(tmp_path / "two")
    assert (len(source.paths), len(source.frames)) == (2, 6)
    check(read_scan(source), planes.astype(float))
    for number in range(6):
        save(enhanced(planes[number][None], [groups(along(AXIAL, 6)[number])], InstanceNumber=number), tmp_path / "six" / f"{number}.dcm")  # fmt: skip
    check(read_scan(only(tmp_path / "six")), planes.astype(float))
    for number in range(2):
        frames = [groups(place, **content(TemporalPositionIndex=number + 1)) for place in along(AXIAL, 6)]
        save(enhanced(stored(6, number), frames), tmp_path / "phases" / f"{number}.dcm")
    for number, each in enumerate(sorted(find(tmp_path / "phases"), key=lambda s: s.case_id)):
        check(read_scan(each), stored(6, number).astype(float))


def test_copies_of_frames_and_files_are_left_out(tmp_path):
    places = along(AXIAL, 6)
    frames = [groups(place) for place in [*places, places[2]]]
    save(enhanced(stored()[[0, 1, 2, 3, 4, 5, 2]], frames), tmp_path / "a.dcm")
    assert only(tmp_path).notes == ("1 copy of a slice left out",)
    check(read_scan(only(tmp_path)), stored().astype(float))
    save(enhanced(stored(), frames[:6]), tmp_path / "b.dcm")  # the same volume under a new UID
    assert only(tmp_path).notes == ("7 copies of slices left out",)
    check(read_scan(only(tmp_path)), stored().astype(float))


def test_gaps_of_frames_are_missing_slices(tmp_path):
    frames = [groups(place) for number, place in enumerate(along(AXIAL, 9)) if number != 4]
    save(enhanced(stored(8), frames), tmp_path / "a.dcm")
    assert only(tmp_path).problem.startswith("missing slices: about 1 of 9, in 1 gap")


def nuclear(array, **values):
    """A reconstructed tomogram: the first place in its detector's item, the others by a vector."""
    detector = {"ImagePositionPatient": list(ORIGIN), "ImageOrientationPatient": list(AXIAL)}
    defaults = {
        "Modality": "NM",
        "ImageType": ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        "DetectorInformationSequence": detector,
        "SpacingBetweenSlices": 4.8,
        "PixelSpacing": [4.8, 4.8],
        "SliceVector": list(range(1, len(array) + 1)),
        "NumberOfSlices": len(array),
        "FrameIncrementPointer": 0x00540080,
    }
    return image_file(NUCLEAR_MEDICINE, array, **defaults | values)


@pytest.mark.parametrize("spacing", [4.8, -4.8])
def test_nuclear_medicine(tmp_path, spacing):
    """The sign of the spacing is the direction of stacking (PS3.3 C.8.4.15)."""
    save(
        nuclear(stored(), SpacingBetweenSlices=spacing, RescaleSlope=2, RescaleIntercept=1),
        tmp_path / "a.dcm",
    )
    volume = read_scan(only(tmp_path))
    values = stored().astype(float) * 2 + 1
    if spacing < 0:
        check(volume, values[::-1], step=(0, 0, 4.8), origin=ORIGIN - (0, 0, 24), spacing=(4.8, 4.8))
    else:
        check(volume, values, step=(0, 0, 4.8), spacing=(4.8, 4.8))


def test_gated_nuclear_medicine(tmp_path):
    planes = np.concatenate([stored(5, seed=v) for v in range(3)])
    slices, slots = list(range(1, 6)) * 3, [1] * 5 + [2] * 5 + [3] * 5
    save(nuclear(planes, SliceVector=slices, TimeSlotVector=slots), tmp_path / "a.dcm")
    found = sorted(find(tmp_path), key=lambda source: source.case_id)
    assert [source.problem for source in found] == [None] * 3
    for v, source in enumerate(found):
        np.testing.assert_array_equal(read_scan(source).array, stored(5, seed=v))
        assert source.notes == ("one of 3 volumes of its series, told apart by TimeSlotVector",)


def test_a_volume_that_simpleitk_wrote_as_one_file(tmp_path):
    image = sitk.GetImageFromArray(stored())
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin(ORIGIN)
    image.SetDirection(Rotation.from_euler("zyx", [10, 5, -20], degrees=True).as_matrix().ravel())
    sitk.WriteImage(image, str(tmp_path / "a.dcm"))
    volume = read_volume(tmp_path / "a.dcm")
    np.testing.assert_array_equal(volume.array, stored())
    for index in ((0, 0, 0), (5, 7, 9)):
        place = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose((volume.affine() @ [*index, 1])[:3], place, atol=1e-2)


NO_PLACE = "no place in the patient"
REFUSED = {
    "ultrasound": (lambda: image_file("1.2.840.10008.5.1.4.1.1.3.1", stored(), Modality="US"), NO_PLACE),
    "secondary capture": (lambda: image_file(SC_WORD, stored(), Modality="OT"), NO_PLACE),
    "angiography": (lambda: image_file("1.2.840.10008.5.1.4.1.1.12.1", stored(), Modality="XA", FrameTime=33), NO_PLACE),
    "projections": (lambda: nuclear(stored(), ImageType=["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"], SliceVector=None, RotationVector=[1] * 6), NO_PLACE),
    "tomogram without a distance": (lambda: nuclear(stored(), SpacingBetweenSlices=None), NO_PLACE),
    "whole body": (lambda: nuclear(stored(2), SliceVector=None, DetectorVector=[1, 2]), NO_PLACE),
    "classic class": (lambda: image_file("1.2.840.10008.5.1.4.1.1.2", stored(), Modality="CT", ImagePositionPatient=list(ORIGIN), ImageOrientationPatient=list(AXIAL), PixelSpacing=[1, 1]), NO_PLACE),
    "groups without places": (lambda: enhanced(stored(), [{"FrameContentSequence": {"StackID": "1"}}] * 6), NO_PLACE),
    "some places": (lambda: enhanced(stored(), [groups(p) for p in along(AXIAL, 4)] + [{}] * 2), "2 of 6 frames have no place"),
    "fewer groups": (lambda: enhanced(stored(), [groups(p) for p in along(AXIAL, 4)]), "6 frames that describes 4"),
    "colour": (lambda: enhanced(stored(), [groups(p) for p in along(AXIAL, 6)], SamplesPerPixel=3, PhotometricInterpretation="RGB"), "a colour image"),
    "segmentation": (lambda: enhanced(stored(), [groups(p) for p in along(AXIAL, 6)], sop_class="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG"), "not an image but Segmentation Storage"),
    "dose": (lambda: image_file("1.2.840.10008.5.1.4.1.1.481.2", stored(), Modality="RTDOSE", GridFrameOffsetVector=list(range(6))), "not an image but RT Dose Storage"),
    "localiser": (lambda: enhanced(stored(), [groups(p) for p in along(AXIAL, 6)], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]), "a localiser"),
    "one frame": (lambda: enhanced(stored(1), [groups(ORIGIN)]), "a single slice"),
    "cine": (lambda: enhanced(stored(), [groups(ORIGIN, **content(TemporalPositionIndex=n + 1)) for n in range(6)]), "6 images at one position"),
    "huge": (lambda: enhanced(stored(), [groups(p) for p in along(AXIAL, 6)], Rows=60000, Columns=60000), "more than any scan may have"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_with_what_is_true(tmp_path, kind):
    make, said = REFUSED[kind]
    path = save(make(), tmp_path / "a.dcm")
    source = only(tmp_path)
    assert said in source.problem
    for named in (tmp_path, path):
        with pytest.raises(ReadError) as caught:
            read_volume(named)
        assert said in str(caught.value)
    for wrong in ("truncated", "missing", "broken"):
        assert wrong not in source.problem


@pytest.mark.parametrize("frames", [0, -1, 5, 10**9])
def test_a_number_of_frames_that_lies(tmp_path, frames):
    image = enhanced(stored(), [groups(place) for place in along(AXIAL, 6)])
    image.NumberOfFrames = frames
    save(image, tmp_path / "a.dcm")
    assert find(tmp_path)[0].problem is not None


def test_frames_that_are_cut(tmp_path):
    path = save(enhanced(stored(), [groups(place) for place in along(AXIAL, 6)]), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ReadError, match="truncated"):
        read_scan(only(tmp_path))
    image = enhanced(stored(), [groups(place) for place in along(AXIAL, 6)])
    image.compress(RLELossless)
    path = save(image, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ReadError, match=r"truncated|broken|can't be decoded"):
        read_scan(only(tmp_path))


def test_odd_frames_do_not_decide_for_a_classic_series(tmp_path):
    write_series(tmp_path, voxels(8))
    save(image_file(SC_WORD, stored(3), Modality="CT"), tmp_path / "capture")
    source = only(tmp_path)
    assert source.problem is None
    assert source.frames == ()
    assert source.notes == ("1 image left out: a multi-frame object (Multi-frame Grayscale Word Secondary Capture Image Storage) whose frames have no place in the patient (secondary capture?)",)  # fmt: skip


def test_it_goes_all_the_way(tmp_path):
    """Into a store, and a mask back onto the frames."""
    planes, frames = dynamic(5, 2, APART["TemporalPositionIndex"], range(2))
    save(enhanced(planes, frames, sop_class=ENHANCED_MR), tmp_path / "in" / "a.dcm")
    store = prepare(tmp_path / "in", out=tmp_path / "store", modality="MR", workers=0, progress=False)
    assert [record.shape for record in store.cases] == [(5, 8, 10)] * 2
    assert len({record.content_hash for record in store.cases}) == 2
    assert [record.source for record in store.cases] == [("1 DICOM file",)] * 2
    first, second = sorted(find(tmp_path / "in"), key=lambda source: source.case_id)
    assert SourceCase("x", (first,)).stamp() != SourceCase("x", (second,)).stamp()
    assert file_stamp(first.paths) == file_stamp(second.paths)
    volume = read_scan(second)
    mask = to_canonical(volume).array > 2000
    write_label_like(second, mask.astype(np.uint8), tmp_path / "m.nii.gz")
    back = read_volume(tmp_path / "m.nii.gz")
    assert back.same_grid(volume, tolerance=1e-3)
    np.testing.assert_array_equal(back.array, volume.array > 2000)


def test_the_builder_makes_sequences():
    made = dataset(PlanePositionSequence={"ImagePositionPatient": [1, 2, 3]})
    assert made.PlanePositionSequence[0].ImagePositionPatient == [1, 2, 3]
