"""Every target task, now and later: found by listing the folder, held to the same promises."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from parts2whole.networks.unet3d import UNet3D
from parts2whole.spec import discover, spec_from_yaml
from parts2whole.store.split import labelled_subset
from parts2whole.tasks.base import LabelledData, Task
from parts2whole.training.model import as_function
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.wholes.random import BatchGenerator
from task_trees import PATCH, build_task

TASKS = discover(Task, "parts2whole.tasks")


@dataclasses.dataclass
class Opened:
    task: Task
    labelled: LabelledData
    cache: object


@pytest.fixture(scope="module", params=sorted(TASKS))
def opened(request, tmp_path_factory) -> Opened:
    folder = tmp_path_factory.mktemp(request.param)
    task = build_task(request.param, folder / "data")
    return Opened(task, task.labelled(cache=folder / "cache", workers=0, progress=False), folder / "cache")


def build(opened: Opened) -> torch.nn.Module:
    torch.manual_seed(0)
    channels = opened.labelled.store.cases[0].channels
    return opened.task.build(UNet3D(size="tiny").build_encoder(channels), opened.labelled.classes)


def batch_of(opened: Opened, items, rows: int = 4) -> dict[str, torch.Tensor]:
    samples = opened.task.samples(opened.labelled, items, seed=1, batch_size=rows)
    return default_collate([samples[i] for i in range(rows)])


def test_is_a_frozen_spec_that_reads_back(opened):
    assert spec_from_yaml(opened.task.to_yaml(), Task) == opened.task
    with pytest.raises(AttributeError):
        opened.task.split_seed = 3


def test_items_lie_in_the_store(opened):
    labelled = opened.labelled
    assert len(labelled.items) == len({item.item_id for item in labelled.items}) > 4
    assert all(labelled.store.has(item.case_id) for item in labelled.items)
    assert len(labelled.classes) >= 2


@pytest.mark.parametrize("split_seed", range(8))
def test_no_patient_is_on_two_sides_at_any_fraction(opened, split_seed):
    labelled = opened.labelled
    split = opened.task.replace(split_seed=split_seed).split(labelled)
    patients = labelled.patients()
    scans = {item.item_id: labelled.store.record(item.case_id).content_hash for item in labelled.items}
    for seed, fraction in ((0, 0.1), (1, 0.34), (2, 0.5), (3, 1.0)):
        train = labelled_subset(split.train, patients, fraction=fraction, seed=seed, strata=labelled.strata())
        assert train
        assert split.validation
        assert split.test
        for of in (patients, scans):
            sides = [{of[item] for item in side} for side in (train, split.validation, split.test)]
            assert sum(map(len, sides)) == len(set.union(*sides))


def test_held_out_hashes_are_those_of_validation_and_test(opened):
    labelled, split = opened.labelled, opened.task.split(opened.labelled)
    barred = opened.task.held_out_hashes(cache=opened.cache)
    hashes = {i.item_id: labelled.store.record(i.case_id).hashes() for i in labelled.items}
    assert all(hashes[item] <= barred for item in (*split.validation, *split.test))
    assert all(not hashes[item] & barred for item in split.train)


def test_a_second_opening_prepares_nothing(opened):
    before = {path: path.stat().st_mtime_ns for path in sorted(opened.cache.rglob("*")) if path.is_file()}
    again = opened.task.labelled(cache=opened.cache, workers=0, progress=False)
    assert again.items == opened.labelled.items
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_samples_depend_on_the_seed_and_the_number_alone(opened):
    items = opened.task.split(opened.labelled).train
    first, again, other = (
        opened.task.samples(opened.labelled, items, seed=seed, batch_size=2) for seed in (1, 1, 2)
    )
    differs = False
    for number in (5, 0, 1):
        one, two = first[number], again[number]
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[key], two[key]) for key in one)
        differs |= not np.array_equal(one["image"], other[number]["image"])
    assert differs


def test_a_batch_is_of_the_networks_size_and_trains_the_encoder(opened):
    batch = batch_of(opened, opened.task.split(opened.labelled).train)
    channels = opened.labelled.store.cases[0].channels
    assert batch["image"].shape == (4, channels, *PATCH)
    assert 0 <= float(batch["image"].min()) < float(batch["image"].max()) <= 1
    changed = opened.task.augment(batch, BatchGenerator.of_step(0, rows=4))
    assert {key: value.shape for key, value in changed.items()} == {k: v.shape for k, v in batch.items()}
    module = build(opened)
    loss = opened.task.loss(module, changed)["loss"]
    assert torch.isfinite(loss)
    loss.backward()
    assert all(p.grad is not None for p in module.encoder.parameters())


def test_training_sees_the_rare_class(opened):
    batch = batch_of(opened, opened.task.split(opened.labelled).train, rows=16)
    found = batch["label"] if "label" in batch else batch["target"]
    assert set(found.unique().tolist()) == set(range(len(opened.labelled.classes)))


@pytest.mark.parametrize("thorough", [False, True])
def test_examination_measures_every_item(opened, thorough):
    split = opened.task.split(opened.labelled)
    run = as_function(build(opened).eval(), Runtime(Hardware(accelerator="cpu", precision="32-true")))
    found = opened.task.examine(run, opened.labelled, split.test, thorough=thorough)
    assert {row["case"] for row in found.per_item} == set(split.test)
    assert math.isfinite(found.metrics[opened.task.monitor])
    shown = opened.task.show(run, opened.labelled, split.test[0])
    assert shown is None or shown.image.shape == shown.reference.shape == shown.prediction.shape
