"""Annotations of LIDC-IDRI: contours of up to four readers, clustered into nodules, with a consensus mask.

An XML file belongs to one CT series.  Each reading session is one reader; a nodule of 3 mm or more has a
contour in every slice it shows in, smaller ones a single point and no outline.  Contours are lists of pixels
(column, row from 0), and those pixels are the first *outside* the nodule, so a mask is what they enclose,
without them (Armato et al. 2011, Medical Physics 38, doi 10.1118/1.3528204).  Contours with ``inclusion``
FALSE cut a hole.

Readers don't say which of their outlines show the same nodule.  Here, as by default in the pylidc library,
outlines belong together that come as near as one slice distance; where that would join more than four, or
two of one reader, the distance is reduced for that group until it doesn't.  Own implementation.
"""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from parts2whole.scans.case import IngestError, LabelSource
from parts2whole.scans.volume import LabelVolume, Volume

READERS = 4
CLOSER = 0.9
"""Factor by which the distance is reduced for a group that joins too much."""

LARGEST_SLICE_ERROR = 0.6
"""A contour may lie this far from its slice, in slice distances."""

Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Contour:
    """The outline of a nodule in one slice: pixels (column, row) just outside it."""

    z_mm: float
    inclusion: bool
    pixels: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Outline:
    """A nodule as one reader drew it."""

    reader: int
    contours: tuple[Contour, ...]


@dataclasses.dataclass(frozen=True)
class LidcLabel(LabelSource):
    """The nodules of one series as a label map, numbered from 1.

    Attributes:
        path: the XML file.
        consensus: share of the readers who drew a nodule that must agree on a voxel.
        minimum_readers: who must have drawn a nodule.
    """

    path: Path
    consensus: float = 0.5
    minimum_readers: int = 1

    def files(self) -> tuple[Path, ...]:
        """The XML file."""
        return (self.path,)

    def read(self, scan: Volume) -> LabelVolume:
        """Consensus masks on the scan's grid, the larger nodule where two overlap.

        Raises:
            IngestError: the file is broken, or a contour lies outside the scan.
        """
        outlines = [outline for outline in read_outlines(self.path) if len(outline_voxels(outline, scan))]
        voxels = [outline_voxels(outline, scan) for outline in outlines]
        points = [contour_points(outline, scan) for outline in outlines]
        readers = [outline.reader for outline in outlines]
        nodules = []
        for group in cluster(points, readers, distance_mm=scan.spacing_mm[0]):
            places, votes = np.unique(np.concatenate([voxels[i] for i in group]), return_counts=True)
            agreed = places[votes >= self.consensus * len(group)]
            if len(group) >= self.minimum_readers and len(agreed):
                nodules.append(agreed)
        label = np.zeros(scan.shape, np.uint16)
        for number, places in enumerate(sorted(nodules, key=len), start=1):
            label.flat[places] = number
        return LabelVolume(label, scan.spacing_mm, scan.origin_mm, scan.direction)


def read_outlines(path: Path) -> list[Outline]:
    """Nodules of 3 mm or more, of every reader.

    Raises:
        IngestError: the file is broken.
    """
    try:
        root = ElementTree.parse(path).getroot()
        outlines = []
        for reader, session in enumerate(_children(root, "readingSession")):
            for nodule in _children(session, "unblindedReadNodule"):
                contours = tuple(_contour(roi) for roi in _children(nodule, "roi"))
                if any(len(contour.pixels) > 1 for contour in contours):
                    outlines.append(Outline(reader, contours))
        return outlines
    except (ElementTree.ParseError, ValueError, TypeError) as error:
        raise IngestError(f"{path.name} is not an XML file of LIDC-IDRI: {error}") from error


