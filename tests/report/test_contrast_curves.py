"""The claim "the contrastive loss falls with the reconstruction loss" as curves and correlations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from parts2whole.report.contrast import (
    INFO_NCE,
    contrast_charts,
    correlate,
    paired_curves,
    pretraining_names,
)
from parts2whole.report.contrast_figure import write_contrast_figure
from parts2whole.report.figures import FigureError
from parts2whole.report.page import write_report
from parts2whole.report.runs import Run, read_run


def run_with(folder: Path, losses: list[float], contrast: list[float], method: str = "Parts2Whole") -> Path:
    folder.mkdir(parents=True)
    lines = [
        {"step": 10 * (i + 1), "time_s": i, "split": "validation", "loss": loss, INFO_NCE: value}
        | {"info_nce_chance": 4.0, "which_whole": 0.5, "which_whole_chance": 0.1, "alignment": 0.2}
        | {"distance_within": 0.3, "distance_between": 0.9, "uniformity": -1.0, "effective_rank": 7.0}
        for i, (loss, value) in enumerate(zip(losses, contrast, strict=True))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    method_spec = {"class_path": f"parts2whole.methods.{method}", "init_args": {}}
    (folder / "result.json").write_text(
        json.dumps({"kind": "pretrain", "method": method_spec, "steps": 10 * len(losses)})
    )
    return folder


def test_correlations_are_those_of_scipy(tmp_path: Path) -> None:
    losses, contrast = [5.0, 3.0, 2.5, 2.0, 2.2, 2.0], [4.0, 3.5, 3.6, 3.0, 2.9, 2.8]
    found = correlate(read_run(run_with(tmp_path / "run", losses, contrast)))
    assert found.n == 6
    assert found.pearson == pytest.approx(stats.pearsonr(losses, contrast).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(losses, contrast).statistic)
    assert found.changes == pytest.approx(stats.pearsonr(np.diff(losses), np.diff(contrast)).statistic)


def test_two_falling_curves_correlate_although_their_changes_do_not(tmp_path: Path) -> None:
    """The reason why both numbers stand in the chart's title."""
    losses = [10.0, 8.0, 7.5, 5.5, 5.0, 3.0, 2.5]  # falls much, little, much, ...
    contrast = [10.0, 9.5, 7.5, 7.0, 5.0, 4.5, 2.5]  # and this one the other way round
    found = correlate(read_run(run_with(tmp_path / "run", losses, contrast)))
    assert found.pearson > 0.9
    assert found.changes < -0.9
    assert "r = 0.9" in found.describe()
    assert "of changes −1.00" in found.describe()


