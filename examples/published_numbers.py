"""Are two published results different?  All that their means, deviations and numbers of runs can say.

python examples/published_numbers.py "98.67±0.23" "98.26±0.27" --n 10
"""

from __future__ import annotations

import argparse

from parts2whole.evaluation.power import sample_size
from parts2whole.evaluation.statistics import Summary, compare, equivalence


def main(first: str, second: str, *, n: int, margin: float = 0.5) -> float:
    a, b = Summary.parse(first, n=n), Summary.parse(second, n=n)

    # Do they differ?  Welch's test lets the deviations differ, Student's doesn't.
    welch = compare(a, b, test="welch", alternative="two-sided")
    print("do they differ?     ", welch.describe())

    # Is the first better?  Half of that p, and honest only if the question was asked before looking.
    print("is the first better?", compare(a, b, test="student", alternative="greater").describe())

    # p > 0.05 would not say that they are equal.  This would, within a margin chosen beforehand.
    print("are they equivalent?", equivalence(a, b, margin=margin, test="welch").describe())

    # How many runs does it take to see such a difference?
    spread = ((a.sd**2 + b.sd**2) / 2) ** 0.5
    print("how many runs?      ", sample_size(abs(a.mean - b.mean), spread, two_sided=True).describe())
    return welch.p


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--n", type=int, required=True)
    given = parser.parse_args()
    main(given.first, given.second, n=given.n)
