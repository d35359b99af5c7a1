"""Writes DICOM files whose geometry and voxels are known: classic slices, and multi-frame objects by hand."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from parts2whole.scans.read import find_scans, read_scan

SALT = b"secret"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
UID = "1.2.3.4"


def voxels(count=6, seed=0):
    """Hounsfield units (z, y, x), with air."""
    return np.random.default_rng(seed).integers(-1024, 1200, (count, 8, 10)).astype(np.int16)


def write_slice(path, plane, position, *, uid, orientation=AXIAL, slope=1.0, intercept=-1024.0, **tags):
    """One CT image; ``plane`` in rescaled units."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    defaults = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "PatientID": "DOE-4711",
        "PatientName": "Doe^Jane",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": uid,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Rows": plane.shape[0],
        "Columns": plane.shape[1],
        "PixelSpacing": [0.8, 0.7],
        "ImageOrientationPatient": [round(float(v), 10) for v in orientation],
        "ImagePositionPatient": [round(float(v), 6) for v in position],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
    }
    for name, value in (defaults | tags).items():
        if value is not None:
            setattr(image, name, value)
    image.PixelData = np.rint((plane - intercept) / slope).astype("<i2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder, array, *, uid="1.2.3.4", orientation=AXIAL, distance=2.5, origin=(-10.0, -20.0, 30.0), **tags
):
    """Slices in shuffled file order, without suffix; keyword values that are lists hold one value a slice."""
    normal = np.cross(orientation[:3], orientation[3:])
    paths = []
    for number, plane in enumerate(array):
        own = {name: value[number] if isinstance(value, list) else value for name, value in tags.items()}
        position = own.pop("position", np.array(origin) + normal * distance * number)
        name = f"IM{(number * 7) % 101:04d}_{uid[-4:]}"
        paths.append(
            write_slice(
                folder / name, plane, position, uid=uid, orientation=orientation, InstanceNumber=number, **own
            )
        )
    return paths


def find(*paths):
    return find_scans(paths, salt=SALT)


def only(*paths):
    (source,) = find(*paths)
    return source


ENHANCED_CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"


def dataset(**values):
    """A dataset; dictionaries and lists of them become sequences."""
    made = Dataset()
    for name, value in values.items():
        items = [value] if isinstance(value, dict) else value
        is_sequence = isinstance(items, list) and items and isinstance(items[0], dict)
        setattr(made, name, [dataset(**item) for item in items] if is_sequence else value)
    return made


def image_file(sop_class, stored, **values):
    """A file with voxels as they are stored, (row, column) or (frame, row, column), little-endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    bits = 8 * stored.dtype.itemsize
    defaults = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "PatientID": "DOE-4711",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
    }
    if stored.ndim == 3:
        defaults["NumberOfFrames"] = len(stored)
    for name, value in (defaults | values).items():
        if value is not None:
            single = dataset(**{name: value})
            setattr(image, name, single[name].value)
    image.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    image["PixelData"].VR = "OW"
    return image


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path


def groups(position, orientation=AXIAL, spacing=(0.8, 0.7), slope=None, intercept=0, **more):
    """The functional groups of one frame."""
    made = {
        "PlanePositionSequence": {"ImagePositionPatient": [round(float(v), 6) for v in position]},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [round(float(v), 10) for v in orientation]},
        "PixelMeasuresSequence": {"PixelSpacing": list(spacing), "SliceThickness": 2.5},
    }
    if slope is not None:
        made["PixelValueTransformationSequence"] = {
            "RescaleSlope": slope,
            "RescaleIntercept": intercept,
            "RescaleType": "US",
        }
    return made | more


def enhanced(stored, frames, shared=None, sop_class=ENHANCED_CT, **values):
    """A multi-frame object: ``frames`` are the functional groups of each."""
    modality = "MR" if sop_class == ENHANCED_MR else "CT"
    values = {"Modality": modality, "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]} | values
    return image_file(
        sop_class,
        stored,
        SharedFunctionalGroupsSequence=shared or {},
        PerFrameFunctionalGroupsSequence=frames,
        **values,
    )


def add(folder, plane, z=0.0, *, name="odd", uid=UID, **tags):
    """One more image of the series."""
    return write_slice(folder / name, plane, tags.pop("position", (-10.0, -20.0, z)), uid=uid, **tags)


def usable(folder, count=1):
    """Sources of a folder, all of which must be usable."""
    found = find(folder)
    assert [source.problem for source in found] == [None] * count
    return found


def check(source, planes, places):
    """A source is these planes at these z."""
    volume = read_scan(source)
    np.testing.assert_array_equal(volume.array, planes)
    for index, z in enumerate(places):
        np.testing.assert_allclose((volume.affine() @ [index, 0, 0, 1])[:3], (-10, -20, z), atol=1e-4)
