"""Retrieval: which whole is nearest to a part, and are parts nearest to the whole they were cut from?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.evaluation.contrast import TIE, ContrastError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def nearest_wholes(parts: Array, wholes: Array, *, k: int = 5) -> npt.NDArray[np.int64]:
    """Places of the ``k`` wholes nearest to every part by cosine, nearest first.

    Args:
        parts: (n, features) embeddings of parts.
        wholes: (m, features) embeddings of wholes.
        k: how many; at most m are given.

    Returns:
        (n, min(k, m)).

    Raises:
        ContrastError: embeddings that can't be compared.
    """
    return np.argsort(-cosines(parts, wholes), axis=1, kind="stable")[:, :k]


def retrieval_scores(parts: Array, wholes: Array, *, top: int = 5) -> dict[str, float]:
    """How often a part finds the whole it was cut from, among all of them.

    Args:
        parts: (wholes, parts of each whole, features).
        wholes: (wholes, features), in the same order.
        top: how many answers count in the second score.

    Returns:
        ``retrieval_top1``, ``retrieval_top5`` (or other ``top``), ``retrieval_mrr`` (mean of 1 / rank of the
        right one), and ``retrieval_chance``, the first for embeddings that say nothing.

    Raises:
        ContrastError: embeddings that can't be compared.
    """
    if parts.ndim != 3 or len(parts) != len(wholes):
        raise ContrastError(f"expected (wholes, parts, features) and as many wholes, got {parts.shape}")
    cosine = cosines(parts.reshape(-1, parts.shape[-1]), wholes)
    right = np.repeat(np.arange(len(parts)), parts.shape[1])
    own = cosine[np.arange(len(right)), right][:, None]
    better, equal = (cosine > own + TIE).sum(axis=1), (np.abs(cosine - own) <= TIE).sum(axis=1)
    # Of equally near wholes each may come first: the expected score, not an accident of order.
    first = np.where(better == 0, 1 / equal, 0.0)
    among = np.clip((top - better) / equal, 0, 1)
    reciprocal = [np.mean(1 / np.arange(b + 1, b + e + 1)) for b, e in zip(better, equal, strict=True)]
    return {
        "retrieval_top1": float(first.mean()),
        f"retrieval_top{top}": float(among.mean()),
        "retrieval_mrr": float(np.mean(reciprocal)),
        "retrieval_chance": 1 / len(wholes),
    }


def cosines(parts: Array, wholes: Array) -> Floats:
    """(n, m) cosines of (n, features) with (m, features).

    Raises:
        ContrastError: embeddings that can't be compared.
    """
    if parts.ndim != 2 or wholes.ndim != 2 or parts.shape[1] != wholes.shape[1] or not len(wholes):
        raise ContrastError(f"expected (n, features) and (m, features), got {parts.shape} and {wholes.shape}")
    if not (np.isfinite(parts).all() and np.isfinite(wholes).all()):
        raise ContrastError("embeddings hold values that aren't finite")
    units = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (parts, wholes)]
    found: Floats = units[0].astype(np.float64) @ units[1].astype(np.float64).T
    return found
