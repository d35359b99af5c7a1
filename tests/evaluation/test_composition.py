"""Composition of embeddings that compose perfectly, not at all, say nothing, or were worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parts2whole.evaluation.composition import composition_scores
from parts2whole.evaluation.contrast import ContrastError

QUESTIONS = ("place", "part", "sum", "rest")


def test_wholes_that_are_the_mean_of_their_parts_compose() -> None:
    parts = np.random.default_rng(0).normal(size=(6, 8, 32))
    found = composition_scores(parts.mean(axis=1), parts, parts + 0.01)
    assert [found[f"{name}_top1"] for name in QUESTIONS] == [1, 1, 1, 1]
    assert found["sum_cosine"] == pytest.approx(1)
    assert found["rest_cosine"] == pytest.approx(1)  # what is left of a whole is the part itself
    assert abs(found["rest_cosine_others"]) < 0.1
    assert [found[f"{name}_chance"] for name in QUESTIONS] == pytest.approx([1 / 8, 1 / 48, 1 / 6, 1 / 6])


def test_equal_embeddings_give_chance() -> None:
    found = composition_scores(np.ones((5, 7)), np.ones((5, 8, 7)), np.ones((5, 8, 7)))
    for name in QUESTIONS:
        assert found[f"{name}_top1"] == pytest.approx(found[f"{name}_chance"])
    assert found["rest_cosine"] == found["rest_cosine_others"] == pytest.approx(1)


def test_unrelated_embeddings_are_near_chance() -> None:
    """What is asked with never holds the answer: parts of one whole alone tell nothing of the one left out."""
    generator = np.random.default_rng(1)
    parts, moved = generator.normal(size=(2, 64, 8, 16))
    found = composition_scores(generator.normal(size=(64, 16)), parts, moved)
    for name, tries in zip(QUESTIONS, (512, 512, 64, 512), strict=True):
        chance = found[f"{name}_chance"]
        assert abs(found[f"{name}_top1"] - chance) < 3.5 * math.sqrt(chance * (1 - chance) / tries), name


def test_by_hand() -> None:
    wholes = np.array([[1.0, 0.0], [0.0, 1.0]])
    parts = np.array([[[0.0, 1.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 3.0]]])
    moved = np.stack([parts[0], parts[1, ::-1]])
    found = composition_scores(wholes, parts, moved)
    # Moved parts of the first whole can't be told apart: half right. Those of the second are each other's.
    assert found["place_top1"] == pytest.approx((0.5 + 0.5 + 0 + 0) / 4)
    # Among all, three parts lie the same way.
    assert found["part_top1"] == pytest.approx((1 / 3 + 1 / 3 + 0 + 0) / 4)
    # Sums are (0, 3), which is nearer to the other whole, and (1, 3), which is nearer to its own.
    assert found["sum_top1"] == pytest.approx(1 / 2)
    assert found["sum_cosine"] == pytest.approx((0 + 3 / math.sqrt(10)) / 2)
    assert found["sum_cosine_others"] == pytest.approx((1 + 1 / math.sqrt(10)) / 2)
    # First places: (2, -2) is nearer to (1, 0) than to its own (0, 1); (0, -1) is nearer to its own (1, 0).
    # Second places: (0, 2) and (0, 3) lie the same way.
    assert found["rest_top1"] == pytest.approx((0 + 1 + 0.5 + 0.5) / 4)


def test_embeddings_that_do_not_fit_are_refused() -> None:
    parts = np.ones((3, 8, 5))
    for wholes, moved in ((np.ones((2, 5)), parts), (np.ones((3, 5)), parts[:, :4])):
        with pytest.raises(ContrastError, match="expected"):
            composition_scores(wholes, parts, moved)
    with pytest.raises(ContrastError, match="finite"):
        composition_scores(np.full((3, 5), math.inf), parts, parts)
