"""What a store writes about its cases: records as JSON, each file written whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parts2whole.data.chunks import ChunkError, ChunkSpaceError
from parts2whole.data.volume import Direction, Triple


class StoreError(ValueError):
    """A store that can't be opened or written, or a case that isn't in it."""


class DiskFullError(StoreError):
    """No space is left for the store."""


@dataclasses.dataclass(frozen=True, slots=True)
class CaseRecord:
    """What the store knows of a case.

    Attributes:
        case_id: unique in the store.
        patient: never split over two sides.
        modality: what it was prepared as: CT, MR or unit.
        channels: number of channels.
        shape: voxels (z, y, x) in canonical orientation.
        spacing_mm: distance between voxels (z, y, x).
        origin_mm: LPS position (x, y, z) of the first voxel.
        direction: columns are the LPS unit vectors of the array axes.
        scale: value in [0, 1] = stored * scale + offset.
        offset: see ``scale``.
        content_hash: of the original voxels in canonical orientation, before any preprocessing.
        checksum: of the stored voxels and labels.
        series: of a DICOM series a salted hash of its UID, or the UID if that was asked for.
        source: names of the files it was made from, without folders.
        has_label: whether a label map is stored.
        label_values: the values in it, ascending.
        notes: what the user should know.
        quantisation_error: largest difference, in [0, 1], made by storing.
        stamp: changes when the source files change.
    """

    case_id: str
    patient: str
    modality: str
    channels: int
    shape: tuple[int, int, int]
    spacing_mm: Triple
    origin_mm: Triple
    direction: Direction
    scale: float
    offset: float
    content_hash: str
    checksum: str = ""
    series: str = ""
    source: tuple[str, ...] = ()
    has_label: bool = False
    label_values: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    quantisation_error: float = 0.0
    stamp: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Data for JSON."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> CaseRecord:
        """Read what `to_plain` made."""
        return cls(**{key: _tuples(value) if type(value) is list else value for key, value in plain.items()})


_FIELDS = tuple(field.name for field in dataclasses.fields(CaseRecord))


def read_records(folder: Path) -> list[CaseRecord]:
    """Every record in a folder."""
    found = []
    for file in sorted(folder.glob("*.json")):
        if not file.name.startswith("."):
            try:
                found.append(CaseRecord.from_plain(json.loads(file.read_text(encoding="utf-8"))))
            except (json.JSONDecodeError, TypeError) as error:
                raise StoreError(f"{file} is not a record: {error}; delete it and prepare again") from error
    return found


def write_text(file: Path, text: str) -> None:
    """Write a file beside its place, then rename."""
    beside = file.with_name(f".{file.name}.{this_process()}.part")
    with disk_full_said(file.parent):
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def disk_full_said(path: Path) -> Iterator[None]:
    """Turn "no space left" from below into `DiskFullError`, and a chunk error into `StoreError`."""
    try:
        yield
    except ChunkError as error:
        if isinstance(error, ChunkSpaceError):
            raise _disk_full(path) from error
        raise StoreError(str(error)) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(path) from error
        raise


def this_process() -> str:
    """A name of this process for half-written files: machine.process, without other dots."""
    return f"{socket.gethostname().replace('.', '-')}.{os.getpid()}"


def sweep(*folders: Path, everywhere: bool = False) -> None:
    """Remove what processes of this machine that are no more have left half-written.

    With ``everywhere``, also what processes of other machines have, which must have ended.
    """
    for folder in folders:
        for part in folder.glob(".*.part"):
            *_, host, process, _ = part.name.split(".")
            here = host == this_process().split(".")[0]
            if not _is_alive(int(process)) if here else everywhere:
                shutil.rmtree(part, ignore_errors=True)
                part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _disk_full(path: Path) -> DiskFullError:
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    return DiskFullError(
        f"no space is left for {path} ({free / 1e6:,.0f} MB free); free some and run again: "
        "finished cases are kept"
    )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
