"""The five target tasks on phantoms, by the command line: phantom, fine-tune from scratch, evaluate, predict.

    python benchmarks/five_tasks.py --out runs/five [--cases 12] [--size small] [--steps 300]

Shows that every task runs from its challenge's format to predictions, and is learnt: the last column is
what a model that learnt nothing gets.  Phantoms are easy; the numbers say nothing about real scans.  Finished
parts are never run again.  Writes ``five_tasks.md`` into the out folder.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from parts2whole.cli import main


@dataclass(frozen=True)
class Arm:
    """One task: where its phantoms are, what to predict for, its metric and what needs no learning."""

    task: str
    data: str
    metric: str
    chance: str
    patch: str
    predict: str
    more: tuple[str, ...] = ()


WIDE = ("--task.window-size", "[48,96,96]")
"""Fewer windows for whole volumes at inference."""

ARMS = (
    Arm(
        "NoduleFalsePositives", "LUNA16", "auc", "0.5", "[16,32,32]", "subset7/*.mhd", ("--task.hidden", "64")
    ),
    Arm("NoduleSegmentation", "LIDC-IDRI", "iou_nodule", "0", "[16,32,32]", "*"),
    Arm("LiverSegmentation", "LiTS", "iou_1", "0", "[16,32,32]", "volume-0.nii*", WIDE),
    Arm(
        "EmbolismFalsePositives",
        "CAD-PE",
        "auc",
        "0.5",
        "[32,32,32]",
        "images/CT001.nrrd",
        ("--task.hidden", "64"),
    ),
    Arm("BrainTumourSegmentation", "BraTS2018", "iou_whole_tumour", "0", "[16,32,32]", "*/*_1", ()),
)


def run(arguments: list[str]) -> None:
    """Run a command, and stop if it fails."""
    if main(arguments):
        raise SystemExit(f"failed: parts2whole {' '.join(arguments)}")


def run_arm(arm: Arm, data: Path, out: Path, steps: int) -> dict[str, float]:
    """Fine-tune, evaluate and predict; returns the test metrics."""
    folder = out / arm.task
    common = ["--hardware.precision", "32-true", "--progress", "false"]
    cache = ["--cache", str(out / "cache")]
    if not (folder / "result.json").exists():
        settings = [
            "--network",
            "UNet3D",
            "--network.size",
            "tiny",
            "--steps",
            str(steps),
            "--batch-size",
            "8",
        ]
        settings += ["--task.patch-size", arm.patch, "--validate-every", str(max(1, steps // 3)), *arm.more]
        target = ["--task", arm.task, "--data", str(data / arm.data), "--out", str(folder)]
        run(["finetune", *target, *settings, *cache, *common, "--resume", "auto"])
    run(["evaluate", str(folder), *cache, *common])
    if not (folder / "predictions").exists():
        scans = [str(path) for path in sorted((data / arm.data).glob(arm.predict))[:1]]
        points = data / arm.data / "candidates_V2.csv"
        chosen = ["--points", str(points)] if points.exists() else []
        run(["predict", str(folder), *scans, "--out", str(folder / "predictions"), *chosen, *common])
    metrics: dict[str, float] = json.loads((folder / "result.json").read_text())["test"]
    return metrics


def write_table(out: Path, found: dict[str, dict[str, float]], command: str) -> None:
    """Write the page."""
    lines = [
        "# Five tasks on phantoms, from scratch",
        "",
        f"{date.today()}, {platform.machine()}: `{command}`",
        "",
    ]
    lines += [
        "| task | metric | value | mean IoU over thresholds | without learning |",
        "|---|---|---|---|---|",
    ]
    for arm in ARMS:
        metrics = found[arm.task]
        other = (
            metrics.get(arm.metric.replace("iou_", "mean_iou_thresholds_", 1))
            if "iou" in arm.metric
            else None
        )
        shown = "" if other is None else f"{other:.3f}"
        lines.append(f"| {arm.task} | {arm.metric} | {metrics[arm.metric]:.3f} | {shown} | {arm.chance} |")
    beside = out / "five_tasks.part"
    beside.write_text("\n".join([*lines, ""]))
    beside.replace(out / "five_tasks.md")
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--size", choices=["tiny", "small", "full"], default="small")
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    phantoms = given.out / f"phantoms-{given.size}-{given.cases}"
    for arm in ARMS:
        if not (phantoms / arm.data).exists():
            made = ["--tasks", arm.task, "--cases", str(given.cases), "--size", given.size]
            run(["phantom", "--out", str(phantoms), *made, "--progress", "false"])
    results = {arm.task: run_arm(arm, phantoms, given.out, given.steps) for arm in ARMS}
    told = f"python benchmarks/five_tasks.py --cases {given.cases} --size {given.size} --steps {given.steps}"
    write_table(given.out, results, told)
