"""Stamps: short texts that tell whether files, and cases made of them, are still the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence

from parts2whole.spec import digest


def stamp_files(files: Iterable[tuple[str, Sequence[os.stat_result]]]) -> str:
    """A hash of the names of files and of what the disk says of each, and of the data files it names."""
    hasher = hashlib.sha256()
    for name, stats in files:
        text = " ".join(f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats)
        hasher.update(f"{name}\0{text}\n".encode(errors="surrogateescape"))
    return hasher.hexdigest()[:32]


def stamp_case(
    files: str,
    patient: str | None,
    *,
    box: object = None,
    which: object = None,
    said: str = "",
    made: str = "",
) -> str:
    """A hash of a case, as stores since version 0.1.0 keep it.

    Args:
        files: the stamp of its files.
        patient: whose it is.
        box: what is cut out of it.
        which: of several volumes.
        said: what the finder of its scans said of them, see `say_scan`.
        made: how its label map is made, where no file is one.
    """
    return digest([files, patient, str(box), which, said, *([made] if made else [])])


def say_scan(problem: str | None = None, series: str = "", frames: object = ()) -> str:
    """What the finder said of a scan, for its stamp; the default is what it says of a NIfTI file."""
    return f"{problem}{series}{frames or ''}"
