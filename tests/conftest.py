"""Shared by all tests: shapes checked at run time, one thread, jobs in this process, which tests are slow."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

import shape_checks
from parts2whole.files import write_text
from weights.stand_ins import parity, stand_ins

__all__ = ["parity", "stand_ins"]

shape_checks.install()
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# The networks in tests are so small that threads wait for each other longer than they work.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))


SLOW = Path(__file__).with_name("slow.txt")
"""Tests that took more than `SLOW_SECONDS` of processor time, setup included; written by ``--measure``."""
SLOW_SECONDS = 0.3
SLOW_FILES = (
    "tests/contracts/test_tasks.py",
    "tests/methods/test_devices.py",
    "tests/phantom/test_writers.py",
    "tests/test_verbs.py",
    "tests/training/test_gradients.py",
    "tests/training/test_resume.py",
    "tests/verbs/",
    "tests/weights/test_from_file_to_task.py",
)
"""Tests that share fixtures which train or make scans: without the slowest of them, the next would pay."""
spent: dict[str, float] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--measure", action="store_true", help=f"write which tests are slow into {SLOW.name}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that were slow when they were last measured; a new one counts as fast until then."""
    slow = set(SLOW.read_text(encoding="utf-8").splitlines())
    for item in items:
        if item.nodeid in slow or item.nodeid.startswith(SLOW_FILES):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Import what all need, so that no test is charged with it."""
    importlib.import_module("parts2whole.verbs.demo")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Count the processor time of a test, and of the processes that it started."""
    before = sum(os.times()[:4])
    yield
    spent[item.nodeid] = sum(os.times()[:4]) - before


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With ``--measure``, replace what is known of the tests that ran."""
    if session.config.getoption("--measure"):
        known = {name for name in SLOW.read_text(encoding="utf-8").splitlines() if name not in spent}
        known |= {name for name, seconds in spent.items() if seconds > SLOW_SECONDS}
        known = {name for name in known if not name.startswith(SLOW_FILES)}
        write_text(SLOW, "".join(f"{name}\n" for name in sorted(known)))


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


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep prepared data and salts of tests, and of fixtures of whole classes, out of the user's folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield
