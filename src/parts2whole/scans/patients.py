"""Whose scan is it?  What paths and file names say of patients, so that nobody is on two sides of a split.

In this order: the user's own pattern; what a file or a table says; BIDS (``sub-``, ``ses-``,
``participants.tsv``); equal names in folders that are named after modalities.  What none of it tells stays a
patient of its own.  Where a rule errs, it takes two patients for one: that costs a split some freedom, while
the opposite lets a test patient into training.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath

from parts2whole.errors import Parts2WholeError
from parts2whole.scans.find import strip_suffix

BY_PATTERN = "patient_pattern"
BY_SEPARATOR = "patient_separator"
BY_DICOM = "DICOM PatientID (hashed)"
BY_BIDS = "BIDS subjects"
BY_PARTICIPANTS = "participants.tsv"
BY_STUDY = "DICOM studies, as PatientID is empty"
BY_MODALITY = "equal names in folders of modalities"
BY_NAME = "names, each image a patient of its own"
"""What patients are told apart by, in words."""

PARTICIPANTS = "participants.tsv"
SUBJECT = re.compile(r"(sub-[A-Za-z0-9+]+)(?=[_.]|$)")
SESSION = re.compile(r"^(.*[^/_])[/_]ses-[A-Za-z0-9+]+(?=[/_.]|$)")
BESIDE_RAW = frozenset({"derivatives", "sourcedata", "rawdata"})
"""Folders of a BIDS data set that repeat its subjects."""

OF_IMAGES = frozenset({"images", "imagestr", "imagests"})

MODALITY = re.compile(
    r"(ct|cta|ctpa|cbct|ldct|ncct|mr|mri|mra|mrt|t1|t1w|t1n|t1c|t1ce|t1gd|t1km|t2|t2w|t2f|t2star|flair|dwi|adc|dti"
    r"|swi|pd|pdw|dce|dsc|bold|pet|pt|fdg|psma|suv|spect|nm|us)"
    r"([-_ +]?(contrast|ce|pre|post|native|arterial|venous|portal|delayed|plain"
    r"|ct|mr|t1|t1w|t2|t2w|flair|dwi|adc|pd|pet|fs))*",
    re.IGNORECASE,
)
"""A folder or file that is named after nothing but a modality, a sequence or a phase."""


class PatientError(Parts2WholeError, ValueError):
    """A pattern that doesn't say who is who."""


@dataclasses.dataclass(frozen=True)
class Told:
    """A patient, and what told so."""

    patient: str
    by: str


