"""What runs amount to, in words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from parts2whole.report.curves import overlay_charts, run_charts
from parts2whole.report.make_table import make_table
from parts2whole.report.runs import read_run
from parts2whole.report.summary import (
    describe_spec,
    format_duration,
    judge_comparison,
    judge_finetuning,
    judge_pretraining,
    list_facts,
)

MakeRun = Callable[..., Path]


def test_a_loss_below_the_baselines_is_good_news(tmp_path: Path, pretrained: MakeRun) -> None:
    verdict = judge_pretraining(read_run(pretrained(tmp_path / "run", loss=0.0124, panel=False)))
    assert verdict.tone == "good"
    assert verdict.headline == "Validation loss 0.0124, 38 % below the better trivial baseline"
    assert "0.03;" in verdict.text


@pytest.mark.parametrize(("loss", "tone"), [(0.0196, "weak"), (0.02, "bad"), (0.05, "bad")])
def test_a_collapse_is_said_loudly(tmp_path: Path, pretrained: MakeRun, loss: float, tone: str) -> None:
    verdict = judge_pretraining(read_run(pretrained(tmp_path / "run", loss=loss, panel=False)))
    assert verdict.tone == tone
    assert verdict.headline.startswith("Only 2 %" if tone == "weak" else "Collapsed")


def test_baselines_are_compared_with_the_error_of_the_reconstruction(
    tmp_path: Path, pretrained: MakeRun
) -> None:
    """The loss of such a run is more than that error, and would look like a collapse."""
    run = pretrained(tmp_path / "run", loss=0.5, panel=False, collapsed=False)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line | {"reconstruction": line["loss"] - 0.4876} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_run(run)
    assert (
        judge_pretraining(found).headline == "Validation loss 0.0124, 38 % below the better trivial baseline"
    )
    first, *others = run_charts(found)
    ends = {series.name: series.points[-1][1] for series in first.series}
    assert ends == pytest.approx(
        {"training": 0.0124, "validation": 0.0124, "mean whole": 0.03, "what the network sees": 0.02}
    )
    totals = [chart for chart in others if chart.title.startswith("Loss")]
    assert [chart.series[0].points[-1][1] for chart in totals] == [0.5, 0.5]
    (together,) = overlay_charts([found], {run: "ours"})
    assert together.series[0].points[-1][1] == pytest.approx(0.0124)


@pytest.mark.parametrize(
    ("step", "schedule", "headline"),
    [
        (0, None, "Too early to judge"),
        (50, None, "Too early to judge"),
        (51, None, "Collapsed: no better than a trivial prediction"),
        (60, {"class_path": "Cosine", "init_args": {"warmup_fraction": 0.3}}, "Too early to judge"),
        (61, {"class_path": "Cosine", "init_args": {"warmup_fraction": 0.3}}, "Collapsed: no better"),
    ],
)
def test_an_unfinished_run_is_not_judged_before_its_warm_up_ends(
    tmp_path: Path, step: int, schedule: object, headline: str
) -> None:
    record = {"step": step, "time_s": 1, "split": "validation", "loss": 0.05, "baseline_mean_whole": 0.03}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "config.yaml").write_text(json.dumps({"steps": 200, "method": {}, "schedule": schedule}))
    assert judge_pretraining(read_run(tmp_path)).headline.startswith(headline)


def told_apart(folder: Path, loss: float, **result: object) -> Path:
    """A run of a method that tells wholes apart, where guessing costs 3.43."""
    folder.mkdir()
    record = {"step": 5, "time_s": 1, "split": "validation", "loss": loss, "baseline_guessing": 3.43}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    about = {"kind": "pretrain", "steps": 5, "validation_loss": loss, "baseline_guessing": 3.43}
    (folder / "result.json").write_text(json.dumps(about | result))
    return folder


def test_a_method_that_guesses_has_collapsed(tmp_path: Path) -> None:
    run = read_run(told_apart(tmp_path / "guesses", 3.43, collapsed=True))
    verdict = judge_pretraining(run)
    assert (verdict.tone, verdict.headline) == ("bad", "Collapsed: no better than a trivial prediction")
    assert verdict.text.startswith("Validation loss 3.43. Trivial baselines: guessing 3.43.")
    (chart,) = run_charts(run)
    assert [series.name for series in chart.series] == ["validation", "guessing"]
    assert chart.value == "loss"


def test_a_method_that_tells_wholes_apart_is_compared_with_guessing(tmp_path: Path) -> None:
    verdict = judge_pretraining(read_run(told_apart(tmp_path / "learns", 1.715, collapsed=False)))
    assert (verdict.tone, verdict.headline) == (
        "good",
        "Validation loss 1.715, 50 % below the trivial baseline",
    )
    assert "rebuilds" not in verdict.text


def test_a_constant_network_has_collapsed_whatever_its_loss(tmp_path: Path, pretrained: MakeRun) -> None:
    """Its loss may be below the baselines, or there may be none."""
    headline = "Collapsed: it gives nearly the same for every whole"
    rebuilds = read_run(pretrained(tmp_path / "rebuilds", loss=0.0124, panel=False, collapsed=True))
    apart = read_run(told_apart(tmp_path / "apart", 3.4, collapsed=True))
    old = read_run(told_apart(tmp_path / "old", 3.4, collapsed=True, baseline_guessing=None))
    old = dataclasses.replace(old, records=({"step": 5, "split": "validation", "loss": 3.4},))
    for run in (rebuilds, apart, old):
        verdict = judge_pretraining(run)
        assert (verdict.tone, verdict.headline) == ("bad", headline)
    assert "no better than" not in judge_pretraining(rebuilds).text


def test_a_method_that_rebuilds_nothing_has_no_baseline(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "time_s": 1, "split": "validation", "loss": 4.5}\n')
    verdict = judge_pretraining(read_run(tmp_path))
    assert (verdict.tone, verdict.headline) == ("plain", "Validation loss 4.5")
    (tmp_path / "metrics.jsonl").write_text("")
    assert judge_pretraining(read_run(tmp_path)).headline == "No validation loss"


def test_a_fine_tuned_model_is_summed_up(tmp_path: Path, finetuned: MakeRun) -> None:
    verdict = judge_finetuning(read_run(finetuned(tmp_path / "run", dice=0.8)))
    assert verdict.headline == "Dice mean 80.00 % on 3 test cases"
    assert "surface distance mean 1.2" in verdict.text
    assert "more steps" not in verdict.text
    missed = {"dice_mean": 0.4, "dice_1": 0.8, "dice_2": 0.0}
    verdict = judge_finetuning(read_run(finetuned(tmp_path / "missed", test=missed)))
    assert verdict.tone == "weak"
    assert verdict.text.startswith(
        "Nothing right on any test case: Dice 2 (missed, or found where there is none)."
    )
    verdict = judge_finetuning(read_run(finetuned(tmp_path / "last", best_step=100)))
    assert "more steps may do better" in verdict.text


def test_an_undefined_figure_is_the_headline_and_no_other_takes_its_place(
    tmp_path: Path, finetuned: MakeRun
) -> None:
    test = {"dice_mean": float("nan"), "iou_mean": None, "dice_1": 0.5}
    verdict = judge_finetuning(read_run(finetuned(tmp_path / "run", test=test)))
    assert (verdict.tone, verdict.headline) == ("bad", "Dice mean is undefined on 3 test cases")
    assert "Dice 1 50.00 %" in verdict.text
    assert "IoU" not in verdict.text


def rows(scratch: list[float], other: list[float], labels: int = 5) -> list[dict[str, object]]:
    return [
        {"task": "T", "metric": "auc", "labelled": labels, "arm": arm, "seed": seed, "value": value}
        for arm, values in (("scratch", scratch), ("Parts2Whole", other))
        for seed, value in enumerate(values)
    ]


LOW, HIGH, LIKE = [0.70, 0.71, 0.72], [0.80, 0.82, 0.81], [0.71, 0.70, 0.725]


@pytest.mark.parametrize(
    ("data", "tone", "headline"),
    [
        (rows(LOW, HIGH), "good", "Parts2Whole is better than scratch in the one comparison made (α = 0.05)"),
        (rows(HIGH, LOW), "bad", "Parts2Whole against scratch: worse in 1 of 1 (α = 0.05)"),
        (rows(LOW, LIKE), "open", "No difference between Parts2Whole and scratch is shown (α = 0.05)"),
        (
            rows(LOW, HIGH) + rows(LOW, LIKE, 9),
            "weak",
            "Parts2Whole is better than scratch in 1 of 2 comparisons (α = 0.05, not corrected)",
        ),
        (
            rows(LOW, HIGH) + rows(HIGH, LOW, 9),
            "bad",
            "Parts2Whole against scratch: worse in 1, better in 1 of 2 (α = 0.05, not corrected)",
        ),
    ],
)
@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_comparisons_are_judged_both_ways(
    data: list[dict[str, object]], tone: str, headline: str, alternative: str
) -> None:
    (verdict,) = judge_comparison(make_table(data, alternative=alternative))
    assert (verdict.tone, verdict.headline) == (tone, headline)
    assert verdict.text.startswith("T, AUC, %: 5 cases ")


def test_the_best_other_is_not_judged_twice() -> None:
    """Where the best other arm is scratch in every row, what is said of scratch is all."""
    middle = [row | {"arm": "MoCo", "value": float(row["value"]) - 0.05} for row in rows(LOW, HIGH)[:3]]  # type: ignore[arg-type]
    table = make_table(rows(LOW, HIGH) + middle)
    assert {d.against for d in table.rows[0].differences.values()} == {"scratch"}
    assert [verdict.headline for verdict in judge_comparison(table)] == [
        "Parts2Whole is better than scratch in the one comparison made (α = 0.05)"
    ]
    (beside,) = judge_comparison(table, beside_endpoints=True)  # which may not speak of the final score
    assert beside.headline.startswith("Parts2Whole is better than the best other arm")
    better = [row | {"value": float(row["value"]) + 0.1, "labelled": 9} for row in middle]  # type: ignore[arg-type]
    table = make_table(rows(LOW, HIGH) + middle + rows(LOW, HIGH, 9) + better)
    assert [verdict.headline.split(" in ")[0] for verdict in judge_comparison(table)] == [
        "Parts2Whole is better than scratch",
        "Parts2Whole is better than the best other arm",
    ]


def test_one_arm_is_not_judged() -> None:
    only = [row for row in rows(LOW, HIGH) if row["arm"] == "scratch"]
    assert judge_comparison(make_table(only)) == []


def test_facts_say_what_was_run(tmp_path: Path, pretrained: MakeRun, finetuned: MakeRun) -> None:
    facts = dict(list_facts(read_run(pretrained(tmp_path / "p2w", panel=False))))
    assert facts["Method"].startswith("Parts2Whole: part fraction 0.4 to 0.7")
    assert facts["Network"] == "UNet3D: size tiny"
    assert facts["Data"] == "162 scans to train on, 18 to validate; wholes of 4×6×5 voxels (z, y, x)"
    assert facts["Took"] == "20 s, 20 samples/s"
    assert facts["Machine"] == "x86_64, 2 cores"
    facts = dict(list_facts(read_run(finetuned(tmp_path / "ft", init=str(tmp_path / "p2w")))))
    assert facts["Initial weights"] == "Parts2Whole"
    assert facts["Labels"] == "5 train, 1 validation, 3 test; seed 0"


def test_specs_and_durations_in_words() -> None:
    nested = {
        "class_path": "a.B",
        "init_args": {"x": None, "y": {"class_path": "c.D"}, "z": True, "s": [1, 2, 3]},
    }
    assert describe_spec(nested) == "B: y (D), z yes, s 1×2×3"
    assert describe_spec(None) is None
    assert [format_duration(s) for s in (None, 3.21, 843.2, 7300)] == [
        "–",
        "3.21 s",
        "14 min 3 s",
        "2 h 1 min",
    ]
