"""A distance in mm is never shown as a percentage, be it below 1 mm; a share is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from parts2whole.report.curves import run_charts
from parts2whole.report.formats import to_html, to_latex, to_markdown, to_text
from parts2whole.report.make_table import make_table
from parts2whole.report.page import write_report
from parts2whole.report.runs import read_run
from parts2whole.report.summary import judge_finetuning
from parts2whole.report.tables import higher_is_better

MakeRun = Callable[..., Path]
DISTANCES = ("hd95_mm_mean", "assd_mm_1", "surface_distance_mean", "gap_mm")
SHARES = ("dice_mean", "surface_dice_1", "auc")


def shown(metric: str, write: Callable) -> str:
    values = {"scratch": (0.5, 0.7), "Parts2Whole": (0.25, 0.35)}
    rows = [
        {"task": "T", "metric": metric, "arm": arm, "seed": seed, "value": value, "labelled": 12}
        for arm, pair in values.items()
        for seed, value in enumerate(pair)
    ]
    return write(make_table(rows)).replace("\\%", "%")  # as LaTeX has it


@pytest.mark.parametrize("write", [to_text, to_markdown, to_latex, to_html])
@pytest.mark.parametrize("metric", DISTANCES)
def test_a_distance_in_a_table(metric, write):
    text = shown(metric, write)
    assert "0.600" in text
    assert "0.300" in text
    assert "60.0" not in text
    assert ", %" not in text


@pytest.mark.parametrize("write", [to_text, to_markdown, to_latex, to_html])
@pytest.mark.parametrize("metric", SHARES)
def test_a_share_in_a_table(metric, write):
    text = shown(metric, write)
    assert "60.00" in text
    assert "30.00" in text
    assert ", %" in text


@pytest.mark.parametrize("metric", DISTANCES)
def test_a_smaller_distance_is_better(metric):
    assert "**0.300 ± 0.0707**" in shown(metric, to_markdown)


@pytest.mark.parametrize("metric", DISTANCES)
def test_a_distance_on_the_page_of_a_run(tmp_path: Path, finetuned: MakeRun, metric):
    run = finetuned(tmp_path / "run", test={"dice_mean": 0.8, metric: 0.412})
    text = judge_finetuning(read_run(run)).text
    assert "0.412" in text
    assert "41.2" not in text
    assert "41.2" not in write_report(run).read_text()


@pytest.mark.parametrize(("metric", "percent"), [("hd95_mm_mean", False), ("dice_mean", True)])
def test_a_distance_in_a_chart(tmp_path: Path, finetuned: MakeRun, metric, percent):
    run = finetuned(tmp_path / "run", validation={metric: 0.4})
    log = run / "metrics.jsonl"
    log.write_text(log.read_text().replace("dice_mean", metric))
    (chart,) = [one for one in run_charts(read_run(run)) if metric.split("_")[0] in one.value.lower()]
    assert chart.percent is percent


@pytest.mark.parametrize(("metric", "left_out"), [("dice", "organ_8"), ("hd95_mm", "organ_0")])
def test_of_many_classes_a_chart_shows_the_worst_and_says_so(
    tmp_path: Path, finetuned: MakeRun, metric, left_out
):
    run = finetuned(tmp_path / "run", test={"dice_mean": 0.5} | {f"dice_organ_{i}": 0.5 for i in range(9)})
    scores = {f"{metric}_mean": 0.4} | {f"{metric}_organ_{i}": i / 10 for i in range(9)}
    lines = [{"step": step, "split": "validation", "loss": 1, **scores} for step in (50, 100)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    chart = run_charts(read_run(run))[0]
    assert chart.title == "On the validation cases: mean and the worst 5 of 9 classes"
    names = " ".join(series.name for series in chart.series).replace(" ", "_")
    assert len(chart.series) == 6
    assert "mean" in chart.series[0].name
    assert left_out not in names
    assert "organ_4" in names
    assert "3 more below" in judge_finetuning(read_run(run)).text


def test_a_class_of_any_name_leaves_the_direction_of_its_metric():
    assert higher_is_better("dice_bone_loss")
    assert higher_is_better("surface_dice_error_of_mm")
    assert not higher_is_better("hd95_mm_dice")
    assert not higher_is_better("dice_loss")
