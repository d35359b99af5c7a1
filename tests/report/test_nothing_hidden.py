"""The page says what it leaves out, and of whom it speaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_page import Reader

from parts2whole.report.contrast import pretraining_names
from parts2whole.report.curves import overlay_charts, run_charts
from parts2whole.report.page import write_report
from parts2whole.report.runs import read_run
from parts2whole.report.sections import case_tables
from parts2whole.report.summary import judge_pretraining, total_cost

MakeRun = Callable[..., Path]


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_loss_that_is_no_longer_finite_is_not_told_by_an_earlier_one(
    tmp_path: Path, pretrained: MakeRun
) -> None:
    folder = pretrained(tmp_path / "run", finished=False)
    log = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines = [line | ({"loss": None} if line["step"] > 120 else {}) for line in lines]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    verdict = judge_pretraining(read_run(folder))
    assert (verdict.tone, verdict.headline) == ("bad", "The loss is no longer finite at step 200")
    assert "at step 120" in verdict.text


def test_two_runs_of_one_folder_name_are_told_apart(tmp_path: Path, pretrained: MakeRun) -> None:
    folders = [pretrained(tmp_path / place / "pretrain", panel=False) for place in ("a", "b")]
    runs = [read_run(folder) for folder in folders]
    names = pretraining_names(runs)
    assert [names[folder] for folder in folders] == ["a/pretrain", "b/pretrain"]
    second = pretrained(tmp_path / "c", panel=False, method="SimCLR")
    log = second / "metrics.jsonl"
    log.write_text(log.read_text().replace("baseline_", "other_"))
    runs.insert(0, read_run(second))
    colours = {
        s.name: s.colour for chart in overlay_charts(runs, pretraining_names(runs)) for s in chart.series
    }
    assert [colours[f"{place}/pretrain"] for place in "ab"] == [
        1,
        2,
    ]  # the place among all runs, as elsewhere


def test_curves_are_of_the_metric_that_the_study_is_judged_by(tmp_path: Path, finetuned: MakeRun) -> None:
    folder = finetuned(tmp_path / "run", monitor="hd95_mm_mean", test={"hd95_mm_mean": 3.0, "dice_mean": 0.8})
    log = folder / "metrics.jsonl"
    log.write_text(log.read_text().replace('"dice_mean"', '"hd95_mm_mean": 4.5, "dice_mean"'))
    assert "95" in run_charts(read_run(folder))[0].series[0].name


def test_runs_of_two_machines_are_both_told(tmp_path: Path, finetuned: MakeRun) -> None:
    folders = [finetuned(tmp_path / arm, arm=arm, task_name="T") for arm in ("scratch", "ours")]
    change(folders[1] / "environment.json", cpu_count=64, packages={"parts2whole": "0.1.0", "torch": "2.9.0"})
    text = Reader(write_report(tmp_path)).text
    assert "2.13.0" in text
    assert "2.9.0" in text
    (folders[0] / "environment.json").unlink()
    page = Reader(write_report(tmp_path))
    assert "Training 100 steps" not in page.text  # no other fact in its place


def test_worst_cases_say_how_many_were_scored_and_how_often(tmp_path: Path, finetuned: MakeRun) -> None:
    for seed, rows in enumerate(("a,0.5\nb,0.9\n", "a,0.7\nc,\n")):
        folder = finetuned(tmp_path / str(seed), seed=seed, test={"dice_mean": 0.7})
        (folder / "test_cases.csv").write_text(f"case,dice_mean\n{rows}")
    (table,) = case_tables([read_run(tmp_path / str(seed)) for seed in range(2)])
    assert [row["case"] for row in table["rows"]] == ["a", "b"]
    assert (table["total"], table["unscored"], table["runs"], table["share"]) == (3, 1, (1, 2), True)
    text = Reader(write_report(tmp_path)).text
    assert (
        "2 of 3 test cases with the worst Dice mean, mean over the 1 to 2 runs that each was tested in. 1 have none."
        in text
    )


def test_a_distance_has_no_bar_of_a_share(tmp_path: Path, finetuned: MakeRun) -> None:
    folder = finetuned(tmp_path / "run", test={"assd_mm": 3.0})
    (folder / "test_cases.csv").write_text("case,assd_mm\na,0.4\nb,5.0\n")
    assert not [tag for tag, about in Reader(write_report(folder)).tags if about.get("class") == "bar"]


def test_pictures_that_do_not_fit_are_counted(
    tmp_path: Path, pretrained: MakeRun, finetuned: MakeRun
) -> None:
    picture = next((pretrained(tmp_path / "other") / "panels").glob("*.png")).read_bytes()
    for place in range(4):
        panels = finetuned(tmp_path / "runs" / str(place), seed=place) / "panels"
        panels.mkdir()
        for step in range(3):
            (panels / f"step-{step}.png").write_bytes(picture)
    text = Reader(write_report(tmp_path / "runs")).text
    assert "pictures left out, to fit the page: 4 more in the runs' folders" in text


def test_what_stands_below_a_run_is_counted(tmp_path: Path, pretrained: MakeRun, finetuned: MakeRun) -> None:
    folder = pretrained(tmp_path / "run")
    assert "Not on this page" not in Reader(write_report(folder)).text
    finetuned(folder / "ft")
    assert "Not on this page: 1 run in folders below this one" in Reader(write_report(folder)).text


def test_a_time_that_is_not_known_is_not_zero(tmp_path: Path, finetuned: MakeRun) -> None:
    for place, seconds in enumerate((3600.0, None, None)):
        folder = finetuned(tmp_path / str(place), seed=place, duration_s=seconds)
        if seconds is None:
            (folder / "metrics.jsonl").write_text("")
    (row,) = total_cost([read_run(tmp_path / str(place)) for place in range(3)])
    assert row[1:4] == (3, "1 h 0 min and 2 unknown", "1 h 0 min")


def test_arms_of_one_method_are_called_alike_in_the_table_and_the_list(
    tmp_path: Path, finetuned: MakeRun
) -> None:
    method = {"class_path": "parts2whole.Parts2Whole", "init_args": {}}
    for place in ("a", "b"):
        for seed in range(2):
            finetuned(tmp_path / f"{place}{seed}", seed=seed, init=f"runs/{place}", method=method)
    results, listed = Reader(write_report(tmp_path)).text.split("All runs (4)")
    for name in ("Parts2Whole (a)", "Parts2Whole (b)"):
        assert name in results
        assert listed.count(name) == 2


def test_a_study_of_one_arm_speaks_of_no_other(tmp_path: Path, finetuned: MakeRun) -> None:
    for seed in range(2):
        finetuned(tmp_path / str(seed), seed=seed, arm="scratch", task_name="T")
    assert "None" not in Reader(write_report(tmp_path)).text.split("Details")[0]


def test_unfinished_and_unknown_runs_are_told(tmp_path: Path, finetuned: MakeRun) -> None:
    finetuned(tmp_path / "done", arm="scratch", task_name="T")
    (finetuned(tmp_path / "going", seed=1) / "result.json").unlink()
    (tmp_path / "stray").mkdir()
    (tmp_path / "stray" / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 1.0}\n')
    text = Reader(write_report(tmp_path)).text
    assert "2 of 3 runs are not finished" in text
    assert "Of fine-tunings that aren't finished only a page of their own (report) shows the curves." in text
    assert "0 pre-training, 2 fine-tuning, 1 other" in text
    assert "Not drawn, as it can't be told what they are: stray" in text


@pytest.mark.parametrize("classes", [3, 12])
def test_all_test_figures_of_a_run_are_on_its_page(tmp_path: Path, finetuned: MakeRun, classes: int) -> None:
    test = {"dice_mean": 0.5} | {f"dice_{place}": 0.25 + place / 64 for place in range(classes)}
    text = Reader(write_report(finetuned(tmp_path / "run", test=test))).text
    for name, value in test.items():
        assert f"{name}: {value}" in text
