"""The embeddings of a study's pre-trainings in one picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from parts2whole.report import embedding_figure
from parts2whole.report.embedding import Embedding, write_embedding
from parts2whole.report.embedding_figure import write_embedding_figure
from parts2whole.report.figures import FigureError
from parts2whole.report.runs import Run, read_run
from parts2whole.run_folder import EMBEDDING

PARTS, WHOLES = 6, 3


def run_with(folder: Path, arm: str, *, share: float | None) -> Run:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"kind": "pretrain", "arm": arm, "steps": 1}))
    if share is not None:
        grey = np.zeros((PARTS, 2, 2), np.uint8)
        numbers = {"map_which_whole": 0.25, "which_whole_chance": 0.2}
        points = np.arange(2 * PARTS, dtype=np.float32).reshape(PARTS, 2)
        embedding = Embedding(
            points={"before": {"t-SNE": points}, "after": {"t-SNE": -points}},
            whole=np.arange(PARTS) % WHOLES,
            names=tuple(f"case {number}" for number in range(WHOLES)),
            thumbs=grey,
            whole_thumbs=grey[:WHOLES],
            nearest=np.zeros((PARTS, 1), np.int64),
            numbers={"before": numbers, "after": numbers | {"map_which_whole": share}},
            features="map",
        )
        (folder / EMBEDDING).mkdir()
        write_embedding(folder / EMBEDDING, embedding, {})
    return read_run(folder)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that were written."""
    figures: list[Figure] = []

    def keep(path: Path, figure: Figure) -> Path:
        figures.append(figure)
        return path

    monkeypatch.setattr(embedding_figure, "write_figure", keep)
    return figures


def test_every_run_with_an_embedding_is_drawn_before_and_after(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = [
        run_with(tmp_path / "a", "Parts2Whole", share=0.75),
        run_with(tmp_path / "b", "SimCLR", share=None),
        run_with(tmp_path / "c", "Autoencoder", share=0.5),
        run_with(tmp_path / "d", "VolumeFusion", share=0.1),
    ]
    write_embedding_figure(tmp_path / "embedding.png", runs)
    shown = [axes for axes in drawn[0].axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == [
        "Parts2Whole\nbefore training: 25 % (chance 20 %)",
        "\nafter training: 75 %",
        "Autoencoder\nbefore training: 25 % (chance 20 %)",
        "\nafter training: 50 %",
        "VolumeFusion\nbefore training: 25 % (chance 20 %)",
        "\nafter training: 10 %",
    ]
    first, after = ([np.asarray(one.get_offsets()) for one in axes.collections] for axes in shown[:2])
    assert [points.tolist() for points in first] == [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5], [10, 11]]]
    assert np.array_equal(np.concatenate(first), -np.concatenate(after))
    colours = {tuple(one.get_facecolor()[0]) for one in shown[0].collections}
    assert len(colours) == WHOLES


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    path = write_embedding_figure(tmp_path / "e.png", [run_with(tmp_path / "a", "Parts2Whole", share=1.0)])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_an_embedding_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(FigureError, match="no pre-training kept an embedding"):
        write_embedding_figure(tmp_path / "e.png", [run_with(tmp_path / "a", "Parts2Whole", share=None)])
    assert not (tmp_path / "e.png").exists()
