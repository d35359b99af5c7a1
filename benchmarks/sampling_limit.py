"""What a (part, whole) pair must cost from a compressed store: reading, decoding, scaling, cutting.

    python benchmarks/sampling_limit.py [--rounds 5]

Each is done by itself, in processor time of one thread: `pread` of the chunks that a whole touches, their
decoding by blosc alone, one copy of a whole's voxels and their way to floats in [0, 1], and its part cut and
resized.  Their sum is what no loader over this store gets below; beside it are ours, with all it does, and
MONAI from float volumes in memory.  `targets.py` has rows of it.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from machine import describe_machine
from numcodecs import blosc
from sampling import BATCH, FRACTION, VOLUME, WHOLE, make_ct, make_store, ours
from sampling_peers import monai

from parts2whole.scans.preprocess import to_unit
from parts2whole.store.chunks import CHUNK, CODEC, LEVEL
from parts2whole.wholes.geometry import crop_resize, draw_boxes
from parts2whole.wholes.random import BatchGenerator

BATCHES, VOLUMES = 12, 2
FLOOR = ("reading", "decoding", "copying and scaling", "cutting")
OURS, MONAI = "ours", "MONAI"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    torch.set_num_threads(1)
    print(describe_machine(), "", *table(measure(parser.parse_args().rounds)), sep="\n")


def table(found: dict[str, list[float]]) -> list[str]:
    """Processor time of every part."""
    floors = [sum(parts) for parts in zip(*(found[part] for part in FLOOR), strict=True)]
    rows = {part: found[part] for part in FLOOR} | {"**sum of these**": floors}
    rows |= {"ours, from the compressed store": found[OURS], "MONAI, from memory": found[MONAI]}
    lines = [
        f"A whole of {WHOLE} voxels touches {_touched():.0f} chunks of {CHUNK} in the mean, "
        f"{_touched() * np.prod(CHUNK) / np.prod(WHOLE):.1f} times its voxels.",
        "",
        "| a whole and a part of it | ms of one core, median (min to max) |",
        "|---|---|",
    ]
    for name, costs in rows.items():
        middle, low, high = (1000 * of(costs) for of in (statistics.median, min, max))
        lines.append(f"| {name} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    return lines


@functools.cache
def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time a pair, of every part, round by round."""
    blosc.use_threads = False
    found: dict[str, list[float]] = {name: [] for name in (*FLOOR, OURS, MONAI)}
    volumes = [make_ct(VOLUME, seed) for seed in range(VOLUMES)]
    unit = [torch.from_numpy((hu.astype(np.float32) + 1000) / 2000)[None] for hu in volumes]
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store", volumes)
        packed = _Packed(volumes[0], Path(folder) / "packed")
        mine = ours(store, workers=0)
        theirs = monai(unit, WHOLE, FRACTION, batch=BATCH, workers=0)
        for number in range(rounds + 1):
            costs = packed.costs(number)
            costs |= {
                OURS: _cost(lambda: [next(mine) for _ in range(BATCHES)]),
                MONAI: _cost(lambda: [next(theirs) for _ in range(BATCHES)]),
            }
            if number:  # the first warms up
                for name, seconds in costs.items():
                    found[name].append(seconds / (BATCHES * BATCH))
        packed.close()
    return found


class _Packed:
    """One volume in compressed chunks, one after the other in a file."""

    def __init__(self, volume: npt.NDArray[np.int16], path: Path) -> None:
        codec = blosc.Blosc(cname=CODEC, clevel=LEVEL, shuffle=blosc.SHUFFLE)
        padded = np.pad(volume, [(0, -edge % chunk) for edge, chunk in zip(VOLUME, CHUNK, strict=True)])
        self.codec, self.places, content = codec, dict[tuple[int, ...], tuple[int, int]](), bytearray()
        for at in itertools.product(*(range(0, e, c) for e, c in zip(padded.shape, CHUNK, strict=True))):
            box = tuple(slice(a, a + c) for a, c in zip(at, CHUNK, strict=True))
            packed = codec.encode(np.ascontiguousarray(padded[box]))
            self.places[at] = len(content), len(packed)
            content += packed
        path.write_bytes(content)
        self.file = os.open(path, os.O_RDONLY)

    def costs(self, seed: int) -> dict[str, float]:
        """Seconds of processor time of every step of the way to `BATCHES` batches, each by itself."""
        generator = np.random.default_rng(seed)
        most = np.subtract(VOLUME, WHOLE) + 1
        batches = [self.batch(step, generator.integers(most, size=(BATCH, 3))) for step in range(BATCHES)]
        return {part: sum(costs[part] for costs in batches) for part in FLOOR}

    def batch(self, step: int, starts: npt.NDArray[np.int64]) -> dict[str, float]:
        edges = [zip(start.tolist(), CHUNK, WHOLE, strict=True) for start in starts]
        chunks = [[self.places[at] for at in itertools.product(*map(_steps, edge))] for edge in edges]
        read: list[list[bytes]] = []
        decoded = [np.empty((len(each), *CHUNK), np.int16) for each in chunks]
        wholes: list[torch.Tensor] = []

        def reading() -> None:
            read.extend([os.pread(self.file, length, at) for at, length in each] for each in chunks)

        def decoding() -> None:
            for packed, voxels in zip(read, decoded, strict=True):
                for one, target in zip(packed, voxels, strict=True):
                    self.codec.decode(one, target)

        def scaling() -> None:
            for voxels in decoded:
                stored = voxels.reshape(-1)[: np.prod(WHOLE)].reshape(WHOLE).copy()
                wholes.append(torch.from_numpy(to_unit(stored, scale=1 / 2000, offset=0.5))[None])

        def cutting() -> None:
            parts = draw_boxes(BatchGenerator.of_step(0, step, rows=BATCH), WHOLE, fraction=FRACTION)
            crop_resize(torch.stack(wholes), parts, WHOLE)

        return dict(zip(FLOOR, map(_cost, (reading, decoding, scaling, cutting)), strict=True))

    def close(self) -> None:
        os.close(self.file)


def _steps(edge: tuple[int, int, int]) -> range:
    """Where the chunks begin that a whole touches along an axis: by its start, a chunk's edge, its own."""
    start, chunk, whole = edge
    return range(start // chunk * chunk, start + whole, chunk)


def _touched() -> float:
    """Chunks that a whole at a random place touches, in the mean."""
    return float(np.prod([1 + (whole - 1) / chunk for whole, chunk in zip(WHOLE, CHUNK, strict=True)]))


def _cost(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
