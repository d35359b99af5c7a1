"""What a study's table and verdict say is of the arms, seeds and labels that were tested, in the test's own sense."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from parts2whole.report.curves import comparison_charts
from parts2whole.report.folds import pool_folds
from parts2whole.report.formats import to_html
from parts2whole.report.judge import measure_endpoints
from parts2whole.report.learning import show_pairs
from parts2whole.report.marks import How, TableError
from parts2whole.report.results import tabulate
from parts2whole.report.runs import Run
from parts2whole.report.study import Listing
from parts2whole.report.summary import judge_comparison
from parts2whole.report.verdict import conclude

ARMS = ("scratch", "MedicalNet", "Parts2Whole")
TASK = {"class_path": "parts2whole.tasks.segmentation.Segmentation", "init_args": {"data": "data/h"}}


def run(
    arm: str, seed: int, dice: float, *, cases: int | None = 5, fraction: float | None = None, **about: Any
) -> Run:
    name = f"{about.get('task_name', 'T')}-{arm}-{seed}-{cases}-{fraction}-{about.get('fold', '')}"
    config = {"task": TASK, "steps": 100, "cases": cases, "fraction": 1.0 if fraction is None else fraction}
    result: dict[str, Any] = {"kind": "finetune", "task": TASK, "init": arm, "arm": arm, "task_name": "T"}
    result |= {"seed": seed, "fraction": fraction, "test": {"dice_mean": dice}, "test_cases": ["a", "b"]}
    result |= {"train_cases": [f"t{number}" for number in range(cases or 7)]}
    return Run(Path("/runs", name), "finetune", config, result | about, {}, ())


def study(**about: Any) -> list[Run]:
    """Parts2Whole gains ten points over scratch, MedicalNet four."""
    gains = {"scratch": 0.0, "MedicalNet": 0.04, "Parts2Whole": 0.10}
    return [
        run(arm, seed, 0.8 + gain + (0.01 + gain / 50) * seed, **(about if arm == "Parts2Whole" else {}))
        for arm, gain in gains.items()
        for seed in range(4)
    ]


@pytest.mark.parametrize(
    ("about", "mark"), [({"decoder": "own"}, ", own decoder"), ({"leaks": ["a"]}, " [saw test cases]")]
)
@pytest.mark.parametrize("settings", [{}, {"focus": "Parts2Whole"}, {"against": "MedicalNet"}])
def test_a_marked_arm_stays_the_one_that_a_study_is_about(about, mark, settings):
    listing, runs = Listing("s", ARMS, (), settings), study(**about)
    table = listing.tabulate(runs)
    assert table.arms == ("scratch", "MedicalNet", f"Parts2Whole{mark}")
    assert table.focus == f"Parts2Whole{mark}"
    (final,) = listing.measure(runs)
    assert final.reference == settings.get("against", "scratch")
    found = listing.conclude((final,))
    assert found is not None
    assert f"Parts2Whole{mark} gains" in found.headline


def test_an_arm_that_saw_test_cases_of_one_task_is_one_arm_in_all():
    runs = [
        run(arm, seed, 0.7 + 0.1 * (arm == "P") + 0.01 * seed, task_name=task, leaks=leaks)
        for task in "AB"
        for arm in ("scratch", "P")
        for seed in range(3)
        for leaks in [["x"] if (arm, task) == ("P", "A") else []]
    ]
    table = Listing("s", ("scratch", "P"), (), {}).tabulate(runs)
    assert [list(row.cells) for row in table.rows] == [["scratch", "P [saw test cases]"]] * 2


def test_own_decoders_in_all_arms_leave_scratch_the_rival():
    runs = [dataclasses.replace(one, result=one.result | {"decoder": "own"}) for one in study()]
    table = Listing("s", ARMS, (), {}).tabulate(runs)
    assert table.rivals[0] == "scratch, own decoder"


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "observed"])
def test_a_test_by_ranks_is_told_by_ranks(alternative):
    scratch = [0.80 + 0.003 * seed for seed in range(12)]
    gains = [0.010 + 0.001 * seed for seed in range(11)] + [
        -0.45
    ]  # eleven small gains, and a run that failed
    runs = [run("scratch", seed, dice) for seed, dice in enumerate(scratch)]
    runs += [run("Parts2Whole", seed, scratch[seed] + gain) for seed, gain in enumerate(gains)]
    how = {"test": "wilcoxon", "alternative": alternative}
    two_sided = stats.wilcoxon(gains, method="exact").pvalue
    (final,) = measure_endpoints(runs, {"final": 0}, **how)
    assert final.rows[0].p == pytest.approx(two_sided if alternative == "two-sided" else two_sided / 2)
    found = conclude((final,))
    assert found is not None
    assert "Parts2Whole is better than scratch by ranks, though its mean is −2.4 points" in found.headline
    table = tabulate(runs, **how)
    (said,) = judge_comparison(table)
    assert said.tone == "good"
    assert table.rows[0].cells["scratch"].best
    assert table.rows[0].cells["Parts2Whole"].equivalent


def fold(number: int, tested: list[str], **about: Any) -> Run:
    return run("scratch", 0, 0.8, fold=[number, 2], test_cases=tested, **about)


def test_folds_of_different_data_are_refused_by_their_runs():
    assert len(pool_folds([fold(1, ["p1", "p2"]), fold(2, ["p3"])])) == 1
    with pytest.raises(TableError, match=r"different data: T-scratch-0-5-None-\[1, 2\], T-scratch"):
        pool_folds([fold(1, ["p1", "p2"]), fold(2, ["p2", "p3"])])
    for key in ("data_fingerprint", "labels_fingerprint"):
        with pytest.raises(TableError, match="delete these folders"):
            pool_folds([fold(1, ["p1"], **{key: "1"}), fold(2, ["p2"], **{key: "2"})])


def mixed(scans: int, *, told: bool) -> list[Run]:
    """Two and five patients beside all ten, each with so many scans."""
    runs = []
    for arm in ("scratch", "Parts2Whole"):
        for seed in range(6):
            for cases, fraction, patients in ((2, None, 2), (5, None, 5), (None, 1.0, 10)):
                dice = 0.5 + 0.02 * patients + 0.001 * seed + (0.03 - 0.003 * patients) * (arm != "scratch")
                about: dict[str, Any] = {"train_cases": [f"t{n}" for n in range(scans * patients)]}
                about |= {"train_patients": patients} if told else {}
                runs.append(
                    run(arm, seed, dice + 0.001 * (seed % 2), cases=cases, fraction=fraction, **about)
                )
    return runs


def test_a_curve_is_over_patients_however_many_scans_they_have():
    areas = [measure_endpoints(mixed(scans, told=True), {"area": 0})[0].rows[0] for scans in (1, 4, 12)]
    assert {area.labels for area in areas} == {"2 to 10 labelled cases"}
    assert {area.effect for area in areas} == {areas[0].effect}
    x, gains = np.log([2, 5, 10]), [0.03 - 0.003 * patients for patients in (2, 5, 10)]
    assert areas[0].effect == pytest.approx(np.trapezoid(gains, x) / (x[-1] - x[0]))
    assert measure_endpoints(mixed(1, told=False), {"area": 0})[0].rows[0].effect == areas[0].effect
    (unknown,) = measure_endpoints(mixed(4, told=False), {"area": 0})
    assert not unknown.rows
    assert "don't say how many patients a share is" in unknown.notes[0]


@pytest.mark.parametrize("cases", [1, 2])
def test_the_target_of_speed_is_that_of_a_number_of_labels(cases):
    """One case and all of the labels, a share of 1, have curves of their own."""
    runs = []
    for arm, pace in (("scratch", 80), ("Parts2Whole", 40)):
        for seed in range(6):
            for count, fraction, top in ((cases, None, 0.3), (None, 1.0, 0.9)):
                one = run(arm, seed, top, cases=count, fraction=fraction)
                records = tuple(
                    {"split": "validation", "step": step, "dice_mean": top * min(1, step / pace)}
                    for step in range(10, 101, 10)
                )
                runs.append(dataclasses.replace(one, records=records))
    (speed,) = measure_endpoints(runs, {"steps_to_90": 0})
    assert [dict(row.figures) for row in speed.rows] == [{"scratch": 80.0, "Parts2Whole": 40.0}] * 2
    assert not any(any(row.censored.values()) for row in speed.rows)


def test_labels_that_changed_between_the_seeds_of_all_arms_are_told():
    runs = [
        run(arm, seed, 0.8 + 0.01 * seed * (1 + (arm == "P")), labels_fingerprint="ab"[seed > 2] * 32)
        for arm in ("scratch", "P")
        for seed in range(6)
    ]
    (note,) = [note for note in tabulate(runs).notes if note.startswith("Not all seeds")]
    assert note == (
        "Not all seeds were made alike: labels (aaaaaaaa of seeds 0, 1, 2; bbbbbbbb of seeds 3, 4, 5)."
    )


def test_the_verdict_says_the_same_of_test_cases_as_the_table():
    """Whether seeds are runs on the same test patients is read from the runs, wherever it is said."""
    for cases, alike in ((["a", "b"], True), (None, False)):
        runs = [
            dataclasses.replace(one, result=one.result | {"test_cases": cases or [f"c{one.result['seed']}"]})
            for one in study()
        ]
        table = tabulate(runs)
        assert table.same_cases is alike
        assert ("Test cases are the same in all" in " ".join(table.notes)) is alike
        found = conclude(measure_endpoints(runs, {"final": 0}))
        assert found is not None
        assert ("runs on the same test patients." in found.text) is alike
        assert ("test patients are not the same in all runs." in found.text) is not alike


def test_titles_say_what_a_margin_says():
    table = tabulate(study(), margin=0.05)
    page = to_html(table)
    assert "worse than the best" not in page
    assert "not told from the best" not in page
    assert "equivalent to the best within ±5 points" in page


@pytest.mark.parametrize(
    ("test", "margin", "alpha"), [("wilcoxon", 0.01, 0.05), ("paired", -0.01, 0.05), ("paired", 0.01, 0.6)]
)
def test_a_margin_that_cannot_be_tested_is_refused_at_once(test, margin, alpha):
    with pytest.raises(TableError, match="margin"):
        How(test, "two-sided", alpha, margin)


def test_shares_with_as_many_scans_stay_apart(tmp_path):
    runs = [
        run(arm, seed, dice, cases=None, fraction=fraction, train_cases=["t"] * count)
        for arm in ("scratch", "Parts2Whole")
        for fraction, counts, dice in ((0.1, (4, 6), 0.6), (0.2, (6, 12), 0.8))
        for seed, count in enumerate(counts)
    ]
    records = ({"split": "validation", "step": 10, "dice_mean": 0.5},) * 2
    runs = [dataclasses.replace(one, records=records) for one in runs]
    titles = [chart.title for chart in comparison_charts(runs)]
    assert titles == [f"T, {share} % of the labels: validation" for share in (10, 20)]
    table = tabulate(runs)
    assert show_pairs(runs, table, "scratch") == []  # no pictures were kept, and no run of 20 % stands in


def test_with_seeds_missing_the_figures_are_those_that_were_tested():
    dice = {"scratch": [0.70, 0.71, 0.72, 0.73, 0.20], "Parts2Whole": [0.74, 0.75, 0.73, 0.78]}
    runs = [run(arm, seed, value) for arm, values in dice.items() for seed, value in enumerate(values)]
    worst, spread = measure_endpoints(runs, {"worst_seed": 0, "spread": 0}, test="welch")
    for endpoint in (worst, spread):
        assert endpoint.notes == ("Left out of T, 5 cases: seeds that one arm lacks (4).",)
    figures = worst.rows[0].figures
    assert worst.rows[0].effect == pytest.approx(figures["Parts2Whole"] - figures["scratch"])
    figures = spread.rows[0].figures
    assert spread.rows[0].effect == pytest.approx(figures["Parts2Whole"] / figures["scratch"])
