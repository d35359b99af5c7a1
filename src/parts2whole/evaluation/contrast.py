"""How embeddings of parts lie: do parts of one whole come together, apart from those of other wholes?

Nothing here is trained on; it monitors what a pretext task brings about on its own. Every function takes
embeddings z of parts, (wholes, parts of each whole, features), as NumPy array or tensor, and scales each
to unit length first. All raise `ContrastError` for anything else, or values that aren't finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from parts2whole.errors import Parts2WholeError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
TIE = 1e-9  # cosines closer than this are equal but for rounding


class ContrastError(Parts2WholeError, ValueError):
    """Embeddings that can't be compared."""


def contrast_monitors(z: Array | Tensor, *, temperatures: Sequence[float] = (0.1, 0.5)) -> dict[str, float]:
    """All monitors of embeddings (wholes, parts, features), and the values that mean nothing was learned.

    ``info_nce_0.1`` (one a temperature) and ``info_nce_chance``, ``alignment``, ``uniformity``,
    ``which_whole`` and ``which_whole_chance``, ``effective_rank``, and the mean distances
    ``distance_within`` and ``distance_between`` wholes.
    """
    wholes, parts, _ = _embeddings(z).shape
    others = wholes * parts - 1
    within, between = mean_distances(z)
    return {f"info_nce_{t:g}": info_nce(z, temperature=t) for t in temperatures} | {
        "info_nce_chance": math.log(others),
        "alignment": alignment(z),
        "uniformity": uniformity(z),
        "which_whole": which_whole_accuracy(z),
        "which_whole_chance": (parts - 1) / others,
        "effective_rank": effective_rank(z),
        "distance_within": within,
        "distance_between": between,
    }


def name_both(of_map: Mapping[str, float], of_average: Mapping[str, float]) -> dict[str, float]:
    """Figures of bottleneck maps, named ``map_...``, and of their averages; those by chance are the same."""
    named = {f"map_{key}": value for key, value in of_map.items() if not key.endswith("_chance")}
    return named | dict(of_average)


def info_nce(z: Array | Tensor, *, temperature: float = 0.1) -> float:
    """Contrastive loss that was never trained: is another part of the same whole the likeliest neighbour?

    -mean over ordered pairs (a, b) of parts of one whole of log(exp(a.b / t) / sum over c != a of
    exp(a.c / t)), where c runs over all other parts of all wholes. Embeddings that are all equal give
    log(wholes x parts - 1).

    Args:
        z: (wholes, parts, features).
        temperature: t, above 0.

    Raises:
        ContrastError: not such an array, fewer than two parts a whole, a temperature that isn't positive.
    """
    if not temperature > 0:
        raise ContrastError(f"temperature must be above 0, got {temperature}")
    cosine, same = _cosines(z)
    logits = cosine / temperature
    np.fill_diagonal(logits, -math.inf)
    top = logits.max(axis=1, keepdims=True)
    normaliser = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return float((normaliser - logits)[same].mean())


def alignment(z: Array | Tensor) -> float:
    """Mean squared distance of parts of the same whole, 0 (all together) to 4."""
    cosine, same = _cosines(z)
    return float((2 - 2 * cosine[same]).mean())


def uniformity(z: Array | Tensor) -> float:
    """Log of the mean of exp(-2 squared distance) over all pairs, 0 (all equal) and below (spread out).

    Pairs of one whole take part.
    """
    cosine, _ = _cosines(z)
    pairs = cosine[~np.eye(len(cosine), dtype=bool)]
    return float(np.log(np.exp(-2 * (2 - 2 * pairs)).mean()))


def which_whole_accuracy(z: Array | Tensor) -> float:
    """Share of parts whose nearest other part, by cosine, comes from the same whole.

    Of equally near parts each counts in part, so equal embeddings give chance, not an accident of order.
    """
    cosine, same = _cosines(z)
    np.fill_diagonal(cosine, -math.inf)
    nearest = cosine >= cosine.max(axis=1, keepdims=True) - TIE
    return float(((nearest & same).sum(axis=1) / nearest.sum(axis=1)).mean())


def mean_distances(z: Array | Tensor) -> tuple[float, float]:
    """Mean distance of parts of one whole, and of parts of two (nan for a single whole)."""
    cosine, same = _cosines(z)
    distance = np.sqrt(np.maximum(2 - 2 * cosine, 0))
    different = ~same & ~np.eye(len(same), dtype=bool)
    return float(distance[same].mean()), float(distance[different].mean()) if different.any() else math.nan


def effective_rank(z: Array | Tensor) -> float:
    """Number of directions that the embeddings fill: exp(entropy of the normalised singular values).

    Of the centred embeddings, so from 0 (all equal) to at most the number of features.
    Roy and Vetterli, The effective rank, EUSIPCO 2007.
    """
    units = _embeddings(z).reshape(-1, np.shape(z)[-1])
    values = np.linalg.svd(units - units.mean(axis=0), compute_uv=False)
    if values[0] < TIE:
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _embeddings(z: Array | Tensor) -> Floats:
    """(wholes, parts, features) of unit length."""
    found = (z.detach().cpu().double().numpy() if isinstance(z, Tensor) else np.asarray(z)).astype(np.float64)
    if found.ndim != 3 or found.shape[1] < 2 or not found.size:
        raise ContrastError(f"expected embeddings (wholes, 2 or more parts, features), got {found.shape}")
    if not np.isfinite(found).all():
        raise ContrastError("embeddings hold values that aren't finite")
    unit: Floats = found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-12)
    return unit


def _cosines(z: Array | Tensor) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Cosine of every two parts, and whether they are two parts of the same whole."""
    found = _embeddings(z)
    flat = found.reshape(-1, found.shape[-1])
    whole = np.repeat(np.arange(len(found)), found.shape[1])
    return flat @ flat.T, (whole[:, None] == whole) & ~np.eye(len(flat), dtype=bool)
