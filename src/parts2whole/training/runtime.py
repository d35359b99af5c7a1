"""Where a run runs: device, precision, memory layout and number of processes, through Lightning Fabric.

The only file that knows Fabric.  One CPU, one GPU, several nodes under torchrun or SLURM: the loop is
the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from parts2whole.spec import Spec
from parts2whole.training.provenance import code_version

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
_Definite = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclasses.dataclass(frozen=True)
class Hardware(Spec):
    """What a run runs on.

    Attributes:
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: devices per node; ``auto`` takes all GPUs, or one CPU process.
        nodes: number of nodes.
        precision: ``auto`` is bfloat16 autocast where the hardware has it, else float32.
        compile: compile the network with torch.compile.
        workers: loader processes; 0 reads in the training process.
    """

    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    nodes: int = 1
    precision: Precision = "auto"
    compile: bool = False
    workers: int = 0


class Runtime:
    """Device, precision and process group of a run."""

    def __init__(self, hardware: Hardware = Hardware()) -> None:
        # Fabric announces its precision at every start; the run folder's environment.json says it.
        logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
        self.hardware = hardware
        self.precision = resolve_precision(hardware.precision, hardware.accelerator)
        self.fabric = Fabric(
            accelerator=hardware.accelerator,
            devices=hardware.devices,
            num_nodes=hardware.nodes,
            precision=self.precision,
        )
        if self.fabric.world_size > 1 or os.environ.get("WORLD_SIZE"):
            self.fabric.launch()

    @property
    def device(self) -> torch.device:
        """This process's device."""
        return self.fabric.device

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
        """Move to the device, choose channels-last, compile and wrap for gradient exchange."""
        module = to_channels_last(module)
        if self.hardware.compile:
            module = torch.compile(module)  # type: ignore[assignment]
        wrapped: tuple[nn.Module, Any] = self.fabric.setup(module, optimiser)
        return wrapped

    def place_module(self, module: nn.Module) -> nn.Module:
        """A module on the device in channels-last order, for inference."""
        moved: nn.Module = to_channels_last(module.to(self.device))
        return moved

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

    def mean(self, value: Tensor) -> Tensor:
        """Average of a scalar over all processes."""
        reduced: Tensor = self.fabric.all_reduce(value, reduce_op="mean")  # type: ignore[assignment]
        return reduced

    def barrier(self) -> None:
        """Wait for all processes."""
        self.fabric.barrier()


def to_channels_last(thing: Any) -> Any:
    """A module or tensor in channels-last memory order: up to twice as fast for 3D convolutions."""
    return thing.to(memory_format=torch.channels_last_3d)


def unwrap(module: nn.Module) -> nn.Module:
    """The module below Fabric's, DDP's and the compiler's wrappers."""
    while True:
        inner = getattr(module, "_orig_mod", None) or getattr(module, "_forward_module", None)
        if inner is None and isinstance(module, nn.parallel.DistributedDataParallel):
            inner = module.module
        if inner is None or inner is module:
            return module
        module = inner


def resolve_precision(precision: Precision, accelerator: str = "auto") -> _Definite:
    """``auto`` made definite for this machine."""
    if precision != "auto":
        return precision
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16-mixed" if has_bf16 else "32-true"


def describe_environment(runtime: Runtime | None = None) -> dict[str, Any]:
    """Commit, versions and hardware of this process, for `environment.json`."""
    packages = ("parts2whole", "torch", "numpy", "monai", "lightning-fabric", "zarr", "nibabel", "SimpleITK")
    found: dict[str, Any] = {
        "commit": code_version(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {},
    }
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found["packages"][name] = metadata.version(name)
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if runtime is not None:
        found |= {"device": str(runtime.device), "processes": runtime.ranks, "precision": runtime.precision}
    return found
