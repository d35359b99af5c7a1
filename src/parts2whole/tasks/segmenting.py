"""What all segmentation tasks share: patches with enough foreground, Dice and cross-entropy, whole-volume
sliding-window examination.  A concrete task only says where its cases are.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.losses.dice import DiceCELoss
from torch import Tensor, nn

from parts2whole.data.geometry import Size
from parts2whole.data.ingest import SourceCase, store_cases
from parts2whole.data.random import BatchGenerator, sample_generator
from parts2whole.data.sampler import Whole, read_padded
from parts2whole.data.store import Store
from parts2whole.evaluation.inference import sliding_window
from parts2whole.evaluation.metrics import mean_over_cases, segmentation_metrics
from parts2whole.networks.base import Encoder
from parts2whole.networks.heads import EncoderDecoder, Model
from parts2whole.tasks.augment import Augmentation, augment_image, augment_label, draw_augmentation
from parts2whole.tasks.base import (
    Batch,
    Examination,
    Item,
    Labelled,
    Run,
    Samples,
    Segmented,
    Task,
    TaskError,
    to_unit,
)

LOCATIONS_PER_CLASS = 1000


@dataclasses.dataclass(frozen=True)
class SegmentationTask(Task, abc.ABC):
    """A task whose target is a label map.

    Attributes:
        foreground_share: share of the training patches centred on a foreground voxel, every class alike.
        augmentation: how far training patches are changed.
        window_size: largest size in voxels (z, y, x) of the windows at inference; default ``patch_size``. A
            window that covers a volume takes one pass instead of several. It shrinks to the volume: much
            padding, which training never showed, would mislead instance norm.
        overlap: of neighbouring windows at inference, as a share of the window.
    """

    foreground_share: float = 0.5
    augmentation: Augmentation = Augmentation()
    window_size: Size | None = None
    overlap: float = 0.5

    @abc.abstractmethod
    def sources(self) -> list[SourceCase]:
        """Images and labels, by case."""

    @property
    def monitor(self) -> str:
        """Mean Dice over foreground classes."""
        return "dice_mean"

    def labelled(self, *, cache: Path, workers: int | None = None, progress: bool = True) -> Labelled:
        """Prepare images and labels once into ``cache``, and open them."""
        store, report = store_cases(
            self.sources(),
            self.cache_folder(cache),
            preprocess=self.preprocess,
            workers=workers,
            progress=progress,
        )
        notes = tuple(f"{case} was set aside: {reason}" for case, reason in report.set_aside.items())
        records = [record for record in store.cases if record.has_label]
        if not records:
            raise TaskError(f"no usable labelled case in {self.data}. " + "; ".join(notes))
        values = sorted({value for record in records for value in record.label_values} | {0})
        if len(values) < 2:
            raise TaskError(f"the labels in {self.data} hold nothing but background")
        items = tuple(Item(record.case_id, record.case_id, record.patient) for record in records)
        return Labelled(store, items, tuple(str(value) for value in values), notes)

    def build(self, encoder: Encoder, classes: Sequence[str]) -> Model:
        """The encoder and a fresh decoder with skip connections."""
        return EncoderDecoder(encoder, out_channels=len(classes), skips=True)

    def samples(self, labelled: Labelled, items: Sequence[str], *, seed: int, batch_size: int) -> Samples:
        """Patches of ``patch_size``."""
        return Patches(self, labelled, items, seed=seed, batch_size=batch_size)

    def augment(self, batch: Batch, generator: BatchGenerator) -> Batch:
        """Image and label moved alike, image intensities changed."""
        size: Size = tuple(batch["image"].shape[2:])  # type: ignore[assignment]
        drawn = draw_augmentation(self.augmentation, generator, size)
        return {"image": augment_image(batch["image"], drawn), "label": augment_label(batch["label"], drawn)}

    def loss(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Dice over the batch, foreground classes alike, plus cross-entropy."""
        logits = module(batch["image"]).float()
        measure = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
        return {"loss": measure(logits, batch["label"])}

    def examine(self, run: Run, labelled: Labelled, items: Sequence[str], *, thorough: bool) -> Examination:
        """Dice and IoU per class on whole volumes; ``thorough`` adds surface distances."""
        rows: list[dict[str, Any]] = []
        for item in items:
            predicted = self.predict_case(run, labelled.store, labelled.item(item).case_id)
            rows.append({"case": item} | self._score(predicted, labelled, item, thorough))
        return Examination(mean_over_cases(rows), rows)

    def show(self, run: Run, labelled: Labelled, item: str) -> Segmented:
        """Image, reference and prediction of a case."""
        record = labelled.store.record(labelled.item(item).case_id)
        return Segmented(
            to_unit(labelled.store.read(record.case_id), record.scale, record.offset)[0],
            class_indices(labelled.store.read_label(record.case_id), labelled.classes),
            self.predict_case(run, labelled.store, record.case_id),
            record.spacing_mm,
        )

    def predict_case(self, run: Run, store: Store, case_id: str) -> npt.NDArray[np.int64]:
        """Class indices (z, y, x) of a stored volume."""
        record = store.record(case_id)
        image = torch.from_numpy(to_unit(store.read(case_id), record.scale, record.offset))[None]
        return self.segment(run, image)

    def segment(self, run: Run, image: Tensor) -> npt.NDArray[np.int64]:
        """Class indices (z, y, x) of a prepared image (1, C, D, H, W)."""
        window = self.fit_window(image, run.divisor)
        logits = sliding_window(run, image, window=window, overlap=self.overlap)
        classes: npt.NDArray[np.int64] = logits[0].argmax(dim=0).numpy()
        return classes

    def fit_window(self, image: Tensor, divisor: int) -> Size:
        """The window for an image (1, C, D, H, W): no axis is padded beyond the patch or the divisor."""
        z, y, x = (
            min(wanted, max(patch, math.ceil(edge / divisor) * divisor))
            for wanted, patch, edge in zip(
                self.window_size or self.patch_size, self.patch_size, image.shape[2:], strict=True
            )
        )
        return (z, y, x)

    def _score(
        self, predicted: npt.NDArray[np.int64], labelled: Labelled, item: str, thorough: bool
    ) -> dict[str, float]:
        reference = class_indices(labelled.store.read_label(labelled.item(item).case_id), labelled.classes)
        spacing = labelled.store.record(labelled.item(item).case_id).spacing_mm
        return segmentation_metrics(
            predicted,
            reference,
            classes=range(1, len(labelled.classes)),
            spacing_mm=spacing,
            surface=thorough,
        )


