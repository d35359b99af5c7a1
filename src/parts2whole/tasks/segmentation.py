"""Segmentation of one's own data: images/ and labels/ folders, or an nnU-Net or Decathlon dataset.json."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Self

from parts2whole.store.ingest import SourceCase
from parts2whole.tasks.base import TaskError, name_some
from parts2whole.tasks.pairs import pair_folders, patient_of, stem_of
from parts2whole.tasks.segmenting import FoundCases, SegmentationTask


@dataclasses.dataclass(frozen=True)
class Segmentation(SegmentationTask):
    """Labelled volumes, any number of classes.

    ``data`` is either a folder with ``images/`` and ``labels/`` (equal file names; several channels as
    ``case_0000.nii.gz``, ``case_0001.nii.gz``), or holds a ``dataset.json`` of nnU-Net v2 (imagesTr,
    labelsTr, ``channel_names``) or of the Medical Segmentation Decathlon (a ``training`` list).  File names
    decide the patient: everything before ``patient_separator``, or the whole name.

    Attributes:
        patient_separator: text that ends the patient's part of a file name; None takes each file as a
            patient of its own.
    """

    patient_separator: str | None = None

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Pairs of tiny abdomens, one patient with two scans."""
        return super().example(folder).replace(patient_separator="-")

    def sources(self) -> FoundCases:
        """Images and labels, by case."""
        root = Path(self.data)
        if not root.is_dir():
            raise TaskError(f"{root} is not a folder")
        listing = root / "dataset.json"
        if listing.exists():
            return self._from_json(root, listing)
        images, labels = root / "images", root / "labels"
        if not (images.is_dir() and labels.is_dir()):
            raise TaskError(f"{root} needs images/ and labels/ folders, or a dataset.json")
        return FoundCases(pair_folders(images, labels, self.patient_separator))

    def _from_json(self, root: Path, listing: Path) -> FoundCases:
        try:
            plain: dict[str, Any] = json.loads(listing.read_text())
        except json.JSONDecodeError as error:
            raise TaskError(f"{listing} is not JSON: {error}") from error
        training = plain.get("training")
        if not isinstance(training, list):
            return FoundCases(pair_folders(root / "imagesTr", root / "labelsTr", self.patient_separator))
        cases = []
        for entry in training:
            if not (isinstance(entry, dict) and {"image", "label"} <= set(entry)):
                raise TaskError(f"{listing}: an entry of training needs image and label, got {entry!r}")
            image, label = (_inside(root, str(entry[key])) for key in ("image", "label"))
            missing = [str(path) for path in (image, label) if not path.exists()]
            if missing:
                raise TaskError(f"{listing} names files that don't exist: {name_some(missing)}")
            name = stem_of(image)
            cases.append(SourceCase(name, (image,), label, patient_of(name, self.patient_separator)))
        return FoundCases(cases)


def _inside(root: Path, name: str) -> Path:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise TaskError(f"{name!r} leaves the folder {root}")
    return path
