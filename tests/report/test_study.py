"""Which rows and arms a table has: decided alike for a study, its page, `compare` and `stats patients`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import parts2whole as p2w
from parts2whole.report.formats import to_html
from parts2whole.report.marks import TableError
from parts2whole.report.page import write_report
from parts2whole.report.results import tabulate
from parts2whole.report.runs import RunError, read_run
from parts2whole.report.study import Listing, name_endpoints, read_listing, read_runs
from parts2whole.verbs.stats import patients

MakeRun = Callable[..., Path]
TASK = "Hippocampus"
WAITING = ("scratch", "SimCLR", "Parts2Whole")


@pytest.fixture
def study(tmp_path: Path, finetuned: MakeRun) -> Listing:
    """Two arms of three are finished, and a run of earlier settings lies beside them."""
    folders = []
    for arm, dice in (("scratch", 0.7), ("SimCLR", 0.8)):
        for seed in (0, 1):
            folder = finetuned(tmp_path / "cells" / f"{arm}-{seed}", dice=dice + 0.01 * seed, seed=seed)
            (folder / "cell.json").write_text(
                json.dumps({"arm": arm, "task_name": TASK, "monitor": "iou_mean"})
            )
            folders.append(folder)
    earlier = finetuned(tmp_path / "cells" / "earlier", dice=0.1)
    (earlier / "cell.json").write_text(json.dumps({"arm": "scratch", "task_name": TASK}))
    return Listing("A study", WAITING, tuple(folders), {"focus": "Parts2Whole", "against": "scratch"}, {})


def written(study: Listing, folder: Path) -> Path:
    (folder / "source.yaml").write_text("arms: {}\n")
    study.write(folder, source=folder / "source.yaml")
    return folder


def test_a_planned_arm_without_results_is_passed_over_and_an_unknown_one_is_not(study: Listing) -> None:
    table = study.tabulate(study.read())
    assert table.arms == ("scratch", "SimCLR")
    assert (table.focus, table.rivals) == ("SimCLR", ("scratch",))
    with pytest.raises(TableError, match="'MoCo' is not an arm; there are scratch, SimCLR"):
        study.tabulate(study.read(), focus="MoCo")
    with pytest.raises(TableError, match="'Parts2Whole' is not an arm"):  # nobody has planned it
        tabulate(study.read(), focus="Parts2Whole")


def test_arms_keep_the_order_of_the_study_and_others_stay_out(study: Listing) -> None:
    assert tabulate(study.read(), arms=("SimCLR", "scratch")).arms == ("SimCLR", "scratch")
    only = tabulate(study.read(), arms=("scratch",))
    assert [tuple(row.cells) for row in only.rows] == [("scratch",)]


def test_the_study_says_what_a_task_is_judged_by_not_what_a_run_was_told_once(
    study: Listing, tmp_path: Path
) -> None:
    """The runs were finished when the study still asked for IoU."""

    def main(metrics: dict[str, str] | None) -> str:
        again = read_listing(written(Listing("", WAITING, study.runs, {}, metrics), tmp_path))
        (row,) = again.tabulate(again.read()).rows
        return row.metric

    assert main({TASK: "surface_distance_mean"}) == "surface_distance_mean"
    assert main({}) == "dice_mean"  # by custom
    assert main(None) == "iou_mean"  # a study of version 0.1.0


def test_the_page_shows_the_table_of_the_study(study: Listing, tmp_path: Path) -> None:
    listing = Listing("", WAITING, study.runs, {}, {TASK: "surface_distance_mean"})
    text = write_report(written(listing, tmp_path)).read_text()
    captions = re.findall("<caption>(.*?)</caption>", text)
    assert captions == [
        f"{TASK}: {name}" for name in ("surface distance mean", "IoU mean, %", "Dice mean, %")
    ]
    assert to_html(listing.tabulate(listing.read())) in text


def test_a_metric_that_runs_do_not_have_is_told_with_those_they_have(study: Listing, tmp_path: Path) -> None:
    folder = written(Listing("", WAITING, study.runs, {}, {TASK: "auc"}), tmp_path)
    message = "scratch-0 has no metric 'auc'; it has dice_mean, iou_mean"
    with pytest.raises(TableError, match=message):
        p2w.compare([folder])
    assert "no results table" in write_report(folder).read_text()


def test_runs_of_earlier_settings_are_in_no_table(study: Listing, tmp_path: Path) -> None:
    assert len(read_runs(tmp_path)) == 5
    folder = written(study, tmp_path)
    assert {run.name for run in read_runs(folder)} == {path.name for path in study.runs}
    (row,) = p2w.compare([folder]).table.rows
    assert row.cells["scratch"].values == {0: 0.7, 1: pytest.approx(0.71)}
    alone = study.runs[0]
    assert [run.name for run in read_runs(alone)] == [read_run(alone).name]
    with pytest.raises(RunError, match="holds no run"):
        read_runs(written(Listing("", (), (), {}, {}), tmp_path))


def planned(folder: Path, steps: int) -> Path:
    """Another number of steps in a run's settings."""
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("steps: 100", f"steps: {steps}"))
    return folder


