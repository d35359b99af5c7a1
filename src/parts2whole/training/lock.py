"""One run at a time in an out folder, and none over another.

A lock lies beside it, which the system lets go of when its process dies.

The lock is the operating system's, not the file's existence, so one that a killed process has left is no
obstacle.  Where a file system has no such locks, filelock falls back to a file with process and machine.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from parts2whole.errors import Parts2WholeError
from parts2whole.files import LEFT, disk_full_said
from parts2whole.run_folder import CHECKPOINTS, CONFIG, RESULT
from parts2whole.training.cluster import is_first_process


class RunFolderError(Parts2WholeError, RuntimeError):
    """An out folder that can't be used."""


@contextlib.contextmanager
def hold_folder(out: Path) -> Iterator[None]:
    """Keep other runs out of ``out``; of several processes of one run, the first does.

    Raises:
        RunFolderError: another run has it, or the folder it lies in can't be written to.
    """
    if not is_first_process():
        yield
        return
    path = lock_of(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0).acquire()
    except Timeout as error:
        raise RunFolderError(
            f"{out} is in use by {_holder(path)}: wait for it, stop it, or choose another --out"
        ) from error
    except OSError as error:
        raise RunFolderError(
            f"can't write to {path.parent}: {error.strerror}; make it writable, or choose another --out"
        ) from error
    with lock:
        with disk_full_said(path.parent):
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
        yield


def refuse_busy(out: Path) -> None:
    """Raise `RunFolderError` for a folder that another run is at."""
    if lock_of(out).exists():
        with hold_folder(out):
            pass


def refuse_begun(out: Path) -> None:
    """Raise `RunFolderError` for a folder that holds a run, or in which none can begin.

    What a run leaves that dies before its first checkpoint is no obstacle.
    """
    begun, finished = (out / CONFIG).exists(), (out / RESULT).exists()
    if begun and (finished or list_checkpoints(out)):
        state = "a finished run" if finished else "an unfinished run"
        raise RunFolderError(
            f"{out} already holds {state}: choose another --out, or go on with --resume true"
        )
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file; --out must be a folder")
    there = [entry.name for entry in out.iterdir()] if out.exists() and not begun else []
    if foreign := sorted(name for name in there if not LEFT.fullmatch(name)):
        raise RunFolderError(
            f"{out} is not empty and holds no run, but {', '.join(foreign[:5])}: choose another --out"
        )


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    return sorted((folder / CHECKPOINTS).glob("step-*.ckpt"))


def lock_of(out: Path) -> Path:
    """The file that is locked: beside the folder, so that the folder need not be there."""
    place = out.resolve()
    return place.with_name(f".{place.name}.lock")


def _holder(path: Path) -> str:
    words = path.read_text(errors="replace").split()
    return f"process {words[0]} on {words[1]}" if len(words) == 2 else "another process"
