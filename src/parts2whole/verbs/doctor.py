"""Say what this machine gives a run: versions, devices, precision, optional parts, room for data."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from parts2whole.tasks.base import default_cache
from parts2whole.training.runtime import describe_environment, resolve_precision

OPTIONAL = {
    "onnxruntime": "weights export --to onnx (extra export)",
    "highdicom": "predict --format dicom-seg (extra dicom-seg)",
    "huggingface_hub": "weights by name, hf:OWNER/NAME, and weights export --push (extra hub)",
    "pyarrow": "encode --out FILE.parquet (extra parquet)",
    "distributed": "--cluster with Dask (extra cluster)",
    "dask_jobqueue": "--cluster slurm (extra cluster)",
    "mlflow": "--logger mlflow (extra mlflow)",
    "wandb": "--logger wandb (extra wandb)",
    "upath": "stores at URLs (extra remote)",
    "umap": "UMAP in embed (package umap-learn)",
}
"""Module of each optional part, and what needs it."""

COMPILING = (
    "off, as on a CPU a step was no faster compiled (0.93 to 1.00 times as fast), after 40 s of compiling; "
    "on GPUs not measured: --hardware.compile true tries it"
)
"""Whether torch.compile pays: measured by `benchmarks/compiled.py`, see docs/decisions/index.md."""


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was found: pairs of name and finding."""

    found: tuple[tuple[str, str], ...]

    def summary(self) -> str:
        """One line a finding."""
        width = max(len(name) for name, _ in self.found)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in self.found)


def doctor() -> Diagnosis:
    """Look at this machine and the installation.

    Returns:
        Versions, processors and GPUs, the precision that ``auto`` chooses, whether compiling pays, free
        memory and disk, where prepared labelled data are kept, and which optional parts are installed.
    """
    environment = describe_environment()
    found = [("parts2whole", str(environment["commit"])), ("Python", str(environment["python"]))]
    found += sorted((name, str(version)) for name, version in _packages(environment).items())
    gpus = environment.get("gpus") or ["none: runs take place on the CPU"]
    threads = f"{environment['cpu_count']} cores, {environment['threads']} threads of torch"
    found += [("processor", f"{environment['processor']}, {threads}"), ("GPU", ", ".join(gpus))]
    precision, why = resolve_precision("auto")
    found += [("precision", f"auto is {precision} here: {why}"), ("compiler", COMPILING)]
    found.append(("memory", _memory()))
    cache = default_cache()
    found += [("disk here", _free(Path.cwd())), ("cache", f"{cache}, {_free(cache)}")]
    for module, purpose in OPTIONAL.items():
        there = importlib.util.find_spec(module) is not None
        found.append((module, f"{'installed' if there else 'not installed'}: for {purpose}"))
    return Diagnosis(tuple(found))


def _packages(environment: dict[str, Any]) -> dict[str, str]:
    return {name: version for name, version in environment["packages"].items() if name != "parts2whole"}


def _memory() -> str:
    try:
        pages = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError):
        return "unknown on this system"
    total, free = (count * os.sysconf("SC_PAGE_SIZE") / 1e9 for count in pages)
    return f"{total:.1f} GB, {free:.1f} GB of it free"


def _free(path: Path) -> str:
    """Free space of the disk that a path is, or would be, on."""
    while not path.exists():
        path = path.parent
    writable = "" if os.access(path, os.W_OK) else ", not writable"
    return f"{shutil.disk_usage(path).free / 1e9:.1f} GB free{writable}"
