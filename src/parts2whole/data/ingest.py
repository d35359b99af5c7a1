"""From files to a store: many cases read, preprocessed and written in parallel, for `prepare` and tasks.

A case that can't be used is set aside with its reason and never ends the run.  Finished cases are kept: a
second call does only what is missing, or has changed.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from parts2whole.data.pool import run_jobs
from parts2whole.data.preprocess import (
    GUESSED,
    Preprocess,
    PreprocessError,
    StoredType,
    crop,
    looks_like_label,
    prepare_label,
    prepare_volume,
    quantise,
)
from parts2whole.data.read import ReadError
from parts2whole.data.source_case import IngestError, SourceCase, read_case_label, read_channels
from parts2whole.data.store import CaseRecord, DiskFullError, Store, StoreError, write_case
from parts2whole.data.volume import VolumeError, content_hash, to_canonical

__all__ = ["LABEL_WORDS", "IngestError", "IngestReport", "SourceCase", "print_report", "store_cases"]

SHOWN = 20
"""Prepared cases listed one by one in the printed summary; those set aside all are."""

LABEL_WORDS = ("label", "labels", "seg", "segmentation", "mask", "gt", "annotation")


@dataclasses.dataclass(frozen=True)
class IngestReport:
    """What became of every case.

    Attributes:
        prepared: written by this call.
        kept: finished before, and unchanged.
        set_aside: reason for every case that could not be used.
        duplicates: cases with the voxels of an earlier case, and that case.
        places: folder of every DICOM series set aside, for the screen only.
        duration_s: of the call.
    """

    prepared: tuple[str, ...]
    kept: tuple[str, ...]
    set_aside: dict[str, str]
    duplicates: dict[str, str]
    places: dict[str, str]
    duration_s: float


@dataclasses.dataclass(frozen=True)
class _Job:
    case: SourceCase
    folder: Path
    preprocess: Preprocess
    dtype: StoredType
    stamp: str


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """A record, or why there is none."""

    case_id: str
    record: CaseRecord | None = None
    reason: str = ""
    disk_full: bool = False


def store_cases(
    cases: Sequence[SourceCase],
    out: str | Path,
    *,
    preprocess: Preprocess,
    dtype: StoredType = "int16",
    workers: int | None = None,
    progress: bool = True,
) -> tuple[Store, IngestReport]:
    """Read, preprocess and store cases.

    Args:
        cases: what to store.
        out: folder of the store; made if missing, added to if there.
        preprocess: how scans are brought to [0, 1].
        dtype: type of the stored voxels.
        workers: processes; default one a core, 0 works in this process.
        progress: show a progress bar and print a summary.

    Returns:
        The store, and what became of every case.

    Raises:
        IngestError: two cases with the same id, or ``workers`` below 0.
        parts2whole.data.store.StoreError: ``out`` is in use, or was prepared in another way.
        parts2whole.data.store.DiskFullError: no space is left; finished cases are kept.
    """
    began = time.monotonic()
    ids = [case.case_id for case in cases]
    twice = sorted({case for case in ids if ids.count(case) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise IngestError(f"case ids must be unique; twice there: {', '.join(twice[:5])}")
    if workers is not None and workers < 0:
        raise IngestError(f"workers must be 0 or more, got {workers}")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Runs that start together share one store of labelled cases: the first prepares it, the others wait.
    with FileLock(out.with_name(f".{out.name}.lock")):
        store = Store.open_or_create(out, preprocess=preprocess, dtype=dtype)
        return _store_missing(cases, store, began, workers=workers, progress=progress)


def _store_missing(
    cases: Sequence[SourceCase], store: Store, began: float, *, workers: int | None, progress: bool
) -> tuple[Store, IngestReport]:
    """Store the cases that aren't there yet, or have changed."""
    jobs: list[_Job] = []
    kept: list[str] = []
    unread: dict[str, str] = {}
    for case in cases:
        try:
            stamp = case.stamp()
        except ReadError as error:
            unread[case.case_id] = str(error)
            continue
        if store.has(case.case_id) and store.record(case.case_id).stamp == stamp:
            kept.append(case.case_id)
        else:
            jobs.append(_Job(case, store.path, store.preprocess, store.dtype, stamp))
    outcomes: list[_Outcome] = []
    if jobs or any(store.set_aside.get(case) != reason for case, reason in unread.items()):
        store.begin()
        for case_id, reason in unread.items():
            store.exclude(case_id, reason)
        try:
            outcomes = _run(store, jobs, workers=workers, progress=progress)
        finally:
            store.finish()
    set_aside = unread | {o.case_id: o.reason for o in outcomes if o.record is None}
    ids = {case.case_id for case in cases}
    duplicates = {case: first for case, first in store.duplicates().items() if case in ids}
    report = IngestReport(
        prepared=tuple(sorted(o.case_id for o in outcomes if o.record is not None)),
        kept=tuple(kept),
        set_aside=dict(sorted(set_aside.items())),
        duplicates=duplicates,
        places={
            case.case_id: str(source.paths[0].parent)
            for case in cases
            for source in case.scan_sources()
            if case.case_id in set_aside and source.is_series
        },
        duration_s=time.monotonic() - began,
    )
    if progress and (jobs or set_aside):
        print_report(store, report)
    return store, report


