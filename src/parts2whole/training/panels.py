"""Pictures of a fine-tuned model's test cases: the worst, the median and the best, and one to be compared."""

from __future__ import annotations

import math
from pathlib import Path

from parts2whole.report.figures import write_segmentation_panel
from parts2whole.report.tables import metric_title
from parts2whole.scans.read import safe_name
from parts2whole.tasks.base import Examination, Predictor, Task
from parts2whole.tasks.labelled import LabelledData

TITLES = {
    "worst": "worst test case",
    "median": "median test case",
    "best": "best test case",
    "shared": "test case of this seed",
}


def draw_cases(
    folder: Path,
    task: Task,
    predictor: Predictor,
    labelled: LabelledData,
    examined: Examination,
    *,
    seed: int,
) -> None:
    """Pictures of the best, the median and the worst test case, where the task has pictures.

    A fourth one is chosen by the seed alone, so that runs of equal seed have kept a picture of the same case.
    """
    rows = [row for row in examined.per_item if math.isfinite(row.get(task.monitor, math.nan))]
    rows.sort(key=lambda row: float(row[task.monitor]))
    if not rows:
        return
    chosen = {"worst": rows[0], "median": rows[len(rows) // 2], "best": rows[-1]}
    names = sorted(row["case"] for row in examined.per_item)
    shared = [row for row in rows if row["case"] == names[seed % len(names)]]
    if shared and shared[0] not in chosen.values():
        chosen["shared"] = shared[0]
    for which, row in chosen.items():
        shown = task.show(predictor, labelled, row["case"])
        if shown is not None:
            write_segmentation_panel(
                folder / f"test-{which}-{safe_name(row['case'])}.png",
                shown.image,
                shown.reference,
                shown.prediction,
                spacing_mm=shown.spacing_mm,
                classes=labelled.classes,
                title=f"{TITLES[which]}: {row['case']}, {metric_title(task.monitor)} {row[task.monitor]:.3f}",
            )
