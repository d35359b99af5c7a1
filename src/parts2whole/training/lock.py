"""One run at a time in an out folder: a lock beside it, which the system lets go of when its process dies.

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
        path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
        yield


def lock_of(out: Path) -> Path:
    """The file that is locked: beside the folder, so that the folder need not be there."""
    place = out.resolve()
    return place.with_name(f".{place.name}.lock")


def _holder(path: Path) -> str:
    words = path.read_text(errors="replace").split()
    return f"process {words[0]} on {words[1]}" if len(words) == 2 else "another process"
