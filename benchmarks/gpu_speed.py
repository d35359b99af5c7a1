"""How fast, and in how much memory: sections of `gpu.py`."""

from __future__ import annotations

import copy
import itertools
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from gpu_measure import (
    METHOD,
    Bench,
    build_ours,
    build_peers,
    count_work,
    largest_batch,
    make_store,
    tf32,
    train_step,
)
from gpu_page import Section
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from parts2whole.evaluation.inference import sliding_window
from parts2whole.methods.base import make_views
from parts2whole.networks import repeatable
from parts2whole.networks.base import count_parameters
from parts2whole.networks.blocks import build_norm
from parts2whole.networks.heads import EncoderDecoder
from parts2whole.store.store import Store
from parts2whole.training.model import as_function
from parts2whole.training.optim import AdamW, parameter_groups
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.wholes.loader import Share, load_batches
from parts2whole.wholes.random import BatchGenerator
from parts2whole.wholes.sampler import Wholes, WholeSampler, WholeSize

VARIANTS = [  # precision, channels-last, cuDNN's search
    ("bf16", True, False),
    ("bf16", False, False),
    ("bf16", True, True),
    ("bf16", False, True),
    ("tf32", True, False),
    ("tf32", False, False),
]


def _step(
    bench: Bench, module: nn.Module, batch: int, *, precision: str, last: bool, compiled: bool = False
) -> Callable[[], Tensor]:
    """Forward, mean squared error, backward and AdamW on wholes that lie on the device."""
    layout = torch.channels_last_3d if last else torch.contiguous_format
    module = module.to(bench.device, memory_format=layout).train()
    optimiser = AdamW().build(parameter_groups(module))
    run = torch.compile(module, backend="eager" if bench.dry else "inductor") if compiled else module
    part, whole = torch.rand(2, batch, 1, *bench.whole, device=bench.device).unbind()

    def step() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        with bench.autocast(precision):
            loss = F.mse_loss(torch.sigmoid(run(part).float()), whole)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def _measure_step(
    bench: Bench, module: nn.Module, batch: int, precision: str, last: bool, search: bool, compiled: bool
) -> dict[str, Any]:
    bench.reset_memory()
    began = time.perf_counter()
    with tf32(True, benchmark=search):
        step = _step(bench, module, batch, precision=precision, last=last, compiled=compiled)
        step()
        bench.sync()
        first = time.perf_counter() - began
        seconds = bench.time(step)
    return {"batch": batch, "seconds": seconds, "first_s": first, "peak_gib": bench.peak_gib()}


