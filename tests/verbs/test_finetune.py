"""What `finetune` and `probe` refuse before they write anything, and what the folder says."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import parts2whole as p2w
from parts2whole.errors import Parts2WholeError
from parts2whole.report.curves import comparison_charts
from parts2whole.report.runs import read_run
from parts2whole.spec import to_plain
from parts2whole.tasks.classification import Classification
from parts2whole.training.model import as_function
from parts2whole.training.optim import SGD
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.training.transfer import open_transfer
from parts2whole.verbs.compare import CompareError

EXACT = Hardware(accelerator="cpu", precision="32-true")
SMALL = {
    "network": p2w.UNet3D(size="tiny"),
    "steps": 2,
    "batch_size": 2,
    "hardware": EXACT,
    "progress": False,
}


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Classification:
    """A task without a test side."""
    path = tmp_path_factory.mktemp("labelled") / "set.npz"
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 8)).astype(np.uint8)
    labels = np.arange(24)[:, None] % 2
    np.savez(path, train_images=images, train_labels=labels)
    return Classification(path, patch_size=(8, 8, 8), validation_fraction=0.25)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "Classification"}, "task must be a Task, such as"),
        ({"task": {"data": Path("nowhere")}}, "nowhere"),
        ({"task": {"patch_size": (8, 8, 12)}}, r"patch_size must be divisible by 8 for this network, got \(8, 8, 12\)"),
        ({"task": {"validation_fraction": 0.0}}, "has no validation cases by the split of Classification"),
        ({"init": "nowhere", "network": None}, "nowhere doesn't exist"),
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"validate_every": 0}, "validate_every must be 1 or more, got 0"),
        ({"patience": -1}, "patience must be 0 or more, or none, got -1"),
        ({"clip_norm": -1.0}, "clip_norm must be above 0, or none, got -1.0"),
        ({"fraction": 0.0}, r"fraction must be in \(0, 1\], got 0.0"),
        ({"network_from": "nowhere"}, "either network or network_from"),
        ({"network_from": "nowhere", "network": None}, "nowhere doesn't exist"),
        ({"network_from": "scratch", "network": None}, 'network_from must name a run or weights, got "scratch"'),
        ({"cases": 99}, "asked for 99 labelled patients"),
        ({"cases": 3, "fraction": 0.5}, "either fraction or cases, got fraction 0.5 and cases 3"),
        ({"encoder": "frozen"}, "encoder must be one of train, freeze, lora, got 'frozen'"),
        ({"encoder": "lora", "lora_rank": 0}, "lora_rank must be 1 or more, got 0"),
        ({"encoder": "freeze", "layer_decay": 0.5}, "a frozen encoder doesn't learn.*got 0.0, 1.0, 0.5"),
        ({"encoder": "freeze", "encoder_lr": 0.5}, "a frozen encoder doesn't learn"),
        ({"layer_decay": 1.5}, r"layer_decay in \(0, 1\]; got 0.0, 1.0, 1.5"),
        ({"decoder": "owned"}, "decoder must be one of fresh, own, pretrained, light, linear, got 'owned'"),
        ({"decoder": "own"}, "decoder='own' is for segmentation"),
        ({"accept_leak": "yes"}, "accept_leak must be exactly"),
        ({"optimiser": lambda: SGD(momentum=1.0)}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"hardware": lambda: EXACT.replace(workers=-1)}, "workers must be auto, or 0 or more, got -1"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)  # fmt: skip
def test_a_wrong_setting_is_named_and_leaves_nothing(task, cache, tmp_path, settings, message):
    def attempt() -> None:
        made = {name: value() if inspect.isfunction(value) else value for name, value in settings.items()}
        if isinstance(made.get("task"), dict):
            made["task"] = task.replace(**made["task"])
        given = {"task": task, "out": tmp_path / "runs" / "run", "cache": cache} | SMALL | made
        p2w.finetune(given.pop("task"), **given)

    with pytest.raises(Parts2WholeError, match=message):
        attempt()
    assert list(tmp_path.iterdir()) == []


def test_all_settings_are_kept_as_they_were_given(task, cache, tmp_path):
    given = {"task": task, "out": tmp_path / "run", "cache": cache, "cases": 4, "seed": 5} | SMALL
    p2w.finetune(given["task"], **{name: value for name, value in given.items() if name != "task"})
    parameters = inspect.signature(p2w.finetune).parameters.values()
    expected = {p.name: to_plain(given.get(p.name, p.default)) for p in parameters}
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept == expected
    assert list(kept) == list(expected)


def test_without_a_test_side_nothing_is_reported_and_the_model_is_kept(task, cache, tmp_path):
    done = p2w.finetune(task, out=tmp_path / "run", cache=cache, **SMALL)
    assert done.test == {}
    assert (len(done.result["train_cases"]), len(done.result["validation_cases"])) == (18, 6)
    assert (tmp_path / "run" / "weights" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "seeds must be 1 or more, got 0"),
        ({"side": "test"}, "has no test cases by the split of Classification"),
        ({"cases": 3, "fraction": 0.5}, "either fraction or cases"),
    ],
)
def test_what_can_not_be_probed_is_told(task, cache, settings, message):
    given = {"init": "scratch", "network": p2w.UNet3D(size="tiny"), "cache": cache, "progress": False}
    with pytest.raises(Parts2WholeError, match=message):
        p2w.probe(task, **given | settings)


def test_the_curve_begins_with_the_model_before_the_first_step(task, cache, tmp_path):
    p2w.finetune(task, out=tmp_path / "run", seed=3, cache=cache, **SMALL | {"steps": 3}, validate_every=2)
    run = read_run(tmp_path / "run")
    metrics = [name for name in run.metrics("validation") if run.series("validation", name)]
    assert {tuple(step for step, _ in run.series("validation", name)) for name in metrics} == {(0, 2, 3)}
    transfer = open_transfer(
        task, "scratch", network=SMALL["network"], reported=(), accept_leak=None, cache=cache, progress=False
    )
    module, _ = transfer.build_model(decoder="fresh", match_scale=False, seed=3)
    predictor = as_function(module.eval(), Runtime(EXACT))
    with torch.no_grad():
        untrained = task.examine(predictor, transfer.labelled, transfer.split.validation, thorough=False)
    found = {name: run.series("validation", name)[0][1] for name in metrics}
    assert found
    assert found == pytest.approx({name: untrained.metrics[name] for name in found})
    drawn = comparison_charts([run])
    assert [series.points[0][0] for chart in drawn for series in chart.series] == [0]


def test_from_scratch_has_the_network_of_what_it_is_compared_with(task, cache, tmp_path):
    network = p2w.UNet3D(size="tiny", norm="group")
    given = {"cache": cache, "cases": 4} | SMALL | {"network": None}
    first = p2w.finetune(task, out=tmp_path / "first", **given | {"network": network})
    like = p2w.finetune(task, out=tmp_path / "like", network_from=tmp_path / "first", **given)
    assert first.result["network"] == like.result["network"] == network.to_dict()
    other = p2w.finetune(task, out=tmp_path / "other", seed=0, **given | {"network": p2w.UNet3D(size="tiny")})
    assert other.result["network"] != network.to_dict()
    rows = p2w.probe(
        task, init="scratch", network_from=tmp_path / "first", cache=cache, cases=4, seeds=1, progress=False
    ).rows
    same = p2w.probe(
        task, init="scratch", network=network, cache=cache, cases=4, seeds=1, progress=False
    ).rows
    assert rows == same


def numbered(path: Path, labels: dict[str, list[int]]) -> Classification:
    """Volumes of noise with these classes, by side."""
    arrays = {}
    for seed, (side, classes) in enumerate(labels.items()):
        images = np.random.default_rng(seed).integers(0, 256, (len(classes), 8, 8, 8))
        arrays |= {f"{side}_images": images.astype(np.uint8), f"{side}_labels": np.array(classes)[:, None]}
    np.savez(path, **arrays)
    return Classification(path, patch_size=(8, 8, 8))


def test_the_table_says_that_networks_differ(cache, tmp_path):
    """Two arms by hand: what a small one from scratch and a tiny one pre-trained were, without a word."""
    task = numbered(tmp_path / "set.npz", {"train": [0, 1] * 4, "val": [0, 1] * 2, "test": [0, 1] * 3})
    given = {"cache": cache, "cases": 4, "seed": 0} | SMALL
    p2w.finetune(task, out=tmp_path / "runs" / "a", **given)
    other = {"network": p2w.UNet3D(size="small"), "steps": 1}
    p2w.finetune(task, out=tmp_path / "runs" / "b", **given | other)
    result = tmp_path / "runs" / "b" / "result.json"
    plain = json.loads(result.read_text()) | {"init": "runs/ours", "method": p2w.Parts2Whole().to_dict()}
    result.write_text(json.dumps(plain))
    notes = p2w.compare([tmp_path / "runs"]).table.notes
    (said,) = (note for note in notes if "more than their start" in note)
    assert "network.size (scratch tiny; Parts2Whole small)" in said
    assert "steps (scratch 2; Parts2Whole 1)" in said
    for alike in ("test cases", "training cases", "data", "optimiser", "code", "batch_size"):
        assert alike not in said


def test_runs_without_a_test_side_are_not_said_to_be_missing(task, cache, tmp_path):
    p2w.finetune(task, out=tmp_path / "run", cache=cache, **SMALL)
    with pytest.raises(CompareError, match=r"finished runs in .* have no test figures"):
        p2w.compare([tmp_path])


def test_a_probe_that_nothing_can_be_chosen_for_takes_the_strongest_penalty(tmp_path, cache, capsys):
    task = numbered(tmp_path / "set.npz", {"train": [0, 1] * 5, "val": [0] * 4, "test": [0, 1] * 3})
    network = p2w.UNet3D(size="tiny", norm="group")
    found = p2w.probe(task, init="scratch", network=network, cache=cache, seeds=1, side="test")
    assert [row["penalty"] for row in found.rows if "penalty" in row] == [0.01]
    assert "the strongest penalty is taken" in capsys.readouterr().out
