"""A study from start to finish: once, twice, killed in the middle, on Dask, and with a cell that fails."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

import parts2whole as p2w
from parts2whole.cli import main
from parts2whole.report.marks import TableError

PLAIN: dict[str, Any] = {
    "data": {"stores": {"pool": {"scans": "labelled/images", "modality": "MR"}}},
    "network": {"UNet3D": {"size": "tiny"}},
    "arms": {"scratch": "scratch", "Parts2Whole": "Parts2Whole"},
    "tasks": {
        "Balls": {
            "task": {
                "Segmentation": {
                    "data": "labelled",
                    "preprocess": {"modality": "MR"},
                    "patch_size": [16, 16, 16],
                    "validation_fraction": 0.25,
                    "test_fraction": 0.25,
                }
            },
            "metric": "iou_mean",
        }
    },
    "cases": [3],
    "seeds": 2,
    "pretrain": {
        **{"store": "pool", "whole_size": [16, 16, 16], "steps": 2, "batch_size": 2, "embed_wholes": 3},
        **{"validation_wholes": 4, "validate_every": 2, "validation_fraction": 0.5, "held_out": "task"},
    },
    "finetune": {"steps": 2, "batch_size": 2, "validate_every": 2},
    "hardware": {"accelerator": "cpu", "precision": "32-true"},
    "table": {"test": "student", "alternative": "observed"},
}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One cache for the module, also for the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    z, y, x = np.meshgrid(*[np.arange(16)] * 3, indexing="ij")
    for case in range(8):
        generator = np.random.default_rng(case)
        centre = generator.integers(5, 11, 3)
        inside = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < 14
        image = generator.normal(100, 5, inside.shape) + 80 * inside
        for kind, array in (("images", image.astype(np.float32)), ("labels", inside.astype(np.uint8))):
            path = root / "labelled" / kind / f"case_{case}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    (root / "study.yaml").write_text(yaml.safe_dump(PLAIN, sort_keys=False))
    return root


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    done = p2w.benchmark(folder / "study.yaml", out=folder / "local", workers=0, progress=False)
    assert (done.finished, done.reused, done.failures) == (4, 0, {})
    shutil.copy(folder / "local" / "table.md", folder / "reference.md")  # other tests widen the study
    return folder / "local"


def results(out: Path) -> dict[str, int]:
    """When the result of every finished cell was written."""
    marks = out.glob("cells/*/cell.json")
    return {mark.parent.name: mark.parent.joinpath("result.json").stat().st_mtime_ns for mark in marks}


def test_a_study_leaves_tables_a_report_and_what_they_rest_on(finished: Path) -> None:
    for name in ("table.md", "table.tex", "table.csv", "table.html", "results.csv", "report.html"):
        assert (finished / name).stat().st_size > 0, name
    table = (finished / "table.md").read_text()
    assert "| Balls | IoU mean, % | 3 cases |" in table
    for words in (
        "independent Student t-test",
        "one-sided, in favour of the better mean",
        "n = 2",
        "α = 0.05",
    ):
        assert words in table
    assert "which training cases are labelled" in table
    assert "Pre-trained weights are the same in all seeds" in table
    rows = list(csv.DictReader((finished / "results.csv").open()))
    assert {row["arm"] for row in rows} == {"scratch", "Parts2Whole"}
    cells = [json.loads(path.read_text()) for path in finished.glob("cells/*/cell.json")]
    assert len(cells) == 4
    for cell in cells:
        assert cell["config"]["steps"] == 2
        assert cell["commit"]
        assert cell["seed"] in (0, 1)
        assert len(cell["data_fingerprint"]) == 32
        assert cell["duration_s"] > 0
        assert cell["peak_memory_mb"] > 50
        assert cell["hardware"]["precision"] == "32-true"
    assert len({cell["data_fingerprint"] for cell in cells}) == 1
    (start,) = finished.glob("pretraining/*/cell.json")
    assert json.loads(start.read_text())["arm"] == "Parts2Whole"
    assert not list(finished.glob("cells/*/checkpoints"))
    assert json.loads((finished / "endpoints.json").read_text())["final"] == 0
    verdict = (finished / "verdict.txt").read_text()
    assert verdict.startswith("With 3 labelled cases, ")
    assert "final: independent Student t-test, one-sided" in verdict
    assert {row["endpoint"] for row in csv.DictReader((finished / "endpoints.csv").open())} == {"final"}
    page = (finished / "report.html").read_text()
    assert "Embedding of parts" in page
    assert "Other patients, other runs" in page


def test_finished_cells_are_never_run_again(folder: Path, finished: Path, capsys: Any) -> None:
    before = results(finished)
    done = p2w.benchmark(folder / "study.yaml", out=finished, workers=0, progress=False)
    assert (done.finished, done.reused) == (4, 4)
    assert results(finished) == before
    later = yaml.safe_load((folder / "study.yaml").read_text()) | {"endpoints": ["final", "worst_seed"]}
    (folder / "later.yaml").write_text(yaml.safe_dump(later, sort_keys=False))
    done = p2w.benchmark(folder / "later.yaml", out=finished, workers=0, progress=False)
    assert done.conclusion is not None
    told = done.summary()
    assert " ".join(told.split()).endswith(" ".join(done.conclusion.text.split()))
    sentences = told[told.index("cells finished") :].splitlines()
    assert max(len(line) for line in sentences if str(finished) not in line) <= 80 < len(done.conclusion.text)
    assert "[added after the runs (4 were finished)]" in done.conclusion.text
    assert results(finished) == before
    wider = yaml.safe_load((folder / "study.yaml").read_text()) | {"seeds": 3}
    (folder / "wider.yaml").write_text(yaml.safe_dump(wider, sort_keys=False))
    p2w.benchmark(folder / "wider.yaml", out=finished, dry_run=True, progress=False)
    listed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("finished") for line in listed) == 4
    assert [line for line in listed if line.startswith("to do")] == [
        "to do     Balls, 3 cases, scratch, seed 2",
        "to do     Balls, 3 cases, Parts2Whole, seed 2",
    ]


def test_a_failed_cell_is_told_and_the_others_are_finished(folder: Path, finished: Path, capsys: Any) -> None:
    broken = yaml.safe_load((folder / "study.yaml").read_text()) | {"seeds": 1}
    (folder / "nothing").mkdir(exist_ok=True)
    broken["arms"] = {"scratch": "scratch", "Broken": {"init": "nothing"}}
    broken["arms"]["Unlearned"] = {"method": "Autoencoder", "pretrain": {"whole_size": [16, 16, 12]}}
    (folder / "broken.yaml").write_text(yaml.safe_dump(broken, sort_keys=False))
    code = main(["benchmark", str(folder / "broken.yaml"), "--out", str(finished), "--workers", "0"])
    shown = capsys.readouterr()
    assert code == 1
    assert "3 failed" in shown.out
    assert "Balls, 3 cases, Broken, seed 0 was not finished: no encoder.safetensors" in shown.out
    assert "pre-training, Unlearned was not finished: whole_size must be divisible by 8" in shown.out
    assert "not run, as its pre-training failed" in " ".join(shown.out.split())
    assert "1 cell finished" in shown.out
    assert list(finished.glob("cells/*Broken*.failure.txt"))


def test_a_metric_that_is_not_measured_is_told(folder: Path, finished: Path) -> None:
    wrong = yaml.safe_load((folder / "study.yaml").read_text())
    wrong["tasks"]["Balls"]["metric"] = "iou"
    (folder / "wrong.yaml").write_text(yaml.safe_dump(wrong, sort_keys=False))
    with pytest.raises(TableError, match="no metric 'iou'; it has"):
        p2w.benchmark(folder / "wrong.yaml", out=finished, workers=0, progress=False)


def start(folder: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "parts2whole",
        "benchmark",
        "study.yaml",
        "--out",
        "killed",
        "--workers",
        "1",
    ]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    for _ in range(12_000):
        if len(results(folder / "killed")) >= count:
            return
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    process.kill()
    raise AssertionError("no cell in ten minutes")


def test_a_killed_study_is_finished_without_repeating_a_cell(folder: Path, finished: Path) -> None:
    first = start(folder)
    wait_for(folder, 1, first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    after_kill = results(folder / "killed")
    second = start(folder)
    wait_for(folder, len(after_kill) + 1, second)
    os.kill(second.pid, signal.SIGTERM)
    _, said = second.communicate(timeout=300)
    after_stop = results(folder / "killed")
    if len(after_stop) < 4:
        assert second.returncode == 75
        assert "finished cells stay" in said
        assert "Traceback" not in said
    done = p2w.benchmark(folder / "study.yaml", out=folder / "killed", workers=0, progress=False)
    assert done.finished == 4
    assert done.reused == len(after_stop) >= 2
    final = results(folder / "killed")
    assert final == final | after_stop | after_kill
    assert (folder / "killed" / "table.md").read_text() == (folder / "reference.md").read_text()


def test_dask_gives_the_same_table(folder: Path, finished: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    short = yaml.safe_load((folder / "study.yaml").read_text()) | {"seeds": 1}
    (folder / "short.yaml").write_text(yaml.safe_dump(short, sort_keys=False))
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        done = p2w.benchmark(
            folder / "short.yaml", out=folder / "dask", cluster=cluster.scheduler_address, progress=False
        )
    assert (done.finished, done.failures) == (2, {})
    p2w.benchmark(folder / "short.yaml", out=finished, workers=0, progress=False)
    for name in ("table.md", "table.csv"):
        assert (folder / "dask" / name).read_text() == (finished / name).read_text()