def print_report(store: Store, report: IngestReport, console: Console | None = None) -> None:
    """Print what became of every case, those set aside first."""
    console = console or Console(stderr=True, highlight=False)
    for case, reason in report.set_aside.items():
        place = f"  ({report.places[case]})" if case in report.places else ""
        console.print(f"[red]set aside[/red]  {escape(case)}: {escape(reason + place)}", soft_wrap=True)
    table = Table("prepared", "as", "voxels z y x", "mm", "note", show_edge=False)
    for case in report.prepared[:SHOWN]:
        record = store.record(case)
        notes = [note for note in record.notes if not note.startswith(GUESSED)]
        kind = f"{record.modality}, guessed" if len(notes) < len(record.notes) else record.modality
        if case in report.duplicates:
            notes.append(f"same voxels as {report.duplicates[case]}")
        spacing = " ".join(f"{mm:.3g}" for mm in record.spacing_mm)
        table.add_row(escape(case), kind, "x".join(map(str, record.shape)), spacing, escape("; ".join(notes)))
    if table.row_count:
        console.print(table)
    if len(report.prepared) > SHOWN:
        console.print(
            f"... and {len(report.prepared) - SHOWN} more, listed in {store.path / 'manifest.json'}"
        )
    parts = [f"{len(report.prepared)} prepared in {report.duration_s:.1f} s"]
    if report.kept:
        parts.append(f"{len(report.kept)} kept from before")
    parts.append(f"{len(report.set_aside)} set aside")
    guesses = [
        note for case in report.prepared for note in store.record(case).notes if note.startswith(GUESSED)
    ]
    if guesses:
        parts.append(f"modality guessed for {len(guesses)}, such as {guesses[0].removeprefix(GUESSED)}")
    if report.duplicates:
        parts.append(f"{len(report.duplicates)} with the voxels of another case")
    console.print(", ".join(parts), soft_wrap=True)


def _run(store: Store, jobs: list[_Job], *, workers: int | None, progress: bool) -> list[_Outcome]:
    """Do all jobs and enter their outcomes in the store."""
    workers = min(os.cpu_count() or 1, len(jobs)) if workers is None else min(workers, len(jobs))
    stream = run_jobs(_attempt, jobs, workers=workers, lost=_killed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    outcomes = []
    bar = Progress(*columns, disable=not progress, console=Console(stderr=True))
    with closing(stream), bar:
        task = bar.add_task("Preparing", total=len(jobs))
        for outcome in stream:
            if outcome.disk_full:
                raise DiskFullError(outcome.reason)
            if outcome.record is None:
                store.exclude(outcome.case_id, outcome.reason)
            else:
                store.add(outcome.record)
            outcomes.append(outcome)
            bar.advance(task)
    return outcomes


def _killed(job: _Job) -> _Outcome:
    return _Outcome(job.case.case_id, reason="its worker process was killed, perhaps for lack of memory")


def _attempt(job: _Job) -> _Outcome:
    """Do one case; whatever goes wrong becomes its reason."""
    name = job.case.case_id
    try:
        return _Outcome(name, record=_store_case(job))
    except DiskFullError as error:
        return _Outcome(name, reason=str(error), disk_full=True)
    except (ReadError, PreprocessError, VolumeError, StoreError, IngestError) as error:
        return _Outcome(name, reason=str(error))
    except MemoryError:
        return _Outcome(name, reason="not enough memory to prepare it")
    except Exception as error:  # one odd scan must not end the run of a thousand
        return _Outcome(name, reason=f"unexpected {type(error).__name__}: {error}")


def _store_case(job: _Job) -> CaseRecord:
    case = job.case
    scan = read_channels(case)
    label = read_case_label(case, scan)
    if label is None and _named_as_label(case) and looks_like_label(scan):
        raise IngestError("looks like a label map, by its name and by its voxels; scans only, please")
    original = to_canonical(scan).array
    parts = tuple(content_hash(part) for part in original) if original.ndim == 4 else ()
    whole_hash = parts[0] if len(parts) == 1 else content_hash(original)
    if case.box is not None:
        scan = crop(scan, case.box)
        label = None if label is None else crop(label, case.box)
    prepared = prepare_volume(scan, job.preprocess)
    mask = None if label is None else prepare_label(label, job.preprocess)
    stored = quantise(prepared, job.dtype)
    volume = prepared.volume
    record = CaseRecord(
        case_id=case.case_id,
        patient=case.patient or next((s.patient for s in case.scan_sources() if s.patient), case.case_id),
        modality=prepared.modality,
        channels=len(stored.array),
        shape=volume.shape,
        spacing_mm=volume.spacing_mm,
        origin_mm=volume.origin_mm,
        direction=volume.direction,
        scale=stored.scale,
        offset=stored.offset,
        content_hash=whole_hash,
        channel_hashes=parts if len(parts) > 1 else (),
        series=next((source.series for source in case.scan_sources()), ""),
        source=case.source(),
        notes=(*prepared.notes, *(note for image in case.scan_sources() for note in image.notes)),
        quantisation_error=stored.error,
        stamp=job.stamp,
    )
    return write_case(job.folder, record, stored.array, None if mask is None else mask.array, dtype=job.dtype)


def _named_as_label(case: SourceCase) -> bool:
    words = re.split(r"[^a-z]+", " ".join(path.name for path in case.files()).lower())
    return any(word in LABEL_WORDS for word in words)
