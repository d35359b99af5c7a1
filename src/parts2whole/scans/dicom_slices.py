"""Slices from the headers of DICOM files: a classic image is one slice, a multi-frame object is many.

What a classic header says of an image, a multi-frame object (enhanced CT, MR and PET, and classic series
converted to them) says in functional groups: those that all frames share, and those of each.  Nuclear
medicine has a third way, vectors with a number a frame.  All become `Slice`, and are sorted alike.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.datadict import keyword_for_tag
from pydicom.uid import UID

UNDECODED = re.compile(r"1\.2\.840\.10008\.1\.2\.(4\.9[45]|4\.1\d\d|4\.20\d|7\.\d)")
"""Transfer syntaxes of streams, video, JPEG XL and high-throughput JPEG 2000, which GDCM can't decode."""

NUCLEAR_MEDICINE = "1.2.840.10008.5.1.4.1.1.20"
NOT_SCANS = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # label map segmentation
    "1.2.840.10008.5.1.4.1.1.30",  # parametric map
    "1.2.840.10008.5.1.4.1.1.481.2",  # dose
    "1.2.840.10008.5.1.4.1.1.4.2",  # spectroscopy
)
"""Objects of rows and columns whose values aren't those of a scan."""

NO_PLACE = "no place in the patient (secondary capture?)"
UNIT_TOLERANCE = 0.02
"""Row and column directions may be this far from unit length and from a right angle."""

FARTHEST_MM = 1e6
"""No place or spacing is larger."""

