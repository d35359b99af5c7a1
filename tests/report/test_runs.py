"""Run folders read back, whole, unfinished or damaged."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parts2whole.report.results import arm_names, result_rows, task_names
from parts2whole.report.runs import (
    VOLUMES,
    Panel,
    RunError,
    find_runs,
    read_run,
    read_volumes,
    write_volumes,
)

MakeRun = Callable[..., Path]
MakePanel = Callable[..., Panel]


def test_a_run_is_read_back(tmp_path: Path, pretrained: MakeRun) -> None:
    run = read_run(pretrained(tmp_path / "run"))
    assert (run.kind, run.name, run.finished, run.steps, run.duration_s) == (
        "pretrain",
        "run",
        True,
        200,
        20.0,
    )
    assert run.series("validation", "loss")[-1] == (200, pytest.approx(0.01))
    assert run.metrics("train") == ["loss", "lr", "samples_per_s"]
    assert [path.name for path in run.pictures] == ["step-000200.png"]
    assert run.notes == ()


def test_a_last_line_cut_short_is_left_out_without_a_word(tmp_path: Path, pretrained: MakeRun) -> None:
    folder = pretrained(tmp_path / "run", finished=False)
    before = len(read_run(folder).records)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 220, "time_s": 2')
    run = read_run(folder)
    assert len(run.records) == before
    assert run.notes == ()
    assert not run.finished
    assert run.kind == "pretrain"
    assert run.duration_s == 20.0


def test_a_broken_line_in_the_middle_is_noted(tmp_path: Path, pretrained: MakeRun) -> None:
    folder = pretrained(tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[3] = "\x00\x00"
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    run = read_run(folder)
    assert len(run.records) == len(lines) - 1
    assert "1 unreadable line in metrics.jsonl" in run.notes[0]


def test_values_that_are_not_finite_are_left_out_of_series(tmp_path: Path) -> None:
    lines = [{"step": 1, "split": "train", "loss": None}, {"step": 2, "split": "train", "loss": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_run(tmp_path).series("train", "loss") == [(2, 0.5)]


@pytest.mark.parametrize(
    ("name", "content"), [("config.yaml", "a: [1"), ("result.json", "{"), ("environment.json", "[1]")]
)
def test_damaged_files_are_noted(tmp_path: Path, pretrained: MakeRun, name: str, content: str) -> None:
    folder = pretrained(tmp_path / "run")
    (folder / name).write_text(content)
    assert name in read_run(folder).notes[0]


def test_runs_are_found_below_a_folder_but_not_in_a_run_s_own_folders(
    tmp_path: Path, pretrained: MakeRun
) -> None:
    wanted = [pretrained(tmp_path / "a" / "deep", panel=False), pretrained(tmp_path / "b", panel=False)]
    (tmp_path / "b" / "checkpoints").mkdir()
    (tmp_path / "b" / "checkpoints" / "metrics.jsonl").touch()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "result.json").write_text('{"kind": "something else"}')
    assert find_runs(tmp_path) == tuple(wanted)
    assert find_runs(wanted[0]) == (wanted[0],)
    with pytest.raises(RunError, match="not a folder"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(RunError, match="holds no run"):
        read_run(tmp_path / "store" / "nowhere")


def test_volumes_round_trip(tmp_path: Path, panel: MakePanel) -> None:
    views = panel(names=("å", "<b>"))
    assert write_volumes(tmp_path, views) == tmp_path / VOLUMES
    back = read_volumes(tmp_path)
    assert back is not None
    assert views.boxes is not None
    np.testing.assert_array_equal(back.whole, views.whole)
    np.testing.assert_array_equal(back.boxes, views.boxes)
    assert (back.names, back.spacing_mm) == (views.names, views.spacing_mm)
    assert [path.name for path in (tmp_path / "panels").iterdir()] == ["latest.npz"]


def test_every_sample_may_have_a_spacing_of_its_own(tmp_path: Path, panel: MakePanel) -> None:
    """Files of version 0.1.0 know one for all."""
    views = panel()
    assert views.spacings_mm == ((3.0, 1.0, 1.0), (3.0, 1.0, 1.0))
    spacings = (3.0, 1.0, 0.5), (2.0, 0.75, 0.75)
    write_volumes(tmp_path, dataclasses.replace(views, spacing_mm=spacings))
    back = read_volumes(tmp_path)
    assert back is not None
    assert back.spacings_mm == spacings
    path = write_volumes(tmp_path, views)
    old = dict(np.load(path))
    np.savez(path, **(old | {"spacing_mm": np.array([3.0, 1.0, 1.0], np.float32)}))
    back = read_volumes(tmp_path)
    assert back is not None
    assert back.spacings_mm == views.spacings_mm
    with pytest.raises(RunError, match="one spacing"):
        dataclasses.replace(views, spacing_mm=((1.0, 1.0, 1.0),) * 3)


def test_the_first_column_is_the_case_whatever_it_is_called(tmp_path: Path, finetuned: MakeRun) -> None:
    folder = finetuned(tmp_path / "ft")
    (folder / "test_cases.csv").write_text("item,dice_mean\n007,0.5\n1e3,\n")
    assert read_run(folder).cases == ({"case": "007", "dice_mean": 0.5}, {"case": "1e3"})


def test_volumes_need_only_the_three_arrays(tmp_path: Path, panel: MakePanel) -> None:
    (tmp_path / "panels").mkdir()
    whole = panel().whole
    np.savez(tmp_path / VOLUMES, part=whole, reconstruction=whole, whole=whole)
    back = read_volumes(tmp_path)
    assert back is not None
    assert back.boxes is None
    assert back.names == ()
    assert read_volumes(tmp_path / "panels") is None


@pytest.mark.parametrize("length", [0, 10, 400])
def test_damaged_volumes_are_an_error(tmp_path: Path, length: int, panel: MakePanel) -> None:
    path = write_volumes(tmp_path, panel())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RunError, match=r"latest\.npz can't be read"):
        read_volumes(tmp_path)


def test_panels_must_be_alike(panel: MakePanel) -> None:
    whole = panel().whole
    with pytest.raises(RunError, match="must be alike"):
        Panel(whole[:1], whole, whole)


def test_rows_of_results(tmp_path: Path, finetuned: MakeRun) -> None:
    run = read_run(finetuned(tmp_path / "ft", dice=0.8))
    rows = result_rows([run])
    assert [row["metric"] for row in rows] == ["dice_mean", "iou_mean", "surface_distance_mean"]
    assert [row["main"] for row in rows] == [True, False, False]
    first = rows[0]
    assert (
        first["task"],
        first["arm"],
        first["fraction"],
        first["labelled"],
        first["seed"],
        first["value"],
    ) == (
        "Segmentation, hippocampus",
        "scratch",
        None,
        5,
        0,
        0.8,
    )
    share = read_run(finetuned(tmp_path / "share", cases=None, fraction=0.1))
    assert result_rows([share])[0]["fraction"] == 0.1


def test_an_undefined_main_metric_stays_the_main_one(tmp_path: Path, finetuned: MakeRun) -> None:
    run = read_run(finetuned(tmp_path / "ft", test={"iou_mean": 0.6, "dice_mean": float("nan"), "auc": None}))
    rows = {row["metric"]: row for row in result_rows([run])}
    assert rows["dice_mean"]["main"]
    assert not rows["iou_mean"]["main"]
    assert math.isnan(rows["dice_mean"]["value"])
    assert math.isnan(rows["auc"]["value"])
    assert rows["iou_mean"]["run"] == "ft"


def test_cases_keep_their_names_and_leave_out_what_is_empty(tmp_path: Path, finetuned: MakeRun) -> None:
    run = read_run(finetuned(tmp_path / "ft", names=("1", "2", "3")))
    assert run.cases[0]["case"] == "1"
    assert run.cases[0]["dice_mean"] == pytest.approx(0.7)
    assert "surface_distance_1" not in run.cases[0]


def test_arms_are_called_by_their_method_and_told_apart_by_folder(
    tmp_path: Path, pretrained: MakeRun, finetuned: MakeRun
) -> None:
    for name in ("wide", "narrow"):
        pretrained(tmp_path / name, panel=False)
    inits = [
        "scratch",
        "wide",
        str(tmp_path / "narrow"),
        "medicalnet:weights/resnet_50.pth",
        "gone/elsewhere",
    ]
    runs = [read_run(finetuned(tmp_path / f"ft{i}", init=init)) for i, init in enumerate(inits)]
    names = list(arm_names(runs).values())
    assert names == ["scratch", "Parts2Whole (wide)", "Parts2Whole (narrow)", "medicalnet", "elsewhere"]
    assert list(arm_names(runs[:2]).values()) == ["scratch", "Parts2Whole"]


def test_other_scans_in_a_folder_of_the_same_name_are_another_task(tmp_path, finetuned):
    """Their figures are not averaged; equal scans that lie elsewhere are one task."""
    made = [("one", "aaaa"), ("two", "bbbb"), ("three", "aaaa")]
    runs = [read_run(finetuned(tmp_path / name, data_fingerprint=scans)) for name, scans in made]
    first, second, third = (task_names(runs)[run.folder] for run in runs)
    assert first == third != second
    assert "scans aaaa" in first
    assert "scans bbbb" in second
    together = task_names([runs[0], runs[2]])
    assert set(together.values()) == {"Segmentation, hippocampus"}
