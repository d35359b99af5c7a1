"""Segmentation of one's own data: images/ and labels/ folders, or an nnU-Net or Decathlon dataset.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from parts2whole.errors import name_some
from parts2whole.evaluation.regions import Regions
from parts2whole.scans.layout import tell_unlabelled
from parts2whole.tasks.dataset_json import FILE, DatasetJson, read_dataset_json
from parts2whole.tasks.labelled import FoundCases, LabelledData, TaskError
from parts2whole.tasks.pairs import pair_folders
from parts2whole.tasks.segmenting import SegmentationTask


@dataclasses.dataclass(frozen=True)
class Segmentation(SegmentationTask):
    """Labelled volumes, any number of classes.

    ``data`` is either a folder with ``images/`` and ``labels/`` (equal file names; several channels as
    ``case_0000.nii.gz``, ``case_0001.nii.gz``), or holds a ``dataset.json`` of nnU-Net v1 or v2 or of the
    Medical Segmentation Decathlon, see `parts2whole.tasks.dataset_json`.  File names decide the patient:
    everything before ``patient_separator``, or the whole name.

    Classes have the names that ``dataset.json`` gives them, or else their label values; masks are written
    with the label values.

    Attributes:
        patient_separator: text that ends the patient's part of a file name; None takes each file as a
            patient of its own.
        ignore_label: label value of voxels that aren't annotated, which take part in no loss and no metric
            and are never predicted; a ``dataset.json`` says it itself, as ``ignore``.
    """

    patient_separator: str | None = None
    ignore_label: int | None = None

    def __post_init__(self) -> None:
        if self.ignore_label == 0:
            raise TaskError("ignore_label must not be 0, which is background")

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Pairs of tiny abdomens, one patient with two scans."""
        return super().example(folder).replace(patient_separator="-")

    @property
    def ignored_value(self) -> int | None:
        """What ``dataset.json`` calls ``ignore``, or else ``ignore_label``."""
        said = self._said()
        return self.ignore_label if said is None else said.meaning.ignored

    def sources(self) -> FoundCases:
        """Images and labels, by case."""
        root = Path(self.data)
        if not root.is_dir():
            raise TaskError(f"{root} is not a folder")
        said = self._said()
        if said is not None:
            if self.ignore_label not in (None, said.meaning.ignored):
                raise TaskError(
                    f"ignore_label is {self.ignore_label}, {FILE} says {said.meaning.ignored}: leave it out"
                )
            if said.mixed and self.preprocess.modality in ("auto", "CT"):
                raise TaskError(
                    f"the channels are {', '.join(said.channels)}; no window in HU fits them all: "
                    "say --task.preprocess.modality MR, which takes percentiles of every channel"
                )
            return said.cases(self.patient_separator)
        images, labels = root / "images", root / "labels"
        if not (images.is_dir() and labels.is_dir()):
            raise TaskError(tell_unlabelled(root))
        return pair_folders(images, labels, self.patient_separator)

    def labelled(self, *, cache: Path, workers: int | None = None, progress: bool = True) -> LabelledData:
        """Prepare images and labels once into ``cache``, and open them."""
        found = super().labelled(cache=cache, workers=workers, progress=progress)
        said = self._said()
        absent = [] if said is None else sorted(set(said.meaning.written) - set(found.classes))
        if not absent:
            return found
        note = f"{FILE} names {name_some(absent)}, which no label map holds"
        return dataclasses.replace(found, notes=(*found.notes, note))

    def classes_in(self, values: Sequence[int]) -> tuple[str, ...]:
        """Names of the classes that occur."""
        said = self._said()
        return super().classes_in(values) if said is None else said.meaning.classes(values)

    def mask_values(self, classes: Sequence[str]) -> tuple[int, ...]:
        """The label values; of regions those of ``regions_class_order``."""
        said = self._said()
        return (
            super().mask_values(classes) if said is None else tuple(said.meaning.written[c] for c in classes)
        )

    def to_classes(self, label: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Stored label values as class indices."""
        said = self._said()
        return super().to_classes(label, classes) if said is None else said.meaning.indices(label, classes)

    def regions(self, classes: Sequence[str]) -> Regions:
        """The regions of ``dataset.json``, or every foreground class."""
        said = self._said()
        found = {} if said is None else said.meaning.regions_of(classes)
        return found or super().regions(classes)

    def _said(self) -> DatasetJson | None:
        return read_dataset_json(Path(self.data))