def test_steps_tell_rows_apart_where_there_are_several(tmp_path: Path, finetuned: MakeRun) -> None:
    for steps, gain in ((100, 0.1), (400, 0.0)):
        for arm, more in (("scratch", 0.0), ("SimCLR", gain)):
            for seed in (0, 1):
                folder = tmp_path / f"{arm}-{steps}-{seed}"
                dice = 0.6 + steps / 4000 + more * (1 + seed / 10)
                planned(finetuned(folder, dice=dice, seed=seed, arm=arm, task_name=TASK), steps)
    table = p2w.compare([tmp_path]).table
    assert [row.labels for row in table.rows] == ["5 cases, 100 steps", "5 cases, 400 steps"]
    gains = [row.differences["scratch"].difference for row in table.rows]
    assert gains == [pytest.approx(0.105), pytest.approx(0.0)]
    lines = patients([tmp_path]).summary().splitlines()
    assert [line for line in lines if "5 cases, 400 steps: SimCLR minus scratch: difference" in line]
    page = write_report(tmp_path).read_text()
    assert f"{TASK}, 5 labelled cases, 400 steps: validation" in page


def test_one_number_of_steps_is_no_word_in_a_table_unless_the_study_has_several(
    study: Listing, tmp_path: Path
) -> None:
    assert [row.labels for row in study.tabulate(study.read()).rows] == ["5 cases"]
    again = Listing("", WAITING, study.runs, {}, {}, several=(TASK,))
    kept = read_listing(written(again, tmp_path))
    assert [row.labels for row in kept.tabulate(kept.read()).rows] == ["5 cases, 100 steps"]


def test_arms_of_different_steps_stay_one_row_with_a_note(study: Listing) -> None:
    for folder in study.runs[:2]:
        planned(folder, 50)
    table = study.tabulate(study.read())
    assert [row.labels for row in table.rows] == ["5 cases"]
    assert any("steps (scratch 50; SimCLR 100)" in note for note in table.notes)


def test_when_an_endpoint_was_named_is_kept(tmp_path: Path) -> None:
    def name(wanted: list[str], finished: int, *, write: bool = True) -> object:
        found = name_endpoints(tmp_path, wanted, finished=finished, write=write)
        return found.endpoints, found.dropped

    assert name(["final", "area"], 0) == ({"final": 0, "area": 0}, ())
    assert name(["final", "area", "spread"], 7, write=False) == ({"final": 0, "area": 0, "spread": 7}, ())
    assert name(["final", "spread"], 9) == ({"final": 0, "spread": 9}, ("area",))
    assert name(["area", "spread"], 20) == ({"area": 0, "spread": 9}, ("final",))


def test_a_study_begun_without_endpoints_had_the_default(tmp_path: Path) -> None:
    found = name_endpoints(tmp_path, ["final", "spread"], finished=5, write=True)
    assert (found.endpoints, found.dropped) == ({"final": 0, "spread": 5}, ())


def test_a_metric_or_test_that_changes_after_the_results_is_told(study: Listing, tmp_path: Path) -> None:
    def changes(finished: int, *, write: bool = True, **how: object) -> tuple[str, ...]:
        return name_endpoints(tmp_path, ["final"], how=how, finished=finished, write=write).changed

    assert changes(0, test="paired", metric="dice") == ()
    assert changes(0, test="welch", metric="dice") == ()  # nothing had run
    assert changes(12, test="welch", metric="iou") == (
        "metric iou since 12 fine-tunings were finished, dice when named",
    )
    assert changes(20, test="welch", metric="iou") == changes(12, write=False, test="welch", metric="iou")
    assert changes(20, test="welch", metric="dice", other="auc") == ()  # of a new task nothing has changed
    assert changes(30, test="welch", metric="dice") == ()
    assert changes(30, other="iou") == ("other iou since 30 fine-tunings were finished, auc when named",)
    changed = dataclasses.replace(
        study, changed=("test paired since 20 fine-tunings were finished, welch when named",)
    )
    kept = read_listing(written(changed, tmp_path))
    assert kept.changed == changed.changed
    said = (
        "Changed after results were there: test paired since 20 fine-tunings were finished, welch when named."
    )
    assert said in write_report(tmp_path).read_text()


def test_the_verdict_is_the_first_thing_on_a_studys_page(study: Listing, tmp_path: Path) -> None:
    kept = read_listing(written(study, tmp_path))
    assert kept.endpoints == {"final": 0}
    page = write_report(tmp_path).read_text()
    # Both seeds differ by exactly 0.1, so nothing varies.
    said = "With 5 labelled cases, nothing could be tested (nothing varies)."
    assert page.index('<p class="headline">') == page.index(f'<p class="headline">{said}')
    late = Listing("", WAITING, study.runs, {}, {}, endpoints={"worst_seed": 3}, dropped=("area",))
    page = write_report(written(late, tmp_path)).read_text()
    assert "In the worst seed: with 5 labelled cases, nothing is shown" in page
    assert "[added after the runs (3 were finished)]" in page
    assert "No longer an endpoint, though named once: area." in page
