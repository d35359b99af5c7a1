"""How far a study is: a line for every finished piece of work, a bar, and when it will be done."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from types import TracebackType

from parts2whole.progress import Bar, Left
from parts2whole.report.summary import format_duration
from parts2whole.study.work import PRETRAINING


class Pace:
    """Estimates the time left from what is done: pieces of one kind take about equally long.

    Fine-tunings of one task say something of another's; a pre-training says nothing of fine-tunings.

    Args:
        waiting: the kind of every piece that has to be done, such as a pre-training or a task's name.
    """

    def __init__(self, waiting: Sequence[str]) -> None:
        self.waiting = list(waiting)
        self.spent: dict[str, list[float]] = {}

    def finish(self, kind: str, seconds: float) -> None:
        """Note that a piece is done; ``seconds`` is what its worker spent on it."""
        self.waiting.remove(kind)
        self.spent.setdefault(kind, []).append(seconds)

    def seconds_left(self, elapsed_s: float) -> float | None:
        """Expected seconds until all is done, at the speed so far; None before it can be told.

        Args:
            elapsed_s: time since the beginning, over which the workers spent what they spent.
        """
        done = [seconds for spent in self.spent.values() for seconds in spent]
        if not sum(done) or not elapsed_s:
            return 0.0 if not self.waiting else None
        tuned = [s for kind, spent in self.spent.items() if kind != PRETRAINING for s in spent]
        known = [self.spent.get(kind) or (tuned if kind != PRETRAINING else []) for kind in self.waiting]
        if not all(known):
            return None
        return sum(map(statistics.median, known)) * elapsed_s / sum(done)


class Reporter:
    """Shows the progress of a study on standard error.

    Args:
        waiting: the kind of every piece of work.
        show: False shows nothing.
    """

    def __init__(self, waiting: Sequence[str], *, show: bool) -> None:
        self.pace, self.total, self.done, self.failed = Pace(waiting), len(waiting), 0, 0
        self.began = time.monotonic()
        self.show = show
        self.bar = Bar("Benchmark", total=self.total, show=show, left=self.left)

    def __enter__(self) -> Reporter:
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, trace)

    def left(self) -> Left | None:
        """Expected time of what is not finished."""
        seconds = self.pace.seconds_left(time.monotonic() - self.began)
        return None if seconds is None else Left(seconds)

    def finish(self, kind: str, line: str, seconds: float, *, failed: bool = False) -> None:
        """Show that a piece of work has come to its end."""
        self.done += 1
        self.failed += failed
        self.pace.finish(kind, seconds)
        left = self.left()
        when = "" if left is None or self.done == self.total else f", {left} left"
        self.bar.update(self.done, figures=[f"{self.failed} failed"] if self.failed else [])
        if self.show:
            self.bar.say(f"[{self.done}/{self.total}] {line} ({format_duration(seconds)}){when}")
