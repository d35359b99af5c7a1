"""What all classification tasks share: volumes resized to the input, balanced classes, one head.

A concrete task only says which stored volumes there are, and their classes.
"""

from __future__ import annotations

import abc
import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.evaluation.metrics import classification_metrics
from parts2whole.networks.base import Encoder
from parts2whole.networks.heads import Model, PooledClassifier
from parts2whole.progress import watch
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import size_of
from parts2whole.tasks.augment import Augmentation, augment_image, draw_augmentation
from parts2whole.tasks.base import Batch, Examination, Predictor, Samples, Task
from parts2whole.tasks.labelled import LabelledData, TaskError
from parts2whole.wholes.geometry import to_size
from parts2whole.wholes.random import BatchGenerator

EXAMINED_AT_ONCE = 16
TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class ClassificationTask(Task, abc.ABC):
    """A task whose target is one class a volume.

    Attributes:
        balance: draw the classes equally often while training, however rare they are.
        hidden: width of a hidden layer in the head; 0 is a linear head.
        dropout: before the last layer.
        augmentation: how far training volumes are changed.
    """

    balance: bool = True
    hidden: int = 0
    dropout: float = 0.0
    augmentation: Augmentation = Augmentation()
    rows_are_independent: ClassVar[bool] = True

    @classmethod
    def example(cls, folder: Path) -> Self:
        """A CSV of tiny chests and abdomens, to be told apart."""
        from parts2whole.phantom.example import write_list

        return cls(
            write_list(folder),
            preprocess=Preprocess(modality="CT"),
            patch_size=(16, 16, 16),
            validation_fraction=0.25,
            test_fraction=0.25,
        )

    @property
    def monitor(self) -> str:
        """Area under the ROC curve (one-vs-rest mean for more than two classes)."""
        return "auc"

    def can_judge(self, labelled: LabelledData, items: Sequence[str]) -> bool:
        """Whether two classes are there to be told apart."""
        return len({labelled.item(item).target for item in items}) > 1

    def build(self, encoder: Encoder, classes: Sequence[str]) -> Model:
        """The encoder, global average pooling and a fresh head."""
        return PooledClassifier(encoder, classes=len(classes), hidden=self.hidden, dropout=self.dropout)

    def samples(self, labelled: LabelledData, items: Sequence[str], *, seed: int, batch_size: int) -> Samples:
        """Volumes resized to ``patch_size``."""
        return Volumes(self, labelled, items, seed=seed, batch_size=batch_size)

    def augment(self, batch: Batch, generator: BatchGenerator) -> Batch:
        """Changed images with the same target."""
        drawn = draw_augmentation(self.augmentation, generator, size_of(batch["image"]))
        return {"image": augment_image(batch["image"], drawn), "target": batch["target"]}

    def loss(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy."""
        return {"loss": F.cross_entropy(module(batch["image"]).float(), batch["target"])}

    def examine(
        self, predictor: Predictor, labelled: LabelledData, items: Sequence[str], *, thorough: bool
    ) -> Examination:
        """AUC, average precision and more, over the items; probabilities per item.

        Where all items are of one class, and so AUC is undefined, the cross-entropy is there as ``loss``.
        """
        probabilities = self.probabilities(predictor, labelled, items)
        targets = np.array([labelled.item(item).target for item in items])
        rows: list[dict[str, Any]] = [
            {"case": item, "target": labelled.classes[target]}
            | {f"p_{name}": float(p) for name, p in zip(labelled.classes, row, strict=True)}
            for item, target, row in zip(items, targets, probabilities, strict=True)
        ]
        metrics = classification_metrics(probabilities, targets)
        if not self.can_judge(labelled, items):
            chosen = probabilities[np.arange(len(targets)), targets].astype(np.float64)
            metrics["loss"] = float(-np.log(np.maximum(chosen, TINY)).mean())
        return Examination(metrics, rows)

    def show(self, predictor: Predictor, labelled: LabelledData, item: str) -> None:
        """Nothing: a class is no picture."""

    def probabilities(
        self, predictor: Predictor, labelled: LabelledData, items: Sequence[str]
    ) -> np.ndarray[Any, Any]:
        """(items, classes)."""
        found = []
        firsts = range(0, len(items), EXAMINED_AT_ONCE)
        for first in watch(firsts, len(items), each=EXAMINED_AT_ONCE):
            images = [self.image(labelled, item) for item in items[first : first + EXAMINED_AT_ONCE]]
            found.append(torch.softmax(predictor(torch.stack(images)).float(), dim=1).numpy())
        return np.concatenate(found)

    def image(self, labelled: LabelledData, item_id: str) -> Tensor:
        """The network's input for an item: (C, *patch_size) in [0, 1]."""
        return self.fit_input(torch.from_numpy(labelled.store.read_unit(labelled.item(item_id).case_id)))

    def fit_input(self, image: Tensor) -> Tensor:
        """(C, D, H, W) resized to ``patch_size``."""
        return to_size(image, self.patch_size)


class Volumes(Samples):
    """Labelled volumes, each class drawn equally often if asked."""

    def __init__(
        self,
        task: ClassificationTask,
        labelled: LabelledData,
        items: Sequence[str],
        *,
        seed: int,
        batch_size: int,
    ) -> None:
        self.task = task
        self.labelled = labelled
        targets = {item: labelled.item(item).target for item in items}
        counts = Counter(targets.values())
        absent = [name for index, name in enumerate(labelled.classes) if not counts[index]]
        if absent:
            raise TaskError(
                f"class {', '.join(absent)} is absent from all {len(items)} training items: "
                "raise the fraction, or choose another seed or split_seed"
            )
        rounds = max(counts.values()) if task.balance else 0
        balanced = [
            item
            for index in range(len(labelled.classes))
            for item in _repeated([i for i in items if targets[i] == index], rounds)
        ]
        super().__init__(balanced if task.balance else items, seed=seed, batch_size=batch_size)

    def draw(self, item_id: str, generator: np.random.Generator) -> dict[str, Any]:
        """``image`` (C, D, H, W) in [0, 1] and ``target``, a class index."""
        return {
            "image": self.task.image(self.labelled, item_id),
            "target": self.labelled.item(item_id).target,
        }


def _repeated(items: Sequence[str], length: int) -> list[str]:
    """``length`` items: the list over and over."""
    return [items[i % len(items)] for i in range(length)]
