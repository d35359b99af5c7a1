"""Permutation tests: how often would chance alone, by changing signs or arms, give as large a difference?"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
EXACT_LIMIT = 2**18  # arrangements that are all tried; beyond it a random sample of RESAMPLES
RESAMPLES = 100_000


def flip_signs(pairs: Floats, alternative: str, generator: np.random.Generator) -> tuple[float, str]:
    """Probability of the sum of differences, if each might as well have had the other sign.

    Args:
        pairs: (n,) differences; exact up to 18 of them.
        alternative: ``greater``, ``less`` or ``two-sided``.
        generator: of random flips, where there are too many to try all.

    Returns:
        The probability, and how it was found.
    """
    if 2 ** len(pairs) <= EXACT_LIMIT:
        sums = np.zeros(1)
        for value in pairs:
            sums = np.concatenate([sums + value, sums - value])
        return _share(sums, float(pairs.sum()), alternative, drawn=False), f"exact, {len(sums)} sign flips"
    flips = (generator.choice([-1.0, 1.0], (1000, len(pairs))) @ pairs for _ in range(RESAMPLES // 1000))
    sums = np.concatenate(list(flips))
    return _share(sums, float(pairs.sum()), alternative, drawn=True), f"{len(sums)} random sign flips"


def swap_arms(x: Floats, y: Floats, alternative: str, generator: np.random.Generator) -> tuple[float, str]:
    """Probability of the difference of means, if each value might as well have come from the other arm.

    Args:
        x: (n,) values of the first arm.
        y: (m,) values of the second; exact up to 262,144 ways to choose n of n + m.
        alternative: ``greater``, ``less`` or ``two-sided``.
        generator: of random permutations, where there are too many to try all.

    Returns:
        The probability, and how it was found.
    """
    both, n = np.concatenate([x, y]), len(x)
    ways = int(special.comb(len(both), n, exact=True))
    exact = ways <= EXACT_LIMIT
    if exact:
        sums = np.fromiter((sum(c) for c in itertools.combinations(both.tolist(), n)), np.float64, ways)
    else:
        rows = np.tile(both, (1000, 1))
        drawn = (generator.permuted(rows, axis=1)[:, :n].sum(axis=1) for _ in range(RESAMPLES // 1000))
        sums = np.concatenate(list(drawn))
    # mean(x) - mean(y), given the sum over x
    differences = sums / n - (both.sum() - sums) / len(y)
    p = _share(differences, float(x.mean() - y.mean()), alternative, drawn=not exact)
    return p, f"exact, {ways} ways" if exact else f"{RESAMPLES} random permutations"


def _share(found: Floats, observed: float, alternative: str, *, drawn: bool) -> float:
    """Share of statistics as extreme as the observed one; a drawn sample counts the observed one too."""
    measure: Callable[[Any], Any] = {"greater": np.positive, "less": np.negative, "two-sided": np.abs}[
        alternative
    ]
    tie = 1e-9 * max(float(np.abs(found).max()), abs(observed))
    extreme = int((measure(found) >= measure(observed) - tie).sum())
    return (extreme + drawn) / (len(found) + drawn)
