"""What must hold on a GPU as it does on the CPU: sections of `gpu.py`."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from gpu_measure import (
    METHOD,
    Bench,
    blobs,
    build_ours,
    make_store,
    tf32,
    train_step,
)
from gpu_page import Section
from safetensors.torch import load_file
from torch import Tensor, nn

import parts2whole as p2w
from parts2whole.methods.base import Method
from parts2whole.networks.base import Network, count_parameters
from parts2whole.spec import discover
from parts2whole.training.optim import AdamW, Constant
from parts2whole.training.runtime import Hardware, Runtime


def agreement(bench: Bench, section: Section) -> None:
    """The same steps of pre-training on the CPU and on the GPU: losses, and gradients of the first step."""
    name = "UNet3D tiny"
    whole = (16, 16, 16) if bench.dry else (32, 64, 64)
    torch.manual_seed(0)
    module = build_ours(bench.networks[name], whole)
    wholes = blobs(4, whole)
    section.head("on", "precision", "loss of steps 1 to 3", "loss, relative", "gradient, relative")
    losses: list[float] = []
    reference = torch.zeros(1)
    for device, precision, fast, limits in (
        ("cpu", "32-true", False, (0.0, 0.0)),
        (bench.accelerator, "32-true", False, (1e-4, 1e-3)),
        (bench.accelerator, "32-true", True, (5e-3, 5e-2)),
        (bench.accelerator, "bf16-mixed", False, (2e-2, 3e-1)),
    ):
        with tf32(fast):
            runtime = Runtime(Hardware(accelerator=device, precision=precision))  # type: ignore[arg-type]
            step = train_step(runtime, copy.deepcopy(module), 4)
            found = [float(step(wholes, 0)["loss"])]
            gradient = torch.cat([p.grad.flatten().double().cpu() for p in step.module.parameters()])  # type: ignore
            found += [float(step(wholes, n)["loss"]) for n in (1, 2)]
        if not losses:
            losses, reference = found, gradient
        change = max(abs(a / b - 1) for a, b in zip(found, losses, strict=True))
        turned = float((gradient - reference).norm() / reference.norm())
        label = f"{precision}{' (TF32)' if fast else ''}"
        section.row(device, label, ", ".join(f"{x:.6f}" for x in found), f"{change:.2g}", f"{turned:.2g}")
        section.raw.append({"device": device, "precision": label, "losses": found, "gradient": turned})
        for what, value, most in (("loss", change, limits[0]), ("gradient", turned, limits[1])):
            if value > most:
                section.fail(
                    f"the {what} on {device} in {label} is {value:.2g} off, at most {most} is allowed"
                )


def everything(bench: Bench, section: Section) -> None:
    """Every method and every network: two deterministic steps, twice from the same start, to the bit."""
    networks, methods = (
        discover(f, f"parts2whole.{n}") for f, n in ((Network, "networks"), (Method, "methods"))
    )
    tried: list[tuple[str, Network, Method]] = [
        *((name, bench.networks["UNet3D tiny"], member()) for name, member in sorted(methods.items())),
        *((name, member(), METHOD) for name, member in sorted(networks.items())),
    ]
    section.head("what", "parameters", "loss", "after two steps", "ms a step, deterministic", "usual")
    runtime = Runtime(Hardware(accelerator=bench.accelerator, precision="bf16-mixed", deterministic=True))
    try:
        for name, network, method in tried[:3] if bench.dry else tried:
            if bench.left() < 5:
                section.say("The rest was not tried for lack of time.")
                return
            try:
                _try_one(bench, section, runtime, name, network, method)
            except Exception as error:
                traceback.print_exc()
                section.fail(
                    f"{name}: `{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}`"
                )
    finally:
        torch.use_deterministic_algorithms(False)


def _try_one(
    bench: Bench, section: Section, runtime: Runtime, name: str, network: Network, method: Method
) -> None:
    edge = network.build_encoder(1).divisor
    whole = (16, 16, 16) if bench.dry else (max(2 * edge, 32),) * 3
    torch.manual_seed(0)
    module = method.build(network, in_channels=1, whole_size=whole)
    wholes = blobs(4, whole)
    ends, losses, times = [], [], []
    for deterministic in (True, True, False):
        torch.use_deterministic_algorithms(deterministic)
        step = train_step(runtime, copy.deepcopy(module), 4, method=method)
        losses.append([float(step(wholes, number)["loss"]) for number in (0, 1)])
        bench.sync()
        ends.append(torch.cat([p.detach().flatten().cpu() for p in step.module.parameters()]))
        began = time.perf_counter()
        step(wholes, 2)
        bench.sync()
        times.append(time.perf_counter() - began)
    same = torch.equal(ends[0], ends[1])
    section.row(name, f"{count_parameters(module) / 1e6:.2f} M", f"{losses[0][1]:.4f}",
                "equal" if same else "differ", *(f"{1000 * t:.1f}" for t in times[1:]))  # fmt: skip
    section.raw.append({"what": name, "losses": losses, "same": same, "seconds": times})
    if not same or not all(map(math.isfinite, losses[0])):
        section.fail(f"{name}: two deterministic runs {'differ' if not same else 'have no finite loss'}")


def resume(bench: Bench, section: Section) -> None:
    """Stopped and resumed against never stopped, each in a process of its own, by `pretrain` on the GPU."""
    path = make_store(bench.folder / "resume-store", volumes=6, shape=(48, 80, 80), seed=1)
    cases = [("UNet3D", "tiny", True), ("ResEncUNet3D", "tiny", True), ("UNet3D", "tiny", False)]
    cases = cases[:1] if bench.dry else cases
    whole: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for network, size, deterministic in cases:
        base = {"store": str(path), "network": network, "size": size, "deterministic": deterministic,
                "accelerator": bench.accelerator, "embed": 0 if bench.dry else 4}  # fmt: skip
        out = f"{bench.folder / network}-{deterministic}"
        runs = (("a", 6), ("half", 3)) if bench.dry else (("a", 6), ("b", 6), ("half", 3))
        whole += [{**base, "out": f"{out}-{n}", "steps": s} for n, s in runs]
        rest.append({**base, "out": f"{out}-half", "steps": 6, "resume": True})
    failures = [*_together(whole), *_together(rest)]
    for failure in failures:
        section.fail(failure)
    section.head("network", "mode", "compared", "tensors that differ", "largest difference")
    for network, size, deterministic in cases:
        mode = "deterministic" if deterministic else "usual"
        out = f"{bench.folder / network}-{deterministic}"
        for title, other in (("two runs", "b"), ("stopped at 3, resumed, of 6", "half")):
            runs = [Path(f"{out}-{name}") for name in ("a", other)]
            if not all((run / "weights" / "model.safetensors").exists() for run in runs):
                continue
            differing, largest = _compare(*runs)
            section.row(f"{network} {size}", mode, title, f"{differing}", f"{largest:.3g}")
            section.raw.append({"network": network, "mode": mode, "compared": title, "differ": differing,
                                "largest": largest})  # fmt: skip
            if deterministic and differing:
                section.fail(f"{network}: {title} are not the same to the bit")


def _together(settings: list[dict[str, Any]]) -> list[str]:
    """Run `child` in processes side by side; what those that fail have said last."""
    script = str(Path(__file__).with_name("gpu.py"))
    # Without the setting that deterministic cuBLAS needs: the project must see to it.
    environment = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}
    environment["OMP_NUM_THREADS"] = "1"
    processes = [
        subprocess.Popen(
            [sys.executable, script, "--child", json.dumps(each)], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=environment,
        )
        for each in settings
    ]  # fmt: skip
    failures = []
    for process, each in zip(processes, settings, strict=True):
        said = process.communicate()[0]
        if process.returncode:
            print(said[-3000:], flush=True)
            last = (said.strip().splitlines() or [""])[-1][:300]
            failures.append(f"{Path(each['out']).name} ended with {process.returncode}: `{last}`")
    return failures


def child(settings: dict[str, Any]) -> None:
    """One pre-training, in a process of its own."""
    network = {"UNet3D": p2w.UNet3D, "ResEncUNet3D": p2w.ResEncUNet3D}[settings["network"]]
    p2w.pretrain(
        settings["store"], out=settings["out"], network=network(size=settings["size"]), method=METHOD,
        steps=settings["steps"], batch_size=4, whole_size=(32, 32, 32), schedule=Constant(),
        optimiser=AdamW(), validation_wholes=4, validate_every=3, checkpoint_every=3,
        embed_wholes=settings["embed"],
        hardware=Hardware(accelerator=settings["accelerator"], deterministic=settings["deterministic"]),
        resume=settings.get("resume", False), progress=False,
    )  # fmt: skip


def _compare(one: Path, other: Path) -> tuple[int, float]:
    """Tensors of two runs' weights that differ in any bit, and the largest difference."""
    a, b = (load_file(run / "weights" / "model.safetensors") for run in (one, other))
    if a.keys() != b.keys():
        raise RuntimeError(f"{one.name} and {other.name} don't have the same tensors")
    differing = [name for name in a if not torch.equal(a[name], b[name])]
    return len(differing), max((float((a[n] - b[n]).abs().max()) for n in differing), default=0.0)


