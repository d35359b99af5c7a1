"""Endpoints of a study, measured on small made-up runs whose figures are worked out by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from parts2whole.report.endpoints import ENDPOINTS, Judged, to_rows
from parts2whole.report.judge import measure_endpoints
from parts2whole.report.results import tabulate
from parts2whole.report.runs import Run, read_run
from parts2whole.report.verdict import conclude

MakeRun = Callable[..., Path]
SCRATCH = (0.60, 0.70, 0.66, 0.72)
OURS = (0.70, 0.72, 0.71, 0.73)


@pytest.fixture
def make(tmp_path: Path, finetuned: MakeRun) -> Callable[..., list[Run]]:
    """Runs of some arms: their test Dice by number of labels and seed."""

    def runs(scores: Mapping[str, Mapping[int, Sequence[float]]], **changes: Any) -> list[Run]:
        made = []
        for arm, by_count in scores.items():
            for count, values in by_count.items():
                for seed, dice in enumerate(values):
                    init = "scratch" if arm.lower() == "scratch" else f"runs/{arm}"
                    folder = tmp_path / f"{len(list(tmp_path.iterdir()))}-{arm}"
                    about = {"arm": arm, "task_name": "Hippocampus"} | changes
                    finetuned(folder, dice=dice, seed=seed, cases=count, init=init, **about)
                    made.append(read_run(folder))
        return made

    return runs


def judged(runs: list[Run], name: str, **how: Any) -> list[Judged]:
    (endpoint,) = measure_endpoints(runs, {name: 0}, **how)
    return list(endpoint.rows)


def test_the_final_score_is_tested_as_in_the_table_and_corrected_over_label_counts(make: Any) -> None:
    runs = make({"scratch": {1: SCRATCH, 5: SCRATCH}, "Parts2Whole": {1: OURS, 5: SCRATCH[::-1]}})
    one, five = judged(runs, "final")
    ps = [stats.ttest_rel(OURS, SCRATCH).pvalue, stats.ttest_rel(SCRATCH[::-1], SCRATCH).pvalue]
    assert [one.p, five.p] == pytest.approx(ps)
    assert [one.holm, five.holm] == pytest.approx([2 * ps[0], max(2 * ps[0], ps[1])])
    assert (one.effect, one.n, one.family, one.labels) == (pytest.approx(0.045), 4, 2, "1 case")


def test_the_area_is_over_the_logarithm_of_labels_seed_by_seed(make: Any) -> None:
    runs = make(
        {
            "scratch": {1: (0.4, 0.5), 2: (0.6, 0.6), 4: (0.7, 0.8)},
            "Parts2Whole": {1: (0.6, 0.7), 2: (0.7, 0.8), 4: (0.7, 0.8, 0.9)},
        }
    )
    (endpoint,) = measure_endpoints(runs, {"area": 0})
    (row,) = endpoint.rows
    assert row.values["scratch"] == {0: pytest.approx(0.575), 1: pytest.approx(0.625)}
    assert row.values["Parts2Whole"] == {0: pytest.approx(0.675), 1: pytest.approx(0.775)}
    assert row.labels == "1 to 4 labelled cases"
    assert endpoint.notes == ("Hippocampus, Parts2Whole, seed 2: no whole curve, so it is left out.",)


def test_the_area_is_over_steps_where_there_is_one_number_of_labels(make: Any, tmp_path: Path) -> None:
    scores = {
        100: {"scratch": (0.2, 0.3), "ours": (0.5, 0.6)},
        400: {"scratch": (0.6, 0.7), "ours": (0.7, 0.6)},
    }
    runs = []
    for steps, by_arm in scores.items():
        for run in make({arm: {3: values} for arm, values in by_arm.items()}):
            runs.append(with_config(run, steps=steps))
    (row,) = judged(runs, "area")
    assert row.values["ours"] == {0: pytest.approx(0.6), 1: pytest.approx(0.6)}
    assert row.labels == "100 to 400 steps"


def with_config(run: Run, **changes: Any) -> Run:
    return dataclasses.replace(run, config=run.config | changes)


def with_curve(run: Run, scores: Sequence[float]) -> Run:
    path = run.folder / "metrics.jsonl"
    lines = [
        {"step": 10 * (place + 1), "time_s": 1.0, "split": "validation", "loss": 0.5, "dice_mean": score}
        for place, score in enumerate(scores)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return with_config(read_run(run.folder), steps=40)


def test_steps_to_90_are_counted_to_a_share_of_the_best_arm_and_never_is_the_last_step(make: Any) -> None:
    runs = make({"scratch": {3: (0.6, 0.6)}, "Parts2Whole": {3: (0.7, 0.7)}})
    # The best scores of Parts2Whole are 0.8 and 0.6, in the mean 0.70; those of scratch 0.62 and 0.64.  So: 0.63.
    curves = [(0.1, 0.3, 0.62, 0.60), (0.1, 0.3, 0.5, 0.64), (0.64, 0.7, 0.8, 0.7), (0.2, 0.4, 0.6, 0.59)]
    runs = [with_curve(run, curve) for run, curve in zip(runs, curves, strict=True)]
    (row,) = judged(runs, "steps_to_90")
    assert row.values == {"scratch": {0: 40.0, 1: 40.0}, "Parts2Whole": {0: 10.0, 1: 40.0}}
    assert row.censored == {"scratch": 1, "Parts2Whole": 1}  # scratch, seed 1, gets there at its last step
    assert (row.effect, row.higher) == (-15.0, False)
    assert row.p == 1.0  # two of four flips give as much, and both signs count


def test_without_a_validation_score_there_is_no_speed(make: Any) -> None:
    runs = make({"scratch": {3: (0.6, 0.6)}, "Parts2Whole": {3: (0.7, 0.7)}})
    for run in runs:
        (run.folder / "metrics.jsonl").write_text('{"step": 10, "split": "validation", "loss": 0.5}\n')
    (endpoint,) = measure_endpoints([read_run(run.folder) for run in runs], {"steps_to_90": 0})
    assert endpoint.rows == ()
    assert "Parts2Whole and scratch: no figure, so there is nothing to test" in " ".join(endpoint.notes)


def test_the_worst_seed_is_tested_by_swapping_arms_within_pairs(make: Any) -> None:
    runs = make({"scratch": {3: SCRATCH}, "Parts2Whole": {3: OURS}})
    (row,) = judged(runs, "worst_seed")
    assert row.figures == {"scratch": 0.60, "Parts2Whole": 0.70}
    assert row.effect == pytest.approx(0.10)
    # The minima differ by 0.10 or more only where 0.60 has 0.66 beside it and 0.70 or more is the other's worst:
    # 0.60 and 0.66 in one arm, 0.70 and 0.71 in the other; the pair of 0.70 and 0.72 is free, as is 0.72 and 0.73.
    assert row.p == pytest.approx(2 * 4 / 16)


def test_the_worst_tenth_is_of_patients_whose_cases_are_averaged_first(make: Any) -> None:
    runs = make({"scratch": {3: (0.5, 0.5)}, "Parts2Whole": {3: (0.6, 0.6)}})
    for run in runs:
        better = 0.1 * (run.result["arm"] == "Parts2Whole")
        scores = [("a", "p1", 0.2), ("b", "p1", 0.8), ("c", "p2", 0.4), ("d", "p3", 0.9)]
        text = "".join(f"{case},{score + better},{who}\n" for case, who, score in scores)
        (run.folder / "test_cases.csv").write_text("case,dice_mean,patient\n" + text)
    (row,) = judged([read_run(run.folder) for run in runs], "worst_tenth")
    assert row.figures == {"scratch": pytest.approx(0.4), "Parts2Whole": pytest.approx(0.5)}  # p2; p1 has 0.5
    assert row.why == "nothing varies"


def test_the_worst_tenth_of_a_classification_is_by_the_probability_of_the_true_class(make: Any) -> None:
    runs = make({"scratch": {3: (0.5, 0.5)}, "Parts2Whole": {3: (0.6, 0.6)}}, test={"auc": 0.7})
    for run in runs:
        (run.folder / "test_cases.csv").write_text("case,target,p_0,p_1\na,0,0.9,0.1\nb,1,0.8,0.2\n")
    endpoints = measure_endpoints([read_run(run.folder) for run in runs], {"final": 0, "worst_tenth": 0})
    (final,), (row,) = (endpoint.rows for endpoint in endpoints)
    assert row.figures["scratch"] == pytest.approx(0.2)
    assert (final.metric, row.metric) == ("auc", "probability_of_the_true_class")
    assert (row.higher, row.percent) == (True, True)


def test_the_worst_tenth_is_never_called_points_of_another_metric(make: Any) -> None:
    runs = make({"scratch": {3: (0.5,) * 6}, "Parts2Whole": {3: (0.6,) * 6}}, test={"auc": 0.7})
    for seed, run in enumerate(runs):
        sure = 0.5 + 0.01 * (seed % 6) + (0.15 + 0.001 * seed) * (run.result["arm"] == "Parts2Whole")
        (run.folder / "test_cases.csv").write_text(f"case,target,p_0,p_1\na,0,{sure},{1 - sure}\n")
    found = conclude(measure_endpoints([read_run(run.folder) for run in runs], {"worst_tenth": 0}))
    assert found is not None
    assert "points of probability of the true class over scratch" in found.headline
    assert "AUC" not in found.headline


MISSED = "case,dice_liver,dice_mean,hd95_mm_liver,hd95_mm_mean\n"


def with_distances(runs: Sequence[Run], found: Mapping[str, int]) -> list[Run]:
    """Runs that find the liver in so many of five cases; in a sixth there is none, and none is found."""
    for run in runs:
        count = found[run.result["arm"]]
        lines = [f"c{case},0.9,0.9,{5 + case},{5 + case}" for case in range(count)]
        lines += [f"c{case},0,0,," for case in range(count, 5)]
        (run.folder / "test_cases.csv").write_text(MISSED + "\n".join([*lines, "c5,,,,"]) + "\n")
    return [read_run(run.folder) for run in runs]


def test_distances_that_a_missed_structure_lacks_are_counted_under_the_table(make: Any) -> None:
    """Parts2Whole misses four of five livers: its mean is over one, and looks better."""
    arms = {"scratch": {3: (0.9, 0.9)}, "Parts2Whole": {3: (0.2, 0.2)}}
    test = {"hd95_mm_liver": 5.0, "dice_mean": 0.5}
    runs = with_distances(make(arms, test=test), {"scratch": 5, "Parts2Whole": 1})
    (note,) = (note for note in tabulate(runs, metric="hd95_mm_liver").notes if "distance" in note)
    assert note.endswith("HD95 mm liver, 3 cases, scratch 10 of 10, Parts2Whole 2 of 10.")
    assert not any("distance" in note for note in tabulate(runs).notes)  # of Dice


def test_there_is_no_worst_tenth_of_distances_that_the_worst_lack(make: Any) -> None:
    arms = {"scratch": {3: (0.9, 0.9)}, "Parts2Whole": {3: (0.2, 0.2)}}
    about: dict[str, Any] = {"test": {"hd95_mm_mean": 5.0}}
    runs = with_distances(make(arms, **about), {"scratch": 5, "Parts2Whole": 1})
    (endpoint,) = measure_endpoints(runs, {"worst_tenth": 0})
    assert endpoint.rows == ()
    assert endpoint.notes == (
        "Hippocampus: no worst tenth by HD95 mm mean, which the worst test cases lack: one of two masks is empty.",
    )
    whole = with_distances(runs, {"scratch": 5, "Parts2Whole": 5})
    (row,) = judged(whole, "worst_tenth")
    assert row.figures == {"scratch": 9.0, "Parts2Whole": 9.0}


def test_rounding_is_no_spread_over_seeds(make: Any) -> None:
    """Values that are one number, added up in other ways: neither a ratio nor a rank comes of their last digits."""
    noisy = (0.7, math.nextafter(0.7, 1), 0.7, math.nextafter(0.7, 0))
    runs = make({"scratch": {3: SCRATCH}, "Parts2Whole": {3: noisy}, "MoCo": {3: (0.7,) * 4}})
    (endpoint,) = measure_endpoints(runs, {"spread": 0})
    (row,) = endpoint.rows
    assert (row.figures["Parts2Whole"], row.figures["MoCo"], row.effect) == (0.0, 0.0, 0.0)
    assert endpoint.ranks["Parts2Whole"] == endpoint.ranks["MoCo"]
    still = make({"scratch": {4: (0.7,) * 4}, "Parts2Whole": {4: noisy}})
    (row,) = judged(still, "spread")
    assert (row.effect, row.p, row.why) == (None, None, "nothing varies")


def test_the_spread_is_tested_one_sided_with_a_ratio(make: Any) -> None:
    (row,) = judged(make({"scratch": {3: SCRATCH}, "Parts2Whole": {3: OURS}}), "spread")
    assert row.p == pytest.approx(stats.levene(OURS, SCRATCH, center="median").pvalue / 2)
    assert row.figures["scratch"] == pytest.approx(stats.tstd(SCRATCH))
    assert row.effect == pytest.approx(stats.tstd(OURS) / stats.tstd(SCRATCH))
    assert row.interval is not None
    assert row.interval[0] < row.effect < row.interval[1]


def test_an_arm_from_scratch_is_the_reference_whatever_it_is_called(make: Any) -> None:
    runs = make({"MoCo": {3: OURS}, "Scratch": {3: SCRATCH}, "Parts2Whole": {3: OURS}})
    (endpoint,) = measure_endpoints(runs, {"final": 0}, arms=("MoCo", "Scratch", "Parts2Whole"))
    assert (endpoint.focus, endpoint.reference) == ("Parts2Whole", "Scratch")
    (asked,) = measure_endpoints(runs, {"final": 0}, against="MoCo")
    assert asked.reference == "MoCo"
    assert measure_endpoints([run for run in runs if run.result["arm"] == "MoCo"], {"final": 0}) == ()


def test_too_few_seeds_and_undefined_figures_are_reasons(make: Any) -> None:
    (row,) = judged(make({"scratch": {3: (0.5,)}, "Parts2Whole": {3: (0.6,)}}), "final")
    assert (row.p, row.holm, row.why) == (None, None, "one seed only")
    runs = make({"scratch": {3: (0.5, 0.6), 5: (0.5, 0.6)}, "Parts2Whole": {3: (0.6, 0.8)}})
    undefined = make({"Parts2Whole": {5: (0.6, 0.7)}}, test={"dice_mean": None})
    (endpoint,) = measure_endpoints([*runs, *undefined], {"final": 0})
    assert [(row.labels, row.why, row.family) for row in endpoint.rows] == [
        ("3 cases", "", 1),
        ("5 cases", "Parts2Whole has no figure", 1),
    ]
    assert "Undefined, and left out: Hippocampus, Dice mean, 5 cases, Parts2Whole seed 0" in endpoint.notes[0]


def test_every_endpoint_is_one_row_an_arm_in_the_file(make: Any) -> None:
    runs = make({"scratch": {1: SCRATCH, 4: SCRATCH}, "Parts2Whole": {1: OURS, 4: OURS}})
    endpoints = measure_endpoints(runs, dict.fromkeys(ENDPOINTS, 0) | {"spread": 3})
    rows = to_rows(endpoints)
    assert [endpoint.name for endpoint in endpoints] == list(ENDPOINTS)
    assert len(rows) == 2 * (5 * 2 + 1)
    (late,) = {row["named_after_runs"] for row in rows if row["endpoint"] == "spread"}
    assert late == 3
    final = [row for row in rows if row["endpoint"] == "final" and row["arm"] == "Parts2Whole"]
    assert all(row["p_holm"] is not None and row["share_first"] > 0.5 for row in final)
    assert not any(isinstance(v, float) and math.isnan(v) for row in rows for v in row.values())
