"""Resumable checkpoints: everything a run needs to go on, written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from parts2whole.errors import Parts2WholeError, first_line
from parts2whole.files import hash_file, replacing, sweep, write_text
from parts2whole.run_folder import CHECKPOINTS
from parts2whole.training.lock import list_checkpoints
from parts2whole.weights.native import write_tensors

KEPT = 2
"""Checkpoints that stay, so that a damaged newest one costs one interval and not the run."""


class CheckpointError(Parts2WholeError, RuntimeError):
    """A checkpoint that can't be written, or is from another run."""


@dataclasses.dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: steps done.
        values: monitored value after every validation, low is good, not finite where it is undefined.
        best: that of the best step; infinite while none was defined.
        best_step: the best step, see `parts2whole.training.choice`.
        best_other: what the best step has of the figure that decides while the monitored one is undefined.
        seconds: time spent training, over all parts of a resumed run.
        micro_batches: how many a device's batch is divided into.
        sums: of the objective's scalars since the last training record.
        summed: steps in ``sums``.
    """

    step: int = 0
    values: list[float] = dataclasses.field(default_factory=list)
    best: float = float("inf")
    best_step: int = 0
    best_other: float = float("inf")
    seconds: float = 0.0
    micro_batches: int = 1
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    summed: int = 0


def save_checkpoint(
    folder: Path,
    *,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    scaler: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``checkpoints/step-N.ckpt`` with a checksum beside it, then drop all but the newest `KEPT`.

    Raises:
        CheckpointError: it can't be written; those before it are untouched.
    """
    target = folder / CHECKPOINTS
    path = target / f"step-{progress.step:08d}.ckpt"
    state = {
        "module": module.state_dict(),
        "optimiser": optimiser.state_dict(),
        "progress": dataclasses.asdict(progress),
        "scaler": dict(scaler or {}),
    }
    with _said(path), replacing(path) as beside:
        with beside.open("wb") as file:  # given a path, torch doesn't say that no space is left
            torch.save(state, file)
        write_text(path.with_suffix(".sha256"), hash_file(beside))
    _drop_older(target)
    return path


def load_checkpoint(
    folder: Path, *, module: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Any], list[str]]:
    """Restore the newest complete checkpoint of a run folder.

    Returns:
        The progress (zero where there is no checkpoint yet), the state of the loss scaling, and a message
        for every checkpoint passed over.

    Raises:
        CheckpointError: the checkpoint belongs to another network or optimiser.
    """
    messages: list[str] = []
    for path in list_checkpoints(folder)[::-1]:
        checksum = path.with_suffix(".sha256")
        if not checksum.exists() or checksum.read_text() != hash_file(path):
            messages.append(f"{path.name} is damaged (checksum differs) and was passed over")
            continue
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            progress = Progress(**state["progress"])
        except Exception as error:  # there is no end to what a foreign file can make an unpickler say
            messages.append(f"{path.name} is no checkpoint ({first_line(error)}) and was passed over")
            continue
        try:
            module.load_state_dict(state["module"])
            optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path} doesn't fit this network or optimiser; resume with the settings it was started "
                f"with (config.yaml beside it): {error}"
            ) from error
        return progress, state.get("scaler", {}), messages
    if messages:
        messages.append("no checkpoint is left: starting again from the first step")
    return Progress(), {}, messages


def drop_later(folder: Path, step: int) -> None:
    """Remove what a run has left past the ``step`` it is resumed from: half-written, damaged, to redo."""
    sweep(folder / CHECKPOINTS, everywhere=True)
    for path in [*list_checkpoints(folder), *_list_best(folder / CHECKPOINTS)]:
        if _step_of(path) > step:
            path.with_suffix(".sha256").unlink(missing_ok=True)
            path.unlink()


def save_best(folder: Path, module: nn.Module, step: int) -> None:
    """Keep the weights with the best validation value, that of ``step``."""
    path = folder / CHECKPOINTS / f"best-{step:08d}.safetensors"
    with _said(path):
        write_tensors(path, module.state_dict())


def load_best(folder: Path, module: nn.Module, step: int) -> bool:
    """Put the best weights, those of ``step``, back; False where none were kept."""
    path = folder / CHECKPOINTS / f"best-{step:08d}.safetensors"
    if not path.exists():
        return False
    module.load_state_dict(load_file(path))
    return True


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    """Say what to do where a file can't be written."""
    try:
        yield
    except (RuntimeError, OSError, SafetensorError) as error:
        reason = first_line(error).partition(";")[0]
        kept = list_checkpoints(path.parent.parent)
        last = f"The checkpoint before it, {kept[-1].name}, is kept" if kept else "There is no checkpoint yet"
        raise CheckpointError(
            f"can't write {path}: {reason}. {last}; make room (or make the folder writable) and go on with "
            "--resume true"
        ) from error


def _drop_older(target: Path) -> None:
    """Keep the newest checkpoints, and the best weights that each of them knows."""
    checkpoints = list_checkpoints(target.parent)
    best = _list_best(target)
    steps = [_step_of(path) for path in checkpoints[-KEPT:]]
    known = {max((p for p in best if _step_of(p) <= step), default=None) for step in steps}
    for path in [*checkpoints[:-KEPT], *(p for p in best if p not in known and _step_of(p) <= steps[-1])]:
        path.with_suffix(".sha256").unlink(missing_ok=True)
        path.unlink()


def _list_best(target: Path) -> list[Path]:
    return sorted(target.glob("best-*.safetensors"))


def _step_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
