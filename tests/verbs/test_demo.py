from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from parts2whole.evaluation import projections
from parts2whole.phantom.ct import Resolution, make_ct
from parts2whole.training.folder import RunFolderError
from parts2whole.verbs import demo as module
from parts2whole.verbs.demo import demo


def test_the_demo_ends_with_a_table_and_a_report(tmp_path, monkeypatch):
    smaller = {
        **{
            "UNLABELLED": 3,
            "LABELLED": 6,
            "WHOLE": (8, 16, 16),
            "PATCH": (16, 16, 16),
            "WINDOW": (16, 16, 24),
        },
        "PATIENT": Resolution(pixels=28, slices=20, smallest_mm=20.0),
    }
    for name, value in smaller.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(projections, "TSNE", functools.partial(projections.TSNE, max_iter=250))
    settings = {"labelled_cases": 2, "seeds": 1, "pretrain_steps": 1, "finetune_steps": 1, "progress": False}
    done = demo(out=tmp_path, **settings)
    assert done.report.stat().st_size > 10_000
    assert "Parts2Whole" in done.summary()
    assert "With 2 labelled cases, nothing could be tested (one seed only)." in done.summary()
    assert "On the worst tenth of the test patients: with 2 labelled cases, nothing could" in done.summary()
    assert (
        "the contrastive loss of parts of held-out wholes, which is never trained on, went from"
        in done.ending
    )
    assert str(done.report.resolve()) in done.summary()
    again = demo(out=tmp_path, **settings)
    assert (again.table, again.ending) == (done.table, done.ending)
    assert again.seconds < done.seconds


def test_a_demo_of_another_seed_is_not_taken_for_this_one(tmp_path, monkeypatch):
    for name, value in {
        "UNLABELLED": 1,
        "LABELLED": 1,
        "PATIENT": Resolution(pixels=16, slices=8, smallest_mm=20.0),
    }.items():
        monkeypatch.setattr(module, name, value)

    def written(folder, seed):
        module._make_data(tmp_path / folder / "data", seed)
        return {p.relative_to(tmp_path / folder): p.read_bytes() for p in tmp_path.rglob(f"{folder}/**/*.gz")}

    first = written("one", 1)
    assert len(first) == 3
    assert written("one", 1) == first
    with pytest.raises(
        RunFolderError, match=r"one holds a demo of another seed than 0; choose another --out"
    ):
        demo(out=tmp_path / "one", progress=False)
    assert first == written("one", 1)
    assert written("two", 0)[Path("data/scans/abdomen_000.nii.gz")] not in first.values()
    (tmp_path / "two/data/settings.json").unlink()  # as version 0.1.0 left it
    with pytest.raises(RunFolderError, match="a demo of another seed than 1"):
        written("two", 1)
    written("two", 0)


def test_only_one_of_scans_and_labelled_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="give both"):
        demo(out=tmp_path, scans="somewhere")


def test_look_alikes_differ_by_place_and_not_by_brightness():
    """Many voxels as bright as the liver are elsewhere: brightness alone can't solve the task."""
    precisions = []
    for case in range(4):
        scan = make_ct("abdomen", module.PATIENT, seed=0, case=case)
        liver = scan.liver_label().array > 0
        bright = scan.image.array[liver]
        alike = (scan.image.array > np.percentile(bright, 10)) & (
            scan.image.array < np.percentile(bright, 90)
        )
        precisions.append((alike & liver).sum() / alike.sum())
    assert np.mean(precisions) < 0.75
