"""What torch.compile gains on a CPU: a step of pre-training, compiled or not, and the time to compile.

    python benchmarks/compiled.py [--precision 32-true] [--rounds 8]

Processor time of one thread, in turn.  What it found is said by `doctor` (verbs/doctor.py) and in
docs/decisions/index.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from machine import describe_machine

import parts2whole as p2w
from parts2whole.training.runtime import Hardware, Runtime

WHOLE, BATCH = (32, 64, 64), 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    plain, compiled = (stepper(given.precision, compile=compile) for compile in (False, True))
    plain()
    began = time.perf_counter()
    compiled()
    compiling_s = time.perf_counter() - began
    compiled()
    pairs = [(seconds(plain), seconds(compiled)) for _ in range(given.rounds)]
    ratios = [slow / fast for slow, fast in pairs]
    print(describe_machine())
    print(f"{given.precision}: compiled in {compiling_s:.0f} s; a step took {pairs[0][0]:.2f} s before")
    print(f"uncompiled / compiled: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    saved = statistics.median(slow - fast for slow, fast in pairs)
    print(f"pays after {compiling_s / saved:,.0f} steps" if saved > 0 else "never pays")


def stepper(precision: str, *, compile: bool) -> Callable[[], None]:
    runtime = Runtime(Hardware(accelerator="cpu", precision=precision, compile=compile))
    torch.manual_seed(0)
    module = p2w.Parts2Whole().build(p2w.UNet3D(size="tiny"), in_channels=1, whole_size=WHOLE)
    module, optimiser = runtime.prepare(module, torch.optim.AdamW(module.parameters()))
    x = runtime.place(torch.rand(BATCH, 1, *WHOLE))

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with runtime.autocast():
            loss = (torch.sigmoid(module(x).float()) - x).square().mean()
        runtime.backward(loss)
        optimiser.step()

    return step


def seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
