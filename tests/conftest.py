"""Shared by all tests: shapes checked at run time, one thread, small synthetic data, the real scans."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import shape_checks
from weights.stand_ins import parity, stand_ins

__all__ = ["parity", "stand_ins"]

shape_checks.install()
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# The networks in tests are so small that threads wait for each other longer than they work.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' folder of real scans; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("P2W_SHARED", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the developers' real scans are not here (set P2W_SHARED)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _in_this_process() -> Iterator[None]:
    """Prepare in the process of the test, unless it asks for workers: starting one costs more than the work."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("jobs.run", "tasks.derived", "verbs.phantom", "verbs.demo"):
            patch.setattr(f"parts2whole.{module}.usable_cores", lambda: 0)
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep prepared data and salts of tests out of the user's folders."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
