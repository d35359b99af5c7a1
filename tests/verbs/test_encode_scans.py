"""Vectors of scans in a table: by scan and by point, in three formats; odd scans are set aside."""

from __future__ import annotations

import csv
import sys

import nibabel as nib
import numpy as np
import pytest
import torch

import parts2whole as p2w
from parts2whole.cli import main
from parts2whole.training.runtime import Hardware
from parts2whole.verbs.encode import EncodeError
from parts2whole.weights.card import Card
from parts2whole.weights.native import save_encoder

CPU = Hardware(accelerator="cpu", devices=1, precision="32-true")
NETWORK = p2w.PlainUNet3D(widths=(2, 3), strides=((1, 1, 1), (2, 2, 2)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    card = Card(
        network=NETWORK, in_channels=1, preprocess=p2w.Preprocess(modality="CT"), whole_size=(8, 8, 8), whole_mm=None,
        spacing_mm=None, method={}, steps=1, seen=(), fingerprint="",
    )  # fmt: skip
    save_encoder(folder, NETWORK.build_encoder(1), card)
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    random = np.random.default_rng(0)
    for name, shape in {"a": (16, 12, 8), "b": (9, 10, 11)}.items():
        image = nib.Nifti1Image(
            random.integers(-1000, 1000, shape).astype(np.int16), np.diag([1.5, 1.5, 3, 1])
        )
        nib.save(image, folder / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4)), folder / "empty.nii.gz")
    return folder


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_scan_is_a_row_in_every_format(weights, scans, tmp_path, capsys):
    typed = f"encode {weights} {scans} --out {tmp_path / 'f.csv'} --features map --hardware.precision 32-true"
    assert main(typed.split()) == 1  # one is set aside
    said = capsys.readouterr().out
    assert "2 rows of 24 features written to" in said
    assert "empty was set aside: constant volume" in said
    rows = read(tmp_path / "f.csv")
    assert [row["scan"] for row in rows] == ["a", "b"]
    vectors = np.array([[float(row[f"f{n}"]) for n in range(24)] for row in rows])
    loaded = p2w.load(weights, hardware=CPU)
    for row, vector in zip(rows, vectors, strict=True):
        assert np.allclose(vector, loaded.encode(scans / f"{row['scan']}.nii.gz", features="map"), atol=1e-5)
    assert not np.allclose(*vectors)
    p2w.encode(weights, [scans], out=tmp_path / "f.npz", features="map", hardware=CPU, progress=False)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as arrays:
        assert arrays["scans"].tolist() == ["a", "b"]
        assert np.allclose(arrays["features"], vectors, atol=1e-6)
        assert "points_mm" not in arrays
    parquet = pytest.importorskip("pyarrow.parquet")
    p2w.encode(weights, [scans], out=tmp_path / "f.parquet", features="map", hardware=CPU, progress=False)
    table = parquet.read_table(tmp_path / "f.parquet").to_pydict()
    assert table["scan"] == ["a", "b"]
    assert np.allclose(table["f23"], vectors[:, 23], atol=1e-6)


def test_points_are_rows_with_their_places(weights, scans, tmp_path):
    points = tmp_path / "points.csv"
    points.write_text(
        "seriesuid,coordX,coordY,coordZ\na,-6,-9,12\na,-7.5,-4.5,6\nb,-3,-3,9\n"
    )  # LPS: x and y turn
    done = p2w.encode(
        weights, [scans / "a.nii.gz", scans / "b.nii.gz"], out=tmp_path / "f.csv", points=points, size=(4, 4, 4),
        hardware=CPU, progress=False,
    )  # fmt: skip
    rows = read(tmp_path / "f.csv")
    assert (done.rows, done.features, done.failed) == (3, 3, False)
    assert [row["scan"] for row in rows] == ["a", "a", "b"]
    places = [[float(row[f"coord{axis}"]) for axis in "XYZ"] for row in rows]
    assert np.allclose(places, [[-6, -9, 12], [-7.5, -4.5, 6], [-3, -3, 9]])
    one = p2w.load(weights, hardware=CPU).encode(scans / "a.nii.gz", points_mm=places[:2], size=(4, 4, 4))
    assert np.allclose([[float(row[f"f{n}"]) for n in range(3)] for row in rows[:2]], one, atol=1e-5)
    points.write_text("seriesuid,coordX,coordY,coordZ\na,-6,-9,12\nb,300,0,0\n")
    left = p2w.encode(
        weights, [scans], out=tmp_path / "g.csv", points=points, size=(4, 4, 4), hardware=CPU, progress=False
    )
    assert left.rows == 1
    assert "lie outside the scan" in left.set_aside["b"]


def test_a_table_that_can_not_be_written_is_refused_before_anything_is_read(
    weights, scans, tmp_path, monkeypatch
):
    with pytest.raises(EncodeError, match=r"--out must end in \.csv, \.npz, \.parquet, got f\.txt"):
        p2w.encode(weights, [scans], out=tmp_path / "f.txt")
    (tmp_path / "f.csv").touch()
    with pytest.raises(EncodeError, match="exists already"):
        p2w.encode(weights, [scans], out=tmp_path / "f.csv")
    with pytest.raises(EncodeError, match=r"no scan could be used\. empty was set aside"):
        p2w.encode(weights, [scans / "empty.nii.gz"], out=tmp_path / "g.csv", hardware=CPU, progress=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EncodeError, match=r"needs a package that isn't installed: pip install"):
        p2w.encode(weights, [scans], out=tmp_path / "f.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["f.csv"]
