"""DICOM series: files sorted into volumes by pydicom, voxels decoded by SimpleITK (all usual compressions).

A series becomes one volume, several (phases, echoes, stacks of different orientation), or is set aside with
its reason.  Patient ids leave this module only as salted hashes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK
from filelock import FileLock
from pydicom.errors import BytesLengthException, InvalidDicomError

from parts2whole.files import replacing
from parts2whole.scans.checks import LARGEST_SCAN_VOXELS, geometry
from parts2whole.scans.source import Raw, ReadError, ScanSource, first_line

_sitk: Any = SimpleITK  # without annotations
DIRECTORY = "1.2.840.10008.1.3.10"
SAME_DIRECTION = 0.01
"""Orientations whose cosines differ by less are one stack."""

UNEVEN, UNEVEN_MM = 0.1, 0.1
"""Slices may be this share of a spacing, or this far, off their place: positions often have few digits."""

TILT_DEGREES = 0.5
UNDECODED = re.compile(r"1\.2\.840\.10008\.1\.2\.(4\.9[45]|4\.1\d\d|4\.20\d|7\.\d)")
"""Transfer syntaxes of streams, video, JPEG XL and high-throughput JPEG 2000, which GDCM can't decode."""

PHASE_TAGS = (
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "EchoNumbers",
    "EchoTime",
    "DiffusionBValue",
    "TriggerTime",
    "StackID",
    "ImageType",
    "AcquisitionTime",
    "ContentTime",
)
"""What tells images at one position apart, the most telling first."""

TAGS = [
    *PHASE_TAGS,
    *(
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "PatientID",
        "IssuerOfPatientID",
    ),
    *("Modality", "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"),
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "InstanceNumber"),
]


@dataclasses.dataclass(frozen=True, eq=False)
class _Slice:
    """One file's header."""

    path: Path
    header: Any
    position: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        return np.cross(self.orientation[:3], self.orientation[3:])


BROKEN = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    NotImplementedError,
    OverflowError,
    MemoryError,
    struct.error,
)
"""What pydicom raises at files that are broken in one way or another."""


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes, with or without the preamble."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or start[:4] in (
        b"\x08\x00\x05\x00",
        b"\x08\x00\x08\x00",
        b"\x02\x00\x00\x00",
    )


def find_series(files: Iterable[Path], *, salt: bytes, keep_uids: bool = False) -> list[ScanSource]:
    """Sort DICOM files into volumes, one source each, those that can't be used with their problem."""
    series: dict[tuple[str, str], list[Any]] = defaultdict(list)
    broken: dict[Path, list[Path]] = defaultdict(list)
    for path in files:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
            if (
                header.get("MediaStorageSOPClassUID", header.file_meta.get("MediaStorageSOPClassUID"))
                == DIRECTORY
            ):
                continue
            uid = str(header.get("SeriesInstanceUID") or "")
            header.filename = str(path)
            series[str(header.get("StudyInstanceUID") or ""), uid].append(header)
        except BROKEN:
            broken[path.parent].append(path)
    sources: list[ScanSource] = []
    for (study, uid), headers in sorted(series.items()):
        try:
            sources += _series_sources(study, uid, headers, salt, keep_uids)
        except BROKEN:  # pydicom decodes a field when it is first asked for
            for header in headers:
                broken[Path(header.filename).parent].append(Path(header.filename))
    for folder, paths in broken.items():
        name = f"DICOM-broken-{_hashed(str(folder), salt)}"
        sources.append(ScanSource(name, tuple(paths), f"{len(paths)} files are broken DICOM", series="-"))
    return sources


def read_series(paths: Sequence[Path]) -> Raw:
    """Read a volume from its slices, in the order `find_series` gives.

    Every slice is decoded and rescaled by its own slope and intercept.

    Raises:
        ReadError: a slice is broken, or slices don't fit one volume.
    """
    planes: list[npt.NDArray[Any]] = []
    origins: list[npt.NDArray[np.float64]] = []
    image: Any = None
    modality = ""
    for path in paths:
        reader = _sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        try:
            image = reader.Execute()
        except (RuntimeError, MemoryError) as error:
            raise ReadError(f"a slice is truncated or broken: {path.name}: {_last_line(error)}") from error
        plane = _sitk.GetArrayFromImage(image)
        if plane.ndim != 3 or len(plane) != 1 or (planes and plane.shape[1:] != planes[0].shape):
            raise ReadError(f"{path.name}: expected one slice of the series' size, got shape {plane.shape}")
        planes.append(plane[0])
        origins.append(np.array(image.GetOrigin()))
        modality = modality or _tag(image, "0008|0060")
    columns = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    step = (origins[-1] - origins[0]) / max(1, len(origins) - 1)
    spacing, origin, direction = geometry(
        np.column_stack([step, columns[:, 1], columns[:, 0]]), origins[0], "the series"
    )
    return Raw(np.stack(planes)[None], spacing, origin, direction, modality or None)


