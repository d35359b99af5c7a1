"""Pictures of a fine-tuned model's test cases: the worst, the median and the best."""

from __future__ import annotations

import math
from pathlib import Path

from parts2whole.report.figures import write_segmentation_panel
from parts2whole.scans.read import safe_name
from parts2whole.tasks.base import Examination, LabelledData, Predictor, Task


def draw_cases(
    folder: Path, task: Task, predictor: Predictor, labelled: LabelledData, examined: Examination
) -> None:
    """Pictures of the best, the median and the worst test case, where the task has pictures."""
    rows = [row for row in examined.per_item if math.isfinite(row.get(task.monitor, math.nan))]
    rows.sort(key=lambda row: float(row[task.monitor]))
    if not rows:
        return
    for which, row in (("worst", rows[0]), ("median", rows[len(rows) // 2]), ("best", rows[-1])):
        shown = task.show(predictor, labelled, row["case"])
        if shown is not None:
            write_segmentation_panel(
                folder / f"test-{which}-{safe_name(row['case'])}.png",
                shown.image,
                shown.reference,
                shown.prediction,
                spacing_mm=shown.spacing_mm,
                classes=labelled.classes,
                title=f"{which} test case: {row['case']}, {task.monitor} {row[task.monitor]:.3f}",
            )
