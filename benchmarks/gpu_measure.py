"""How `gpu.py` measures: times, arithmetic, bytes, peaks of the device; its networks and its data."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet, DynUNet
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import parts2whole as p2w
from parts2whole.errors import is_out_of_memory
from parts2whole.methods.base import Method, make_views
from parts2whole.networks.base import Network, count_parameters
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Size, Volume
from parts2whole.store.store import Store
from parts2whole.training.optim import AdamW, parameter_groups
from parts2whole.training.runtime import Runtime
from parts2whole.training.step import TrainStep

NETWORKS: dict[str, Network] = {
    "UNet3D tiny": p2w.UNet3D(size="tiny"),
    "UNet3D small": p2w.UNet3D(size="small"),
    "UNet3D base": p2w.UNet3D(size="base"),
    "ResEncUNet3D base": p2w.ResEncUNet3D(size="base"),
}
METHOD = p2w.Parts2Whole()
BATCHES = {"UNet3D tiny": 64, "UNet3D small": 64, "UNet3D base": 16, "ResEncUNet3D base": 16}


@dataclasses.dataclass
class Bench:
    """What sections know: device, sizes, time left, and what earlier ones have found.

    Attributes:
        dry: tiny sizes on the CPU, to see that everything runs.
        deadline: when to stop, on the clock of `time.monotonic`.
        folder: for files that aren't kept.
        found: what later sections need, such as the rate of steps.
    """

    dry: bool
    deadline: float
    folder: Path
    found: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The GPU, or the CPU when dry."""
        return torch.device("cpu" if self.dry else "cuda")

    @property
    def accelerator(self) -> str:
        """`device` as `Hardware` calls it."""
        return self.device.type

    @property
    def whole(self) -> Size:
        """Size of a whole in voxels; ResEncUNet3D base needs multiples of 32, two at least."""
        return (16, 32, 32) if self.dry else (64, 64, 64)

    @property
    def networks(self) -> dict[str, Network]:
        """Networks by name."""
        return {"UNet3D tiny": NETWORKS["UNet3D tiny"]} if self.dry else NETWORKS

    def batch(self, name: str) -> int:
        """Rows that a step of a network gets."""
        return 2 if self.dry else BATCHES[name]

    @property
    def seconds(self) -> float:
        """How long one thing is measured."""
        return 0.02 if self.dry else 0.4

    def left(self) -> float:
        """Seconds to the end."""
        return self.deadline - time.monotonic()

    def sync(self) -> None:
        """Wait until the device has done everything."""
        if not self.dry:
            torch.cuda.synchronize()

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[Any]:
        """bf16 autocast, or none."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")

    def reset_memory(self) -> None:
        """Forget the peak so far, and give back what is free."""
        gc.collect()
        if not self.dry:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float:
        """Highest allocated memory since `reset_memory`, in GiB."""
        return 0.0 if self.dry else torch.cuda.max_memory_allocated() / 2**30

    def time(self, run: Callable[[], object], *, warm: int = 3) -> float:
        """Seconds a call: the median of rounds that the device was waited for."""
        for _ in range(0 if self.dry else warm):
            run()
        self.sync()
        began = time.perf_counter()
        run()
        self.sync()
        once = time.perf_counter() - began
        calls = max(1, round(self.seconds / 5 / max(once, 1e-6)))
        rounds = []
        for _ in range(1 if self.dry else 5):
            began = time.perf_counter()
            for _ in range(calls):
                run()
            self.sync()
            rounds.append((time.perf_counter() - began) / calls)
        return statistics.median(rounds)

    def peaks(self) -> dict[str, float]:
        """Products of square matrices in TFLOP/s, and a copy within the device in TB/s read and written."""
        edge, megabytes = (256, 8) if self.dry else (8192, 2048)
        found = {}
        for name, kind, fast in (
            ("bf16", torch.bfloat16, False),
            ("tf32", torch.float32, True),
            ("float32", torch.float32, False),
        ):
            a = torch.randn(edge, edge, device=self.device, dtype=kind)
            with tf32(fast):
                found[f"{name}_tflops"] = 2 * edge**3 / self.time(lambda a=a: a @ a) / 1e12
        source = torch.empty(megabytes * 2**20, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        found["copy_tb_s"] = 2 * source.numel() / self.time(lambda: target.copy_(source)) / 1e12
        return found


def blobs(rows: int, whole: Size) -> Tensor:
    """Smooth, mostly dark wholes (rows, 1, z, y, x).

    Where noise of mean one half is the target of an untrained network, gradients nearly cancel, and rounding
    is all one sees.
    """
    return F.interpolate(torch.rand(rows, 1, 4, 4, 4), size=whole, mode="trilinear") ** 3


@contextlib.contextmanager
def tf32(on: bool, *, benchmark: bool = False) -> Iterator[None]:
    """Products and convolutions of float32 in TF32, or exact; cuDNN's search for the fastest, or none."""
    before = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    torch.backends.cudnn.benchmark = benchmark
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
        torch.backends.cudnn.benchmark = before[2]


