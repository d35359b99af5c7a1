"""(part, whole) pairs per second from large volumes: ours on its compressed store, peers, physical limits.

    python benchmarks/sampling.py [--rounds 7] [--write docs/sampling.md]

Everyone delivers batches of a whole of 32 x 64 x 64 voxels at a random place of a random volume of
200 x 384 x 384, and of a part of it (0.4 to 0.7 of each edge) resized to the same size.  Contestants run in
turn, round by round, because machines are noisy: what counts is the median of the ratios of a round.
Ours reads its store from disk (from the page cache, after the first round); peers hold volumes in memory.
Where no other process takes part, the CPU time of a pair is given too: a busy machine disturbs it less.
With two workers or threads torch gets one thread of its own, else one a core.

A second table compares codecs and shapes of chunks, reading wholes only.  Peers need the extra ``bench``.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sampling_codecs import codec_readers
from sampling_peers import PEERS
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.scans.preprocess import Prepared, Preprocess, quantise, to_unit
from parts2whole.scans.volume import CANONICAL, Box, Volume
from parts2whole.store.store import CaseRecord, Store
from parts2whole.wholes.geometry import crop_resize, draw_boxes
from parts2whole.wholes.loader import Share, load_batches
from parts2whole.wholes.random import BatchGenerator
from parts2whole.wholes.sampler import Whole, Wholes, WholeSampler, WholeSize

VOLUME, WHOLE = (200, 384, 384), (32, 64, 64)
BATCH = 8
FRACTION = Parts2Whole().part_fraction
ENDLESS = 10**9
ONE, FOUR = "parts2whole, compressed store, 0 threads", "parts2whole, 4 parts a whole, 0 threads"
Batches = Iterator[tuple[Tensor, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contestant in each round")
    parser.add_argument("--write", type=Path, help="also write the tables to this Markdown file")
    arguments = parser.parse_args()
    volumes = [make_ct(VOLUME, seed) for seed in range(arguments.volumes)]
    with tempfile.TemporaryDirectory() as folder:
        lines = pair_tables(volumes, Path(folder), arguments.rounds, arguments.seconds)
        lines += ["", *codec_table(volumes[0], Path(folder), arguments.rounds)]
    print("\n".join(lines))
    if arguments.write:
        command = f"python {' '.join(sys.argv)}"
        arguments.write.write_text(
            f"# Sampling speed\n\nWritten by `{command}`.\n\n" + "\n".join(lines) + "\n"
        )


def make_ct(shape: tuple[int, int, int], seed: int) -> npt.NDArray[np.int16]:
    """A body with lungs in air, with organs' contrast and a scanner's noise: it compresses as CT does."""
    generator = np.random.default_rng(seed)
    z, y, x = np.meshgrid(
        *(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True
    )
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 < 1
    lungs = ((np.abs(x) - 0.4) / 0.3) ** 2 + (y / 0.5) ** 2 + (z / 0.8) ** 2 < 1
    coarse = [max(2, n // 8) for n in shape]
    organs = ndimage.zoom(
        generator.normal(0, 60, coarse).astype(np.float32),
        [n / c for n, c in zip(shape, coarse, strict=True)],
        order=1,
    )
    noise = generator.standard_normal(shape, dtype=np.float32)
    hu = np.where(body, np.where(lungs, -850, 40) + organs + 20 * noise, -1000 + 8 * noise)
    return np.clip(np.rint(hu), -1000, 1000).astype(np.int16)


def make_store(path: Path, volumes: list[npt.NDArray[np.int16]]) -> Store:
    store = Store.create(path, preprocess=Preprocess(modality="CT"))
    for number, hu in enumerate(volumes):
        unit = Volume((hu.astype(np.float32) + 1000) / 2000)
        stored = quantise(Prepared(unit, "CT", ((-1000.0, 1000.0),), integral=True), "int16")
        record = CaseRecord(
            f"case_{number}", str(number), "CT", 1, hu.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), CANONICAL,
            stored.scale, stored.offset, str(number),
        )  # fmt: skip
        store.write_case(record, stored.array)
    store.finish()
    return Store.open(path)


def ours(store: Store, *, workers: int, count: int = 1) -> Batches:
    """As `pretrain` does it."""
    samples = Wholes(WholeSampler(store, size=WholeSize(WHOLE)), BATCH)
    return cut(samples, workers=workers, count=count)


def cut(samples: Dataset[Tensor], *, workers: int, count: int = 1) -> Batches:
    batches = load_batches(
        samples, batch_size=BATCH, first_step=0, steps=ENDLESS, share=Share(workers=workers)
    )
    for step, wholes in enumerate(batches):
        boxes = draw_boxes(BatchGenerator.of_step(0, step, rows=BATCH), WHOLE, fraction=FRACTION, count=count)
        yield crop_resize(wholes, boxes, WHOLE), wholes


class MappedWholes(Dataset[Tensor]):
    """The same places cut from uncompressed arrays that are mapped into memory."""

    def __init__(self, sampler: WholeSampler, arrays: dict[str, npt.NDArray[np.int16]]) -> None:
        self.sampler, self.arrays = sampler, arrays

    def __getitem__(self, number: int) -> Tensor:
        whole: Whole = self.sampler.draw(*divmod(number, BATCH))
        record = self.sampler.store.record(whole.case_id)
        stored = self.arrays[whole.case_id][None, *whole.box.slices]
        return torch.from_numpy(to_unit(stored, scale=record.scale, offset=record.offset))


def mapped(store: Store, volumes: list[npt.NDArray[np.int16]], folder: Path, *, workers: int) -> Batches:
    arrays = {}
    for number, hu in enumerate(volumes):
        np.save(folder / f"{number}.npy", hu)
        arrays[f"case_{number}"] = np.load(folder / f"{number}.npy", mmap_mode="r")
    return cut(MappedWholes(WholeSampler(store, size=WholeSize(WHOLE)), arrays), workers=workers)


def copied(volumes: list[npt.NDArray[np.int16]]) -> Batches:
    """Nothing but a copy of the bytes of a pair: the stored whole in, two float volumes out."""
    n = int(np.prod(WHOLE))
    flat = [hu.reshape(-1) for hu in volumes]
    stored = np.empty((BATCH, n), np.int16)
    source, out = np.ones((2, n), np.float32), np.empty((2, BATCH, n), np.float32)
    pair = torch.from_numpy(out[0]), torch.from_numpy(out[1])
    for step in itertools.count():
        for row in range(BATCH):
            start = (step * BATCH + row) * 7 * n % (flat[0].size - n)
            np.copyto(stored[row], flat[row % len(flat)][start : start + n])
            np.copyto(out[0, row], source[0])
            np.copyto(out[1, row], source[1])
        yield pair


def pair_tables(volumes: list[npt.NDArray[np.int16]], folder: Path, rounds: int, seconds: float) -> list[str]:
    store = make_store(folder / "store", volumes)
    unit = [torch.from_numpy((hu.astype(np.float32) + 1000) / 2000)[None] for hu in volumes]
    contestants: dict[str, Callable[[], Batches]] = {}
    for workers in (0, 2):
        contestants[f"parts2whole, compressed store, {workers} threads"] = lambda w=workers: ours(
            store, workers=w
        )
        contestants[f'`np.load(mmap_mode="r")`, the same views, {workers} threads'] = lambda w=workers: (
            mapped(store, volumes, folder, workers=w)
        )
    contestants[FOUR] = lambda: ours(store, workers=0, count=4)
    contestants["memory copy of a pair's bytes"] = lambda: copied(volumes)
    missing = []
    for name, (peer, modules) in PEERS.items():
        if absent := [module for module in modules if not installed(module)]:
            missing.append(f"{name} was not measured: {', '.join(absent)} is not installed.")
            continue
        for workers in (0, 2):
            contestants[f"{name}, {workers} workers"] = lambda p=peer, w=workers: p(
                unit, WHOLE, FRACTION, batch=BATCH, workers=w
            )
    rates, costs = race(contestants, rounds, seconds)
    return [*report(store, rates, costs, rounds), *missing]


def race(
    contestants: dict[str, Callable[[], Batches]], rounds: int, seconds: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Wholes a second, and seconds of CPU a whole, of every contestant in every round."""
    cores = torch.get_num_threads()
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    costs: dict[str, list[float]] = {name: [] for name in contestants}
    for name, begin in contestants.items():
        part, whole = next(begin())
        assert part.reshape(-1, *WHOLE).isfinite().all(), name
        assert whole.reshape(-1, *WHOLE).shape[0] == BATCH, name
    for _, (name, begin) in itertools.product(range(rounds), contestants.items()):
        torch.set_num_threads(1 if " 2 " in name else cores)
        batches = begin()
        ready = time.perf_counter()
        while time.perf_counter() < ready + 0.3 * seconds:  # what was read ahead is used up
            next(batches)
        began, worked, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() < began + seconds:
            next(batches)
            count += BATCH
        rates[name].append(count / (time.perf_counter() - began))
        costs[name].append((time.process_time() - worked) / count)
        del batches
        gc.collect()
    torch.set_num_threads(cores)
    return rates, costs


