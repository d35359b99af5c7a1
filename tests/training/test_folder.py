"""The run folder: locked, refused, begun over, gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.scans.preprocess import Preprocess
from parts2whole.tasks.segmentation import Segmentation
from parts2whole.training.folder import RunFolder, RunFolderError
from parts2whole.training.lock import hold_folder
from parts2whole.training.runtime import Hardware, Runtime

HOLD = """
import sys, time
from pathlib import Path
from parts2whole.training.lock import hold_folder
with hold_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(Hardware(accelerator="cpu", precision="32-true"))


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


def enter(out: Path, runtime: Runtime, *, resume=False, **settings) -> RunFolder:
    folder = RunFolder(out, {"seed": 1} | settings, resume=resume)
    with folder.enter(runtime):
        pass
    return folder


def leave_checkpoint(out: Path) -> None:
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "step-00000001.ckpt").write_bytes(b"weights")


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_second_run_is_refused_until_the_first_is_dead(holder, runtime, tmp_path):
    for refused in (
        lambda: RunFolder(tmp_path / "run", {}, resume=False),
        hold_folder(tmp_path / "run").__enter__,
    ):
        with pytest.raises(RunFolderError, match=f"in use by process {holder.pid} on"):
            refused()
    enter(tmp_path / "other", runtime)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunFolder(tmp_path / "run", {}, resume=False).enter(
        runtime
    ):  # what a dead process has left is no obstacle
        assert (tmp_path / ".run.lock").read_text().split()[0] == str(os.getpid())


def test_what_another_machine_has_left_is_no_obstacle(runtime, tmp_path):
    (tmp_path / ".run.lock").write_text("1\nelsewhere\n")
    enter(tmp_path / "run", runtime)


def test_other_processes_of_a_run_neither_lock_nor_look(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    with hold_folder(tmp_path / "run"):
        monkeypatch.setenv("LOCAL_RANK", "1")
        RunFolder(tmp_path / "run", {}, resume=False)  # by now the first process may have written into it
        with hold_folder(tmp_path / "run"):
            pass


def test_a_run_lets_go_after_an_error(runtime, tmp_path):
    folder = RunFolder(tmp_path / "run", {}, resume=False)

    def fail() -> None:
        with folder.enter(runtime):
            with pytest.raises(RunFolderError, match="in use"), hold_folder(tmp_path / "run"):
                pass
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        fail()
    enter(tmp_path / "run", runtime)


def test_looking_leaves_nothing_and_entering_says_what_is_run(runtime, tmp_path, capsys):
    folder = RunFolder(tmp_path / "a" / "run", {"out": tmp_path, "sizes": (1, 2)}, resume=False)
    assert files(tmp_path) == []
    with folder.enter(runtime, say=["Note: one.", "Note: two."]):
        assert yaml.safe_load((folder.path / "config.yaml").read_text()) == {
            "out": str(tmp_path),
            "sizes": [1, 2],
        }
        assert json.loads((folder.path / "environment.json").read_text())["device"] == "cpu"
    assert capsys.readouterr().out == "Note: one.\nNote: two.\n"
    assert files(folder.path) == ["config.yaml", "environment.json"]


def test_who_comes_second_after_looking_is_refused(runtime, tmp_path):
    first, second = (RunFolder(tmp_path / "run", {}, resume=False) for _ in range(2))
    with first.enter(runtime):
        leave_checkpoint(first.path)
    with pytest.raises(RunFolderError, match="already holds an unfinished run"), second.enter(runtime):
        pass


def test_resume_true_needs_a_run_and_auto_starts_one(runtime, tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no run to go on with.*--resume auto"):
        enter(tmp_path / "run", runtime, resume=True)
    enter(tmp_path / "run", runtime, resume="auto")
    leave_checkpoint(tmp_path / "run")
    enter(tmp_path / "run", runtime, resume=True)
    with pytest.raises(RunFolderError, match="seed: was 1, now 2"):
        enter(tmp_path / "run", runtime, resume="auto", seed=2)
    with pytest.raises(RunFolderError, match=r"already holds an unfinished run.*--resume true"):
        enter(tmp_path / "run", runtime)
    assert (tmp_path / "run" / "checkpoints" / "step-00000001.ckpt").exists()


def test_a_finished_run_is_given_back_untouched_and_only_for_its_settings(runtime, tmp_path):
    out = enter(tmp_path / "run", runtime).path
    (out / "result.json").write_text('{"steps": 3}')
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert RunFolder(out, {"seed": 1}, resume="auto").result == {"steps": 3}
    with pytest.raises(RunFolderError, match="seed: was 1, now 2"):
        RunFolder(out, {"seed": 2}, resume=True)
    with pytest.raises(RunFolderError, match="already holds a finished run"):
        RunFolder(out, {"seed": 1}, resume=False)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_run_without_a_checkpoint_is_overwritten(runtime, tmp_path):
    out = enter(tmp_path / "run", runtime).path
    for name in ("metrics.jsonl", "split.json", "report.html", "tensorboard/events", "panels/a.png"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("of the run that died")
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "best-00000001.safetensors").write_text("of the run that died")
    (out / ".metrics.jsonl.0a1b.host.1.part").write_text("half-written")
    enter(out, runtime, seed=2)
    assert files(out) == ["config.yaml", "environment.json"]
    assert yaml.safe_load((out / "config.yaml").read_text()) == {"seed": 2}


def test_what_no_run_has_left_is_never_overwritten(runtime, tmp_path):
    out = enter(tmp_path / "run", runtime).path
    (out / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"a run without a checkpoint, but notes\.txt"):
        enter(out, runtime)
    (out / "config.yaml").unlink()
    with pytest.raises(
        RunFolderError, match=r"not empty and holds no run, but environment\.json, notes\.txt"
    ):
        enter(out, runtime, resume="auto")
    with pytest.raises(RunFolderError, match="is a file"):
        enter(out / "notes.txt", runtime)
    assert (out / "notes.txt").read_text() == "mine"


def test_settings_as_version_0_1_0_wrote_them_are_the_same_settings(runtime, tmp_path):
    """That version wrote the module of a class beside its name."""
    out = enter(tmp_path / "run", runtime, method=Parts2Whole()).path
    text = (out / "config.yaml").read_text()
    assert "class_path: Parts2Whole\n" in text
    (out / "config.yaml").write_text(
        text.replace(": Parts2Whole", ": parts2whole.methods.parts2whole.Parts2Whole")
    )
    enter(out, runtime, resume=True, method=Parts2Whole())
    with pytest.raises(RunFolderError, match="method: was"):
        enter(out, runtime, resume=True, method=Parts2Whole(parts_per_whole=2))


def test_fields_that_came_later_are_no_change_where_they_have_their_default(runtime, tmp_path):
    task = Segmentation(Path("data"), preprocess=Preprocess(modality="MR"))
    out = enter(tmp_path / "run", runtime, task=task).path
    kept = yaml.safe_load((out / "config.yaml").read_text())
    del kept["task"]["init_args"]["patient_pattern"]
    del kept["task"]["init_args"]["preprocess"]["init_args"]["percentiles"]
    (out / "config.yaml").write_text(yaml.safe_dump(kept))
    enter(out, runtime, resume=True, task=task)
    (out / "config.yaml").write_text(yaml.safe_dump(kept))
    with pytest.raises(RunFolderError, match="task: was"):
        enter(out, runtime, resume=True, task=task.replace(patient_pattern="(a)"))
