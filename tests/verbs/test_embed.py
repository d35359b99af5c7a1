"""Embeddings of parts: files, numbers, retrieval, error maps, and the report that shows them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import parts2whole as p2w
from parts2whole.evaluation.projections import project
from parts2whole.report.embedding import read_embedding
from parts2whole.report.runs import RunError
from parts2whole.training.error_maps import ErrorMapError
from parts2whole.training.runtime import Hardware
from parts2whole.verbs.embed import EmbedError

EXACT = Hardware(accelerator="cpu", precision="32-true")
AFFINE = np.diag([-1.5, -1.5, 2.0, 1.0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed")
    for case in range(5):
        image = np.random.default_rng(case).normal(100, 20, (20, 18, 20)).astype(np.float32)
        image[: 3 * case + 3] += 100
        (folder / "scans").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(image, AFFINE), folder / "scans" / f"case_{case}.nii.gz")
    p2w.prepare([folder / "scans"], out=folder / "store", modality="MR", workers=0, progress=False)
    p2w.pretrain(
        folder / "store",
        out=folder / "run",
        network=p2w.UNet3D(size="tiny"),
        whole_size=(16, 16, 16),
        steps=2,
        batch_size=2,
        validation_fraction=0.4,
        validation_wholes=2,
        embed_wholes=3,
        hardware=EXACT,
        progress=False,
    )
    return folder / "run"


def test_every_pretraining_ends_with_an_embedding_of_scans_it_did_not_train_on(run: Path) -> None:
    found = read_embedding(run)
    assert found is not None
    held_out = json.loads((run / "result.json").read_text())["held_out_cases"]
    assert len(held_out) == 2
    assert {name.partition(" at ")[0] for name in found.names} <= set(held_out)
    assert "Embedding of parts" in (run / "report.html").read_text()


def test_numbers_points_and_neighbours_are_written(run: Path, tmp_path: Path) -> None:
    done = p2w.embed(
        run,
        store=run.parent / "store",
        out=tmp_path / "e",
        wholes=4,
        parts=3,
        neighbours=2,
        error_maps=1,
        hardware=EXACT,
        progress=False,
    )
    assert any("were trained on" in note for note in done.notes)
    assert done.numbers["before"] != done.numbers["after"]
    measured = {"distance_within", "distance_between", "retrieval_top1", "part_top1", "rest_cosine"}
    assert measured | {f"map_{key}" for key in measured} <= set(done.numbers["after"])
    assert "map_part_chance" not in done.numbers["after"]  # chance is the same
    listed = {row["number"]: row for row in csv.DictReader((tmp_path / "e" / "numbers.csv").open())}
    assert float(listed["part_top1"]["chance"]) == pytest.approx(1 / 32)
    assert float(listed["part_top1"]["map trained"]) == done.numbers["after"]["map_part_top1"]
    assert float(listed["rest_cosine"]["average untrained"]) == done.numbers["before"]["rest_cosine"]
    assert "part_top1" in done.summary()
    rows = list(csv.DictReader((tmp_path / "e" / "embedding.csv").open()))
    assert len(rows) == 12
    assert {"whole", "after t-SNE x", "before PCA y", "nearest 2"} <= set(rows[0])
    assert [rows[0]["nearest 1"], rows[0]["nearest 2"]] == list(done.nearest[0])
    with np.load(tmp_path / "e" / "embedding.npz") as arrays:
        assert arrays["features/after_parts"].shape == (12, 64)
        assert arrays["features/map_after_parts"].shape == (12, 8 * 64)
        np.testing.assert_allclose(  # the deepest map of 16 voxels is 2 x 2 x 2
            arrays["features/map_after_parts"].reshape(12, 8, 64).mean(axis=1),
            arrays["features/after_parts"],
            rtol=1e-4,
            atol=1e-6,
        )
        assert arrays["thumbs"].shape == (12, 16, 16)
    assert done.maps is not None
    (case,) = done.maps.errors
    error = nib.load(tmp_path / "e" / "error_maps" / f"{case}_error.nii.gz")
    image = nib.load(tmp_path / "e" / "error_maps" / f"{case}_image.nii.gz")
    scan = nib.load(run.parent / "scans" / f"{case}.nii.gz")
    assert sorted(error.shape) == sorted(scan.shape) == sorted(image.shape)
    assert abs(np.linalg.det(error.affine[:3, :3])) == pytest.approx(4.5, rel=1e-5)
    values = np.asarray(error.dataobj)
    assert 0 <= values.min() < values.max() <= 1
    assert values.mean() == pytest.approx(done.maps.errors[case], rel=1e-5)
    assert "untrained" in done.summary()


def test_points_are_of_the_map_or_of_its_average(run: Path, tmp_path: Path) -> None:
    settings = {"wholes": 3, "parts": 3, "hardware": EXACT, "progress": False}
    by_map = p2w.embed(run, out=tmp_path / "map" / "embedding", **settings)
    by_average = p2w.embed(run, out=tmp_path / "average" / "embedding", features="average", **settings)
    assert by_map.numbers == by_average.numbers
    for kind in ("map", "average"):
        found = read_embedding(tmp_path / kind)
        assert found is not None
        assert found.features == kind
        named = {"map": "map_", "average": ""}[kind]
        with np.load(tmp_path / kind / "embedding" / "embedding.npz") as arrays:
            for stage in ("before", "after"):
                expected = project(arrays[f"features/{named}{stage}_parts"], seed=0)["PCA"]
                np.testing.assert_array_equal(found.points[stage]["PCA"], expected)


def test_the_same_seed_gives_the_same_embedding(run: Path, tmp_path: Path) -> None:
    settings = {"wholes": 3, "parts": 2, "hardware": EXACT, "progress": False}
    first = p2w.embed(run, out=tmp_path / "a", **settings)
    assert p2w.embed(run, out=tmp_path / "b", **settings).numbers == first.numbers
    assert p2w.embed(run, out=tmp_path / "c", seed=1, **settings).numbers != first.numbers


def test_what_can_not_be_embedded_is_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbedError, match="two or more wholes"):
        p2w.embed(run, out=tmp_path, wholes=1, progress=False)
    with pytest.raises(RunError, match="holds no run"):
        p2w.embed(run / "weights", out=tmp_path, progress=False)
    (run / "weights" / "model.safetensors").rename(tmp_path / "model.safetensors")
    try:
        with pytest.raises(ErrorMapError, match="keeps its decoder"):
            p2w.embed(run, out=tmp_path, wholes=2, parts=2, error_maps=1, progress=False)
    finally:
        (tmp_path / "model.safetensors").rename(run / "weights" / "model.safetensors")