class Patches(Samples):
    """Random patches; a share of them centred on a foreground voxel of a random class."""

    def __init__(
        self, task: SegmentationTask, labelled: Labelled, items: Sequence[str], *, seed: int, batch_size: int
    ) -> None:
        super().__init__(items, seed=seed, batch_size=batch_size)
        self.task = task
        self.store = labelled.store
        self.classes = labelled.classes
        self.cases = {item: labelled.item(item).case_id for item in items}
        self.locations = {item: self._locate(item) for item in items}
        found = {name for places in self.locations.values() for name in places}
        absent = [name for name in self.classes[1:] if name not in found]
        if absent:
            raise TaskError(
                f"class {', '.join(absent)} is absent from all {len(items)} training cases: "
                "raise the fraction, or choose another seed or split_seed"
            )

    def _locate(self, item: str) -> dict[str, npt.NDArray[np.int64]]:
        """Some voxels of every foreground class of a case."""
        label = self.store.read_label(self.cases[item])
        found = {}
        for name in self.classes[1:]:
            places = np.argwhere(label == int(name))
            if len(places):
                keep = min(LOCATIONS_PER_CLASS, len(places))
                generator = sample_generator("locations", item, name)
                found[name] = places[generator.choice(len(places), keep, replace=False)]
        return found

    def draw(self, item_id: str, generator: np.random.Generator) -> dict[str, Any]:
        """``image`` (C, D, H, W) in [0, 1] and ``label`` (1, D, H, W) class indices."""
        record = self.store.record(self.cases[item_id])
        size = self.task.patch_size
        places = self.locations[item_id]
        if places and generator.random() < self.task.foreground_share:
            names = sorted(places)
            chosen = places[names[int(generator.integers(len(names)))]]
            centre = chosen[int(generator.integers(len(chosen)))]
            start = [
                int(np.clip(c - s // 2, min(0, e - s), max(0, e - s)))
                for c, s, e in zip(centre, size, record.shape, strict=True)
            ]
        else:
            start = [
                int(generator.integers(min(0, e - s), max(0, e - s) + 1))
                for s, e in zip(size, record.shape, strict=True)
            ]
        whole = Whole(record.case_id, (start[0], start[1], start[2]), size)
        image = to_unit(read_padded(self.store, whole), record.scale, record.offset)
        label = class_indices(read_padded_label(self.store, whole), self.classes)
        return {"image": image, "label": label[None]}


def read_padded_label(store: Store, whole: Whole) -> npt.NDArray[Any]:
    """Stored labels of a box, padded with background where it leaves the scan."""
    label: npt.NDArray[Any] = read_padded(store, whole, label=True)[0]
    return label


def class_indices(label: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Label values as indices into ``classes``."""
    values = np.array([int(name) for name in classes])
    indices: npt.NDArray[np.int64] = np.searchsorted(values, label).astype(np.int64)
    return indices
