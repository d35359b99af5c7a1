"""Metrics of segmentation (Dice, IoU, surface distances in mm) and of classification (AUC, precision, ...).

What is undefined is nan, and means leave nan out:

| masks of a class | Dice, IoU | surface Dice | HD95, ASSD |
|---|---|---|---|
| empty in prediction and reference | nan | nan | nan |
| empty in one of them | 0 | 0 | nan |

So a structure that was missed altogether shows in Dice, IoU and surface Dice, not in the distances:
read those beside the others. AUC and average precision are nan where only one class is present.

Finding nothing where there is nothing is thus left out of a mean, while false positives there count as 0: the
right answer never gives a lower mean than a wrong one.  nnU-Net v2 does the same (0 / 0 in its Dice, and the
mean of what isn't nan).  MONAI's `DiceMetric` leaves every case without reference out by default, whatever
was found there, and with ``ignore_empty=False`` counts an empty answer as 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from parts2whole.errors import Parts2WholeError
from parts2whole.evaluation.surface import Mask, surface_distances

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Of `mean_iou_thresholds`, as in the public code of Models Genesis (keras/utils.py)."""


class MetricError(Parts2WholeError, ValueError):
    """Predictions and references that don't belong together."""


def segmentation_metrics(
    prediction: npt.NDArray[Any],
    reference: npt.NDArray[Any],
    *,
    classes: Sequence[int],
    spacing_mm: tuple[float, float, float],
    surface: bool = True,
    tolerance_mm: float = 1.0,
) -> dict[str, float]:
    """Dice, IoU and surface distances of one case, by class and averaged over classes.

    The names are ``dice_1``, ``iou_1``, ``hd95_mm_1``, ``assd_mm_1``, ``surface_dice_1`` for class 1, and
    ``dice_mean`` and so on for the mean over the classes where the metric is defined. The table at the
    top of this module says what holds for empty masks.

    Args:
        prediction: class indices (z, y, x).
        reference: class indices (z, y, x).
        classes: foreground classes.
        spacing_mm: voxel spacing (z, y, x).
        surface: add the metrics of the surfaces, which take most of the time.
        tolerance_mm: of the surface Dice.

    Raises:
        MetricError: arrays on different grids or that aren't 3D, or a spacing that isn't positive.
    """
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise MetricError(
            f"prediction {prediction.shape} and reference {reference.shape} must be equal 3D grids (z, y, x)"
        )
    if not len(classes):
        raise MetricError("classes is empty: name at least one foreground class")
    if np.shape(spacing_mm) != (3,) or not all(math.isfinite(s) and s > 0 for s in spacing_mm):
        raise MetricError(f"spacing_mm must be three positive numbers (z, y, x), got {tuple(spacing_mm)}")
    found: dict[str, float] = {}
    for label in classes:
        p, r = prediction == label, reference == label
        found |= {f"dice_{label}": dice(p, r), f"iou_{label}": iou(p, r)}
        if surface:
            distances = surface_distances(p, r, spacing_mm)
            found[f"hd95_mm_{label}"] = distances.hd95_mm()
            found[f"assd_mm_{label}"] = distances.assd_mm()
            found[f"surface_dice_{label}"] = distances.surface_dice(tolerance_mm)
    names = ("dice", "iou", "hd95_mm", "assd_mm", "surface_dice") if surface else ("dice", "iou")
    return found | {
        f"{name}_mean": nanmean([found[f"{name}_{label}"] for label in classes]) for name in names
    }


def dice(prediction: Mask, reference: Mask) -> float:
    """2 |P and R| / (|P| + |R|); nan where both are empty."""
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else math.nan


def iou(prediction: Mask, reference: Mask) -> float:
    """|P and R| / |P or R|; nan where both are empty."""
    union = int((prediction | reference).sum())
    return int((prediction & reference).sum()) / union if union else math.nan


def mean_iou_thresholds(
    probability: npt.NDArray[Any], reference: npt.NDArray[Any], *, thresholds: Sequence[float] = THRESHOLDS
) -> float:
    """Mean over thresholds of the mean IoU of foreground and background, as this literature's tables use it.

    Background counts as a class, so the number is far higher than the foreground IoU for a small object:
    never compare the two.

    Args:
        probability: of foreground, any shape.
        reference: foreground where not 0, same shape.
        thresholds: foreground is predicted where the probability is above.

    Returns:
        The mean. A class in neither prediction nor reference is left out, as in TensorFlow's ``mean_iou``.

    Raises:
        MetricError: different shapes, or no voxels.
    """
    return mean_iou(threshold_confusions(probability, reference, thresholds=thresholds))


