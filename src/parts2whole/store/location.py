"""Where a store lies: a local folder, or a folder of an object store that fsspec knows (``s3://bucket/store``).

A place behaves as a `pathlib.Path`, whatever it is.  What differs is here: objects can't be renamed at once,
but each is put whole or not at all, so a case is built in a local folder, and its record is put last.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

from parts2whole.errors import Parts2WholeError
from parts2whole.extras import install_hint

MANIFEST = "manifest.json"
"""The file that a folder is a store by."""


class LocationError(Parts2WholeError, ValueError):
    """A place that can't be reached."""


def to_location(path: str | Path) -> Path:
    """A folder by its path or URL.

    Raises:
        LocationError: the library for this kind of URL isn't installed.
    """
    if not isinstance(path, str) or "://" not in path:
        return Path(path) if isinstance(path, str) else path
    try:
        from upath import UPath

        place = UPath(path)
        if type(place.fs).__name__ == "LocalFileSystem":
            return Path(place.path)
    except (ImportError, ValueError) as error:
        raise LocationError(
            f"{path} can't be opened: {error}; {install_hint('remote')}, and the library for this "
            "kind of URL, such as s3fs or gcsfs"
        ) from error
    return cast(Path, place)


def tell_used(place: Path) -> str:
    """Why no store can be made in a place, where something is in it; else nothing."""
    used = place.is_file() or (place.is_dir() and any(place.iterdir()))
    return f"{place} is in use; choose another folder, or empty it first" if used else ""


def is_local(place: Path) -> bool:
    """Whether a place is a folder of this machine, or mounted there."""
    return isinstance(place, Path)


def remove(place: Path) -> None:
    """Remove a folder with everything below, if it is there."""
    if is_local(place):
        shutil.rmtree(place, ignore_errors=True)
    elif place.exists():
        remote: Any = place
        remote.fs.rm(remote.path, recursive=True)
