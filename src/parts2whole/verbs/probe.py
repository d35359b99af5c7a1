"""Probe frozen features with labels: a pre-trained encoder beside the same network untrained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from parts2whole.errors import Parts2WholeError, plural
from parts2whole.evaluation.probes import (
    fit_voxel_probes,
    knn_probe,
    linear_probe,
    score_voxel_probes,
    upsampled_pyramid,
)
from parts2whole.files import write_json
from parts2whole.networks.base import Encoder, Network
from parts2whole.progress import Bar, watch
from parts2whole.tasks.base import Task
from parts2whole.tasks.classifying import ClassificationTask
from parts2whole.tasks.labelled import LabelledData
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.training.encode import AT_ONCE, embed_images, read_features, settle_norms
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.training.transfer import Transfer, open_transfer
from parts2whole.verbs import paste, words
from parts2whole.weights.load import SCRATCH

Row = dict[str, Any]
Items = tuple[str, ...]
Floats = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]

UNTRAINED = "untrained"
SETTLE_ON = 20
PENALTIES = (1.0, 0.1, 0.03, 0.01)
"""Inverse strengths of the L2 penalty that are tried; which is best differs between encoders."""


class ProbeError(Parts2WholeError, ValueError):
    """A task or settings that can't be probed."""


@dataclasses.dataclass(frozen=True)
class Probed:
    """Rows of ``encoder``, ``probe``, ``seed`` and metrics, and what may come next, in lines."""

    rows: tuple[Row, ...]
    next: tuple[str, ...] = ()

    def summary(self) -> str:
        """Mean and standard deviation over seeds of the main metric, and what is gained over untrained."""
        lines = []
        encoders = dict.fromkeys(row["encoder"] for row in self.rows)
        width = max(map(len, encoders))
        for probe in dict.fromkeys(row["probe"] for row in self.rows):
            of_probe = [row for row in self.rows if row["probe"] == probe]
            metric = "iou_mean" if "iou_mean" in of_probe[0] else "auc"
            found = {e: {r["seed"]: r[metric] for r in of_probe if r["encoder"] == e} for e in encoders}
            lines += [
                f"{probe:<12} {name:<{width}} {metric} {_spread(list(values.values()))}"
                for name, values in found.items()
            ]
            trained = found.keys() - {UNTRAINED}
            if found.get(UNTRAINED) and trained:
                fresh, mine = found[UNTRAINED], found[trained.pop()]
                gains = [mine[seed] - fresh[seed] for seed in fresh]
                lines.append(f"{probe:<12} {'above it':<{width}} {metric} {_spread(gains, sign='+')}")
        lines += dict.fromkeys(str(row["leak"]) for row in self.rows if "leak" in row)
        if encoders.keys() == {UNTRAINED}:
            lines.append("An untrained network: what its architecture alone gives.")
        return "\n".join([*lines, *self.next])


def _spread(values: list[float], sign: str = "") -> str:
    """Mean, standard deviation and number of seeds."""
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.4f}{spread} ({plural(len(values), 'seed')})"