def threshold_confusions(
    probability: npt.NDArray[Any], reference: npt.NDArray[Any], *, thresholds: Sequence[float] = THRESHOLDS
) -> npt.NDArray[np.int64]:
    """Voxel counts (thresholds, reference, prediction), 0 background and 1 foreground.

    Their sum over cases is the confusion of the pooled voxels, so `mean_iou` of the sum is the pooled
    metric, and `mean_iou` of each the per-case one. Arguments and errors as of `mean_iou_thresholds`.
    """
    if probability.shape != reference.shape or not probability.size:
        raise MetricError(
            f"probability {probability.shape} and reference {reference.shape} must be equal, not empty grids"
        )
    if not np.issubdtype(probability.dtype, np.floating):
        probability = probability.astype(np.float32)
    truth = reference != 0
    counts = np.empty((len(thresholds), 2, 2), np.int64)
    for place, threshold in enumerate(thresholds):
        predicted = probability > probability.dtype.type(threshold)
        both, positive, true = (int(m.sum()) for m in (predicted & truth, predicted, truth))
        counts[place] = [[truth.size - positive - true + both, positive - both], [true - both, both]]
    return counts


def mean_iou(confusions: npt.NDArray[np.int64]) -> float:
    """Mean over thresholds of the mean over classes of IoU; classes that don't occur are left out.

    Args:
        confusions: counts (thresholds, classes of the reference, classes of the prediction).
    """
    hits = np.diagonal(confusions, axis1=1, axis2=2)
    union = confusions.sum(axis=1) + confusions.sum(axis=2) - hits
    return nanmean([nanmean(list(h[u > 0] / u[u > 0])) for h, u in zip(hits, union, strict=True)])


def classification_metrics(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any]) -> dict[str, float]:
    """AUC, average precision and balanced accuracy.

    For more than two classes AUC and average precision are one-vs-rest, by class (``auc_0``, ...) and as
    their mean over the classes present in ``labels``.

    Args:
        probabilities: (n, classes).
        labels: (n,) class indices.

    Raises:
        MetricError: shapes that don't fit, fewer than two columns, a label without a column, or
            probabilities that aren't finite.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or labels.shape != (len(probabilities),):
        raise MetricError(
            f"expected probabilities (n, 2 or more classes) and labels (n,), got {probabilities.shape} and "
            f"{labels.shape}"
        )
    if not len(labels) or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise MetricError(
            f"labels must be class indices from 0 to {probabilities.shape[1] - 1}, got {np.unique(labels)}"
        )
    if not np.isfinite(probabilities).all():
        row = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
        raise MetricError(f"probabilities of item {row} are not finite: {probabilities[row]}")
    accuracy = {"balanced_accuracy": balanced_accuracy(probabilities.argmax(axis=1), labels)}
    if probabilities.shape[1] == 2:
        score, positive = probabilities[:, 1], labels == 1
        return {
            "auc": auc(score, positive),
            "average_precision": average_precision(score, positive),
        } | accuracy
    sides = [(probabilities[:, c], labels == c) for c in range(probabilities.shape[1])]
    by_class = {
        "auc": [auc(*side) for side in sides],
        "average_precision": [average_precision(*s) for s in sides],
    }
    means = {name: nanmean(values) for name, values in by_class.items()}
    single = {f"{name}_{c}": value for name, values in by_class.items() for c, value in enumerate(values)}
    return means | accuracy | single


def auc(scores: npt.NDArray[Any], positive: npt.NDArray[Any]) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half.

    Args:
        scores: (n,), larger for positives.
        positive: (n,) booleans, or 0 and 1.

    Returns:
        The area; nan without a positive or without a negative.
    """
    return float(roc_auc_score(positive, scores)) if 0 < int(positive.sum()) < len(positive) else math.nan


def average_precision(scores: npt.NDArray[Any], positive: npt.NDArray[Any]) -> float:
    """Precision averaged over the recall it is reached at; arguments and nan as of `auc`.

    Chance level is the share of positives, so it compares only within one test set.
    """
    if not 0 < int(positive.sum()) < len(positive):
        return math.nan
    return float(average_precision_score(positive, scores))


def balanced_accuracy(predicted: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """Mean over the classes present in ``labels`` of the share of each that was predicted right."""
    return nanmean([float((predicted[labels == c] == c).mean()) for c in np.unique(labels)])


def mean_over_cases(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of every column of floats over cases, leaving out nan."""
    names = dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, float))
    return {name: nanmean([row[name] for row in rows if name in row]) for name in names}


def nanmean(values: Sequence[float]) -> float:
    """Mean of the values that aren't nan; nan if there is none."""
    kept = [value for value in values if not math.isnan(value)]
    return float(np.mean(kept)) if kept else math.nan
