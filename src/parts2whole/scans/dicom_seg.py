"""DICOM segmentation objects out: a mask as binary segments, on the slices of the series it was made from."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pydicom.valuerep import format_number_as_ds

from parts2whole.errors import first_line
from parts2whole.extras import install_hint
from parts2whole.files import replacing
from parts2whole.scans.codes import ClassCodes, Code
from parts2whole.scans.dicom import read_series
from parts2whole.scans.dicom_voxels import BROKEN
from parts2whole.scans.source import Raw, ReadError, ScanSource
from parts2whole.scans.volume import from_canonical_array

SERIES_NUMBER = 100
"""Of the new series; scanners number theirs from 1."""

MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""What a segmentation repeats of its source, if it is there; series that lost it are common."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """A class of a mask.

    Attributes:
        name: what viewers show.
        value: of its voxels in the mask.
        codes: what it is.
    """

    name: str
    value: int
    codes: ClassCodes


def check_installed() -> None:
    """Look for the library that writes segmentations.

    Raises:
        ReadError: it isn't there.
    """
    _highdicom()


def write_segmentation(
    source: ScanSource, label: npt.NDArray[Any], segments: Sequence[Segment], out: Path, *, model: str
) -> None:
    """Write a mask as a DICOM segmentation of its series; the patient and the study are those of the series.

    Args:
        source: the series, as `find_scans` found it.
        label: integers (z, y, x) in canonical orientation, at the scan's own spacing.
        segments: the classes, numbered from 1 in this order; other values than theirs are background.
        out: the file, replaced if it exists.
        model: identifies what made the mask, in at most 64 characters.

    Raises:
        ReadError: no DICOM series, a mask of another shape, or headers that lack what a segmentation needs.
    """
    hd = _highdicom()
    if not source.is_series:
        raise ReadError(
            f"{source.paths[0].name} is no DICOM series, so no DICOM segmentation can refer to it"
        )
    raw = read_series(source)
    array = from_canonical_array(label, raw.direction)
    if array.shape != raw.array.shape[1:]:
        raise ReadError(f"the mask has shape {array.shape} (z, y, x), the scan has {raw.array.shape[1:]}")
    headers, order = _source_headers(source, raw)
    numbers = np.zeros((len(order), *array.shape[1:]), np.uint16)
    for number, segment in enumerate(segments, 1):
        numbers[order >= 0] += np.uint16(number) * (array[order[order >= 0]] == segment.value)
    name = f"parts2whole {version('parts2whole')}"
    method = hd.AlgorithmIdentificationSequence(
        name=name,
        family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        version=model,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on names of patients, which are as they are
            made = hd.seg.Segmentation(
                headers,
                numbers,
                hd.seg.SegmentationTypeValues.BINARY,
                [_description(hd, n, segment, method) for n, segment in enumerate(segments, 1)],
                series_instance_uid=generate_uid(),
                series_number=SERIES_NUMBER,
                sop_instance_uid=generate_uid(),
                instance_number=1,
                manufacturer="parts2whole",
                manufacturer_model_name="parts2whole",
                software_versions=name,
                device_serial_number=model,
                content_label="SEGMENTATION",
                series_description="Segmentation by parts2whole",
            )
    except (AttributeError, ValueError, TypeError, LookupError) as error:
        raise ReadError(f"no DICOM segmentation can be made of the series: {first_line(error)}") from error
    with replacing(out) as beside:
        made.save_as(beside, enforce_file_format=True)


def _source_headers(source: ScanSource, raw: Raw) -> tuple[list[Any], npt.NDArray[np.intp]]:
    """The headers that a segmentation is built on, and for each of their images the plane of the scan, or -1.

    Raises:
        ReadError: a volume in several multi-frame objects, or a broken file.
    """
    if source.frames and len(source.paths) > 1:
        raise ReadError(
            f"its slices are in {len(source.paths)} multi-frame objects, a segmentation can refer to one: "
            "--format nifti writes it"
        )
    headers = []
    for path in source.paths:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        except BROKEN as error:
            raise ReadError(f"{path.name}: broken DICOM: {first_line(error)}") from error
        for keyword in MAY_BE_EMPTY:
            if keyword not in header:
                setattr(header, keyword, "")
        if source.frames:
            _share_geometry(header, raw)
        elif not header.get("SliceThickness"):
            header.SliceThickness = _decimal(raw.spacing_mm[0])
        headers.append(header)
    planes = raw.array.shape[1]
    if not source.frames:
        return headers, np.arange(planes)
    order = np.full(int(headers[0].NumberOfFrames), -1)
    order[[frame for _, frame in source.frames]] = np.arange(planes)
    return headers, order


def _share_geometry(header: Any, raw: Raw) -> None:
    """Say for all frames of a multi-frame object what it may say frame by frame."""
    rows, columns = np.asarray(raw.direction)[:, 2], np.asarray(raw.direction)[:, 1]
    distance, *pixel = raw.spacing_mm
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [_decimal(mm) for mm in pixel], _decimal(distance)
    orientation.ImageOrientationPatient = [_decimal(value) for value in (*rows, *columns)]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    header.SharedFunctionalGroupsSequence = [shared]


def _decimal(value: float) -> str:
    """A number as a decimal string, which has at most 16 characters."""
    return format_number_as_ds(float(value))


def _description(hd: Any, number: int, segment: Segment, method: Any) -> Any:
    codes = segment.codes

    def concept(code: Code) -> Any:
        return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)

    made = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name,
        segmented_property_category=concept(codes.category),
        segmented_property_type=concept(codes.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=method,
    )
    if codes.modifier:
        kind = made.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(codes.modifier)]
    return made


def _highdicom() -> Any:
    try:
        return importlib.import_module("highdicom")
    except ImportError as error:
        raise ReadError(
            f"DICOM segmentations need highdicom ({error}): {install_hint('dicom-seg')}"
        ) from error
