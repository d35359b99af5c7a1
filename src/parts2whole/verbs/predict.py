"""Apply a fine-tuned model to new scans: masks on the voxels of the input files, or class probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from parts2whole.data.preprocess import PreprocessError, onto_grid, prepare_volume
from parts2whole.data.read import ReadError, ScanSource, find_scans, read_scan, write_label_like
from parts2whole.data.volume import LabelVolume, Volume, VolumeError, to_canonical
from parts2whole.tasks.base import Run
from parts2whole.tasks.classifying import ClassificationTask
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.training.folder import write_rows
from parts2whole.training.model import ModelCard, as_function, load_model
from parts2whole.training.runtime import Hardware, Runtime


class PredictError(ValueError):
    """Scans or an out folder that can't be used."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What was written, and what could not be read.

    Attributes:
        folder: where the predictions are.
        written: one mask a scan, or one CSV.
        set_aside: reason for every scan that could not be used.
    """

    folder: Path
    written: tuple[Path, ...]
    set_aside: dict[str, str]

    def summary(self) -> str:
        """One line, and one for every scan set aside."""
        lines = [
            f"{len(self.written)} {'file' if len(self.written) == 1 else 'files'} written to {self.folder}"
        ]
        return "\n".join([*lines, *(f"  set aside: {name}: {why}" for name, why in self.set_aside.items())])


def predict(
    run: str | Path,
    scans: Sequence[str | Path],
    *,
    out: str | Path,
    hardware: Hardware = Hardware(),
    progress: bool = True,
) -> Predictions:
    """Predict for new scans with the model of a fine-tuning run.

    Segmentation writes one NIfTI mask a scan, with the label values of the training data, on exactly the
    voxels of the input file.  Classification writes ``probabilities.csv``.

    Args:
        run: folder of a finished `finetune`.
        scans: files, folders or globs; a list of several channels isn't possible here, see below.
        out: folder to write to; existing files of the same name are refused.
        hardware: device and precision; one device is used.
        progress: show a progress bar.

    Returns:
        The files written, and the scans set aside with their reasons.

    Raises:
        PredictError: no scan could be read, or files would be overwritten.
        parts2whole.training.model.ModelError: ``run`` holds no finished model.
    """
    module, card = load_model(Path(run))
    runtime = Runtime(hardware.replace(devices=1, nodes=1))
    model = as_function(runtime.place_module(module), runtime)
    sources = find_scans(list(scans))
    if not sources:
        raise PredictError(f"no scans found in {', '.join(map(str, scans))}")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    rows: list[dict[str, Any]] = []
    set_aside: dict[str, str] = {}
    for source in track(sources, "Predicting", disable=not progress):
        try:
            scan = read_scan(source)
            image = _network_input(scan, card)
            if isinstance(card.task, SegmentationTask):
                mask = _segment(card.task, model, image, scan, card)
                written.append(_write_mask(source, scan, mask, folder))
            elif isinstance(card.task, ClassificationTask):
                rows.append({"scan": source.case_id} | _classify(card.task, model, image, card))
        except (ReadError, VolumeError, PreprocessError, PredictError) as error:
            set_aside[source.case_id] = str(error)
    if rows:
        written.append(write_rows(folder / "probabilities.csv", rows))
    if not written:
        raise PredictError("no scan could be used. " + "; ".join(f"{n}: {w}" for n, w in set_aside.items()))
    return Predictions(folder, tuple(written), set_aside)


@dataclasses.dataclass(frozen=True)
class _Input:
    """A prepared scan: what the network sees, and where its voxels lie."""

    image: torch.Tensor
    volume: Volume


def _network_input(scan: Volume, card: ModelCard) -> _Input:
    volume = prepare_volume(scan, card.preprocess).volume
    channels = volume.array.reshape(-1, *volume.shape)
    if len(channels) != card.in_channels:
        raise PredictError(f"the model expects {card.in_channels} channels, the scan has {len(channels)}")
    return _Input(torch.from_numpy(np.ascontiguousarray(channels)), volume)


def _segment(task: SegmentationTask, model: Run, image: _Input, scan: Volume, card: ModelCard) -> LabelVolume:
    """The mask in label values, on the scan's canonical grid."""
    classes = task.segment(model, image.image[None])
    values = np.array([int(name) for name in card.classes])
    kind = np.uint8 if values.max() < 256 else np.int32
    where = dataclasses.asdict(image.volume)
    mask = LabelVolume(
        values[classes].astype(kind), where["spacing_mm"], where["origin_mm"], where["direction"]
    )
    return onto_grid(mask, to_canonical(scan))


def _write_mask(source: ScanSource, scan: Volume, mask: LabelVolume, folder: Path) -> Path:
    path = folder / f"{source.case_id}.nii.gz"
    if path.exists():
        raise PredictError(f"{path} exists already; choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_label_like(source, mask.array, path)
    return path


def _classify(task: ClassificationTask, model: Run, image: _Input, card: ModelCard) -> dict[str, float]:
    logits = model(task.fit_input(image.image)[None])
    probabilities = torch.softmax(logits.float(), dim=1)[0]
    return {f"p_{name}": float(p) for name, p in zip(card.classes, probabilities, strict=True)}
