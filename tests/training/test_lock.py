"""One run at a time in a folder, and what starting and resuming one says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from parts2whole import cli
from parts2whole.cli import main
from parts2whole.training.folder import RunFolderError, start_run
from parts2whole.training.lock import hold_folder, one_run_a_folder

HOLD = """
import sys, time
from pathlib import Path
from parts2whole.training.lock import hold_folder
with hold_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    source = str(Path(__file__).parents[2] / "src")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": source},
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_until_the_first_is_dead(holder, tmp_path):
    with (
        pytest.raises(RunFolderError, match=f"in use by process {holder.pid} on"),
        hold_folder(tmp_path / "run"),
    ):
        pass
    with hold_folder(tmp_path / "other"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with hold_folder(tmp_path / "run"):  # what a dead process has left is no obstacle
        assert (tmp_path / ".run.lock").read_text().split()[0] == str(os.getpid())


def test_what_another_machine_has_left_is_no_obstacle(tmp_path):
    (tmp_path / ".run.lock").write_text("1\nelsewhere\n")
    with hold_folder(tmp_path / "run"):
        pass


def test_other_processes_of_a_run_do_not_lock(tmp_path, monkeypatch):
    with hold_folder(tmp_path / "run"):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with hold_folder(tmp_path / "run"):
            pass


def test_a_verb_keeps_its_result_and_lets_go_after_an_error(tmp_path):
    @one_run_a_folder
    def verb(*, out: Path, fail: bool = False) -> str:
        with pytest.raises(RunFolderError, match="in use"), hold_folder(out):
            pass
        if fail:
            raise ValueError("failed")
        return "done"

    with pytest.raises(ValueError, match="failed"):
        verb(out=tmp_path / "run", fail=True)
    assert verb(out=tmp_path / "run") == "done"


def test_resume_true_needs_a_run_and_auto_starts_one(tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no run to go on with.*--resume auto"):
        start_run(tmp_path / "run", {"seed": 1}, environment={}, resume=True)
    start_run(tmp_path / "run", {"seed": 1}, environment={}, resume="auto")
    start_run(tmp_path / "run", {"seed": 1}, environment={}, resume=True)
    with pytest.raises(RunFolderError, match="seed: was 1, now 2"):
        start_run(tmp_path / "run", {"seed": 2}, environment={}, resume="auto")
    with pytest.raises(RunFolderError, match=r"already holds an unfinished run.*--resume true"):
        start_run(tmp_path / "run", {"seed": 1}, environment={}, resume=False)


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
