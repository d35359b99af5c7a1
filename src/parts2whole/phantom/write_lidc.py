"""LIDC-IDRI: DICOM series, and what up to four readers marked in one XML file for each series.

Armato et al., "The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI)",
Medical Physics 2011.  Nodules of 3 mm or more have an outline in every slice, which runs through the first
pixels outside the nodule; small nodules and non-nodules have a point.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from parts2whole.files import replacing
from parts2whole.phantom.ct import CtScan, make_ct
from parts2whole.phantom.lesions import SOLID, Lesion
from parts2whole.phantom.montage import LUNG_WINDOW, Picture, picture_ct
from parts2whole.phantom.sizes import CT, Size
from parts2whole.phantom.write import DataSet, Rows, make_uid
from parts2whole.phantom.write_dicom import write_series
from parts2whole.wholes.random import sample_generator

NAMESPACE = "http://www.nih.gov"
READERS = 4
SEES = 0.85
"""Chance that a reader marks a nodule."""

STEPS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""The eight neighbours of a pixel (row, column), clockwise from the right."""

Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Lidc(DataSet):
    """Lung nodules outlined by several readers."""

    folder: str = "LIDC-IDRI"
    task: str = "NoduleSegmentation"

    def write_case(self, root: Path, case: int, *, seed: int, size: Size) -> Rows:
        """Write a patient's series with its XML."""
        scan = make_ct("chest", CT["chest"][size], seed=seed, case=case)
        patient = f"LIDC-IDRI-{case + 1:04d}"
        study, series = make_uid("chest study", seed, case), make_uid("chest series", seed, case)
        target = root / patient / study / series
        if target.exists():
            return {}
        with replacing(target) as folder:
            images = write_series(scan.image, folder, patient=patient, study_uid=study, series_uid=series)
            generator = sample_generator("readers", seed, case)
            document = make_document(scan, images, generator, study_uid=study, series_uid=series)
            document.write(folder / f"{case + 1:03d}.xml", encoding="UTF-8", xml_declaration=True)
        return {}

    def draw(self, case: int, *, seed: int, size: Size) -> list[Picture]:
        """The chest, with nodules outlined: the patients of LUNA16."""
        scan = make_ct("chest", CT["chest"][size], seed=seed, case=case)
        return picture_ct(scan, scan.lesion > 0, LUNG_WINDOW)


def make_document(
    scan: CtScan,
    image_uids: Sequence[str],
    generator: np.random.Generator,
    *,
    study_uid: str,
    series_uid: str,
) -> Any:
    """What the readers say of a scan, as an XML document."""
    ElementTree.register_namespace("", NAMESPACE)
    root = ElementTree.Element(f"{{{NAMESPACE}}}LidcReadMessage", uid=make_uid(series_uid, "read"))
    head = _add(root, "ResponseHeader")
    for name, text in (
        ("Version", "1.8.1"),
        ("MessageId", "1"),
        ("DateRequest", "2000-01-01"),
        ("TimeRequest", "00:00:00"),
        ("TaskDescription", "Second unblinded read"),
        ("CtImageFile", "unknown"),
        ("SeriesInstanceUid", series_uid),
        ("DateService", "2000-01-01"),
        ("TimeService", "00:00:00"),
        ("ResponseDescription", "1 - Reading complete"),
        ("StudyInstanceUID", study_uid),
    ):
        _add(head, name, text)
    bottom = scan.image.origin_mm[2]
    heights = [bottom + number * scan.image.spacing_mm[0] for number in range(scan.image.shape[0])]
    marks = _Marks(scan, image_uids, heights)
    present = [number for number in range(1, len(scan.lesions) + 1) if (scan.lesion == number).any()]
    readers = {number: _who_sees(generator) for number in present}
    small = marks.vessels(generator, 4)
    for reader in range(READERS):
        session = _add(root, "readingSession")
        _add(session, "annotationVersion", "3.12")
        _add(session, "servicingRadiologistID", f"anon{reader + 1}")
        for number in present:
            if reader in readers[number]:
                mask = read_mask(scan.lesion == number, generator)
                marks.outline(
                    session, f"Nodule {100 * reader + number:03d}", mask, scan.lesions[number - 1], generator
                )
        for place in small[:2]:
            if generator.random() < 0.6:
                marks.point(session, f"IL{reader + 1}057_{place[0]}", place)
        for place in small[2:]:
            if generator.random() < 0.6:
                marks.non_nodule(session, f"{100 * reader + place[0]}", place)
    document = ElementTree.ElementTree(root)
    ElementTree.indent(document)
    return document


def read_mask(truth: Mask, generator: np.random.Generator) -> Mask:
    """What one reader takes for the nodule: a little larger or smaller, never nothing."""
    soft = ndimage.gaussian_filter(truth.astype(np.float32), 0.7)
    reading = soft > float(np.clip(generator.normal(0.47, 0.07), 0.32, 0.62))
    pieces, count = ndimage.label(reading)
    if count > 1:
        reading = pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    return reading if reading.any() else truth


