"""The time left: what is done tells of what is waiting."""

from __future__ import annotations

import pytest

from parts2whole.study.progress import Pace


def test_each_kind_is_expected_to_take_what_it_took() -> None:
    pace = Pace(["pre-training", "a", "a", "a", "b"])
    assert pace.seconds_left(0.0) is None
    pace.finish("pre-training", 100.0)
    assert pace.seconds_left(50.0) is None  # which says nothing of fine-tunings
    pace.finish("a", 10.0)
    # Two workers: 110 seconds of work in 55. Left are two of 10 s and a b, of which nothing is known: as the others.
    assert pace.seconds_left(55.0) == pytest.approx((10 + 10 + 10) / 2)
    pace.finish("b", 30.0)
    assert pace.seconds_left(70.0) == pytest.approx(20 * 70 / 140)
    pace.finish("a", 10.0)
    pace.finish("a", 10.0)
    assert pace.seconds_left(80.0) == 0


def test_fine_tunings_say_nothing_of_a_pretraining() -> None:
    pace = Pace(["a", "a", "pre-training"])
    pace.finish("a", 10.0)
    assert pace.seconds_left(10.0) is None
    pace.finish("pre-training", 60.0)
    assert pace.seconds_left(70.0) == pytest.approx(10)


def test_a_failure_that_took_no_time_tells_nothing() -> None:
    pace = Pace(["a", "a"])
    pace.finish("a", 0.0)
    assert pace.seconds_left(1.0) is None
