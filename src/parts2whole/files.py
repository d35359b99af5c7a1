"""The one way a file is written: whole or not at all, down to the disk, and safe between processes.

A file is written beside its place, under a name that no other call has in this process or another, flushed,
and only then renamed: whoever reads sees the old file or the new one, after a crash too.  What a process
leaves that is killed on the way is hidden, ``.NAME.TOKEN.MACHINE.PROCESS.part``, until `sweep` removes it.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parts2whole.errors import Parts2WholeError

LONGEST_NAME = 100
"""Bytes of a name that its temporary one repeats; with the rest of it, it must not exceed 255."""

FULL = re.compile(r"no space left|disk quota exceeded|ENOSPC|EDQUOT", re.IGNORECASE)
"""What libraries say that don't hand the system's error on."""

LEFT = re.compile(r"\..*\.(?P<machine>[^.]+)\.(?P<process>\d+)\.part(\..*)?", re.DOTALL)


class DiskFullError(Parts2WholeError, OSError, ValueError):
    """No space is left, or none of the user's quota."""


class JsonError(Parts2WholeError, ValueError):
    """A file that isn't JSON."""


class PresentError(Parts2WholeError, ValueError):
    """A file that is there already, and isn't overwritten."""


def refuse_present(path: Path) -> None:
    """Raise `PresentError`, with a name that is free, if there is such a file already."""
    if path.exists():
        others = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
        other = next(one for one in others if not one.exists())
        raise PresentError(f"{path} is there already; remove it, or name another file: --out {other}")


def write_text(path: Path, text: str) -> Path:
    """Write a text as UTF-8; see `replacing`."""
    return write_bytes(path, text.encode())


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> Path:
    """Write plain data as JSON; see `replacing`."""
    return write_text(path, json.dumps(content, indent=indent) + "\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write a CSV with the union of the rows' columns, in the order they appear; see `replacing`."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return write_text(path, text.getvalue())


def write_bytes(path: Path, content: bytes) -> Path:
    """Write bytes; see `replacing`."""
    with replacing(path) as beside:
        beside.write_bytes(content)
    return path


@contextlib.contextmanager
def replacing(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """A path to write a file or a folder at, which takes the place of ``path`` when all is well.

    Args:
        path: where it will be; its folder is made.  A file that is there is replaced; of folders, an empty
            one.  In a remote store there is no renaming, but each object is put whole, when all are written.
        suffix: what the name to write to must end in, for writers who go by it.

    Raises:
        DiskFullError: no space is left; ``path`` is as it was.
    """
    if not isinstance(path, Path):
        with tempfile.TemporaryDirectory() as folder:
            beside = Path(folder) / path.name
            with disk_full_said(Path(folder)):
                yield beside
            for file in _files(beside):
                path.joinpath(*file.relative_to(beside).parts).write_bytes(file.read_bytes())
        return
    with temporary(path, suffix=suffix) as beside:
        yield beside
        flush(beside)
        beside.replace(path)


@contextlib.contextmanager
def temporary(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """A path beside ``path`` for a file or folder on the way there; what is left of it at the end is removed.

    Raises:
        DiskFullError: no space is left.
    """
    name = path.name.encode(errors="ignore")[:LONGEST_NAME].decode(errors="ignore")
    beside = path.with_name(f".{name}.{secrets.token_hex(4)}.{this_process()}.part{suffix}")
    try:
        with disk_full_said(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
    finally:
        _discard(beside)


def flush(path: Path) -> None:
    """Wait until a file, or every file of a folder, is on the disk."""
    for file in _files(path):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


@contextlib.contextmanager
def disk_full_said(folder: Path) -> Iterator[None]:
    """Turn what the system and libraries say when no space is left into `DiskFullError`."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        place = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        free = shutil.disk_usage(place).free / 1e6
        raise DiskFullError(
            f"no space is left for {place} ({free:,.0f} MB free); free some and run again: what was finished "
            "is kept"
        ) from error


def this_process() -> str:
    """A name of this process for half-written files: machine.process, without other dots."""
    return f"{socket.gethostname().replace('.', '-')}.{os.getpid()}"


def sweep(*folders: Path, everywhere: bool = False) -> None:
    """Remove what processes of this machine that are no more have left half-written.

    With ``everywhere``, also what processes of other machines have, which must have ended.
    """
    for folder in folders:
        for part in folder.glob(".*.part*"):
            if left := LEFT.fullmatch(part.name):
                here = left["machine"] == this_process().split(".")[0]
                if not _is_alive(int(left["process"])) if here else everywhere:
                    _discard(part)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """The plain data in a JSON file.

    Raises:
        JsonError: it isn't JSON.
        FileNotFoundError: it isn't there.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise JsonError(f"{path} is not JSON: {error}") from error


def _files(path: Path) -> list[Path]:
    """A file, or the files of a folder."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _discard(path: Path) -> None:
    """Remove a file or folder, as far as that can be done."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
