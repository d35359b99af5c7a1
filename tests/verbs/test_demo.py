from __future__ import annotations

import numpy as np
import pytest

from parts2whole.phantom.shapes import SIZE, make_torso
from parts2whole.training.folder import RunFolderError
from parts2whole.verbs import demo as module
from parts2whole.verbs.demo import demo


def test_the_demo_ends_with_a_table_and_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "UNLABELLED", 3)
    monkeypatch.setattr(module, "LABELLED", 8)
    settings = {"labelled_cases": 2, "seeds": 1, "pretrain_steps": 1, "finetune_steps": 1, "progress": False}
    done = demo(out=tmp_path, **settings)
    assert done.report.stat().st_size > 10_000
    assert "Parts2Whole" in done.summary()
    assert str(done.report.resolve()) in done.summary()
    again = demo(out=tmp_path, **settings)
    assert again.table == done.table
    assert again.seconds < done.seconds


def test_only_one_of_scans_and_labelled_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="give both"):
        demo(out=tmp_path, scans="somewhere")


def test_a_torso_is_a_function_of_seed_and_case():
    image, label = make_torso(0, 1)
    again, _ = make_torso(0, 1)
    other, _ = make_torso(0, 2)
    assert image.array.shape == label.array.shape == SIZE
    assert np.array_equal(image.array, again.array)
    assert not np.array_equal(image.array, other.array)
    assert set(np.unique(label.array)) == {0, 1}
    assert image.array.min() < -900


def test_look_alikes_differ_by_place_and_not_by_brightness():
    """Many voxels as bright as the liver are elsewhere: brightness alone can't solve the task."""
    precisions = []
    for case in range(5):
        image, label = make_torso(0, case)
        liver = image.array[label.array == 1]
        alike = (image.array > np.percentile(liver, 10)) & (image.array < np.percentile(liver, 90))
        precisions.append((alike & (label.array == 1)).sum() / alike.sum())
    assert np.mean(precisions) < 0.6
