"""Where a run runs: device, precision, memory layout and number of processes, through Lightning Fabric.

The only file that knows Fabric.  One CPU, one GPU, several nodes under torchrun or SLURM: the loop is
the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import inspect
import logging
import os
import platform
import sys
import warnings
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Literal, TypeVar, get_args

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from parts2whole import own
from parts2whole.jobs.pool import usable_cores
from parts2whole.networks.synchronised import synchronise_norms
from parts2whole.spec import Spec
from parts2whole.tasks.base import default_cache
from parts2whole.training.allocator import keep_freed_memory
from parts2whole.training.cluster import ClusterError, read_launch
from parts2whole.training.cpu_bfloat16 import keep_float32_where_wrong
from parts2whole.training.cpu_norm import speed_up_norms
from parts2whole.training.cpu_precision import choose_cpu_precision
from parts2whole.training.provenance import code_version

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
_Definite = Literal["32-true", "bf16-mixed", "16-mixed"]
Thing = TypeVar("Thing")
Module = TypeVar("Module", bound=nn.Module)

BUCKETS, BUCKET_MB = 8, (1.0, 25.0)
"""Pieces in which gradients are exchanged, and their smallest and largest size: less doesn't fill a link."""

READERS = 4
"""Reader threads beside a GPU: the fastest of 0, 2, 4, 8 and 16 beside an H100 (docs/gpu.md)."""


@dataclasses.dataclass(frozen=True)
class Hardware(Spec):
    """What a run runs on.

    Attributes:
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: devices per node; ``auto`` takes what torchrun or srun started, else all GPUs, or one CPU
            process.
        nodes: number of nodes; ``auto`` takes what torchrun or srun started, else one.
        precision: ``auto`` is bfloat16 autocast on a GPU that has it, else float16; on a CPU the faster of
            bfloat16 and float32, found by a trial of a second that is kept for the machine. On CPUs the
            convolutions that bfloat16 gets wrong stay in float32.
        compile: compile the network with torch.compile.
        workers: threads that read ahead; 0 reads when a batch is asked for. ``auto`` is none on a CPU, whose
            cores are busy, and `READERS` beside a GPU, which would wait.
        micro_batch: rows a device computes at once, at most; gradients of several micro-batches are added
            up, so the batch size stays. Default all, halved when memory runs out.
        deterministic: use algorithms that give the same bits in every run, also on GPUs. Slower, and an
            error where there is none.
        timeout_minutes: how long processes wait for one that doesn't answer before all stop.
    """

    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    nodes: int | Literal["auto"] = "auto"
    precision: Precision = "auto"
    compile: bool = False
    workers: int | Literal["auto"] = "auto"
    micro_batch: int | None = None
    deterministic: bool = False
    timeout_minutes: float = 10.0

    def __post_init__(self) -> None:
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ClusterError(f"micro_batch must be at least 1, got {self.micro_batch}")
        if not self.timeout_minutes > 0:
            raise ClusterError(f"timeout_minutes must be above 0, got {self.timeout_minutes}")
        if self.workers != "auto" and self.workers < 0:
            raise ClusterError(f"workers must be auto, or 0 or more, got {self.workers}")
        for name, count in (("devices", self.devices), ("nodes", self.nodes)):
            if count != "auto" and count < 1:
                raise ClusterError(f"{name} must be auto, or 1 or more, got {count}")
        if self.precision not in get_args(Precision):
            raise ClusterError(
                f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}"
            )


class _Processes(DDPStrategy):
    """Fabric's process group without DistributedDataParallel around the module alone.

    `Runtime.distribute` puts it around the module with its objective, so that a method may call any part of
    the module, as often as it likes, and need not use all of it.
    """

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        return module


