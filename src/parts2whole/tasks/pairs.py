"""Images and label maps that pair by equal file names in two folders."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from parts2whole.errors import name_some
from parts2whole.scans.find import name_twins
from parts2whole.scans.patients import BY_SEPARATOR
from parts2whole.scans.read import SUFFIXES, ReadError, scan_files, strip_suffix
from parts2whole.store.ingest import SourceCase
from parts2whole.tasks.labelled import FoundCases, TaskError


def pair_folders(
    images: Path,
    labels: Path,
    patient_separator: str | None = None,
    *,
    channels: int | None = None,
    ending: str | None = None,
) -> FoundCases:
    """Cases of two folders; several channels are ``case_0000.nii.gz``, ``case_0001.nii.gz``.

    A case that hasn't the channels of the others is set aside.

    Args:
        images: folder of the images.
        labels: folder of the label maps.
        patient_separator: text that ends the patient's part of a file name; None takes each file for a
            patient of its own.
        channels: how many a case has, called 0000 and so on; None takes those that most cases have. Where
            files hold several channels, one file without a number is enough.
        ending: of the files that are meant; None takes every scan.

    Raises:
        TaskError: a folder is missing, an image or a label is alone, or two files share one name.
    """
    by_case = by_stem(labels, ending)
    if not by_case:
        raise TaskError(f"no label maps in {labels}; known are {ending or ', '.join(SUFFIXES)}")
    found: dict[str, dict[str, Path]] = {}
    for stem, path in by_stem(images, ending).items():
        case, _, channel = (stem, "", "") if stem in by_case else stem.rpartition("_")
        case, channel = (case, channel) if case in by_case else (stem, "")
        found.setdefault(case, {})[channel] = path
    unlabelled = sorted(set(found) - set(by_case))
    without_image = sorted(set(by_case) - set(found))
    if without_image:
        raise TaskError(f"labels without an image in {images}: {name_some(without_image)}")
    if unlabelled:
        raise TaskError(
            f"{len(unlabelled)} images have no label in {labels}: {name_some(unlabelled)}. Images and "
            "labels pair by equal file names; move unlabelled images elsewhere"
        )
    return _complete(found, by_case, patient_separator, channels)


def _complete(
    found: dict[str, dict[str, Path]], labels: dict[str, Path], separator: str | None, channels: int | None
) -> FoundCases:
    """Cases with the channels they should have; the others set aside, with what they lack."""
    if channels:
        wanted = frozenset(f"{n:04d}" for n in range(channels))
    else:
        counts = Counter(frozenset(files) for files in found.values())
        wanted = max(counts, key=lambda each: (counts[each], len(each)))
    cases, set_aside = [], {}
    for case, files in sorted(found.items()):
        names = set(files)
        if names == wanted or (channels and names == {""}):
            paths = tuple(files[name] for name in sorted(names))
            cases.append(SourceCase(case, paths, labels[case]))
            continue
        lack, more = (
            ", ".join(_say(case, each) for each in sorted(s)) for s in (wanted - names, names - wanted)
        )
        set_aside[case] = " and ".join(
            text
            for text in (lack and f"it has no {lack}", more and f"{more} isn't a channel of the others")
            if text
        )
    return FoundCases(separate_patients(cases, separator), set_aside)


def _say(case: str, channel: str) -> str:
    return f"{case}_{channel}" if channel else case


def separate_patients(cases: Sequence[SourceCase], separator: str | None) -> list[SourceCase]:
    """The cases with their patients, the part of their names before ``separator``.

    Where some names have it, the others are the patient's name alone, and folders don't count.
    """
    told = BY_SEPARATOR if separator and any(separator in case.case_id for case in cases) else ""
    return [
        dataclasses.replace(
            case,
            patient=case.case_id.partition(separator)[0] if separator else case.case_id,
            patient_by=told,
        )
        for case in cases
    ]


def by_stem(folder: Path, ending: str | None = None) -> dict[str, Path]:
    """Scans of a folder by their names without suffix.

    Raises:
        TaskError: the folder is missing, or two files share one name.
    """
    if not folder.is_dir():
        raise TaskError(f"{folder} doesn't exist")
    try:
        if ending is None:
            files = scan_files(folder)
        else:
            files = sorted(
                p for p in folder.iterdir() if p.name.lower().endswith(ending.lower()) and p.name[0] != "."
            )
            for problem in name_twins(files).values():
                raise ReadError(f"{folder}: {problem}")
    except ReadError as error:
        raise TaskError(str(error)) from error
    return {strip_suffix(path.name): path for path in files}