def instance_numbers(paths: Sequence[Path]) -> list[int]:
    """The InstanceNumber of every file.

    Raises:
        ReadError: a file has none.
    """
    numbers = []
    for path in paths:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["InstanceNumber"], force=True)
        if header.get("InstanceNumber") is None:
            raise ReadError(f"{path.name} has no InstanceNumber")
        numbers.append(int(header.InstanceNumber))
    return numbers


def user_salt() -> bytes:
    """The secret that patient ids are hashed with, made on first use and kept in the user's configuration.

    It stays on this machine, so that hashes of one user agree between stores, and a store that is passed on
    can't be searched for known ids.
    """
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "parts2whole"
    file = folder / "salt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".salt.lock"):  # of two processes, the second takes the salt of the first
            if not file.exists():
                with replacing(file) as beside:
                    beside.touch(0o600)
                    beside.write_bytes(os.urandom(32))
    return file.read_bytes()


def _series_sources(
    study: str, uid: str, headers: list[Any], salt: bytes, keep_uids: bool
) -> list[ScanSource]:
    """The volumes of one series."""
    first = headers[0]
    modality = str(first.get("Modality") or "DICOM")
    name = f"{modality}-{_hashed(uid or study or str(first.filename), salt)}"
    person = f"{first.get('IssuerOfPatientID') or ''}/{first.get('PatientID') or study or uid}"
    common: dict[str, Any] = {
        "patient": _hashed(person, salt),
        "series": uid if keep_uids else _hashed(uid, salt),
    }
    files = tuple(Path(header.filename) for header in headers)
    problem = _not_a_scan(headers)
    if problem:
        return [ScanSource(name, files, problem, **common)]
    slices: list[_Slice] = []
    seen: set[str] = set()
    copies = 0
    for header in headers:
        instance = str(header.get("SOPInstanceUID") or header.filename)
        copies += instance in seen
        if instance not in seen:
            slices.append(
                _Slice(
                    Path(header.filename),
                    header,
                    np.array(header.ImagePositionPatient, dtype=float),
                    np.array(header.ImageOrientationPatient, dtype=float),
                )
            )
        seen.add(instance)
    notes = (f"{copies} copies of slices left out",) if copies else ()
    stacks = [phase for stack in _stacks(slices) for phase in _phases(stack)]
    sources = []
    for number, stack in enumerate(stacks):
        ordered = sorted(stack, key=lambda each: float(each.position @ stack[0].normal))
        case = name if len(stacks) == 1 else f"{name}-{number + 1}"
        trouble = _uneven(ordered)
        tilt = "" if trouble else _tilt(ordered)
        paths = tuple(each.path for each in ordered)
        sources.append(ScanSource(case, paths, trouble, notes=(*notes, *([tilt] if tilt else [])), **common))
    return sources


def _not_a_scan(headers: list[Any]) -> str | None:
    """Why a whole series isn't a scan, or None."""
    first = headers[0]
    if not (first.get("Rows") and first.get("Columns")):
        return f"not an image but {_class_name(first)}"
    if (first.get("SamplesPerPixel") or 1) > 1 or "RGB" in str(first.get("PhotometricInterpretation")):
        return "a colour or secondary-capture image"
    if str(first.get("PhotometricInterpretation")) == "PALETTE COLOR":
        return "a colour image"
    if any("LOCALIZER" in str(header.get("ImageType") or "").upper() for header in headers):
        return "a localiser"
    syntaxes = {header.file_meta.get("TransferSyntaxUID") for header in headers if header.file_meta} - {None}
    for syntax in syntaxes:
        if UNDECODED.fullmatch(syntax):
            return f"compressed as {syntax.name}, which can't be decoded here; store it uncompressed first"
    if any(int(header.get("NumberOfFrames") or 1) > 1 for header in headers):
        return "a multi-frame object; convert it to NIfTI or to single frames first"
    lost = sum(
        len(header.get("ImagePositionPatient") or ()) != 3
        or len(header.get("ImageOrientationPatient") or ()) != 6
        or len(header.get("PixelSpacing") or ()) != 2
        for header in headers
    )
    if lost:
        return f"{lost} of {len(headers)} images have no place in the patient (secondary capture?)"
    if len(headers) * int(first.Rows) * int(first.Columns) > LARGEST_SCAN_VOXELS:
        return f"{len(headers)} images of {first.Rows} x {first.Columns} are more than any scan may have"
    return None


