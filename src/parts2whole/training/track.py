"""What a run writes while it trains: one JSON line a record, TensorBoard scalars, and how far it is."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from parts2whole.files import disk_full_said, write_text
from parts2whole.progress import Bar, Left, Pace, clock
from parts2whole.run_folder import METRICS
from parts2whole.training.loggers import Loggers, TensorBoard

STEP, VALIDATION = "step", "validation"
FIGURES = {"loss": ("loss", "validation"), "dice_mean": ("dice",) * 2, "auc": ("auc",) * 2}
"""Figures beside the bar, the most important first: what they are called in training and in validation."""
_told: set[str] = set()


class Track:
    """Log of one run; used as a context manager.

    Args:
        folder: the run folder.
        steps: length of the progress bar.
        name: what the bar says.
        first_step: where a resumed run goes on; later records of the interrupted run are cut off, at 0 all.
        seconds: time already spent by a resumed run.
        show: show how far it is.
        write: write files (only the main process does).
        validate_every: steps between validations, whose time is part of the time left; 0 for none.
        then: examinations after the last step, such as the final test, in validations.
        loggers: who is told beside TensorBoard.
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
        validate_every: int = 0,
        then: float = 0.0,
        loggers: Loggers | None = None,
    ) -> None:
        self.path = folder / METRICS
        self.write = write
        self.first_step = first_step
        self.started = time.monotonic()
        self.before_s = seconds
        if write:
            cut_records(self.path, after_step=first_step or -1)
        self.board = Loggers((), folder)
        if write:
            self.board.made["tensorboard"] = TensorBoard(folder, first_step=first_step)
        self.loggers = loggers
        self.folder = folder
        self.steps, self.step, self.every, self.then = steps, first_step, validate_every, then
        self.pace, self.mark, self.expected = Pace(), time.monotonic(), False
        self.validating_since: float | None = None
        self.show = show and write
        self.bar = Bar(name, total=steps, done=first_step, show=self.show, left=self.left)
        self.shown: dict[str, str] = {}

    def __enter__(self) -> Track:
        self.board.start({})
        self.bar.__enter__()
        if self.show and not _told:
            _told.add("tensorboard")
            self.bar.say(f"Curves while it runs: tensorboard --logdir {shlex.quote(str(self.folder))}")
        self.mark = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, trace)
        self.board.finish(None)

    @property
    def seconds(self) -> float:
        """Time spent so far, earlier parts of a resumed run included."""
        return self.before_s + time.monotonic() - self.started

    def advance(self, step: int) -> None:
        """A step is done."""
        now = time.monotonic()
        self.pace.spend(STEP, now - self.mark)
        self.step, self.mark = step, now
        self.bar.update(step)
        self._tell_expected()

    @contextlib.contextmanager
    def validating(self) -> Iterator[None]:
        """Show how far a validation is, and count its time apart from that of steps."""
        began = self.validating_since = time.monotonic()
        try:
            with self.bar.below("validating"):
                yield
        finally:
            self.validating_since = None
        spent = time.monotonic() - began
        self.pace.spend(VALIDATION, spent)
        self.mark += spent
        self._tell_expected()

    def left(self) -> Left | None:
        """Expected time to the end of the run; None before the first step is done."""
        if STEP not in self.pace.spent:
            return None
        all_of_them = -(-self.steps // self.every) if self.every else 0
        validations = all_of_them - (self.step // self.every) if 0 < self.step < self.steps else 0
        todo = {STEP: float(self.steps - self.step), VALIDATION: validations + self.then}
        _, done, total = self.bar.inner or ("", 0, None)
        if self.validating_since is None or not done or total is None:
            return self.pace.left(todo)
        each = (time.monotonic() - self.validating_since) / done  # what is told so far of the one under way
        found = self.pace.left(todo, guess={VALIDATION: each * total})
        return Left(found.seconds + each * (total - done), found.known)

    def _tell_expected(self) -> None:
        """Say how long the run will take, once, when steps and validations have been measured."""
        left = None if self.expected or not self.show or STEP in self.pace.alone else self.left()
        if left is not None and left.known:
            self.expected = True
            test = " and the test" if self.then > 1 else ""
            self.bar.say(f"About {clock(left.seconds)} left, validations{test} included")

    def record(self, step: int, split: str, values: dict[str, float]) -> None:
        """Append one record and show its main figures."""
        for key, names in FIGURES.items():
            if key in values:
                name = names[split != "train"]
                self.shown[name] = f"{name} {values[key]:.4g}"
        if split == "train" and "samples_per_s" in values:
            self.shown["speed"] = f"{values['samples_per_s']:.4g} samples/s"
        order = ["loss", "dice", "auc", "validation", "speed"]
        self.bar.update(self.step, figures=[self.shown[name] for name in order if name in self.shown])
        if not self.write:
            return
        clean = {k: (v if math.isfinite(v) else None) for k, v in values.items()}
        line = {"step": step, "time_s": round(self.seconds, 3), "split": split, **clean}
        with disk_full_said(self.folder), self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.board.log(step, split, values)
        if self.loggers is not None:
            self.loggers.log(step, split, values)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self.bar.say(message)


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
