"""What signals and the file system say on the command line."""

from __future__ import annotations

import os
import signal

import pytest

from parts2whole import cli
from parts2whole.cli import main


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_ends_a_command_with_a_documented_code(monkeypatch, capsys, number, code):
    monkeypatch.setattr(cli, "run", lambda *_: os.kill(os.getpid(), number))
    around = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started with
    try:
        before = signal.getsignal(number)
        assert main(["report", "x"]) == code
        assert signal.getsignal(number) is before
    finally:
        signal.signal(signal.SIGINT, around)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("number", "remedy"), [(28, "free some space"), (30, "make it writable")])
def test_an_error_of_the_file_system_says_what_to_do(monkeypatch, capsys, number, remedy):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number), "runs/a")

    monkeypatch.setattr(cli, "run", fail)
    assert main(["report", "x"]) == 1
    assert remedy in capsys.readouterr().err
