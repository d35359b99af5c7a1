"""Rows of a study are told apart by the labels that were asked for, whatever a patient has of scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parts2whole.report.folds import pool_folds
from parts2whole.report.judge import measure_endpoints
from parts2whole.report.marks import TableError
from parts2whole.report.results import tabulate
from parts2whole.report.runs import Run, read_run
from parts2whole.report.summary import list_facts
from parts2whole.store.split import labelled_subset

MakeRun = Callable[..., Path]
ARMS = ("scratch", "Parts2Whole")


def test_a_row_is_of_the_patients_asked_for_however_many_scans_they_have(
    tmp_path: Path, finetuned: MakeRun
) -> None:
    scans = {f"p{i}-{scan}": f"p{i}" for i in range(30) for scan in ("ab" if i % 3 == 0 else "a")}
    runs = []
    for cases in (5, 6):
        for seed in range(6):
            train = labelled_subset(list(scans), scans, count=cases, seed=seed)
            for place, arm in enumerate(ARMS):
                dice = 0.5 + 0.02 * cases + 0.01 * seed + place * (0.02 + 0.001 * seed)
                about = {"arm": arm, "task_name": "T", "train_cases": list(train)}
                folder = tmp_path / f"{arm}-{cases}-{seed}"
                runs.append(read_run(finetuned(folder, dice=dice, seed=seed, cases=cases, init=arm, **about)))
    assert len({len(run.result["train_cases"]) for run in runs}) > 2  # counts of scans, of two of patients
    table = tabulate(runs)
    assert [row.labels for row in table.rows] == ["5 cases", "6 cases"]
    assert [cell.n for row in table.rows for cell in row.cells.values()] == [6] * 4
    assert table.rows[0].cells["scratch"].mean == pytest.approx(0.625)
    final, area = measure_endpoints(runs, {"final": 0, "area": 0})
    assert [(row.n, row.family) for row in final.rows] == [(6, 2)] * 2
    assert [row.n for row in area.rows] == [6]


@pytest.fixture
def folds(tmp_path: Path, finetuned: MakeRun) -> Callable[[int, int], Iterator[Run]]:
    """Makes fine-tunings of two folds from ``cases`` patients, with a Dice of ``cases`` tenths."""

    def make(cases: int, again: int = 0) -> Iterator[Run]:
        for arm in ARMS:
            for seed in range(3):
                for fold in (1, 2):
                    folder = tmp_path / f"{arm}-{cases}-{seed}-{fold}-{again}"
                    about = {"arm": arm, "task_name": "T", "fold": [fold, 2]}
                    names = tuple(f"fold{fold}-{case}" for case in range(3))
                    dice = cases / 10 + 0.01 * seed + 0.02 * (arm == "Parts2Whole")
                    path = finetuned(
                        folder, dice=dice, seed=seed, cases=cases, init=arm, names=names, **about
                    )
                    yield read_run(path)

    return make


def test_folds_of_each_number_of_labels_are_a_run_of_their_own(folds: Callable[..., Iterator[Run]]) -> None:
    pooled = pool_folds([*folds(1), *folds(5)])
    assert len(pooled) == 12
    for run in pooled:
        assert run.result["folds"] == 2
        assert len({case["case"] for case in run.cases}) == len(run.cases) == 6
    table = tabulate(pooled)
    assert [row.labels for row in table.rows] == ["1 case", "5 cases"]
    assert [round(row.cells["scratch"].mean, 6) for row in table.rows] == [0.11, 0.51]


def test_a_fold_that_was_run_twice_is_refused_by_its_runs(folds: Callable[..., Iterator[Run]]) -> None:
    with pytest.raises(TableError, match=r"the same cell was run twice.*scratch-5-0-1-0.*scratch-5-0-"):
        tabulate(pool_folds([*folds(5), *folds(5, 1)]))


def test_a_page_says_how_many_patients_were_asked_for(tmp_path: Path, finetuned: MakeRun) -> None:
    run = read_run(finetuned(tmp_path / "run", cases=1, train_cases=["p0-a", "p0-b"]))
    assert dict(list_facts(run))["Labels"].startswith("1 labelled patient; 2 train, ")
