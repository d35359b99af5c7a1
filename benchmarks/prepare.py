"""Speed of `prepare` against plain SimpleITK, reading and writing the same files, side by side in one run.

    python benchmarks/prepare.py [--scans FOLDER] [--rounds 3] [--write docs/prepare-speed.md]

Without ``--scans``, synthetic CT is made.  `prepare` does more than read and write: it hashes and checks
every voxel, windows, counts cells, compresses, and reads back what it wrote.  Contestants run in turn.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import SimpleITK
from sampling import make_ct

import parts2whole as p2w
from parts2whole.scans.read import find_scans, read_scan, write_nifti
from parts2whole.scans.volume import Volume

SHAPE = (100, 256, 256)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scans", type=Path, help="folder of NIfTI, MHA or NRRD files")
    parser.add_argument("--modality", default="CT")
    parser.add_argument("--volumes", type=int, default=8, help="number of synthetic scans")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scans = arguments.scans or make_scans(folder / "scans", arguments.volumes)
        lines = table(scans, folder, arguments.modality, arguments.rounds)
    print("\n".join(lines))
    if arguments.write:
        command = f"python {' '.join(sys.argv)}"
        arguments.write.write_text(
            f"# Preparation speed\n\nWritten by `{command}`.\n\n" + "\n".join(lines) + "\n"
        )


def make_scans(folder: Path, count: int) -> Path:
    for number in range(count):
        write_nifti(Volume(make_ct(SHAPE, number), (2.0, 0.8, 0.8)), folder / f"scan{number}.nii.gz")
    return folder


def table(scans: Path, folder: Path, modality: str, rounds: int) -> list[str]:
    sources = [source for source in find_scans([scans]) if source.problem is None and not source.is_series]
    files = [source.paths[0] for source in sources]
    voxels_mb = sum(read_scan(source).array.nbytes for source in sources) / 1e6
    out = folder / "out"
    contestants: dict[str, Callable[[], object]] = {}
    for workers, text in ((0, "this process"), (2, "2 processes")):
        contestants[f"parts2whole prepare, {text}"] = lambda w=workers: p2w.prepare(
            scans, out=out, modality=modality, workers=w, progress=False
        )
        for suffix, packed in ((".nii.gz", "compressed"), (".mha", "uncompressed")):
            name = f"SimpleITK read and write {suffix}, {packed}, {text}"
            contestants[name] = lambda w=workers, s=suffix: copy_all(files, out, s, w)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _, (name, run) in itertools.product(range(rounds), contestants.items()):
        out.mkdir()
        began = time.perf_counter()
        run()
        times[name].append(time.perf_counter() - began)
        shutil.rmtree(out)
    lines = [
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{time.strftime('%Y-%m-%d')}; load average {os.getloadavg()[0]:.1f}; "
        f"{rounds} rounds in turn; {len(files)} scans, {voxels_mb:,.0f} MB of voxels.",
        "",
        "| contestant | scans/s | MB of voxels/s, median (min to max) | prepare / this, median of rounds |",
        "|---|---|---|---|",
    ]
    for name, found in times.items():
        base = times[f"parts2whole prepare, {name.rsplit(', ', 1)[1]}"]
        low, middle, high = (voxels_mb / t for t in (max(found), statistics.median(found), min(found)))
        share = statistics.median(this / own for this, own in zip(found, base, strict=True))
        scans_per_s = len(files) / statistics.median(found)
        lines.append(
            f"| {name} | {scans_per_s:.2f} | {middle:,.0f} ({low:,.0f} to {high:,.0f}) | {share:.2f} |"
        )
    return lines


def copy_all(files: list[Path], out: Path, suffix: str, workers: int) -> None:
    targets = [out / f"{number}{suffix}" for number in range(len(files))]
    if not workers:
        for file, target in zip(files, targets, strict=True):
            copy(file, target)
        return
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(copy, files, targets))


def copy(file: Path, target: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)), str(target), target.name.endswith(".gz"))


if __name__ == "__main__":
    main()
