"""From files to a store: many cases read, preprocessed and written in parallel, for `prepare` and tasks.

A case that can't be used is set aside with its reason and never ends the run.  Finished cases are kept: a
second call does only what is missing, or has changed.
"""

from __future__ import annotations

import dataclasses
import socket
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from filelock import FileLock

from parts2whole.files import DiskFullError
from parts2whole.jobs.run import check_workers, run_jobs
from parts2whole.progress import watch, watching
from parts2whole.scans.case import IngestError, SourceCase, read_case_label, read_channels
from parts2whole.scans.label_maps import is_label_map, said_to_be_label
from parts2whole.scans.preprocess import (
    Modality,
    Preprocess,
    PreprocessError,
    StoredType,
    crop,
    prepare_label,
    prepare_volume,
    quantise,
    spacing_text,
    values_lost,
)
from parts2whole.scans.read import ReadError, compact
from parts2whole.scans.volume import LabelVolume, Volume, VolumeError, content_hash, to_canonical
from parts2whole.spec import digest
from parts2whole.store.case_files import damage, write_case
from parts2whole.store.ingest_report import IngestReport, print_report
from parts2whole.store.location import MANIFEST, is_local, to_location
from parts2whole.store.store import CaseRecord, Store, StoreError

__all__ = [
    "IngestError",
    "IngestReport",
    "SourceCase",
    "UnseenStoreError",
    "print_report",
    "store_cases",
]


class UnseenStoreError(StoreError):
    """A store that lies where a worker of a cluster can't see it."""


@dataclasses.dataclass(frozen=True)
class _Job:
    case: SourceCase
    folder: Path
    preprocess: Preprocess
    dtype: StoredType
    stamp: str


@dataclasses.dataclass(frozen=True)
class _Workers:
    """Who does the jobs: see `run_jobs`."""

    workers: int | None
    cluster: str | None
    verify: bool


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """A record, or why there is none."""

    case_id: str
    record: CaseRecord | None = None
    reason: str = ""
    fatal: StoreError | DiskFullError | None = None


