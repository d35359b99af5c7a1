"""What every target task promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from parts2whole.contracts.base import Contract, promise
from parts2whole.networks.base import Network
from parts2whole.networks.heads import Model
from parts2whole.networks.unet3d import UNet3D
from parts2whole.tasks.base import Predictor, Samples, Task
from parts2whole.tasks.labelled import LabelledData
from parts2whole.training.model import as_function
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.training.step import divide_rows
from parts2whole.wholes.random import BatchGenerator

ROWS = 4


class TaskContract(Contract):
    """Promises of a target task, on the tiny data that its `Task.example` writes.

    Attributes:
        network: the network it is tried with; must divide the task's ``patch_size``.
        data: labelled data to run on instead; the task then has its defaults.
        labelled: the task's data, opened.
        cache: where they were prepared.
    """

    family = Task
    spec: Task
    network: ClassVar[Network] = UNet3D(size="tiny")
    data: ClassVar[Path | None] = None
    labelled: ClassVar[LabelledData]
    cache: ClassVar[Path]

    @classmethod
    def make(cls, folder: Path) -> Task:
        """The task on its example, or on the data given."""
        member: type[Task] = cls.member  # type: ignore[assignment]
        return member.example(folder / "data") if cls.data is None else member(cls.data)

    @classmethod
    def setup_class(cls) -> None:
        """Also open the data."""
        super().setup_class()
        cls.cache = cls.folder / "cache"
        cls.labelled = cls.open()

    @classmethod
    def open(cls) -> LabelledData:
        """Open the data, preparing what is missing."""
        found: LabelledData = cls.spec.labelled(cache=cls.cache, workers=0, progress=False)
        return found

    def build(self) -> Model:
        """The model on a fresh encoder."""
        torch.manual_seed(0)
        encoder = self.network.build_encoder(self.labelled.store.cases[0].channels)
        return self.spec.build(encoder, self.labelled.classes)

    def samples(self, *, seed: int = 1) -> Samples:
        """What there is to train on."""
        train = self.spec.split(self.labelled).train
        return self.spec.samples(self.labelled, train, seed=seed, batch_size=ROWS)

    def batch(self, rows: int = ROWS) -> dict[str, Tensor]:
        """The first samples as a batch."""
        samples = self.samples()
        batch: dict[str, Tensor] = default_collate([samples[number] for number in range(rows)])
        return batch

    def predictor(self) -> Predictor:
        """An untrained model as a function."""
        runtime = Runtime(Hardware(accelerator="cpu", precision="32-true"))
        return as_function(self.build().eval(), runtime)

    def test_items_lie_in_the_store(self) -> None:
        """There are five items or more, each of its own name and in the store, and two classes or more."""
        items, classes = self.labelled.items, self.labelled.classes
        promise(len(items) > 4, f"{len(items)} items; notes: {'; '.join(self.labelled.notes) or 'none'}")
        promise(len({item.item_id for item in items}) == len(items), "two items have one item_id")
        lost = [item.case_id for item in items if not self.labelled.store.has(item.case_id)]
        promise(not lost, f"{', '.join(lost[:3])} are not in the store")
        promise(len(classes) >= 2, f"classes are {classes}")
        wrong = [i.item_id for i in items if i.target is not None and not 0 <= i.target < len(classes)]
        promise(not wrong, f"the target of {', '.join(wrong[:3])} is no index into {classes}")

    def test_no_patient_is_on_two_sides_at_any_fraction(self) -> None:
        """No patient, and no scan, is on two sides, at any fraction of the labels and for any seed."""
        labelled = self.labelled
        patients = labelled.patients()
        scans = {item.item_id: labelled.store.record(item.case_id).content_hash for item in labelled.items}
        for split_seed in range(8):
            split = self.spec.replace(split_seed=split_seed).split(labelled)
            for seed, fraction in ((0, 0.1), (1, 0.34), (2, 0.5), (3, 1.0)):
                train = labelled.choose_labelled(split.train, fraction=fraction, count=None, seed=seed)
                sides = {"train": train, "validation": split.validation, "test": split.test}
                empty = [name for name, side in sides.items() if not side]
                promise(not empty, f"no item is on the side {', '.join(empty)}, with split_seed {split_seed}")
                for what, of in (("patient", patients), ("scan", scans)):
                    there = [{of[item] for item in side} for side in sides.values()]
                    alone = sum(map(len, there)) == len(set.union(*there))
                    promise(alone, f"a {what} is on two sides, with split_seed {split_seed}")

    def test_held_out_hashes_are_those_of_validation_and_test(self) -> None:
        """Scans held out of a pre-training are those of validation and test, and none of training."""
        labelled, split = self.labelled, self.spec.split(self.labelled)
        barred = self.spec.held_out_hashes(cache=self.cache)
        hashes = {item.item_id: labelled.store.record(item.case_id).hashes() for item in labelled.items}
        free = [item for item in (*split.validation, *split.test) if not hashes[item] <= barred]
        promise(not free, f"{', '.join(free[:3])} would be pre-trained on")
        lost = [item for item in split.train if hashes[item] & barred]
        promise(not lost, f"{', '.join(lost[:3])} are barred, though they are trained on")

    def test_a_second_opening_prepares_nothing(self) -> None:
        """Opened a second time, nothing is prepared again, and the items are the same."""
        before = {
            path: path.stat().st_mtime_ns
            for path in sorted(self.cache.rglob("*"))
            if path.is_file() and path.suffix != ".lock"
        }
        again = self.open()
        promise(again.items == self.labelled.items, "the items are others")
        written = [
            path.name for path, time in before.items() if not path.exists() or path.stat().st_mtime_ns != time
        ]
        promise(not written, f"{', '.join(written[:3])} was written again")

    def test_samples_depend_on_the_seed_and_the_number_alone(self) -> None:
        """A training sample is a function of the seed and its number, and another seed gives others."""
        first, again, other = (self.samples(seed=seed) for seed in (1, 1, 2))
        differs = False
        for number in (5, 0, 1):
            one, two, different = first[number], again[number], other[number]
            promise(one.keys() == two.keys(), f"sample {number} holds {list(one)}, then {list(two)}")
            for key, value in one.items():
                promise(
                    np.array_equal(value, two[key]), f"{key} of sample {number} differs, with the same seed"
                )
                differs |= not np.array_equal(value, different[key])
        promise(differs, "another seed gives the same samples")

    def test_a_batch_is_of_the_networks_size_and_trains_the_encoder(self) -> None:
        """A batch holds images in [0, 1] of patch_size, and its loss is finite and reaches the encoder."""
        batch = self.batch()
        channels = self.labelled.store.cases[0].channels
        image, expected = batch["image"], (ROWS, channels, *self.spec.patch_size)
        promise(image.shape == expected, f"images have shape {tuple(image.shape)}, not {expected}")
        low, high = float(image.min()), float(image.max())
        promise(0 <= low < high <= 1, f"values from {low:.4g} to {high:.4g}")
        changed = self.spec.augment(batch, BatchGenerator.of_step(0, rows=ROWS))
        shapes = [{key: tuple(value.shape) for key, value in one.items()} for one in (batch, changed)]
        promise(shapes[0] == shapes[1], f"augment makes {shapes[1]} of {shapes[0]}")
        module = self.build()
        losses = self.spec.loss(module, changed)
        promise("loss" in losses, f"loss() gives {', '.join(losses)}, without 'loss'")
        promise(torch.isfinite(losses["loss"]).all(), f"the loss is {losses['loss']}")
        torch.autograd.backward(losses["loss"])
        missed = [n for n, p in module.encoder.named_parameters() if p.requires_grad and p.grad is None]
        promise(not missed, f"no gradient reaches {', '.join(missed[:3])}")

    def test_augmenting_depends_on_the_generator_alone(self) -> None:
        """A batch is changed as a function of the generator, and is left alone itself."""
        batch, before = self.batch(), self.batch()
        changed = [self.spec.augment(batch, BatchGenerator.of_step(0, rows=ROWS)) for _ in range(2)]
        for key, value in before.items():
            promise(torch.equal(batch[key], value), f"{key} was changed in place")
            same = torch.equal(changed[0][key], changed[1][key])
            promise(same, f"{key} differs, with the same generator")

    def test_training_sees_every_class(self) -> None:
        """Sixteen samples hold every class, however rare it is."""
        batch = self.batch(rows=16)
        found = batch.get("label", batch.get("target"))
        if found is None or found.is_floating_point():
            raise SkipTest("it has no class indices under label or target")
        seen = set(found.flatten().tolist())
        missing = [name for index, name in enumerate(self.labelled.classes) if index not in seen]
        promise(not missing, f"{', '.join(missing)} is in none of 16 samples")

    def test_rows_are_independent_where_it_says_so(self) -> None:
        """If its rows are independent, the loss of a batch is the mean over its pieces."""
        if not self.spec.rows_are_independent:
            raise SkipTest("its rows see each other")
        module, batch = self.build().eval(), self.batch()
        with torch.no_grad():
            whole = float(self.spec.loss(module, batch)["loss"])
            pieces = list(divide_rows(batch, rows=ROWS, parts=3))
            parts = sum(
                count / ROWS * float(self.spec.loss(module, piece)["loss"]) for piece, count in pieces
            )
        promise(
            abs(parts - whole) <= 1e-4 * abs(whole), f"{whole:.6g} for the batch, {parts:.6g} for its pieces"
        )

    def test_examination_measures_every_item(self) -> None:
        """Every item that is asked for is measured, and the metric that chooses the best step is a number."""
        asked: Sequence[str] = self.spec.split(self.labelled).test
        for thorough in (False, True):
            found = self.spec.examine(self.predictor(), self.labelled, asked, thorough=thorough)
            measured = {row["case"] for row in found.per_item}
            promise(measured == set(asked), f"{len(measured)} of {len(asked)} items are measured")
            value = found.metrics.get(self.spec.monitor, math.nan)
            promise(math.isfinite(value), f"{self.spec.monitor} is {value}, thorough={thorough}")

    def test_what_can_not_be_judged_has_a_loss(self) -> None:
        """Items on which the metric is undefined, as the task says, have a loss to choose by instead."""
        test = self.spec.split(self.labelled).test
        asked = next(([item] for item in test if not self.spec.can_judge(self.labelled, [item])), None)
        if asked is None:
            raise SkipTest("it can judge every item by itself")
        found = self.spec.examine(self.predictor(), self.labelled, asked, thorough=False).metrics
        promise(math.isfinite(found.get("loss", math.nan)), f"examine gives {found}, without a finite loss")

    def test_an_item_can_be_looked_at(self) -> None:
        """An item has an image, a reference and a prediction on the same voxels, or nothing to draw."""
        item = self.spec.split(self.labelled).test[0]
        shown = self.spec.show(self.predictor(), self.labelled, item)
        if shown is None:
            raise SkipTest("there is nothing to draw")
        shapes = {shown.image.shape, shown.reference.shape, shown.prediction.shape}
        promise(len(shapes) == 1, f"shapes are {shapes}")