def report(
    store: Store, rates: dict[str, list[float]], costs: dict[str, list[float]], rounds: int
) -> list[str]:
    best = {kind: fastest(rates, start) for kind, start in (("ours", "parts2whole, c"), ("mmap", "`np.load"))}
    peer = max(
        (name for name in rates if name.startswith(tuple(PEERS))),
        key=lambda n: statistics.median(rates[n]),
        default=None,
    )
    one, four = rates[ONE], rates[FOUR]
    raw = sum(int(np.prod(record.shape)) * 2 for record in store.cases)
    disk = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    lines = [
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads of torch, {time.strftime('%Y-%m-%d')}; load average "
        f"{os.getloadavg()[0]:.1f}; {rounds} rounds in turn; wholes {WHOLE}, "
        f"{len(store.cases)} volumes {VOLUME} int16, compressed {raw / disk:.2f} : 1.",
        "",
        "| contestant | wholes/s, median (min to max) | ours / this, median of rounds | CPU ms a whole |",
        "|---|---|---|---|",
    ]
    for name, found in rates.items():
        cpu = "" if name.endswith("2 workers") else f"{1000 * statistics.median(costs[name]):.2f}"
        spread = f"{statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f})"
        lines.append(f"| {name} | {spread} | {ratio(best['ours'], found):.2f} | {cpu} |")
    own, cheapest = (fastest(costs, start, cost=True) for start in ("parts2whole, c", "`np.load"))
    lines += ["", "| target | wanted | found | by CPU time |", "|---|---|---|---|"]
    if peer:
        alone = {
            name: found for name, found in costs.items() if name.startswith(tuple(PEERS)) and " 0 " in name
        }
        cpu = ratio(min(alone.values(), key=statistics.median), own)
        times = ratio(best["ours"], rates[peer])
        lines.append(f"| against the best peer ({peer}) | at least 4 | {times:.2f} | {cpu:.2f} |")
    share, four_parts = ratio(best["ours"], best["mmap"]), ratio(one, four)
    cpu_share, cpu_four = ratio(cheapest, own), ratio(costs[FOUR], costs[ONE])
    lines += [
        f"| share of the memory-mapped limit | at least 0.60 | {share:.2f} | {cpu_share:.2f} |",
        f"| cost of 4 parts of a whole over 1 | below 2 | {four_parts:.2f} | {cpu_four:.2f} |",
    ]
    return lines


