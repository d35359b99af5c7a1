"""Trees in the naming of LiTS, BraTS and CAD-PE, assembled from real scans of the developers' folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import read_label, read_volume, write_nifti
from parts2whole.scans.volume import LabelVolume
from parts2whole.tasks.brain_tumour_segmentation import BrainTumourSegmentation
from parts2whole.tasks.embolism_false_positives import EmbolismFalsePositives
from parts2whole.tasks.liver_segmentation import LiverSegmentation

pytestmark = pytest.mark.shared
LIVER = 5
"""Label of the liver in the real abdominal CT."""


def nrrds(shared: Path) -> list[tuple[Path, Path]]:
    """Real MR volumes with label maps on the same grid."""
    files = sorted((shared / "formats" / "nrrd").rglob("*.nrrd"))
    labels = [path for path in files if "label" in path.name.lower()]
    found = []
    for label in labels:
        for image in (path for path in files if path not in labels):
            if read_volume(image).same_grid(read_label(label)):
                found.append((image, label))
                break
    if not found:
        pytest.skip("no NRRD pair on one grid")
    return found


def test_a_real_abdominal_ct_as_lits(shared, tmp_path):
    folder = shared / "formats" / "nifti_ct"
    scan, label = read_volume(folder / "example_ct.nii.gz"), read_label(folder / "example_seg.nii.gz")
    part = dataclasses.replace(scan, array=scan.array[: label.shape[0]])  # only these slices are labelled
    write_nifti(part, tmp_path / "volume-7.nii.gz")
    liver = (label.array == LIVER).astype(np.uint8)
    write_nifti(
        LabelVolume(liver, label.spacing_mm, label.origin_mm, label.direction),
        tmp_path / "segmentation-7.nii.gz",
    )
    task = LiverSegmentation(tmp_path, patch_size=(16, 32, 32))
    labelled = task.labelled(cache=tmp_path / "cache", workers=0, progress=False)
    image, reference = task.image(labelled, "liver-007")[0].numpy(), task.reference(labelled, "liver-007")
    assert int(reference.sum()) == int(liver.sum()) > 1000
    inside = image[reference == 1] * 2000 - 1000
    assert 0 < np.median(inside) < 250  # Hounsfield units of a liver


def test_real_mr_as_brats(shared, tmp_path):
    for number, (image, label) in enumerate(nrrds(shared)[:2]):
        case = tmp_path / "brats" / f"BraTS2021_{number:05d}"
        volume, mask = read_volume(image), read_label(label)
        for name in ("flair", "t1"):
            write_nifti(volume, case / f"{case.name}_{name}.nii.gz")
        binary = (mask.array > 0).astype(np.uint8)
        where = (mask.spacing_mm, mask.origin_mm, mask.direction)
        write_nifti(LabelVolume(binary, *where), case / f"{case.name}_seg.nii.gz")
    task = BrainTumourSegmentation(tmp_path / "brats", modalities=("flair", "t1"))
    labelled = task.labelled(cache=tmp_path / "cache", workers=0, progress=False)
    for item in labelled.items:
        image = task.image(labelled, item.item_id)
        assert image.shape[0] == 2
        assert float(image.min()) == 0
        assert float(image.max()) == 1
        assert image.shape[1:] == task.reference(labelled, item.item_id).shape


def test_real_nrrds_as_cad_pe(shared, tmp_path):
    for kind in ("images", "rs"):
        (tmp_path / kind).mkdir()
    pairs = nrrds(shared)
    for number, (image, label) in enumerate(pairs, start=1):
        (tmp_path / "images" / f"CT{number:03d}.nrrd").symlink_to(image)
        (tmp_path / "rs" / f"CT{number:03d}RefStd.nrrd").symlink_to(label)
    task = EmbolismFalsePositives(tmp_path, preprocess=Preprocess(modality="MR"))
    found = task._find(tmp_path)
    assert [case.case_id for case in found.cases] == [f"CT{n:03d}" for n in range(1, len(pairs) + 1)]
