"""What validation decides: the best step, when to stop early, when a plateau is reached.

A figure that is undefined decides nothing, and neither does one that has been the same all along: an AUC
without a positive, a Dice of 0 before the network finds anything, an AUC of 1 on three patients.  Values here
are low where they are good, and not finite where they are undefined.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Figures = tuple[float, float]
"""The monitored value of a step, and that of the figure that decides while the monitored one is undefined."""


def defined(*values: float) -> Figures:
    """Two values, infinite where they are undefined."""
    value, other = (each if math.isfinite(each) else math.inf for each in values)
    return value, other


def is_best(new: Figures, best: Figures) -> bool:
    """Whether a step is as good as the best before it: later beats earlier among equals.

    While the monitored value is undefined in both, the other figure decides; without that, the later step.
    """
    if math.isinf(new[0]) and math.isinf(best[0]):
        return new[1] <= best[1] or math.isinf(new[1])
    return new[0] <= best[0]


def informative(values: Sequence[float]) -> list[float]:
    """The defined values, of those at the beginning that are all the same only one."""
    found = [value for value in values if math.isfinite(value)]
    return found[:1] + list(itertools.dropwhile(lambda value: value == found[0], found))


def waited(values: Sequence[float]) -> int:
    """Validations since the value last improved; none while it has told nothing."""
    told = informative(values)
    return len(told) - 1 - told.index(min(told)) if told else 0