def fastest(values: dict[str, list[float]], start: str, *, cost: bool = False) -> list[float]:
    """Values of the best contestant whose name starts so."""
    mine = [found for name, found in values.items() if name.startswith(start)]
    return min(mine, key=statistics.median) if cost else max(mine, key=statistics.median)


def ratio(these: list[float], those: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def codec_table(volume: npt.NDArray[np.int16], folder: Path, rounds: int) -> list[str]:
    """Reading wholes of one volume, as stored, in one thread."""
    generator = np.random.default_rng(0)
    starts = [
        [int(generator.integers(edge - size + 1)) for edge, size in zip(VOLUME, WHOLE, strict=True)]
        for _ in range(60)
    ]
    boxes = [Box((z, y, x), WHOLE) for z, y, x in starts]
    readers, sizes, missing = codec_readers(volume, folder)
    times: dict[str, list[float]] = {name: [] for name in readers}
    for name, read in readers.items():
        assert np.array_equal(read(boxes[0]), volume[boxes[0].slices]), name
    for _, (name, read) in itertools.product(range(rounds), readers.items()):
        began = time.perf_counter()
        for box in boxes:
            read(box)
        times[name].append((time.perf_counter() - began) / len(boxes))
    lines = [
        "Reading wholes of one volume, one at a time; ours is the first row.",
        "",
        "| store, codec, chunk | wholes/s, median (min to max) | this / ours, median | compressed |",
        "|---|---|---|---|",
    ]
    base = next(iter(times.values()))
    for name, found in times.items():
        low, middle, high = (1 / seconds for seconds in (max(found), statistics.median(found), min(found)))
        packed = f"{volume.nbytes / sizes[name]:.2f} : 1"
        lines.append(
            f"| {name} | {middle:,.0f} ({low:,.0f} to {high:,.0f}) | {ratio(base, found):.2f} | {packed} |"
        )
    return [*lines, *missing]


def installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


if __name__ == "__main__":
    main()