def tell_patients(
    files: Mapping[str, Path],
    *,
    roots: Iterable[str | Path] = (),
    pattern: str | None = None,
    given: Mapping[str, Told] | None = None,
    studies: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> dict[str, Told]:
    """Say whose every scan is.

    Args:
        files: a file of every case.
        roots: folders that were searched; paths are looked at from there, or from the folder that all share.
        pattern: a regular expression with one group, which is the patient, searched for in the path from
            there (with ``/`` between folders, and the file's suffix); it counts before all else.
        given: what is known from elsewhere, such as from the files' headers.
        studies: of DICOM series without a patient id; they count where nothing but the names is left.
        names: what to call a patient that nothing else tells, for every case; default the case's own name.

    Returns:
        The patient of every case.

    Raises:
        PatientError: the pattern is no regular expression with one group, or doesn't match every path.
    """
    base, paths = _from_common_folder(files, roots)
    if pattern is not None:
        return {case: Told(patient, BY_PATTERN) for case, patient in _match(paths, pattern).items()}
    told = dict(given or {})
    left = {case: path for case, path in paths.items() if case not in told}
    participants = _read_participants(base, left.values())
    for case, path in left.items():
        found = _bids_subject(path) or _participant(path, participants)
        if found is not None:
            told[case] = found
    own = {case: (names or {}).get(case, case) for case in files}
    first = _same_name_in_modalities({case: path for case, path in left.items() if case not in told})
    told |= {case: Told(own[other], BY_MODALITY) for case, other in first.items()}
    told = {case: Told(study, BY_STUDY) for case, study in (studies or {}).items()} | told
    return {case: told.get(case, Told(own[case], BY_NAME)) for case in files}


def _from_common_folder(
    files: Mapping[str, Path], roots: Iterable[str | Path]
) -> tuple[Path, dict[str, PurePosixPath]]:
    """The folder that holds all roots with files in them, and all other files; and the paths from there."""
    absolute = {case: Path(os.path.abspath(file)) for case, file in files.items()}
    above = {folder for file in absolute.values() for folder in file.parents}
    searched = above & {Path(os.path.abspath(root)) for root in roots}
    outside = {file.parent for file in absolute.values() if searched.isdisjoint(file.parents)}
    base = Path(os.path.commonpath(searched | outside)) if absolute else Path()
    return base, {case: PurePosixPath(file.relative_to(base).as_posix()) for case, file in absolute.items()}


def _match(paths: Mapping[str, PurePath], pattern: str) -> dict[str, str]:
    """The group of a pattern in every path."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise PatientError(f"patient_pattern {pattern!r} is no regular expression: {error}") from error
    if compiled.groups != 1:
        raise PatientError(
            f"patient_pattern {pattern!r} has {compiled.groups} groups; it needs one pair of parentheses, "
            "around the patient: (?:...) groups without catching"
        )
    found = {case: compiled.search(str(path)) for case, path in paths.items()}
    patients = {case: match[1] for case, match in found.items() if match and match[1]}
    lost = [str(paths[case]) for case in paths if case not in patients]
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise PatientError(
            f"patient_pattern {pattern!r} finds no patient in {len(lost)} of {len(paths)} paths: "
            f"{', '.join(lost[:3])}{more}; let it match every one of them"
        )
    return patients


def _bids_subject(path: PurePosixPath) -> Told | None:
    """The subject a path is about, with its data set's folder; ``ses-`` alone ends a name, too."""
    subject = SUBJECT.match(path.name)
    folders = path.parts[:-1]
    within = next((folder for folder in reversed(folders) if SUBJECT.fullmatch(folder)), None)
    if subject or within:
        name = subject[1] if subject else str(within)
        before = folders[: folders.index(name)] if name in folders else folders
        return Told("/".join([*_data_set(before), name]), BY_BIDS)
    session = SESSION.match(str(path))
    if not session:
        return None
    *above, last = _without_modalities(session[1].split("/")) or [session[1]]
    return Told("/".join([*_data_set(above), last]), BY_BIDS)


def _data_set(folders: Sequence[str]) -> list[str]:
    """The folders of a data set above its subjects, without those that hold the same subjects again."""
    kept = _without_modalities(folders)
    return kept[: next((place for place, part in enumerate(kept) if part in BESIDE_RAW), None)]


def _without_modalities(parts: Iterable[str]) -> list[str]:
    return [part for part in parts if not (MODALITY.fullmatch(part) or part.lower() in OF_IMAGES)]


def _read_participants(base: Path, paths: Iterable[PurePosixPath]) -> list[str]:
    """Ids in every participants.tsv in the folders of some paths, the longest first."""
    found: set[str] = set()
    for folder in {folder for path in paths for folder in path.parents}:
        file = base / folder / PARTICIPANTS
        if file.is_file():
            with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
                rows = csv.DictReader(text, delimiter="\t")
                found |= {(row.get("participant_id") or "").strip() for row in rows}
    return sorted(found - {"", "n/a"}, key=lambda name: (-len(name), name))


def _participant(path: PurePosixPath, participants: Sequence[str]) -> Told | None:
    """The participant that a folder is called after, or a file's name begins with."""
    stem = strip_suffix(path.name)
    for name in participants:
        begins = stem.startswith(name) and not stem[len(name) : len(name) + 1].isalnum()
        if begins or name in path.parts[:-1]:
            return Told(name, BY_PARTICIPANTS)
    return None


def _same_name_in_modalities(paths: Mapping[str, PurePosixPath]) -> dict[str, str]:
    """Cases whose paths are the same but for what is named after modalities, and the first of these cases."""
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for case, path in sorted(paths.items()):
        parts = (*path.parts[:-1], strip_suffix(path.name))
        kept = tuple(part for part in parts if not MODALITY.fullmatch(part))
        if kept and kept != parts:
            alike[kept].append(case)
    return {case: cases[0] for cases in alike.values() if len(cases) > 1 for case in cases}
