"""Cost of making views, side by side in one run: Models Genesis against NumPy, and every method.

    python benchmarks/methods.py [--rounds 5] [--write docs/methods.md]

The variants are timed in turn, round by round; what counts is the ratio within a round, and its median.
``--write`` replaces what stands between the two marks in the page.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import genesis_numpy
import numpy as np
import torch

from parts2whole.methods.base import Method
from parts2whole.networks.unet3d import UNet3D
from parts2whole.phantom.ct import make_ct
from parts2whole.phantom.sizes import CT
from parts2whole.spec import discover
from parts2whole.wholes.random import BatchGenerator

WHOLE = (32, 64, 64)
BATCH = 8
BEGIN, END = "<!-- begin: written by benchmarks/methods.py -->", "<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="batches a round and variant")
    parser.add_argument("--write", type=Path, help="also put the tables into this page")
    arguments = parser.parse_args()
    lines = tables(arguments.rounds, arguments.repeats)
    print("\n".join(lines))
    if arguments.write:
        text = arguments.write.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        arguments.write.write_text("\n".join([before + BEGIN, *lines, END]) + after)


def tables(rounds: int, repeats: int) -> list[str]:
    wholes = make_wholes()
    methods = {name: kind() for name, kind in discover(Method, "parts2whole.methods").items()}  # type: ignore[type-abstract]
    steps = iter(range(10**9))

    def views_of(method: Method) -> Callable[[], None]:
        return lambda: method.views(wholes, BatchGenerator.of_step(next(steps), rows=BATCH)) and None

    def in_numpy() -> None:
        for volume in wholes.numpy():
            genesis_numpy.spoil(volume)

    variants = {name: views_of(method) for name, method in methods.items()}
    seconds = time_in_turn(variants | {"numpy": in_numpy}, rounds, repeats)
    training = time_in_turn({name: step_of(method, wholes) for name, method in methods.items()}, 1, 1)
    ratios = [a / b for a, b in zip(seconds["numpy"], seconds["ModelsGenesis"], strict=True)]
    machine = (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), no GPU, {torch.get_num_threads()} thread(s), "
        f"torch {torch.__version__.partition('+')[0]}, NumPy {np.__version__}"
    )
    lines = [
        "Measured by `python benchmarks/methods.py --write docs/methods.md` on "
        f"{datetime.now(UTC):%Y-%m-%d}: {machine}. Batches of {BATCH} wholes of "
        f"{'x'.join(map(str, WHOLE))} voxels from phantoms; {rounds} rounds in turn. Times are those of the "
        "process, so that other work on the machine counts less.",
        "",
        "| Models Genesis transforms | samples/s, median (min to max) |",
        "|---|---|",
        f"| this package, batched | {rates(seconds['ModelsGenesis'])} |",
        f"| the same definition in NumPy, one volume and block after the other | {rates(seconds['numpy'])} |",
        "",
        f"The batched version is {statistics.median(ratios):.1f} times as fast (median of rounds; "
        f"{min(ratios):.1f} to {max(ratios):.1f}).",
        "",
        "| method | views, ms a whole | training step with UNet3D tiny, ms a whole | share of views |",
        "|---|---|---|---|",
    ]
    for name in methods:
        views, step = (1e3 * statistics.median(times[name]) / BATCH for times in (seconds, training))
        lines.append(f"| {name} | {views:.2f} | {step:.1f} | {100 * views / step:.0f} % |")
    return lines


def rates(seconds: list[float]) -> str:
    found = sorted(BATCH / s for s in seconds)
    return f"{statistics.median(found):.1f} ({found[0]:.1f} to {found[-1]:.1f})"


def time_in_turn(
    variants: dict[str, Callable[[], None]], rounds: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds a batch of every variant in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            began = time.process_time()
            for _ in range(repeats):
                run()
            if number:  # the first round warms up
                seconds[name].append((time.process_time() - began) / repeats)
    return seconds


def step_of(method: Method, wholes: torch.Tensor) -> Callable[[], None]:
    module = method.build(UNet3D("tiny"), in_channels=1, whole_size=WHOLE)
    optimiser = torch.optim.AdamW(module.parameters())
    steps = iter(range(10**9))

    def step() -> None:
        views = method.views(wholes, BatchGenerator.of_step(next(steps), rows=BATCH))
        optimiser.zero_grad()
        method.loss(module, views)["loss"].backward()
        optimiser.step()

    return step


def make_wholes() -> torch.Tensor:
    """Pieces of phantoms, HU -1000 to 1000 as [0, 1], padded to the size of a whole."""
    pieces = []
    for case in range(BATCH):
        hu = make_ct("chest", CT["chest"]["tiny"], seed=0, case=case).image.array.astype(np.float32)
        padded = np.pad(hu, [(0, 0), (8, 8), (8, 8)], constant_values=-1000)
        pieces.append(np.clip(padded / 2000 + 0.5, 0, 1)[None])
    return torch.from_numpy(np.stack(pieces))


if __name__ == "__main__":
    main()
