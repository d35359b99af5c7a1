"""Small synthetic run folders, in the format that training writes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from parts2whole.report.figures import write_panel
from parts2whole.report.runs import Panel, write_volumes

METHOD = {
    "class_path": "parts2whole.methods.parts2whole.Parts2Whole",
    "init_args": {"part_fraction": [0.4, 0.7], "per_axis": True, "parts_per_whole": 1, "skips": False},
}
NETWORK = {"class_path": "parts2whole.networks.unet3d.UNet3D", "init_args": {"size": "tiny"}}
TASK = {
    "class_path": "parts2whole.tasks.segmentation.Segmentation",
    "init_args": {"data": "data/hippocampus"},
}
ENVIRONMENT = {
    "python": "3.11.9",
    "processor": "x86_64",
    "cpu_count": 2,
    "packages": {"parts2whole": "0.1.0", "torch": "2.13.0"},
}

MakeRun = Callable[..., Path]


MakePanel = Callable[..., Panel]


def _panel(n: int = 2, *, names: tuple[str, ...] = ("case_a", "case_b"), seed: int = 0) -> Panel:
    """Views of 4 x 6 x 5 voxels: every slice of the whole is different."""
    generator = np.random.default_rng(seed)
    whole = generator.uniform(size=(n, 4, 6, 5)).astype(np.float32)
    part = generator.uniform(size=whole.shape).astype(np.float32)
    boxes = np.tile(np.array([[1, 3], [1, 4], [0, 3]], np.float32), (n, 1, 1))
    return Panel(part, 0.5 * whole + 0.25, whole, (3.0, 1.0, 1.0), names, boxes)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


@pytest.fixture
def panel() -> MakePanel:
    """Makes views of a pretext task."""
    return _panel


@pytest.fixture
def pretrained() -> MakeRun:
    """Makes a pre-training run; the validation loss ends at ``loss``."""

    def make(
        folder: Path,
        *,
        loss: float = 0.01,
        finished: bool = True,
        panel: bool = True,
        method: Any = METHOD,
        **changes: Any,
    ) -> Path:
        folder.mkdir(parents=True)
        config = {"method": method, "network": NETWORK, "steps": 200, "batch_size": 8, "seed": 0}
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"whole_size": [4, 6, 5]}))
        write_json(folder / "environment.json", ENVIRONMENT)
        baselines = {"baseline_mean_whole": 0.03, "baseline_stretched_part": 0.02}
        lines = []
        for step in range(20, 201, 20):
            now = loss + 0.05 * (1 - step / 200)
            record = {"step": step, "time_s": step / 10, "split": "train"}
            lines.append(record | {"loss": now, "lr": 1e-3, "samples_per_s": 20.0})
            if step % 40 == 0:
                lines.append(record | {"split": "validation", "loss": now, **baselines})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        result = {"kind": "pretrain", "method": method, "network": NETWORK, "steps": 200, **baselines}
        result |= {"validation_loss": loss, "collapsed": loss >= 0.02, "duration_s": 20.0}
        if finished:
            cases = {"train_cases": 162, "validation_cases": 18}
            write_json(folder / "result.json", result | cases | changes)
        if panel:
            views = _panel()
            write_volumes(folder, views)
            write_panel(folder / "panels" / "step-000200.png", views)
        return folder

    return make


@pytest.fixture
def finetuned() -> MakeRun:
    """Makes a finished fine-tuning run with mean test Dice ``dice``."""

    def make(
        folder: Path,
        *,
        dice: float = 0.8,
        init: str = "scratch",
        seed: int = 0,
        cases: int | None = 5,
        names: tuple[str, ...] = ("case_1", "case_2", "case_3"),
        **changes: Any,
    ) -> Path:
        folder.mkdir(parents=True)
        share: dict[str, Any] = {"fraction": 1.0, "cases": cases}
        config = {"task": TASK, "init": init, "seed": seed, "steps": 100, **share}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        write_json(folder / "environment.json", ENVIRONMENT)
        lines = [
            {"step": step, "time_s": step / 5, "split": split, "loss": 1 - step / 200}
            | ({"dice_mean": dice * step / 100} if split == "validation" else {"lr": 1e-3})
            for step in (25, 50, 75, 100)
            for split in ("train", "validation")
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rows = [(name, dice + shift) for name, shift in zip(names, (-0.1, 0.0, 0.1), strict=True)]
        with (folder / "test_cases.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["case", "dice_mean", "surface_distance_1"])
            writer.writerows([name, value, ""] for name, value in rows)
        result = {
            "kind": "finetune",
            "task": TASK,
            "init": init,
            "fraction": 1.0 if cases is None else None,
            "seed": seed,
            "train_cases": [f"t{i}" for i in range(cases or 7)],
            "validation_cases": ["v0"],
            "test_cases": list(names),
            "validation": {"dice_mean": dice},
            "test": {"iou_mean": dice - 0.1, "dice_mean": dice, "surface_distance_mean": 2 - dice},
            "steps": 100,
            "best_step": 75,
            "duration_s": 20.0,
        }
        write_json(folder / "result.json", result | changes)
        return folder

    return make


@pytest.fixture
def comparison(tmp_path: Path, pretrained: MakeRun, finetuned: MakeRun) -> Path:
    """A folder with one pre-training run, and fine-tuning from it and from scratch with three seeds each."""
    root = tmp_path / "runs"
    pretrained(root / "pretrain")
    for seed, noise in enumerate((0.0, 0.01, 0.03)):
        for cases, gain in ((5, 0.08), (10, 0.002)):
            finetuned(root / f"scratch-{cases}-{seed}", dice=0.7 + noise, seed=seed, cases=cases)
            finetuned(
                root / f"p2w-{cases}-{seed}",
                dice=0.7 + noise * (1.1 if cases == 5 else 0.5) + gain,
                seed=seed,
                cases=cases,
                init=str(root / "pretrain"),
            )
    return root
