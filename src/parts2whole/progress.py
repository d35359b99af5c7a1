"""How far something is: a bar on a terminal, plain lines elsewhere; and how long the rest will take.

Without a terminal, as in the log of a cluster, there is a line at the start, at least one a minute, and one
at the end.  What works through cases says so with `watch`, whoever shows it:

    with Bar("Testing", show=True) as bar, bar.listening():
        for case in watch(cases): ...
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

Piece = TypeVar("Piece")

EVERY_S = 60.0
"""Seconds between two lines where there is no terminal."""
LATEST = 100
"""Pieces of a kind that tell how long the next takes."""
BAR = 12
"""Columns of the bar itself."""
WIDTH = 80
"""Columns of sentences, where the terminal has no fewer."""

_listener: ContextVar[Callable[[int, int], None] | None] = ContextVar("_listener", default=None)


def watch(pieces: Iterable[Piece], total: int, *, each: int = 1) -> Iterator[Piece]:
    """The pieces, each told to whoever listens when it is done.

    Args:
        pieces: what is worked through.
        total: cases in all of them together.
        each: cases in a piece; the last may have fewer.
    """
    told = _listener.get()
    for number, piece in enumerate(pieces, 1):
        yield piece
        if told is not None:
            told(min(total, number * each), total)


@dataclasses.dataclass(frozen=True)
class Left:
    """Time left.

    Attributes:
        seconds: as far as it can be told.
        known: False where a kind of work that is still to be done has never been measured.
    """

    seconds: float
    known: bool = True

    def __str__(self) -> str:
        return f"{'' if self.known else '>'}{clock(self.seconds)}"


class Pace:
    """Expects the time left from what is done: pieces of one kind take about equally long.

    The first piece of a kind, which loads and compiles, counts only as long as it is the only one.
    """

    def __init__(self) -> None:
        self.spent: dict[str, deque[float]] = {}
        self.alone: set[str] = set()

    def spend(self, kind: str, seconds: float) -> None:
        """Note what a piece has taken."""
        if kind in self.alone:
            self.alone.remove(kind)
            self.spent[kind].clear()
        elif kind not in self.spent:
            self.alone.add(kind)
        self.spent.setdefault(kind, deque(maxlen=LATEST)).append(seconds)

    def left(self, todo: Mapping[str, float], *, guess: Mapping[str, float] = MappingProxyType({})) -> Left:
        """Expected time of what is to be done, in pieces by kind; a ``guess`` counts where none is done."""
        known = {**guess, **{kind: sum(spent) / len(spent) for kind, spent in self.spent.items()}}
        waiting = {kind: pieces for kind, pieces in todo.items() if pieces > 0}
        seconds = sum(known[kind] * pieces for kind, pieces in waiting.items() if kind in known)
        return Left(seconds, known.keys() >= waiting.keys())


class Bar:
    """Shows on standard error how far something is; used as a context manager.

    Args:
        name: what is done.
        total: pieces; None is not known yet.
        done: pieces that were done before.
        show: False shows nothing.
        left: says what time is left, None where that can't be told; by default all pieces take equally long.
        console: where to; tests give their own.
    """

    def __init__(
        self,
        name: str,
        *,
        total: int | None = None,
        done: int = 0,
        show: bool = True,
        left: Callable[[], Left | None] | None = None,
        console: Console | None = None,
    ) -> None:
        self.name, self.total, self.done, self.show = name, total, done, show
        self.console = console or Console(stderr=True)
        self.drawn = (self.console.is_terminal and not self.console.is_dumb_terminal) or (
            self.console.is_jupyter
        )
        self.figures: tuple[str, ...] = ()
        self.inner: tuple[str, int, int | None] | None = None
        self._first, self._began = done, time.monotonic()
        self._left = left or self._alike
        self._stopped = threading.Event()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=BAR),
            _Column(lambda task: _of(int(task.completed), task.total)),
            _Column(lambda task: "  ".join(self._fitting()) if task.id == self._task else ""),
            _Column(lambda task: self._text_left() if task.id == self._task else ""),
        )
        self._bars = Progress(*columns, console=self.console, disable=not (show and self.drawn))
        self._task = self._bars.add_task(name, total=total, completed=done)
        self._below = None if not self.drawn else self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._bars.start()
        if self.show and not self.drawn:
            self.tell_line()
            threading.Thread(target=self._tell_on, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._bars.stop()
        if self.show and not self.drawn:
            self.tell_line()

    def update(self, done: int, total: int | None = None, *, figures: Sequence[str] | None = None) -> None:
        """So many pieces are done; ``figures`` are shown as far as there is room, the first ones first."""
        self.done, self.total = done, self.total if total is None else total
        self.figures = self.figures if figures is None else tuple(figures)
        self._bars.update(self._task, completed=done, total=self.total)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Move the bar by what is watched (`watch`) inside."""
        with _hearing(self.update):
            yield

    @contextlib.contextmanager
    def below(self, name: str) -> Iterator[None]:
        """Show in a second bar what is watched inside."""

        def hear(done: int, total: int | None) -> None:
            self.inner = (name, done, total)
            if self._below is not None:
                self._bars.update(
                    self._below, description=f"  {name}", completed=done, total=total, visible=True
                )

        hear(0, None)
        try:
            with _hearing(hear):
                yield
        finally:
            self.inner = None
            if self._below is not None:
                self._bars.update(self._below, visible=False)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.drawn:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self.console.file, flush=True)

    def tell_line(self) -> None:
        """Print how far it is as a plain line."""
        parts = [f"{self.name} {_of(self.done, self.total)}", *self.figures]
        if self.inner is not None:
            parts.append(f"{self.inner[0]} {_of(*self.inner[1:])}")
        with contextlib.suppress(ValueError):  # a log that was closed
            print(", ".join([*parts, *filter(None, [self._text_left()])]), file=self.console.file, flush=True)

    def _tell_on(self) -> None:
        while not self._stopped.wait(EVERY_S):
            self.tell_line()

    def _alike(self) -> Left | None:
        made = self.done - self._first
        if not made or self.total is None:
            return None
        return Left((time.monotonic() - self._began) / made * (self.total - self.done))

    def _text_left(self) -> str:
        left = self._left()
        if self.total is not None and self.done >= self.total and (left is None or not left.seconds):
            return f"took {clock(time.monotonic() - self._began)}"
        return "" if left is None else f"{left} left"

    def _fitting(self) -> list[str]:
        """The figures that there is room for beside name, bar, count and time left."""
        rows = [(self.name, _of(self.done, self.total))]
        if self.inner is not None:
            rows.append((f"  {self.inner[0]}", _of(*self.inner[1:])))
        fixed = sum(max(map(len, column)) for column in zip(*rows, strict=True))
        room = self.console.width - fixed - BAR - len(self._text_left()) - len("    ")
        found: list[str] = []
        for figure in self.figures:
            if sum(len(one) + 2 for one in found) + len(figure) > room:
                break
            found.append(figure)
        return found


@contextlib.contextmanager
def watching(name: str, total: int | None = None, *, show: bool) -> Iterator[None]:
    """Show in a bar how far what is watched (`watch`) inside is, of so many cases."""
    with Bar(name, total=total, show=show) as bar, bar.listening():
        yield


class _Column(ProgressColumn):
    """A text that is never cut or wrapped."""

    def __init__(self, text: Callable[[Task], str]) -> None:
        super().__init__()
        self.text = text

    def render(self, task: Task) -> Text:
        return Text(self.text(task), no_wrap=True)


@contextlib.contextmanager
def _hearing(told: Callable[[int, int], None]) -> Iterator[None]:
    token = _listener.set(told)
    try:
        yield
    finally:
        _listener.reset(token)


def fill(text: str, indent: str = "") -> str:
    """Text in `WIDTH` columns, or as many as the terminal has; words, such as paths, are never broken."""
    return textwrap.fill(
        text,
        min(WIDTH, shutil.get_terminal_size().columns),
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def clock(seconds: float) -> str:
    """``0:07``, ``12:30`` or ``1:02:10``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _of(done: int, total: float | None) -> str:
    return f"{done}/{int(total)}" if total is not None else str(done)
