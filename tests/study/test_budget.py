"""How long a study is for the time there is, reckoned by hand."""

from __future__ import annotations

import dataclasses

import pytest

from parts2whole.study.budget import (
    Length,
    Sizes,
    choose_labels,
    choose_length,
    enough,
    estimate,
    makespan,
)
from parts2whole.study.trial import Pace, Trial

TRIAL = Trial(
    workers=2,
    start_s=10.0,
    prepare_s=2.0,
    pretrain=Pace(step_s=0.5, validation_s=3.0, test_s=0.0, fixed_s=20.0),
    label_s=1.0,
    finetune=Pace(step_s=0.2, validation_s=0.5, test_s=2.0, fixed_s=5.0),
)
SIZES = Sizes(scans=60, labelled=40, train=24, validation=6, test=10)


def test_pieces_are_begun_by_whoever_is_free():
    assert makespan([10, 3, 3, 3], 2) == 10
    assert makespan([10, 3, 3, 3, 3], 2) == 12
    assert makespan([4, 4, 4], 1) == 12
    assert makespan([], 2) == 0


def test_what_a_study_takes():
    length = Length(pretrain_steps=400, batch_size=8, finetune_steps=100, cases=(5,), seeds=3)
    cost = estimate(length, TRIAL, SIZES, tried_batch=8, cores=2)
    assert cost.pretrain_s == 20 + 400 * 0.5 + 6 * 3  # 238
    assert cost.finetune_s == 5 + 100 * 0.2 + 4 * 6 * 0.5 + 10 * 2  # 57
    assert cost.prepare_s == 60 * 2 / 2 + 10 + 40 * 1 / 2 + 10  # 100
    # the command's own start; a start and the pre-training, beside which three fit; a start and two in a row
    assert cost.total_s == 10 + 100 + (10 + 238) + (10 + 2 * 57)
    halved = estimate(dataclasses.replace(length, batch_size=4), TRIAL, SIZES, tried_batch=8, cores=2)
    assert halved.pretrain_s == 20 + 400 * 0.25 + 6 * 3


def test_what_folds_take():
    sizes = dataclasses.replace(SIZES, test=8, folds=5)
    length = Length(400, 8, finetune_steps=100, cases=(5,), seeds=1, folds=5)
    assert length.finetunings == 2 * 5
    cost = estimate(length, TRIAL, sizes, tried_batch=8, cores=2)
    each = 5 + 100 * 0.2 + 4 * 6 * 0.5 + 8 * 2  # 53
    assert cost.total_s == 10 + 100 + (10 + 5 * each) + (10 + 3 * each)  # 265 are more than the 238 beside
    own = dataclasses.replace(sizes, pretrainings=5)
    # one worker has three pre-trainings, 714; the other two, and then all five from scratch, 476 + 265
    assert estimate(length, TRIAL, own, tried_batch=8, cores=2).total_s == 110 + (10 + 741) + (10 + 3 * each)
    fitted = choose_length(TRIAL, own, seconds=3600, batch_size=8, cores=2)
    assert fitted.folds == 5
    assert estimate(fitted, TRIAL, own, tried_batch=8, cores=2).total_s <= 3600


@pytest.mark.parametrize("minutes", [15, 30, 60, 240])
def test_the_time_is_used_and_not_exceeded(minutes):
    length = choose_length(TRIAL, SIZES, seconds=60 * minutes, batch_size=8, cores=2)
    cost = estimate(length, TRIAL, SIZES, tried_batch=8, cores=2)
    longest = length.finetune_steps == 1000
    assert cost.total_s <= 60 * minutes
    assert cost.total_s >= 60 * minutes * 0.85 or longest


def test_more_time_first_buys_seeds_then_labels():
    # With 500 and 100 steps the rungs take 532, 643, 985, 1441 and 2011 seconds.
    times = (300, 535, 650, 990, 1450, 24000)
    found = [choose_length(TRIAL, SIZES, seconds=time, batch_size=8, cores=2) for time in times]
    rungs = [(length.seeds, len(length.cases)) for length in found]
    assert rungs == [(3, 1), (3, 1), (6, 1), (6, 2), (10, 2), (10, 3)]
    assert found[0].batch_size == 4  # half as large, as not even the shortest fits
    assert (found[0].pretrain_steps, found[0].finetune_steps) == (250, 50)
    assert found[-1].cases == (2, 5, None)
    assert all(length.pretrain_steps <= 20 * length.finetune_steps for length in found)


def test_what_it_takes_to_show_something_is_the_second_rung():
    cost = estimate(enough(SIZES, 8), TRIAL, SIZES, tried_batch=8, cores=2)
    assert cost.total_s == 643  # as above


def test_a_pretraining_alone():
    trial = dataclasses.replace(TRIAL, finetune=None)
    sizes = Sizes(60, 0, 0, 0, 0)
    length = choose_length(trial, sizes, seconds=900, batch_size=8, cores=2)
    assert length.finetunings == 0
    cost = estimate(length, trial, sizes, tried_batch=8, cores=2)
    assert 0.9 * 900 < cost.total_s <= 900


def test_labels_are_no_more_than_there_are():
    assert choose_labels(3, 1) == (3,)
    assert choose_labels(10, 2) == (5,)
    assert choose_labels(24, 2) == (5, None)
    assert choose_labels(24, 3) == (2, 5, None)
    assert choose_labels(4, 3) == (4,)
