"""Candidates for pulmonary embolism, made from reference masks: emboli, and vessels that are none.

Positives lie in each embolus: one voxel nearest to its middle, then those farthest from the ones before.
Negatives lie on vessel-like bright structures: by the eigenvalues of the Hessian at the scale of a small
artery (two strongly negative, one near zero: a bright tube), with lung nearby and no dense bone, away from
every embolus.  All of it is a function of the scan, the masks and the settings.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from parts2whole.scans.case import IngestError, LabelSource
from parts2whole.scans.preprocess import resample
from parts2whole.scans.read import instance_numbers, read_matlab
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.store.store import Store
from parts2whole.tasks.derived import Rows
from parts2whole.wholes.random import sample_generator

GRID_MM = 1.5
SCALE_MM = 2.0
"""Standard deviation of the Gaussian whose Hessian is taken: tubes of some 3 to 8 mm."""

STRENGTH_HU = 50.0
"""Least second derivative across a tube, times the squared scale: noise in plain tissue stays far below."""

ROUNDNESS = 0.5
"""Of a tube, the eigenvalue along it is smaller than this times that across it."""

LUNG_HU, LUNG_REACH_MM, LUNG_SHARE = -500.0, 15.0, 0.25
BONE_HU, BONE_REACH_MM = 700.0, 5.0
POSITIVES_APART_MM = 5.0
NEGATIVES_APART_MM = 10.0

Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class CandidateRules:
    """How candidates are made.

    Attributes:
        per_embolus: positives in each embolus at most.
        per_scan: negatives in each scan at most.
        away_mm: least distance of a negative from every embolus.
        vessel_hu: range of a contrast-enhanced vessel.
        smallest_mm3: smaller emboli are left out.
        numbered: every label value is one embolus; else every connected mask is.
        window_hu: what the stored values 0 and 1 mean.
    """

    per_embolus: int
    per_scan: int
    away_mm: float
    vessel_hu: tuple[float, float]
    smallest_mm3: float
    numbered: bool
    window_hu: tuple[float, float]

    def __call__(self, store: Store, case_id: str) -> Rows:
        """Candidates of a stored scan: ``centre`` in voxels (z, y, x), and the ``embolus`` or 0."""
        record = store.record(case_id)
        scan = self.in_hu(Volume(store.read_unit(case_id)[0], record.spacing_mm))
        label = store.read_label(case_id) if record.has_label else np.zeros(record.shape, np.uint8)
        emboli = label if self.numbered else ndimage.label(label > 0, np.ones((3, 3, 3)))[0]
        rows = positives(emboli, record.spacing_mm, self)
        return rows + negatives(scan, label > 0, self, sample_generator("vessels", record.content_hash))

    def in_hu(self, unit: Volume) -> Volume:
        """A prepared scan in Hounsfield units, as far as the window kept them."""
        low, high = self.window_hu
        return dataclasses.replace(unit, array=unit.array.reshape(unit.shape) * (high - low) + low)


@dataclasses.dataclass(frozen=True)
class FumpeLabel(LabelSource):
    """The reference of a FUMPE patient: a MATLAB array (rows, columns, slices by InstanceNumber).

    Attributes:
        path: the ``.mat`` file.
        slices: the DICOM files, in the order of the scan's slices.
    """

    path: Path
    slices: tuple[Path, ...] = dataclasses.field(repr=False)

    def files(self) -> tuple[Path, ...]:
        """The MATLAB file."""
        return (self.path,)

    def read(self, scan: Volume) -> LabelVolume:
        """The mask on the scan's grid.

        Raises:
            IngestError: it has another size than the scan.
        """
        array = read_matlab(self.path)
        depth, rows, columns = scan.shape
        if array.shape != (rows, columns, depth):
            raise IngestError(
                f"{self.path.name} has {array.shape} (rows, columns, slices), its scan "
                f"{(rows, columns, depth)}"
            )
        label = np.zeros(scan.shape, np.uint8)
        label[np.argsort(instance_numbers(self.slices))] = np.moveaxis(array > 0, 2, 0)
        return LabelVolume(label, scan.spacing_mm, scan.origin_mm, scan.direction)


def positives(emboli: npt.NDArray[Any], spacing_mm: tuple[float, ...], rules: CandidateRules) -> Rows:
    """Voxels in every embolus."""
    spacing = np.asarray(spacing_mm)
    rows: Rows = []
    boxes: list[Any] = ndimage.find_objects(emboli.astype(np.int32))
    for number, box in enumerate(boxes, start=1):
        if box is None:
            continue
        places = np.argwhere(emboli[box] == number) + [edge.start for edge in box]
        if len(places) * spacing.prod() < rules.smallest_mm3:
            continue
        apart = np.linalg.norm((places - places.mean(axis=0)) * spacing, axis=1)
        chosen = [int(apart.argmin())]
        nearest = np.full(len(places), np.inf)
        while len(chosen) < rules.per_embolus:
            step = np.linalg.norm((places - places[chosen[-1]]) * spacing, axis=1)
            nearest = np.minimum(nearest, step)
            if nearest.max() < POSITIVES_APART_MM:
                break
            chosen.append(int(nearest.argmax()))
        rows += [{"centre": places[i].tolist(), "embolus": number} for i in chosen]
    return rows


def negatives(
    scan: Volume, emboli: npt.NDArray[np.bool_], rules: CandidateRules, generator: np.random.Generator
) -> Rows:
    """Vessel-like places, in random order, apart from each other and away from emboli."""
    coarse = resample(scan, (GRID_MM,) * 3)
    score = vesselness(coarse.array, rules.vessel_hu)
    peaks = np.argwhere((score > 0) & (score == ndimage.maximum_filter(score, size=3)))
    # Both grids share their middle; see `resample`.
    step = GRID_MM / np.asarray(scan.spacing_mm)
    places = (peaks + 0.5 - np.asarray(coarse.shape) / 2) * step + np.asarray(scan.shape) / 2 - 0.5
    places = np.clip(places, 0, np.asarray(scan.shape) - 1)
    if emboli.any() and len(places):
        reach = ndimage.distance_transform_edt(~emboli, sampling=scan.spacing_mm)
        places = places[reach[tuple(np.rint(places).astype(int).T)] >= rules.away_mm]
    chosen: list[npt.NDArray[np.float64]] = []
    for index in generator.permutation(len(places)):
        if len(chosen) == rules.per_scan:
            break
        apart = [np.linalg.norm((places[index] - other) * scan.spacing_mm) for other in chosen]
        if not apart or min(apart) >= NEGATIVES_APART_MM:
            chosen.append(places[index])
    return [{"centre": place.tolist(), "embolus": 0} for place in chosen]


def vesselness(hu: npt.NDArray[Any], vessel_hu: tuple[float, float]) -> Array:
    """How much of a bright tube each voxel of a `GRID_MM` grid lies on; 0 where it is none."""
    image = np.clip(hu, LUNG_HU, None).astype(np.float32)
    sigma = SCALE_MM / GRID_MM
    lung = ndimage.uniform_filter((hu < LUNG_HU).astype(np.float32), size=round(LUNG_REACH_MM / GRID_MM))
    bone = ndimage.maximum_filter(hu, size=2 * round(BONE_REACH_MM / GRID_MM) + 1) > BONE_HU
    bright = (hu >= vessel_hu[0]) & (hu <= vessel_hu[1]) & (lung >= LUNG_SHARE) & ~bone
    places = np.nonzero(bright)
    score = np.zeros(hu.shape, np.float32)
    if not len(places[0]):
        return score
    hessian = np.empty((len(places[0]), 3, 3), np.float32)
    for i in range(3):
        for j in range(i + 1):
            order = [int(axis == i) + int(axis == j) for axis in range(3)]
            hessian[:, i, j] = hessian[:, j, i] = ndimage.gaussian_filter(image, sigma, order=order)[places]
    values = np.linalg.eigvalsh(hessian)
    values = np.take_along_axis(values, np.abs(values).argsort(axis=1), axis=1)
    along, across, most = values.T * np.float32(sigma**2)
    tube = (across <= -STRENGTH_HU) & (most < 0) & (np.abs(along) <= ROUNDNESS * np.abs(across))
    score[places] = np.where(tube, -across, 0)
    return score
