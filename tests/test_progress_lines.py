"""A bar on a terminal, plain lines without one, and times left that count what has been measured."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from parts2whole import progress
from parts2whole.progress import Bar, Left, Pace, clock, watch, watching


class Lines(io.StringIO):
    """What a log gets."""

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


@pytest.fixture
def log() -> Lines:
    return Lines()


def plain(log: Lines) -> Console:
    return Console(file=log, width=80)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (750, "12:30"), (3730, "1:02:10")]
)
def test_times_are_read_as_on_a_clock(seconds, text):
    assert clock(seconds) == text


def test_time_left_adds_up_kinds_of_work():
    pace = Pace()
    pace.spend("step", 30)  # loads and compiles
    assert pace.left({"step": 10}) == Left(300)
    for _ in range(4):
        pace.spend("step", 2)
    assert pace.left({"step": 10}) == Left(20)
    assert pace.left({"step": 10, "validation": 3}) == Left(20, known=False)
    assert str(pace.left({"step": 10, "validation": 3})) == ">0:20"
    assert pace.left({"step": 10, "validation": 3}, guess={"validation": 7}) == Left(41)
    pace.spend("validation", 5)
    assert pace.left({"step": 10, "validation": 2.5}, guess={"validation": 7}) == Left(32.5)
    assert pace.left({"step": 0, "test": 0}) == Left(0)


def test_only_the_latest_pieces_tell_how_long_one_takes():
    pace = Pace()
    for seconds in [1.0, *[9.0] * 50, *[2.0] * progress.LATEST]:
        pace.spend("step", seconds)
    assert pace.left({"step": 3}) == Left(6)


def test_what_is_watched_is_heard_by_the_innermost_bar(log):
    with Bar("outer", console=plain(log)) as outer, outer.listening():
        assert list(watch("abc", 3)) == ["a", "b", "c"]
        assert (outer.done, outer.total) == (3, 3)
        with outer.below("inner"):
            taken = watch(range(0, 10, 4), 10, each=4)
            heard = []
            for _ in taken:
                heard.append(outer.inner)
        assert heard == [("inner", 0, None), ("inner", 4, 10), ("inner", 8, 10)]
        assert outer.inner is None
        assert outer.done == 3
    assert list(watch("ab", 2)) == ["a", "b"]  # nobody listens


def test_without_a_terminal_there_are_plain_lines(log):
    with Bar("Training", total=4, done=1, console=plain(log)) as bar:
        bar.say("a [word] of its own")
        bar.update(4, figures=["loss 0.5"])
    assert log.lines[0] == "Training 1/4"
    assert log.lines[1] == "a [word] of its own"
    assert re.fullmatch(r"Training 4/4, loss 0\.5, took \d:\d\d", log.lines[2])
    assert not {"\r", "\x1b"} & set(log.getvalue())


def test_a_silent_minute_has_its_line(log, monkeypatch):
    """With no minute at all there is a line, whatever else happens, as long as one waits for it."""
    monkeypatch.setattr(progress, "EVERY_S", 0.001)
    with Bar("Testing", total=2, console=plain(log)) as bar, bar.below("case"):
        first = len(log.lines) + 1  # one may have been begun before
        while len(log.lines) < first + 4:
            time.sleep(0.001)
    assert set(log.lines[first : first + 4]) == {"Testing 0/2, case 0"}


def test_nothing_is_shown_where_nothing_is_to_be(log, capsys):
    with Bar("quiet", total=1, show=False, console=plain(log)) as bar:
        bar.update(1)
    with watching("quiet", show=False):
        list(watch("ab", 2))
    assert log.getvalue() == capsys.readouterr().err == ""


FIGURES = ["loss 0.1192", "validation 0.1439", "12.5 samples/s"]


@pytest.mark.parametrize(("width", "shown"), [(59, 0), (62, 1), (80, 2), (120, 3)])
def test_time_left_stays_and_figures_go_where_there_is_no_room(log, width, shown):
    console = Console(file=log, width=width, force_terminal=True, color_system=None)
    with Bar("Segmentation", total=2000, console=console, left=lambda: Left(3730)) as bar:
        bar.update(1000, figures=FIGURES)
    frames = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", log.getvalue()))
    last = next(frame.rstrip() for frame in reversed(frames) if frame.strip())
    assert last.endswith("1:02:10 left")
    assert len(last) <= width
    assert [figure for figure in FIGURES if figure in last] == FIGURES[:shown]
    assert "…" not in last
