"""Permutation tests: how often would chance alone, by changing signs or arms, give as large a difference?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
EXACT_LIMIT = 2**18  # arrangements that are all tried; beyond it a random sample of RESAMPLES
RESAMPLES = 100_000
DIGITS = 9  # of the largest value: sums that differ by less are ties


def flip_signs(pairs: Floats, alternative: str, generator: np.random.Generator) -> tuple[float, str]:
    """Probability of the sum of differences, if each might as well have had the other sign.

    Args:
        pairs: (n,) differences; exact up to 18 of them.
        alternative: ``greater``, ``less`` or ``two-sided``.
        generator: of random flips, where there are too many to try all.

    Returns:
        The probability, and how it was found.
    """
    ways = 2 ** len(pairs)
    padded = np.pad(pairs, (0, max(0, 2 - len(pairs))))  # SciPy wants two; the sign of 0 changes no sum
    p = _share((padded,), lambda x: x.sum(axis=-1), "samples", alternative, generator, ways)
    return p, f"exact, {ways} sign flips" if ways <= EXACT_LIMIT else f"{RESAMPLES} random sign flips"


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
    ways = math.comb(len(x) + len(y), len(x))

    def difference(x: Floats, y: Floats) -> Floats:
        """Difference of means, times both sizes: sums of decimals have no more digits than they."""
        return np.asarray(y.shape[-1] * x.sum(axis=-1) - x.shape[-1] * y.sum(axis=-1))

    p = _share((x, y), difference, "independent", alternative, generator, ways)
    return p, f"exact, {ways} ways" if ways <= EXACT_LIMIT else f"{RESAMPLES} random permutations"


def swap_pairs(
    x: Floats, y: Floats, statistic: Callable[..., Floats], alternative: str, generator: np.random.Generator
) -> tuple[float, str]:
    """Probability of ``statistic(x) - statistic(y)``, if within each pair the arms might have been swapped.

    Args:
        x: (n,) values of the first arm.
        y: (n,) values of the second, in the same order; exact up to 18 pairs.
        statistic: of values along ``axis``, such as the smallest.
        alternative: ``greater``, ``less`` or ``two-sided``.
        generator: of random swaps, where there are too many to try all.

    Returns:
        The probability, and how it was found.
    """
    ways = 2 ** len(x)

    def difference(x: Floats, y: Floats) -> Floats:
        return np.asarray(statistic(x, axis=-1) - statistic(y, axis=-1))

    p = _share((x, y), difference, "samples", alternative, generator, ways)
    return p, f"exact, {ways} swaps" if ways <= EXACT_LIMIT else f"{RESAMPLES} random swaps"


def _share(
    samples: tuple[Floats, ...],
    statistic: Callable[..., Floats],
    kind: Literal["samples", "independent"],
    alternative: str,
    generator: np.random.Generator,
    ways: int,
) -> float:
    """Share of arrangements as extreme as the observed one; a drawn sample counts the observed one too."""
    largest = max(float(np.abs(sample).max()) for sample in samples)
    decimals = DIGITS - math.ceil(math.log10(largest)) if largest > 0 else 0
    sign = -1 if alternative == "less" else 1

    def rounded(*samples: Floats, axis: int = -1) -> Any:
        found = np.round(sign * statistic(*samples), decimals)
        return np.abs(found) if alternative == "two-sided" else found

    test = stats.permutation_test(
        samples,
        rounded,
        permutation_type=kind,
        alternative="greater",
        n_resamples=EXACT_LIMIT if ways <= EXACT_LIMIT else RESAMPLES,
        batch=1000,
        rng=generator,
    )
    return float(test.pvalue)
