"""Apply a fine-tuned model to new scans: masks on the voxels of the input files, or class probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track

from parts2whole.errors import Parts2WholeError
from parts2whole.files import write_rows
from parts2whole.scans.case import IngestError, SourceCase, read_channels
from parts2whole.scans.preprocess import PreprocessError, onto_grid, prepare_volume
from parts2whole.scans.read import ReadError, strip_suffix, write_label_like
from parts2whole.scans.volume import Box, LabelVolume, Volume, VolumeError, to_canonical
from parts2whole.tasks.base import Predictor
from parts2whole.tasks.candidates import (
    CLASSES,
    POINT_COLUMNS,
    CandidateTask,
    is_inside,
    read_points,
    to_voxels,
)
from parts2whole.tasks.classifying import ClassificationTask
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.training.model import ModelCard, as_function, load_model
from parts2whole.training.runtime import Hardware, Runtime

Points = npt.NDArray[np.float64]
"""Places (n, 3) in voxels (z, y, x)."""


class PredictError(Parts2WholeError, ValueError):
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
    points: str | Path | None = None,
    hardware: Hardware = Hardware(),
    progress: bool = True,
) -> Predictions:
    """Predict for new scans with the model of a fine-tuning run.

    Segmentation writes one NIfTI mask a scan, with the label values of the training data, on exactly the
    voxels of the input file.  Classification writes ``probabilities.csv``, for a task of candidates with one
    row a point.

    Args:
        run: folder of a finished `finetune`.
        scans: files, folders or globs; for a task of several channels, its case folders.
        out: folder to write to; existing files of the same name are refused.
        points: a CSV with ``seriesuid,coordX,coordY,coordZ``: LPS positions in mm, as in LUNA16, in scans
            named by file name without suffix or by series UID.  Candidates are classified there, and a
            segmentation looks only into the crops around them.
        hardware: device and precision; one device is used.
        progress: show a progress bar.

    Returns:
        The files written, and the scans set aside with their reasons.

    Raises:
        PredictError: no scan could be read, files would be overwritten, or a task of candidates has none.
        parts2whole.training.model.ModelError: ``run`` holds no finished model.
    """
    module, card = load_model(Path(run))
    runtime = Runtime(hardware.replace(devices=1, nodes=1))
    model = as_function(runtime.place_module(module), runtime)
    cases = card.task.find_inputs(scans)
    if not cases:
        raise PredictError(f"no scans found in {', '.join(map(str, scans))}")
    named = None if points is None else _read_points(Path(points))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    rows: list[dict[str, Any]] = []
    set_aside: dict[str, str] = {}
    for case in track(cases, "Predicting", disable=not progress):
        try:
            scan = read_channels(case)
            image = _network_input(scan, card)
            where = None if named is None else _voxels(named, case, image.volume)
            if isinstance(card.task, SegmentationTask):
                mask = _segment(card.task, model, image, scan, card, where)
                written.append(_write_mask(case, mask, folder))
            elif isinstance(card.task, CandidateTask) and card.classes == CLASSES:
                rows += _candidates(card.task, model, image, card, where, case)
            elif isinstance(card.task, ClassificationTask):
                rows.append({"scan": case.case_id} | _classify(card.task, model, image, card))
        except (ReadError, IngestError, VolumeError, PreprocessError, PredictError) as error:
            set_aside[case.case_id] = str(error)
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


def _segment(
    task: SegmentationTask,
    model: Predictor,
    image: _Input,
    scan: Volume,
    card: ModelCard,
    where: Points | None,
) -> LabelVolume:
    """The mask in label values, on the scan's canonical grid."""
    if where is None:
        classes = task.segment(model, image.image[None])
    else:
        classes = np.zeros(image.volume.shape, np.int64)
        for centre in where:
            box = Box.around(centre, task.cut_size)
            found = task.segment(model, torch.from_numpy(box.cut(image.image.numpy()))[None])
            inside = box.inside(image.volume.shape)
            here, there = inside.slices, inside.relative_to(box).slices
            classes[here] = np.maximum(classes[here], found[there])
    values = np.array([int(name) for name in card.classes])
    kind = np.uint8 if values.max() < 256 else np.int32
    grid = image.volume
    mask = LabelVolume(values[classes].astype(kind), grid.spacing_mm, grid.origin_mm, grid.direction)
    return onto_grid(mask, to_canonical(scan))


def _write_mask(case: SourceCase, mask: LabelVolume, folder: Path) -> Path:
    path = folder / f"{case.case_id}.nii.gz"
    if path.exists():
        raise PredictError(f"{path} exists already; choose another --out")
    write_label_like(case.images[0], mask.array, path)
    return path


def _candidates(
    task: CandidateTask,
    model: Predictor,
    image: _Input,
    card: ModelCard,
    where: Points | None,
    case: SourceCase,
) -> list[dict[str, Any]]:
    """A row for every candidate: its position in mm and its probabilities."""
    centres = task.propose(image.volume) if where is None else where
    if centres is None:
        raise PredictError(f"{type(task).__name__} judges candidates: name them with --points")
    if not len(centres):
        raise PredictError("no candidate was found in it")
    world = (image.volume.affine() @ np.column_stack([centres, np.ones(len(centres))]).T).T[:, :3]
    probabilities = task.classify(model, image.volume, centres)
    return [
        {"scan": case.case_id}
        | {f"coord{axis}": round(float(mm), 3) for axis, mm in zip("XYZ", place, strict=True)}
        | {f"p_{name}": float(p) for name, p in zip(card.classes, row, strict=True)}
        for place, row in zip(world, probabilities, strict=True)
    ]


def _read_points(path: Path) -> dict[str, list[tuple[float, ...]]]:
    """LPS positions by the scan they name."""
    named: dict[str, list[tuple[float, ...]]] = {}
    for row in read_points(path, POINT_COLUMNS):
        world = tuple(float(row[f"coord{axis}"]) for axis in "XYZ")
        named.setdefault(row["seriesuid"], []).append(world)
    return named


def _voxels(named: dict[str, list[tuple[float, ...]]], case: SourceCase, volume: Volume) -> Points:
    """The points of a case, in voxels (z, y, x) of its prepared volume.

    Raises:
        PredictError: there is none, or one lies outside.
    """
    names = {case.case_id, *(source.series for source in case.scan_sources())}
    names |= {strip_suffix(path.name) for path in case.files()}
    world = [place for name in sorted(names - {""}) for place in named.get(name, ())]
    if not world:
        raise PredictError("no point names it")
    voxels = to_voxels(volume, np.array(world))
    outside = np.flatnonzero(~is_inside(volume, voxels))
    if len(outside):
        places = ", ".join(str(world[i]) for i in outside[:3])
        raise PredictError(f"{len(outside)} points lie outside the scan, such as {places} mm")
    return voxels


def _classify(task: ClassificationTask, model: Predictor, image: _Input, card: ModelCard) -> dict[str, float]:
    logits = model(task.fit_input(image.image)[None])
    probabilities = torch.softmax(logits.float(), dim=1)[0]
    return {f"p_{name}": float(p) for name, p in zip(card.classes, probabilities, strict=True)}