MARKS = (
    *("StackID", "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "DiffusionBValue", "InversionTime"),
    *("NominalPercentageOfCardiacPhase", "ImageType", "ConvolutionKernel", "KVP", "FrameOfReferenceUID"),
    *("AcquisitionNumber", "TriggerTime", "FrameReferenceTime"),
    *("AcquisitionDateTime", "AcquisitionTime", "ContentTime", "InstanceNumber"),
)
"""What may tell images of one series apart."""

PRIVATE_MARKS = {
    "private b-value (Siemens)": (0x0019, 0x100C),
    "private b-value (GE)": (0x0043, 0x1039),
    "private b-value (Philips)": (0x2001, 0x1003),
}

GROUP_MARKS = {
    "FrameContentSequence": (
        *("StackID", "TemporalPositionIndex", "FrameAcquisitionNumber"),
        *("FrameAcquisitionDateTime", "FrameReferenceDateTime"),
    ),
    "TemporalPositionSequence": ("TemporalPositionTimeOffset",),
    "MREchoSequence": ("EffectiveEchoTime",),
    "MRDiffusionSequence": ("DiffusionBValue", "DiffusionDirectionality"),
    "MRModifierSequence": ("InversionTimes",),
    "MRTimingAndRelatedParametersSequence": ("FlipAngle", "RepetitionTime"),
    "MRImageFrameTypeSequence": ("FrameType", "ComplexImageComponent"),
    "CTImageFrameTypeSequence": ("FrameType",),
    "PETFrameTypeSequence": ("FrameType",),
    "CTReconstructionSequence": ("ConvolutionKernel",),
    "CTXRayDetailsSequence": ("KVP",),
    "CardiacSynchronizationSequence": ("NominalPercentageOfCardiacPhase", "NominalCardiacTriggerDelayTime"),
    "RespiratorySynchronizationSequence": ("NominalPercentageOfRespiratoryPhase",),
    "UnassignedPerFrameConvertedAttributesSequence": MARKS,
}
"""The same in the functional groups of a multi-frame object."""

DIMENSION = "dimension "
"""Begins the marks of the dimensions that a multi-frame object says it has."""

VECTORS = (
    *("EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector", "RRIntervalVector"),
    *("TimeSlotVector", "AngularViewVector", "TimeSliceVector"),
)
"""The same in nuclear medicine, where a number a frame counts each of them."""

TAGS: list[Any] = [
    *MARKS,
    *PRIVATE_MARKS.values(),
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("PatientID", "IssuerOfPatientID", "Modality", "Rows", "Columns", "NumberOfFrames"),
    *("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"),
    *("SliceThickness", "SpacingBetweenSlices", "SamplesPerPixel", "PhotometricInterpretation"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence"),
    *("DetectorInformationSequence", "SliceVector", *VECTORS),
]
"""What of a header is read."""


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """One image with its place.

    Attributes:
        path: its file.
        frame: of a multi-frame object, its index; None for a classic image.
        instance: SOPInstanceUID.
        position: LPS (x, y, z) of the first voxel, in mm.
        orientation: LPS unit vectors along a row and along a column.
        pixel_spacing_mm: between rows, and between columns.
        size: rows and columns.
        slope: rescale slope, None where the header has none, which means 1.
        intercept: rescale intercept, None means 0.
        modality: CT, MR, ...
        thickness_mm: of the slice.
        planned_mm: between neighbours, as the scanner planned it.
        marks: what may tell it from others of its series, by keyword.
        problem: why its voxels can't be read.
    """

    path: Path
    frame: int | None
    instance: str
    position: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    pixel_spacing_mm: tuple[float, float]
    size: tuple[int, int]
    slope: float | None
    intercept: float | None
    modality: str
    thickness_mm: float | None
    planned_mm: float | None
    marks: Mapping[str, str]
    problem: str | None

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """Unit vector across the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])


@dataclasses.dataclass(frozen=True)
class Other:
    """An image, or a whole object, that is no slice.

    Attributes:
        reason: why.
        kind: class, size and type of the image: a slice that has lost its place is like the others.
    """

    reason: str
    kind: tuple[str, ...]


def kind_of(header: Any) -> tuple[str, ...]:
    """Class, size and type of an image."""
    return tuple(str(header.get(name)) for name in ("SOPClassUID", "Rows", "Columns", "ImageType"))


def slices_of(header: Any, path: Path) -> list[Slice] | Other:
    """The slices of a file from its header, which holds at least `TAGS`."""
    reason = _not_an_image(header)
    if reason:
        return Other(reason, kind_of(header))
    frames = int(header.get("NumberOfFrames") or 1)
    if "PerFrameFunctionalGroupsSequence" in header:
        described = len(header.PerFrameFunctionalGroupsSequence)
        if described != frames:
            return Other(
                f"a multi-frame object of {frames} frames that describes {described}", kind_of(header)
            )
        found = [_slice(header, path, number, view) for number, view in enumerate(_frames(header))]
    elif header.get("SOPClassUID") == NUCLEAR_MEDICINE:
        found = [_slice(header, path, number, view) for number, view in _nuclear_frames(header, frames)]
    elif frames > 1:
        found = []
    else:
        lone = _slice(header, path, None, _classic(header))
        return Other(NO_PLACE, kind_of(header)) if lone is None else [lone]
    placed = [each for each in found if each is not None]
    if not placed or len(placed) < len(found):
        some = "frames have" if not placed else f"{len(found) - len(placed)} of {len(found)} frames have"
        return Other(f"a multi-frame object ({class_name(header)}) whose {some} {NO_PLACE}", kind_of(header))
    return placed


def class_name(header: Any) -> str:
    """What kind of object a file says it is."""
    uid = header.get("SOPClassUID")
    return str(uid.name) if uid else f"an object of modality {header.get('Modality')}"


def _not_an_image(header: Any) -> str | None:
    """Why an object, whatever its place, is no slice of a scan."""
    name = class_name(header)
    has_size = bool(header.get("Rows") and header.get("Columns"))
    if header.get("SOPClassUID") in NOT_SCANS or (not has_size and "Image" not in name):
        return f"not an image but {name}"
    if not has_size:
        return f"an image without rows and columns ({name})"
    photometric = str(header.get("PhotometricInterpretation") or "")
    if (header.get("SamplesPerPixel") or 1) > 1 or photometric.startswith(("RGB", "YBR", "PALETTE")):
        return "a colour image"
    if "LOCALIZER" in str(header.get("ImageType") or "").upper():
        return "a localiser"
    return None


@dataclasses.dataclass(frozen=True)
class _View:
    """Where the values of one frame are: the first of these that has one, and its marks."""

    measures: tuple[Any, ...]
    marks: dict[str, str]
    position: Any
    orientation: Any

    def get(self, keyword: str) -> Any:
        return next((found for each in self.measures if (found := each.get(keyword)) is not None), None)


def _classic(header: Any) -> _View:
    return _View(
        (header,),
        _marks(header, MARKS) | _private_marks(header),
        header.get("ImagePositionPatient"),
        header.get("ImageOrientationPatient"),
    )


def _frames(header: Any) -> Iterator[_View]:
    """A view of every frame: its own functional groups, those that all share, the header."""
    shared = _first(header, "SharedFunctionalGroupsSequence")
    dimensions = [
        f"{DIMENSION}{keyword_for_tag(item.get('DimensionIndexPointer') or 0) or number}"
        for number, item in enumerate(header.get("DimensionIndexSequence") or (), 1)
    ]
    for own in header.PerFrameFunctionalGroupsSequence:
        items: dict[str, Any] = {}
        for name in (*GROUP_MARKS, "PlanePositionSequence", "PlaneOrientationSequence", *MEASURES):
            sequence = own.get(name) or shared.get(name)
            if sequence:
                items[name] = sequence[0]
        marks = _marks(header, ("ImageType", "FrameOfReferenceUID", "AcquisitionNumber"))
        for name, keywords in GROUP_MARKS.items():
            marks |= _marks(items.get(name, {}), keywords)
        direction = _first(items.get("MRDiffusionSequence", {}), "DiffusionGradientDirectionSequence")
        marks |= _marks(direction, ("DiffusionGradientOrientation",))
        indices = np.atleast_1d(items.get("FrameContentSequence", {}).get("DimensionIndexValues") or ())
        marks |= dict(zip(dimensions, map(str, indices), strict=False))
        yield _View(
            (*(items[name] for name in MEASURES if name in items), header),
            marks,
            items.get("PlanePositionSequence", {}).get("ImagePositionPatient"),
            items.get("PlaneOrientationSequence", header).get("ImageOrientationPatient"),
        )


MEASURES = ("PixelMeasuresSequence", "PixelValueTransformationSequence")


def _nuclear_frames(header: Any, frames: int) -> Iterator[tuple[int, _View]]:
    """A view of every frame of a reconstructed nuclear medicine image.

    Frame k lies at the first one's position + (number of its slice - 1) * SpacingBetweenSlices * normal
    (DICOM PS3.3 C.8.4.15); projections have no SliceVector, and no place.
    """
    detector = _first(header, "DetectorInformationSequence")
    numbers = np.atleast_1d(header.get("SliceVector") or ())
    spacing = header.get("SpacingBetweenSlices")
    first, orientation = (
        header.get(name) or detector.get(name) for name in ("ImagePositionPatient", "ImageOrientationPatient")
    )
    if len(numbers) != frames or spacing is None or first is None or len(orientation or ()) != 6:
        return
    rows, columns = np.split(np.array(orientation, dtype=float), 2)
    vectors = {name: np.atleast_1d(header.get(name) or ()) for name in VECTORS}
    for frame in range(frames):
        place = np.array(first, dtype=float) + (int(numbers[frame]) - 1) * float(spacing) * np.cross(
            rows, columns
        )
        marks = {name: str(values[frame]) for name, values in vectors.items() if len(values) == frames}
        yield frame, _View((header,), marks, place, orientation)


def _slice(header: Any, path: Path, frame: int | None, view: _View) -> Slice | None:
    """A slice, or None if it has no place."""
    spacing = view.get("PixelSpacing")
    if [np.size(value) for value in (view.position, view.orientation, spacing)] != [3, 6, 2]:
        return None
    position, orientation = np.array(view.position, dtype=float), np.array(view.orientation, dtype=float)
    rows_mm, columns_mm = (float(mm) for mm in spacing)
    rows, columns = orientation[:3], orientation[3:]
    finite = bool((np.abs([*position, *orientation, rows_mm, columns_mm]) < FARTHEST_MM).all())
    off = np.abs([rows @ rows - 1, columns @ columns - 1, rows @ columns]).max()
    if not finite or min(rows_mm, columns_mm) <= 0 or off > UNIT_TOLERANCE:
        return None
    slope, intercept, thickness, planned = (
        None if (value := view.get(name)) is None else float(value)
        for name in ("RescaleSlope", "RescaleIntercept", "SliceThickness", "SpacingBetweenSlices")
    )
    return Slice(
        path,
        frame,
        str(header.get("SOPInstanceUID") or path),
        position,
        np.concatenate([rows / np.linalg.norm(rows), columns / np.linalg.norm(columns)]),
        (rows_mm, columns_mm),
        (int(header.Rows), int(header.Columns)),
        slope,
        intercept,
        str(header.get("Modality") or "DICOM"),
        thickness,
        abs(planned) if planned else thickness,
        view.marks,
        _unreadable(header, slope),
    )


def _unreadable(header: Any, slope: float | None) -> str | None:
    """Why voxels that have a place can't be read."""
    syntax = UID(header.file_meta.get("TransferSyntaxUID") or "")
    if UNDECODED.fullmatch(syntax):
        return f"compressed as {syntax.name}, which can't be decoded here; store it uncompressed first"
    if "ModalityLUTSequence" in header:
        return "its voxels need a modality look-up table, which isn't read"
    if slope is not None and (slope == 0 or not np.isfinite(slope)):
        return f"its RescaleSlope is {slope:g}"
    return None


def _first(item: Any, sequence: str) -> Any:
    """The first item of a sequence, or an empty one."""
    return next(iter(item.get(sequence) or ({},)))


def _marks(item: Any, keywords: tuple[str, ...]) -> dict[str, str]:
    return {keyword: text for keyword in keywords if (text := _text(item.get(keyword)))}


def _private_marks(header: Any) -> dict[str, str]:
    return {
        name: text
        for name, tag in PRIVATE_MARKS.items()
        if tag in header and (text := _text(header[tag].value))
    }


def _text(value: Any) -> str:
    """A value as a text to compare by; numbers that differ by rounding are equal."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