def trace_outline(mask: Mask) -> list[tuple[int, int]]:
    """The chain of pixels (row, column) just outside a region without holes, first and last the same.

    Clockwise from the highest, by Moore's neighbour tracing around the region widened by one pixel.
    """
    wide = np.pad(ndimage.binary_dilation(np.pad(mask, 1)), 1)
    rows, columns = np.nonzero(wide)
    start = (int(rows[0]), int(columns[0]))
    chain = [start]
    place, back = start, 4  # comes from the left, where there is nothing
    while True:
        for turn in range(1, 9):
            step = (back + turn) % 8
            there = (place[0] + STEPS[step][0], place[1] + STEPS[step][1])
            if wide[there]:
                break
        previous = STEPS[(step - 1) % 8]
        last = (place[0] + previous[0], place[1] + previous[1])
        back = STEPS.index((last[0] - there[0], last[1] - there[1]))
        place = there
        chain.append(place)
        if place == start:
            return [(row - 2, column - 2) for row, column in chain]


@dataclasses.dataclass(frozen=True, eq=False)
class _Marks:
    """Writes marks into a reading session.

    Attributes:
        scan: what is read.
        uids: SOP instance UID of every slice.
        heights: z position of every slice.
    """

    scan: CtScan
    uids: Sequence[str]
    heights: Sequence[float]

    def outline(
        self, session: Any, name: str, mask: Mask, nodule: Lesion, generator: np.random.Generator
    ) -> None:
        """A nodule of 3 mm or more, with ratings and an outline a slice."""
        node = _add(session, "unblindedReadNodule")
        _add(node, "noduleID", name)
        ratings = _add(node, "characteristics")
        solid = 5 if nodule.kind == SOLID else 2
        for rating, value in (
            ("subtlety", int(generator.integers(3, 6))),
            ("internalStructure", 1),
            ("calcification", 3 if nodule.contrast_hu > 200 else 6),
            ("sphericity", int(generator.integers(3, 6))),
            ("margin", int(generator.integers(2, 6))),
            ("lobulation", int(generator.integers(1, 4))),
            ("spiculation", 4 if nodule.spicules_mm else 1),
            ("texture", solid),
            ("malignancy", int(generator.integers(1, 6))),
        ):
            _add(ratings, rating, str(value))
        for number in np.flatnonzero(mask.any(axis=(1, 2)))[::-1]:
            pieces, count = ndimage.label(ndimage.binary_fill_holes(mask[number]))
            for piece in range(1, count + 1):
                self._region(node, int(number), trace_outline(pieces == piece))

    def point(self, session: Any, name: str, place: tuple[int, int, int]) -> None:
        """A nodule below 3 mm: one point, no ratings."""
        node = _add(session, "unblindedReadNodule")
        _add(node, "noduleID", name)
        self._region(node, place[0], [place[1:]])

    def non_nodule(self, session: Any, name: str, place: tuple[int, int, int]) -> None:
        """Something of 3 mm or more that is no nodule."""
        node = _add(session, "nonNodule")
        _add(node, "nonNoduleID", name)
        _add(node, "imageZposition", f"{self.heights[place[0]]:.6f}")
        _add(node, "imageSOP_UID", self.uids[place[0]])
        locus = _add(node, "locus")
        _add(locus, "xCoord", str(place[2]))
        _add(locus, "yCoord", str(place[1]))

    def vessels(self, generator: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
        """Voxels (z, y, x) on small vessels, which readers may take for something."""
        tree = self.scan.chest.arteries[0]
        index = np.rint(self.scan.grid.index(tree.nodes_mm[1:])).astype(int)
        inside = index[((index >= 2) & (index < np.array(self.scan.grid.shape) - 2)).all(axis=1)]
        return [(int(z), int(y), int(x)) for z, y, x in generator.permutation(inside)[:count]]

    def _region(self, node: Any, number: int, chain: Sequence[tuple[int, int]]) -> None:
        region = _add(node, "roi")
        _add(region, "imageZposition", f"{self.heights[number]:.6f}")
        _add(region, "imageSOP_UID", self.uids[number])
        _add(region, "inclusion", "TRUE")
        for row, column in chain:
            edge = _add(region, "edgeMap")
            _add(edge, "xCoord", str(column))
            _add(edge, "yCoord", str(row))


def _who_sees(generator: np.random.Generator) -> set[int]:
    """The readers who mark a nodule, at least one."""
    seen = {reader for reader in range(READERS) if generator.random() < SEES}
    return seen or {int(generator.integers(READERS))}


def _add(parent: Any, name: str, text: str | None = None) -> Any:
    child = ElementTree.SubElement(parent, f"{{{NAMESPACE}}}{name}")
    child.text = text
    return child
