"""What sets the arms of a row apart beside their start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from parts2whole.report.alike import Alike, read_settings
from parts2whole.report.runs import read_run

MakeRun = Callable[..., Path]


def settings_of(folder: Path, config: dict[str, Any] | None = None, **environment: Any) -> dict[str, str]:
    """Settings of a run whose configuration and environment are changed."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | (config or {})))
    path = folder / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | environment))
    return read_settings(read_run(folder))


def spec(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": arguments}


def test_settings_are_called_as_on_the_command_line(tmp_path: Path, finetuned: MakeRun) -> None:
    config = {
        "optimiser": spec("AdamW", lr=0.001, weight_decay=1e-5),
        "batch_size": 2,
        "clip_norm": None,
        "network": spec("parts2whole.networks.unet3d.UNet3D", size="small", widths=[8, 16]),
        "hardware": spec("Hardware", devices=2),
        "out": "runs/a",
    }
    found = settings_of(
        finetuned(tmp_path / "a", data_fingerprint="0123456789abcdef"),
        config,
        commit="1234567890abcdef1234567890abcdef12345678+changes",
        precision="32-true",
    )
    expected = {
        "task": "Segmentation",
        "steps": "100",
        "batch_size": "2",
        "clip_norm": "none",
        "optimiser": "AdamW",
        "optimiser.lr": "0.001",
        "optimiser.weight_decay": "1e-05",
        "network": "UNet3D",
        "network.size": "small",
        "network.widths": "[8, 16]",
        "data": "01234567",
        "code": "1234567890+changes",
        "precision": "32-true",
    }
    assert {key: found[key] for key in expected} == expected
    assert set(found) - set(expected) == {"training cases", "validation cases", "test cases"}


def test_the_network_is_found_wherever_it_is_written(tmp_path: Path, finetuned: MakeRun) -> None:
    tiny = spec("UNet3D", size="tiny")
    said = finetuned(tmp_path / "said", network=tiny)
    assert read_settings(read_run(said))["network.size"] == "tiny"
    model = finetuned(tmp_path / "model")
    (model / "weights").mkdir()
    (model / "weights" / "model.json").write_text(json.dumps({"network": tiny}))
    assert read_settings(read_run(model))["network.size"] == "tiny"
    start = tmp_path / "pretrained" / "weights"
    start.mkdir(parents=True)
    (start / "card.json").write_text(json.dumps({"network": tiny}))
    begun = finetuned(tmp_path / "begun", init="pretrained")
    assert read_settings(read_run(begun))["network.size"] == "tiny"
    assert read_settings(read_run(finetuned(tmp_path / "nowhere")))["network"] == "unknown"


def told(*runs: tuple[str, int, dict[str, str]], row: str = "row") -> list[str]:
    alike = Alike()
    for arm, seed, settings in runs:
        alike.add(row, arm, seed, settings)
    return alike.describe({row: "Liver, 10 %"}, ["a", "b", "c"])


def test_equal_arms_are_passed_over_and_others_named() -> None:
    same = {"steps": "100", "network": "UNet3D"}
    assert told(("a", 0, same), ("b", 0, same)) == []
    other = same | {"steps": "200", "network": "ResNet3D"}
    assert told(("a", 0, same), ("b", 0, other), ("c", 0, same)) == [
        "Arms differ in more than their start: steps (a 100; b 200; c 100), "
        "network (a UNet3D; b ResNet3D; c UNet3D)."
    ]


def test_what_changes_with_the_seed_in_every_arm_alike_is_no_difference() -> None:
    runs = [(arm, seed, {"code": f"v{seed}"}) for arm in "ab" for seed in range(3)]
    assert told(*runs) == []
    assert told(*runs[:-1], ("b", 2, {"code": "v1"})) == [
        "Arms differ in more than their start: code (a v0 or v1 or v2; b v0 or v1)."
    ]


@pytest.mark.parametrize(("name", "differs"), [("training cases", False), ("test cases", True)])
def test_arms_of_other_seeds_have_other_labelled_cases_but_no_other_test(name: str, differs: bool) -> None:
    assert bool(told(("a", 0, {name: "#1"}), ("b", 1, {name: "#2"}))) == differs


def test_a_setting_that_one_arm_does_not_have_is_not_compared() -> None:
    assert (
        told(("a", 0, {"optimiser": "SGD", "optimiser.momentum": "0.9"}), ("b", 0, {"optimiser": "SGD"}))
        == []
    )


def test_splits_and_data_are_compared(tmp_path: Path, finetuned: MakeRun) -> None:
    first = read_settings(read_run(finetuned(tmp_path / "a", data_fingerprint="aaaa")))
    again = read_settings(read_run(finetuned(tmp_path / "b", data_fingerprint="aaaa")))
    other = read_settings(
        read_run(finetuned(tmp_path / "c", data_fingerprint="bbbb", test_cases=["x"], train_cases=["y"]))
    )
    assert told(("a", 0, first), ("b", 0, again)) == []
    (sentence,) = told(("a", 0, first), ("b", 0, other))
    for name in ("training cases (a #", "test cases (a #", "data (a aaaa; b bbbb)"):
        assert name in sentence
    assert "validation cases" not in sentence


def test_labels_that_were_corrected_and_scans_that_were_added_between_runs_are_told(
    tmp_path: Path, finetuned: MakeRun
) -> None:
    def settings(name: str, labels: str, scans: str) -> dict[str, str]:
        about = {"labels_fingerprint": labels, "pretrained_on": scans}
        return read_settings(read_run(finetuned(tmp_path / name, **about)))

    before, after = settings("a", "1" * 32, "3" * 32), settings("b", "2" * 32, "4" * 32)
    unknown = settings("c", "", "")  # of a run that was made before this was kept
    (sentence,) = told(("a", 0, before), ("b", 0, after))
    assert "labels (a 11111111; b 22222222)" in sentence
    assert "scans of the pre-training (a 33333333; b 44444444)" in sentence
    assert told(("a", 0, before), ("c", 0, unknown)) == []
