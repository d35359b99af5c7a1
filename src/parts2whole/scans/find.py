"""Finding scans: folders, globs, lists and files become a sorted list of sources, each with a case id."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from parts2whole.scans import itk, nifti, ome_zarr
from parts2whole.scans.dicom import DICOM_SUFFIXES, find_series, is_directory, user_salt
from parts2whole.scans.layout import is_dicom, passed_over
from parts2whole.scans.source import ReadError, ScanSource, safe_name

SUFFIXES = (*nifti.SUFFIXES, *itk.SUFFIXES, *ome_zarr.SUFFIXES)
NEVER_DICOM = (
    *(
        ".raw",
        ".zraw",
        ".gz",
        ".zip",
        ".tar",
        ".npy",
        ".npz",
        ".mat",
        ".h5",
        ".hdf5",
        ".pt",
        ".pth",
        ".safetensors",
    ),
    *(
        ".txt",
        ".md",
        ".csv",
        ".tsv",
        ".json",
        ".yaml",
        ".yml",
        ".xml",
        ".html",
        ".py",
        ".log",
        ".db",
        ".sqlite",
    ),
    *(".pdf", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".xlsx", ".docx", ".bval", ".bvec"),
)
_Found = tuple[Path, str, str | None]
"""A file, the name its case id is made from, and a problem."""


def find_scans(
    paths: Iterable[str | Path], *, salt: bytes | None = None, keep_series_uids: bool = False
) -> list[ScanSource]:
    """List scans in folders (with subfolders), globs, ``.txt`` lists of paths, and files.

    Below a folder that holds images and labels side by side, only images are scans.  Case ids of files come
    from their names and those of folders below the one named; case ids of DICOM series are salted hashes.
    Files found in one folder that differ in nothing but the suffix have a problem, see `name_twins`; files
    that are named one by one are meant.

    Args:
        paths: where to look.
        salt: secret to hash patient ids with; default the user's own, see `user_salt`.
        keep_series_uids: keep DICOM series UIDs as they are; by default they are hashed too.

    Returns:
        Sources sorted by case id; those that can't be used have a problem.

    Raises:
        ReadError: a path that doesn't exist, or a glob that matches nothing.
    """
    files: dict[str, _Found] = {}
    slices: dict[str, Path] = {}
    for path in paths:
        for found in _expand(path):
            file, _, problem = found
            place = os.path.abspath(file)
            if problem is None and not _has_suffix(file):
                slices.setdefault(place, file)
            else:
                files.setdefault(place, found)
    sources: list[ScanSource] = []
    taken: set[str] = set()
    for file, name, problem in sorted(files.values(), key=lambda found: (found[1], str(found[0]))):
        case_id = safe_name(strip_suffix(name))
        if case_id.lower() in taken:
            case_id = f"{case_id}-{hashlib.sha256(os.path.abspath(file).encode()).hexdigest()[:8]}"
        taken.add(case_id.lower())
        sources.append(ScanSource(case_id, (file,), problem))
    if slices:
        secret = user_salt() if salt is None else salt
        ordered = [slices[place] for place in sorted(slices)]
        for source in find_series(ordered, salt=secret, keep_uids=keep_series_uids):
            clash = source.case_id.lower() in taken
            sources.append(dataclasses.replace(source, case_id=f"{source.case_id}-d") if clash else source)
    return sorted(sources, key=lambda source: source.case_id)


def strip_suffix(name: str) -> str:
    """A file name without the suffix of a scan, in whatever case that is written."""
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def scan_files(folder: Path) -> list[Path]:
    """The files of one folder that are scans by their suffix, sorted; hidden ones are passed over.

    Raises:
        ReadError: two of them differ in nothing but the suffix, so that one name means both.
    """
    files = sorted(file for file in folder.iterdir() if _has_suffix(file) and not file.name.startswith("."))
    for file, problem in name_twins(files).items():
        raise ReadError(f"{file.parent}: {problem}")
    return files


def name_twins(files: Iterable[Path]) -> dict[Path, str]:
    """What is wrong with files that share folder and name but for the suffix (``a.nii`` beside ``a.nii.gz``).

    Which of them is the case, or whose label map a file of that name is, can't be known.
    """
    alike: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        alike[strip_suffix(os.path.abspath(file))].append(file)
    return {
        file: f"{' and '.join(sorted(each.name for each in same))} lie side by side, and which one is meant "
        "can't be known: move or rename all but one"
        for same in alike.values()
        if len(same) > 1
        for file in same
    }


def _expand(path: str | Path) -> list[_Found]:
    """Files named by one argument."""
    text, place = str(path), Path(path)
    if ome_zarr.is_ome_zarr(place):
        return [_single(place)]
    if place.is_dir():
        return _walk(place)
    if place.suffix.lower() == ".txt" and place.is_file():
        lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines()]
        listed = [place.parent / line for line in lines if line and not line.startswith("#")]
        return [found for each in listed for found in (_walk(each) if _is_folder(each) else [_single(each)])]
    if place.exists():
        return [_single(place)]
    if glob.has_magic(text):
        matches = sorted(Path(match) for match in glob.glob(text, recursive=True))
        if not matches:
            raise ReadError(f"nothing matches {text!r}")
        found = [found for each in matches for found in (_walk(each) if _is_folder(each) else _maybe(each))]
        return _mark_twins(found)
    raise ReadError(f"{text!r} doesn't exist; name folders, files, globs, or a .txt list of paths")


def _single(file: Path) -> _Found:
    """A file that was named, so that it can't be passed over."""
    if not file.is_file() and not ome_zarr.is_ome_zarr(file):
        return file, file.name, f"{file.name} doesn't exist"
    if not _maybe(file):
        return file, file.name, f"{file.name}: unknown format; known are DICOM and {', '.join(SUFFIXES)}"
    if not _has_suffix(file) and is_directory(file):
        return file, file.name, f"{file.name} is a DICOMDIR, an index of DICOM files: name its folder"
    return file, file.name, None


