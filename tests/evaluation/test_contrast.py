from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parts2whole.evaluation.contrast import (
    ContrastError,
    alignment,
    contrast_monitors,
    effective_rank,
    info_nce,
    mean_distances,
    uniformity,
    which_whole_accuracy,
)


def embeddings(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def orthogonal_wholes(wholes: int, parts: int) -> np.ndarray:
    """Parts of one whole are equal, wholes are at right angles."""
    return np.repeat(np.eye(wholes)[:, None], parts, axis=1)


@given(
    st.integers(0, 1000),
    st.integers(1, 4),
    st.integers(2, 4),
    st.integers(1, 5),
    st.sampled_from([0.1, 0.5, 2.0]),
)
@settings(max_examples=30, deadline=None)
def test_info_nce_is_the_formula(
    seed: int, wholes: int, parts: int, features: int, temperature: float
) -> None:
    z = embeddings(seed, wholes, parts, features)
    u = z / np.sqrt((z**2).sum(axis=-1, keepdims=True))
    terms = []
    for i in range(wholes):
        for j in range(parts):
            others = [
                math.exp(u[i, j] @ u[m, n] / temperature)
                for m in range(wholes)
                for n in range(parts)
                if (m, n) != (i, j)
            ]
            for k in range(parts):
                if k != j:
                    terms.append(-math.log(math.exp(u[i, j] @ u[i, k] / temperature) / sum(others)))
    assert info_nce(z, temperature=temperature) == pytest.approx(np.mean(terms))


def test_info_nce_of_known_embeddings() -> None:
    assert info_nce(np.ones((4, 3, 7)), temperature=0.1) == pytest.approx(math.log(11))
    e = math.exp(1 / 0.5)
    # One other part at cosine 1, and the four parts of the two other wholes at cosine 0.
    assert info_nce(orthogonal_wholes(3, 2), temperature=0.5) == pytest.approx(-math.log(e / (e + 4)))
    assert info_nce(orthogonal_wholes(3, 2), temperature=0.01) == pytest.approx(0, abs=1e-12)


def test_info_nce_agrees_with_cross_entropy() -> None:
    z = embeddings(0, 6, 2, 8)
    u = torch.nn.functional.normalize(torch.from_numpy(z), dim=-1).reshape(12, 8)
    logits = (u @ u.T / 0.2).fill_diagonal_(-torch.inf)
    partner = torch.arange(12) ^ 1
    assert info_nce(z, temperature=0.2) == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, partner))
    )


@pytest.mark.parametrize("seed", range(3))
def test_alignment_uniformity_and_distances_pair_by_pair(seed: int) -> None:
    z = embeddings(seed, 3, 4, 5)
    u = (z / np.linalg.norm(z, axis=-1, keepdims=True)).reshape(12, 5)
    within, between = [], []
    for a in range(12):
        for b in range(12):
            if a != b:
                (within if a // 4 == b // 4 else between).append(np.linalg.norm(u[a] - u[b]))
    assert alignment(z) == pytest.approx(np.mean(np.square(within)))
    assert uniformity(z) == pytest.approx(np.log(np.mean(np.exp(-2 * np.square(within + between)))))
    assert mean_distances(z) == pytest.approx((np.mean(within), np.mean(between)))


def test_alignment_and_uniformity_of_known_embeddings() -> None:
    assert alignment(np.ones((2, 2, 3))) == pytest.approx(0)
    assert uniformity(np.ones((2, 2, 3))) == pytest.approx(0)
    opposite = np.array([[[1.0], [-1.0]]])
    assert alignment(opposite) == 4
    assert uniformity(opposite) == -8
    assert mean_distances(orthogonal_wholes(2, 2)) == pytest.approx((0, math.sqrt(2)))
    assert math.isnan(mean_distances(opposite)[1])


def test_which_whole() -> None:
    assert which_whole_accuracy(orthogonal_wholes(5, 3)) == 1
    assert which_whole_accuracy(np.ones((5, 3, 4))) == pytest.approx(2 / 14)
    # On a line of angles 0, 10, 11, 30: the nearest are 10 (same), 11 (other), 10 (other), 11 (same).
    angles = np.deg2rad([[0, 10], [11, 30]])
    assert which_whole_accuracy(np.stack([np.cos(angles), np.sin(angles)], axis=-1)) == 0.5
    random = which_whole_accuracy(embeddings(0, 60, 4, 16))
    assert random == pytest.approx(3 / 239, abs=0.03)


def test_effective_rank_of_known_embeddings() -> None:
    axes = np.stack([np.eye(6), -np.eye(6)], axis=1)
    assert effective_rank(axes) == pytest.approx(6)
    assert effective_rank(np.pad(axes, ((0, 0), (0, 0), (0, 9)))) == pytest.approx(6)
    assert effective_rank(orthogonal_wholes(6, 2)) == pytest.approx(5)  # the centre takes one
    assert effective_rank(np.ones((4, 3, 7))) == 0
    assert effective_rank(np.array([[[1.0, 0.0], [-1.0, 0.0]]])) == pytest.approx(1)


def test_effective_rank_is_the_entropy_of_singular_values() -> None:
    z = embeddings(0, 10, 3, 6) * [5, 3, 1, 1, 0.1, 0.1]
    u = (z / np.linalg.norm(z, axis=-1, keepdims=True)).reshape(30, 6)
    u = u - u.mean(axis=0)
    sigma = np.sqrt(np.linalg.eigvalsh(u.T @ u))
    p = sigma / sigma.sum()
    assert effective_rank(z) == pytest.approx(np.exp(-np.sum(p * np.log(p))))
    assert 2 < effective_rank(z) < 6


@given(st.integers(0, 1000), st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_turning_scaling_and_order_change_nothing(seed: int, scale: float) -> None:
    z = embeddings(seed, 4, 3, 5)
    generator = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(generator.normal(size=(5, 5)))
    moved = (z @ turn * scale)[generator.permutation(4)][:, generator.permutation(3)]
    assert contrast_monitors(moved) == pytest.approx(contrast_monitors(z))


def test_all_monitors_of_a_tensor() -> None:
    z = torch.randn(4, 3, 5, requires_grad=True)
    found = contrast_monitors(z, temperatures=(0.1, 0.5))
    assert set(found) == {
        "info_nce_0.1", "info_nce_0.5", "info_nce_chance", "alignment", "uniformity", "which_whole",
        "which_whole_chance", "effective_rank", "distance_within", "distance_between",
    }  # fmt: skip
    assert found == pytest.approx(contrast_monitors(z.detach().numpy()), rel=1e-5)
    assert contrast_monitors(z.bfloat16())["which_whole"] >= 0
    collapsed = contrast_monitors(np.ones((4, 3, 5)))
    assert collapsed["info_nce_0.1"] == pytest.approx(collapsed["info_nce_chance"])
    assert collapsed["which_whole"] == pytest.approx(collapsed["which_whole_chance"])


def test_what_can_not_be_compared_is_refused() -> None:
    for call, message in (
        (lambda: info_nce(np.ones((4, 5))), "2 or more parts"),
        (lambda: alignment(np.ones((4, 1, 5))), "2 or more parts"),
        (lambda: effective_rank(np.full((2, 2, 2), math.nan)), "finite"),
        (lambda: info_nce(np.ones((2, 2, 2)), temperature=0), "above 0"),
    ):
        with pytest.raises(ContrastError, match=message):
            call()