def _stacks(slices: list[_Slice]) -> list[list[_Slice]]:
    """Slices of one orientation and size, the largest stack first."""
    groups: list[list[_Slice]] = []
    for each in slices:
        like = next((group for group in groups if _same_stack(each, group[0])), None)
        if like is None:
            groups.append([each])
        else:
            like.append(each)
    return sorted(groups, key=len, reverse=True)


def _same_stack(one: _Slice, other: _Slice) -> bool:
    (rows, columns), (rows_other, columns_other) = ((s.header.Rows, s.header.Columns) for s in (one, other))
    steps, steps_other = ([float(mm) for mm in s.header.PixelSpacing] for s in (one, other))
    return (
        (rows, columns) == (rows_other, columns_other)
        and np.allclose(steps, steps_other, rtol=1e-3)
        and bool(np.abs(one.orientation - other.orientation).max() < SAME_DIRECTION)
    )


def _phases(stack: list[_Slice]) -> list[list[_Slice]]:
    """Slices that share a position told apart by phase, echo or time."""
    if _is_simple(stack):
        return [stack]
    for tag in PHASE_TAGS:
        groups: dict[str, list[_Slice]] = defaultdict(list)
        for each in stack:
            groups[str(each.header.get(tag))].append(each)
        if len(groups) > 1 and all(_is_simple(group) for group in groups.values()):
            return [group for _, group in sorted(groups.items(), key=lambda item: _number(item[0]))]
    return [stack]


def _is_simple(stack: list[_Slice]) -> bool:
    """Whether no two slices share a position."""
    places = sorted(float(each.position @ stack[0].normal) for each in stack)
    return all(b - a > 1e-3 for a, b in itertools.pairwise(places))


def _uneven(ordered: list[_Slice]) -> str | None:
    """Why sorted slices aren't a volume, or None."""
    if len(ordered) < 2:
        return "a single slice"
    if not _is_simple(ordered):
        most = Counter(round(float(each.position @ ordered[0].normal), 3) for each in ordered).most_common(1)[
            0
        ][1]
        return f"up to {most} images at one position, and nothing tells them apart"
    places = np.array([each.position @ ordered[0].normal for each in ordered])
    steps = np.diff(places)
    usual = float(np.median(steps))
    gaps = steps[steps > 1.5 * usual]
    if len(gaps):
        missing = int(np.rint(gaps / usual - 1).sum())
        return (
            f"missing slices: about {missing} of {len(ordered) + missing}, in {len(gaps)} gaps; "
            f"the usual distance is {usual:.3g} mm, the largest {float(steps.max()):.3g} mm"
        )
    even = np.linspace(places[0], places[-1], len(places))
    if np.abs(places - even).max() > max(UNEVEN_MM, UNEVEN * usual):
        return f"non-uniform spacing: distances of slices from {steps.min():.3g} to {steps.max():.3g} mm"
    apart = np.diff([each.position for each in ordered], axis=0)
    if np.abs(apart - apart.mean(axis=0)).max() > max(1.0, UNEVEN * usual):
        return "slices are shifted against each other"
    return None


def _tilt(ordered: list[_Slice]) -> str:
    """A note on gantry tilt: the stack leans, so its axes aren't at right angles."""
    step = ordered[-1].position - ordered[0].position
    cosine = float(step @ ordered[0].normal) / float(np.linalg.norm(step))
    degrees = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return (
        f"gantry tilt of {degrees:.1f} degrees: slices are kept as they are" if degrees > TILT_DEGREES else ""
    )


def _class_name(header: Any) -> str:
    uid = header.get("SOPClassUID")
    return str(uid.name) if uid else f"an object of modality {header.get('Modality')}"


def _number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _hashed(text: str, salt: bytes) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), key=salt[:64], digest_size=6).hexdigest()


def _tag(image: Any, key: str) -> str:
    return str(image.GetMetaData(key)).strip() if image.HasMetaDataKey(key) else ""


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("sitk::ERROR: ") if lines else first_line(error)