def _maybe(file: Path) -> list[_Found]:
    """A file, if it is a scan or a slice."""
    if file.name.startswith("."):
        return []
    suffix = file.suffix.lower()
    if _has_suffix(file) or suffix in DICOM_SUFFIXES or (suffix not in NEVER_DICOM and is_dicom(file)):
        return [(file, file.name, None)]
    return []


def _walk(root: Path) -> list[_Found]:
    """Scans below a folder; links are followed, but never to a folder that was visited."""
    found: list[_Found] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        stat = here.stat()
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
            problem = "a link to a folder that was searched already (a loop?), not followed"
            found.append((here, str(here.relative_to(root)), problem))
            continue
        seen.add((stat.st_dev, stat.st_ino))
        siblings = {name.lower() for name in folders}
        images = [name for name in folders if name.lower().endswith(ome_zarr.SUFFIXES)]
        folders[:] = [name for name in folders if name not in images]
        folders[:] = sorted(name for name in folders if not passed_over(name, siblings))
        for name in sorted([*files, *images]):
            file = here / name
            relative = str(file.relative_to(root))
            if _has_suffix(file) and not file.exists() and not name.startswith("."):
                found.append((file, relative, f"{name} is a link to nowhere"))
            else:
                found += [(file, relative, None) for _ in _maybe(file)]
    return _mark_twins(found)


def _mark_twins(found: list[_Found]) -> list[_Found]:
    twins = name_twins(file for file, _, problem in found if problem is None and _has_suffix(file))
    return [(file, name, problem or twins.get(file)) for file, name, problem in found]


def _is_folder(place: Path) -> bool:
    """Whether a path is a folder to look into, and no image by itself."""
    return place.is_dir() and not ome_zarr.is_ome_zarr(place)


def _has_suffix(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES)
