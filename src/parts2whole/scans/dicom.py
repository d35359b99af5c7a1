"""DICOM series: files in, volumes out, each with the order of its slices, or the reason why it is none.

`dicom_slices` makes slices of headers, `dicom_sort` volumes of slices (with `dicom_stacks`: is it one, and
`dicom_apart`: is it several), and `dicom_voxels` decodes them.
Patient ids leave this module only as salted hashes.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydicom
from filelock import FileLock
from pydicom.errors import InvalidDicomError

from parts2whole.errors import first_line
from parts2whole.files import replacing
from parts2whole.scans.dicom_slices import NO_PLACE, TAGS, Other, Slice, kind_of, slices_of
from parts2whole.scans.dicom_sort import BROKEN_COPIES, COPIES, sort_slices
from parts2whole.scans.dicom_voxels import BROKEN, Voxels, read_slices
from parts2whole.scans.layout import is_dicom
from parts2whole.scans.source import Raw, ReadError, ScanSource, hashed

DIRECTORY = "1.2.840.10008.1.3.10"
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
LOST_SHARE = 0.05
"""Of the slices of a series; more that have lost their place than this, and one, are no oddity."""


def is_directory(path: Path) -> bool:
    """Whether a file is a DICOMDIR, an index of other files."""
    try:
        return str(pydicom.filereader.read_file_meta_info(path).get("MediaStorageSOPClassUID")) == DIRECTORY
    except BROKEN:
        return False


def find_series(paths: Iterable[Path], *, salt: bytes, keep_uids: bool = False) -> list[ScanSource]:
    """Sort DICOM files into volumes, one source each, those that can't be used with their problem.

    A series is the files of one study, one series UID and one patient: tools that remove identities give the
    same UID to the series of several.  A patient is an id and who issued it; an id that files have without an
    issuer, too, is one patient's whoever issued it.
    """
    series: dict[tuple[str, str], dict[str, _Series]] = defaultdict(lambda: defaultdict(_Series))
    broken: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            header = _header(path)
            if header is not None:
                found = slices_of(header, path)
                study, uid = (str(header.get(n) or "") for n in ("StudyInstanceUID", "SeriesInstanceUID"))
                series[study, uid][str(header.get("PatientID") or "")].add(header, path, found)
        except BROKEN:
            broken[path.parent].append(path)
    _forget_issuers([each for by_patient in series.values() for each in by_patient.values()])
    sources: list[ScanSource] = []
    studies = Counter(uid for _, uid in series)
    for (study, uid), by_patient in sorted(series.items()):
        patients = _with_unnamed(by_patient)
        for each in patients:
            # Copied headers give series of several studies, or patients, one UID, which then isn't a name.
            known_by = f"{study} {uid}" if studies[uid] > 1 else uid or study or str(each.files[0])
            known_by += f" {each.patient}" if len(patients) > 1 else ""
            sources += _sources(known_by, uid, each, broken, salt, keep_uids)
    for folder, lost in broken.items():
        name = f"DICOM-broken-{hashed(str(folder), salt)}"
        problem = f"{len(lost)} file{'s are' if len(lost) > 1 else ' is'} broken DICOM"
        sources.append(ScanSource(name, tuple(lost), problem, series="-"))
    return sources


def read_series(source: ScanSource) -> Raw:
    """Read a volume that `find_series` found.

    Raises:
        ReadError: a slice is broken, or its files have changed.
    """
    known: dict[Path, list[Slice] | Other] = {}
    slices = []
    try:
        for path, frame in source.slices():
            if path not in known:
                header = _header(path)
                known[path] = Other("a DICOMDIR", ()) if header is None else slices_of(header, path)
            found = known[path]
            if isinstance(found, Other):
                raise ReadError(f"{path.name} has changed: {found.reason}")
            slices.append(found[frame])
    except BROKEN as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{path.name}: broken DICOM: {first_line(error)}") from error
    return read_slices(slices)


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


class _Series:
    """What the files of one series hold."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.slices: list[Slice] = []
        self.others: list[Other] = []
        self.kinds: Counter[tuple[str, ...]] = Counter()
        self.modality = ""
        self.person, self.issuer, self.is_named = "", "", True

    def add(self, header: Any, path: Path, found: list[Slice] | Other) -> None:
        """Add a file by its header and what that describes."""
        self.files.append(path)
        if not self.modality or not (self.slices or isinstance(found, Other)):
            self.modality = str(header.get("Modality") or "DICOM")
        self.issuer = self.issuer or str(header.get("IssuerOfPatientID") or "")
        if not self.person:
            study, uid = (str(header.get(name) or "") for name in ("StudyInstanceUID", "SeriesInstanceUID"))
            self.is_named = bool(header.get("PatientID"))
            self.person = str(header.get("PatientID") or study or uid)
        if isinstance(found, Other):
            self.others.append(found)
        else:
            self.slices += found
            self.kinds[kind_of(header)] += len(found)

    def take(self, other: _Series) -> None:
        """Add what another holds."""
        self.files += other.files
        self.slices += other.slices
        self.others += other.others
        self.kinds.update(other.kinds)

    @property
    def patient(self) -> str:
        """The id, as its issuer has it."""
        return f"{self.issuer}/{self.person}"

    @property
    def lost(self) -> int:
        """Images like the slices that have no place."""
        return sum(other.reason == NO_PLACE and other.kind in self.kinds for other in self.others)

    def problem(self) -> str | None:
        """Why none of it is a scan, or None."""
        reasons = Counter(other.reason for other in self.others)
        if not self.slices and list(reasons) != [NO_PLACE]:
            several = len(reasons) > 1
            return "; ".join(
                f"{n} of {len(self.files)} files: {why}" if several else why for why, n in reasons.items()
            )
        lost = self.lost if self.slices else len(self.others)
        if not self.slices or lost > max(1, LOST_SHARE * len(self.slices)):
            return f"{lost} of {len(self.others) + len(self.slices)} images have {NO_PLACE}"
        return None


