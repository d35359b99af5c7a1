"""Apply a fine-tuned model to new scans: masks on the voxels of the input files, or class probabilities."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parts2whole.errors import Parts2WholeError, plural, tell_failure, tell_reasons
from parts2whole.files import DiskFullError, write_rows
from parts2whole.progress import watch, watching
from parts2whole.scans.case import SourceCase, read_channels
from parts2whole.scans.nifti import smallest_integer
from parts2whole.scans.preprocess import crop, onto_grid, spacing_text
from parts2whole.scans.read import user_salt
from parts2whole.scans.source import hashed
from parts2whole.scans.volume import Box, LabelVolume, Volume, to_canonical
from parts2whole.spec import digest
from parts2whole.tasks.base import Predictor
from parts2whole.tasks.candidates import CLASSES, CandidateTask, to_world
from parts2whole.tasks.channels import group_channels
from parts2whole.tasks.classification import PLACE_COLUMNS
from parts2whole.tasks.classifying import ClassificationTask
from parts2whole.tasks.places import Places, Points, check_names, places_in, read_places
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.training.model import ModelCard, as_function, load_model
from parts2whole.training.network_input import NetworkInput, network_input
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.verbs import words
from parts2whole.verbs.masks import MaskFormat, MaskWriter, mask_writer, names_by_value

TABLE, PROBABILITIES = "predictions.csv", "probabilities.csv"
FAR = 2.0
"""A spacing that differs by more than this factor from all that the model has seen is noted."""


class PredictError(Parts2WholeError, ValueError):
    """Scans or an out folder that can't be used."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What was written, and what failed.

    Attributes:
        folder: where the predictions are.
        written: one mask a scan, or one CSV.
        set_aside: reason for every scan that could not be used.
        table: ``predictions.csv``, which says whose mask is which; see `predict`.
        notes: what the user should know of scans that were used.
    """

    folder: Path
    written: tuple[Path, ...]
    set_aside: dict[str, str]
    table: Path
    notes: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a scan failed; the command line then ends with a non-zero code."""
        return bool(self.set_aside)

    def summary(self) -> str:
        """What was written and where that is listed, then a line for every note and every scan set aside."""
        count = len(self.written)
        first = f"{count} {'file' if count == 1 else 'files'} written to {self.folder}; see {self.table}"
        noted = {name: "; ".join(notes) for name, notes in self.notes.items()}
        told = words.tell_scans(noted, self.set_aside, of=count + len(self.set_aside))
        return "\n".join([first, *told])