class Runtime:
    """Device, precision and process group of a run."""

    def __init__(self, hardware: Hardware = Hardware()) -> None:
        # Fabric announces its precision at every start; the run folder's environment.json says it.
        logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
        self.hardware = hardware
        self.precision, self.why = resolve_precision(hardware.precision, hardware.accelerator)
        if hardware.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
        devices, nodes = resolve_layout(hardware)
        many = nodes > 1 or (devices != "auto" and devices > 1)
        if devices == "auto" and hardware.accelerator in ("auto", "cuda", "gpu"):
            many = many or torch.cuda.device_count() > 1
        wait = datetime.timedelta(minutes=hardware.timeout_minutes)
        try:
            self.fabric = Fabric(
                accelerator=hardware.accelerator,
                devices=devices,
                num_nodes=nodes,
                precision=self.precision,
                strategy=_Processes(timeout=wait) if many else "auto",
            )
        except (ValueError, RuntimeError, MisconfigurationException) as error:
            raise ClusterError(
                f"accelerator {hardware.accelerator!r} with devices {devices} and precision "
                f"{self.precision} can't be had: {str(error).rstrip('.')}; parts2whole doctor tells what can"
            ) from error
        if self.device.type == "cpu":
            keep_freed_memory()
        self.control: dist.ProcessGroup | None = None
        self.exchange: dist.ProcessGroup | None = None
        if many:
            self.fabric.launch()
            # Wishes and figures travel over the CPU, so that asking for them doesn't wait for the device.
            self.control = dist.new_group(backend="gloo", timeout=wait)
            # Gradients travel while norms and contrastive losses exchange their own, in no fixed order.
            self.exchange = dist.new_group(timeout=wait)
            if len(chosen := set(self.gather(self.precision))) > 1:
                raise ClusterError(
                    f"the machines of the processes would choose {' and '.join(sorted(chosen))}; say which "
                    "with --hardware.precision"
                )

    @property
    def device(self) -> torch.device:
        """This process's device."""
        return self.fabric.device

    @property
    def readers(self) -> int:
        """Threads that read ahead."""
        if self.hardware.workers != "auto":
            return self.hardware.workers
        return 0 if self.device.type == "cpu" else min(READERS, usable_cores())

    @property
    def rank(self) -> int:
        """Number of this process among all."""
        return self.fabric.global_rank

    @property
    def ranks(self) -> int:
        """Number of processes."""
        return self.fabric.world_size

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.fabric.is_global_zero

    def prepare(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Move to the device, choose channels-last and compile."""
        module = self._checked(to_channels_last(module))
        if self.ranks > 1:
            synchronise_norms(module, device=self.device)
        compiled: Any = torch.compile(module) if self.hardware.compile else module
        wrapped: tuple[nn.Module, Any] = self.fabric.setup(compiled, optimiser)
        return wrapped

    def distribute(self, module: nn.Module) -> nn.Module:
        """A module that computes a loss, such that all processes start alike and get the mean gradient.

        Gradients travel while the backward pass still runs.  What a process lacks counts as zero; what all
        lack stays None, as it does on one.
        """
        if self.ranks == 1:
            return module
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
        # Those of 1 x 1 x 1 kernels, which mean nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        newer = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
        keep_buffers: dict[str, Any] = {"forward_sync_buffers" if newer else "broadcast_buffers": False}
        megabytes = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad) / 2**20
        return DistributedDataParallel(
            module,
            process_group=self.exchange,
            bucket_cap_mb=min(max(megabytes / BUCKETS, BUCKET_MB[0]), BUCKET_MB[1]),
            find_unused_parameters=True,  # what is used may depend on the batch and the process
            gradient_as_bucket_view=True,
            **keep_buffers,
        )

    def exchanging(self, module: nn.Module, wish: bool) -> contextlib.AbstractContextManager[Any]:
        """Whether a pass through a distributed module ends in an exchange; gradients add up until then."""
        if isinstance(module, DistributedDataParallel) and not wish:
            held_back: contextlib.AbstractContextManager[Any] = module.no_sync()
            return held_back
        return contextlib.nullcontext()

    def place_module(self, module: Module) -> Module:
        """A module on the device in channels-last order, for inference."""
        moved: Module = to_channels_last(module.to(self.device))
        return self._checked(moved)

    def _checked(self, module: Module) -> Module:
        """A module whose convolutions are right in this precision, and whose norms are fast."""
        if self.device.type == "cpu" and self.precision == "bf16-mixed":
            keep_float32_where_wrong(module)
        if self.device.type == "cpu" and not self.hardware.compile:
            speed_up_norms(module)
        return module

    def place(self, batch: Any) -> Any:
        """Tensors of a batch on the device, five-dimensional ones in channels-last order."""
        if isinstance(batch, Tensor):
            moved = batch.to(self.device, non_blocking=True)
            return to_channels_last(moved) if moved.ndim == 5 else moved
        if isinstance(batch, Mapping):
            return {key: self.place(value) for key, value in batch.items()}
        return batch

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of forward passes."""
        return self.fabric.autocast()

    def backward(self, loss: Tensor) -> None:
        """Back-propagate with the right scaling."""
        self.fabric.backward(loss)

    def gather(self, thing: Thing) -> list[Thing]:
        """What every process has, in the order of their ranks."""
        if self.ranks == 1:
            return [thing]
        everything: list[Any] = [None] * self.ranks
        dist.all_gather_object(everything, thing, group=self.control)
        return everything

    def from_main(self, thing: Thing) -> Thing:
        """What the main process has, so that all decide alike."""
        return self.gather(thing)[0]

    def any(self, wish: int) -> int:
        """The largest of all processes' wishes; all must ask."""
        if self.ranks == 1:
            return wish
        largest = torch.tensor(wish)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self.control)
        return int(largest)

    def free_memory(self) -> None:
        """Give back what a failed attempt has left in the allocator."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def scaler_state(self) -> dict[str, Any]:
        """State of the loss scaling of 16-bit floats; empty for other precisions."""
        return self.fabric.strategy.precision.state_dict()

    def restore_scaler(self, state: dict[str, Any]) -> None:
        """Put back what `scaler_state` gave."""
        self.fabric.strategy.precision.load_state_dict(state)

    def barrier(self) -> None:
        """Wait for all processes."""
        self.fabric.barrier()


def to_channels_last(thing: Any) -> Any:
    """A module or tensor in channels-last memory order: up to twice as fast for 3D convolutions."""
    return thing.to(memory_format=torch.channels_last_3d)


def unwrap(module: nn.Module) -> nn.Module:
    """The module below Fabric's and the compiler's wrappers."""
    while True:
        inner = getattr(module, "_orig_mod", None) or getattr(module, "_forward_module", None)
        if inner is None or inner is module:
            return module
        module = inner


def resolve_precision(precision: Precision, accelerator: str = "auto") -> tuple[_Definite, str]:
    """``auto`` made definite for this machine, and why it is that; nothing where it was said."""
    if precision != "auto":
        return precision, ""
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "the GPU has it"
        return "16-mixed", "the GPU has no bfloat16"
    chosen = choose_cpu_precision(default_cache())
    return chosen.precision, chosen.why


def resolve_layout(hardware: Hardware) -> tuple[int | Literal["auto"], int]:
    """Devices a node and nodes: what a launcher has started, else what is asked for.

    Raises:
        ClusterError: what is asked for isn't what was started.
    """
    launched = read_launch()
    asked = hardware.devices, hardware.nodes
    if launched is None:
        return hardware.devices, 1 if hardware.nodes == "auto" else hardware.nodes
    if any(a not in ("auto", b) for a, b in zip(asked, (launched.devices, launched.nodes), strict=True)):
        raise ClusterError(
            f"{launched.by} started {launched.devices} processes a node on {launched.nodes} nodes, the "
            f"settings ask for devices {asked[0]} and nodes {asked[1]}; leave both at auto"
        )
    return launched.devices, launched.nodes


def describe_environment(runtime: Runtime | None = None) -> dict[str, Any]:
    """Commit, versions and hardware of this process, for `environment.json`."""
    packages = ("parts2whole", "torch", "numpy", "monai", "lightning-fabric", "zarr", "nibabel", "SimpleITK")
    found: dict[str, Any] = {
        "commit": code_version(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": usable_cores(),
        "threads": torch.get_num_threads(),
        "packages": {},
        own.FILES: own.own_files(),
    }
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found["packages"][name] = metadata.version(name)
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if runtime is not None:
        found |= {"device": str(runtime.device), "processes": runtime.ranks, "precision": runtime.precision}
    return found
