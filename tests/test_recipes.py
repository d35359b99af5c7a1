"""Every recipe parses and resolves to its cells; nothing is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from parts2whole.study.check import check_paths
from parts2whole.study.plan import name_labels
from parts2whole.study.read import StudyError
from parts2whole.study.resolve import read_study
from parts2whole.verbs.benchmark import benchmark, study_verbs

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
CELLS = {
    "poster": (6, 5, 10, 300),
    "poster-phantom": (5, 5, 3, 65),
    "ablation": (6, 2, 3, 36),
    "label-efficiency": (4, 2, 5, 200),
    "real-small": (5, 2, 3, 25),
    "gain-hippocampus": (8, 1, 10, 400),
    "gain-hippocampus-large-patches": (8, 1, 10, 400),
    "gain-head-neck": (8, 1, 10, 320),
    "gain-hippocampus-own-weights": (3, 1, 10, 90),
    "gain-hippocampus-short": (3, 1, 10, 90),
    "gain-hippocampus-two-ramps": (3, 1, 10, 90),
    "gain-one-label": (3, 1, 40, 120),
    "gain-small-sets": (2, 2, 10, 100),
    "start-hippocampus": (2, 1, 10, 60),
    "start-head-neck": (2, 1, 6, 12),
    "ablation-hippocampus": (6, 1, 10, 60),
    "quick": (3, 1, 2, 6),
}


def test_there_is_a_recipe_of_every_kind() -> None:
    assert {path.stem for path in RECIPES} >= set(CELLS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_resolves_to_its_cells(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2W_DATA", str(tmp_path / "data"))
    study = read_study(path, out=tmp_path / "out", verbs=study_verbs())
    seeds = {finetuning.seed for finetuning in study.finetunings}
    assert (len(study.arms), len(study.tasks), len(seeds), len(study.finetunings)) == CELLS[path.stem]
    assert len({finetuning.digest for finetuning in study.finetunings}) == len(study.finetunings)
    if path.stem == "ablation":
        labels = {(finetuning.task, name_labels(finetuning.labels)) for finetuning in study.finetunings}
        assert labels == {("NCC", "45 %"), ("NCS", "10 %")}
        assert len(study.pretrainings) == 6
    if path.stem.startswith(("real-small", "gain-")):
        assert all(one.settings["held_out"] in study.tasks.values() for one in study.pretrainings.values())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_to_expect_and_what_it_costs(path: Path) -> None:
    head = re.split(r"^[^#\n]", path.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
    for words in ("Expected result:", "Cost:", f"recipes/{path.name}"):
        assert words in head, words


def test_archives_that_are_not_there_are_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2W_DATA", str(tmp_path / "data"))
    path = next(path for path in RECIPES if path.stem == "real-small")
    study = read_study(path, out=tmp_path / "out", verbs=study_verbs())
    with pytest.raises(StudyError, match=r"tasks.Hippocampus.task.data: .*hippocampus doesn't exist"):
        check_paths(study)
    with pytest.raises(StudyError, match="doesn't exist"):
        benchmark(path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
