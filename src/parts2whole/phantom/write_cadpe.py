"""CAD-PE: NRRD of CT pulmonary angiography, with one label for each embolus.

Gonzalez et al., "Computer Aided Detection for Pulmonary Embolism Challenge (CAD-PE)", 2020; http://www.cad-pe.org
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from parts2whole.phantom.ct import CtScan, make_ct
from parts2whole.phantom.montage import ARTERY_WINDOW, Picture, picture_ct
from parts2whole.phantom.sizes import CT, Size
from parts2whole.phantom.write import DataSet, Rows, write_itk
from parts2whole.wholes.random import sample_generator


@dataclasses.dataclass(frozen=True)
class CadPe(DataSet):
    """Emboli in pulmonary arteries."""

    folder: str = "CAD-PE"
    task: str = "EmbolismFalsePositives"

    def write_case(self, root: Path, case: int, *, seed: int, size: Size) -> Rows:
        """Write image and reference standard."""
        scan = _scan(case, seed, size)
        label = dataclasses.replace(scan.lesion_label(), array=scan.lesion.astype(np.uint16))
        name = f"CT{case + 1:03d}"
        write_itk(label, root / "rs" / f"{name}RefStd.nrrd", compress=True)
        write_itk(scan.image, root / "images" / f"{name}.nrrd", compress=True)
        return {}

    def draw(self, case: int, *, seed: int, size: Size) -> list[Picture]:
        """The chest, with emboli outlined."""
        scan = _scan(case, seed, size)
        return picture_ct(scan, scan.lesion > 0, ARTERY_WINDOW)


def _scan(case: int, seed: int, size: Size) -> CtScan:
    """A patient with several emboli."""
    count = int(sample_generator("emboli", seed, case).integers(2, 8))
    return make_ct("angiography", CT["angiography"][size], seed=seed, case=case, lesions=count)
