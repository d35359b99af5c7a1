"""What the page shows of an embedding: numbers of map and average beside chance, and of which of them points are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parts2whole.report.embedding import Embedding, tabulate, to_plain


def test_numbers_of_an_embedding_stand_beside_chance() -> None:
    before = {"which_whole": 0.2, "which_whole_chance": 0.1, "alignment": 0.5, "sum_cosine": 0.9}
    after = before | {"which_whole": 0.3, "map_which_whole": 0.8, "map_alignment": 0.4}
    first, *others = tabulate({"before": before | {"map_which_whole": 0.4}, "after": after})
    assert first == {
        "number": "which_whole",
        "chance": 0.1,
        "map untrained": 0.4,
        "map trained": 0.8,
        "average untrained": 0.2,
        "average trained": 0.3,
    }
    assert [row["number"] for row in others] == ["alignment", "sum_cosine"]
    assert all(math.isnan(row["chance"]) for row in others)
    assert "map trained" not in others[1]  # as in version 0.1.0, which measured averages alone


@pytest.mark.parametrize(("wholes", "chance"), [(3, 1.0), (5, 1.0), (8, 5 / 8), (100, 0.05)])
def test_five_of_few_wholes_are_all_of_them(wholes: int, chance: float) -> None:
    numbers = {"retrieval_top5": 0.9, "retrieval_chance": 1 / wholes, "map_retrieval_top5": 1.0}
    (row,) = tabulate({"before": numbers, "after": numbers})
    assert row["chance"] == pytest.approx(chance)
    (unknown,) = tabulate({"before": {"retrieval_top5": 0.9}, "after": {"retrieval_top5": 0.9}})
    assert math.isnan(unknown["chance"])


@pytest.mark.parametrize("features", ["map", "average"])
def test_what_the_page_shows_of_an_embedding(features: str) -> None:
    numbers = {"which_whole": 0.25, "which_whole_chance": 0.125, "distance_within": 0.5}
    if features == "map":
        numbers |= {"map_which_whole": 0.75, "map_distance_within": 0.1}
    grey = np.zeros((4, 3, 3), np.uint8)
    points = {stage: {"PCA": np.zeros((4, 2), np.float32)} for stage in ("before", "after")}
    plain = to_plain(
        Embedding(
            points=points,
            whole=np.repeat(np.arange(2), 2),
            names=("a", "b"),
            thumbs=grey,
            whole_thumbs=grey[:2],
            nearest=np.zeros((4, 1), np.int64),
            numbers={"before": numbers, "after": numbers},
            features=features,
        ),
        "run",
    )
    average = ["25.0 %", "25.0 %"]
    shares = ["12.5 %", *(["75.0 %", "75.0 %"] if features == "map" else []), *average]
    assert plain["kinds"] == (["Bottleneck map"] if features == "map" else []) + ["Global average"]
    assert plain["features"] == ("bottleneck map" if features == "map" else "global average")
    assert plain["numbers"][0] == ["Nearest other part is of the same whole", *shares]
    assert plain["numbers"][1][:2] == ["Mean distance within a whole", "–"]