def store_cases(
    cases: Sequence[SourceCase],
    out: str | Path,
    *,
    preprocess: Preprocess,
    dtype: StoredType = "int16",
    workers: int | None = None,
    cluster: str | None = None,
    verify: bool = False,
    progress: bool = True,
) -> tuple[Store, IngestReport]:
    """Read, preprocess and store cases.

    Args:
        cases: what to store.
        out: folder of the store; made if missing, added to if there.
        preprocess: how scans are brought to [0, 1].
        dtype: type of the stored voxels.
        workers: processes; default one a core, 0 works in this process.
        cluster: a Dask cluster to work on, see `parts2whole.jobs.run.run_jobs`; default this machine.
        verify: read cases that are there already back, and store those again that don't have their checksum.
        progress: show a progress bar and print a summary.

    Returns:
        The store, and what became of every case.

    Raises:
        IngestError: two cases with the same id.
        parts2whole.jobs.run.JobError: a number of workers or a cluster that can't be used.
        parts2whole.store.store.StoreError: ``out`` is in use, or was prepared in another way.
        parts2whole.files.DiskFullError: no space is left; finished cases are kept.
    """
    began = time.monotonic()
    ids = [case.case_id for case in cases]
    twice = sorted({case for case in ids if ids.count(case) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise IngestError(f"case ids must be unique; twice there: {', '.join(twice[:5])}")
    check_workers(workers, cluster)
    out = to_location(out)
    # Runs that start together share one store of labelled cases: the first prepares it, the others wait.
    with FileLock(_lock(out)):
        store = Store.open_or_create(out, preprocess=preprocess, dtype=dtype)
        return _store_missing(cases, store, began, _Workers(workers, cluster, verify), progress=progress)


def _store_missing(
    cases: Sequence[SourceCase], store: Store, began: float, hands: _Workers, *, progress: bool
) -> tuple[Store, IngestReport]:
    """Store the cases that aren't there yet, or have changed."""
    jobs, kept, unread = _sort_jobs(cases, store)
    damaged = _find_damaged(store, kept, hands) if hands.verify else {}
    jobs += [job for job in kept if job.case.case_id in damaged]
    outcomes: list[_Outcome] = []
    if jobs or any(store.set_aside.get(case) != reason for case, reason in unread.items()):
        store.begin()
        for case_id, reason in unread.items():
            store.exclude(case_id, reason)
        try:
            outcomes = _run(store, jobs, hands, progress=progress)
        finally:
            store.finish(everywhere=hands.cluster is not None)
    set_aside = unread | {o.case_id: o.reason for o in outcomes if o.record is None}
    report = IngestReport(
        prepared=tuple(sorted(o.case_id for o in outcomes if o.record is not None)),
        kept=tuple(job.case.case_id for job in kept if job.case.case_id not in damaged),
        damaged=damaged,
        set_aside=dict(sorted(set_aside.items())),
        duplicates=_duplicates(cases, store),
        places=_places([case for case in cases if case.case_id in set_aside]),
        duration_s=time.monotonic() - began,
    )
    if progress and (jobs or set_aside) and store.cases:  # without any, an error tells the reasons
        print_report(store, report)
    return store, report


def _sort_jobs(cases: Sequence[SourceCase], store: Store) -> tuple[list[_Job], list[_Job], dict[str, str]]:
    """Cases to be stored, those that are there already, and why others can't be read, by case.

    Raises:
        StoreError: a case would replace one from another folder.
    """
    missing: list[_Job] = []
    there: list[_Job] = []
    unread: dict[str, str] = {}
    for case in cases:
        try:
            stamp = case.stamp()
        except ReadError as error:
            unread[case.case_id] = str(error)
            continue
        known = store.record(case.case_id) if store.has(case.case_id) else None
        unchanged = known is not None and known.stamp == stamp
        if known is not None and not unchanged and known.place not in ("", case.place()):
            raise StoreError(
                f"{case.case_id} is in the store from another folder, and would be replaced by "
                f"{case.files()[0]}: name all folders in one call, or take another --out"
            )
        job = _Job(case.absolute(), store.path.absolute(), store.preprocess, store.dtype, stamp)
        (there if unchanged else missing).append(job)
    return missing, there, unread


def _duplicates(cases: Sequence[SourceCase], store: Store) -> dict[str, str]:
    """Those of the cases that have the voxels of another in the store, and which."""
    ids = {case.case_id for case in cases}
    return {case: first for case, first in store.duplicates().items() if case in ids}


def _places(cases: Sequence[SourceCase]) -> dict[str, str]:
    """Folders of DICOM series, whose case ids don't say where they are."""
    sources = ((case, source) for case in cases for source in case.scan_sources())
    return {case.case_id: str(source.paths[0].parent) for case, source in sources if source.is_series}


def _find_damaged(store: Store, jobs: list[_Job], hands: _Workers) -> dict[str, str]:
    """Cases of the store that don't have their checksum, and what is wrong with each."""
    work = [(job.folder, store.record(job.case.case_id)) for job in jobs]
    found = run_jobs(
        _check,
        work,
        lost=lambda each: (each[1].case_id, "reading it kills its process"),
        workers=hands.workers,
        cluster=hands.cluster,
    )
    return {case: reason for case, reason in sorted(found) if reason}


def _check(stored: tuple[Path, CaseRecord]) -> tuple[str, str]:
    """What is wrong with a stored case, or nothing."""
    folder, record = stored
    return record.case_id, damage(folder, record) or ""


def _lock(out: Path) -> Path:
    """Beside a store, or, where that is remote, a file of this machine."""
    if not is_local(out):
        return Path(tempfile.gettempdir()) / f"parts2whole-{digest(str(out))}.lock"
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.with_name(f".{out.name}.lock")


def _run(store: Store, jobs: list[_Job], hands: _Workers, *, progress: bool) -> list[_Outcome]:
    """Do all jobs and enter their outcomes in the store."""
    stream = run_jobs(_attempt, jobs, lost=_killed, workers=hands.workers, cluster=hands.cluster)
    outcomes = []
    with closing(stream), watching("Preparing", len(jobs), show=progress):
        for outcome in watch(stream, len(jobs)):
            if outcome.fatal is not None:
                raise outcome.fatal
            if outcome.record is None:
                store.exclude(outcome.case_id, outcome.reason)
            else:
                store.add(outcome.record)
            outcomes.append(outcome)
    return outcomes


def _killed(job: _Job) -> _Outcome:
    return _Outcome(job.case.case_id, reason="its worker process was killed, perhaps for lack of memory")


def _attempt(job: _Job) -> _Outcome:
    """Do one case; whatever goes wrong becomes its reason."""
    name = job.case.case_id
    try:
        return _Outcome(name, record=_store_case(job))
    except (DiskFullError, UnseenStoreError) as error:
        return _Outcome(name, fatal=error)
    except (ReadError, PreprocessError, VolumeError, StoreError, IngestError) as error:
        return _Outcome(name, reason=str(error))
    except MemoryError:
        return _Outcome(name, reason="not enough memory to prepare it")
    except Exception as error:  # one odd scan must not end the run of a thousand
        return _Outcome(name, reason=f"unexpected {type(error).__name__}: {error}")


def _store_case(job: _Job) -> CaseRecord:
    case = job.case
    if not (job.folder / MANIFEST).exists():
        raise UnseenStoreError(
            f"a worker on {socket.gethostname()} doesn't see the store at {job.folder}; workers of a cluster "
            "need a file system that they share with this machine"
        )
    scan = read_channels(case)
    label = read_case_label(case, scan)
    said = said_to_be_label(case.files()) if label is None else None
    if said and is_label_map(scan):
        raise IngestError(f"looks like a label map, by {said} and by its voxels; scans only, please")
    patient = next((source.patient for source in case.scan_sources() if source.patient), case.case_id)
    return _write_scan(
        job,
        scan,
        label,
        patient=case.patient or patient,
        series=next((source.series for source in case.scan_sources()), ""),
        notes=tuple(note for image in case.scan_sources() for note in image.notes),
    )


def store_scans(
    scans: Iterable[tuple[str, Volume]],
    out: Path,
    *,
    preprocess: Preprocess,
    dtype: StoredType,
    modality: Modality,
    divisor: float = 1.0,
) -> Store:
    """Store scans that are no files as those from files: checked, preprocessed, or set aside with the reason.

    Args:
        scans: case ids, each taken for a patient of its own, and voxels.
        out: folder of the store; what is there already stays as it is.
        preprocess: how scans are brought to [0, 1].
        dtype: type of the stored voxels.
        modality: what they are, where ``preprocess`` leaves that open.
        divisor: of all voxels, before anything else.

    Raises:
        parts2whole.store.store.StoreError: ``out`` is in use, or was prepared in another way.
        parts2whole.files.DiskFullError: no space is left.
    """
    with FileLock(_lock(out)):
        store = Store.open_or_create(out, preprocess=preprocess, dtype=dtype)
        missing = [each for each in scans if not store.has(each[0]) and each[0] not in store.set_aside]
        for case_id, scan in missing:
            store.begin()
            job = _Job(SourceCase(case_id, ()), out, preprocess.replace(modality=modality), dtype, "")
            try:
                scan = dataclasses.replace(scan, array=compact(scan.array, case_id))
                store.add(_write_scan(job, scan, None, patient=case_id, divisor=divisor))
            except (ReadError, PreprocessError, VolumeError) as error:
                store.exclude(case_id, str(error))
        if missing:
            store.finish()
    return store


def _write_scan(
    job: _Job,
    scan: Volume,
    label: LabelVolume | None,
    *,
    patient: str,
    series: str = "",
    notes: tuple[str, ...] = (),
    divisor: float = 1.0,
) -> CaseRecord:
    case = job.case
    canonical = to_canonical(scan)
    original = canonical.array
    parts = tuple(content_hash(part) for part in original) if original.ndim == 4 else ()
    whole_hash = parts[0] if len(parts) == 1 else content_hash(original)
    if case.box is not None:
        scan = crop(scan, case.box)
        label = None if label is None else crop(label, case.box)
    if divisor != 1:
        scan = dataclasses.replace(scan, array=scan.array / np.float32(divisor))
    prepared = prepare_volume(scan, job.preprocess)
    mask = None if label is None else prepare_label(label, job.preprocess)
    stored = quantise(prepared, job.dtype)
    volume = prepared.volume
    resampled = job.preprocess.spacing_mm is not None
    lost = values_lost(label, mask) if resampled and label is not None and mask is not None else ()
    vanished = tuple(f"label {value} vanished at {spacing_text(job.preprocess.spacing_mm)}" for value in lost)
    record = CaseRecord(
        case_id=case.case_id,
        patient=patient,
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
        series=series,
        source=case.source(),
        notes=(*prepared.notes, *notes, *vanished),
        quantisation_error=stored.error,
        stamp=job.stamp,
        labels_lost=lost,
        patient_by=case.patient_by,
        place=case.place(),
        label_hash="" if label is None else content_hash(to_canonical(label).array),
        file_spacing_mm=canonical.spacing_mm,
    )
    return write_case(job.folder, record, stored.array, None if mask is None else mask.array, dtype=job.dtype)
