"""A CT series in DICOM: one file a slice, stored as the CT Image module asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from parts2whole.phantom.write import make_uid
from parts2whole.scans.volume import Volume

INTERCEPT_HU = -1024
STUDY_DATE = "20000101"
"""Public archives shift dates; this is where many of theirs begin."""


def write_series(image: Volume, folder: Path, *, patient: str, study_uid: str, series_uid: str) -> list[str]:
    """Write a canonical volume, from its highest slice to its lowest.

    Args:
        image: CT in HU, int16, in canonical orientation.
        folder: where the slices go.
        patient: patient id.
        study_uid: of the study.
        series_uid: of the series.

    Returns:
        The SOP instance UID of every slice, in the order of the array.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = image.shape[0]
    uids = [make_uid(series_uid, number) for number in range(count)]
    for number in range(count):
        header = _common(image, patient=patient, study_uid=study_uid, series_uid=series_uid)
        x, y, z = image.origin_mm
        place = z + number * image.spacing_mm[0]
        header.file_meta.MediaStorageSOPInstanceUID = UID(uids[number])
        header.SOPInstanceUID = uids[number]
        header.InstanceNumber = count - number
        header.ImagePositionPatient = [_decimal(x), _decimal(y), _decimal(place)]
        header.SliceLocation = _decimal(place)
        stored = np.asarray(image.array[number], dtype=np.int32) - INTERCEPT_HU
        header.PixelData = np.ascontiguousarray(stored, dtype="<i2").tobytes()
        header.save_as(folder / f"1-{count - number:03d}.dcm", enforce_file_format=True)
    return uids


def _common(image: Volume, *, patient: str, study_uid: str, series_uid: str) -> Dataset:
    """What all slices of a series share."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = pydicom.uid.PYDICOM_IMPLEMENTATION_UID
    header = Dataset()
    header.file_meta = meta
    header.SOPClassUID = CTImageStorage
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.StudyDate = header.SeriesDate = header.ContentDate = STUDY_DATE
    header.StudyTime = header.ContentTime = "000000"
    header.AccessionNumber = ""
    header.Modality = "CT"
    header.Manufacturer = "parts2whole phantom"
    header.ReferringPhysicianName = ""
    header.SeriesDescription = "synthetic anatomy, not a patient"
    header.PatientName = patient
    header.PatientID = patient
    header.PatientBirthDate = ""
    header.PatientSex = ""
    header.PatientPosition = "HFS"
    header.KVP = "120"
    header.SliceThickness = _decimal(image.spacing_mm[0])
    header.StudyInstanceUID = study_uid
    header.SeriesInstanceUID = series_uid
    header.FrameOfReferenceUID = make_uid(series_uid, "frame")
    header.PositionReferenceIndicator = ""
    header.StudyID = ""
    header.SeriesNumber = 1
    header.AcquisitionNumber = 1
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = image.shape[1:]
    header.PixelSpacing = [_decimal(image.spacing_mm[1]), _decimal(image.spacing_mm[2])]
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = 1
    header.RescaleIntercept = str(INTERCEPT_HU)
    header.RescaleSlope = "1"
    header.RescaleType = "HU"
    return header


def _decimal(value: float) -> str:
    """A number as a decimal string of DICOM, which has at most 16 characters."""
    return f"{value:.6f}"[:16]