@pytest.mark.parametrize(
    ("losses", "contrast", "said"),
    [
        ([1.0], [4.0], "1 validation, too few to correlate"),
        ([4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0], "4 validations, too few to correlate"),
        ([1.0] * 5, [5.0, 4.0, 3.0, 2.0, 1.0], "constant over 5 validations"),
        ([5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 4.0, 3.0, 2.0, 1.0], "r = 1.00, of changes too few (4), n = 5 validations"),
        ([6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [6.0, 5.5, 4.0, 3.0, 2.5, 1.0], "of changes constant, n = 6 validations"),
    ],
)  # fmt: skip
def test_too_little_to_correlate_is_said(tmp_path: Path, losses, contrast, said: str) -> None:
    run = read_run(run_with(tmp_path / "run", losses, contrast))
    charts = contrast_charts([run], pretraining_names([run]))
    assert charts[0].title.startswith("Parts2Whole: ")
    assert charts[0].title.endswith(said)


def test_the_map_comes_first_and_runs_that_know_only_the_average_say_so(tmp_path: Path) -> None:
    old = run_with(tmp_path / "old", [5.0, 3.0], [4.0, 3.5])
    new = run_with(tmp_path / "new", [5.0, 3.0], [4.0, 3.9], "SimCLR")
    lines = [json.loads(line) for line in (new / "metrics.jsonl").read_text().splitlines()]
    for line, value in zip(lines, (3.0, 2.0), strict=True):
        line |= {f"map_{INFO_NCE}": value, "map_distance_within": 0.2, "map_distance_between": 0.6}
    (new / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = [read_run(old), read_run(new)]
    assert [pair[2] for run in runs for pair in paired_curves(run)] == [4.0, 3.5, 3.0, 2.0]

    both, _, info_nce, *_ = contrast_charts(runs, pretraining_names(runs))
    assert [(s.name, s.right) for s in both.series] == [("own loss", False), ("InfoNCE of the average", True)]
    assert {s.name: [v for _, v in s.points] for s in info_nce.series} == {
        "Parts2Whole, average": [4.0, 3.5],
        "SimCLR": [3.0, 2.0],
        "equal embeddings": [4.0, 4.0],
    }
    alone = {chart.title: chart for chart in contrast_charts(runs[1:], pretraining_names(runs[1:]))}
    assert {s.name: [v for _, v in s.points] for s in alone["InfoNCE, temperature 0.1"].series} == {
        "bottleneck map": [3.0, 2.0],
        "average": [4.0, 3.9],
        "equal embeddings": [4.0, 4.0],
    }
    assert [s.name for s in alone["Distance between parts"].series] == [
        "of one whole, bottleneck map",
        "of two wholes, bottleneck map",
    ]
    (of_old, *_) = contrast_charts(runs[:1], pretraining_names(runs[:1]))
    assert of_old.series[1].name == "InfoNCE of the average"
    (alignment,) = (c for c in contrast_charts(runs[:1], pretraining_names(runs[:1])) if "Align" in c.title)
    assert alignment.value == "Alignment of parts of one whole, average"  # it has no legend


def test_chance_is_drawn_once_only_where_all_runs_share_it(tmp_path: Path) -> None:
    for method, chance in (("Parts2Whole", 4.0), ("SimCLR", 3.0), ("MoCo", 4.0)):
        folder = run_with(tmp_path / method, [5.0, 3.0], [4.0, 3.5], method)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        text = "".join(json.dumps(line | {"info_nce_chance": chance}) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
    ours, simclr, moco = (read_run(tmp_path / name) for name in ("Parts2Whole", "SimCLR", "MoCo"))

    def chances(*runs: Run) -> dict[str, list[float]]:
        charts = {chart.title: chart for chart in contrast_charts(runs, pretraining_names(runs))}
        lines = charts["InfoNCE, temperature 0.1"].series
        return {s.name: [value for _, value in s.points] for s in lines if s.role == "baseline"}

    assert chances(ours, moco) == {"equal embeddings": [4.0, 4.0]}
    assert chances(ours, simclr) == {
        "equal embeddings, Parts2Whole": [4.0, 4.0],
        "equal embeddings, SimCLR": [3.0, 3.0],
    }


def test_a_loss_of_several_terms_is_paired_by_its_reconstruction(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", [5.0, 3.0], [4.0, 3.5])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line, value in zip(lines, (0.2, 0.1), strict=True):
        line |= {"reconstruction": value, "baseline_mean_whole": 0.3}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(folder)
    assert paired_curves(run) == [(10, 0.2, 4.0), (20, 0.1, 3.5)]
    assert contrast_charts([run], pretraining_names([run]))[0].series[0].name == "reconstruction loss"


def test_methods_stand_side_by_side(tmp_path: Path) -> None:
    for method in ("Parts2Whole", "SimCLR", "ModelsGenesis"):
        run_with(tmp_path / method, [5.0, 3.0, 2.5, 2.0], [4.0, 3.5, 3.6, 3.0], method)
    runs = [read_run(tmp_path / name) for name in ("ModelsGenesis", "Parts2Whole", "SimCLR")]
    charts = contrast_charts(runs, pretraining_names(runs))
    assert [chart.title.partition(":")[0] for chart in charts[:3]] == [
        "ModelsGenesis",
        "Parts2Whole",
        "SimCLR",
    ]
    first = charts[0].series
    assert [value for _, value in first[0].points] == [5.0, 3.0, 2.5, 2.0]
    assert [value for _, value in first[1].points] == [4.0, 3.5, 3.6, 3.0]
    assert {s.name for s in charts[3].series} == {
        "ModelsGenesis, average",
        "Parts2Whole, average",
        "SimCLR, average",
        "equal embeddings",
    }
    page = write_report(tmp_path).read_text()
    assert "Contrastive features" in page


def test_the_figure_for_print_has_a_panel_for_every_method(tmp_path: Path) -> None:
    one = run_with(tmp_path / "a", [5.0, 3.0, 2.5, 2.0], [4.0, 3.5, 3.6, 3.0], "SimCLR")
    two = run_with(tmp_path / "b", [5.0, 3.0, 2.5, 2.0], [4.0, 3.5, 3.6, 3.0])
    short = run_with(tmp_path / "c", [5.0], [4.0])
    narrow = write_contrast_figure(tmp_path / "one.png", [read_run(one), read_run(short)])
    wide = write_contrast_figure(tmp_path / "two.png", [read_run(one), read_run(two)])
    widths = [int.from_bytes(path.read_bytes()[16:20]) for path in (narrow, wide)]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.01)
    with pytest.raises(FigureError, match="two validations or more"):
        write_contrast_figure(tmp_path / "none.png", [read_run(short)])


def test_pretrainings_of_one_method_are_told_apart_by_their_stores(tmp_path):
    def run(folder: str, store: str, **more: int) -> Run:
        method = {"class_path": "a.MoCo", "init_args": {}}
        config = {"method": method, "store": f"/data/stores/{store}"} | more
        return Run(tmp_path / folder, "pretrain", config, {}, {}, ())

    ct, mr = run("x", "ct-0123456789ab"), run("y", "mr-0123456789ab")
    assert list(pretraining_names([ct]).values()) == ["MoCo"]
    assert list(pretraining_names([ct, mr]).values()) == ["MoCo, ct", "MoCo, mr"]
    assert list(pretraining_names([ct, run("z", "ct-0123456789ab")]).values()) == ["x", "z"]
    seeds = [run("u", "ct", seed=1), run("v", "ct", seed=2)]
    assert list(pretraining_names(seeds).values()) == ["MoCo, seed 1", "MoCo, seed 2"]