def probe(
    task: Task,
    *,
    init: str | Path,
    network: Network | None = None,
    network_from: str | Path | None = None,
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

    Beside weights stands the same network untrained, on the same labels: what is above it was learned.  Its
    weights are those of seed 0; in a segmentation, whose probes cost more, that is the only one measured.

    Args:
        task: the target task.
        init: a pre-training run folder, a weights folder, ``hf:OWNER/NAME[@REVISION]`` on a hub or
            ``SOURCE:PATH`` of published weights, or ``scratch`` for the untrained network.
        network: the untrained network, where ``init`` is ``scratch``; default ``UNet3D()``.
        network_from: of the untrained network, the run or the weights whose network it is.
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
        ProbeError: a kind of task that can't be probed, or a side without cases.
        parts2whole.training.leak.LeakError: validation or test cases were seen in pre-training.
        parts2whole.training.transfer.TransferError: weights that don't fit the data.
        parts2whole.weights.native.WeightsError: ``init`` names no usable weights.
    """
    if seeds < 1:
        raise ProbeError(f"seeds must be 1 or more, got {seeds}")
    if not isinstance(task, ClassificationTask | SegmentationTask):
        raise ProbeError(f"{type(task).__name__} is neither a segmentation nor a classification")
    transfer = open_transfer(
        task,
        init,
        network=network,
        network_from=network_from,
        reported=("validation", side),
        accept_leak=accept_leak,
        cache=cache,
        progress=progress,
    )
    labelled, validation = transfer.labelled, transfer.split.validation
    tested = validation if side == "validation" else transfer.split.test
    if not tested:
        raise ProbeError(f"{task.data} has no {side} cases by the split of {type(task).__name__}")
    notes = list(transfer.notes)
    if not task.can_judge(labelled, validation):
        notes.append("nothing can be judged on the validation items: the strongest penalty is taken")
    for note in notes if progress else ():
        print(f"Note: {note}.", flush=True)
    name = transfer.start.card.method["class_path"] if transfer.start else UNTRAINED
    name = str(name).rpartition(".")[2]
    leak = {"leak": transfer.mark} if transfer.mark else {}
    runtime = Runtime(Hardware(devices=1, nodes=1, precision="32-true"))
    if progress:
        told = plural(len(labelled.store.cases), "scan"), plural(seeds, "seed")
        module, network = transfer.build_encoder(0), transfer.network
        line = words.describe_work(f"Probe of {init}", *told, network=network, module=module, runtime=runtime)
        print(line, flush=True)
    known: dict[str, Floats] = {}
    rows: list[Row] = []

    def freeze(start: Transfer, train: Items, known: dict[str, Floats], *, seed: int) -> _Frozen:
        encoder = runtime.place_module(start.build_encoder(seed))
        if not start.start:
            known.clear()  # another seed, another network
            shown = (task.image(labelled, item)[None] for item in train[:SETTLE_ON])
            settle_norms(encoder, shown, runtime, upsampled_pyramid)
        return _Frozen(encoder, labelled, runtime, known)

    def measure(frozen: _Frozen, train: Items, seed: int) -> list[Row]:
        if isinstance(task, SegmentationTask):
            return frozen.probe_voxels(task, train, validation, tested, seed=seed)
        return frozen.probe_items(task, train, validation, tested)

    fresh: _Frozen | None = None
    with Bar("Probing", total=seeds, show=progress) as bar:
        for seed in range(seeds):
            train = transfer.choose_labels(fraction=fraction, cases=cases, seed=seed)
            about = {"encoder": name, "init": str(init), "seed": seed, "labelled": len(train), "side": side}
            with bar.below(name):
                found = measure(freeze(transfer, train, known, seed=seed), train, seed)
            rows += [about | leak | row for row in found]
            if transfer.start and (seed == 0 or not isinstance(task, SegmentationTask)):
                about |= {"encoder": UNTRAINED, "init": SCRATCH}
                with bar.below(UNTRAINED):
                    fresh = fresh or freeze(transfer.untrained(), train, {}, seed=seed)
                    rows += [about | row for row in measure(fresh, train, seed)]
            bar.update(seed + 1)
    if out is not None:
        write_json(Path(out), rows)
    arm = {"network_from": network_from} if not transfer.start and network_from else {}
    start = Path(init) if Path(init).is_dir() else Path(UNTRAINED)
    tuned = paste.unused(start.with_name(f"{start.name}-finetuned"))
    typed = paste.command("finetune", task=task, init=init, **arm, out=tuned)
    return Probed(tuple(rows), tuple(paste.next_step("fine-tune it on these labels", typed)))


def _best_penalty(figures: Mapping[float, float]) -> float:
    """The penalty with the highest figure; where none is defined, the strongest one."""
    defined = {penalty: figure for penalty, figure in figures.items() if math.isfinite(figure)}
    return max(defined, key=lambda penalty: defined[penalty]) if defined else min(figures)


@dataclasses.dataclass(frozen=True)
class _Frozen:
    """An encoder whose features are read, once an item.

    Attributes:
        encoder: on the device.
        labelled: the data.
        runtime: device and precision.
        known: the pooled features (channels,) of items that were embedded before.
    """

    encoder: Encoder
    labelled: LabelledData
    runtime: Runtime
    known: dict[str, Floats]

    def probe_voxels(
        self, task: SegmentationTask, train: Items, validation: Items, tested: Items, *, seed: int
    ) -> list[Row]:
        """Fit with every penalty, keep the one that is best on validation items, measure it on ``tested``."""
        names = self.labelled.classes
        models = fit_voxel_probes(self._voxels(task, train), PENALTIES, seed=seed)
        found = score_voxel_probes(models, self._voxels(task, validation), classes=names)
        best = _best_penalty({penalty: found[penalty]["iou_mean"] for penalty in PENALTIES})
        if tested != validation:
            found = score_voxel_probes({best: models[best]}, self._voxels(task, tested), classes=names)
        return [{"probe": "voxel linear", "penalty": best} | found[best]]

    def probe_items(
        self, task: ClassificationTask, train: Items, validation: Items, tested: Items
    ) -> list[Row]:
        """As `probe_voxels`, of whole items, and k-NN beside it."""
        (x, y), chosen, measured = (self._pooled(task, items) for items in (train, validation, tested))
        best = _best_penalty({C: linear_probe(x, y, *chosen, C=C)["auc"] for C in PENALTIES})
        return [
            {"probe": "linear", "penalty": best} | linear_probe(x, y, *measured, C=best),
            {"probe": "k-NN"} | knn_probe(x, y, *measured, k=min(10, len(x))),
        ]

    def _voxels(self, task: SegmentationTask, items: Items) -> Iterator[tuple[Tensor, Targets]]:
        """Features (F, D, H, W) and class indices (D, H, W) of every item, one after the other."""
        images = (task.image(self.labelled, item)[None] for item in watch(items, len(items)))
        references = (task.reference(self.labelled, item) for item in items)
        return zip(
            read_features(self.encoder, images, self.runtime, upsampled_pyramid), references, strict=True
        )

    def _pooled(self, task: ClassificationTask, items: Items) -> tuple[Floats, Targets]:
        """Features (items, channels) and class indices (items,)."""
        missing = [item for item in dict.fromkeys(items) if item not in self.known]
        batches = (
            torch.stack([task.image(self.labelled, item) for item in missing[first : first + AT_ONCE]])
            for first in range(0, len(missing), AT_ONCE)
        )
        if missing:
            self.known.update(
                zip(missing, embed_images(self.encoder, batches, self.runtime).numpy(), strict=True)
            )
        targets = np.array([self.labelled.item(item).target for item in items], dtype=np.int64)
        return np.stack([self.known[item] for item in items]), targets