def _forget_issuers(series: Sequence[_Series]) -> None:
    """Take ids that some files have without an issuer for one patient's."""
    without = {each.person for each in series if each.slices and not each.issuer}
    for each in series:
        if each.person in without:
            each.issuer = ""


def _with_unnamed(by_patient: Mapping[str, _Series]) -> list[_Series]:
    """A series for every patient id; files without one go to the only patient there is."""
    named = [series for patient, series in sorted(by_patient.items()) if patient]
    unnamed = by_patient.get("")
    if unnamed and len(named) == 1:
        named[0].take(unnamed)
        return named
    return [*named, *([unnamed] if unnamed else [])]


def _header(path: Path) -> Any:
    """What is needed of a header, None for a DICOMDIR."""
    if not is_dicom(path):
        raise InvalidDicomError(f"{path.name} is no DICOM")
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=True)
    stored = header.get("MediaStorageSOPClassUID", header.file_meta.get("MediaStorageSOPClassUID"))
    return None if stored == DIRECTORY else header


def _sources(
    known_by: str, uid: str, series: _Series, broken: Mapping[Path, list[Path]], salt: bytes, keep_uids: bool
) -> list[ScanSource]:
    """The volumes of one series."""
    name = f"{series.modality}-{hashed(known_by, salt)}"
    common: dict[str, Any] = {
        "patient": hashed(series.patient, salt),
        "patient_named": series.is_named,
        "series": uid if keep_uids else hashed(uid, salt),
    }
    problem = series.problem()
    if problem:
        return [ScanSource(name, tuple(series.files), problem, **common)]
    found = sort_slices(series.slices, Voxels())
    notes = [_left_out(reason, n) for reason, n in found.left_out.items() if n]
    notes += [
        f"{_images(n)} left out: {reason}" for reason, n in Counter(o.reason for o in series.others).items()
    ]
    beside = sum(len(broken.get(folder, ())) for folder in {path.parent for path in series.files})
    notes += [f"{beside} broken DICOM file{'s' * (beside > 1)} beside it"] * (beside > 0)
    sources = []
    for number, stack in enumerate(found.stacks, 1):
        case = name if len(found.stacks) == 1 else f"{name}-{number}"
        trouble = stack.problem
        if trouble:  # what was left out may be what is missing
            trouble = "; ".join([trouble, *notes])
        paths = tuple(dict.fromkeys(each.path for each in stack.slices))
        frames: tuple[tuple[int, int], ...] = ()
        if any(each.frame is not None for each in stack.slices):
            index = {path: i for i, path in enumerate(paths)}
            frames = tuple((index[each.path], each.frame or 0) for each in stack.slices)
        sources.append(
            ScanSource(case, paths, trouble, notes=(*notes, *stack.notes), frames=frames, **common)
        )
    return sources


def _left_out(reason: str, count: int) -> str:
    if reason in (COPIES, BROKEN_COPIES):
        what = reason if count > 1 else reason.replace("copies of slices", "copy of a slice")
        return f"{count} {what} left out"
    return f"{_images(count)} left out: {reason}"


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"
