"""The targets of speed, found against wanted; ends with an error where one that was met is lost.

    python benchmarks/targets.py [--rounds 3] [--only NAME ...] [--write docs/speed.md] [--keep]

Every figure is a ratio of two things that are measured in turn, round by round, and its median counts.
Processor time of one thread is taken where one process works, so that others who use the machine change
little.  A target is lost if it was met and even the best of its rounds misses it now.  ``--keep`` writes
which are met into targets.json.  What needs a package that isn't installed is passed over, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inference
import memory
import numpy as np
import prepare
import sampling_limit
import torch
from machine import describe_machine
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import parts2whole as p2w
from parts2whole.networks.blocks import build_norm
from parts2whole.scans.nifti import write_nifti
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.tasks.base import Examination
from parts2whole.training.runtime import Hardware, Runtime, to_channels_last

KNOWN = Path(__file__).with_name("targets.json")
WHOLE, BATCH, STEPS = (32, 64, 64), 4, 3
Rounds = list[float]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--write", type=Path, help="also write the table to this Markdown file")
    parser.add_argument("--keep", action="store_true", help="remember which targets are met")
    parser.add_argument("--step", choices=["default", "ours", *PRECISIONS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.step:
        print(json.dumps(time_steps(arguments.step)))
        return 0
    found = {name: TARGETS[name][0](arguments.rounds) for name in arguments.only}
    lines = table(found)
    print("\n".join(lines))
    if arguments.write:
        command = f"python {' '.join(sys.argv)}"
        costs = sampling_limit.table(sampling_limit.measure(arguments.rounds))
        arguments.write.write_text(
            PAGE.format(command=command, table="\n".join(lines), costs="\n".join(costs))
        )
    known = json.loads(KNOWN.read_text())
    found = {name: rounds for name, rounds in found.items() if rounds}
    met = {name: best(name, statistics.median(rounds)) for name, rounds in found.items()}
    lost = [n for n, rounds in found.items() if known.get(n) and not any(best(n, r) for r in rounds)]
    if arguments.keep:
        KNOWN.write_text(json.dumps(known | met, indent=1) + "\n")
    for name in lost:
        print(f"lost: {name}, which was met before", file=sys.stderr)
    return 1 if lost else 0


def best(name: str, value: float) -> bool:
    """Whether a value meets a target."""
    _, wanted, more = TARGETS[name]
    return value >= wanted if more else value <= wanted


def table(found: dict[str, Rounds]) -> list[str]:
    lines = [
        describe_machine(),
        "",
        "| what | found, median (min to max) | wanted | met |",
        "|---|---|---|---|",
    ]
    for name, rounds in found.items():
        _, wanted, more = TARGETS[name]
        if not rounds:
            lines.append(f"| {name} | not measured: {NEEDS[name]} isn't installed | {wanted:g} | |")
            continue
        middle = statistics.median(rounds)
        text = f"{middle:.2f} ({min(rounds):.2f} to {max(rounds):.2f})"
        sign, met = "at least" if more else "at most", "yes" if best(name, middle) else "**no**"
        lines.append(f"| {name} | {text} | {sign} {wanted:g} | {met} |")
    return lines


PRECISIONS = ("32-true", "bf16-mixed")


def time_steps(variant: str) -> dict[str, float]:
    """Processor time of a training step in this process, and the operations in it."""
    precision = {"ours": "auto", "default": "32-true"}.get(variant, variant)
    # Without a runtime, which is how a loop of one's own trains: contiguous, and memory goes back at once.
    setup = None if variant == "default" else Runtime(Hardware(accelerator="cpu", precision=precision))
    torch.manual_seed(0)
    module = p2w.Parts2Whole().build(p2w.UNet3D(size="tiny"), in_channels=1, whole_size=WHOLE)
    x = torch.rand(BATCH, 1, *WHOLE)
    if setup:
        module, x = setup.place_module(module), to_channels_last(x)
    optimiser = torch.optim.AdamW(module.parameters())

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with setup.autocast() if setup else contextlib.nullcontext():
            loss = (torch.sigmoid(module(x).float()) - x).square().mean()
        loss.backward()
        optimiser.step()

    step()
    with FlopCounterMode(display=False) as counted:
        step()
    seconds = statistics.median(processor_time(step) for _ in range(STEPS))
    dtype = torch.bfloat16 if setup and setup.precision == "bf16-mixed" else torch.float32
    a, b = torch.rand(2048, 2048, dtype=dtype), torch.rand(2048, 2048, dtype=dtype)
    product = min(processor_time(lambda: a @ b) for _ in range(4))
    return {"seconds": seconds, "share": counted.get_total_flops() / seconds / (2 * 2048**3 / product)}


def processor_time(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def step_in_process(variant: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", variant]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def training_step(rounds: int) -> Rounds:
    pairs = [(step_in_process("default"), step_in_process("ours")) for _ in range(rounds)]
    return [slow["seconds"] / fast["seconds"] for slow, fast in pairs]


def peak_share(rounds: int) -> Rounds:
    return [100 * step_in_process("ours")["share"] for _ in range(rounds)]


def precision(rounds: int) -> Rounds:
    found = []
    for _ in range(rounds):
        chosen, *both = (step_in_process(v)["seconds"] for v in ("ours", *PRECISIONS))
        found.append(chosen / min(both))
    return found


def norm_against_group(norm: str) -> Callable[[int], Rounds]:
    """Forward and backward on the map of a training step's finest level."""

    def measure(rounds: int) -> Rounds:
        runtime = Runtime(Hardware(accelerator="cpu", precision="32-true"))
        x = to_channels_last(torch.randn(BATCH, 8, *WHOLE)).requires_grad_()
        slope = to_channels_last(torch.randn(BATCH, 8, *WHOLE))
        ours, group = (runtime.place_module(build_norm(name, 8)) for name in (norm, "group"))

        def both(layer: nn.Module) -> float:
            return min(processor_time(lambda: layer(x).backward(slope)) for _ in range(5))

        return [both(ours) / both(group) for _ in range(rounds + 1)][1:]

    return measure


