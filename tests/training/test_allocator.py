import os
import platform

import pytest

from parts2whole.training import allocator
from parts2whole.training.allocator import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another library")
def test_glibc_is_told_unless_the_environment_says_otherwise(monkeypatch):
    for name in list(os.environ):
        if name.startswith("MALLOC_") or name == "LD_PRELOAD":
            monkeypatch.delenv(name)
    assert keep_freed_memory()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()


def test_another_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    assert not keep_freed_memory()
