"""What commands say of what they are about to do, and where they left its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from parts2whole.errors import group_reasons, name_some, tell_reasons
from parts2whole.networks.base import Network
from parts2whole.progress import fill
from parts2whole.run_folder import PAGE
from parts2whole.training.runtime import Runtime

PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}


def describe_work(what: str, *parts: str, network: Network, module: nn.Module, runtime: Runtime) -> str:
    """What is about to be done with which network on which device: the first line of a command.

    Args:
        what: is done.
        parts: what else there is to say, such as how many scans and steps.
        network: of ``module``.
        module: whose parameters are counted.
        runtime: device and precision.
    """
    parameters = sum(parameter.numel() for parameter in module.parameters())
    size = getattr(network, "size", None)
    built = f"{type(network).__name__}{f' {size}' if isinstance(size, str) else ''}"
    told = [built, f"{_short(parameters)} parameters", *parts]
    return fill(f"{what} on {describe_device(runtime)}: {', '.join(told)}")


def describe_device(runtime: Runtime) -> str:
    """``2 x NVIDIA H100 in bfloat16`` or ``CPU in float32 (...)``, with what that was chosen for."""
    device = runtime.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    many = f"{runtime.ranks} x " if runtime.ranks > 1 else ""
    why = f" ({runtime.why})" if runtime.why and device.type == "cpu" else ""
    return f"{many}{name} in {PRECISIONS.get(runtime.precision, runtime.precision)}{why}"


def tell_scans(notes: Mapping[str, str], set_aside: Mapping[str, str], *, of: int) -> list[str]:
    """A line for every note on scans, and for every reason why some were set aside.

    Args:
        notes: by scan.
        set_aside: reasons, by scan.
        of: how many scans there are.
    """
    noted = [f"note: {note}: {name_some(names)}" for names, note in group_reasons(notes).items()]
    return [f"  {line}" for line in (*noted, *tell_reasons(set_aside, of=of))]


def tell_report(folder: Path) -> list[str]:
    """Where the report of a folder is, if there is one."""
    page = folder / PAGE
    return [f"Open the report: {page.resolve()}"] if page.exists() else []


def _short(number: int) -> str:
    """Three digits of a number: ``2.31 M``."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