def inference_ratio(slow: str, fast: str) -> Callable[[int], Rounds]:
    def measure(rounds: int) -> Rounds:
        seconds = inference.measure(rounds, (slow, fast))
        return [a / b for a, b in zip(seconds.get(slow, []), seconds[fast], strict=slow in seconds)]

    return measure


def prepare_processes(by: str) -> Callable[[int], Rounds]:
    return lambda rounds: prepare.measure(min(rounds, 2))[by]


def sampling(rounds: int) -> Rounds:
    costs = sampling_limit.measure(rounds)
    return [a / b for a, b in zip(costs[sampling_limit.MONAI], costs[sampling_limit.OURS], strict=True)]


def sampling_over_floor(rounds: int) -> Rounds:
    costs = sampling_limit.measure(rounds)
    floors = zip(*(costs[part] for part in sampling_limit.FLOOR), strict=True)
    return [own / sum(parts) for own, parts in zip(costs[sampling_limit.OURS], floors, strict=True)]


@dataclasses.dataclass(frozen=True)
class Watched(p2w.Segmentation):
    """Labelled volumes, and how long each look at them took, in seconds."""

    def examine(self, *arguments: Any, **settings: Any) -> Examination:
        """Look at cases, and at the clock."""
        began = time.perf_counter()
        try:
            return super().examine(*arguments, **settings)
        finally:
            LOOKS.append(time.perf_counter() - began)


LOOKS: Rounds = []


