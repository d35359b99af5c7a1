"""How a segmented case is measured: classes or unions of classes, at 0.5 and over thresholds, pooled too.

For every region the per-case figures are Dice, foreground IoU and surface distances of the predicted mask,
and ``mean_iou_thresholds``: the two-class mean IoU over thresholds 0.5 to 0.95 that the tables of this
literature report (`parts2whole.evaluation.metrics.mean_iou_thresholds`).  The two are never comparable, so
both always stand side by side.  ``..._pooled`` counts the voxels of all cases together.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from parts2whole.evaluation.metrics import (
    THRESHOLDS,
    MetricError,
    mean_iou,
    nanmean,
    segmentation_metrics,
    threshold_confusions,
)
from parts2whole.scans.volume import Triple

Regions = Mapping[str, tuple[int, ...]]
"""Class indices that make up each region."""

IGNORED = -1
"""Class index of voxels that take part in nothing: no loss, no metric, no prediction."""

GRIDS = {
    "native": "on the voxels of the label files",
    "prepared": "on prepared voxels",
    "cubes": "in cubes around items, on prepared voxels",
}
"""What prediction and reference are compared on, in words."""

Row = dict[str, float]
_MEAN_OF = ("dice", "iou", "hd95_mm", "assd_mm", "surface_dice", "mean_iou_thresholds")


@dataclasses.dataclass
class RegionScores:
    """Scores cases one by one, and remembers the counts that pooled figures need."""

    regions: Regions

    def __post_init__(self) -> None:
        self.overlap = {name: np.zeros(3, np.int64) for name in self.regions}
        self.confusions: dict[str, npt.NDArray[np.int64]] = {}

    def score(
        self,
        prediction: npt.NDArray[np.int64],
        reference: npt.NDArray[np.int64],
        share: Callable[[tuple[int, ...]], npt.NDArray[np.float32]] | None,
        *,
        spacing_mm: Triple,
        surface: bool,
    ) -> Row:
        """Figures of one case.

        Args:
            prediction: class indices (z, y, x).
            reference: class indices (z, y, x); voxels that are `IGNORED` count as background of both in
                distances, and not at all elsewhere.
            share: the probability (z, y, x) of being one of some classes; None leaves the figures over
                thresholds out.
            spacing_mm: voxel spacing (z, y, x).
            surface: add distances between surfaces.
        """
        row: Row = {}
        counted = reference != IGNORED
        prediction = np.where(counted, prediction, 0)
        for name, classes in self.regions.items():
            predicted, truth = np.isin(prediction, classes), np.isin(reference, classes)
            found = segmentation_metrics(
                predicted.astype(np.uint8),
                truth.astype(np.uint8),
                classes=(1,),
                spacing_mm=spacing_mm,
                surface=surface,
            )
            row |= {key[:-1] + name: value for key, value in found.items() if key.endswith("_1")}
            self.overlap[name] += [int(m.sum()) for m in (predicted & truth, predicted, truth)]
            if share is not None:
                counts = np.zeros((len(THRESHOLDS), 2, 2), np.int64)
                if counted.any():
                    counts += threshold_confusions(share(classes)[counted], truth[counted])
                self.confusions[name] = self.confusions.get(name, np.zeros_like(counts)) + counts
                row[f"mean_iou_thresholds_{name}"] = mean_iou(counts)
        return row | _means(row, list(self.regions))

    def pooled(self) -> Row:
        """Figures over the voxels of all cases scored so far."""
        row: Row = {}
        for name, (both, predicted, truth) in self.overlap.items():
            union, total = predicted + truth - both, predicted + truth
            row[f"dice_{name}_pooled"] = 2 * both / total if total else math.nan
            row[f"iou_{name}_pooled"] = both / union if union else math.nan
            if name in self.confusions:
                row[f"mean_iou_thresholds_{name}_pooled"] = mean_iou(self.confusions[name])
        return {key: float(value) for key, value in row.items()}


def class_regions(classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Every foreground class as a region of its own, called by its name.

    Raises:
        MetricError: as `metric_names`.
    """
    return {name: (index,) for index, name in metric_names(classes).items()}


def metric_names(classes: Sequence[str]) -> dict[int, str]:
    """The `metric_name` of every foreground class, by its index.

    Raises:
        MetricError: two classes would have one column.
    """
    names: dict[str, int] = {}
    for index, name in enumerate(classes[1:], start=1):
        first = names.setdefault(metric_name(name), index)
        if first != index:
            raise MetricError(f"the classes {classes[first]!r} and {name!r} are alike in tables: rename one")
    return {index: name for name, index in names.items()}


def metric_name(name: str) -> str:
    """A class's name as the end of a metric's: ``dice_left_kidney``; never that of the mean over classes."""
    plain = re.sub(r"\W+", "_", name).strip("_") or "class"
    return f"class_{plain}" if plain == "mean" or plain.endswith("_pooled") else plain


def _means(row: Row, regions: Sequence[str]) -> Row:
    """The mean over regions of every figure."""
    return {
        f"{kind}_mean": nanmean([row[f"{kind}_{name}"] for name in regions])
        for kind in _MEAN_OF
        if f"{kind}_{regions[0]}" in row
    }
