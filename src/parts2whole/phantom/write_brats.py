"""BraTS 2018: four skull-stripped MR modalities and a label map for each patient, by grade.

Menze et al., "The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS)", 2015; Bakas et al., 2018.
Labels: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from parts2whole.phantom.brain import Grade, make_brain
from parts2whole.phantom.montage import Picture, picture_brain
from parts2whole.phantom.sizes import Size, brain_grid
from parts2whole.phantom.write import DataSet, Rows
from parts2whole.scans.read import write_nifti

LOW_GRADE = 4
"""Every how many-th patient has a low-grade glioma; in the real set 75 of 285."""


@dataclasses.dataclass(frozen=True)
class Brats2018(DataSet):
    """Gliomas."""

    folder: str = "BraTS2018"
    task: str = "BrainTumourSegmentation"

    def write_case(self, root: Path, case: int, *, seed: int, size: Size) -> Rows:
        """Write a patient's five files."""
        grade = grade_of(case)
        scan = make_brain(brain_grid(size), seed=seed, case=case, grade=grade)
        name = f"Brats18_PHANTOM_{case + 1:03d}_1"
        folder = root / grade / name
        for modality, image in scan.images.items():
            write_nifti(image, folder / f"{name}_{modality}.nii.gz")
        write_nifti(scan.label, folder / f"{name}_seg.nii.gz")
        return {}

    def draw(self, case: int, *, seed: int, size: Size) -> list[Picture]:
        """The four modalities, and the tumour outlined."""
        return picture_brain(make_brain(brain_grid(size), seed=seed, case=case, grade=grade_of(case)))


def grade_of(case: int) -> Grade:
    """The grade of a patient's tumour."""
    return "LGG" if case % LOW_GRADE == LOW_GRADE - 1 else "HGG"