def validation_share(rounds: int) -> Rounds:
    """Share of a fine-tuning with default settings on 40 balls, 8 of them to validate on, in percent."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        axes = np.ogrid[-24:24, -32:32, -32:32]
        for number in range(40):
            noise = np.random.default_rng(number).normal(0, 40, (48, 64, 64))
            ball = sum(axis.astype(float) ** 2 for axis in axes) < (10 + number / 4) ** 2
            write_nifti(Volume((noise + 300 * ball).astype(np.int16)), place / "images" / f"{number}.nii")
            write_nifti(LabelVolume(ball.astype(np.uint8)), place / "labels" / f"{number}.nii")
        task = Watched(
            place,
            preprocess=p2w.Preprocess(modality="MR"),
            patch_size=(32, 32, 32),
            validation_fraction=0.2,
            test_fraction=0.0,
        )
        for number in range(min(rounds, 2)):
            LOOKS.clear()
            done = p2w.finetune(
                task,
                out=place / f"run{number}",
                network=p2w.UNet3D(size="tiny"),
                steps=150,
                cache=place / "cache",
                progress=False,
            )
            found.append(100 * sum(LOOKS[:-1]) / done.result["duration_s"])  # the last is of the best step
    return found


def two_processes(rounds: int) -> Rounds:
    """Largest difference of a loss of three steps, in percent; the same in every round, so there is one."""
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 2):
            out = Path(folder) / f"{count}.json"
            command = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                str(count),
            ]
            script = Path(__file__).with_name("many_processes.py")
            command += [str(script), str(out), "--batch", "4", "--steps", "3", "--methods", "Parts2Whole"]
            subprocess.run(
                command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            losses.append(json.loads(out.read_text())["Parts2Whole"]["losses"])
    return [100 * max(abs(two / one - 1) for one, two in zip(*losses, strict=True))]


def refused_command(rounds: int) -> Rounds:
    command = [sys.executable, "-m", "parts2whole", "pretrain", "nowhere", "--steps", "many"]
    found = []
    for _ in range(rounds):
        before = sum(os.times()[2:4])
        done = subprocess.run(command, check=False, capture_output=True)
        assert done.returncode, "it must be refused"
        found.append(sum(os.times()[2:4]) - before)
    return found


HALF, EIGHTH = inference.HALF, inference.DEFAULT
NNUNET = "inference: nnU-Net / ours, same windows"
NEEDS = {NNUNET: "nnunetv2"}
"""What a row needs that `make bench` doesn't install."""
TARGETS: dict[str, tuple[Callable[[int], Rounds], float, bool]] = {
    "training step: default layout and float32 / ours": (training_step, 2, True),
    "precision auto: time / that of the faster precision": (precision, 1.1, False),
    "batch norm / group norm": (norm_against_group("batch"), 1.3, False),
    "instance norm / group norm": (norm_against_group("instance"), 1.3, False),
    "training step: % of the peak of matrix products": (peak_share, 40, True),
    "inference: patches that overlap by half / ours": (inference_ratio(HALF, EIGHTH), 4, True),
    "inference: MONAI / ours, same windows": (inference_ratio(f"{EIGHTH}, MONAI", EIGHTH), 0.95, True),
    NNUNET: (inference_ratio(f"{EIGHTH}, nnU-Net", EIGHTH), 0.95, True),
    "validation: % of the time of a default fine-tuning": (validation_share, 10, False),
    f"prepare, {prepare.SCANS} scans: 1 process / 2, {prepare.CLOCK}": (
        prepare_processes(prepare.CLOCK),
        1.8,
        True,
    ),
    f"prepare, {prepare.SCANS} scans: 1 process / 2, {prepare.PROCESSOR}": (
        prepare_processes(prepare.PROCESSOR),
        1.8,
        True,
    ),
    prepare.REWRITTEN: (prepare.against_simpleitk, 1, True),
    "sampling: MONAI, from memory / ours, from the compressed store": (sampling, 4, True),
    "sampling: ours / sum of its floors, see below": (sampling_over_floor, 1.5, False),
    "memory of sampling: 1,000 volumes / 10": (lambda rounds: memory.growth(10, 1000, rounds), 1.05, False),
    "gradients: largest difference of 2 processes to 1, % of the loss": (two_processes, 0.2, False),
    "a refused command, s": (refused_command, 0.5, False),
}
"""How each is measured, what is wanted, and whether more is better."""


PAGE = """# Speed

What was promised of speed, and what is found: on the processors of one machine, each figure a ratio of two
things in one run. `make bench` prints the table and ends with an error where a target that was met is lost;
more of it: [on a GPU](gpu.md), [inference](inference.md) and what its windows cost in Dice,
[sampling](sampling.md) beside other loaders and [its memory](sampling-memory.md), and [several
processes](scaling.md).

Written by `{command}`.

{table}

*Share of the peak* counts the multiplications of a step against those of products of large matrices.
*Prepare* by the clock sets one process on one core against two on two. Left alone, one process compresses in
threads, too, and with a second core idle two are only half as fast again. By processor time it is what one
process needs over the parent's and half of what two workers need: the ratio that two cores give which nothing
else disturbs. *nnU-Net* passes windows one at a time, and PyTorch has a slower way for a single small map.

## Why sampling isn't four times as fast as from memory

MONAI's volumes lie in memory as floats; ours are compressed on the disk. Each part of the way, by itself:

{costs}

MONAI's time over the sum is the most that a loader over this store can reach. Larger chunks decode more
that a whole doesn't need, smaller ones take longer to find: [the table of codecs and chunks](sampling.md),
made with an earlier reader, has no compressed store that reads more than 6 % faster.
"""


if __name__ == "__main__":
    sys.exit(main())
