"""Being asked to stop: Ctrl-C, SIGTERM, and the warning that SLURM sends before a job's time is up.

The first signal lets the step finish; then the state is saved and the process ends with a code that says
why.  Only a second Ctrl-C kills at once: a cluster sends SIGTERM after SIGUSR1, while the state is saved.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

INTERRUPTED, RUN_AGAIN = 130, 75
"""Exit codes: 128 + SIGINT as shells have it, and EX_TEMPFAIL of sysexits.h: run the command again."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved its state.

    Attributes:
        exit_code: 75 where a cluster asked (SIGTERM, SIGUSR1), 130 where a person did (Ctrl-C).
    """

    def __init__(self, message: str, *, exit_code: int = INTERRUPTED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextlib.contextmanager
def stopping_at_once() -> Iterator[None]:
    """End with `RUN_AGAIN` at SIGTERM and SIGUSR1, wherever the program is but inside a `StopSignal`."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}; run it again", exit_code=RUN_AGAIN)

    before: dict[signal.Signals, Any] = {}
    with contextlib.suppress(ValueError):
        for number in (signal.SIGTERM, signal.SIGUSR1):
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopSignal(contextlib.AbstractContextManager["StopSignal"]):
    """Turns signals into a wish to stop after the step.

    Attributes:
        exit_code: of the first signal that came; 0 as long as none has.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        with contextlib.suppress(ValueError):  # signals can only be handled in the main thread
            for number in SIGNALS:
                self.before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.exit_code = self.exit_code or (INTERRUPTED if number == signal.SIGINT else RUN_AGAIN)
        if number == signal.SIGINT:
            signal.signal(number, self.before[number])
