"""LUNA16: MetaImage in ten subsets, and two tables in world coordinates.

Setio et al., "Validation, comparison, and combination of algorithms for automatic detection of pulmonary
nodules in computed tomography images: the LUNA16 challenge", 2017; https://luna16.grand-challenge.org/Data

As in the real set, some scans are stored upside down (their direction has -1 on its diagonal), slices are at
most 2.5 mm thick, and candidates that are no nodules outnumber nodules by far.  The patients, and the series
UIDs, are those of the LIDC-IDRI phantoms of the same seed, of which the real set is a subset too.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from csv import writer
from pathlib import Path

import numpy as np
import numpy.typing as npt

from parts2whole.files import write_text
from parts2whole.phantom.ct import CtScan, make_ct
from parts2whole.phantom.montage import LUNG_WINDOW, Picture, picture_ct
from parts2whole.phantom.sizes import CT, Size
from parts2whole.phantom.write import DataSet, Rows, flip, make_uid, write_itk
from parts2whole.wholes.random import sample_generator

SUBSETS = 10
FLIPPED = 4
"""Every how many-th scan is stored with its rows and columns from the other end."""

NEGATIVES = 40
ANNOTATIONS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
CANDIDATES = ("seriesuid", "coordX", "coordY", "coordZ", "class")


@dataclasses.dataclass(frozen=True)
class Luna16(DataSet):
    """Lung nodules to be told from candidates that are none."""

    folder: str = "LUNA16"
    task: str = "NoduleFalsePositives"

    def write_case(self, root: Path, case: int, *, seed: int, size: Size) -> Rows:
        """Write a scan into its subset."""
        scan = make_ct("chest", CT["chest"][size], seed=seed, case=case)
        uid = make_uid("chest series", seed, case)
        image = flip(scan.image, (1, 2)) if case % FLIPPED == 1 else scan.image
        write_itk(image, root / f"subset{case % SUBSETS}" / f"{uid}.mhd")
        generator = sample_generator("candidates", seed, case)
        annotations = [
            [uid, *_texts(scan.grid.world(nodule.centre_mm)), f"{nodule.diameter_mm:.6f}"]
            for nodule in scan.lesions
        ]
        candidates = [
            [uid, *_texts(scan.grid.world(point)), str(kind)]
            for point, kind in draw_candidates(scan, generator, negatives=NEGATIVES)
        ]
        return {"annotations": annotations, "candidates": candidates}

    def draw(self, case: int, *, seed: int, size: Size) -> list[Picture]:
        """The chest, with nodules outlined."""
        scan = make_ct("chest", CT["chest"][size], seed=seed, case=case)
        return picture_ct(scan, scan.lesion > 0, LUNG_WINDOW)

    def finish(self, root: Path, rows: Sequence[Rows]) -> None:
        """Write the tables."""
        for name, columns, key in (
            ("annotations.csv", ANNOTATIONS, "annotations"),
            ("candidates_V2.csv", CANDIDATES, "candidates"),
        ):
            text = io.StringIO()
            table = writer(text, lineterminator="\n")
            table.writerow(columns)
            table.writerows(row for each in rows for row in each[key])
            write_text(root / name, text.getvalue())


def draw_candidates(
    scan: CtScan, generator: np.random.Generator, *, negatives: int
) -> list[tuple[npt.NDArray[np.float64], int]]:
    """Positions (z, y, x) that a detector might propose, with 1 for nodules and 0 for look-alikes.

    Look-alikes are branching points and pieces of vessels, and places at the pleura, away from every nodule.
    """
    found: list[tuple[npt.NDArray[np.float64], int]] = []
    for nodule in scan.lesions:
        for _ in range(1 + int(generator.random() < 0.3)):
            jitter = np.clip(generator.normal(0, 0.12, 3), -0.25, 0.25)
            found.append((np.array(nodule.centre_mm) + jitter * min(nodule.radii_mm), 1))
    trees = (*scan.chest.arteries, *scan.chest.veins)
    vessels = np.concatenate([tree.nodes_mm[1:][tree.radius_mm[1:] > 0.9] for tree in trees])
    bends = np.concatenate([tree.bends_mm[1:] for tree in trees])
    low, high = np.array([-190, -95, -135]), np.array([128, 100, 135])
    points = generator.uniform(low, high, (4000, 3))
    depth = -scan.torso.lung(*(points[:, axis].astype(np.float32) for axis in range(3)))
    pleura = scan.torso.to_patient(points[(depth > 0) & (depth < 3)])
    pools = (vessels, bends, pleura)
    shares = (0.5, 0.25, 0.25)
    for pool, share in zip(pools, shares, strict=True):
        inside = _inside(scan, pool)
        wanted = round(share * negatives)
        chosen = generator.permutation(inside)[:wanted]
        found += [(point, 0) for point in chosen]
    order = generator.permutation(len(found))
    return [found[number] for number in order]


def _inside(scan: CtScan, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The points that lie in the scan and away from nodules."""
    index = scan.grid.index(points)
    kept = ((index >= 0) & (index <= np.array(scan.grid.shape) - 1)).all(axis=1)
    for nodule in scan.lesions:
        distance = np.linalg.norm(points - np.array(nodule.centre_mm), axis=1)
        kept &= distance > 1.3 * max(nodule.radii_mm) + 4
    return points[kept]


def _texts(place: tuple[float, float, float]) -> list[str]:
    return [f"{mm:.6f}" for mm in place]
