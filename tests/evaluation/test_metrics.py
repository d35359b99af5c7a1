from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_dice, compute_iou
from sklearn.metrics import balanced_accuracy_score, f1_score, jaccard_score, precision_recall_curve

from parts2whole.evaluation.metrics import (
    THRESHOLDS,
    MetricError,
    auc,
    average_precision,
    balanced_accuracy,
    classification_metrics,
    dice,
    iou,
    mean_iou,
    mean_iou_thresholds,
    mean_over_cases,
    segmentation_metrics,
    threshold_confusions,
)

MASKS = hnp.arrays(bool, (3, 4, 5))
nan = pytest.approx(math.nan, nan_ok=True)


@given(MASKS, MASKS)
@settings(max_examples=30, deadline=None)
def test_overlap_against_scikit_learn_and_monai(p: np.ndarray, r: np.ndarray) -> None:
    if not (p.any() or r.any()):
        assert dice(p, r) == nan
        assert iou(p, r) == nan
        return
    assert dice(p, r) == pytest.approx(f1_score(r.ravel(), p.ravel()))
    assert iou(p, r) == pytest.approx(jaccard_score(r.ravel(), p.ravel()))
    pair = [torch.from_numpy(m.astype(np.float32))[None, None] for m in (p, r)]
    if r.any():  # where the reference is empty MONAI gives nan, this package 0
        assert dice(p, r) == pytest.approx(float(compute_dice(*pair)))
        assert iou(p, r) == pytest.approx(float(compute_iou(*pair)))


@given(MASKS, MASKS)
@settings(max_examples=30, deadline=None)
def test_properties_of_overlap(p: np.ndarray, r: np.ndarray) -> None:
    d, i = dice(p, r), iou(p, r)
    assert d == pytest.approx(dice(r, p), nan_ok=True)
    assert d == pytest.approx(2 * i / (1 + i), nan_ok=True)
    if p.any():
        assert dice(p, p) == iou(p, p) == 1
        assert 0 <= i <= d <= 1
        assert dice(p, ~p) == 0


def test_metrics_of_a_case_by_hand() -> None:
    reference = np.zeros((4, 6, 6), int)
    reference[1:3, 1:3, 1:5] = 1  # 16 voxels
    reference[3, 5, 5] = 2
    prediction = np.zeros_like(reference)
    prediction[1:3, 1:4, 1:5] = 1  # 24, 16 of them right, one layer along y too many
    found = segmentation_metrics(prediction, reference, classes=(1, 2, 3), spacing_mm=(1.0, 2.0, 1.0))
    assert found["dice_1"] == pytest.approx(32 / 40)
    assert found["iou_1"] == pytest.approx(16 / 24)
    assert found["hd95_mm_1"] == pytest.approx(2)
    # The prediction's 24 surface voxels: 8 one layer (2 mm) off. The reference's 16: all on the surface
    # of the prediction, as both masks are two voxels thick along z.
    assert found["assd_mm_1"] == pytest.approx((8 * 2 + 16 * 0 + 16 * 0) / 40)
    assert found["surface_dice_1"] == pytest.approx(32 / 40)
    assert (found["dice_2"], found["iou_2"], found["surface_dice_2"]) == (0, 0, 0)
    assert found["hd95_mm_2"] == nan
    assert all(found[f"{name}_3"] == nan for name in ("dice", "iou", "hd95_mm", "assd_mm", "surface_dice"))
    assert found["dice_mean"] == pytest.approx((0.8 + 0) / 2)
    assert found["hd95_mm_mean"] == pytest.approx(2)
    quick = segmentation_metrics(prediction, reference, classes=(1, 2), spacing_mm=(1, 2, 1), surface=False)
    assert set(quick) == {"dice_1", "iou_1", "dice_2", "iou_2", "dice_mean", "iou_mean"}
    wide = segmentation_metrics(prediction, reference, classes=(1,), spacing_mm=(1, 2, 1), tolerance_mm=2)
    assert wide["surface_dice_1"] == 1


def test_mean_iou_over_thresholds_as_in_the_public_code() -> None:
    # The original: tf.metrics.mean_iou(y, p > t, 2) for t = .5, .55 ... .95, averaged.
    generator = np.random.default_rng(0)
    probability = generator.random((4, 5, 6)).astype(np.float32)
    reference = (generator.random((4, 5, 6)) < 0.3).astype(int)
    expected = [
        jaccard_score(reference.ravel(), (probability > np.float32(t)).ravel(), average="macro")
        for t in np.arange(0.5, 1.0, 0.05)
    ]
    assert len(THRESHOLDS) == len(expected) == 10
    assert mean_iou_thresholds(probability, reference) == pytest.approx(np.mean(expected))


def test_mean_iou_pooled_and_by_case() -> None:
    generator = np.random.default_rng(1)
    cases = [(generator.random((3, 3, n)), generator.random((3, 3, n)) < 0.4) for n in (4, 9)]
    pooled = mean_iou(sum(threshold_confusions(*case) for case in cases))
    joined = [np.concatenate([case[side].ravel() for case in cases]) for side in (0, 1)]
    assert pooled == pytest.approx(mean_iou_thresholds(*joined))
    assert pooled != pytest.approx(np.mean([mean_iou_thresholds(*case) for case in cases]))


