from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_iou
from scipy.special import softmax
from sklearn.metrics import f1_score, jaccard_score

from parts2whole.evaluation.metrics import MetricError
from parts2whole.evaluation.regions import RegionScores, class_regions


def case(seed: int, shape=(5, 6, 7), classes: int = 4):
    generator = np.random.default_rng(seed)
    reference = generator.integers(0, classes, shape)
    logits = generator.normal(0, 1, (classes, *shape)) + 1.5 * np.eye(classes)[reference].transpose(
        3, 0, 1, 2
    )
    return softmax(logits, axis=0).astype(np.float32), reference


def test_the_two_ious_stand_side_by_side_and_pool_by_voxels():
    scores = RegionScores(class_regions("01"))
    cases = [case(0, classes=2), case(1, (3, 3, 3), classes=2)]
    rows = [
        scores.score(
            p.argmax(axis=0), r, lambda c, p=p: p[list(c)].sum(axis=0), spacing_mm=(1, 1, 1), surface=False
        )
        for p, r in cases
    ]
    for row, (p, r) in zip(rows, cases, strict=True):
        foreground = p.argmax(axis=0) == 1
        assert row["iou_1"] == pytest.approx(jaccard_score(r.ravel(), foreground.ravel()))
        pair = [torch.from_numpy((m == 1)[None, None].astype(np.float32)) for m in (p.argmax(axis=0), r)]
        assert row["iou_1"] == pytest.approx(float(compute_iou(*pair)))
        thresholds = [
            jaccard_score(r.ravel(), (p[1] > np.float32(t)).ravel(), average="macro")
            for t in np.arange(0.5, 1.0, 0.05)
        ]
        assert row["mean_iou_thresholds_1"] == pytest.approx(np.mean(thresholds), abs=1e-6)
    truth, predicted = (
        np.concatenate([a.ravel() for a in each])
        for each in ([r for _, r in cases], [p.argmax(axis=0) for p, _ in cases])
    )
    pooled = scores.pooled()
    assert pooled["iou_1_pooled"] == pytest.approx(jaccard_score(truth, predicted))
    assert pooled["dice_1_pooled"] == pytest.approx(f1_score(truth, predicted))
    foreground = np.concatenate([p[1].ravel() for p, _ in cases])
    expected = [
        jaccard_score(truth, foreground > np.float32(t), average="macro") for t in np.arange(0.5, 1.0, 0.05)
    ]
    assert pooled["mean_iou_thresholds_1_pooled"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_regions_are_unions_of_classes():
    p, r = case(2)
    regions = {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    row = RegionScores(regions).score(p.argmax(axis=0), r, None, spacing_mm=(1, 1, 1), surface=False)
    for name, members in regions.items():
        expected = jaccard_score(np.isin(r, members).ravel(), np.isin(p.argmax(axis=0), members).ravel())
        assert row[f"iou_{name}"] == pytest.approx(expected)
    assert row["iou_mean"] == pytest.approx(np.mean([row[f"iou_{name}"] for name in regions]))


def test_hausdorff_distance_against_monai():
    a, b = np.zeros((12, 12, 12), int), np.zeros((12, 12, 12), int)
    a[2:7, 3:8, 3:9] = 1
    b[3:9, 3:8, 2:9] = 1
    row = RegionScores(class_regions("01")).score(a, b, None, spacing_mm=(2.0, 1.0, 1.0), surface=True)
    pair = [torch.from_numpy(m[None, None].astype(np.float32)) for m in (a, b)]
    expected = compute_hausdorff_distance(*pair, percentile=95, spacing=[2.0, 1.0, 1.0])
    assert row["hd95_mm_1"] == pytest.approx(float(expected), abs=0.3)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("background", "Parotid-L", "Parotid_L"), "'Parotid-L' and 'Parotid_L' are alike in tables: rename one"),
        (("background", "GTV+", "node", "GTV-"), "'GTV+' and 'GTV-' are alike"),
        (("background", "mean", "class_mean"), "'mean' and 'class_mean' are alike"),
        (("background", "liver", "liver"), "'liver' and 'liver' are alike"),
    ],
)  # fmt: skip
def test_classes_that_would_share_a_column_are_refused(classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(MetricError, match=re.escape(said)):
        class_regions(classes)


def test_names_that_differ_in_anything_shown_are_columns_of_their_own() -> None:
    assert len(class_regions(("liver", "Liver", "liver", "left kidney", "left_kidney_2"))) == 4