def series_of(path: Path) -> str | None:
    """The series UID an XML file is about; None if it says none, or is of radiographs."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:
        return None
    for element in root.iter():
        if _name(element).lower() == "seriesinstanceuid" and element.text:
            return element.text.strip()
    return None


def fill_outline(pixels: Sequence[tuple[int, int]], shape: tuple[int, int]) -> Mask:
    """What a closed outline encloses, without the outline itself.

    Args:
        pixels: (column, row), in order; neighbours that don't touch are joined by a straight line.
        shape: rows and columns of the slice.

    Raises:
        IngestError: the outline leaves the slice.
    """
    corners = np.asarray(pixels)
    low, high = corners.min(axis=0), corners.max(axis=0)
    if low.min() < 0 or (high >= (shape[1], shape[0])).any():
        raise IngestError(f"a contour leaves the slice of {shape[0]} x {shape[1]} pixels")
    edge = np.zeros((high - low + 1)[::-1], bool)
    for here, there in zip(corners - low, np.roll(corners - low, -1, axis=0), strict=True):
        steps = int(np.abs(there - here).max()) + 1
        line = np.rint(np.linspace(here, there, steps)).astype(int)
        edge[line[:, 1], line[:, 0]] = True
    inside = np.zeros(shape, bool)
    inside[low[1] : high[1] + 1, low[0] : high[0] + 1] = ndimage.binary_fill_holes(edge) & ~edge
    return inside


def outline_voxels(outline: Outline, scan: Volume) -> npt.NDArray[np.int64]:
    """One reader's nodule as flat indices into a scan of axial slices (slice, row, column)."""
    slices: dict[int, Mask] = {}
    for contour in sorted(outline.contours, key=lambda each: not each.inclusion):  # holes come last
        mask = slices.setdefault(slice_of(contour.z_mm, scan), np.zeros(scan.shape[1:], bool))
        filled = fill_outline(contour.pixels, scan.shape[1:])
        if contour.inclusion:
            mask |= filled
        else:
            columns, rows = np.asarray(contour.pixels).T
            mask &= ~filled
            mask[rows, columns] = False  # these pixels, too, are the first outside the nodule
    area = scan.shape[1] * scan.shape[2]
    found = [place * area + np.flatnonzero(mask) for place, mask in sorted(slices.items())]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def slice_of(z_mm: float, scan: Volume) -> int:
    """The slice at a z position.

    Raises:
        IngestError: there is none.
    """
    step = np.asarray(scan.direction)[2, 0] * scan.spacing_mm[0]
    place = (z_mm - scan.origin_mm[2]) / step
    nearest = round(place)
    if not (0 <= nearest < scan.shape[0] and abs(place - nearest) <= LARGEST_SLICE_ERROR):
        raise IngestError(f"a contour lies at z = {z_mm:g} mm, where the scan has no slice")
    return int(nearest)


def contour_points(outline: Outline, scan: Volume) -> npt.NDArray[np.float64]:
    """Outline pixels as positions (n, 3) in mm, in the scan's own axes."""
    spacing = np.asarray(scan.spacing_mm)
    return np.array(
        [
            (slice_of(contour.z_mm, scan), row, column) * spacing
            for contour in outline.contours
            for column, row in contour.pixels
        ]
    )


def cluster(
    points: Sequence[npt.NDArray[np.float64]], readers: Sequence[int], *, distance_mm: float
) -> list[list[int]]:
    """Group outlines into nodules by the least distance between their points.

    Args:
        points: (n, 3) in mm, of each outline.
        readers: who drew it.
        distance_mm: outlines nearer than this, or as near, are of one nodule.

    Returns:
        Indices of the outlines of every nodule, at most four, and one a reader.
    """
    trees = [cKDTree(each) for each in points]
    apart = np.zeros((len(points), len(points)))
    for i, tree in enumerate(trees):
        for j in range(i):
            apart[i, j] = apart[j, i] = float(np.min(tree.query(points[j])[0]))
    return _split(list(range(len(points))), apart, readers, distance_mm)


def _split(
    members: list[int], apart: npt.NDArray[np.float64], readers: Sequence[int], distance_mm: float
) -> list[list[int]]:
    """Connected groups at a distance; those that join too much are split at a smaller one."""
    left, groups = set(members), []
    while left:
        group, frontier = set[int](), {min(left)}
        while frontier:
            group |= frontier
            frontier = {j for i in frontier for j in left - group if apart[i, j] <= distance_mm}
        left -= group
        ordered = sorted(group)
        fits = len(group) <= READERS and len({readers[i] for i in group}) == len(group)
        if fits:
            groups.append(ordered)
        elif distance_mm < 1e-3:  # drawn twice on the very same pixels: nothing can tell them apart
            groups += _one_each(ordered, readers)
        else:
            groups += _split(ordered, apart, readers, distance_mm * CLOSER)
    return groups


def _one_each(members: list[int], readers: Sequence[int]) -> list[list[int]]:
    """Groups with each reader once."""
    rounds: dict[int, list[int]] = {}
    for index in members:
        number = sum(readers[other] == readers[index] for other in members if other < index)
        rounds.setdefault(number, []).append(index)
    return [rounds[number] for number in sorted(rounds)]


def _contour(roi: Any) -> Contour:
    pixels = tuple(
        (int(_text(edge, "xCoord")), int(_text(edge, "yCoord"))) for edge in _children(roi, "edgeMap")
    )
    if not pixels:
        raise ValueError("a roi without edgeMap")
    inclusion = _text(roi, "inclusion").upper() != "FALSE"
    return Contour(float(_text(roi, "imageZposition")), inclusion, pixels)


def _text(element: Any, name: str) -> str:
    found = next(iter(_children(element, name)), None)
    if found is None or not found.text:
        raise ValueError(f"a {_name(element)} without {name}")
    return str(found.text).strip()


def _children(element: Any, name: str) -> list[Any]:
    return [child for child in element if _name(child) == name]


def _name(element: Any) -> str:
    """A tag without its namespace."""
    return str(element.tag).rpartition("}")[2]
