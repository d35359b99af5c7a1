"""Results tables: means, marks, tests and all the formats they are written in."""

from __future__ import annotations

import csv
import io
import statistics
from typing import Any

import pytest
from scipy import stats

from parts2whole.report.formats import format_p, to_csv, to_html, to_latex, to_markdown, to_text
from parts2whole.report.make_table import make_table
from parts2whole.report.marks import TableError
from parts2whole.report.tables import BEST_OTHER, Table, sort_arms

VALUES = {
    "scratch": [0.70, 0.72, 0.69, 0.71, 0.73],
    "Autoencoder": [0.742, 0.751, 0.733, 0.758, 0.749],
    "Parts2Whole": [0.748, 0.749, 0.741, 0.753, 0.757],
}


def rows_of(values: dict[str, list[float]], **common: Any) -> list[dict[str, Any]]:
    common = {"task": "Liver", "metric": "dice_mean", "fraction": 0.1, "labelled": 12} | common
    return [
        common | {"arm": arm, "seed": seed, "value": value}
        for arm, seeds in values.items()
        for seed, value in enumerate(seeds)
    ]


@pytest.fixture
def table() -> Table:
    return make_table(rows_of(VALUES))


def test_means_marks_and_contrasts_agree_with_scipy(table: Table) -> None:
    (row,) = table.rows
    cell = row.cells["scratch"]
    assert (cell.mean, cell.sd, cell.n) == (
        pytest.approx(statistics.mean(VALUES["scratch"])),
        pytest.approx(statistics.stdev(VALUES["scratch"])),
        5,
    )
    assert [arm for arm, cell in row.cells.items() if cell.best] == ["Parts2Whole"]
    assert [arm for arm, cell in row.cells.items() if cell.equivalent] == ["Autoencoder"]
    assert table.rivals == ("scratch", BEST_OTHER)
    for rival, arm in (("scratch", "scratch"), (BEST_OTHER, "Autoencoder")):
        contrast = row.differences[rival]
        assert contrast.against == arm
        assert contrast.p == pytest.approx(stats.ttest_rel(VALUES["Parts2Whole"], VALUES[arm]).pvalue)
        assert contrast.difference == pytest.approx(
            statistics.mean(VALUES["Parts2Whole"]) - statistics.mean(VALUES[arm])
        )


def test_one_sided_asks_whether_the_focus_is_better() -> None:
    table = make_table(rows_of(VALUES), alternative="greater", against="scratch")
    expected = stats.ttest_rel(VALUES["Parts2Whole"], VALUES["scratch"], alternative="greater").pvalue
    assert table.rows[0].differences["scratch"].p == pytest.approx(expected)
    assert "one-sided" in " ".join(table.notes)


def test_small_values_are_best_where_distance_is_measured() -> None:
    distances = {arm: [2 - v for v in values] for arm, values in VALUES.items()}
    table = make_table(rows_of(distances, metric="surface_distance_mean"), alternative="greater")
    (row,) = table.rows
    assert row.cells["Parts2Whole"].best
    assert not row.percent
    contrast = row.differences["scratch"]
    assert contrast.difference < 0
    assert contrast.p is not None
    assert contrast.p < 0.01


def test_a_paired_test_uses_the_seeds_that_both_arms_have() -> None:
    rows = [row for row in rows_of(VALUES) if not (row["arm"] == "scratch" and row["seed"] == 1)]
    (row,) = make_table(rows).rows
    contrast = row.differences["scratch"]
    pairs = [
        (a, b)
        for i, (a, b) in enumerate(zip(VALUES["Parts2Whole"], VALUES["scratch"], strict=True))
        if i != 1
    ]
    assert contrast.n == 4
    assert contrast.difference == pytest.approx(statistics.mean(a - b for a, b in pairs))
    assert contrast.sd == pytest.approx(statistics.stdev(a - b for a, b in pairs))
    assert [cell.n for cell in row.cells.values()] == [4, 4, 4]
    assert row.cells["Parts2Whole"].mean == pytest.approx(statistics.mean(a for a, _ in pairs))


