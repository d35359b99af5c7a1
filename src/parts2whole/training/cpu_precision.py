"""Which of float32 and bfloat16 a CPU trains faster in: told by its instructions, or found by a trial.

AMX multiplies bfloat16 matrices many times faster; a CPU without instructions for bfloat16 emulates it.
In between, either may be faster, so a few small steps are tried in turn, for about a second. What was
found is kept for this processor and version of PyTorch: runs that are compared must not differ in
precision by the noise of a trial.
"""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import time
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock
from torch import nn

from parts2whole.files import JsonError, read_json, write_json
from parts2whole.networks.blocks import ConvUnit
from parts2whole.training.cpu_bfloat16 import keep_float32_where_wrong
from parts2whole.training.cpu_norm import speed_up_norms

WORTH = 1.1
"""How much faster bfloat16 must be to be taken, as float32 is more exact."""
ROUNDS = 6
KEPT = "cpu_precision.json"


@dataclasses.dataclass(frozen=True)
class CpuPrecision:
    """A precision, and why it was chosen."""

    precision: Literal["32-true", "bf16-mixed"]
    why: str


def choose_cpu_precision(cache: Path) -> CpuPrecision:
    """The faster precision of this machine's CPU.

    Args:
        cache: folder where the outcome of trials is kept; without one that can be written to, every process
            tries anew.
    """
    if torch.cpu._is_amx_tile_supported():
        return CpuPrecision("bf16-mixed", "the CPU has AMX")
    if not torch.cpu._is_avx512_bf16_supported():
        return CpuPrecision("32-true", "the CPU has no instructions for bfloat16")
    faster = _kept_trial(cache)
    why = f"bfloat16 has {faster:.2g} times the speed of float32 in a trial"
    return CpuPrecision("bf16-mixed" if faster >= WORTH else "32-true", why)


def _kept_trial(cache: Path) -> float:
    """The outcome of `try_bfloat16` here, from an earlier process if there was one."""
    key = f"{processor()}, torch {torch.__version__}"
    path = cache / KEPT
    with contextlib.ExitStack() as stack:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        except OSError:
            return try_bfloat16()
        known: dict[str, float] = {}
        with contextlib.suppress(FileNotFoundError, JsonError):
            known = read_json(path)
        if key not in known:
            known[key] = round(try_bfloat16(), 2)
            write_json(path, known)
        return known[key]


def try_bfloat16() -> float:
    """Time of a small training step in float32 over that in bfloat16: the least of several, taken in turn.

    One thread works, and its own time counts, so that others who use the machine decide nothing.
    """
    with torch.random.fork_rng(devices=[]):
        module = nn.Sequential(ConvUnit(8, 16, "batch"), ConvUnit(16, 32, "batch"))
        x = torch.rand(2, 8, 16, 32, 32)
    module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    x = x.to(memory_format=torch.channels_last_3d)
    speed_up_norms(module)
    keep_float32_where_wrong(module)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number in range(2 * ROUNDS):
            bfloat16 = bool(number % 2)
            began = time.process_time()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                loss = module(x).float().square().mean()
            loss.backward()
            seconds[bfloat16].append(time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    return min(seconds[False]) / min(seconds[True])


def processor() -> str:
    """The model of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
