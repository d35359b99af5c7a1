"""Metrics of segmentation (Dice, IoU, surface distances in mm) and classification (AUC, precision, ...)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

Mask = npt.NDArray[np.bool_]


def segmentation_metrics(
    prediction: npt.NDArray[Any],
    reference: npt.NDArray[Any],
    *,
    classes: Sequence[int],
    spacing_mm: tuple[float, float, float],
    surface: bool = True,
) -> dict[str, float]:
    """Dice, IoU and surface distances of one case, by class and averaged over classes.

    Conventions: a class in neither mask gives nan, and means leave it out; a class in one mask only gives
    Dice and IoU 0 and an undefined (nan) surface distance.

    Args:
        prediction: class indices (z, y, x).
        reference: class indices (z, y, x).
        classes: foreground classes.
        spacing_mm: voxel spacing (z, y, x).
        surface: add the 95th percentile and the mean of the symmetric surface distances.
    """
    found: dict[str, float] = {}
    for label in classes:
        p, r = prediction == label, reference == label
        found |= {f"dice_{label}": dice(p, r), f"iou_{label}": iou(p, r)}
        if surface:
            distances = surface_distances(p, r, spacing_mm)
            empty = not len(distances)
            found[f"hd95_mm_{label}"] = float("nan") if empty else float(np.percentile(distances, 95))
            found[f"assd_mm_{label}"] = float("nan") if empty else float(distances.mean())
    names = ("dice", "iou", "hd95_mm", "assd_mm") if surface else ("dice", "iou")
    return found | {f"{name}_mean": _nanmean([found[f"{name}_{label}"] for label in classes]) for name in names}


def dice(prediction: Mask, reference: Mask) -> float:
    """2 |P and R| / (|P| + |R|); nan where both are empty."""
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else float("nan")


def iou(prediction: Mask, reference: Mask) -> float:
    """|P and R| / |P or R|; nan where both are empty."""
    union = int((prediction | reference).sum())
    return int((prediction & reference).sum()) / union if union else float("nan")


def surface_distances(
    prediction: Mask, reference: Mask, spacing_mm: tuple[float, float, float]
) -> npt.NDArray[np.float64]:
    """Distances in mm from every surface voxel of each mask to the other's surface; empty if a mask is."""
    if not (prediction.any() and reference.any()):
        return np.empty(0)
    edges = [_surface(prediction), _surface(reference)]
    away = [ndimage.distance_transform_edt(~edge, sampling=spacing_mm) for edge in edges]
    return np.concatenate([away[1][edges[0]], away[0][edges[1]]])


def classification_metrics(
    probabilities: npt.NDArray[Any], labels: npt.NDArray[Any]
) -> dict[str, float]:
    """AUC, average precision and balanced accuracy; means over one-vs-rest for more than two classes.

    Args:
        probabilities: (n, classes).
        labels: (n,) class indices; with one class only, AUC and average precision are nan.
    """
    present = np.unique(labels)
    if len(present) < 2:
        auc = precision = float("nan")
    elif probabilities.shape[1] == 2:
        auc = float(roc_auc_score(labels, probabilities[:, 1]))
        precision = float(average_precision_score(labels, probabilities[:, 1]))
    else:
        auc = _nanmean([float(roc_auc_score(labels == c, probabilities[:, c])) for c in present])
        precision = _nanmean([float(average_precision_score(labels == c, probabilities[:, c])) for c in present])
    accuracy = float(balanced_accuracy_score(labels, probabilities.argmax(axis=1)))
    return {"auc": auc, "average_precision": precision, "balanced_accuracy": accuracy}


def mean_over_cases(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of every numeric column over cases, leaving out nan."""
    names = dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, float))
    return {name: _nanmean([row[name] for row in rows if name in row]) for name in names}


def _surface(mask: Mask) -> Mask:
    inner: Mask = mask & ~ndimage.binary_erosion(mask)
    return inner


def _nanmean(values: Sequence[float]) -> float:
    kept = [value for value in values if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")
