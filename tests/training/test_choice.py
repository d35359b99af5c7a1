from __future__ import annotations

import math

import pytest

from parts2whole.training.choice import defined, informative, is_best, waited

NAN = math.nan


def best_step(figures: list[tuple[float, float]]) -> int:
    """The step that is kept, counted from 1, of (monitored, other) values that are low where they are good."""
    best, kept = (math.inf, math.inf), 0
    for step, figure in enumerate(figures, start=1):
        if is_best(defined(*figure), best):
            best, kept = defined(*figure), step
    return kept


@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        ([(0.0, NAN)] * 4, 4),  # tied: later beats earlier
        ([(3.0, NAN), (1.0, NAN), (1.0, NAN), (2.0, NAN)], 3),
        ([(NAN, NAN)] * 3, 3),  # undefined, and nothing else to go by
        ([(NAN, 3.0), (NAN, 1.0), (NAN, 2.0)], 2),  # undefined: the other figure decides
        ([(NAN, 1.0), (NAN, 1.0), (NAN, 2.0)], 2),
        ([(NAN, 1.0), (NAN, NAN), (NAN, 2.0)], 3),
        ([(math.inf, 3.0), (-math.inf, 1.0), (NAN, 2.0)], 2),  # not finite is undefined
        ([(NAN, 1.0), (5.0, 9.0), (NAN, 0.5)], 2),  # what is defined counts before what isn't
        ([(2.0, 1.0), (1.0, 9.0)], 2),  # the other figure has no say where the first is defined
        ([], 0),
    ],
)
def test_which_step_is_kept(figures, kept):
    assert best_step(figures) == kept


@pytest.mark.parametrize(
    ("values", "told", "patience_used"),
    [
        ([], [], 0),
        ([NAN, math.inf], [], 0),
        ([0.0, 0.0, 0.0], [0.0], 0),
        ([0.0, 0.0, -1.0], [0.0, -1.0], 0),
        ([0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0], 2),
        ([2.0, 1.0, NAN, 1.0, 3.0], [2.0, 1.0, 1.0, 3.0], 2),
        ([2.0, 1.0, 1.0, 1.0, 0.5], [2.0, 1.0, 1.0, 1.0, 0.5], 0),
    ],
)
def test_what_tells_nothing_is_not_waited_for(values, told, patience_used):
    assert informative(values) == told
    assert waited(values) == patience_used
