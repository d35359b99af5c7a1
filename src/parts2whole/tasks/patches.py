"""Training patches of segmentation: boxes of stored volumes, with their labels as class indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from parts2whole.scans.volume import Box, Size
from parts2whole.tasks.base import Samples
from parts2whole.tasks.labelled import LabelledData, TaskError
from parts2whole.wholes.geometry import to_size
from parts2whole.wholes.random import sample_generator

LOCATIONS_PER_CLASS = 1000
LARGEST_SHIFT = 0.125
"""A patch around a lesion is moved by up to this share of its size."""

ToClasses = Callable[[npt.NDArray[Any], Sequence[str]], npt.NDArray[np.int64]]


class Patches(Samples):
    """Random patches; a share of them centred on a foreground voxel of a random class.

    Items with a centre give patches around it, moved a little.
    """

    def __init__(
        self,
        labelled: LabelledData,
        items: Sequence[str],
        *,
        cut_size: Size,
        patch_size: Size,
        foreground_share: float,
        to_classes: ToClasses,
        seed: int,
        batch_size: int,
    ) -> None:
        super().__init__(items, seed=seed, batch_size=batch_size)
        self.labelled = labelled
        self.cut_size, self.patch_size = cut_size, patch_size
        self.foreground_share = foreground_share
        self.to_classes = to_classes
        whole = [item for item in items if labelled.item(item).centre is None]
        self.locations = {item: self._locate(item) for item in whole}
        found = {index for places in self.locations.values() for index in places}
        for item in whole:  # what resampling has lost can't be learned, which a note says; it is tested
            lost = labelled.store.record(labelled.item(item).case_id).labels_lost
            found |= set(to_classes(np.array(lost, int), labelled.classes).tolist())
        absent = [name for index, name in enumerate(labelled.classes) if index and index not in found]
        if absent and whole:
            raise TaskError(
                f"class {', '.join(absent)} is absent from all {len(items)} training cases: "
                "raise the fraction, or choose another seed or split_seed"
            )

    def draw(self, item_id: str, generator: np.random.Generator) -> dict[str, Any]:
        """``image`` (C, D, H, W) in [0, 1] and ``label`` (1, D, H, W) class indices, or `IGNORED`."""
        store, item = self.labelled.store, self.labelled.item(item_id)
        box = self._draw_box(item_id, generator)
        image = store.read_unit(item.case_id, box)
        label = self.to_classes(store.read_label(item.case_id, box), self.labelled.classes)
        if self.cut_size == self.patch_size:
            return {"image": image, "label": label[None]}
        fitted = to_size(torch.from_numpy(image), self.patch_size)
        nearest = F.interpolate(
            torch.from_numpy(label)[None, None].float(), self.patch_size, mode="nearest-exact"
        )
        return {"image": fitted, "label": nearest[0].long()}

    def _draw_box(self, item_id: str, generator: np.random.Generator) -> Box:
        item, size = self.labelled.item(item_id), self.cut_size
        if item.centre is not None:
            shift = generator.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 3) * size
            return Box.around(np.asarray(item.centre) + shift, size)
        shape = self.labelled.store.record(item.case_id).shape
        places = self.locations[item_id]
        if places and generator.random() < self.foreground_share:
            indices = sorted(places)
            chosen = places[indices[int(generator.integers(len(indices)))]]
            centre = chosen[int(generator.integers(len(chosen)))]
            start = [
                int(np.clip(c - s // 2, min(0, e - s), max(0, e - s)))
                for c, s, e in zip(centre, size, shape, strict=True)
            ]
        else:
            start = [
                int(generator.integers(min(0, e - s), max(0, e - s) + 1))
                for s, e in zip(size, shape, strict=True)
            ]
        return Box((start[0], start[1], start[2]), size)

    def _locate(self, item: str) -> dict[int, npt.NDArray[np.int64]]:
        """Some voxels of every foreground class of a case."""
        label = self.labelled.store.read_label(self.labelled.item(item).case_id)
        indices = self.to_classes(label, self.labelled.classes)
        found = {}
        for index, name in enumerate(self.labelled.classes):
            places = np.argwhere(indices == index) if index else ()
            if len(places):
                keep = min(LOCATIONS_PER_CLASS, len(places))
                generator = sample_generator("locations", item, name)
                found[index] = np.asarray(places)[generator.choice(len(places), keep, replace=False)]
        return found
