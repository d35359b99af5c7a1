"""Phantoms in the challenges' formats, read by the tasks that will meet the real archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import parts2whole as p2w
from parts2whole.verbs.phantom import phantom

CASES = 3
SETS = {
    "NoduleFalsePositives": ("LUNA16", {"folds": "patient"}),
    "NoduleSegmentation": ("LIDC-IDRI", {}),
    "LiverSegmentation": ("LiTS", {}),
    "EmbolismFalsePositives": ("CAD-PE", {}),
    "BrainTumourSegmentation": ("BraTS2018", {}),
}


@pytest.mark.parametrize("name", sorted(SETS))
def test_every_phantom_case_is_read(name, tmp_path):
    phantom(out=tmp_path, tasks=[name], cases=CASES, size="tiny", workers=0, progress=False)
    folder, settings = SETS[name]
    task = getattr(p2w, name)(Path(tmp_path / folder), patch_size=(16, 16, 16), **settings)
    labelled = task.labelled(cache=tmp_path / "cache", workers=0, progress=False)
    assert len(labelled.store.cases) == CASES
    assert not [note for note in labelled.notes if "set aside" in note or "outside" in note]
    if labelled.lesions:
        assert {item.target for item in labelled.items} == {0, 1}
        found = {lesion for item in labelled.items for lesion in item.lesions}
        assert found
        hit = [item for item in labelled.items if item.target]
        assert all(item.lesions for item in hit)
    else:
        apart = []
        for item in labelled.items:
            reference = task.reference(labelled, item.item_id)
            image = task.image(labelled, item.item_id)[0].numpy()
            assert reference.any()
            around = ndimage.binary_dilation(reference > 0, iterations=2) & (reference == 0)
            apart.append(float(image[reference > 0].mean() - image[around].mean()))
        assert abs(np.mean(apart)) > 0.02
    split = task.split(labelled)
    assert split.train
    assert split.test
