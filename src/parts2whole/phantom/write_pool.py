"""The pool for pre-training: unlabelled NIfTI of other patients, one folder for each anatomy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

from parts2whole.phantom.brain import MODALITIES, make_brain
from parts2whole.phantom.ct import Region, make_ct
from parts2whole.phantom.sizes import CT, Size, brain_grid
from parts2whole.phantom.write import DataSet, Rows
from parts2whole.scans.read import write_nifti
from parts2whole.wholes.random import sample_generator

OTHER_PATIENTS = 1_000_000
"""Case numbers of the pool begin here, so that no patient is in a labelled data set of any seed as well."""


@dataclasses.dataclass(frozen=True)
class Pool(DataSet):
    """Scans without labels."""

    folder: str = "pool"
    task: str = ""

    def write_case(self, root: Path, case: int, *, seed: int, size: Size) -> Rows:
        """Write a scan of each anatomy."""
        patient = OTHER_PATIENTS + case
        for region in get_args(Region):
            scan = make_ct(region, CT[region][size], seed=seed, case=patient)
            write_nifti(scan.image, root / f"{region}_ct" / f"{region}_{case + 1:04d}.nii.gz")
        modality = MODALITIES[int(sample_generator("modality", seed, patient).integers(len(MODALITIES)))]
        head = make_brain(
            brain_grid(size),
            seed=seed,
            case=patient,
            tumour=case % 2 == 0,
            stripped=case % 4 != 3,
            modalities=(modality,),
        )
        write_nifti(head.images[modality], root / "brain_mr" / f"brain_{case + 1:04d}_{modality}.nii.gz")
        return {}
