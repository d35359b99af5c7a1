from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from parts2whole.evaluation.froc import FALSE_POSITIVES_PER_SCAN, FrocError, froc


def by_the_challenges_script(scores, hits, irrelevant, lesions, scans):
    """The steps of the public evaluation: one entry a lesion (-1 where missed) and one a false positive,
    scikit-learn's ROC over them, rescaled, and the curve read at the seven rates."""
    truth, values = [], []
    names = {name for each in hits for name in each}
    for name in sorted(names):
        truth.append(1)
        values.append(max(s for s, each in zip(scores, hits, strict=True) if name in each))
    for score, each, left_out in zip(scores, hits, irrelevant, strict=True):
        if not each and not left_out:
            truth.append(0)
            values.append(score)
    fpr, tpr, _ = roc_curve(truth, values)
    false = fpr * truth.count(0) / scans
    found = tpr * len(names) / lesions
    return [float(np.interp(rate, false, found)) for rate in FALSE_POSITIVES_PER_SCAN]


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_as_the_challenges_evaluation_computes_it(seed):
    generator = np.random.default_rng(seed)
    n, lesions, scans = (
        int(generator.integers(6, 60)),
        int(generator.integers(2, 8)),
        int(generator.integers(1, 6)),
    )
    scores = generator.integers(1, 15, n) / 15  # ties happen
    hits = [tuple(f"n{i}" for i in range(lesions) if generator.random() < 0.12) for _ in range(n)]
    irrelevant = (generator.random(n) < 0.1).tolist()
    hits[0], hits[1], irrelevant[1] = ("n0",), (), False
    found = froc(scores, hits, irrelevant=irrelevant, lesions=lesions, scans=scans).metrics()
    expected = by_the_challenges_script(scores, hits, irrelevant, lesions, scans)
    assert list(found.values())[:7] == pytest.approx(expected)
    assert found["cpm"] == pytest.approx(np.mean(expected))


def test_by_hand():
    # Two scans, three lesions, one of which no candidate hits. Lesion a has two candidates: the better
    # counts, the other is no false positive. The candidate at 0.8 is on an irrelevant finding.
    curve = froc(
        [0.9, 0.5, 0.8, 0.7, 0.6, 0.4],
        [("a",), ("a",), (), (), ("b",), ()],
        irrelevant=[False, False, True, False, False, False],
        lesions=3,
        scans=2,
    )
    assert curve.false_positives.tolist() == [0, 0, 0.5, 0.5, 1.0]
    assert curve.sensitivity.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert curve.at(0.25) == pytest.approx(1 / 3)
    assert curve.at(0.75) == curve.at(8) == pytest.approx(2 / 3)


def test_perfect_and_without_lesions():
    assert froc([0.9, 0.1], [("a",), ()], irrelevant=[False] * 2, lesions=1, scans=1).metrics()["cpm"] == 1
    nothing = froc([0.9, 0.1], [(), ()], irrelevant=[False] * 2, lesions=0, scans=1)
    assert math.isnan(nothing.metrics()["cpm"])


def test_what_does_not_fit_is_refused():
    with pytest.raises(FrocError, match="must be as many"):
        froc([0.1], [(), ()], irrelevant=[False], lesions=1, scans=1)
    with pytest.raises(FrocError, match="only 1"):
        froc([0.1, 0.2], [("a",), ("b",)], irrelevant=[False] * 2, lesions=1, scans=1)
    with pytest.raises(FrocError, match="finite"):
        froc([math.nan], [()], irrelevant=[False], lesions=1, scans=1)
