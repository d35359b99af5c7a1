"""What a worker computes on, and that it doesn't outlive its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CLAIM = "from pathlib import Path; from parts2whole.study.devices import claim_gpu; import sys, time; "
CLAIM += "print(claim_gpu(Path(sys.argv[1]), 2), flush=True); time.sleep(60)"

PARENT = """
import os, subprocess, sys, time
code = ("import os, time; from parts2whole.study.devices import end_with; end_with(os.getppid()); "
        "print(os.getpid(), flush=True); time.sleep(60)")
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), end="", flush=True)
time.sleep(60)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


def test_two_workers_take_two_gpus_and_a_dead_one_gives_its_back(tmp_path: Path) -> None:
    first, second = start(CLAIM, str(tmp_path)), start(CLAIM, str(tmp_path))
    try:
        assert first.stdout is not None
        assert second.stdout is not None
        taken = [int(process.stdout.readline()) for process in (first, second) if process.stdout]
        assert sorted(taken) == [0, 1]
        first.kill()
        first.wait()
        third = start(CLAIM, str(tmp_path))
        assert third.stdout is not None
        assert int(third.stdout.readline()) == taken[0]
        third.kill()
        third.wait()
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


def test_an_orphan_ends(tmp_path: Path) -> None:
    parent = start(PARENT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the child outlived its parent by 10 seconds")


def _runs(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    if state.exists():
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc").is_dir()
