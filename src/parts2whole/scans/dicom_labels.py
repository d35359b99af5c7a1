"""DICOM segmentations and structure sets (RTSTRUCT) as label maps of the series they refer to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from parts2whole.errors import first_line
from parts2whole.scans.case import IngestError, LabelSource
from parts2whole.scans.dicom_contours import Mask, drawn_regions, read_contours, structure_names
from parts2whole.scans.dicom_segments import read_segment, segment_names
from parts2whole.scans.dicom_voxels import BROKEN
from parts2whole.scans.source import ReadError, ScanSource
from parts2whole.scans.volume import LabelVolume, Volume

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
TAGS: list[Any] = [
    *("SOPClassUID", "SegmentSequence", "ReferencedSeriesSequence"),
    *("StructureSetROISequence", "ROIContourSequence", "ReferencedFrameOfReferenceSequence"),
]
OR = "|"
"""Between the names that a structure has in different files."""


@dataclasses.dataclass(frozen=True)
class LabelObject:
    """A segmentation or a structure set.

    Attributes:
        path: its file.
        kind: ``SEG`` or ``RTSTRUCT``.
        series: UIDs of the series it refers to; none where it names none, and none of their images is known.
        names: of its segments, or of the regions that are drawn, by their numbers.
        undrawn: names of regions that nobody drew.
    """

    path: Path
    kind: str
    series: tuple[str, ...]
    names: dict[int, str]
    undrawn: tuple[str, ...] = ()


def find_label_objects(sources: Sequence[ScanSource]) -> list[LabelObject]:
    """The segmentations and structure sets among what `find_scans` found and set aside as no scans.

    Those that name no series have those of the images that they refer to, where these are among ``sources``.

    Raises:
        ReadError: one of them is broken.
    """
    found = []
    for source in sources:
        if source.problem is not None and source.is_series:
            for path in source.paths:
                try:
                    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=True)
                    found += _label_object(path, header)
                except BROKEN as error:
                    raise ReadError(f"{path.name}: broken DICOM: {first_line(error)}") from error
    if all(one.series for one in found):
        return found
    images = _series_of_images(sources, but_for={one.path for one in found})
    return [
        one if one.series else dataclasses.replace(one, series=_find_series(one.path, images))
        for one in found
    ]


def holds_labels(source: ScanSource) -> bool:
    """Whether a source is nothing but segmentations and structure sets."""
    return source.problem is not None and source.is_series and all(map(_is_label_object, source.paths))


@dataclasses.dataclass(frozen=True)
class DicomLabel(LabelSource):
    """Structures of one series as a label map, numbered from 1.

    Attributes:
        objects: files of segmentations and structure sets.
        structures: one a value, each by its names with ``|`` between them; of two that overlap, the later one
            has the voxels.
    """

    objects: tuple[Path, ...]
    structures: tuple[str, ...]

    def files(self) -> tuple[Path, ...]:
        """The files of segmentations and structure sets."""
        return self.objects

    def read(self, scan: Volume) -> LabelVolume:
        """The structures on the scan's grid.

        Raises:
            IngestError: one of them doesn't say which voxels are meant, or two files hold it.
        """
        label = np.zeros(scan.shape, np.uint8 if len(self.structures) < 256 else np.int16)
        for value, structure in enumerate(self.structures, 1):
            masks = list(self._masks(structure, scan))
            if len(masks) > 1:
                raise IngestError(f"{structure} is in {len(masks)} files: keep the one that is meant")
            for mask in masks:
                label[mask] = value
        return LabelVolume(label, scan.spacing_mm, scan.origin_mm, scan.direction)

    def _masks(self, structure: str, scan: Volume) -> Iterator[Mask]:
        """The structure in every file that holds it; segments of one name are one."""
        wanted = structure.split(OR)
        for path in self.objects:
            try:
                content = pydicom.dcmread(path, force=True)
                (about,) = _label_object(path, content)
                read = read_segment if about.kind == "SEG" else read_contours
                numbers = [number for number, name in about.names.items() if name in wanted]
                masks = [read(content, number, scan) for number in numbers]
            except IngestError as error:
                raise IngestError(f"{structure} in the {about.kind}: {error}") from error
            except BROKEN as error:
                raise IngestError(f"{path.name}: broken DICOM: {first_line(error)}") from error
            if masks:
                yield np.logical_or.reduce(masks)


def holds(objects: Sequence[LabelObject], structure: str) -> bool:
    """Whether some objects have a structure, by any of its names."""
    wanted = set(structure.split(OR))
    return any(wanted & set(one.names.values()) for one in objects)


def _is_label_object(path: Path) -> bool:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"], force=True)
    except BROKEN:
        return False
    return header.get("SOPClassUID") in (*SEGMENTATIONS, STRUCTURE_SET)


def _series_of_images(sources: Iterable[ScanSource], *, but_for: Set[Path]) -> dict[str, str]:
    """The UID of the series of every image that can be read, by its own."""
    tags: list[Any] = ["SOPInstanceUID", "SeriesInstanceUID"]
    found = {}
    for path in {path for source in sources if source.is_series for path in source.paths} - but_for:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        except BROKEN:
            continue
        if header.get("SOPInstanceUID") and header.get("SeriesInstanceUID"):
            found[str(header.SOPInstanceUID)] = str(header.SeriesInstanceUID)
    return found


def _find_series(path: Path, images: Mapping[str, str]) -> tuple[str, ...]:
    """The series of the images that an object refers to, wherever in it that stands.

    Raises:
        ReadError: it is broken.
    """
    try:
        content = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        referred = [str(one.value) for one in content.iterall() if one.keyword == "ReferencedSOPInstanceUID"]
    except BROKEN as error:
        raise ReadError(f"{path.name}: broken DICOM: {first_line(error)}") from error
    return tuple(dict.fromkeys(images[uid] for uid in referred if uid in images))


def _label_object(path: Path, header: Any) -> list[LabelObject]:
    """What a file is, if it is a segmentation or a structure set."""
    kind = header.get("SOPClassUID")
    undrawn: tuple[str, ...] = ()
    if kind in SEGMENTATIONS:
        series = header.get("ReferencedSeriesSequence") or ()
        names = segment_names(header)
    elif kind == STRUCTURE_SET:
        series = [
            item
            for frame in header.get("ReferencedFrameOfReferenceSequence") or ()
            for study in frame.get("RTReferencedStudySequence") or ()
            for item in study.get("RTReferencedSeriesSequence") or ()
        ]
        named, drawn = structure_names(header), drawn_regions(header)
        names = {number: name for number, name in named.items() if number in drawn}
        undrawn = tuple(name for number, name in named.items() if number not in drawn)
    else:
        return []
    uids = dict.fromkeys(str(item.get("SeriesInstanceUID") or "") for item in series)
    known = tuple(uid for uid in uids if uid)
    return [LabelObject(path, "SEG" if kind in SEGMENTATIONS else "RTSTRUCT", known, names, undrawn)]