def predict(
    run: str | Path,
    scans: Sequence[str | Path],
    *,
    out: str | Path,
    points: str | Path | None = None,
    format: MaskFormat = "nifti",
    codes: str | Path | None = None,
    keep_series_uids: bool = False,
    hardware: Hardware = Hardware(),
    progress: bool = True,
) -> Predictions:
    """Predict for new scans with the model of a fine-tuning run.

    Segmentation writes one mask a scan, on exactly the voxels of the input file: NIfTI with the label values
    of the training data, OME-Zarr, or a DICOM segmentation with a segment a class.  Classification writes
    ``probabilities.csv``, for a task of candidates with one row a point.  ``predictions.csv`` has a row for
    every scan: its folder and files, its mask, its series, whether it failed and why, notes, and the volume
    of every class in ml.

    A scan that fails, for whatever reason, never ends the run, and what is written stays.  Predictions of
    several runs may share a folder; nothing is overwritten.

    Args:
        run: folder of a finished `finetune`.
        scans: files, folders or globs; for a task of several channels, its case folders; for `Classification`
            also a CSV of its columns ``path`` and, where it learned from boxes, those of the box.
        out: folder to write to; existing masks of the same name are refused.
        points: a CSV with ``seriesuid,coordX,coordY,coordZ``: LPS positions in mm, as in LUNA16, in scans
            named by file name without suffix or by series UID.  Candidates are classified there, and a
            segmentation looks only into the crops around them.
        format: of masks: ``nifti``, ``ome-zarr`` (in canonical orientation, which it says), or ``dicom-seg``
            for DICOM series (needs the extra ``dicom-seg``).
        codes: for ``dicom-seg``, a YAML that says of every class what it is; see `parts2whole.scans.codes`.
        keep_series_uids: write DICOM series UIDs as they are; by default they are hashed, as `prepare` does.
        hardware: device and precision; one device is used.
        progress: show a progress bar.

    Returns:
        The files written, and the scans set aside with their reasons.

    Raises:
        PredictError: no scan could be used, ``out`` holds a ``probabilities.csv``, or points are given to a
            model that classifies scans.
        parts2whole.training.model.ModelError: ``run`` holds no finished model.
        parts2whole.verbs.masks.MaskError: the model or the options don't go with the format.
        parts2whole.scans.codes.CodesError: a class has no code.
    """
    module, card = load_model(Path(run))
    writer = mask_writer(format, None if codes is None else Path(codes), card, Path(run))
    if points is not None and not isinstance(card.task, SegmentationTask | CandidateTask):
        raise PredictError(f"{type(card.task).__name__} classifies scans as they are: leave --points out")
    runtime = Runtime(hardware.replace(devices=1, nodes=1))
    model = as_function(runtime.place_module(module), runtime)
    inputs = group_channels(card.task.find_inputs(scans), card.in_channels, card.channel_names)
    cases = _named_apart(inputs)
    if not cases:
        raise PredictError(f"no scans found in {', '.join(map(str, scans))}")
    named = None if points is None else read_places(Path(points))
    check_names(named or {}, cases)
    folder = Path(out)
    if (folder / PROBABILITIES).exists():
        raise PredictError(f"{folder / PROBABILITIES} exists already; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    if progress:
        told = plural(len(cases), "scan")
        first = words.describe_work(str(run), told, network=card.network, module=module, runtime=runtime)
        print(first, flush=True)
    before = _read_table(folder / TABLE)
    found: dict[str, _Found] = {}
    table: list[dict[str, Any]] = []
    try:
        with watching("Predicting", len(cases), show=progress):
            for case in watch(cases, len(cases)):
                try:
                    one = _predict_one(case, card, model, named, folder, writer)
                except DiskFullError:
                    raise
                except Exception as error:
                    one = _Found(reason=tell_failure(error))
                found[case.case_id] = one
                table.append(_row(case, one, keep_series_uids=keep_series_uids))
                if one.reason:
                    runtime.free_memory()
    finally:
        if table:
            _write_table(folder / TABLE, before, table)
    written = [one.mask for one in found.values() if one.mask is not None]
    rows = [row for one in found.values() for row in one.rows]
    if rows:
        written.append(write_rows(folder / PROBABILITIES, rows))
    set_aside = {name: one.reason for name, one in found.items() if one.reason}
    if not written:
        raise PredictError("no scan could be used. " + "; ".join(tell_reasons(set_aside, of=len(cases))))
    notes = {name: one.notes for name, one in found.items() if one.notes}
    return Predictions(folder, tuple(written), set_aside, folder / TABLE, notes)


@dataclasses.dataclass(frozen=True)
class _Found:
    """What became of a scan: a mask and its volumes, or rows of probabilities, or the reason of a failure."""

    mask: Path | None = None
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    volumes_ml: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reason: str = ""


def _predict_one(
    case: SourceCase,
    card: ModelCard,
    model: Predictor,
    named: Places | None,
    folder: Path,
    writer: MaskWriter,
) -> _Found:
    path = writer.path(folder, case.case_id)
    if isinstance(card.task, SegmentationTask) and path.exists():
        raise PredictError(f"{path} exists already; choose another --out")
    if card.boxed and case.box is None:
        columns = ", ".join(PLACE_COLUMNS)
        raise PredictError(f"the model learned from boxes of scans: name them in a CSV ({columns})")
    scan = read_channels(case)
    if case.box is not None:
        scan = crop(scan, case.box)
    image = network_input(scan, card.preprocess, card.in_channels)
    where = None if named is None else places_in(named, case, image.volume)
    far = _far_spacing(scan, card)
    notes = (
        *image.notes,
        *([far] if far else []),
        *(note for source in case.scan_sources() for note in source.notes),
    )
    if isinstance(card.task, SegmentationTask):
        mask = _segment(card.task, model, image, scan, card, where)
        writer.write(case.images[0], mask, path)
        told = writer.note(case.images[0], mask)
        notes = (*notes, *([told] if told else []))
        return _Found(path, volumes_ml=_volumes_ml(mask, card), notes=notes)
    if isinstance(card.task, CandidateTask) and card.classes == CLASSES:
        return _Found(rows=_candidates(card.task, model, image, card, where, case), notes=notes)
    if isinstance(card.task, ClassificationTask):
        row = {"scan": case.case_id} | _classify(card.task, model, image, card)
        return _Found(rows=[row], notes=notes)
    raise PredictError(f"{type(card.task).__name__} is no segmentation and no classification")


def _named_apart(cases: Sequence[SourceCase]) -> list[SourceCase]:
    """The cases, whose ids name masks, so that no two of them differ in nothing but upper and lower case."""
    taken: set[str] = set()
    apart = []
    for case in cases:
        name = case.case_id
        if name.lower() in taken:
            name = f"{name}-{digest([os.path.abspath(path) for path in case.files()])[:8]}"
        taken.add(name.lower())
        apart.append(dataclasses.replace(case, case_id=name))
    return apart


def _row(case: SourceCase, found: _Found, *, keep_series_uids: bool) -> dict[str, Any]:
    """The row of a scan in ``predictions.csv``."""
    series = next((source.series for source in case.scan_sources()), "")
    if series and not keep_series_uids:
        series = hashed(series, user_salt())
    return {
        "scan": case.case_id,
        "folder": "; ".join(dict.fromkeys(str(path.parent) for path in case.files())),
        "file": "; ".join(case.source()),
        "mask": found.mask.name if found.mask else "",
        "series": series,
        "status": "failed" if found.reason else "written",
        "reason": found.reason,
        "notes": "; ".join(found.notes),
    } | {f"ml_{name}": round(ml, 6) for name, ml in found.volumes_ml.items()}


def _read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of earlier calls in the same folder."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_table(path: Path, before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> None:
    """Write all rows; a scan that failed before and was tried again has its new row alone."""
    again = {(row["folder"], row["file"]) for row in now}
    kept = [row for row in before if row.get("mask") or (row.get("folder"), row.get("file")) not in again]
    write_rows(path, [*kept, *now])


def _far_spacing(scan: Volume, card: ModelCard) -> str:
    """A note on a spacing unlike those that the model was fine-tuned on; empty if it is like them."""
    if card.spacing_range_mm is None:
        return ""
    spacing, (low, high) = to_canonical(scan).spacing_mm, card.spacing_range_mm
    if all(a / FAR <= mm <= b * FAR for mm, a, b in zip(spacing, low, high, strict=True)):
        return ""
    wanted = card.preprocess.spacing_mm
    treated = (
        f"it was resampled to {spacing_text(wanted)}, as they were"
        if wanted
        else "it was not resampled, as they weren't: what it shows has another size in voxels"
    )
    return (
        f"its spacing (z, y, x), {spacing_text(spacing)}, is far from {spacing_text(low)} to "
        f"{spacing_text(high)} of the training scans; {treated}"
    )


def _volumes_ml(mask: LabelVolume, card: ModelCard) -> dict[str, float]:
    """Volume of every foreground class, of those with one value together; axes may be at any angles."""
    voxel_ml = abs(float(np.linalg.det(mask.affine()[:3, :3]))) / 1000
    return {
        name: int(np.count_nonzero(mask.array == value)) * voxel_ml
        for value, name in names_by_value(card).items()
        if value
    }


def _segment(
    task: SegmentationTask,
    model: Predictor,
    image: NetworkInput,
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
    values = np.array(card.values)
    grid = image.volume
    mask = LabelVolume(
        values.astype(smallest_integer(values))[classes], grid.spacing_mm, grid.origin_mm, grid.direction
    )
    return onto_grid(mask, to_canonical(scan))


def _candidates(
    task: CandidateTask,
    model: Predictor,
    image: NetworkInput,
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
    probabilities = task.classify(model, image.volume, centres)
    return [
        {"scan": case.case_id}
        | {f"coord{axis}": round(float(mm), 3) for axis, mm in zip("XYZ", place, strict=True)}
        | {f"p_{name}": float(p) for name, p in zip(card.classes, row, strict=True)}
        for place, row in zip(to_world(image.volume, centres), probabilities, strict=True)
    ]


def _classify(
    task: ClassificationTask, model: Predictor, image: NetworkInput, card: ModelCard
) -> dict[str, float]:
    logits = model(task.fit_input(image.image)[None])
    probabilities = torch.softmax(logits.float(), dim=1)[0]
    return {f"p_{name}": float(p) for name, p in zip(card.classes, probabilities, strict=True)}
