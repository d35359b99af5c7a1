"""Probe frozen features with labels: a pre-trained encoder beside the same network untrained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from parts2whole.errors import Parts2WholeError
from parts2whole.evaluation.probes import (
    fit_voxel_probes,
    knn_probe,
    linear_probe,
    score_voxel_probes,
    upsampled_pyramid,
)
from parts2whole.files import write_json
from parts2whole.networks.base import Encoder, Network
from parts2whole.networks.heads import pooled_features
from parts2whole.networks.unet3d import UNet3D
from parts2whole.tasks.base import LabelledData, Task, default_cache
from parts2whole.tasks.classifying import ClassificationTask
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.training.leak import check_leaks, find_leaks
from parts2whole.weights.load import SCRATCH, load_initialisation

Row = dict[str, Any]

Items = tuple[str, ...]

Floats = npt.NDArray[np.float32]

SETTLE_ON = 20
EMBEDDED_AT_ONCE = 16
PENALTIES = (1.0, 0.1, 0.03, 0.01)
"""Inverse strengths of the L2 penalty that are tried; which is best differs between encoders."""


class ProbeError(Parts2WholeError, ValueError):
    """A task or settings that can't be probed."""


@dataclasses.dataclass(frozen=True)
class Probed:
    """Rows of ``encoder``, ``probe``, ``seed`` and metrics."""

    rows: tuple[Row, ...]

    def summary(self) -> str:
        """Mean and standard deviation over seeds of the main metric."""
        lines = []
        for encoder in dict.fromkeys(row["encoder"] for row in self.rows):
            for probe in dict.fromkeys(row["probe"] for row in self.rows):
                mine = [row for row in self.rows if (row["encoder"], row["probe"]) == (encoder, probe)]
                metric = "iou_mean" if "iou_mean" in mine[0] else "auc"
                leaked = ", " + str(mine[0]["leak"]) if "leak" in mine[0] else ""
                values = np.array([row[metric] for row in mine])
                spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
                score = f"{metric} {values.mean():.4f}{spread}"
                lines.append(f"{encoder:<12} {probe:<12} {score} ({len(values)} seeds){leaked}")
        return "\n".join(lines)


