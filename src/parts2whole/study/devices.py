"""What a worker computes on: its share of the cores, one GPU where there are several, and not for ever."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

_claimed: dict[Path, tuple[int, FileLock]] = {}
"""GPUs that this process holds, until it ends."""
_watching = threading.Event()


def claim_gpu(folder: Path, count: int) -> int:
    """The number of a GPU of this machine that no other worker of the same folder uses.

    The claim holds until the process ends, however it ends.  Where all are taken, it waits for one.

    Args:
        folder: where claims are kept; one folder a study.
        count: number of GPUs that this process sees.
    """
    if folder in _claimed:
        return _claimed[folder][0]
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for number in range(count):
            lock = FileLock(folder / f"{socket.gethostname()}-gpu{number}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            _claimed[folder] = (number, lock)
            return number
        time.sleep(1)


def end_with(parent: int) -> None:
    """End this process when its parent has ended, so that no orphan goes on writing; returns at once.

    Ctrl-C in a terminal reaches every process of the group; from now on it is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _watching.is_set():
        return
    _watching.set()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
