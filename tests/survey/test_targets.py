"""What is looked at inside labels: values and ranks of what each label marks."""

from __future__ import annotations

import numpy as np
import pytest

from parts2whole.scans.case import SourceCase
from parts2whole.scans.read import write_nifti
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.survey.targets import LOOKED_AT, look_inside
from parts2whole.verbs.inspect import inspect


def write_case(folder, name, scan, label):
    image, mask = folder / "images" / f"{name}.nii.gz", folder / "labels" / f"{name}.nii.gz"
    write_nifti(Volume(scan), image)
    write_nifti(LabelVolume(label), mask)
    return SourceCase(name, (image,), mask)


def test_values_inside_every_label(tmp_path):
    scan = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    label = np.zeros(scan.shape, np.uint8)
    label[1], label[5:7], label[9] = 1, 2, 3
    one = write_case(tmp_path, "a", scan, label)
    other = write_case(tmp_path, "b", scan + 100, np.where(label == 2, 0, label).astype(np.uint8))
    (tmp_path / "images" / "broken.nii.gz").write_bytes(b"nothing")
    broken = SourceCase("c", (tmp_path / "images" / "broken.nii.gz",), one.label)
    found = look_inside([one, other, broken], ignored=3)
    assert [(target.value, target.cases, target.voxels) for target in found] == [(1, 2, 100), (2, 1, 200)]
    # label 1 is 100 to 199, and 200 to 299 in the other; label 2 is 500 to 699: 5 and 95 % of the way
    assert found[0].values == pytest.approx((154.95, 244.05))
    assert found[1].values == pytest.approx((509.95, 689.05))
    assert found[1].ranks == pytest.approx((51.0, 69.0))


def test_many_cases_are_looked_at_here_and_there(tmp_path):
    scan, label = np.arange(64, dtype=np.int16).reshape(4, 4, 4), np.ones((4, 4, 4), np.uint8)
    case = write_case(tmp_path, "a", scan, label)
    assert look_inside([case] * (2 * LOOKED_AT))[0].cases == LOOKED_AT
    assert look_inside([]) == ()


def test_labels_of_one_modality_say_nothing_of_the_scans_of_another(tmp_path):
    random = np.random.default_rng(0)
    for number in range(3):
        ct = random.integers(-1000, 300, (10, 10, 10)).astype(np.int16)
        (tmp_path / "ct").mkdir(exist_ok=True)
        write_nifti(Volume(ct), tmp_path / "ct" / f"c{number}.nii.gz")
        label = np.zeros((10, 10, 10), np.uint8)
        label[2:5] = 1
        mr = (random.integers(0, 300, label.shape) + 1600 * label.astype(np.int16)).astype(np.int16)
        write_case(tmp_path / "mr", f"m{number}", mr, label)
    alone = {one.modality: one for one in inspect([tmp_path / "ct"], progress=False).survey.proposals}
    both = {
        one.modality: one
        for one in inspect([tmp_path / "ct", tmp_path / "mr"], progress=False).survey.proposals
    }
    assert both["CT"].window_hu == alone["CT"].window_hu
    assert "unclear" in both