def shortage(bench: Bench, section: Section) -> None:
    """Memory is made short; the step divides its batch, and the gradients must stay."""
    name = "UNet3D tiny" if bench.dry else "UNet3D small"
    rows, whole = (4, (16, 16, 16)) if bench.dry else (32, bench.whole)
    network = type(bench.networks[name])(size=bench.networks[name].size, norm="group")  # type: ignore
    section.say(
        f"{name} with group norm (batch norm takes its statistics from each micro-batch), {rows} wholes of "
        f"{whole}. Distance of all gradients from those in float64, relative to their norm: the divided "
        "batch must not be farther away than the whole one."
    )
    section.head("precision", "memory allowed GiB", "micro-batches", "whole, from float64",
                 "divided, from float64", "loss, whole", "loss, divided")  # fmt: skip
    wholes = blobs(rows, whole)
    with tf32(False):
        runtime = Runtime(Hardware(accelerator=bench.accelerator, precision="32-true"))
        torch.manual_seed(0)
        module = build_ours(network, whole)
        exact, _, _ = _gradients(runtime, copy.deepcopy(module).double(), wholes.double())
        for precision in ("32-true", "bf16-mixed"):
            runtime = Runtime(Hardware(accelerator=bench.accelerator, precision=precision))  # type: ignore
            bench.reset_memory()
            full, loss, _ = _gradients(runtime, copy.deepcopy(module), wholes)
            peak = bench.peak_gib()
            bench.reset_memory()
            allowed = _limit(bench, 0.45 * peak)
            try:
                divided, other, parts = _gradients(
                    runtime, copy.deepcopy(module), wholes, 4 if bench.dry else 1
                )
            finally:
                _limit(bench, None)
            far, near = (float((found - exact).norm() / exact.norm()) for found in (divided, full))
            section.row(precision, f"{allowed:.2f}", f"{parts}", f"{near:.2g}", f"{far:.2g}", f"{loss:.7f}",
                        f"{other:.7f}")  # fmt: skip
            section.raw.append(
                {"precision": precision, "allowed_gib": allowed, "full_peak_gib": peak,
                 "micro_batches": parts, "whole": near, "divided": far, "losses": [loss, other]}
            )  # fmt: skip
            if parts == 1:
                section.fail("the batch was not divided")
            if far > 2 * near + 1e-5:
                section.fail(f"gradients of the divided batch are {far:.2g} from float64 in {precision}")


def _limit(bench: Bench, gib: float | None) -> float:
    """Let this process have only so much of the GPU's memory; None takes the limit away."""
    if bench.dry:
        return 0.0
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0 if gib is None else gib / total)
    return gib or total


def _gradients(
    runtime: Runtime, module: nn.Module, wholes: Tensor, parts: int = 1
) -> tuple[Tensor, float, int]:
    """All gradients after one step as a vector on the CPU, the loss, and the micro-batches it took."""
    step = train_step(runtime, module, len(wholes), micro_batches=parts)
    loss = float(step(wholes, 0)["loss"])
    found = torch.cat(
        [p.grad.flatten().double().cpu() for p in step.module.parameters() if p.grad is not None]
    )
    return found, loss, step.micro_batches
