"""How a table's arms are told apart: the test behind its marks, and what changes from seed to seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from parts2whole.errors import Parts2WholeError
from parts2whole.evaluation import statistics

Values = Mapping[Any, float]
"""Results of an arm, by seed."""


class TableError(Parts2WholeError, ValueError):
    """Rows that make no table."""


PAIRED = ("paired", "wilcoxon", "permutation")


@dataclass(frozen=True)
class How:
    """The test that a table is made with."""

    test: str
    alternative: str
    alpha: float
    margin: float | None

    def __post_init__(self) -> None:
        if self.test not in statistics.TESTS:
            raise TableError(f"there is no test {self.test!r}; there are {', '.join(statistics.TESTS)}")
        if self.alternative not in ("greater", "two-sided", "observed"):
            raise TableError(
                f"alternative must be greater (better), two-sided or observed, got {self.alternative!r}"
            )
        if not 0 < self.alpha < 1:
            raise TableError(f"alpha must lie between 0 and 1, got {self.alpha}")
        if self.margin is not None and self.test not in statistics.T_TESTS:
            raise TableError(
                f"a margin needs a test by t ({', '.join(statistics.T_TESTS)}), got {self.test!r}"
            )
        if self.margin is not None and not (self.margin > 0 and self.alpha < 0.5):
            raise TableError(
                f"a margin must be above 0, with alpha below 0.5, got {self.margin} and {self.alpha}"
            )

    def compare(self, a: Values, b: Values, sign: int) -> statistics.TestResult | None:
        """Whether ``a`` is better than ``b``; None with fewer than two seeds, or nothing that varies."""
        first, second = self.samples(a, b)
        if min(len(first), len(second)) < 2:
            return None
        better = self.alternative
        if better == "observed":
            found = statistics.compare(first, second, test=self.test, alternative="two-sided")
            better = "greater" if found.side >= 0 else "less"
        elif better == "greater" and sign < 0:
            better = "less"
        result = statistics.compare(first, second, test=self.test, alternative=better)
        return result if math.isfinite(result.p) else None

    def equivalent(self, a: Values, b: Values, p: float | None) -> bool:
        """Whether two arms count as equally good: p > alpha, or equivalent within the margin, if given."""
        first, second = self.samples(a, b)
        if self.margin is None or p is None:
            return p is not None and p > self.alpha
        found = statistics.equivalence(first, second, margin=self.margin, test=self.test, alpha=self.alpha)
        return found.p <= self.alpha

    def check_margin(self, percent: Iterable[bool]) -> None:
        """Raise `TableError` for a margin that no difference of shares can be beyond."""
        if self.margin is not None and self.margin >= 1 and any(percent):
            raise TableError(
                f"a margin of {self.margin:g} holds any difference of shares, which are from 0 to 1: "
                "one point is 0.01"
            )

    @property
    def words_of_margin(self) -> str:
        """The tests of equivalence, and alpha."""
        return f"two one-sided {statistics.TESTS[self.test]}s, α = {self.alpha:g}"

    @property
    def words(self) -> str:
        """The test, its sidedness and alpha."""
        better = "ranks" if self.test == "wilcoxon" else "mean"
        sided = {
            "two-sided": "two-sided",
            "greater": "one-sided",
            "observed": f"one-sided, in favour of the better {better}",
        }[self.alternative]
        return f"{statistics.TESTS[self.test]}, {sided}, α = {self.alpha:g}"

    @property
    def paired(self) -> bool:
        """Whether values of equal seed belong together."""
        return self.test in PAIRED

    def samples(self, a: Values, b: Values) -> tuple[list[float], list[float]]:
        """Values of two arms; for a paired test those of the seeds that both have, in the same order."""
        if not self.paired:
            return list(a.values()), list(b.values())
        common = [seed for seed in a if seed in b]
        return [a[seed] for seed in common], [b[seed] for seed in common]


class Varied:
    """What changes from seed to seed, seen in the rows."""

    def __init__(self) -> None:
        self.subsets: dict[tuple[Any, ...], dict[Any, str]] = {}
        self.weights: dict[tuple[Any, ...], set[str]] = {}
        self.tested: dict[tuple[Any, ...], set[str]] = {}
        self.seeds: set[Any] = set()

    def add(self, cell: tuple[Any, ...], row: Mapping[str, Any]) -> None:
        """Note the labelled and tested cases and the initial weights of a row of a cell."""
        self.seeds.add(row["seed"])
        tested = (row.get("settings") or {}).get("test cases")
        if tested:
            self.tested.setdefault(cell[:-1], set()).add(tested)
        if row.get("subset"):
            self.subsets.setdefault(cell, {})[row["seed"]] = str(row["subset"])
        if row.get("weights"):
            self.weights.setdefault(cell, set()).add(str(row["weights"]))

    @property
    def same_cases(self) -> bool:
        """Whether test cases are the same in all runs of a row, as far as these say."""
        return all(len(found) == 1 for found in self.tested.values())

    def describe(self) -> str:
        """What the spread over seeds shows, and what it doesn't."""
        if len(self.seeds) < 2:
            return "One seed: nothing is known of the spread."
        changing = ["fresh weights", "order and augmentation of samples"]
        if any(len(set(found.values())) > 1 for found in self.subsets.values()):
            changing.append(f"which training cases are labelled ({self._in_every_arm()})")
        started = {cell: found for cell, found in self.weights.items() if found != {"scratch"}}
        again = any(len(found) > 1 for found in started.values())
        if again:
            changing.append("the pre-training itself")
        text = f"Between seeds change: {', '.join(changing)}."
        if started and not again:
            text += " Pre-trained weights are the same in all seeds."
        if not self.same_cases:
            return f"{text} Test cases are not the same in all: part of what differs is who was tested."
        return f"{text} Test cases are the same in all: the spread shows nothing of other test patients."

    def _in_every_arm(self) -> str:
        """Whether arms of one row and seed have the same labelled cases; a cell is a row and an arm."""
        seen: dict[tuple[Any, ...], set[str]] = {}
        for (*row, _), found in self.subsets.items():
            for seed, subset in found.items():
                seen.setdefault((*row, seed), set()).add(subset)
        alike = all(len(subsets) == 1 for subsets in seen.values())
        return "the same in every arm" if alike else "not the same in every arm"
