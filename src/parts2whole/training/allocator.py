"""Keep memory that a step frees for the next one, where C's library is glibc.

By default glibc gives large blocks back to the system at once, and the next step waits until the system has
cleared the same pages again: up to a fifth of a training step on CPUs, for a few percent more memory.
`python benchmarks/targets.py` measures it within the training step.
"""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1
BLOCK = 2**30
"""Blocks from this size on, in bytes, are still given back at once."""


def keep_freed_memory() -> bool:
    """Tell the allocator of this process; False where it is another, or its environment says otherwise."""
    said = any(name.startswith("MALLOC_") or name == "LD_PRELOAD" for name in os.environ)
    if platform.libc_ver()[0] != "glibc" or said:
        return False
    tell = ctypes.CDLL(None).mallopt
    return bool(tell(M_MMAP_THRESHOLD, BLOCK) and tell(M_TRIM_THRESHOLD, LARGEST))
