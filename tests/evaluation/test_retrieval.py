"""Retrieval scores and projections on embeddings whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from parts2whole.evaluation.contrast import ContrastError
from parts2whole.evaluation.projections import project
from parts2whole.evaluation.retrieval import nearest_wholes, retrieval_scores


def test_a_part_finds_its_whole() -> None:
    wholes = np.eye(4)
    parts = np.stack([wholes + 0.1, wholes * 3], axis=1)
    found = retrieval_scores(parts, wholes, top=2)
    expected = {"retrieval_top1": 1.0, "retrieval_top2": 1.0, "retrieval_mrr": 1.0, "retrieval_chance": 0.25}
    assert found == pytest.approx(expected)


def test_ranks_by_hand() -> None:
    # Angles to the three wholes: the part of whole 0 is nearest to 1, then 0; that of 1 right; that of 2 last.
    wholes = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    parts = np.array([[0.9, 0.4], [0.8, 0.6], [1.0, -0.1]])
    assert nearest_wholes(parts, wholes, k=3).tolist() == [[1, 0, 2], [1, 0, 2], [0, 1, 2]]
    found = retrieval_scores(parts[:, None], wholes, top=2)
    assert found["retrieval_top1"] == pytest.approx(1 / 3)
    assert found["retrieval_top2"] == pytest.approx(2 / 3)
    assert found["retrieval_mrr"] == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)


def test_equal_embeddings_give_chance() -> None:
    found = retrieval_scores(np.ones((5, 3, 7)), np.ones((5, 7)), top=2)
    assert found["retrieval_top1"] == pytest.approx(1 / 5)
    assert found["retrieval_top2"] == pytest.approx(2 / 5)
    assert found["retrieval_mrr"] == pytest.approx(sum(1 / r for r in range(1, 6)) / 5)


def test_embeddings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ContrastError, match="as many wholes"):
        retrieval_scores(np.ones((5, 3, 7)), np.ones((4, 7)))
    with pytest.raises(ContrastError, match="aren't finite"):
        nearest_wholes(np.full((2, 3), np.nan), np.ones((2, 3)))


def test_projections_keep_groups_apart_and_are_the_same_twice() -> None:
    generator = np.random.default_rng(0)
    centres = np.repeat(np.eye(3), 8, axis=0)
    features = centres + generator.normal(0, 0.02, centres.shape)
    first, second = project(features, seed=1), project(features, seed=1)
    assert {"t-SNE", "PCA"} <= set(first)
    for name, points in first.items():
        assert points.shape == (24, 2)
        np.testing.assert_array_equal(points, second[name])
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
        np.fill_diagonal(apart, np.inf)
        assert (apart.argmin(axis=1) // 8 == np.arange(24) // 8).all(), name
