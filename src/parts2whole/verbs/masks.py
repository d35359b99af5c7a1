"""How masks are written: in which format, and what a viewer is told of their classes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Literal

from parts2whole.errors import Parts2WholeError
from parts2whole.files import replacing
from parts2whole.run_folder import MODEL, WEIGHTS
from parts2whole.scans import dicom_seg
from parts2whole.scans.codes import read_codes
from parts2whole.scans.nifti import itk_reads
from parts2whole.scans.read import write_label_like
from parts2whole.scans.source import ScanSource
from parts2whole.scans.volume import LabelVolume
from parts2whole.store.chunks import write_label_image
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.training.model import ModelCard

MaskFormat = Literal["nifti", "dicom-seg", "ome-zarr"]
SHEARED = (
    "ITK tools (Slicer, ITK-SNAP) can't read NIfTI of sheared axes; "
    "with --format dicom-seg every slice has its own place"
)
ENDINGS = {"nifti": ".nii.gz", "dicom-seg": ".dcm", "ome-zarr": ".ome.zarr"}


class MaskError(Parts2WholeError, ValueError):
    """A format that can't be written, or not with what was given."""


@dataclasses.dataclass(frozen=True)
class MaskWriter:
    """Writes masks of one model in one format.

    Attributes:
        format: of the files.
        segments: the classes but background, for formats that describe them.
        model: identifies the weights.
    """

    format: MaskFormat
    segments: tuple[dicom_seg.Segment, ...] = ()
    model: str = ""

    def path(self, folder: Path, case_id: str) -> Path:
        """Where the mask of a case goes."""
        return folder / f"{case_id}{ENDINGS[self.format]}"

    def write(self, image: Path | ScanSource, mask: LabelVolume, path: Path) -> None:
        """Write a mask in canonical orientation, on the voxels of its scan.

        Raises:
            MaskError: the format needs another kind of scan.
            parts2whole.scans.source.ReadError: the scan can't be read, or the mask isn't one of it.
        """
        if self.format == "nifti":
            write_label_like(image, mask.array, path)
        elif self.format == "ome-zarr":
            with replacing(path) as beside:
                write_label_image(beside, path.name, mask)
        elif isinstance(image, ScanSource) and image.is_series:
            dicom_seg.write_segmentation(image, mask.array, self.segments, path, model=self.model)
        else:
            raise MaskError("a DICOM segmentation refers to a DICOM series, which this isn't: --format nifti")

    def note(self, image: Path | ScanSource, mask: LabelVolume) -> str:
        """What the user should know of the mask of a scan; empty if nothing."""
        is_series = isinstance(image, ScanSource) and image.is_series
        return SHEARED if self.format == "nifti" and is_series and not itk_reads(mask.direction) else ""


def mask_writer(format: MaskFormat, codes: Path | None, card: ModelCard, run: Path) -> MaskWriter:
    """The writer for a model's masks.

    Args:
        format: of the files.
        codes: a YAML with the codes of classes, for DICOM; see `parts2whole.scans.codes`.
        card: of the model.
        run: its folder.

    Raises:
        MaskError: the model makes no masks, or there are codes where none are used, or none where they are.
        parts2whole.scans.codes.CodesError: a class has no code.
        parts2whole.scans.source.ReadError: the library that writes DICOM segmentations isn't installed.
    """
    if format not in ENDINGS:
        raise MaskError(f"unknown format {format!r}; choose from {', '.join(ENDINGS)}")
    if codes is not None and format != "dicom-seg":
        raise MaskError(f"codes are for --format dicom-seg, {format} has no place for them: leave them out")
    if format == "nifti" or (format == "ome-zarr" and isinstance(card.task, SegmentationTask)):
        return MaskWriter(format)
    if not isinstance(card.task, SegmentationTask):
        raise MaskError(f"{type(card.task).__name__} gives no masks to be written as {format}")
    classes = {value: name for value, name in names_by_value(card).items() if value}
    if codes is None:
        raise MaskError(
            f"a DICOM segmentation says what its classes are by codes: --codes codes.yaml, with "
            f"{', '.join(classes.values())} in it"
        )
    dicom_seg.check_installed()
    found = read_codes(codes, list(classes.values()))
    with (run / WEIGHTS / MODEL).open("rb") as file:
        model = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    segments = (dicom_seg.Segment(name, value, found[name]) for value, name in sorted(classes.items()))
    return MaskWriter("dicom-seg", tuple(segments), model)


def names_by_value(card: ModelCard) -> dict[int, str]:
    """The class of every value in masks; classes that share a value together, as ``one or other``."""
    named: dict[int, list[str]] = defaultdict(list)
    for name, value in zip(card.classes, card.values, strict=True):
        named[value].append(name)
    return {value: " or ".join(names) for value, names in named.items()}
