"""Speed of a pre-training step, side by side in one run, and memory against the number of volumes.

    python benchmarks/train_step.py [--size tiny] [--rounds 5] [--out docs/train-step.md]

The machines are noisy: what counts is the ratio of variants that were timed in turn, round by round, and its
median.  Variants:

    end to end     `fit` as pretrain runs it: store on disk, views, forward, backward, optimiser
    in memory      the same forward, backward and optimiser step on a batch that lies in memory
    default layout the same network contiguous, float32, batch norm, as public implementations run it
    MONAI          BasicUNet of about equal parameter count, contiguous, float32
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from torch import nn

import parts2whole as p2w
from parts2whole.networks.base import count_parameters
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Volume
from parts2whole.store.store import Store
from parts2whole.training.optim import AdamW, parameter_groups
from parts2whole.training.runtime import Hardware, Runtime, to_channels_last
from parts2whole.wholes.loader import Share, load_batches
from parts2whole.wholes.random import BatchGenerator
from parts2whole.wholes.sampler import Wholes, WholeSampler, WholeSize

WHOLE = (32, 64, 64)
BATCH = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="tiny", choices=["tiny", "small", "base"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps a round and variant")
    parser.add_argument("--volumes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--out", type=Path, help="also write the tables to this Markdown file")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(json.dumps(peak_memory(arguments.memory_of)))
        return
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store", volumes=8, shape=(80, 160, 160))
        lines = speed_table(store, arguments.size, arguments.rounds, arguments.steps)
        lines += ["", *memory_table(Path(folder), arguments.volumes)]
    print("\n".join(lines))
    if arguments.out:
        when = time.strftime("%Y-%m-%d")
        header = f"# A training step\n\nWritten by `python {' '.join(sys.argv)}` on {when}.\n\n"
        arguments.out.write_text(header + "\n".join(lines) + "\n")


def make_store(path: Path, *, volumes: int, shape: tuple[int, int, int]) -> Path:
    store = Store.create(path, preprocess=Preprocess(modality="CT"))
    generator = np.random.default_rng(0)
    voxels = generator.integers(0, 32767, shape).astype(np.int16)
    for case in range(volumes):
        store.write_volume(f"case_{case:05d}", Volume(np.roll(voxels, case, axis=0)), patient=str(case))
    store.finish()
    return path


def speed_table(store: Path, size: str, rounds: int, steps: int) -> list[str]:
    variants = make_variants(store, size)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _, (name, run) in itertools.product(range(rounds + 1), variants.items()):
        began = time.perf_counter()
        run(steps)
        times[name].append(time.perf_counter() - began)
    rates = {name: [steps * BATCH / t for t in found[1:]] for name, found in times.items()}
    reference = rates["end to end"]
    lines = [
        f"UNet3D {size}, wholes {WHOLE}, batch {BATCH}, {torch.get_num_threads()} threads, "
        f"{rounds} rounds in turn.",
        "",
        "| variant | samples/s, median (min to max) | end to end / this, median of rounds |",
        "|---|---|---|",
    ]
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(reference, found, strict=True))
        middle, low, high = statistics.median(found), min(found), max(found)
        lines.append(f"| {name} | {middle:.2f} ({low:.2f} to {high:.2f}) | {ratio:.2f} |")
    return lines


def make_variants(store: Path, size: str) -> dict[str, Callable[[int], None]]:
    method, network = p2w.Parts2Whole(), p2w.UNet3D(size=size)
    runtime = Runtime(Hardware(accelerator="cpu"))
    full = Runtime(Hardware(accelerator="cpu", precision="32-true"))
    sampler = WholeSampler(Store.open(store), size=WholeSize(WHOLE))
    numbers = itertools.count()

    def build() -> nn.Module:
        return method.build(network, in_channels=1, whole_size=WHOLE)

    def stepper(
        module: nn.Module, setup: Runtime, *, last: bool
    ) -> Callable[[dict[str, torch.Tensor]], None]:
        module = setup.place_module(module) if last else module
        optimiser = AdamW().build(parameter_groups(module))

        def step(views: dict[str, torch.Tensor]) -> None:
            optimiser.zero_grad(set_to_none=True)
            with setup.autocast():
                rebuilt = torch.sigmoid(module(views["part"]).float())
                loss = F.mse_loss(rebuilt, views["whole"])
            loss.backward()
            optimiser.step()

        return step

    wholes = torch.stack([sampler.read(sampler.draw("memory", i)) for i in range(BATCH)])
    contiguous = method.views(wholes, BatchGenerator.of_step("memory", rows=BATCH))
    last = {key: to_channels_last(value) for key, value in contiguous.items()}
    ours = build()
    parameters = count_parameters(ours)
    monai = min(
        (BasicUNet(3, 1, 1, features=(w, w, 2 * w, 4 * w, 8 * w, w)) for w in range(2, 80, 2)),
        key=lambda net: abs(count_parameters(net) - parameters),
    )
    end_to_end, in_memory = stepper(ours, runtime, last=True), stepper(build(), runtime, last=True)
    ours_full = stepper(build(), full, last=True)
    default, peer = stepper(build(), full, last=False), stepper(monai, full, last=False)

    def from_store(steps: int) -> None:
        first = next(numbers) * steps
        loader = load_batches(
            Wholes(sampler, BATCH), batch_size=BATCH, first_step=first, steps=first + steps, share=Share()
        )
        for number, batch in enumerate(loader):
            views = method.views(batch, BatchGenerator.of_step("views", first + number, rows=BATCH))
            end_to_end({key: to_channels_last(value) for key, value in views.items()})

    def repeated(step: Callable[[dict[str, torch.Tensor]], None], views: dict[str, torch.Tensor]):
        return lambda steps: [step(views) for _ in range(steps)] and None

    return {
        "end to end": from_store,
        f"in memory ({runtime.precision}, channels last)": repeated(in_memory, last),
        "in memory (32-true, channels last)": repeated(ours_full, last),
        "default layout (32-true)": repeated(default, contiguous),
        f"MONAI BasicUNet, {count_parameters(monai):,} parameters (ours {parameters:,})": repeated(
            peer, contiguous
        ),
    }


def memory_table(folder: Path, counts: list[int]) -> list[str]:
    lines = ["| volumes in the store | peak memory of the process, MiB |", "|---|---|"]
    for count in counts:
        store = make_store(folder / f"store-{count}", volumes=count, shape=(32, 64, 64))
        command = [sys.executable, __file__, "--memory-of", str(store)]
        found = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
        lines.append(f"| {count:,} | {found['peak_mib']:.0f} |")
    return lines


def peak_memory(store: Path) -> dict[str, float]:
    """Draw and read 400 wholes in a process of its own; its peak resident memory."""
    sampler = WholeSampler(Store.open(store), size=WholeSize((24, 48, 48)))
    for step in range(400):
        sampler.read(sampler.draw(step))
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    main()
