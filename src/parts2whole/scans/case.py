"""One case before it is stored: which files it is made of, and how they are read and checked."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from parts2whole.errors import Parts2WholeError
from parts2whole.scans.read import (
    ReadError,
    ScanSource,
    Which,
    file_stamp,
    read_label,
    read_scan,
    read_volume,
)
from parts2whole.scans.stamps import say_scan, stamp_case
from parts2whole.scans.volume import Box, LabelVolume, Volume, orientation_code

SAME_GRID_VOXELS = 0.05
"""Image and label may lie this far apart, in voxels, and still be one grid."""


class IngestError(Parts2WholeError, ValueError):
    """Cases that can't be written to a store at all."""


class LabelSource(abc.ABC):
    """A label map that is no image file: contours, a MATLAB array, a map to be relabelled.

    A subclass is a frozen dataclass, so that it pickles to workers and its repr says all it depends on.
    """

    @abc.abstractmethod
    def files(self) -> tuple[Path, ...]:
        """The files it is made from."""

    @abc.abstractmethod
    def read(self, scan: Volume) -> LabelVolume:
        """The label map on the grid of its scan, as the scan's file has it.

        Raises:
            IngestError: it can't be made; the case is then set aside with this reason.
        """


@dataclasses.dataclass(frozen=True)
class SourceCase:
    """The files of one case.

    Attributes:
        case_id: unique, safe as a file name.
        images: one file, or one `ScanSource`, a channel.
        label: its label map, on the same grid: a file, or a `LabelSource` that makes it.
        patient: cases of one patient share it; None takes the one in the files' headers, or the case for a
            patient of its own.
        box: the part of the scan to keep, in voxels (z, y, x) of the file's own array.
        which: of a 4-D file, one volume by its index or ``"channels"`` for all.
        channels: how many it must have; None takes any number.
        patient_by: what the patient was told by, in words.
    """

    case_id: str
    images: tuple[Path | ScanSource, ...]
    label: Path | LabelSource | None = None
    patient: str | None = None
    box: Box | None = None
    which: Which = None
    channels: int | None = None
    patient_by: str = ""

    def place(self) -> str:
        """A hash of the folder that its first file is in; empty for DICOM series, which have ids."""
        if not self.images or any(source.is_series for source in self.scan_sources()):
            return ""
        return hashlib.sha256(str(self.files()[0].absolute().parent).encode()).hexdigest()[:16]

    def files(self) -> tuple[Path, ...]:
        """Every file of the case."""
        images = (image.paths if isinstance(image, ScanSource) else (Path(image),) for image in self.images)
        return (*(path for paths in images for path in paths), *self._label_files())

    def scan_sources(self) -> tuple[ScanSource, ...]:
        """The images that `find_scans` found."""
        return tuple(image for image in self.images if isinstance(image, ScanSource))

    def source(self) -> tuple[str, ...]:
        """Names of the files, without folders; DICOM files, whose names may identify, are only counted."""
        slices = {path for image in self.scan_sources() if image.is_series for path in image.paths}
        names = tuple(path.name for path in self.files() if path not in slices)
        return (f"{len(slices)} DICOM file{'s' * (len(slices) != 1)}", *names) if slices else names

    def absolute(self) -> SourceCase:
        """The same case for a worker that runs in another folder; a `LabelSource` stays as it is."""
        images = tuple(
            dataclasses.replace(image, paths=tuple(path.absolute() for path in image.paths))
            if isinstance(image, ScanSource)
            else Path(image).absolute()
            for image in self.images
        )
        no_file = self.label is None or isinstance(self.label, LabelSource)
        label = self.label if no_file else Path(str(self.label)).absolute()
        return dataclasses.replace(self, images=images, label=label)

    def stamp(self) -> str:
        """A text that changes when the case or its files change.

        Raises:
            ReadError: a file is missing.
        """
        try:
            files = file_stamp(self.files())
        except OSError as error:
            raise ReadError(f"{error.filename} can't be read: {error.strerror}") from error
        said = "".join(say_scan(scan.problem, scan.series, scan.frames) for scan in self.scan_sources())
        made = repr(self.label) if isinstance(self.label, LabelSource) else ""
        box = self.box and self.box.slices  # as stores of version 0.1.0 have it
        return stamp_case(files, self.patient, box=box, which=self.which, said=said, made=made)

    def _label_files(self) -> tuple[Path, ...]:
        if self.label is None:
            return ()
        return self.label.files() if isinstance(self.label, LabelSource) else (Path(self.label),)


def read_channels(case: SourceCase) -> Volume:
    """The scan of a case; several files are stacked as channels.

    Raises:
        IngestError: no image, channels on different grids, or another number of them than there must be.
        ReadError: a file that can't be read.
    """
    if not case.images:
        raise IngestError("the case names no image")
    scans = [
        read_scan(image, which=case.which)
        if isinstance(image, ScanSource)
        else read_volume(Path(image), which=case.which)
        for image in case.images
    ]
    first = scans[0]
    for file, scan in zip(case.files()[1:], scans[1:], strict=False):
        if not scan.same_grid(first, tolerance=SAME_GRID_VOXELS):
            raise IngestError(
                f"channels lie on different grids: {_grid(first)} against {_grid(scan)} in {file.name}"
            )
    count = sum(scan.array.size // int(np.prod(scan.shape)) for scan in scans)
    if case.channels not in (None, count):
        raise IngestError(f"expected {case.channels} channels, the files hold {count}")
    if len(scans) == 1:
        return first
    arrays = [scan.array.reshape(-1, *scan.shape) for scan in scans]
    notes = tuple(dict.fromkeys(note for scan in scans for note in scan.notes))
    return dataclasses.replace(first, array=np.concatenate(arrays), notes=notes)


def read_case_label(case: SourceCase, scan: Volume) -> LabelVolume | None:
    """The label map of a case, on the grid of its scan; None where it has none.

    Raises:
        IngestError: it lies on another grid.
        ReadError: a file that can't be read.
    """
    if case.label is None:
        return None
    label = case.label.read(scan) if isinstance(case.label, LabelSource) else read_label(Path(case.label))
    if not label.same_grid(scan, tolerance=SAME_GRID_VOXELS):
        raise IngestError(
            f"image and label lie on different grids: {_grid(scan)} against {_grid(label)}; "
            "resample the label onto its image"
        )
    return label


def _grid(volume: Volume | LabelVolume) -> str:
    shape, spacing, origin = volume.shape, volume.spacing_mm, volume.origin_mm
    return (
        f"shape {shape}, spacing {tuple(round(s, 4) for s in spacing)} mm, "
        f"{orientation_code(volume.direction)} from {tuple(round(o, 2) for o in origin)} mm"
    )
