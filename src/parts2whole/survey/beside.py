"""What a search for scans passes over: folders of labels beside those of images, and files of other kinds."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from parts2whole.scans.itk import SUFFIXES, data_files
from parts2whole.scans.read import ReadError, ScanSource, find_scans, safe_name, strip_suffix


def look_around(paths: Sequence[str | Path]) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Folders of labels beside images with the folder each was found from, and every file below the paths."""
    roots: list[Path] = []
    for path in paths:
        globbed = glob.has_magic(str(path)) and not Path(path).exists()
        matches = sorted(glob.glob(str(path), recursive=True)) if globbed else [str(path)]
        roots += [Path(match) for match in matches if Path(match).is_dir()]
    beside: list[tuple[Path, Path]] = []
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for root in roots:
        for folder, below, names in os.walk(root, followlinks=True):
            here = Path(folder)
            stat = here.stat()
            if (stat.st_dev, stat.st_ino) in seen:
                below.clear()
                continue
            seen.add((stat.st_dev, stat.st_ino))
            below[:] = sorted(name for name in below if not name.startswith("."))
            siblings = {name.lower() for name in below}
            for name in below:
                rest = name.lower().removeprefix("labels")
                if rest != name.lower() and f"images{rest}" in siblings:
                    beside.append((root, here / name))
            files += [here / name for name in sorted(names) if not name.startswith(".")]
    return beside, files


def find_labels(beside: Sequence[tuple[Path, Path]], taken: set[str], salt: bytes | None) -> list[ScanSource]:
    """The files in folders of labels; ``taken`` are case ids in use, and those given here are added."""
    sources: list[ScanSource] = []
    known: set[tuple[Path, ...]] = set()
    for root, folder in beside:
        for source in find_scans([folder], salt=salt):
            if source.paths in known:
                continue
            known.add(source.paths)
            name = source.case_id
            if not source.is_series:
                name = safe_name(strip_suffix(str(source.paths[0].relative_to(root))))
            if name in taken:
                name = next(f"{name}-{n}" for n in itertools.count(2) if f"{name}-{n}" not in taken)
            taken.add(name)
            sources.append(dataclasses.replace(source, case_id=name))
    return sources


def count_others(files: Sequence[Path], sources: Sequence[ScanSource]) -> dict[str, int]:
    """How many of the files belong to none of the scans, by suffix."""
    read = {os.path.abspath(file) for source in sources for file in _files(source)}
    left = (file for file in files if os.path.abspath(file) not in read)
    return dict(sorted(Counter(file.suffix.lower() or "no suffix" for file in left).items()))


def _files(source: ScanSource) -> tuple[Path, ...]:
    """The files of a scan, with detached data."""
    if source.is_series or not source.paths[0].name.lower().endswith(SUFFIXES):
        return source.paths
    try:
        return data_files(source.paths[0])
    except ReadError:
        return source.paths
