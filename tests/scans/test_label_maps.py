"""Label maps are told from scans in the same way by `prepare` and `inspect`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parts2whole.scans.label_maps import is_label_map, said_to_be_label
from parts2whole.scans.read import write_nifti
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.verbs.inspect import inspect
from parts2whole.verbs.prepare import PrepareError, prepare


def organ() -> np.ndarray:
    label = np.zeros((12, 14, 16), np.uint8)
    label[4:9, 4:10, 5:12] = 3
    return label


def scattered(values: int) -> np.ndarray:
    """One voxel each, far from the next."""
    label = np.zeros((16, 32, 32), np.uint8)
    label[::4, ::4, ::4].flat[:values] = np.arange(values) + 1
    return label


def scan(seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).integers(-1000, 400, (12, 14, 16)).astype(np.int16)
    x[:3] = -1000
    return x


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("set/seg-lungs-LUNA16/1.3.6.mhd", "its folder"),
        ("s0001/segmentations/liver.nii.gz", "its folder"),
        ("masks/p1/liver.nii.gz", "its folder"),
        ("labelsTs/a.nii.gz", "its folder"),
        ("Ground_Truth/GTs/a.nii", "its folder"),
        ("ground_truth/a.nii", "its folder"),
        ("contours/a.nii", "its folder"),
        ("in/case1_Labels.nii", "its name"),
        ("sub-01/anat/sub-01_dseg.nii.gz", "its name"),
        ("in/lungmask.nrrd", "its name"),
        ("in/volume-3.nii", None),
        ("segovia/maskell/gtx.nii", None),
        ("masks/a/b/c/x.nii", None),
    ],
)
def test_names_and_folders_that_say_label_map(path, said):
    assert said_to_be_label([Path("/data") / path]) == said


def test_voxels_of_label_maps():
    assert is_label_map(Volume(organ()))
    assert is_label_map(Volume(scattered(5)))
    assert is_label_map(Volume(np.zeros((4, 4, 4), np.uint8)))
    assert not is_label_map(Volume(scan()))
    many = Volume(scattered(200))
    assert not is_label_map(many)  # as a brain in bytes without its skull might be
    assert is_label_map(many, certain=True)
    assert not is_label_map(Volume(scattered(5) + np.float32(0.5)))


def test_prepare_and_inspect_agree(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = tmp_path / "in"
    for number, place in enumerate(("subset0/1.2.3", "s1/ct", "images/a", "images/b")):
        write_nifti(Volume(scan(number)), root / f"{place}.nii")
    for place in ("seg-lungs-LUNA16/1.2.3", "s1/segmentations/liver", "masks/p1/spleen"):
        write_nifti(LabelVolume(organ()), root / f"{place}.nii")
    write_nifti(LabelVolume(scattered(9)), root / "annotations" / "points.nii")
    write_nifti(LabelVolume(scattered(200)), root / "labels" / "a.nii")  # beside images: never searched
    store = prepare(root, out=tmp_path / "store", modality="CT", workers=0, progress=False)
    survey = inspect(root, progress=False).survey
    maps = {entry.case_id for entry in survey.label_maps}
    assert {entry.case_id for entry in survey.scans} == {record.case_id for record in store.cases}
    assert maps == {*store.set_aside, "labels__a"}
    assert len(maps) == 5
    assert all("label map" in reason for reason in store.set_aside.values())
    with pytest.raises(PrepareError, match="looks like a label map, by its folder and by its voxels"):
        prepare(root / "masks", out=tmp_path / "none", modality="CT", workers=0, progress=False)
