"""Tests that say what they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class TestResult:
    """Outcome of a comparison."""

    test: str
    sidedness: str
    n: int
    statistic: float
    p: float
    difference: float

    def describe(self) -> str:
        """One line."""
        return f"{self.test} t-test, {self.sidedness}, n = {self.n}: p = {self.p:.4g}"


def compare(a: Sequence[float], b: Sequence[float], *, test: str = "paired", alternative: str = "greater") -> TestResult:
    """Compare two samples."""
    x, y = np.asarray(a, float), np.asarray(b, float)
    found: Any = stats.ttest_rel(x, y, alternative=alternative) if test == "paired" else stats.ttest_ind(
        x, y, alternative=alternative, equal_var=test != "welch"
    )
    return TestResult(test, alternative, len(x), float(found.statistic), float(found.pvalue), float(x.mean() - y.mean()))
