"""How far a study is: a line for every finished piece of work, a bar, and when it will be done."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from parts2whole.report.summary import format_duration


class Pace:
    """Estimates the time left from what is done: pieces of one kind take about equally long.

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
        """Expected seconds until all is done, at the speed so far; None before anything is.

        Args:
            elapsed_s: time since the beginning, over which the workers spent what they spent.
        """
        done = [seconds for spent in self.spent.values() for seconds in spent]
        if not sum(done) or not elapsed_s:
            return 0.0 if not self.waiting else None
        usual = statistics.median(done)
        left = sum(statistics.median(self.spent.get(kind) or [usual]) for kind in self.waiting)
        return left * elapsed_s / sum(done)


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
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True, soft_wrap=True),
            disable=not show,
        )
        self.task = self.bar.add_task("Benchmark", total=self.total, left="")

    def __enter__(self) -> Reporter:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def finish(self, kind: str, line: str, seconds: float, *, failed: bool = False) -> None:
        """Show that a piece of work has come to its end."""
        self.done += 1
        self.failed += failed
        self.pace.finish(kind, seconds)
        left = self.pace.seconds_left(time.monotonic() - self.began)
        when = "" if left is None or self.done == self.total else f"about {format_duration(left)} left"
        failures = f", {self.failed} failed" if self.failed else ""
        self.bar.update(self.task, completed=self.done, left=when + failures)
        if self.show:
            shown = f"[{self.done}/{self.total}] {line} ({format_duration(seconds)})"
            self.bar.console.print(shown + (f", {when}" if when else ""), markup=False, highlight=False)
