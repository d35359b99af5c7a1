"""Brain tumour segmentation on BraTS, any edition from 2013 to 2023. (The poster's BMS)

A folder of cases, in any subfolders, named as the challenge names them (see `parts2whole.tasks.brats`).
Data: https://www.med.upenn.edu/cbica/brats (Menze et al. 2015, IEEE TMI 34; Baid et al. 2021, arXiv
2107.02314).  Sizes, normalisation, loss and shares of the split that are defaults here come from the public
code of Models Genesis (https://github.com/MrGiovanni/ModelsGenesis, keras/downstream_tasks), not from the
Parts2Whole paper; its lists of folds aren't public, so patients are drawn.

The three regions of the challenge overlap: enhancing tumour lies in tumour core, which lies in whole tumour.
The network predicts classes that exclude each other (oedema, core that doesn't enhance, enhancing), and
regions are unions of classes, so one softmax serves and no prediction contradicts the nesting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from parts2whole.errors import name_some
from parts2whole.evaluation.regions import Regions
from parts2whole.scans.case import SourceCase
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.source import ScanSource
from parts2whole.scans.volume import Size
from parts2whole.tasks.brats import (
    CHILDREN,
    CORE,
    ENHANCING,
    MODALITIES,
    OEDEMA,
    BratsCase,
    BratsLabel,
    find_cases,
)
from parts2whole.tasks.labelled import FoundCases, TaskError
from parts2whole.tasks.labels import class_indices
from parts2whole.tasks.losses import LossFunction
from parts2whole.tasks.segmenting import SegmentationTask

SUFFIXES = (".nii.gz", ".nii", ".mha")


@dataclasses.dataclass(frozen=True)
class BrainTumourSegmentation(SegmentationTask):
    """Glioma in MR; crops of 100 x 100 x 50 voxels (x, y, z) resized to 64 x 64 x 32.

    Attributes:
        modalities: which of t1, t2, t1ce and flair become channels, always in this order. One by default,
            as encoders are mostly pre-trained on one channel; FLAIR shows the whole tumour best.
        target: ``whole`` (every label above 0), or ``regions``: whole tumour, tumour core and enhancing
            tumour, from three classes.
        preprocess: each channel of each patient from its minimum to its maximum.
        crop_size: of the scan, before resizing.
        validation_fraction: 23 of 285 cases.
        test_fraction: 95 of 285 cases, one of three folds.
    """

    preprocess: Preprocess = Preprocess(modality="MR", percentiles=(0.0, 100.0))
    patch_size: Size = (32, 64, 64)
    crop_size: Size | None = (50, 100, 100)
    loss_function: LossFunction = "dice"
    validation_fraction: float = 0.08
    test_fraction: float = 1 / 3
    modalities: tuple[str, ...] = ("flair",)
    target: Literal["whole", "regions"] = "whole"

    def __post_init__(self) -> None:
        unknown = sorted(set(self.modalities) - set(MODALITIES))
        if unknown or not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise TaskError(f"modalities must be some of {', '.join(MODALITIES)}, got {self.modalities}")
        object.__setattr__(self, "modalities", tuple(m for m in MODALITIES if m in self.modalities))

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Tiny phantoms of BraTS 2018, of two modalities."""
        from parts2whole.phantom.example import write_data_set
        from parts2whole.phantom.write_brats import Brats2018

        return cls(
            write_data_set(Brats2018(), folder),
            patch_size=(16, 16, 16),
            crop_size=(20, 20, 20),
            modalities=("flair", "t1"),
            validation_fraction=0.25,
            test_fraction=0.25,
        )

    def prepared_with(self) -> list[str]:
        """The channels."""
        return list(self.modalities)

    def sources(self) -> FoundCases:
        """Channels and reference of every case; what is incomplete is set aside."""
        found = self._cases()
        if self.target == "regions" and any(case.edition == CHILDREN for case in found):
            raise TaskError(
                "labels of BraTS-PED mean other parts of a tumour in 2023 than in 2024, and its files don't "
                "say which: use --task.target whole"
            )
        cases, set_aside = [], {}
        for case in found:
            problem = self._problem(case, needs=(*self.modalities, "seg"))
            if problem:
                set_aside[case.name] = problem
                continue
            cases.append(self._source(case, BratsLabel(case.files["seg"], case.edition)))
        if not cases:
            raise TaskError(
                f"no usable case in {self.data}. "
                + "; ".join(f"{name}: {why}" for name, why in list(set_aside.items())[:5])
            )
        return FoundCases(cases, set_aside)

    def find_inputs(self, scans: Sequence[str | Path]) -> list[SourceCase]:
        """Case folders, or folders of them; no reference is needed.  A case without a modality has a problem.

        Raises:
            TaskError: a path doesn't exist.
        """
        files: list[Path] = []
        for scan in map(Path, scans):
            if not scan.exists():
                raise TaskError(f"{scan} doesn't exist; name case folders of BraTS, or folders of them")
            files += sorted(scan.rglob("*")) if scan.is_dir() else [scan]
        return [
            SourceCase(case.name, (ScanSource(case.name, tuple(case.files.values()), problem),))
            if (problem := self._problem(case, needs=self.modalities))
            else self._source(case)
            for case in find_cases([path for path in files if path.name.lower().endswith(SUFFIXES)])
        ]

    def classes_in(self, values: Sequence[int]) -> tuple[str, ...]:
        """Classes by the values of written masks: 1 is tumour, or 1 oedema, 2 core and 3 enhancing."""
        return ("0", "1") if self.target == "whole" else ("0", str(OEDEMA), str(CORE), str(ENHANCING))

    def to_classes(self, label: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Labels as class indices."""
        if self.target == "whole":
            return (label > 0).astype(np.int64)
        return class_indices(label, classes)

    def regions(self, classes: Sequence[str]) -> Regions:
        """Whole tumour; with ``regions`` also tumour core and enhancing tumour."""
        if self.target == "whole":
            return {"whole_tumour": (1,)}
        return {
            "whole_tumour": (OEDEMA, CORE, ENHANCING),
            "tumour_core": (CORE, ENHANCING),
            "enhancing_tumour": (ENHANCING,),
        }

    def _source(self, case: BratsCase, label: BratsLabel | None = None) -> SourceCase:
        images = tuple(case.files[modality] for modality in self.modalities)
        return SourceCase(case.name, images, label, patient=case.patient)

    def _problem(self, case: BratsCase, *, needs: Sequence[str]) -> str:
        if case.problem:
            return case.problem
        missing = [part for part in needs if part not in case.files]
        there = [part for part in (*MODALITIES, "seg") if part in case.files]
        return f"no {', no '.join(missing)} (it has {', '.join(there)})" if missing else ""

    def _cases(self) -> list[BratsCase]:
        root = Path(self.data)
        if not root.is_dir():
            raise TaskError(f"{root} is not a folder; --task.data must name a folder of BraTS cases")
        cases = find_cases([path for path in sorted(root.rglob("*")) if path.name.lower().endswith(SUFFIXES)])
        if not cases:
            raise TaskError(
                f"no BraTS case in {root}: expected files like <case>_flair.nii.gz, <case>-t2f.nii.gz or "
                "VSD.Brain.XX.O.MR_Flair.N.mha"
            )
        editions = sorted({case.edition for case in cases})
        if len(editions) > 1:
            raise TaskError(
                f"{root} mixes editions of BraTS ({name_some(editions)}), whose labels differ and whose "
                "patients overlap; name one of them"
            )
        return cases
