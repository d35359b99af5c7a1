"""What a study's encoders show without fine-tuning: linear probes of their frozen voxel features, arm by arm.

    python benchmarks/probe_study.py RECIPE --out runs/STUDY [--write docs/probes.md]

``--out`` is the folder of the finished study; its pre-trainings are probed on the test side of its first
task, at its smallest label count, with its seeds.  Rows go into ``probes/`` there, and what is in it isn't
measured again.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine

import parts2whole as p2w
from parts2whole.evaluation.statistics import compare, format_p, holm
from parts2whole.files import write_text
from parts2whole.study.resolve import read_study
from parts2whole.verbs.benchmark import study_verbs

METRIC = "iou_mean"
UNTRAINED = "untrained"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished study")
    parser.add_argument("--against", help="the arm that others are compared with; default the first")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    study = read_study(chosen.recipe, out=chosen.out, verbs=study_verbs())
    first = study.finetunings[0]
    cases = min(f.labels["cases"] for f in study.finetunings if f.labels.get("cases"))
    seeds = 1 + max(f.seed for f in study.finetunings)
    found: dict[str, list[float]] = {}
    trained = chosen.out.glob("pretraining/*/cell.json")
    arms = {json.loads(path.read_text())["arm"]: path.parent for path in trained}
    for arm in (arm for arm in study.arms if arm in arms):
        folder = arms[arm]
        kept = chosen.out / "probes" / f"{folder.name}.json"
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            settings: dict[str, Any] = {"cases": cases, "seeds": seeds, "side": "test", "out": kept}
            p2w.probe(study.tasks[first.task], init=folder, progress=False, **settings)
            print(f"{arm}: measured", flush=True)
        rows = json.loads(kept.read_text())
        found[arm] = [100 * row[METRIC] for row in rows if row["encoder"] != UNTRAINED]
        fresh = next(100 * row[METRIC] for row in rows if row["encoder"] == UNTRAINED)
    lines = table(found, chosen.against or next(iter(found)), fresh)
    print("\n".join(lines))
    if chosen.write:
        chosen.write.parent.mkdir(exist_ok=True)
        command = f"{chosen.recipe} --out runs/{chosen.out.name} --write {chosen.write}"
        head = [
            f"# Frozen probes: {study.name}",
            "",
            "A linear classifier of voxels on the frozen, upsampled feature maps of every encoder of",
            f"`{chosen.recipe}`: {first.task}, {cases} labelled cases, {seeds} seeds (each labels others,",
            "alike in every arm), mean IoU on the test side. Its penalty is chosen on validation cases.",
            "",
            f"Written by `python benchmarks/probe_study.py {command}` on {datetime.now(UTC):%Y-%m-%d}; "
            f"{describe_machine()}",
            "",
        ]
        write_text(chosen.write, "\n".join([*head, *lines]) + "\n")


def table(found: dict[str, list[float]], against: str, fresh: float) -> list[str]:
    """Mean and deviation of every arm, and its difference to one of them, paired by seed."""
    lines = [
        f"| arm | IoU, % | minus {against} | test | every seed |",
        "|---|---|---|---|---|",
    ]
    others = [arm for arm in found if arm != against]
    tests = {arm: compare(found[arm], found[against], alternative="two-sided") for arm in others}
    corrected = dict(zip(others, holm([test.p for test in tests.values()]), strict=True))
    for arm, values in found.items():
        spread = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
        difference, p = "", ""
        if test := tests.get(arm):
            difference, p = f"{test.difference:+.2f}", format_p(corrected[arm])
        lines.append(f"| {arm} | {spread} | {difference} | {p} | {', '.join(f'{v:.1f}' for v in values)} |")
    lines += [
        "",
        f"The same network untrained, first seed alone: {fresh:.2f}. Paired t-tests, two-sided, Holm over",
        "the arms; seeds are choices of labelled cases from one set and share the test patients.",
    ]
    return lines


if __name__ == "__main__":
    main()
