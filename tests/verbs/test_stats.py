"""Statistics from the command line: the poster's p-values, power, and patients told from runs; no torch."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from parts2whole.cli import main
from parts2whole.evaluation.statistics import StatisticsError
from parts2whole.report.certainty import auc_of_runs
from parts2whole.verbs.stats import check, patients, plan


def test_the_poster_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "check", "98.67±0.23", "98.26±0.27", "--n", "10"]) == 0
    shown = capsys.readouterr().out
    # The poster prints .0011, within what its rounded means and deviations allow.
    student = re.search(r"Student .* p = 0\.0009 {2}\(0\.0006 to 0\.0013 by rounding\)", shown)
    assert student
    assert "Welch" in shown
    assert "two-sided" in shown
    assert "any margin above" in shown
    assert "power" in shown.lower()
    assert len(shown.splitlines()) <= 24  # one screen


def test_the_parts_of_an_answer_agree_with_scipy() -> None:
    text = check("85.52±0.58", "86.70±0.62", n=10, n_second=8, margin=2.0, comparisons=4).summary()
    student = stats.ttest_ind_from_stats(86.70, 0.62, 8, 85.52, 0.58, 10, alternative="greater")
    welch = stats.ttest_ind_from_stats(86.70, 0.62, 8, 85.52, 0.58, 10, equal_var=False)
    assert "Is the second better?" in text
    assert f"p = {student.pvalue:.4f}" in text
    assert f"p = {welch.pvalue:.4f}" in text
    assert f"Holm over 4: p = {4 * student.pvalue:.4f}" in text
    assert "equivalence within ±2" in text


def test_what_can_not_be_read_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "check", "98.67", "98.26±0.27", "--n", "10"]) == 1
    assert "not a mean and a standard deviation" in capsys.readouterr().err
    with pytest.raises(StatisticsError, match="comparisons"):
        check("1±1", "1±1", n=3, comparisons=0)
    assert main(["stats"]) == 0
    assert "stats patients" in capsys.readouterr().out


def test_power_answers_three_questions() -> None:
    assert "you need n = 64 each" in plan(sd=1, difference=0.5).summary()  # Cohen 1988, table 2.4.1
    assert "with power 0.801" in plan(sd=1, difference=0.5, n=64).summary()
    assert "difference of 0.499" in plan(sd=1, n=64).summary()
    with pytest.raises(StatisticsError, match="give difference, n, or both"):
        plan(sd=1)


def test_area_under_the_curve_of_many_runs_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    target = generator.integers(0, 2, 40)
    scores = generator.integers(0, 8, (3, 40)) / 8 + 0.2 * target  # with ties
    together = np.stack([scores, np.broadcast_to(target, scores.shape)], axis=-1)
    expected = [roc_auc_score(target, run) for run in scores]
    np.testing.assert_allclose(auc_of_runs(together), expected)


def write_run(folder: Path, arm: str, seed: int, scores: dict[str, float], by_class: bool) -> None:
    folder.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for case, score in scores.items():
        row: dict[str, object] = {"case": case, "patient": case.partition("-")[0]}
        positive = case.endswith("1")
        row |= {"target": int(positive), "p_0": 1 - score, "p_1": score} if by_class else {"dice_mean": score}
        rows.append(row)
    with (folder / "test_cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    metric = "auc" if by_class else "dice_mean"
    value = float(np.mean(list(scores.values())))
    result = {"kind": "finetune", "arm": arm, "task_name": "Liver", "seed": seed, "fraction": 1.0}
    result |= {"train_cases": ["x"], "test": {metric: value}}
    (folder / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize("by_class", [False, True])
def test_patients_are_told_from_runs(tmp_path: Path, by_class: bool) -> None:
    """Patients differ much, runs hardly: the noise must be the patients'."""
    generator = np.random.default_rng(1)
    cases = [f"p{patient}-{case}" for patient in range(12) for case in range(2)]
    gain = dict(zip(cases, generator.normal(0.05, 0.1, len(cases)), strict=True))
    for arm in ("scratch", "Parts2Whole"):
        for seed in range(4):
            scores = {
                case: float(
                    np.clip(0.5 + (gain[case] if arm != "scratch" else 0) + generator.normal(0, 0.001), 0, 1)
                )
                for case in cases
            }
            write_run(tmp_path / f"{arm}{seed}", arm, seed, scores, by_class)
    (row,) = patients([tmp_path], resamples=300).rows
    assert row.found is not None, row.reason
    assert (row.found.patients, row.found.runs) == (12, (4, 4))
    if not by_class:
        assert row.found.estimate == pytest.approx(np.mean(list(gain.values())), abs=0.002)
        assert row.found.sd_patients > 10 * row.found.sd_runs
        assert "pairs see a true difference" in row.describe()
    assert "too narrow" in patients([tmp_path], resamples=50).summary()


def test_it_answers_without_torch() -> None:
    code = (
        "import sys; from parts2whole.cli import main; "
        "main(['stats', 'check', '98.67±0.23', '98.26±0.27', '--n', '10']); "
        "sys.exit(sorted({'torch', 'monai', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
