"""Speed of `prepare`: with two processes against one, and against plain SimpleITK; `targets.py` has its rows.

    python benchmarks/prepare.py [--rounds 3]

Synthetic CT of 64 slices of 512 x 512 is made, as `.nii.gz`.  Two processes are timed by the clock, against
one that is held to one core: left alone it compresses in threads, and is a quarter faster where another core
is idle.  And by processor time: what one process needs, over the parent's and half of what two need, is
the ratio that two cores give which nothing else disturbs and no disk delays; every worker's start is in it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import SimpleITK
from machine import describe_machine
from sampling import make_ct

import parts2whole as p2w
from parts2whole.scans.read import write_nifti
from parts2whole.scans.volume import Volume

SHAPE, SCANS, MADE = (64, 512, 512), 40, 4
"""Size and number of the scans; so many are made, the others are copies of these."""


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of processors: of this process and of those that it started."""

    wall_s: float
    own_s: float
    workers_s: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(describe_machine())
    for name, ratios in (
        *measure(arguments.rounds).items(),
        (REWRITTEN, against_simpleitk(arguments.rounds)),
    ):
        print(f"{name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


CLOCK, PROCESSOR = "by the clock", "by processor time"
REWRITTEN = "SimpleITK, reading and writing .nii.gz / prepare, processor time"


@functools.cache
def measure(rounds: int) -> dict[str, list[float]]:
    """One process over two, in turn."""
    found: dict[str, list[float]] = {CLOCK: [], PROCESSOR: []}
    with tempfile.TemporaryDirectory() as folder:
        scans = make_scans(Path(folder) / "scans", SCANS)
        for _ in range(rounds):
            with on_one_core():
                one = prepare(scans, 1)
            two = prepare(scans, 2)
            found[CLOCK].append(one.wall_s / two.wall_s)
            found[PROCESSOR].append((one.own_s + one.workers_s) / (two.own_s + two.workers_s / 2))
    return found


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Hold this process, and those that it starts, to one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def against_simpleitk(rounds: int) -> list[float]:
    """What rewriting the files costs, which checks, counts and reads back nothing, over `prepare`."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        scans = make_scans(Path(folder) / "scans", MADE)
        prepare(scans, workers=0)
        for _ in range(rounds):
            began = time.process_time()
            for file in scans.iterdir():
                SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)), str(Path(folder) / file.name), True)
            found.append((time.process_time() - began) / prepare(scans, workers=0).own_s)
    return found


def make_scans(folder: Path, count: int) -> Path:
    folder.mkdir()
    files = [folder / f"scan{number}.nii.gz" for number in range(count)]
    for number, file in enumerate(files):
        if number < MADE:
            write_nifti(Volume(make_ct(SHAPE, number), (5.0, 0.8, 0.8)), file)
        else:
            shutil.copy(files[number % MADE], file)
    return folder


def prepare(scans: Path, workers: int) -> Cost:
    """Prepare scans into a store, which is removed."""
    with tempfile.TemporaryDirectory() as folder:
        before, began = os.times(), time.perf_counter()
        p2w.prepare(scans, out=folder, modality="CT", workers=workers, progress=False)
        wall_s, after = time.perf_counter() - began, os.times()
    own, children = (sum(after[at : at + 2]) - sum(before[at : at + 2]) for at in (0, 2))
    return Cost(wall_s, own, children)


if __name__ == "__main__":
    main()