class ByteCounter(TorchDispatchMode):
    """Bytes that operations read and write, each by itself, as if nothing were kept in between."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if not is_view:
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return result


def count_work(step: Callable[[], object]) -> tuple[float, float]:
    """FLOPs of the convolutions and products of a step, and bytes of all its operations."""
    with FlopCounterMode(display=False) as arithmetic, ByteCounter() as traffic:
        step()
    return float(arithmetic.get_total_flops()), float(traffic.bytes)


def build_ours(network: Network, whole: Size) -> nn.Module:
    """Encoder and decoder as `pretrain` builds them."""
    return METHOD.build(network, in_channels=1, whole_size=whole)


def build_peers(parameters: int) -> dict[str, nn.Module]:
    """MONAI's U-Nets of about so many parameters; DynUNet with instance norm, as in nnU-Net."""

    def basic(w: int) -> nn.Module:
        return BasicUNet(3, 1, 1, features=(w, w, 2 * w, 4 * w, 8 * w, w))

    def dynamic(w: int) -> nn.Module:
        filters = [w, 2 * w, 4 * w, 8 * w]
        return DynUNet(3, 1, 1, [3] * 4, [1, 2, 2, 2], [2, 2, 2], filters=filters, norm_name="instance")

    found = {}
    for name, build in (("MONAI BasicUNet", basic), ("MONAI DynUNet", dynamic)):
        with torch.device("meta"):
            widths = {w: abs(count_parameters(build(w)) - parameters) for w in range(4, 132, 4)}
        found[name] = build(min(widths, key=lambda w: widths[w]))
    return found


def largest_batch(run: Callable[[int], Any], batch: int) -> Any:
    """What ``run`` gives for a batch, halved until it fits."""
    while True:
        try:
            return run(batch)
        except RuntimeError as error:
            if not is_out_of_memory(error) or batch == 1:
                raise
        torch.cuda.empty_cache()
        batch //= 2


def make_store(path: Path, *, volumes: int, shape: Size, seed: int = 0) -> Path:
    """Smooth volumes with noise, which compress about as CTs do."""
    store = Store.create(path, preprocess=Preprocess(modality="CT"))
    generator = np.random.default_rng(seed)
    axes = [np.linspace(0, 1, edge, dtype=np.float32) for edge in shape]
    for case in range(volumes):
        waves = [np.sin(2 * np.pi * (generator.uniform(1, 6) * a + generator.uniform())) for a in axes]
        z, y, x = waves
        smooth = 12000 + 9000 * z[:, None, None] * y[:, None] * x
        noise = generator.normal(0, 250, shape).astype(np.float32)
        voxels = (smooth + noise).astype(np.int16) & ~np.int16(15)
        store.write_volume(f"case_{case:03d}", Volume(voxels), patient=str(case))
    store.finish()
    return path


def train_step(
    runtime: Runtime, module: nn.Module, batch: int, *, micro_batches: int = 1, method: Method = METHOD
) -> TrainStep:  # fmt: skip
    """The project's own training step of a method, on the runtime's device."""
    optimiser = AdamW().build(parameter_groups(module))
    prepared, built = runtime.prepare(module, optimiser)
    return TrainStep(
        prepared, built, views=partial(make_views, method), objective=method.loss, batch_size=batch, seed=0,
        clip_norm=None, independent=method.rows_are_independent, micro_batches=micro_batches,
        runtime=runtime, say=print,
    )  # fmt: skip
