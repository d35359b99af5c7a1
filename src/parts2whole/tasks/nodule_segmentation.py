"""Lung nodule segmentation on LIDC-IDRI, or on own nodules with masks. (The poster's NCS)

    LIDC-IDRI/  DICOM series anywhere below (LIDC-IDRI-0001/<study>/<series>/*.dcm), and one *.xml a series
    nodules/    images/ and labels/ with equal file names; any label above 0 is nodule

Data: https://www.cancerimagingarchive.net/collection/lidc-idri (Armato et al. 2011, doi 10.1118/1.3528204).
An item is a nodule, seen through a crop around it.  Sizes and loss that are defaults here come from the
public code of Models Genesis (https://github.com/MrGiovanni/ModelsGenesis, keras/downstream_tasks), not from
the Parts2Whole paper; that code read ready-made cubes (4082, 3126 and 852), which aren't public, so patients
are drawn here, about 50, 10 and 40 % of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from parts2whole.errors import name_some
from parts2whole.evaluation.regions import Regions
from parts2whole.scans.case import SourceCase
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import find_scans
from parts2whole.scans.volume import Size
from parts2whole.store.store import Store
from parts2whole.tasks.derived import Rows, derive
from parts2whole.tasks.labelled import PUBLIC_SALT, FoundCases, Item, TaskError
from parts2whole.tasks.lidc import LidcLabel, series_of
from parts2whole.tasks.losses import LossFunction
from parts2whole.tasks.pairs import pair_folders
from parts2whole.tasks.segmenting import SegmentationTask


@dataclasses.dataclass(frozen=True)
class NoduleSegmentation(SegmentationTask):
    """Nodules in chest CT; crops of 64 x 64 x 32 voxels (x, y, z) at native spacing.

    Attributes:
        consensus: share of a nodule's readers who must agree on a voxel.
        minimum_readers: nodules that fewer readers drew are left out.
        patient_separator: for pairs of files, text that ends the patient's part of a name; None takes each
            file for a patient of its own.
        validation_fraction: share of the patients to choose the best step on.
        test_fraction: share of the patients to report on.
    """

    preprocess: Preprocess = Preprocess(modality="CT")
    patch_size: Size = (32, 64, 64)
    loss_function: LossFunction = "dice"
    validation_fraction: float = 0.1
    test_fraction: float = 0.4
    consensus: float = 0.5
    minimum_readers: int = 1
    patient_separator: str | None = None

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Tiny phantoms of LIDC-IDRI."""
        from parts2whole.phantom.example import write_data_set
        from parts2whole.phantom.write_lidc import Lidc

        data = write_data_set(Lidc(), folder)
        return cls(data, patch_size=(16, 16, 16), validation_fraction=0.25, test_fraction=0.25)

    def prepared_with(self) -> list[Any]:
        """How readers become one mask."""
        return [self.consensus, self.minimum_readers]

    def sources(self) -> FoundCases:
        """Scans and masks, from LIDC-IDRI or from pairs of files."""
        root = Path(self.data)
        if not root.is_dir():
            raise TaskError(f"{root} is not a folder")
        if (root / "images").is_dir():
            return pair_folders(root / "images", root / "labels", self.patient_separator)
        return self._lidc(root)

    def _lidc(self, root: Path) -> FoundCases:
        annotations: dict[str, Path] = {}
        for path in sorted(root.rglob("*.xml")):
            series = series_of(path)
            if series is not None:
                annotations.setdefault(series, path)
        scans = [
            s for s in find_scans([root], salt=PUBLIC_SALT, keep_series_uids=True) if s.is_series and s.paths
        ]
        set_aside: dict[str, str] = {}
        cases: list[SourceCase] = []
        for scan in scans:
            if scan.problem is not None:
                set_aside[scan.case_id] = scan.problem
            elif scan.series not in annotations:
                set_aside[scan.case_id] = "no XML file names this series"
            else:
                label = LidcLabel(annotations[scan.series], self.consensus, self.minimum_readers)
                cases.append(SourceCase(scan.case_id, (scan,), label, patient=scan.patient))
        if not cases:
            reasons = name_some([f"{case}: {reason}" for case, reason in set_aside.items()])
            raise TaskError(
                f"no annotated CT series in {root}: expected DICOM series with their XML files, or images/ "
                f"and labels/ folders. {reasons}".rstrip()
            )
        lost = len(set(annotations) - {scan.series for scan in scans})
        notes = (f"{lost} XML files are about series that are not here",) if lost else ()
        return FoundCases(cases, set_aside, notes=notes)

    def classes_in(self, values: Sequence[int]) -> tuple[str, ...]:
        """Background and nodule."""
        return ("0", "1")

    def to_classes(self, label: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Any nodule is class 1; in the crop around one, neighbours count too."""
        return (label > 0).astype(np.int64)

    def regions(self, classes: Sequence[str]) -> Regions:
        """The nodules."""
        return {"nodule": (1,)}

    def items(self, store: Store, sources: FoundCases) -> tuple[Item, ...]:
        """Every nodule of every scan."""
        wanted = {case.case_id for case in sources.cases}
        find = nodules_by_number if any(isinstance(c.label, LidcLabel) for c in sources.cases) else nodules
        found = derive(store, find, name="nodules", settings=find.__name__, workers=0)
        return tuple(
            Item(
                f"{case}-nodule-{row['nodule']:03d}",
                case,
                store.record(case).patient,
                centre=(row["centre"][0], row["centre"][1], row["centre"][2]),
            )
            for case, rows in found.items()
            if case in wanted
            for row in rows
        )


def nodules(store: Store, case_id: str) -> Rows:
    """Connected masks of a case and the middle of the box around each, in voxels (z, y, x)."""
    label = store.read_label(case_id) > 0
    numbered, _ = ndimage.label(label, np.ones((3, 3, 3)))
    return _boxes(numbered)


def nodules_by_number(store: Store, case_id: str) -> Rows:
    """Numbered masks of a case and the middle of the box around each, in voxels (z, y, x)."""
    return _boxes(store.read_label(case_id))


def _boxes(numbered: npt.NDArray[Any]) -> Rows:
    boxes: list[Any] = ndimage.find_objects(numbered.astype(np.int32))  # None for numbers that don't occur
    return [
        {"nodule": number, "centre": [(edge.start + edge.stop - 1) / 2 for edge in box]}
        for number, box in enumerate(boxes, start=1)
        if box is not None
    ]
