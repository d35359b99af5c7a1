"""Other tools get what a run logs, and whatever they do, the run is the same."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import parts2whole as p2w
from brief import write_noise
from parts2whole.run_folder import METRICS
from parts2whole.training.folder import RunFolderError
from parts2whole.training.loggers import GROUP, LoggerError, TensorBoard, find_logger, flatten
from parts2whole.training.runtime import Hardware

SMALL = {
    "network": p2w.UNet3D(size="tiny"),
    "whole_size": (8, 8, 8),
    "steps": 4,
    "batch_size": 2,
    "validation_wholes": 2,
    "validate_every": 2,
    "embed_wholes": 0,
    "hardware": Hardware(accelerator="cpu", precision="32-true"),
    "progress": False,
}
OWN = """
calls = []

class Told:
    def __init__(self, folder):
        self.folder = folder
    def start(self, settings):
        calls.append(("start", settings["steps"], self.folder.name))
    def log(self, step, split, values):
        calls.append((split, step, values))
    def finish(self, result):
        calls.append(("finish", result and result["kind"]))

class Broken(Told):
    def log(self, step, split, values):
        calls.append(("broken", step))
        raise OSError("the server\\nis gone")
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_noise(tmp_path_factory.mktemp("s") / "store")


@pytest.fixture
def calls(tmp_path, monkeypatch) -> list[tuple[object, ...]]:
    """What loggers of another distribution are called with."""
    folder = tmp_path / "site"
    about = folder / "told-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: told\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        f"[{GROUP}]\ntold = told_loggers:Told\nbroken = told_loggers:Broken\nlost = told_loggers:Lost\n"
    )
    (folder / "told_loggers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "told_loggers", raising=False)
    import told_loggers

    return told_loggers.calls


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_a_logger_of_another_package_is_told_everything_in_order(store, tmp_path, calls):
    run = p2w.pretrain(store, out=tmp_path / "run", logger="told", **SMALL)
    assert calls[0] == ("start", 4, "run")
    assert calls[-1] == ("finish", "pretrain")
    logged = [(split, step) for split, step, _ in calls[1:-1]]
    assert logged == [(line["split"], line["step"]) for line in records(run.folder)]
    for line, (_, _, values) in zip(records(run.folder), calls[1:-1], strict=True):
        known = {key: value for key, value in values.items() if math.isfinite(value)}
        assert known.items() <= line.items()
    assert (run.folder / "tensorboard").is_dir()


def test_one_that_fails_is_dropped_with_one_warning_and_changes_nothing(store, tmp_path, calls, capsys):
    tensors = []
    for name, loggers in (("without", ()), ("with", ["broken", "told"])):
        run = p2w.pretrain(store, out=tmp_path / name, logger=loggers, **SMALL)
        tensors.append((run.folder / "weights" / "model.safetensors").read_bytes())
    assert tensors[0] == tensors[1]
    said = capsys.readouterr().err
    assert said.count("WARNING") == 1
    assert "logger broken failed (OSError: the server is gone); the run goes on without it" in said
    assert [call[0] for call in calls].count("broken") == 1
    assert calls[-1] == ("finish", "pretrain")  # the other one has gone on


def test_a_tensorboard_that_fails_is_dropped_too_and_the_run_says_what_comes_next(
    store, tmp_path, monkeypatch, capsys
):
    def full(*_):
        raise OSError("no space for it")

    monkeypatch.setattr(TensorBoard, "log", full)
    run = p2w.pretrain(store, out=tmp_path / "run", **SMALL)
    told = capsys.readouterr().err
    assert told.count("WARNING: logger tensorboard failed (OSError: no space for it)") == 1
    assert [line["step"] for line in records(run.folder) if line["split"] == "validation"] == [0, 2, 4]
    assert run.summary().endswith(str(run.folder))
    assert "  parts2whole embed " in run.summary()


def test_a_run_that_fails_is_told_to_be_over(store, tmp_path, calls, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("parts2whole.verbs.pretrain.fit", stop)
    with pytest.raises(KeyboardInterrupt):
        p2w.pretrain(store, out=tmp_path / "run", logger="told", **SMALL)
    assert calls == [("start", 4, "run"), ("finish", None)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mlfow", "there is no logger 'mlfow'; known are broken, lost, mlflow, tensorboard, told, wandb"),
        ("lost", r"logger lost \(told_loggers:Lost\) can't be imported: .*Lost"),
    ],
)
def test_one_that_can_not_be_had_is_refused_before_anything(store, tmp_path, calls, name, message):
    with pytest.raises(LoggerError, match=message):
        p2w.pretrain(store, out=tmp_path / "run", logger=name, **SMALL)
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LoggerError, match=r"pip install .*\[wandb\]'"):
        find_logger("wandb")


