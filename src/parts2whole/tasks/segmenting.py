"""What all segmentation tasks share: patches with enough foreground, Dice and cross-entropy, whole-volume
sliding-window examination.  A concrete task only says where its cases are.
"""

from __future__ import annotations

import abc
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from parts2whole.errors import is_out_of_memory, sentence, tell_reasons
from parts2whole.evaluation.metrics import mean_over_cases
from parts2whole.evaluation.regions import Regions, RegionScores, class_regions
from parts2whole.networks.base import Encoder
from parts2whole.networks.heads import EncoderDecoder, Model
from parts2whole.progress import watch
from parts2whole.scans.preprocess import Modality, Preprocess
from parts2whole.scans.volume import Box, Size, size_of
from parts2whole.store.ingest import store_cases
from parts2whole.store.store import CaseRecord, Store
from parts2whole.tasks.augment import Augmentation, augment_image, augment_label, draw_augmentation
from parts2whole.tasks.base import Batch, Examination, Predictor, Samples, Segmented, Task
from parts2whole.tasks.channels import odd_channels
from parts2whole.tasks.labelled import FoundCases, Item, LabelledData, TaskError
from parts2whole.tasks.labels import check_not_negative, class_indices, lost_notes
from parts2whole.tasks.losses import LossFunction, segmentation_loss
from parts2whole.tasks.native import read_original
from parts2whole.tasks.patches import Patches
from parts2whole.tasks.windows import Windows
from parts2whole.wholes.random import BatchGenerator

Grid = Literal["native", "prepared", "cubes"]
"""The voxels that prediction and reference are compared on; see `parts2whole.tasks.base.Examination`."""


