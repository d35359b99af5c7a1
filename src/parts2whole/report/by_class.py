"""Figures of a segmentation by class: a table for a terminal, with the classes by their names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from parts2whole.evaluation.regions import metric_name
from parts2whole.report.tables import metric_title

COLUMNS = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95_mm": "HD95 mm",
    "assd_mm": "ASSD mm",
    "surface_dice": "surface",
    "mean_iou_thresholds": "mean IoU",
}
"""Kinds of figures that every class has, and the heads of their columns."""
NAMED, NUMBER = 22, 8


def list_figures(metrics: Mapping[str, float | None], classes: Sequence[str]) -> list[str]:
    """The figures of some cases in lines, those of a segmentation a class a line.

    What the voxels of all cases pooled give is left to the files.

    Args:
        metrics: by name, such as ``dice_liver``; None or nan where undefined.
        classes: names of the classes, which metrics are called after.
    """
    names = {metric_name(name): name for name in classes}
    regions = [key.removeprefix("dice_") for key in metrics if key.startswith("dice_")]
    regions = [region for region in regions if not region.endswith("_pooled")]
    if not regions:
        return [f"  {_title(key, classes):<{NAMED}} {_number(value, 4)}" for key, value in metrics.items()]
    columns = [kind for kind in COLUMNS if any(f"{kind}_{region}" in metrics for region in regions)]
    shown = {region: _cut(names.get(region, region.replace("_", " "))) for region in regions}
    width = max(map(len, shown.values()))
    lines = ["  " + " " * width + "".join(f"{COLUMNS[kind]:>{NUMBER + 1}}" for kind in columns)]
    for region, name in shown.items():
        row = (_number(metrics.get(f"{kind}_{region}"), 2 if "_mm" in kind else 4) for kind in columns)
        lines.append(f"  {name:<{width}}" + "".join(f"{number:>{NUMBER + 1}}" for number in row))
    listed = {f"{kind}_{region}" for kind in COLUMNS for region in regions}
    others = {k: v for k, v in metrics.items() if k not in listed and not k.endswith("_pooled")}
    return [*lines, *(f"  {metric_title(key)} {_number(value, 4)}" for key, value in others.items())]


def _title(metric: str, classes: Sequence[str]) -> str:
    """A metric in words; one of several classes that ends in its number, such as ``auc_2``, with its name."""
    kind, _, number = metric.rpartition("_")
    ours = len(classes) > 2 and number.isdecimal() and int(number) < len(classes)
    return f"{metric_title(kind)} {classes[int(number)]}" if ours else metric_title(metric)


def _cut(name: str) -> str:
    return name if len(name) <= NAMED else f"{name[: NAMED - 1]}…"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
