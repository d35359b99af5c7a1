"""What a result must carry so that it can be judged later: the code's version and the memory it took."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


@functools.cache
def code_version() -> str:
    """The git commit of the source this runs from, with ``+changes`` if it differs; else the version."""
    source = Path(__file__).parent
    version = metadata.version("parts2whole")
    try:
        tracked = _git(source, "ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git(source, "rev-parse", "HEAD") if tracked else ""
        changed = _git(source, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.SubprocessError):
        return f"version {version}"
    return f"{commit}{'+changes' if changed else ''}" if commit else f"version {version}"


def reset_peak_memory() -> bool:
    """Begin a new measurement of `peak_memory_mb`; False where the system counts since the process began."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        CLEAR.write_text("5")  # Linux: forget the highest resident size so far
    except OSError:
        return False
    return True


def peak_memory_mb() -> dict[str, float]:
    """Highest resident memory of this process, and memory of its GPU, since the last reset.

    Returns:
        ``peak_memory_mb`` where the system tells, and ``peak_gpu_memory_mb`` where there is a GPU, in MB of
        10^6 bytes.
    """
    found = {}
    with contextlib.suppress(ImportError):
        found["peak_memory_mb"] = round(_peak_resident_bytes() / 1e6, 1)
    if torch.cuda.is_available():
        found["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return found


def _peak_resident_bytes() -> float:
    with contextlib.suppress(OSError, StopIteration):
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024.0 * int(line.split()[1])
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
