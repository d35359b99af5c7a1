"""Resumable checkpoints: everything a run needs to go on, written whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

FOLDER = "checkpoints"
BEST = "best.safetensors"


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged or from another run."""


@dataclasses.dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: steps done.
        values: monitored validation value after every validation, low is good.
        best: lowest of them.
        best_step: step of the lowest.
        seconds: time spent training, over all parts of a resumed run.
    """

    step: int = 0
    values: list[float] = dataclasses.field(default_factory=list)
    best: float = float("inf")
    best_step: int = 0
    seconds: float = 0.0


def save_checkpoint(
    folder: Path, *, module: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress
) -> Path:
    """Write ``checkpoints/step-N.ckpt`` with a checksum beside it, then drop the older one."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"step-{progress.step:08d}.ckpt"
    beside = path.with_suffix(".part")
    state = {
        "module": module.state_dict(),
        "optimiser": optimiser.state_dict(),
        "progress": dataclasses.asdict(progress),
    }
    try:
        torch.save(state, beside)
    except (RuntimeError, OSError) as error:  # torch reports a full disk as a RuntimeError
        beside.unlink(missing_ok=True)
        raise CheckpointError(
            f"can't write {path}: {str(error).splitlines()[0]}. The checkpoint before it is kept; make "
            "room (or make the folder writable) and go on with --resume"
        ) from error
    path.with_suffix(".sha256").write_text(_checksum(beside))
    beside.replace(path)
    for old in sorted(target.glob("step-*.ckpt"))[:-1]:
        old.with_suffix(".sha256").unlink(missing_ok=True)
        old.unlink()
    return path


def load_checkpoint(
    folder: Path, *, module: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Progress, list[str]]:
    """Restore the newest complete checkpoint of a run folder.

    Returns:
        The progress (zero where there is no checkpoint yet) and a message for every one passed over.

    Raises:
        CheckpointError: the checkpoint belongs to another network or optimiser.
    """
    messages: list[str] = []
    for path in sorted((folder / FOLDER).glob("step-*.ckpt"), reverse=True):
        checksum = path.with_suffix(".sha256")
        if not checksum.exists() or checksum.read_text() != _checksum(path):
            messages.append(f"{path.name} is damaged (checksum differs) and was passed over")
            continue
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        try:
            module.load_state_dict(state["module"])
            optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path} doesn't fit this network or optimiser; resume with the settings it was started "
                f"with (config.yaml beside it): {error}"
            ) from error
        return Progress(**state["progress"]), messages
    return Progress(), messages


def save_best(folder: Path, module: nn.Module) -> None:
    """Keep the weights with the best validation value."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    write_tensors(target / BEST, module.state_dict())


def load_best(folder: Path, module: nn.Module) -> bool:
    """Put the best weights back; False where none were kept."""
    path = folder / FOLDER / BEST
    if not path.exists():
        return False
    module.load_state_dict(load_file(path))
    return True


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file atomically."""
    beside = path.with_suffix(".part")
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    save_file(plain, beside, metadata=metadata)
    beside.replace(path)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