@pytest.mark.parametrize(
    "values", [{"scratch": [0.7], "Parts2Whole": [0.8]}, {"a": [0.5, 0.5], "b": [0.5, 0.5]}]
)
def test_what_can_not_be_tested_gets_no_p(values: dict[str, list[float]]) -> None:
    table = make_table(rows_of(values))
    assert [contrast.p for contrast in table.rows[0].differences.values()] == [None]
    assert not any(cell.equivalent for cell in table.rows[0].cells.values())
    assert any("No p-value" in note for note in table.notes)
    for written in (to_text(table), to_markdown(table), to_latex(table), to_csv(table), to_html(table)):
        assert "nan" not in written.lower()


def test_one_arm_has_nothing_to_be_tested_against() -> None:
    table = make_table(rows_of({"scratch": [0.7, 0.8]}))
    assert table.rivals == ()
    assert not table.rows[0].cells["scratch"].best
    assert "nothing to test against" in table.notes[1]
    assert "75.00 ± 7.07" in to_markdown(table)


def test_rows_are_in_order_and_keep_their_labels() -> None:
    rows = rows_of(VALUES, fraction=1.0, labelled=120) + rows_of(VALUES)
    counted = rows_of(VALUES, fraction=None, labelled=20) + rows_of(VALUES, fraction=None, labelled=5)
    assert [row.labels for row in make_table(rows).rows] == ["10 % (12)", "100 % (120)"]
    assert [row.labels for row in make_table(counted).rows] == ["5 cases", "20 cases"]


def test_the_main_metric_is_the_default() -> None:
    rows = [row | {"main": True} for row in rows_of(VALUES)]
    rows += [row | {"main": False} for row in rows_of(VALUES, metric="iou_mean")]
    assert [row.metric for row in make_table(rows).rows] == ["dice_mean"]
    assert [row.metric for row in make_table(rows, metric="iou_mean").rows] == ["iou_mean"]


def test_equivalence_can_be_tested_for() -> None:
    narrow, wide = (make_table(rows_of(VALUES), margin=margin) for margin in (0.001, 0.02))
    assert not narrow.rows[0].cells["Autoencoder"].equivalent
    assert wide.rows[0].cells["Autoencoder"].equivalent
    assert not wide.rows[0].cells["scratch"].equivalent
    assert "within ±2 points (two one-sided paired t-tests, α = 0.05)" in wide.notes[1]


def test_a_margin_is_told_in_the_unit_of_the_table_and_one_for_all_shares_is_refused() -> None:
    """VALUES are shares, shown as percentages; distances are in mm."""
    apart = {arm: [10 * v for v in values] for arm, values in VALUES.items()}
    distances = rows_of(apart, metric="assd_mm_mean", task="Lung")
    assert "within ±0.5 (two" in make_table(distances, margin=0.5).notes[1]
    assert "within ±1 point (two" in make_table(rows_of(VALUES), margin=0.01).notes[1]
    mixed = make_table(rows_of(VALUES) + distances, margin=0.02)
    assert "within ±0.02 (±2 points of shares) (two" in mixed.notes[1]
    assert "within ±2 (two" in make_table(distances, margin=2).notes[1]
    for rows in (rows_of(VALUES), rows_of(VALUES) + distances):
        with pytest.raises(TableError, match="a margin of 1 holds any difference of shares"):
            make_table(rows, margin=1)


def test_a_comparison_with_a_best_other_that_has_a_name_is_one() -> None:
    """In Liver the best other is Autoencoder, in Lung scratch: three tests, not four."""
    better = VALUES | {"scratch": [0.01 + value for value in VALUES["Autoencoder"]]}
    table = make_table(rows_of(VALUES) + rows_of(better, task="Lung"))
    (note,) = (note for note in table.notes if "Holm" in note)
    assert "these 3 comparisons" in note
    alone = {arm: better[arm] for arm in ("scratch", "Parts2Whole")} | {"zero": [0.0] * 5}
    assert not any("Holm" in note for note in make_table(rows_of(alone)).notes)


