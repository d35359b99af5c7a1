"""Liver (or liver tumour) segmentation on LiTS, or on its copy in the Medical Segmentation Decathlon. (LCS)

    LiTS/          volume-N.nii[.gz] and segmentation-N.nii[.gz], in any subfolders, N = 0 ... 130
    Task03_Liver/  imagesTr/liver_N.nii.gz and labelsTr/liver_N.nii.gz

Labels: 0 background, 1 liver, 2 tumour.  Data: https://competitions.codalab.org/competitions/17094 (Bilic et
al. 2023, Medical Image Analysis 84) and http://medicaldecathlon.com.  Sizes, loss and split that are defaults
here come from the public code of Models Genesis (https://github.com/MrGiovanni/ModelsGenesis,
keras/downstream_tasks), not from the Parts2Whole paper.  That code worked on volumes resized to 256 x 256
in the plane; here voxels stay as they are unless ``preprocess.spacing_mm`` is set.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Size
from parts2whole.store.ingest import SourceCase
from parts2whole.tasks.labelled import FoundCases, TaskError
from parts2whole.tasks.labels import class_indices
from parts2whole.tasks.losses import LossFunction
from parts2whole.tasks.segmenting import SegmentationTask

LAYOUTS = (
    (re.compile(r"volume-(\d+)\.nii(\.gz)?", re.I), re.compile(r"segmentation-(\d+)\.nii(\.gz)?", re.I)),
    (
        re.compile(r"imagesTr/liver_(\d+)\.nii(\.gz)?", re.I),
        re.compile(r"labelsTr/liver_(\d+)\.nii(\.gz)?", re.I),
    ),
)
"""Images and labels of LiTS, and of Decathlon Task03."""

SIDES = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class LiverSegmentation(SegmentationTask):
    """Liver in abdominal CT; patches of 64 x 64 x 32 voxels (x, y, z).

    Attributes:
        target: ``liver`` (every label above 0), ``tumour`` (label 2), or ``both`` as two classes.
        folds: ``numbers`` splits by case number as below, or by patient with a note where the numbers don't
            cover all three sides; ``patient`` always draws a split of patients.
        train_numbers: first and last case of the side, 0-99 as in the public code of Models Genesis; so are
            the other two.
        validation_numbers: 100-114.
        test_numbers: 115-129; case 130 is on no side there, and is left out here too.
    """

    preprocess: Preprocess = Preprocess(modality="CT")
    patch_size: Size = (32, 64, 64)
    loss_function: LossFunction = "dice"
    target: Literal["liver", "tumour", "both"] = "liver"
    folds: Literal["numbers", "patient"] = "numbers"
    train_numbers: tuple[int, int] = (0, 99)
    validation_numbers: tuple[int, int] = (100, 114)
    test_numbers: tuple[int, int] = (115, 129)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Tiny phantoms of LiTS, some on each of the published sides."""
        from parts2whole.phantom.example import write_data_set
        from parts2whole.phantom.write_lits import Lits

        numbers = (0, 1, 2, 100, 115, 116)
        return cls(write_data_set(Lits(), folder, numbers), patch_size=(16, 16, 16))

    def sources(self) -> FoundCases:
        """Volumes and their label maps, by case number."""
        root = Path(self.data)
        if not root.is_dir():
            raise TaskError(
                f"{root} is not a folder; --task.data must name the folder of LiTS or Task03_Liver"
            )
        files = [path for path in sorted(root.rglob("*")) if path.name.lower().endswith((".nii", ".nii.gz"))]
        images: dict[int, Path] = {}
        labels: dict[int, Path] = {}
        for image, label in LAYOUTS:
            _collect(files, image, images)
            _collect(files, label, labels)
        cases = [
            SourceCase(f"liver-{n:03d}", (images[n],), labels[n], patient=f"liver-{n:03d}")
            for n in sorted(set(images) & set(labels))
        ]
        if not cases:
            raise TaskError(
                f"no volume-N.nii with its segmentation-N.nii in {root}, and no imagesTr/liver_N.nii.gz with "
                "its labelsTr/liver_N.nii.gz"
            )
        alone = {f"liver-{n:03d}": "no label map" for n in sorted(set(images) - set(labels))}
        alone |= {f"liver-{n:03d}": "a label map without a volume" for n in sorted(set(labels) - set(images))}
        return self._with_sides(cases, alone)

    def classes_in(self, values: Sequence[int]) -> tuple[str, ...]:
        """Background and what is asked for; written masks hold 0 and 1, or 0, 1 and 2 for ``both``."""
        unknown = sorted(set(values) - {0, 1, 2})
        if unknown:
            raise TaskError(f"labels must be 0, 1 (liver) or 2 (tumour), found {unknown} in {self.data}")
        if self.target != "liver" and 2 not in values:
            raise TaskError(f"no case in {self.data} has a tumour (label 2); --task.target liver needs none")
        return ("0", "1", "2") if self.target == "both" else ("0", "1")

    def to_classes(self, label: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Labels as class indices."""
        if self.target == "both":
            return class_indices(label, classes)
        return (label > (0 if self.target == "liver" else 1)).astype(np.int64)

    def _with_sides(self, cases: list[SourceCase], alone: dict[str, str]) -> FoundCases:
        if self.folds == "patient":
            return FoundCases(cases, alone)
        sides = {case.case_id: side for case in cases if (side := self._side(int(case.case_id[-3:])))}
        missing = [side for side in SIDES if side not in sides.values()]
        if missing:
            note = f"case numbers give no {' and no '.join(missing)} side: split by patient instead"
            return FoundCases(cases, alone, notes=(note,))
        unused = {case.case_id: "its number is on no side" for case in cases if case.case_id not in sides}
        return FoundCases([case for case in cases if case.case_id in sides], alone | unused, sides)

    def _side(self, number: int) -> str | None:
        for side in SIDES:
            first, last = getattr(self, f"{side}_numbers")
            if first <= number <= last:
                return side
        return None


def _collect(files: list[Path], pattern: re.Pattern[str], found: dict[int, Path]) -> None:
    """Files whose name, or folder and name, follow a pattern, by number.

    Raises:
        TaskError: two files with one number.
    """
    for path in files:
        match = pattern.fullmatch(path.name) or pattern.fullmatch(f"{path.parent.name}/{path.name}")
        if match is None or path.name.startswith("."):
            continue
        number = int(match[1])
        if number in found:
            raise TaskError(f"two files for case {number}: {found[number]} and {path}; keep one of them")
        found[number] = path