def probe(
    task: Task,
    *,
    init: str | Path,
    network: Network | None = None,
    fraction: float = 1.0,
    cases: int | None = None,
    seeds: int = 3,
    side: Literal["validation", "test"] = "validation",
    out: str | Path | None = None,
    accept_leak: str | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Probed:
    """Fit linear probes (and k-NN, for classification) on frozen features.

    Args:
        task: the target task.
        init: a pre-training run folder, a weights folder or ``SOURCE:PATH`` of published weights, or
            ``scratch`` for the untrained network.
        network: the untrained network, where ``init`` is ``scratch``; default ``UNet3D()``.
        fraction: share of the training patients whose labels are used.
        cases: number of training patients instead of a fraction.
        seeds: repetitions, each with other labelled patients.
        side: where to measure; choose settings on ``validation``. The strength of the L2 penalty is chosen
            on validation items in any case, for every encoder anew.
        out: JSON file for the rows.
        accept_leak: a sentence, which the error names, to go on although validation or test cases were
            seen in pre-training; the rows are then marked.
        cache: where prepared labelled data are kept; default ``~/.cache/parts2whole``.
        progress: say what is being done.

    Returns:
        One row for every probe and seed.

    Raises:
        ProbeError: a kind of task that can't be probed.
        parts2whole.training.leak.LeakError: validation or test cases were seen in pre-training.
        parts2whole.weights.native.WeightsError: ``init`` names no usable weights.
    """
    labelled = task.labelled(cache=Path(cache) if cache else default_cache(), progress=progress)
    start = load_initialisation(init)
    channels = labelled.store.cases[0].channels
    start = start.adapt(channels) if start else None
    if start and start.card.in_channels != channels:
        raise ProbeError(
            f"the weights expect {start.card.in_channels} input channels, the data have {channels}"
        )
    split = task.split(labelled)
    tested = split.validation if side == "validation" else split.test
    judged = dict.fromkeys((*split.validation, *tested))
    leaks = (
        find_leaks(labelled, tuple(judged), seen=start.card.seen, series=start.card.series) if start else ()
    )
    leak = check_leaks(leaks, accept_leak=accept_leak, where="validation or test")
    rows: list[Row] = []
    embedded: dict[str, Floats] = {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        encoder = start.encoder if start else (network or UNet3D()).build_encoder(channels)
        if start is None:
            embedded.clear()  # another seed, another network
        train = labelled.choose_labelled(split.train, fraction=fraction, count=cases, seed=seed)
        if start is None:
            _settle_norms(encoder, [_image(labelled, item, task) for item in train[:SETTLE_ON]])
        name = "untrained" if start is None else str(start.card.method["class_path"]).rpartition(".")[2]
        for row in _probe_once(task, encoder, labelled, train, split.validation, tested, seed, embedded):
            about = {"encoder": name, "init": str(init), "seed": seed, "labelled": len(train), "side": side}
            rows.append(about | ({"leak": leak} if leak else {}) | row)
    if out is not None:
        path = Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, rows)
    if str(init) == SCRATCH and progress:
        print("An untrained network: what its architecture alone gives.")
    return Probed(tuple(rows))


def _probe_once(
    task: Task,
    encoder: Encoder,
    labelled: LabelledData,
    train: Items,
    validation: Items,
    tested: Items,
    seed: int,
    embedded: dict[str, Floats],
) -> list[Row]:
    """Fit with every penalty, keep the one that is best on validation items, and measure it on ``tested``."""
    encoder.eval()
    if isinstance(task, SegmentationTask):

        def voxels(items: Items) -> Iterator[tuple[Tensor, npt.NDArray[np.int64]]]:
            return (_voxel_features(encoder, labelled, item, task) for item in items)

        models = fit_voxel_probes(voxels(train), PENALTIES, seed=seed)
        found = score_voxel_probes(models, voxels(validation))
        best = max(PENALTIES, key=lambda penalty: found[penalty]["iou_mean"])
        if tested != validation:
            found = score_voxel_probes({best: models[best]}, voxels(tested))
        return [{"probe": "voxel linear", "penalty": best} | found[best]]
    if isinstance(task, ClassificationTask):
        _embed(encoder, labelled, (*train, *validation, *tested), task, embedded)
        (x, y), chosen, measured = (
            (np.stack([embedded[item] for item in items]), _targets(labelled, items))
            for items in (train, validation, tested)
        )
        best = max(PENALTIES, key=lambda penalty: linear_probe(x, y, *chosen, C=penalty)["auc"])
        return [
            {"probe": "linear", "penalty": best} | linear_probe(x, y, *measured, C=best),
            {"probe": "k-NN"} | knn_probe(x, y, *measured, k=min(10, len(x))),
        ]
    raise ProbeError(f"{type(task).__name__} is neither a segmentation nor a classification")


def _targets(labelled: LabelledData, items: Items) -> npt.NDArray[np.int64]:
    return np.array([labelled.item(item).target for item in items], dtype=np.int64)


@torch.no_grad()
def _settle_norms(encoder: Encoder, images: list[Tensor]) -> None:
    """Let an untrained encoder's batch norms see data once, instead of made-up statistics."""
    encoder.train()
    for image in images:
        upsampled_pyramid(encoder, image)
    encoder.eval()


def _image(labelled: LabelledData, item: str, task: Task) -> Tensor:
    """What the encoder is given for an item: (1, C, D, H, W)."""
    if isinstance(task, ClassificationTask | SegmentationTask):
        return task.image(labelled, item)[None]
    raise ProbeError(f"{type(task).__name__} is neither a segmentation nor a classification")


def _voxel_features(
    encoder: Encoder, labelled: LabelledData, item: str, task: SegmentationTask
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Features (F, D, H, W) and class indices (D, H, W) of an item."""
    return upsampled_pyramid(encoder, _image(labelled, item, task)), task.reference(labelled, item)


@torch.no_grad()
def _embed(
    encoder: Encoder, labelled: LabelledData, items: Items, task: ClassificationTask, known: dict[str, Floats]
) -> None:
    """Add the global average of the deepest map, (channels,), of every item that isn't known yet."""
    missing = [item for item in dict.fromkeys(items) if item not in known]
    for first in range(0, len(missing), EMBEDDED_AT_ONCE):
        batch = missing[first : first + EMBEDDED_AT_ONCE]
        images = torch.cat([_image(labelled, item, task) for item in batch])
        known |= zip(batch, pooled_features(encoder, images).float().numpy(), strict=True)
