"""LiTS: NIfTI pairs of abdominal CT, with liver (1) and tumour (2).

Bilic et al., "The Liver Tumor Segmentation Benchmark (LiTS)", Medical Image Analysis 2023.  Spacing and voxel
order vary from patient to patient, as there.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from parts2whole.phantom.ct import CtScan, make_ct
from parts2whole.phantom.montage import LIVER_WINDOW, Picture, picture_ct
from parts2whole.phantom.sizes import CT, Size
from parts2whole.phantom.write import DataSet, Rows, flip
from parts2whole.scans.read import write_nifti
from parts2whole.wholes.random import sample_generator

FLIPS: tuple[tuple[int, ...], ...] = ((), (1,), (1, 2), (2,))


@dataclasses.dataclass(frozen=True)
class Lits(DataSet):
    """Livers with tumours."""

    folder: str = "LiTS"
    task: str = "LiverSegmentation"

    def write_case(self, root: Path, case: int, *, seed: int, size: Size) -> Rows:
        """Write volume and segmentation."""
        scan = _scan(case, seed, size)
        axes = FLIPS[case % len(FLIPS)]
        write_nifti(flip(scan.liver_label(), axes), root / f"segmentation-{case}.nii")
        write_nifti(flip(scan.image, axes), root / f"volume-{case}.nii")
        return {}

    def draw(self, case: int, *, seed: int, size: Size) -> list[Picture]:
        """The abdomen, with the liver outlined."""
        scan = _scan(case, seed, size)
        return picture_ct(scan, scan.liver_label().array > 0, LIVER_WINDOW)


def _scan(case: int, seed: int, size: Size) -> CtScan:
    """A patient with none to several lesions."""
    generator = sample_generator("liver lesions", seed, case)
    count = int(generator.choice([0, 1, 2, 4, 7], p=[0.1, 0.2, 0.3, 0.25, 0.15]))
    return make_ct("abdomen", CT["abdomen"][size], seed=seed, case=case, lesions=count)
