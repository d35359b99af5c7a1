"""Segmentation of one's own data: images/ and labels/ folders, or an nnU-Net or Decathlon dataset.json."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from parts2whole.data.ingest import SourceCase
from parts2whole.tasks.base import TaskError, name_some
from parts2whole.tasks.segmenting import SegmentationTask

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz")


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

    def sources(self) -> list[SourceCase]:
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
        return self._pair(images, labels)

    def _pair(self, images: Path, labels: Path) -> list[SourceCase]:
        by_case = _by_stem(labels)
        if not by_case:
            raise TaskError(f"no label maps in {labels}; known are {', '.join(SUFFIXES)}")
        channels: dict[str, list[Path]] = {}
        for stem, path in _by_stem(images).items():
            case = stem if stem in by_case else stem.rpartition("_")[0]
            channels.setdefault(case if case in by_case else stem, []).append(path)
        unlabelled = sorted(set(channels) - set(by_case))
        without_image = sorted(set(by_case) - set(channels))
        if without_image:
            raise TaskError(f"labels without an image in {images}: {name_some(without_image)}")
        if unlabelled:
            raise TaskError(
                f"{len(unlabelled)} images have no label in {labels}: {name_some(unlabelled)}. Images and labels "
                "pair by equal file names; move unlabelled images elsewhere"
            )
        return [self._case(case, paths, by_case[case]) for case, paths in sorted(channels.items())]

    def _from_json(self, root: Path, listing: Path) -> list[SourceCase]:
        try:
            plain: dict[str, Any] = json.loads(listing.read_text())
        except json.JSONDecodeError as error:
            raise TaskError(f"{listing} is not JSON: {error}") from error
        training = plain.get("training")
        if not isinstance(training, list):
            return self._pair(root / "imagesTr", root / "labelsTr")
        cases = []
        for entry in training:
            if not (isinstance(entry, dict) and {"image", "label"} <= set(entry)):
                raise TaskError(f"{listing}: an entry of training needs image and label, got {entry!r}")
            image, label = (_inside(root, str(entry[key])) for key in ("image", "label"))
            missing = [str(path) for path in (image, label) if not path.exists()]
            if missing:
                raise TaskError(f"{listing} names files that don't exist: {name_some(missing)}")
            cases.append(self._case(_stem(image), [image], label))
        return cases

    def _case(self, case: str, images: list[Path], label: Path) -> SourceCase:
        patient = case.partition(self.patient_separator)[0] if self.patient_separator else case
        return SourceCase(case, tuple(sorted(images)), label, patient)


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise TaskError(f"{folder} doesn't exist")
    found = sorted(p for p in folder.iterdir() if p.name.endswith(SUFFIXES) and not p.name.startswith("."))
    return {_stem(path): path for path in found}


def _stem(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def _inside(root: Path, name: str) -> Path:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise TaskError(f"{name!r} leaves the folder {root}")
    return path
