"""A structure set (RTSTRUCT) of a label map: contours along the edges of its voxels, slice by slice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage

from parts2whole.files import replacing
from parts2whole.phantom.write import make_uid
from parts2whole.scans.volume import LabelVolume

Loop = npt.NDArray[np.float64]
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Along the edges of a pixel, clockwise: right, down, left, up."""


def write_structures(
    label: LabelVolume, names: Mapping[int, str], path: Path, *, patient: str, study_uid: str, series_uid: str
) -> None:
    """Write the values of a label map as regions of a structure set.

    Args:
        label: of the series, (z, y, x).
        names: of the regions, by their values.
        path: the file.
        patient: patient id.
        study_uid: of the study.
        series_uid: of the series that the structures are of.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = UID(make_uid(series_uid, "structures"))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = pydicom.uid.PYDICOM_IMPLEMENTATION_UID
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    made.Modality, made.StructureSetLabel = "RTSTRUCT", "phantom"
    made.PatientID = made.PatientName = patient
    made.StudyInstanceUID, made.SeriesInstanceUID = study_uid, make_uid(series_uid, "structure series")
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = series_uid
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = make_uid(series_uid, "frame")
    frame.RTReferencedStudySequence = [study]
    made.ReferencedFrameOfReferenceSequence = [frame]
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for number, (value, name) in enumerate(names.items(), 1):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = (
            number,
            name,
            frame.FrameOfReferenceUID,
        )
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = [
            _contour(label, plane, loop)
            for plane, inside in enumerate(label.array == value)
            for loop in trace_edges(inside)
        ]
        made.StructureSetROISequence.append(region)
        made.ROIContourSequence.append(drawn)
    with replacing(path) as beside:
        made.save_as(beside, enforce_file_format=True)


def trace_edges(inside: npt.NDArray[np.bool_]) -> list[Loop]:
    """Closed loops of corners (row, column) along the edges of the pixels of a mask, holes for themselves.

    Pixels that touch at a corner only are in loops of their own.
    """
    padded = np.pad(inside, 1)
    ways: dict[tuple[int, int, int], tuple[int, int]] = {}
    for direction, (down, right) in enumerate(STEPS):
        # What is inside lies on the right of every step: below one to the right, and so on.
        outside = np.roll(padded, (right, -down), axis=(0, 1))
        for row, column in np.argwhere(padded & ~outside):
            corner = {0: (0, 0), 1: (0, 1), 2: (1, 1), 3: (1, 0)}[direction]
            ways[row + corner[0], column + corner[1], direction] = (down, right)
    loops = []
    while ways:
        row, column, direction = next(iter(ways))
        corners = []
        while (row, column, direction) in ways:
            down, right = ways.pop((row, column, direction))
            corners.append((row, column))
            row, column = row + down, column + right
            turns = [(direction + turn) % 4 for turn in (1, 0, 3)]  # sharpest to the right first
            direction = next((turn for turn in turns if (row, column, turn) in ways), direction)
        loops.append(np.array(corners) - 1.5)
    return loops


def _contour(label: LabelVolume, plane: int, loop: Loop) -> Dataset:
    """A loop of one plane in mm."""
    corners = np.column_stack([np.full(len(loop), plane), loop, np.ones(len(loop))])
    points = (label.affine() @ corners.T).T[:, :3]
    contour = Dataset()
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{value:.4f}" for value in points.ravel()]
    return contour
