"""Settings of fine-tuning by name: as their sources have them, and less than what a person says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from parts2whole.cli import load, read
from parts2whole.command_line.commands import COMMANDS
from parts2whole.presets import PRESETS
from parts2whole.study.read import ArgumentsError, Reader, StudyError
from parts2whole.study.resolve import read_study
from parts2whole.training.optim import SGD, AdamW, Constant, Plateau, Sawtooth
from parts2whole.verbs.benchmark import study_verbs

ROOT = Path(__file__).parents[1]
PUBLISHED = {
    "openmind": {
        "optimiser": SGD(lr=0.001, momentum=0.99, weight_decay=0.00003),
        "schedule": Sawtooth(first_fraction=15 / 150, warmup_fraction=15 / 150, power=0.9),
        "clip_norm": 12,
    },
    "ulrich-2025": {
        "optimiser": SGD(lr=0.001, momentum=0.99, weight_decay=0.00003),
        "schedule": Sawtooth(first_fraction=0, warmup_fraction=50 / 1000, power=0.9),
        "clip_norm": 12,
    },
    "genesis": {
        "optimiser": AdamW(lr=0.001, weight_decay=0),
        "schedule": Plateau(decay=0.5, patience=6, min_delta=0.0001),
        "batch_size": 16,
        "clip_norm": None,
    },
    "monai": {
        "optimiser": AdamW(lr=0.0001, weight_decay=0.00001),
        "schedule": Constant(),
        "batch_size": 4,
        "clip_norm": None,
    },
}
"""As read in the sources that the presets name."""


def typed(line: str, command: str = "finetune") -> dict[str, Any]:
    return read(COMMANDS[command], load(COMMANDS[command]), line.split(), Reader())


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    (tmp_path / "labelled").mkdir()
    return tmp_path / "labelled"


def test_every_preset_has_a_published_counterpart() -> None:
    assert set(PRESETS) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_is_what_its_source_says(labelled: Path, name: str) -> None:
    line = f"--config preset:{name} --task Segmentation --data {labelled} --out run"
    found = typed(line)
    assert {key: found[key] for key in found if key not in ("task", "out")} == PUBLISHED[name]


def test_options_and_files_count_more_than_a_preset(labelled: Path) -> None:
    (labelled / "mine.yaml").write_text("clip_norm: 3\nbatch_size: 5\n")
    found = typed(
        f"--config preset:openmind --config {labelled}/mine.yaml --task Segmentation --data {labelled} "
        "--out run --optimiser.lr 0.01 --batch-size 6"
    )
    assert found["optimiser"] == SGD(lr=0.01, momentum=0.99, weight_decay=0.00003)
    assert (found["clip_norm"], found["batch_size"]) == (3, 6)
    other = typed(f"--config preset:openmind --task Segmentation --data {labelled} --out x --optimiser AdamW")
    assert other["optimiser"] == AdamW()


def test_a_preset_that_is_not_there_is_refused(labelled: Path) -> None:
    with pytest.raises(
        ArgumentsError, match=r"preset:opnmind: there is no preset 'opnmind'; choose from open"
    ):
        typed(f"--config preset:opnmind --task Segmentation --data {labelled} --out run")
    with pytest.raises(ArgumentsError, match="presets are settings of finetune"):
        typed(f"{labelled} --config preset:openmind --out run", "pretrain")


def study(folder: Path, finetune: dict[str, Any], arm: dict[str, Any] | None = None) -> dict[str, Any]:
    """Fine-tunings by their arms, of which one has settings of its own."""
    plain = {
        "arms": {
            "scratch": {"init": "scratch"},
            "other": {"init": "scratch", "finetune": arm or {"steps": 7}},
        },
        "network": {"UNet3D": {"size": "tiny"}},
        "tasks": {"Own": {"task": {"Segmentation": {"data": "labelled"}}}},
        "cases": [2],
        "seeds": 1,
        "finetune": finetune,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(plain))
    read = read_study(folder / "study.yaml", out=folder / "out", verbs=study_verbs())
    return {one.arm: one for one in read.finetunings}


def test_a_study_with_a_preset_is_the_study_that_spells_it_out(tmp_path: Path, labelled: Path) -> None:
    spelled = {
        "optimiser": {"SGD": {"lr": 0.001, "momentum": 0.99, "weight_decay": 0.00003}},
        "schedule": {"Sawtooth": {"first_fraction": 0.1, "warmup_fraction": 0.1}},
        "steps": 9,
        "clip_norm": 5.0,
    }
    named = study(tmp_path, {"preset": "openmind", "steps": 9, "clip_norm": 5.0})
    digests = {arm: one.digest for arm, one in study(tmp_path, spelled).items()}
    assert {arm: one.digest for arm, one in named.items()} == digests
    assert named["scratch"].settings["clip_norm"] == 5.0


def test_fields_beside_a_preset_change_the_preset(tmp_path: Path, labelled: Path) -> None:
    found = study(tmp_path, {"steps": 9}, {"preset": "monai", "optimiser": {"lr": 0.5}})
    own = found["other"].settings
    assert own["optimiser"] == AdamW(lr=0.5, weight_decay=0.00001)
    assert own["steps"] == 9
    assert "optimiser" not in found["scratch"].settings


def test_a_study_names_the_place_of_a_preset_that_is_not_there(tmp_path: Path, labelled: Path) -> None:
    with pytest.raises(StudyError, match=r"arms\.other\.finetune\.preset: there is no preset 'nnunet'"):
        study(tmp_path, {"steps": 9}, {"preset": "nnunet"})


def test_the_page_says_of_every_preset_what_is_whose() -> None:
    page = (ROOT / "docs/methods.md").read_text()
    for name, preset in PRESETS.items():
        assert f"| `preset:{name}` | {preset.source} | {preset.taken} | {preset.ours} |" in page
    assert "None of them is the paper's recipe" in page


def test_fields_alone_in_a_file_change_what_was_said_before_it(tmp_path: Path, labelled: Path) -> None:
    (labelled / "rate.yaml").write_text("optimiser: {lr: 0.02}\n")
    line = f"--config {labelled}/rate.yaml --task Segmentation --data {labelled} --out run"
    assert typed(f"--config preset:openmind {line}")["optimiser"] == SGD(
        lr=0.02, momentum=0.99, weight_decay=0.00003
    )
    assert typed(line)["optimiser"] == AdamW(lr=0.02)


def test_fields_alone_of_an_arm_change_those_of_the_study(tmp_path: Path, labelled: Path) -> None:
    found = study(tmp_path, {"preset": "openmind", "steps": 9}, {"optimiser": {"lr": 0.5}})
    assert found["other"].settings["optimiser"] == SGD(lr=0.5, momentum=0.99, weight_decay=0.00003)