def distances_of(values: dict[str, list[float]], cases: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    found = rows_of(values, metric="hd95_mm_liver")
    return [row | {"cases": cases[row["arm"]]} for row in found]


def test_over_how_many_cases_distances_are_is_told() -> None:
    values = {"scratch": [9.0, 8.0], "Parts2Whole": [4.0, 3.0]}
    few = make_table(distances_of(values, {"scratch": (10, 10), "Parts2Whole": (1, 10)}))
    (note,) = (note for note in few.notes if "distance" in note)
    assert note.endswith(
        "test cases of all seeds in which none is undefined: Liver, HD95 mm liver, 10 % (12), scratch 20 of 20, Parts2Whole 2 of 20."
    )
    whole = make_table(distances_of(values, {"scratch": (10, 10), "Parts2Whole": (10, 10)}))
    assert not any("distance" in note for note in whole.notes)


def test_correction_for_many_comparisons_is_told() -> None:
    rows = rows_of(VALUES) + rows_of(VALUES, task="Lung")
    (note,) = (note for note in make_table(rows).notes if "Holm" in note)
    assert "these 4 comparisons" in note
    assert "2 of them stay" in note


def test_mistakes_are_named() -> None:
    with pytest.raises(TableError, match="there is no test 'chi'; there are paired"):
        make_table(rows_of(VALUES), test="chi")
    with pytest.raises(TableError, match="greater"):
        make_table(rows_of(VALUES), alternative="less")
    with pytest.raises(TableError, match="alpha"):
        make_table(rows_of(VALUES), alpha=5)
    with pytest.raises(TableError, match="no results"):
        make_table([])
    with pytest.raises(TableError, match="for metric 'nothing'"):
        make_table(rows_of(VALUES), metric="nothing")
    with pytest.raises(TableError, match="'simclr' is not an arm; there are scratch"):
        make_table(rows_of(VALUES), focus="simclr")
    with pytest.raises(TableError, match="run twice"):
        make_table(rows_of(VALUES) + rows_of(VALUES))


def test_arms_are_sorted_as_they_are_read() -> None:
    assert sort_arms({"SimCLR", "Parts2Whole", "scratch"}) == ("scratch", "SimCLR", "Parts2Whole")


@pytest.mark.parametrize("write", [to_text, to_markdown, to_latex, to_html])
def test_every_format_says_which_test_it_is(table: Table, write: Any) -> None:
    written = " ".join(write(table).replace("&nbsp;", " ").split())
    for text in ("paired t-test", "two-sided", "n = 5", "0.05", "74.96"):
        assert text in written
    assert "α" in written or r"\alpha" in written


def test_a_table_wider_than_the_terminal_has_a_line_an_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ("scratch", *(f"Some quite long method {n}" for n in range(1, 7)), "Parts2Whole")
    values = {name: [0.50 + n / 100, 0.51 + n / 100] for n, name in enumerate(names)}
    wide = make_table(rows_of(values) + rows_of(values, fraction=1.0, labelled=120))
    lines = to_text(wide).splitlines()
    assert max(map(len, lines)) <= 80
    for n, name in enumerate(names):  # in both blocks, with its own mean
        assert len([line for line in lines if name in line and f"{50.5 + n:.2f} ± 0.71" in line]) == 2
    assert len([line for line in lines if "Parts2Whole − scratch" in line and "+7.00" in line]) == 2
    assert (
        len([line for line in lines if "Parts2Whole − Some quite long method 6" in line and "+1.00" in line])
        == 2
    )
    flat = to_text(wide, width=400).splitlines()
    assert [len([line for line in flat if f"{50.5 + n:.2f}" in line]) for n in range(8)] == [2] * 8
    assert len([line for line in flat if "56.50" in line and "57.50" in line]) == 2  # a line for all arms


def test_markdown(table: Table) -> None:
    lines = to_markdown(table).splitlines()
    assert lines[0].startswith("| Task | Metric | Labels | scratch | Autoencoder | Parts2Whole |")
    assert "| 10 % (12) | 71.00 ± 1.58 |" in lines[2]
    assert "**74.96 ± 0.60**" in lines[2]
    assert " ≈ |" in lines[2]
    assert len({line.count("|") for line in lines[:3]}) == 1


def test_latex_escapes_and_marks(table: Table) -> None:
    written = to_latex(make_table(rows_of({"a_b": [0.5, 0.6, 0.7], "c&d%": [0.5, 0.61, 0.68]})))
    assert r"a\_b" in written
    assert r"c\&d\%" in written
    assert r"\textbf{" in written
    assert r"\textcolor{gray}{" in written
    assert "±" not in written
    assert to_latex(table).count(r"\\") == 2


def test_csv_is_exact_and_carries_the_test(table: Table) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [line["arm"] for line in lines] == ["scratch", "Autoencoder", "Parts2Whole"]
    assert float(lines[2]["mean"]) == table.rows[0].cells["Parts2Whole"].mean
    assert [line["best"] for line in lines] == ["0", "0", "1"]
    assert float(lines[0]["p_focus"]) == table.rows[0].differences["scratch"].p
    assert {(line["test"], line["alternative"], line["alpha"]) for line in lines} == {
        ("paired", "two-sided", "0.05")
    }


def test_names_are_escaped() -> None:
    evil = "<script>alert(1)</script>'\"|*"
    table = make_table(rows_of({evil: [0.5, 0.6, 0.7], "b": [0.4, 0.5, 0.65]}, task=evil))
    assert "<script" not in to_html(table)
    assert "<script" not in to_markdown(table).replace("\\<script", "")
    assert len(table.rows) == 1
    assert "[bold]x" in to_text(make_table(rows_of({"[bold]x": [0.5, 0.6]})))


@pytest.mark.parametrize(
    ("p", "text"), [(None, "–"), (0.00001, "< 0.0001"), (0.0011, "0.0011"), (0.5, "0.5000"), (1.0, "1.0000")]
)
def test_p_values(p: float | None, text: str) -> None:
    assert format_p(p) == text


@pytest.mark.parametrize("test", ["student", "welch", "wilcoxon", "permutation", "permutation-independent"])
def test_other_tests_are_offered(test: str) -> None:
    table = make_table(rows_of(VALUES), test=test, alternative="greater")
    contrast = table.rows[0].differences["scratch"]
    assert contrast.p is not None
    assert contrast.p < 0.05
    assert (contrast.sd is None) == (test in ("student", "welch", "permutation-independent"))
    assert contrast.description.split(",")[0] in " ".join(table.notes)


POSTER_ARMS = ("Scratch", "I3D", "NiftyNet", "MedicalNet", "Models Genesis", "Parts2Whole")
POSTER = {
    "NCC": ((94.25, 5.07), (98.26, 0.27), (94.14, 4.57), (95.80, 0.49), (97.90, 0.57), (98.67, 0.23)),
    "NCS": ((74.05, 1.97), (71.58, 0.55), (52.98, 2.05), (75.68, 0.32), (77.62, 0.64), (77.35, 0.61)),
    "LCS": ((77.82, 3.87), (70.65, 4.26), (83.23, 1.05), (85.52, 0.58), (84.17, 1.93), (86.70, 0.62)),
    "ECC": ((79.99, 8.06), (80.55, 1.11), (77.33, 8.05), (86.43, 1.44), (87.20, 2.87), (86.14, 2.97)),
    "BMS": ((63.91, 1.41), (67.83, 0.75), (60.78, 1.60), (66.09, 1.35), (68.08, 1.15), (68.33, 0.41)),
}


def ten_values(mean: float, sd: float) -> list[float]:
    """Ten values of exactly this mean and standard deviation."""
    raw = [i - 4.5 for i in range(10)]
    scale = sd / statistics.stdev(raw)
    return [mean + scale * value for value in raw]


def test_the_posters_table_comes_out_as_on_the_poster() -> None:
    rows = [
        {"task": task, "metric": "auc", "arm": arm, "seed": seed, "value": value / 100}
        for task, cells in POSTER.items()
        for arm, (mean, sd) in zip(POSTER_ARMS, cells, strict=True)
        for seed, value in enumerate(ten_values(mean, sd))
    ]
    table = make_table(rows, arms=POSTER_ARMS, focus="Parts2Whole", test="student", alternative="observed")
    assert table.arms == POSTER_ARMS
    by_task = {row.task: row for row in table.rows}
    # Computed independently from the printed means and deviations; the poster prints .0011 .1709 .0002 .2126 .2654.
    expected = {"NCC": 0.0009, "NCS": 0.1735, "LCS": 0.0002, "ECC": 0.2138, "BMS": 0.2627}
    for task, p in expected.items():
        contrast = by_task[task].differences[BEST_OTHER]
        assert contrast.p == pytest.approx(p, abs=0.00005), task
    marked = {task: {a for a, c in row.cells.items() if c.equivalent} for task, row in by_task.items()}
    assert marked == {
        "NCC": set(),
        "NCS": {"Parts2Whole"},
        "LCS": set(),
        "ECC": {"MedicalNet", "Parts2Whole"},
        "BMS": {"Models Genesis"},
    }
    assert r"\textcolor{gray}{77.35 $\pm$ 0.61}" in to_latex(table)
    assert "one-sided, in favour of the better mean" in to_markdown(table)
    assert "n = 10 seeds per arm" in to_markdown(table)


def test_seeds_say_what_they_vary() -> None:
    rows = rows_of(VALUES)
    for row in rows:
        row["weights"] = "scratch" if row["arm"] == "scratch" else f"runs/{row['arm']}"
        row["subset"] = f"cases of {row['seed']}"
    last = make_table(rows).notes[-1]
    assert "which training cases are labelled (the same in every arm)" in last
    assert "Pre-trained weights are the same in all seeds" in last
    for row in rows:
        row["subset"] = "all"
        row["weights"] += "" if row["arm"] == "scratch" else f"-{row['seed']}"
    last = make_table(rows).notes[-1]
    assert "which training cases" not in last
    assert "the pre-training itself" in last
    assert "the same in all seeds" not in last


def seeded(values: dict[str, dict[int, float]], **common: Any) -> list[dict[str, Any]]:
    common = {"task": "Liver", "metric": "dice_mean", "fraction": 0.1, "labelled": 12} | common
    return [
        common | {"arm": arm, "seed": seed, "value": value, "run": f"{arm}-{seed}"}
        for arm, seeds in values.items()
        for seed, value in seeds.items()
    ]


CROSSED = {"scratch": {0: 0.70, 1: 0.72, 2: 0.71}, "Parts2Whole": {1: 0.75, 2: 0.74, 3: 0.40}}
"""Over their own seeds scratch is ahead, over the seeds that both have it is behind."""


def test_means_and_difference_of_a_row_are_over_the_same_seeds() -> None:
    table = make_table(seeded(CROSSED))
    (row,) = table.rows
    scratch, ours = row.cells["scratch"], row.cells["Parts2Whole"]
    assert (scratch.mean, ours.mean) == (pytest.approx(0.715), pytest.approx(0.745))
    assert row.differences["scratch"].difference == pytest.approx(ours.mean - scratch.mean)
    assert ours.best
    (said,) = (note for note in table.notes if note.startswith("Missing"))
    assert said == (
        "Missing: Liver, Dice mean, 10 % (12), scratch has no seed 3, Parts2Whole has no seed 0: means and "
        "differences are over seeds 1, 2."
    )
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [line["seeds"] for line in lines] == ["1 2", "1 2"]


@pytest.mark.parametrize("test", ["student", "welch", "permutation-independent"])
def test_without_pairs_every_mean_is_over_its_own_seeds_and_that_is_said(test: str) -> None:
    table = make_table(seeded(CROSSED), test=test)
    (row,) = table.rows
    assert [cell.mean for cell in row.cells.values()] == [pytest.approx(0.71), pytest.approx(0.63)]
    assert row.differences["scratch"].difference == pytest.approx(0.63 - 0.71)
    assert any("has no seed 0: means are over an arm's own seeds" in note for note in table.notes)


def test_arms_without_a_common_seed_are_said_to_have_none() -> None:
    table = make_table(
        seeded({"scratch": {0: 0.7, 1: 0.72}, "SimCLR": {2: 0.8}, "Parts2Whole": {1: 0.75, 2: 0.6}})
    )
    (row,) = table.rows
    assert [cell.n for cell in row.cells.values()] == [2, 1, 2]
    assert row.differences["scratch"].n == 1
    assert any("no seed is in all arms" in note for note in table.notes)


def test_an_undefined_value_is_named_and_its_seed_is_left_out_everywhere() -> None:
    values = {"scratch": {0: 0.70, 1: 0.72, 2: 0.9}, "Parts2Whole": {0: 0.71, 1: 0.74, 2: float("nan")}}
    table = make_table(seeded(values))
    (row,) = table.rows
    assert row.cells["scratch"].mean == pytest.approx(0.71)
    assert row.differences["scratch"].difference == pytest.approx(0.015)
    assert (
        "Undefined, and left out: Liver, Dice mean, 10 % (12), Parts2Whole seed 2 (Parts2Whole-2)."
        in table.notes
    )
    for written in (to_text(table), to_markdown(table), to_latex(table), to_csv(table), to_html(table)):
        assert "nan" not in written.lower()


def test_an_arm_without_any_figure_is_named_and_hides_no_other() -> None:
    nothing = {0: float("nan"), 1: float("nan")}
    table = make_table(seeded({"scratch": {0: 0.70, 1: 0.72}, "Parts2Whole": nothing}))
    (row,) = table.rows
    assert list(row.cells) == ["scratch"]
    assert row.cells["scratch"].n == 2
    assert any("Parts2Whole seed 0 (Parts2Whole-0), Parts2Whole seed 1" in note for note in table.notes)
    with pytest.raises(TableError, match="undefined in all of 2 runs"):
        make_table(seeded({"Parts2Whole": nothing}))


def test_the_runs_of_a_cell_that_was_run_twice_are_named() -> None:
    with pytest.raises(TableError, match=r"run twice \(scratch-0, scratch-0\); keep one"):
        make_table(seeded({"scratch": {0: 0.7}}) + seeded({"scratch": {0: 0.8}}))


def test_of_equal_means_none_is_better() -> None:
    (row,) = make_table(rows_of({"a": [0.1, 0.2, 0.3], "b": [0.3, 0.2, 0.1], "c": [0.1, 0.1, 0.1]})).rows
    assert [arm for arm, cell in row.cells.items() if cell.best] == ["a", "b"]


def test_test_cases_that_differ_are_not_said_to_be_the_same() -> None:
    rows = rows_of(VALUES)
    for row in rows:
        row["settings"] = {"test cases": "#1" if row["seed"] else "#2"}
    assert "Test cases are not the same in all" in make_table(rows).notes[-1]
    for row in rows:
        row["settings"] = {"test cases": "#1"}
    assert "Test cases are the same in all" in make_table(rows).notes[-1]


def test_labelled_cases_that_differ_between_arms_are_not_said_to_be_the_same() -> None:
    rows = rows_of(VALUES)
    for row in rows:
        row["subset"] = f"cases of {row['seed']}" + (
            "!" if row["arm"] == "scratch" and row["seed"] == 3 else ""
        )
    assert "(not the same in every arm)" in make_table(rows).notes[-1]


def test_settings_in_which_arms_differ_stand_under_the_table() -> None:
    rows = rows_of(VALUES) + rows_of(VALUES, task="Lung")
    for row in rows:
        steps = 50 if (row["arm"], row["task"]) == ("scratch", "Lung") else 100
        row["settings"] = {"network": "UNet3D", "steps": str(steps), "batch_size": "4"}
    notes = make_table(rows).notes
    assert [note for note in notes if "more than their start" in note] == [
        "Arms differ in more than their start in Lung, Dice mean, 10 % (12): "
        "steps (scratch 50; Autoencoder 100; Parts2Whole 100)."
    ]


def test_the_arm_of_interest_is_never_scratch_by_itself():
    rows = [
        {
            "task": "T",
            "metric": "dice_mean",
            "labelled": 3,
            "arm": arm,
            "seed": seed,
            "value": value + seed / 100,
        }
        for arm, value in (("mine", 0.8), ("scratch", 0.7))
        for seed in range(3)
    ]
    assert make_table(rows, arms=["mine", "scratch"]).focus == "mine"
    assert make_table(rows, arms=["scratch", "mine"]).focus == "mine"
    assert make_table(rows[3:], arms=["scratch"]).focus is None