def _step_row(
    bench: Bench, section: Section, name: str, module: nn.Module, batch: int, variant: tuple[str, bool, bool],
    work: tuple[float, float], *, compiled: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Measure one variant of one network and add its row."""
    precision, last, search = variant
    run = partial(
        _measure_step, bench, copy.deepcopy(module), precision=precision, last=last, search=search,
        compiled=compiled,
    )  # fmt: skip
    found: dict[str, Any] = largest_batch(run, batch)
    flops, moved = (total / batch * found["batch"] for total in work)
    peaks = bench.found["peaks"]
    found |= {
        "network": name, "precision": precision, "channels_last": last, "search": search,
        "compiled": compiled, "rate": found["batch"] / found["seconds"],
        "tflops": flops / found["seconds"] / 1e12, "tb_s": moved / found["seconds"] / 1e12,
    }  # fmt: skip
    section.row(
        name, precision, "last" if last else "first", "yes" if search else "no",
        f"{found['batch']}", f"{found['rate']:.1f}", f"{1000 * found['seconds']:.1f}",
        f"{100 * found['tflops'] / peaks[f'{precision}_tflops']:.0f} %",
        f"{100 * found['tb_s'] / peaks['copy_tb_s']:.0f} %",
        f"{found['peak_gib']:.1f}", f"{found['first_s']:.1f}",
    )  # fmt: skip
    section.raw.append(found)
    return found


STEP_HEAD = (
    "network", "precision", "channels", "cuDNN search", "batch", "wholes/s", "ms a step",
    "of matrix peak", "of copy bandwidth", "peak GiB", "first step s",
)  # fmt: skip


def _work(bench: Bench, module: nn.Module, batch: int) -> tuple[float, float]:
    """FLOPs and bytes of a bf16 step of ``batch``, counted on one row."""
    step = _step(bench, copy.deepcopy(module), 1, precision="bf16", last=True)
    step()
    flops, moved = count_work(step)
    return flops * batch, moved * batch


def steps(bench: Bench, section: Section) -> None:
    """A step of pre-training on wholes that lie on the device: layouts, precisions, and MONAI's networks."""
    section.say(
        f"Forward, mean squared error, backward, AdamW; wholes of {bench.whole}. Arithmetic is that of "
        "convolutions and products, bytes those that each operation reads and writes by itself; both counted "
        "in a bf16 step of one whole. MONAI's networks have about as many parameters as the one above them."
    )
    section.head(*STEP_HEAD)
    for name, network in bench.networks.items():
        batch = bench.batch(name)
        ours = build_ours(network, bench.whole)
        peers = {} if name.startswith("ResEnc") else build_peers(count_parameters(ours))
        for title, module in {name: ours, **peers}.items():
            if bench.left() < 20:
                section.say(f"Not measured for lack of time: {title} beside {name}.")
                continue
            called = f"{title} ({count_parameters(module) / 1e6:.1f} M)"
            work = _work(bench, module, batch)
            variants = VARIANTS if module is ours and not bench.dry else VARIANTS[:2]
            found = [_step_row(bench, section, called, module, batch, v, work) for v in variants]
            if module is ours:
                bench.found.setdefault("rates", {})[name] = max(found, key=lambda f: f["rate"])


def compiled(bench: Bench, section: Section) -> None:
    """The same step with torch.compile, default mode; the first step has the compiling in it."""
    section.head(*STEP_HEAD)
    for name in ("UNet3D small", "UNet3D base", "UNet3D tiny", "ResEncUNet3D base"):
        if name not in bench.networks:
            continue
        if bench.left() < (5 if bench.dry else 60):
            section.say(f"Not measured for lack of time: {name}.")
            continue
        module = build_ours(bench.networks[name], bench.whole)
        batch = bench.batch(name)
        best = bench.found.get("rates", {}).get(name, {"channels_last": True})
        variant = ("bf16", best["channels_last"], False)
        torch.compiler.reset()
        _step_row(bench, section, name, module, batch, variant, _work(bench, module, batch), compiled=True)


def layouts(bench: Bench, section: Section) -> None:
    """Single layers forward and backward in both layouts, bf16 autocast; floor: reading and writing once."""
    section.say(
        "Maps of 64 x 64 x 64 voxels. For norms and pooling, the floor is the time to read the input, write "
        "the output, read both gradients' sources and write the gradient (5 passes) at the copy bandwidth."
    )
    section.head("layer", "channels", "batch", "last, ms", "first, ms", "first / last", "last, searched, ms",
                 "first, searched, ms", "floor ms")  # fmt: skip
    edge = 16 if bench.dry else 64
    layers: list[tuple[str, Callable[[int], nn.Module], bool]] = [
        ("convolution 3x3x3", lambda c: nn.Conv3d(c, c, 3, padding=1), False),
        ("transposed 2x2x2", lambda c: nn.ConvTranspose3d(c, c, 2, stride=2), False),
        *((f"norm {n}", partial(build_norm, n), True) for n in ("batch", "instance", "group")),
        ("max pool 2", lambda c: nn.MaxPool3d(2), True),
        ("average pool 2", lambda c: nn.AvgPool3d(2), True),
        ("max pool 2, by slices", lambda c: _SlicedPool(), True),
    ]
    for (name, build, plain), channels in itertools.product(layers, (8,) if bench.dry else (8, 32, 64, 128)):
        if plain and channels not in (8, 64):
            continue
        if bench.left() < 10:
            section.say("The rest was not measured for lack of time.")
            return
        batch = 1 if bench.dry else 512 // channels // 4
        times = {}
        for last, search in itertools.product((True, False), (False,) if plain else (False, True)):
            layout = torch.channels_last_3d if last else torch.contiguous_format
            layer = build(channels).to(bench.device, memory_format=layout)
            kind = torch.bfloat16
            x = torch.randn(batch, channels, edge, edge, edge, device=bench.device, dtype=kind)
            x = x.to(memory_format=layout).requires_grad_()

            def run(layer: nn.Module = layer, x: Tensor = x) -> None:
                with bench.autocast("bf16"):
                    y = layer(x)
                y.backward(torch.ones_like(y))

            with tf32(True, benchmark=search):
                times[last, search] = bench.time(run)
            size = 2 * x.numel()
        floor = 5 * size / bench.found["peaks"]["copy_tb_s"] / 1e12
        searched = [f"{1000 * times[k]:.2f}" if k in times else "" for k in ((True, True), (False, True))]
        section.row(name, f"{channels}", f"{batch}", f"{1000 * times[True, False]:.2f}",
                    f"{1000 * times[False, False]:.2f}", f"{times[False, False] / times[True, False]:.2f}",
                    *searched, f"{1000 * floor:.2f}" if plain else "")  # fmt: skip
        named = {f"{'last' if k[0] else 'first'}{' searched' if k[1] else ''}": t for k, t in times.items()}
        section.raw.append({"layer": name, "channels": channels, "batch": batch, "seconds": named})
    _optimisers(bench, section)


class _SlicedPool(nn.Module):
    """Maximum over 2 x 2 x 2 as deterministic training has it."""

    def forward(self, x: Tensor) -> Tensor:
        return repeatable.max_pool_slices(x, (2, 2, 2), (2, 2, 2))


def _optimisers(bench: Bench, section: Section) -> None:
    """AdamW's step alone, as torch chooses it and fused."""
    name = "UNet3D tiny" if bench.dry else "UNet3D base"
    module = build_ours(bench.networks[name], bench.whole).to(bench.device)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    found = {}
    for label, extra in (("default", {}), ("fused", {"fused": True})):
        optimiser = torch.optim.AdamW(module.parameters(), lr=1e-5, **extra)
        found[label] = bench.time(optimiser.step)
    section.say(
        f"AdamW's step alone, {name}: {1000 * found['default']:.2f} ms as torch chooses, "
        f"{1000 * found['fused']:.2f} ms fused."
    )
    section.raw.append({"adamw": found})


def views(bench: Bench, section: Section) -> None:
    """The project's own training step, `TrainStep`, from pinned memory; views cut on the device."""
    section.head("network", "batch", "step with views, ms", "views alone, ms", "views' share", "wholes/s",
                 "step on a batch that lies there, ms")  # fmt: skip
    for name, network in bench.networks.items():
        if bench.left() < 10:
            section.say(f"Not measured for lack of time: {name}.")
            continue
        known = bench.found.get("rates", {}).get(name, {})
        batch = known.get("batch", bench.batch(name))
        runtime = Runtime(Hardware(accelerator=bench.accelerator, precision="bf16-mixed"))
        step = train_step(runtime, build_ours(network, bench.whole), batch)
        wholes = torch.rand(batch, 1, *bench.whole)
        wholes = wholes if bench.dry else wholes.pin_memory()
        number = itertools.count()
        whole_step = bench.time(lambda: step(wholes, next(number)))  # noqa: B023
        placed = runtime.place(wholes)

        def cut(batch: int = batch, placed: Tensor = placed) -> None:
            generator = BatchGenerator.of_rows("views", rows=range(batch), total=batch, device=bench.device)
            make_views(METHOD, placed, generator)

        alone = bench.time(cut)
        section.row(name, f"{batch}", f"{1000 * whole_step:.1f}", f"{1000 * alone:.2f}",
                    f"{100 * alone / whole_step:.1f} %", f"{batch / whole_step:.1f}",
                    f"{1000 * known['seconds']:.1f}" if known else "")  # fmt: skip
        section.raw.append({"network": name, "batch": batch, "step": whole_step, "views": alone})
        bench.found.setdefault("own", {})[name] = batch / whole_step


def loader(bench: Bench, section: Section) -> None:
    """Wholes a second from a store on disk, against what the networks eat."""
    volumes, shape = (2, (64, 96, 96)) if bench.dry else (8, (96, 256, 256))
    began = time.perf_counter()
    path = make_store(bench.folder / "store", volumes=volumes, shape=shape)
    section.say(
        f"{volumes} volumes of {shape}, written in {time.perf_counter() - began:.1f} s; wholes of "
        f"{bench.whole}, batches of 16, {os.cpu_count()} cores."
    )
    section.head("reader threads", "wholes/s", *(f"of what {name} eats" for name in bench.networks))
    sampler = WholeSampler(Store.open(path), size=WholeSize(bench.whole))
    demand = {name: found["rate"] for name, found in bench.found.get("rates", {}).items()}
    for workers in (0, 2) if bench.dry else (0, 2, 4, 8, 16):
        batches = load_batches(
            Wholes(sampler, 16), batch_size=16, first_step=0, steps=10**6, share=Share(workers=workers)
        )
        for _ in range(1 if bench.dry else 4):
            next(batches)
        began, read = time.perf_counter(), 0
        while time.perf_counter() - began < 2.5 * bench.seconds:
            read += len(next(batches))
        rate = read / (time.perf_counter() - began)
        batches.close()  # type: ignore[attr-defined]
        shares = [f"{rate / demand[name]:.2f}" if name in demand else "" for name in bench.networks]
        section.row(f"{workers}", f"{rate:.0f}", *shares)
        section.raw.append({"workers": workers, "rate": rate})


def memory(bench: Bench, section: Section) -> None:
    """Peak memory of a bf16 step, by size and batch."""
    section.head("network", "whole", "batch", "peak GiB", "GiB a row")
    for name, network in bench.networks.items():
        for whole, batch in (((32, 64, 64), 8), ((64, 64, 64), 8), ((96, 96, 96), 4)):
            if bench.left() < 8 or (bench.dry and whole[0] > 32):
                continue
            module = build_ours(network, whole)
            bench.reset_memory()
            peaks = []
            for rows in (1, batch):
                bench.reset_memory()
                runtime = Runtime(Hardware(accelerator=bench.accelerator, precision="bf16-mixed"))
                step = train_step(runtime, copy.deepcopy(module), rows)
                for number in range(2):
                    step(torch.rand(rows, 1, *whole), number)
                peaks.append(bench.peak_gib())
                del step
            each = (peaks[1] - peaks[0]) / (batch - 1)
            section.row(name, " x ".join(map(str, whole)), f"{batch}", f"{peaks[1]:.2f}", f"{each:.3f}")
            section.raw.append({"network": name, "whole": whole, "batch": batch, "peaks": peaks})


def inference(bench: Bench, section: Section) -> None:
    """A volume of 512 x 512 x 600 through windows that overlap by half, 3 classes, bf16."""
    shape, window = ((40, 48, 48), (16, 32, 32)) if bench.dry else ((600, 512, 512), (96, 96, 96))
    name = "UNet3D tiny" if bench.dry else "UNet3D small"
    runtime = Runtime(Hardware(accelerator=bench.accelerator, precision="bf16-mixed"))
    network = bench.networks[name].build_encoder(1)
    module = runtime.place_module(EncoderDecoder(network, out_channels=3, skips=True).eval())
    predictor = as_function(module, runtime)
    image = torch.rand(1, 1, *shape)

    @torch.no_grad()
    def on_device(windows: Tensor) -> Tensor:
        with runtime.autocast():
            logits: Tensor = module(runtime.place(windows))
        return logits.float()

    def ours(where: str, batch: int) -> Tensor:
        call = predictor if where == "cpu" else on_device
        return sliding_window(call, image.to(where), window=window, overlap=0.5, batch=batch)

    @torch.no_grad()
    def monai(where: str, batch: int) -> Any:
        inferer = SlidingWindowInferer(
            window, sw_batch_size=batch, overlap=0.5, mode="gaussian", sw_device=bench.device, device=where
        )
        return inferer(image.to(where), on_device)

    gpu = bench.device.type
    section.say(f"{name}, volume {shape}, windows {window}.")
    section.head("way", "volume and sum on", "windows at once", "s", "peak GPU GiB", "same classes as first")
    reference = None
    for (title, run), where, batch in (
        (("ours", ours), gpu, 4), (("MONAI SlidingWindowInferer", monai), gpu, 4), (("ours", ours), gpu, 16),
        (("ours, as `predict` does", ours), "cpu", 4), (("MONAI SlidingWindowInferer", monai), "cpu", 4),
    ):  # fmt: skip
        if bench.left() < (60 if where == "cpu" else 20):
            section.say(f"Not measured for lack of time: {title} on {where}.")
            continue
        bench.reset_memory()
        began = time.perf_counter()
        logits = run(where, batch)
        bench.sync()
        seconds = time.perf_counter() - began
        classes = logits.argmax(dim=1).cpu()
        reference = classes if reference is None else reference
        same = float((classes == reference).float().mean())
        section.row(
            title, where, f"{batch}", f"{seconds:.1f}", f"{bench.peak_gib():.2f}", f"{100 * same:.2f} %"
        )
        section.raw.append(
            {"way": title, "where": where, "batch": batch, "seconds": seconds, "peak_gib": bench.peak_gib(),
             "same_voxels": same}
        )  # fmt: skip
        del logits
        if same < 0.98:  # an untrained network's classes are close to each other, and bf16 is coarse
            section.fail(f"{title} on {where} gives another class in {100 * (1 - same):.2f} % of the voxels")
