"""Memory of sampling, and the time of a whole, against the number of volumes and their size.

    python benchmarks/memory.py [--write docs/sampling-memory.md]

Stores of small volumes are made by linking the files of one of them; each is measured in a process of its
own, which opens the store, reads wholes with two loader threads, and reports its peak.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WHOLE = (16, 32, 32)
BATCH, STEPS = 8, 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument(
        "--edges", type=int, nargs="+", default=[64, 128, 256], help="of volumes, for the second table"
    )
    parser.add_argument("--write", type=Path, help="also write the tables to this Markdown file")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    lines = [
        f"Wholes {WHOLE}, batch {BATCH}, {STEPS} batches, 2 loader threads; {time.strftime('%Y-%m-%d')}, "
        f"load average {os.getloadavg()[0]:.1f}.",
        "",
        "| volumes | peak memory, MB | of it by opening, MB | opening, s | CPU ms a whole |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.volumes:
            lines.append(row(f"{count:,}", make_store(Path(folder) / str(count), (32, 64, 64), count)))
        lines += [
            "",
            "| size of 4 volumes | peak memory, MB | of it by opening, MB | opening, s | CPU ms a whole |",
            "|---|---|---|---|---|",
        ]
        for edge in arguments.edges:
            lines.append(
                row(f"{edge} x {edge} x {edge}", make_store(Path(folder) / f"e{edge}", (edge,) * 3, 4))
            )
    print("\n".join(lines))
    if arguments.write:
        command = f"python {' '.join(sys.argv)}"
        arguments.write.write_text(
            f"# Memory of sampling\n\nWritten by `{command}`.\n\n" + "\n".join(lines) + "\n"
        )


def growth(few: int, many: int, rounds: int) -> list[float]:
    """Peak memory over many volumes, over that over few."""
    with tempfile.TemporaryDirectory() as folder:
        stores = [make_store(Path(folder) / str(count), (32, 64, 64), count) for count in (few, many)]
        peaks = [[in_own_process(store)["peak"] for store in stores] for _ in range(rounds)]
    return [large / small for small, large in peaks]


def in_own_process(store: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", str(store)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return found


def row(name: str, store: Path) -> str:
    found = in_own_process(store)
    figures = (
        f"{found[key]:.{digits}f}"
        for key, digits in (("peak", 0), ("opening", 1), ("seconds", 2), ("cpu_ms", 2))
    )
    return f"| {name} | {' | '.join(figures)} |"


def measure(path: Path) -> dict[str, float]:
    from parts2whole.store.store import Store
    from parts2whole.wholes.loader import Share, load_batches
    from parts2whole.wholes.sampler import Wholes, WholeSampler, WholeSize

    before, began = peak_mb(), time.perf_counter()
    store = Store.open(path)
    opened, seconds = peak_mb(), time.perf_counter() - began
    samples = Wholes(WholeSampler(store, size=WholeSize(WHOLE)), BATCH)
    worked = time.process_time()
    for _ in load_batches(samples, batch_size=BATCH, first_step=0, steps=STEPS, share=Share(workers=2)):
        pass
    cpu_ms = 1000 * (time.process_time() - worked) / (BATCH * STEPS)
    return {"peak": peak_mb(), "opening": opened - before, "seconds": seconds, "cpu_ms": cpu_ms}


def peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where `resource` begins with the peak of the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    unit = 1024 * (1024 if sys.platform == "darwin" else 1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def make_store(path: Path, shape: tuple[int, ...], count: int) -> Path:
    """A store whose cases share the files of the first."""
    from parts2whole.scans.preprocess import Preprocess
    from parts2whole.scans.volume import Volume
    from parts2whole.store.store import Store

    store = Store.create(path, preprocess=Preprocess(modality="CT"))
    voxels = np.random.default_rng(0).integers(0, 32767, shape).astype(np.int16)
    first = store.write_volume("case_00000", Volume(voxels), patient="0", source=("scan.nii.gz",))
    origin = path / "cases" / "case_00000.zarr"
    files = [file.relative_to(origin) for file in (origin / "0").rglob("*") if file.is_file()]
    for number in range(1, count):
        case = f"case_{number:05d}"
        for file in files:
            target = path / "cases" / f"{case}.zarr" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(origin / file, target)
        store.add(dataclasses.replace(first, case_id=case, patient=str(number)))
    store.finish()
    return path


if __name__ == "__main__":
    main()
