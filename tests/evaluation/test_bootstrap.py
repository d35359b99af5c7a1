from __future__ import annotations

import math

import numpy as np
import pytest

from parts2whole.evaluation.bootstrap import BootstrapError, bootstrap
from parts2whole.evaluation.metrics import auc


def simulate(
    run: float, patient: float, single: float, *, seed: int = 0, size: tuple[int, int] = (10, 40)
) -> np.ndarray:
    """Scores (runs, patients) with known spread by run, by patient and of the single score."""
    generator = np.random.default_rng(seed)
    runs, patients = size
    return (
        0.8
        + run * generator.normal(size=(runs, 1))
        + patient * generator.normal(size=(1, patients))
        + single * generator.normal(size=size)
    )


def test_one_source_of_noise_at_a_time() -> None:
    by_run = simulate(0.05, 0, 0)
    found = bootstrap(by_run)
    assert found.sd_patients == pytest.approx(0, abs=1e-12)
    assert found.sd_runs == pytest.approx(by_run[:, 0].std(ddof=1) / math.sqrt(10))
    assert found.interval == pytest.approx(found.interval_runs)

    by_patient = simulate(0, 0.05, 0)
    found = bootstrap(by_patient)
    assert found.sd_runs == pytest.approx(0, abs=1e-12)
    assert found.sd_patients == pytest.approx(by_patient[0].std(ddof=1) / math.sqrt(40), rel=0.06)
    assert found.interval == pytest.approx(found.interval_patients)


def test_patient_noise_is_what_runs_on_one_split_do_not_show() -> None:
    # Both arms are equal on other patients; on these 15 one happens to look better, in every run.
    a = simulate(0.002, 0.05, 0, seed=1, size=(10, 15))
    b = simulate(0.002, 0.05, 0, seed=2, size=(10, 15))
    found = bootstrap(a, b)
    assert found.interval_runs is not None
    assert not found.interval_runs[0] <= 0 <= found.interval_runs[1]
    assert found.interval[0] <= 0 <= found.interval[1]
    assert found.sd_patients > 5 * found.sd_runs


def test_what_both_arms_share_cancels() -> None:
    patients = simulate(0, 0.2, 0)
    a, b = patients + 0.02 + simulate(0, 0, 0.01, seed=5), patients + simulate(0, 0, 0.01, seed=6)
    found = bootstrap(a, b)
    assert found.estimate == pytest.approx((a - b).mean())
    assert found.interval[0] > 0.01
    shared = np.random.default_rng(0).normal(0, 0.1, (10, 1))
    assert bootstrap(a + shared, b + shared, paired_runs=True, resamples=50).sd_runs < 0.005
    assert bootstrap(a + shared, b + shared, resamples=50).sd_runs > 0.03


def test_intervals_cover_about_as_often_as_they_say() -> None:
    held = []
    for seed in range(60):
        found = bootstrap(simulate(0.02, 0.05, 0.02, seed=seed, size=(12, 25)), resamples=150, confidence=0.9)
        held.append(found.interval[0] <= 0.8 <= found.interval[1])
    assert 0.8 <= np.mean(held) <= 0.98


def test_cases_of_a_patient_stay_together() -> None:
    # Ten patients, four equal cases each: forty cases say no more than ten patients.
    ten = simulate(0, 0.05, 0, size=(3, 10))
    forty = np.repeat(ten, 4, axis=1)
    expected = bootstrap(ten).sd_patients
    labels = [f"patient {i // 4}" for i in range(40)]
    assert bootstrap(forty, patients=labels).sd_patients == pytest.approx(expected)
    assert bootstrap(forty, resamples=500).sd_patients < 0.6 * expected
    assert bootstrap(forty, patients=labels).patients == 10


def test_a_metric_over_all_cases() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2
    scores = labels + generator.normal(0, 1, (3, 40))
    arm = np.stack([scores, np.broadcast_to(labels, (3, 40))], axis=-1)

    def area(values: np.ndarray) -> np.ndarray:
        return np.array([auc(run[:, 0], run[:, 1]) for run in values])

    found = bootstrap(arm, metric=area, resamples=60)
    assert found.estimate == pytest.approx(np.mean([auc(s, labels) for s in scores]))
    assert found.interval[0] < found.estimate < found.interval[1]
    # One positive patient: about a third of the draws miss it, and are left out.
    few = arm.copy()
    few[..., 1] = np.arange(40) == 3
    assert 0 < bootstrap(few, metric=area, resamples=60).dropped < 40


def test_undefined_scores_are_left_out() -> None:
    scores = simulate(0.01, 0.05, 0.01)
    scores[:, 7] = np.nan
    assert bootstrap(scores).estimate == pytest.approx(np.nanmean(scores))


def test_one_run_says_so() -> None:
    found = bootstrap(simulate(0, 0.05, 0, size=(1, 20)))
    assert found.interval_runs is None
    assert math.isnan(found.sd_runs)
    assert found.interval == found.interval_patients
    assert "not known from one run" in found.describe()


def test_the_same_seed_gives_the_same_interval() -> None:
    scores = simulate(0.01, 0.05, 0.01)
    first, again, other = (bootstrap(scores, seed=seed, resamples=50) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    line = bootstrap(scores, scores - 0.1, resamples=50).describe()
    assert line.startswith("difference 0.1")
    assert "40 patients and 10 runs" in line


def test_impossible_questions_are_refused() -> None:
    good = simulate(0.01, 0.05, 0.01)
    for call, message in (
        (lambda: bootstrap(good[0]), "runs, cases"),
        (lambda: bootstrap(good, good[:, 1:]), "same cases"),
        (lambda: bootstrap(good, good[1:], paired_runs=True), "as many in both"),
        (lambda: bootstrap(good, patients=["a"] * 40), "two or more"),
        (lambda: bootstrap(good, patients=["a", "b"]), "2 patient labels for 40 cases"),
        (lambda: bootstrap(good * np.nan), "on the data themselves"),
        (lambda: bootstrap(good, confidence=95), "confidence"),
    ):
        with pytest.raises(BootstrapError, match=message):
            call()