@dataclasses.dataclass(frozen=True)
class SegmentationTask(Task, abc.ABC):
    """A task whose target is a label map.

    Attributes:
        foreground_share: share of the training patches centred on a foreground voxel, every class alike.
        augmentation: how far training patches are changed.
        crop_size: voxels (z, y, x) of the scan that are cut out and resized to ``patch_size``; default
            ``patch_size``, nothing is resized.
        window_size: largest size in voxels (z, y, x) of the windows at inference; default ``patch_size``. A
            window that covers a volume takes one pass instead of several, but shows the network more around a
            voxel than training did, which may cost accuracy. It shrinks to the volume: much padding, which
            training never showed, would mislead instance norm.
        overlap: of neighbouring windows at inference, at least, as a share of the window; default an eighth
            where the network has batch norm or none, else a half: norms that take their statistics from the
            window need the mean over several.
        loss_function: ``dice_ce`` (Dice and cross-entropy), ``dice_balanced_ce`` (the same, but in the
            cross-entropy a class weighs as the square root of the number of its voxels, so that one of few
            isn't lost to the background in the first steps), or ``dice`` (1 - soft Dice with smoothing 1 over
            the batch, as in the public code of Models Genesis).
    """

    foreground_share: float = 0.5
    augmentation: Augmentation = Augmentation()
    crop_size: Size | None = None
    window_size: Size | None = None
    overlap: float | None = None
    loss_function: LossFunction = "dice_ce"

    @abc.abstractmethod
    def sources(self) -> FoundCases:
        """Images and labels, by case."""

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Pairs of tiny abdomens, ``images/`` and ``labels/``, whose liver is labelled."""
        from parts2whole.phantom.example import write_pairs

        return cls(
            write_pairs(folder),
            preprocess=Preprocess(modality="CT"),
            patch_size=(16, 16, 16),
            validation_fraction=0.25,
            test_fraction=0.25,
        )

    @property
    def monitor(self) -> str:
        """Mean Dice over foreground classes."""
        return "dice_mean"

    @property
    def cut_size(self) -> Size:
        """Voxels of the scan that a training patch covers."""
        return self.crop_size or self.patch_size

    @property
    def ignored_value(self) -> int | None:
        """The label value of voxels that take part in no loss and no metric, and are never predicted."""
        return None

    def classes_in(self, values: Sequence[int]) -> tuple[str, ...]:
        """Names of the classes, given the label values that occur, 0 among them; here the values."""
        return tuple(str(value) for value in values if value != self.ignored_value)

    def mask_values(self, classes: Sequence[str]) -> tuple[int, ...]:
        """The value of every class in written masks; here its name."""
        return tuple(int(name) for name in classes)

    def to_classes(self, label: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Stored label values as class indices; `IGNORED` where they are to be ignored.

        Raises:
            TaskError: a value that is of no class.
        """
        return class_indices(label, classes, self.ignored_value)

    def regions(self, classes: Sequence[str]) -> Regions:
        """What is measured: unions of classes; here every foreground class."""
        return class_regions(classes)

    def items(self, store: Store, sources: FoundCases) -> tuple[Item, ...]:
        """What there is to learn from: here all labelled volumes."""
        wanted = {case.case_id for case in sources.cases}
        return tuple(
            Item(r.case_id, r.case_id, r.patient, side=sources.sides.get(r.case_id))
            for r in store.cases
            if r.has_label and r.case_id in wanted
        )

    def labelled(self, *, cache: Path, workers: int | None = None, progress: bool = True) -> LabelledData:
        """Prepare images and labels once into ``cache``, and open them."""
        sources = self.sources()
        store, report = store_cases(
            self.tell_patients(sources.cases),
            self.cache_folder(cache),
            preprocess=_with_modality(self.preprocess, sources.modality),
            workers=workers,
            progress=progress,
        )
        wanted = {case.case_id: case for case in sources.cases}
        records = [record for record in store.cases if record.has_label and record.case_id in wanted]
        other = odd_channels(records)
        set_aside = {**sources.set_aside, **report.set_aside, **other}
        notes = tell_reasons(set_aside, of=len({*wanted, *set_aside}))
        records = [record for record in records if record.case_id not in other]
        if not records:
            raise TaskError(f"no usable labelled case in {self.data}. " + "; ".join(notes))
        holders: dict[int, list[str]] = defaultdict(list)
        for record in records:
            for value in (*record.label_values, *record.labels_lost):
                holders[value].append(record.case_id)
        check_not_negative(holders, self.ignored_value)
        classes = self.classes_in(sorted({0, *holders}))
        self.regions(classes)  # which refuses names that are alike in tables before anything is trained
        if not set(holders) - {0, self.ignored_value}:
            raise TaskError(f"the labels in {self.data} hold nothing but background")
        items = tuple(
            self._with_held(item, store, classes)
            for item in self.items(store, sources)
            if item.case_id not in other
        )
        lost = lost_notes(records, self.preprocess, ignored=self.ignored_value)
        return LabelledData(
            store, items, classes, (*notes, *lost, *sources.notes), sources=wanted, set_aside=set_aside
        )

    def with_classes(self, labelled: LabelledData, classes: Sequence[str]) -> LabelledData:
        """The data seen with a model's classes, where these are more: not every class is in all data.

        Data with a class that the model doesn't know stay as they are.
        """
        if labelled.classes == tuple(classes) or not set(labelled.classes) <= set(classes):
            return labelled
        items = tuple(self._with_held(item, labelled.store, classes) for item in labelled.items)
        return dataclasses.replace(labelled, classes=tuple(classes), items=items)

    def holds(self, record: CaseRecord, classes: Sequence[str]) -> frozenset[int]:
        """Foreground classes in a stored label map, by index."""
        found = self.to_classes(np.array(record.label_values), classes)
        return frozenset(range(1, len(classes))).intersection(found.tolist())

    def _with_held(self, item: Item, store: Store, classes: Sequence[str]) -> Item:
        record = store.record(item.case_id)
        lost = self.lost(record, classes) if item.centre is None else frozenset[int]()
        return dataclasses.replace(item, holds=self.holds(record, classes), lost=lost)

    def modality_said(self) -> Modality | None:
        """As its ``dataset.json`` has it."""
        return self.sources().modality

    def lost(self, record: CaseRecord, classes: Sequence[str]) -> frozenset[int]:
        """Foreground classes in a label file of which the stored label map has no voxel, by index."""
        found = self.to_classes(np.array(record.labels_lost, np.int64), classes)
        return frozenset(range(1, len(classes))).intersection(found.tolist())

    def can_judge(self, labelled: LabelledData, items: Sequence[str]) -> bool:
        """Whether an item has foreground: overlap with nothing is undefined."""
        return any(labelled.item(item).holds for item in items)

    def build(self, encoder: Encoder, classes: Sequence[str]) -> Model:
        """The encoder and a fresh decoder with skip connections."""
        return EncoderDecoder(encoder, out_channels=len(classes), skips=True)

    def samples(self, labelled: LabelledData, items: Sequence[str], *, seed: int, batch_size: int) -> Samples:
        """Patches of ``patch_size``."""
        return Patches(
            labelled,
            items,
            cut_size=self.cut_size,
            patch_size=self.patch_size,
            foreground_share=self.foreground_share,
            to_classes=self.to_classes,
            seed=seed,
            batch_size=batch_size,
        )

    def augment(self, batch: Batch, generator: BatchGenerator) -> Batch:
        """Image and label moved alike, image intensities changed."""
        drawn = draw_augmentation(self.augmentation, generator, size_of(batch["image"]))
        return {"image": augment_image(batch["image"], drawn), "label": augment_label(batch["label"], drawn)}

    def loss(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Of annotated voxels, by `loss_function`; see `parts2whole.tasks.losses.segmentation_loss`."""
        return {"loss": segmentation_loss(module(batch["image"]).float(), batch["label"], self.loss_function)}

    def examine(
        self, predictor: Predictor, labelled: LabelledData, items: Sequence[str], *, thorough: bool
    ) -> Examination:
        """Dice and IoU per region on whole items; ``thorough`` adds surface distances and mean IoU over
        thresholds, and what the voxels of all items pooled give.

        A thorough examination of whole volumes is on the voxels of the label files, as `predict` writes masks
        on those of the scans, and goes on where an item fails.  Else prepared voxels are compared.

        Where no item has foreground, so that overlap is undefined, the mean ``loss`` is there, too.
        """
        scores = RegionScores(self.regions(labelled.classes))
        rows: list[dict[str, Any]] = []
        losses: list[float] = []
        failed: dict[str, str] = {}
        judged = self.can_judge(labelled, items)
        grid = self.grid(labelled, items, thorough=thorough)
        for item in watch(items, len(items)):
            try:
                found, loss = self._score(predictor, labelled, item, scores, grid, thorough, judged)
            except Exception as error:
                reason = "not enough memory for it" if is_out_of_memory(error) else sentence(error)
                if not thorough or reason is None:
                    raise
                failed[item] = reason
                continue
            losses += loss
            rows.append({"case": item, "patient": labelled.item(item).patient, "grid": grid} | found)
        metrics = mean_over_cases(rows) | (scores.pooled() if thorough else {})
        return Examination(metrics | ({"loss": float(np.mean(losses))} if losses else {}), rows, grid, failed)

    def grid(self, labelled: LabelledData, items: Sequence[str], *, thorough: bool) -> Grid:
        """The voxels that `examine` compares; see `Examination.grid`."""
        if any(labelled.item(item).centre is not None for item in items):
            return "cubes"
        return "native" if thorough or self.preprocess.spacing_mm is None else "prepared"

    def _score(
        self,
        predictor: Predictor,
        labelled: LabelledData,
        item: str,
        scores: RegionScores,
        grid: Grid,
        thorough: bool,
        judged: bool,
    ) -> tuple[dict[str, float], list[float]]:
        """Figures of an item, and its loss where no item can be judged by them."""
        case = labelled.item(item).case_id
        logits = self.logits(predictor, self.image(labelled, item)[None])[0]
        reference, spacing = self.reference(labelled, item), labelled.store.record(case).spacing_mm
        losses = []
        if not judged:
            batch = {"image": logits[None], "label": torch.from_numpy(reference)[None, None]}
            losses.append(float(self.loss(nn.Identity(), batch)["loss"]))
        bring: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = np.asarray
        if grid == "native" and self.preprocess.spacing_mm is not None:
            original = read_original(labelled.sources[case], labelled.store)
            reference, spacing = (
                self.to_classes(original.label.array, labelled.classes),
                original.label.spacing_mm,
            )
            bring = original.bring
        probabilities = torch.softmax(logits, dim=0).numpy() if thorough else np.empty(0, np.float32)
        found = scores.score(
            bring(logits.argmax(dim=0).numpy()),
            reference,
            (lambda classes: bring(probabilities[list(classes)].sum(axis=0))) if thorough else None,
            spacing_mm=spacing,
            surface=thorough,
        )
        return found, losses

    def show(self, predictor: Predictor, labelled: LabelledData, item: str) -> Segmented:
        """Image, reference and prediction of an item."""
        image = self.image(labelled, item)
        return Segmented(
            image[0].numpy(),
            np.maximum(self.reference(labelled, item), 0),  # what is ignored looks like background
            self.segment(predictor, image[None]),
            labelled.store.record(labelled.item(item).case_id).spacing_mm,
        )

    def image(self, labelled: LabelledData, item_id: str) -> Tensor:
        """The image (C, D, H, W) of an item: the volume, or the box around its centre."""
        item = labelled.item(item_id)
        return torch.from_numpy(labelled.store.read_unit(item.case_id, self._box(item)))

    def reference(self, labelled: LabelledData, item_id: str) -> npt.NDArray[np.int64]:
        """Class indices (D, H, W) of an item, or `IGNORED`, on the voxels of `image`."""
        item = labelled.item(item_id)
        return self.to_classes(labelled.store.read_label(item.case_id, self._box(item)), labelled.classes)

    def segment(self, predictor: Predictor, image: Tensor) -> npt.NDArray[np.int64]:
        """Class indices (z, y, x) of a prepared image (1, C, D, H, W)."""
        classes: npt.NDArray[np.int64] = self.logits(predictor, image)[0].argmax(dim=0).numpy()
        return classes

    def logits(self, predictor: Predictor, image: Tensor) -> Tensor:
        """Logits (1, K, D, H, W) of a prepared image (1, C, D, H, W)."""
        return self.windows.logits(predictor, image)

    @property
    def windows(self) -> Windows:
        """What volumes go through."""
        return Windows(self.patch_size, self.crop_size, self.window_size, self.overlap)

    def voxels_to_examine(self, labelled: LabelledData, items: Sequence[str], encoder: Encoder) -> int:
        """Those of all windows."""
        boxes = [
            labelled.store.record(item.case_id).shape if item.centre is None else self.cut_size
            for item in map(labelled.item, items)
        ]
        return sum(self.windows.voxels(shape, encoder.divisor, encoder.norm) for shape in boxes)

    def _box(self, item: Item) -> Box | None:
        """The box of an item that has a centre."""
        return None if item.centre is None else Box.around(item.centre, self.cut_size)


def _with_modality(preprocess: Preprocess, said: Modality | None) -> Preprocess:
    """The preprocessing, with what the data set says in place of a guess."""
    return preprocess.replace(modality=said) if said and preprocess.modality == "auto" else preprocess
