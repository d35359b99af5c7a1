"""What candidate tasks share: a patch around a point of a scan is a lesion or a false positive.

Scans are stored whole, and patches are cut when they are needed: from the chunked store that costs little,
the scan's own voxels are known to the leak guard, and the patch size may change without preparing again.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from parts2whole.evaluation.froc import froc
from parts2whole.evaluation.metrics import auc
from parts2whole.scans.volume import Box, Triple, Volume
from parts2whole.store.store import CaseRecord, Store
from parts2whole.tasks.augment import Augmentation
from parts2whole.tasks.base import Examination, Predictor, Samples
from parts2whole.tasks.classifying import EXAMINED_AT_ONCE, ClassificationTask, Volumes
from parts2whole.tasks.labelled import LabelledData, TaskError
from parts2whole.tasks.spreadsheet import read_rows, to_number
from parts2whole.wholes.random import sample_generator
from parts2whole.wholes.sampler import WholeSize

CLASSES = ("false_positive", "lesion")
POINT_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ")


@dataclasses.dataclass(frozen=True)
class CandidateTask(ClassificationTask, abc.ABC):
    """A task whose items are points in scans.

    Negatives outnumber positives by hundreds, so training draws both classes alike (``balance``), and while
    training the model is judged on all positives and a fixed sample of the negatives.

    Attributes:
        extent_mm: physical size (z, y, x) of a patch, resized to ``patch_size``; default: ``patch_size``
            voxels at the scan's own spacing.
        shift_mm: training patches are moved by up to this along every axis.
        quick_negatives: negatives judged at each validation while training; the AUC of a random sample of
            the negatives estimates that of all.
        hidden: width of the head's hidden layer; 1024 as in the public code of Models Genesis.
    """

    extent_mm: Triple | None = None
    shift_mm: float = 2.0
    quick_negatives: int = 2000
    hidden: int = 1024
    augmentation: Augmentation = Augmentation(flip_axes=(0, 1, 2))

    def samples(self, labelled: LabelledData, items: Sequence[str], *, seed: int, batch_size: int) -> Samples:
        """Patches around candidates, each class drawn equally often."""
        return CandidatePatches(self, labelled, items, seed=seed, batch_size=batch_size)

    def image(self, labelled: LabelledData, item_id: str) -> Tensor:
        """The patch around a candidate: (C, *patch_size) in [0, 1], air where it leaves the scan."""
        item = labelled.item(item_id)
        if item.centre is None:
            return super().image(labelled, item_id)
        return self.patch(labelled.store, item.case_id, item.centre)

    def patch(self, store: Store, case_id: str, centre: Sequence[float]) -> Tensor:
        """The patch around a point of a stored volume, in voxels (z, y, x)."""
        size = WholeSize(self.patch_size, self.extent_mm).in_scan(store.record(case_id).spacing_mm)
        return self.fit_input(torch.from_numpy(store.read_unit(case_id, Box.around(centre, size))))

    def propose(self, volume: Volume) -> npt.NDArray[np.float64] | None:
        """Candidates (n, 3) of a new prepared scan, in voxels (z, y, x); None where the task makes none."""
        return None

    def classify(
        self, predictor: Predictor, volume: Volume, centres: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float32]:
        """Probabilities (n, classes) of points (n, 3), in voxels (z, y, x), of a prepared scan."""
        size = WholeSize(self.patch_size, self.extent_mm).in_scan(volume.spacing_mm)
        image = volume.array.reshape(-1, *volume.shape)
        found = []
        for first in range(0, len(centres), EXAMINED_AT_ONCE):
            boxes = [Box.around(centre, size) for centre in centres[first : first + EXAMINED_AT_ONCE]]
            patches = torch.stack([self.fit_input(torch.from_numpy(box.cut(image))) for box in boxes])
            found.append(torch.softmax(predictor(patches).float(), dim=1).numpy())
        probabilities: npt.NDArray[np.float32] = np.concatenate(found)
        return probabilities

    def examine(
        self, predictor: Predictor, labelled: LabelledData, items: Sequence[str], *, thorough: bool
    ) -> Examination:
        """AUC over candidates; ``thorough`` takes all of them and adds AUC over lesions and the FROC."""
        chosen = list(items) if thorough else self._sampled(labelled, items)
        found = super().examine(predictor, labelled, chosen, thorough=thorough)
        rows = []
        for row in found.per_item:
            item = labelled.item(row["case"])
            rows.append(
                {"case": row["case"], "scan": item.case_id, "patient": item.patient}
                | row
                | {"lesions": " ".join(item.lesions)}
            )
        extra = detection_metrics(labelled, rows) if thorough else {}
        return Examination(found.metrics | extra, rows)

    def _sampled(self, labelled: LabelledData, items: Sequence[str]) -> list[str]:
        negatives = [item for item in items if labelled.item(item).target == 0]
        if len(negatives) <= self.quick_negatives:
            return list(items)
        generator = sample_generator(self.split_seed, "quick negatives")
        kept = set(generator.choice(negatives, self.quick_negatives, replace=False).tolist())
        return [item for item in items if item in kept or labelled.item(item).target != 0]


class CandidatePatches(Volumes):
    """Patches around candidates, moved a little."""

    task: CandidateTask

    def draw(self, item_id: str, generator: np.random.Generator) -> dict[str, Any]:
        """``image`` (C, D, H, W) in [0, 1] and ``target``, a class index."""
        item = self.labelled.item(item_id)
        if item.centre is None:
            return super().draw(item_id, generator)
        spacing = self.labelled.store.record(item.case_id).spacing_mm
        shift = generator.uniform(-self.task.shift_mm, self.task.shift_mm, 3) / np.asarray(spacing)
        image = self.task.patch(self.labelled.store, item.case_id, np.asarray(item.centre) + shift)
        return {"image": image, "target": item.target}


def detection_metrics(labelled: LabelledData, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """AUC with one score a lesion (its highest), and the FROC, where the task has lesions.

    Scans without any candidate aren't among ``rows``, so they don't count.
    """
    scans = sorted({row["scan"] for row in rows})
    lesions = [lesion for scan in scans for lesion in labelled.lesions.get(scan, ())]
    if not lesions:
        return {}
    items = [labelled.item(row["case"]) for row in rows]
    scores = [float(row[f"p_{labelled.classes[1]}"]) for row in rows]
    highest: dict[str, float] = {}
    for item, score in zip(items, scores, strict=True):
        for lesion in item.lesions:
            highest[lesion] = max(score, highest.get(lesion, -math.inf))
    negatives = [s for i, s in zip(items, scores, strict=True) if not i.lesions and not i.irrelevant]
    both = np.array([*highest.values(), *negatives])
    curve = froc(
        scores,
        [item.lesions for item in items],
        irrelevant=[item.irrelevant for item in items],
        lesions=len(lesions),
        scans=len(scans),
    )
    return {"auc_lesions": auc(both, np.arange(len(both)) < len(highest))} | curve.metrics()


def to_voxels(grid: CaseRecord | Volume, world_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """LPS positions (n, 3) as (x, y, z) in mm, to voxels (n, 3) as (z, y, x) of a volume.

    The volume's own direction matrix is used, so that scans whose files run backwards are placed
    right.
    """
    matrix = np.asarray(grid.direction) * np.asarray(grid.spacing_mm)
    voxels: npt.NDArray[np.float64] = np.linalg.solve(matrix, (world_mm - np.asarray(grid.origin_mm)).T).T
    return voxels


def to_world(volume: Volume, voxels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Voxels (n, 3) as (z, y, x) of a volume, to LPS positions (n, 3) as (x, y, z) in mm."""
    homogeneous = np.column_stack([voxels, np.ones(len(voxels))])
    world: npt.NDArray[np.float64] = (volume.affine() @ homogeneous.T).T[:, :3]
    return world


def is_inside(grid: CaseRecord | Volume, voxels: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which points (n, 3) lie in the stored volume, whose outer voxels end half a voxel past their centre."""
    beyond = np.maximum(-0.5 - voxels, voxels - np.asarray(grid.shape) + 0.5)
    return np.asarray(beyond.max(axis=1) <= 0)


def read_points(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Rows of a CSV that has these columns.

    Raises:
        TaskError: the file or a column is missing, or a coordinate isn't a number.
    """
    numeric = [name for name in columns if name.startswith("coord") or name == "diameter_mm"]
    for row in read_rows(path, columns):
        try:
            numbers = {name: to_number(row.cells[name]) for name in numeric}
        except ValueError:
            numbers = {"": math.nan}
        if not all(math.isfinite(number) for number in numbers.values()):
            raise TaskError(f"{path}, line {row.line}: {', '.join(numeric)} must be numbers, got {row.cells}")
        yield row.cells | {name: repr(number) for name, number in numbers.items()}