def test_mean_iou_counts_background_and_leaves_out_what_is_absent() -> None:
    truth = np.zeros((2, 5, 10), bool)
    truth[0, 0] = True  # 10 of 100 voxels
    assert mean_iou_thresholds(np.zeros(truth.shape), truth) == pytest.approx((0 + 0.9) / 2)
    assert mean_iou_thresholds(truth.astype(float), truth) == 1
    assert mean_iou_thresholds(truth, truth) == 1
    assert mean_iou_thresholds(np.zeros(truth.shape), np.zeros(truth.shape)) == 1
    halfway = truth * 0.7  # above the thresholds 0.5 to 0.65 only
    assert mean_iou_thresholds(halfway, truth) == pytest.approx((4 * 1 + 6 * 0.45) / 10)


@given(st.integers(0, 10_000), st.integers(2, 30))
@settings(max_examples=30, deadline=None)
def test_auc_is_the_share_of_pairs_in_order(seed: int, n: int) -> None:
    generator = np.random.default_rng(seed)
    scores, positive = generator.integers(0, 6, n) / 5, generator.random(n) < 0.4
    pairs = [(s > t) + (s == t) / 2 for s in scores[positive] for t in scores[~positive]]
    assert auc(scores, positive) == (pytest.approx(np.mean(pairs)) if pairs else nan)
    assert auc(-scores, positive) == pytest.approx(1 - auc(scores, positive), nan_ok=True)


@given(st.integers(0, 10_000), st.integers(2, 30))
@settings(max_examples=30, deadline=None)
def test_average_precision_is_the_sum_over_recall_steps(seed: int, n: int) -> None:
    generator = np.random.default_rng(seed)
    scores, positive = generator.integers(0, 6, n) / 5, generator.random(n) < 0.4
    if not 0 < positive.sum() < n:
        assert average_precision(scores, positive) == nan
        return
    steps, recalled = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        found = scores >= threshold
        recall = positive[found].sum() / positive.sum()
        steps += (recall - recalled) * positive[found].mean()
        recalled = recall
    assert average_precision(scores, positive) == pytest.approx(steps)
    precision, recall, _ = precision_recall_curve(positive, scores)
    assert steps == pytest.approx(-np.sum(np.diff(recall) * precision[:-1]))


def test_balanced_accuracy_against_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 4, 50), generator.integers(0, 4, 50)
    assert balanced_accuracy(predicted, labels) == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert balanced_accuracy(np.array([0, 5, 1]), np.array([0, 0, 1])) == pytest.approx(0.75)


def test_two_classes() -> None:
    p = np.array([0.1, 0.4, 0.35, 0.8])
    found = classification_metrics(np.stack([1 - p, p], axis=1), np.array([0, 0, 1, 1]))
    assert found == {
        "auc": pytest.approx(0.75),
        "average_precision": pytest.approx(0.5 * 1 + 0.5 * 2 / 3),
        "balanced_accuracy": pytest.approx(0.75),
    }


def test_more_classes_are_one_against_the_rest() -> None:
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet(np.ones(4), 60), generator.integers(0, 3, 60)
    found = classification_metrics(probabilities, labels)
    each = [auc(probabilities[:, c], labels == c) for c in range(3)]
    assert [found[f"auc_{c}"] for c in range(3)] == each
    assert found["auc"] == pytest.approx(np.mean(each))
    assert found["auc_3"] == nan
    assert found["average_precision_3"] == nan


def test_one_class_only() -> None:
    found = classification_metrics(np.array([[0.2, 0.8], [0.7, 0.3]]), np.array([1, 1]))
    assert found["auc"] == nan
    assert found["average_precision"] == nan
    assert found["balanced_accuracy"] == 0.5


def test_means_over_cases_leave_out_what_is_undefined() -> None:
    rows = [
        {"case": "a", "dice": 0.5, "hd": math.nan},
        {"case": "b", "dice": 1.0, "hd": 3.0},
        {"case": "c", "dice": 0.0},
    ]
    assert mean_over_cases(rows) == {"dice": 0.5, "hd": 3.0}
    assert mean_over_cases([{"hd": math.nan}]) == {"hd": nan}
    assert mean_over_cases([]) == {}


def test_what_does_not_belong_together_is_refused() -> None:
    grid = np.zeros((2, 2, 2), int)
    half = np.full((3, 2), 0.5)
    for call, message in (
        (lambda: segmentation_metrics(grid, grid[1:], classes=(1,), spacing_mm=(1, 1, 1)), "equal 3D grids"),
        (lambda: segmentation_metrics(grid, grid, classes=(), spacing_mm=(1, 1, 1)), "at least one"),
        (lambda: segmentation_metrics(grid, grid, classes=(1,), spacing_mm=(1, 0, 1)), "positive"),
        (lambda: mean_iou_thresholds(grid, grid[1:]), "equal"),
        (lambda: classification_metrics(half[:, :1], np.zeros(3, int)), "2 or more classes"),
        (lambda: classification_metrics(half, np.zeros(2, int)), "2 or more classes"),
        (lambda: classification_metrics(half, np.array([0, 1, 2])), "from 0 to 1"),
        (lambda: classification_metrics(half * math.nan, np.array([0, 1, 1])), "item 0"),
    ):
        with pytest.raises(MetricError, match=message):
            call()
