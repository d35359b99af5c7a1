"""What a run writes while it trains: one JSON line a record, TensorBoard scalars, a progress bar."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from parts2whole.files import write_text

METRICS = "metrics.jsonl"


class Track:
    """Log of one run; used as a context manager.

    Args:
        folder: the run folder.
        steps: length of the progress bar.
        name: what the bar says.
        first_step: where a resumed run goes on; later records of the interrupted run are cut off, at 0 all.
        seconds: time already spent by a resumed run.
        show: draw the progress bar.
        write: write files (only the main process does).
    """

    def __init__(
        self,
        folder: Path,
        *,
        steps: int,
        name: str,
        first_step: int = 0,
        seconds: float = 0.0,
        show: bool = True,
        write: bool = True,
    ) -> None:
        self.path = folder / METRICS
        self.write = write
        self.first_step = first_step
        self.started = time.monotonic()
        self.before_s = seconds
        if write:
            cut_records(self.path, after_step=first_step or -1)
        self.board: Any = None
        self.folder = folder
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not (show and write),
        )
        self.task = self.bar.add_task(name, total=steps, completed=first_step, status="")
        self.shown: dict[str, str] = {}

    def __enter__(self) -> Track:
        if self.write:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(
                str(self.folder / "tensorboard"), purge_step=self.first_step and self.first_step + 1
            )
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        if self.board is not None:
            self.board.close()

    @property
    def seconds(self) -> float:
        """Time spent so far, earlier parts of a resumed run included."""
        return self.before_s + time.monotonic() - self.started

    def advance(self, step: int) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=step)

    def record(self, step: int, split: str, values: dict[str, float]) -> None:
        """Append one record and show its main figures."""
        shown = {"loss": "loss", "samples_per_s": "samples/s"} if split == "train" else {"loss": "validation"}
        shown |= {"dice_mean": "dice", "auc": "auc"}
        for key, label in shown.items():
            if key in values:
                self.shown[label] = f"{label} {values[key]:.4g}"
        self.bar.update(self.task, status="  ".join(self.shown.values()))
        if not self.write:
            return
        clean = {k: (v if math.isfinite(v) else None) for k, v in values.items()}
        line = {"step": step, "time_s": round(self.seconds, 3), "split": split, **clean}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for key, value in values.items():
                self.board.add_scalar(f"{split}/{key}", value, step)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self.bar.console.print(message)


class Averages:
    """Running means of the objective's scalars, kept on the device so that no step waits for them.

    Args:
        sums: what a resumed run had added up since its last record.
        count: steps in ``sums``.
        device: where the scalars are.
    """

    def __init__(self, sums: Mapping[str, float], count: int, *, device: torch.device) -> None:
        self.sums = {key: torch.tensor(value, device=device) for key, value in sums.items()}
        self.count = count
        self.timed = 0
        self.since = time.monotonic()

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the scalars of a step."""
        for key, value in losses.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value.clone()
        self.count += 1
        self.timed += 1

    def take(self) -> tuple[dict[str, float], float]:
        """This process's means since the last call, and its steps per second."""
        means = {key: float(total / self.count) for key, total in self.sums.items()}
        per_second = self.timed / max(1e-9, time.monotonic() - self.since)
        self.sums, self.count, self.timed, self.since = {}, 0, 0, time.monotonic()
        return means, per_second


def cut_records(path: Path, *, after_step: int) -> None:
    """Drop records past ``after_step``: they were written after the checkpoint that is resumed."""
    if not path.exists():
        return
    kept: list[str] = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            break
        if record["step"] <= after_step:
            kept.append(line)
    write_text(path, "".join(line + "\n" for line in kept))