def test_other_loggers_may_go_on_with_a_run_but_other_settings_may_not(store, tmp_path, calls):
    p2w.pretrain(store, out=tmp_path / "run", **SMALL)
    p2w.pretrain(store, out=tmp_path / "run", logger="told", resume=True, **SMALL)
    with pytest.raises(RunFolderError, match="batch_size"):
        p2w.pretrain(store, out=tmp_path / "run", resume=True, **SMALL | {"batch_size": 3})


def test_settings_are_flat_with_the_class_of_every_spec():
    spec = p2w.UNet3D(size="tiny").to_dict()
    flat = flatten({"network": spec, "steps": 3, "whole_size": [8, 8, 8], "init": {}})
    assert flat["network"] == "UNet3D"
    assert flat["network.size"] == "tiny"
    assert (flat["steps"], flat["whole_size"]) == (3, [8, 8, 8])


def test_weights_and_biases_gets_settings_figures_and_the_result(store, tmp_path, monkeypatch):
    """By a stand-in for its package that has what is used of it."""
    begun, logged, summary, ended = [], [], {}, []

    def init(**given):
        begun.append(given)
        log = lambda values, step: logged.append((step, values))  # noqa: E731
        finish = lambda exit_code: ended.append(exit_code)  # noqa: E731
        return SimpleNamespace(id="abc", log=log, summary=summary, finish=finish)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    run = p2w.pretrain(store, out=tmp_path / "run", logger="wandb", **SMALL)
    (given,) = begun
    assert (given["project"], given["name"], given["id"]) == ("parts2whole", "run", None)
    assert given["config"]["network"]["class_path"] == "UNet3D"
    assert {step for step, _ in logged} == {line["step"] for line in records(run.folder)}
    assert summary["result/validation_loss"] == run.result["validation_loss"]
    assert ended == [0]
    (run.folder / "result.json").unlink()
    p2w.pretrain(store, out=tmp_path / "run", logger="wandb", resume=True, **SMALL)
    assert begun[-1]["id"] == "abc"  # goes on in the same run


def test_mlflow_keeps_a_run_in_files(store, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "2" if "MAX" in name else "10" if "HTTP" in name else "true")  # put back
    run = p2w.pretrain(store, out=tmp_path / "runs" / "a", logger="mlflow", **SMALL)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "runs" / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("parts2whole").experiment_id
    (found,) = client.search_runs([experiment])
    assert (found.info.run_name, found.info.status) == ("a", "FINISHED")
    assert found.data.params["network"] == "UNet3D"
    assert found.data.params["network.size"] == "tiny"
    assert found.data.params["steps"] == "4"
    for split in ("train", "validation"):
        mine = {line["step"]: line["loss"] for line in records(run.folder) if line["split"] == split}
        theirs = client.get_metric_history(found.info.run_id, f"{split}/loss")
        assert {metric.step: metric.value for metric in theirs} == mine
    assert found.data.metrics["result/validation_loss"] == run.result["validation_loss"]
    (run.folder / "result.json").unlink()
    p2w.pretrain(store, out=run.folder, logger="mlflow", resume=True, **SMALL)
    assert len(client.search_runs([experiment])) == 1  # goes on in the same run
