"""Figures for a terminal: a class a line, called by its name."""

from __future__ import annotations

import math

from parts2whole.evaluation.regions import RegionScores, class_regions
from parts2whole.report.by_class import list_figures

METRICS = {
    "dice_left_kidney": 0.91234,
    "hd95_mm_left_kidney": 3.456,
    "dice_mean": 0.5,
    "hd95_mm_mean": math.nan,
    "dice_left_kidney_pooled": 0.9,
    "volume_error": 0.25,
}


def test_classes_have_lines_and_kinds_have_columns():
    head, kidney, mean, other = list_figures(METRICS, ["background", "left kidney"])
    assert head.split() == ["Dice", "HD95", "mm"]
    assert kidney.split() == ["left", "kidney", "0.9123", "3.46"]
    assert mean.split() == ["mean", "0.5000", "–"]
    assert other.split() == ["volume", "error", "0.2500"]


def test_every_figure_of_a_thorough_examination_fits_a_terminal():
    classes = ["background", "a name that is longer than any column of it", "b"]
    names = list(class_regions(classes))
    kinds = ("dice", "iou", "hd95_mm", "assd_mm", "surface_dice", "mean_iou_thresholds")
    metrics = {f"{kind}_{name}": 100.0 for name in [*names, "mean"] for kind in kinds}
    lines = list_figures(metrics | {f"dice_{name}_pooled": 1.0 for name in names}, classes)
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    assert set(RegionScores(class_regions(classes)).pooled()) == {
        f"{k}_{n}_pooled" for n in names for k in kinds[:2]
    }


def test_figures_of_a_classification_carry_the_names_of_its_classes():
    lines = list_figures({"auc": 0.75, "auc_2": 0.5, "average_precision": None}, ["a", "b", "adenoma"])
    assert [line.split() for line in lines] == [
        ["AUC", "0.7500"],
        ["AUC", "adenoma", "0.5000"],
        ["average", "precision", "–"],
    ]
