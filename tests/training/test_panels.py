"""Pictures of test cases: which ones a run keeps."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parts2whole.tasks.base import Examination, Segmented
from parts2whole.training.panels import draw_cases

SCORES = {"e": 0.5, "d": 0.9, "c": 0.2, "b": 0.7, "a": 0.6}


def draw(folder: Path, scores: dict[str, float], seed: int) -> set[str]:
    """Names of the pictures of a task that shows one cube for every case."""
    cube = np.zeros((4, 4, 4), np.int64)
    shown = Segmented(cube.astype(np.float32), cube, cube, (1.0, 1.0, 1.0))
    task: Any = types.SimpleNamespace(monitor="dice", show=lambda *_: shown)
    labelled: Any = types.SimpleNamespace(classes=("background", "liver"))
    predictor: Any = None
    rows = [{"case": case, "dice": score} for case, score in scores.items()]
    draw_cases(folder, task, predictor, labelled, Examination({}, rows), seed=seed)
    return {path.stem for path in folder.iterdir()}


def test_worst_median_best_and_one_that_the_seed_chooses(tmp_path: Path) -> None:
    usual = {"test-worst-c", "test-median-a", "test-best-d"}
    assert draw(tmp_path / "0", SCORES, 0) == usual  # the seed's is a, which is there
    assert draw(tmp_path / "1", SCORES, 1) == usual | {"test-shared-b"}
    assert draw(tmp_path / "9", SCORES, 9) == usual | {"test-shared-e"}  # 9 modulo five cases


@pytest.mark.parametrize("seed", [1, 4])
def test_runs_of_equal_seed_have_one_case_in_common_whatever_their_scores(tmp_path: Path, seed: int) -> None:
    other = dict(zip(SCORES, (0.1, 0.3, 0.8, 0.5, 0.6), strict=True))
    first, second = (
        {name.rpartition("-")[2] for name in draw(tmp_path / str(place), scores, seed)}
        for place, scores in enumerate((SCORES, other))
    )
    assert sorted(SCORES)[seed] in first & second


def test_a_case_without_a_score_has_no_picture(tmp_path: Path) -> None:
    undefined = SCORES | {"b": float("nan")}
    assert "test-shared-b" not in draw(tmp_path / "1", undefined, 1)
