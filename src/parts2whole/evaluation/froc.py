"""FROC: how many lesions are found at how many false positives a scan, counted as LUNA16 does.

A lesion is found by the highest of its candidates; its other candidates count for nothing.  Candidates that
hit no lesion are false positives; those on findings that the reference calls irrelevant are left out.  A
lesion without any candidate can never be found.  (Rules of the challenge: Setio et al. 2017, Medical Image
Analysis 42, https://luna16.grand-challenge.org/Evaluation/.)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from parts2whole.errors import Parts2WholeError

FALSE_POSITIVES_PER_SCAN = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Where the challenge reads the curve; the mean of the seven sensitivities is its score (CPM)."""


class FrocError(Parts2WholeError, ValueError):
    """Candidates that no curve can be drawn of."""


@dataclasses.dataclass(frozen=True, eq=False)
class Froc:
    """The curve: both arrays rise from their first point, (0, 0).

    Attributes:
        false_positives: mean number a scan.
        sensitivity: share of all lesions that are found.
    """

    false_positives: npt.NDArray[np.float64]
    sensitivity: npt.NDArray[np.float64]

    def at(self, false_positives: float) -> float:
        """Sensitivity at a number of false positives a scan; linear between points, flat after the last."""
        return float(np.interp(false_positives, self.false_positives, self.sensitivity))

    def metrics(self) -> dict[str, float]:
        """The seven sensitivities, and ``cpm``, their mean."""
        found = {f"sensitivity_at_{rate:g}_fp": self.at(rate) for rate in FALSE_POSITIVES_PER_SCAN}
        return found | {"cpm": sum(found.values()) / len(found)}


def froc(
    scores: Sequence[float] | npt.NDArray[np.floating],
    hits: Sequence[Sequence[str]],
    *,
    irrelevant: Sequence[bool],
    lesions: int,
    scans: int,
) -> Froc:
    """The curve of candidates.

    Args:
        scores: (n,) larger for lesions.
        hits: names of the lesions that each candidate hits; names are unique over all scans.
        irrelevant: candidates on irrelevant findings, left out where they hit no lesion.
        lesions: number of all lesions, with those that no candidate hits.
        scans: number of scans, with those that have no candidates.

    Raises:
        FrocError: no scans, lengths that differ, scores that aren't finite, or more lesions hit than there
            are.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) == len(hits) == len(irrelevant):
        raise FrocError(f"{len(values)} scores, {len(hits)} hits and {len(irrelevant)} flags must be as many")
    if scans < 1 or not np.isfinite(values).all():
        raise FrocError(f"expected one or more scans and finite scores, got {scans} scans")
    best: dict[str, float] = {}
    false: list[float] = []
    for score, names, left_out in zip(values.tolist(), hits, irrelevant, strict=True):
        for name in names:
            best[name] = max(best.get(name, -math.inf), score)
        if not names and not left_out:
            false.append(score)
    if len(best) > lesions:
        raise FrocError(f"candidates hit {len(best)} lesions, but there are only {lesions}")
    thresholds = np.unique([*best.values(), *false])[::-1]
    if not lesions:
        nothing = np.full(len(thresholds) + 1, math.nan)
        return Froc(np.concatenate([[0.0], _counts(false, thresholds) / scans]), nothing)
    return Froc(
        np.concatenate([[0.0], _counts(false, thresholds) / scans]),
        np.concatenate([[0.0], _counts(list(best.values()), thresholds) / lesions]),
    )


def _counts(values: list[float], thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How many values are at or above each threshold."""
    ordered = np.sort(values)
    return np.float64(len(ordered)) - np.searchsorted(ordered, thresholds, side="left")
