"""From files to a store: many cases read, preprocessed and written in parallel, for `prepare` and tasks.

A case that can't be used is set aside with its reason and never ends the run.  Finished cases are kept: a
second call does only what is missing, or has changed.
"""

from __future__ import annotations

import dataclasses
import re
import socket
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from parts2whole.data.ingest_report import IngestReport, print_report
from parts2whole.data.jobs import check_workers, run_jobs
from parts2whole.data.preprocess import (
    Preprocess,
    PreprocessError,
    StoredType,
    crop,
    looks_like_label,
    prepare_label,
    prepare_volume,
    quantise,
)
from parts2whole.data.read import ReadError, ScanSource, Which, file_stamp, read_label, read_scan, read_volume
from parts2whole.data.store import MANIFEST, Box, CaseRecord, DiskFullError, Store, StoreError, write_case
from parts2whole.data.volume import (
    LabelVolume,
    Volume,
    VolumeError,
    content_hash,
    orientation_code,
    to_canonical,
)
from parts2whole.spec import digest

__all__ = ["IngestError", "IngestReport", "SourceCase", "UnseenStoreError", "print_report", "store_cases"]

SAME_GRID_VOXELS = 0.05
"""Image and label may lie this far apart, in voxels, and still be one grid."""

LABEL_WORDS = ("label", "labels", "seg", "segmentation", "mask", "gt", "annotation")


class IngestError(ValueError):
    """Cases that can't be written to a store at all."""


class UnseenStoreError(StoreError):
    """A store that lies where a worker of a cluster can't see it."""


@dataclasses.dataclass(frozen=True)
class SourceCase:
    """The files of one case.

    Attributes:
        case_id: unique, safe as a file name.
        images: one file, or one `ScanSource`, a channel.
        label: its label map, on the same grid.
        patient: cases of one patient share it; None takes the case for a patient of its own.
        box: the part of the scan to keep, in voxels (z, y, x) of the file's own array.
        which: of a 4-D file, one volume by its index or ``"channels"`` for all.
    """

    case_id: str
    images: tuple[Path | ScanSource, ...]
    label: Path | None = None
    patient: str | None = None
    box: Box | None = None
    which: Which = None

    def files(self) -> tuple[Path, ...]:
        """Every file of the case."""
        images = (image.paths if isinstance(image, ScanSource) else (Path(image),) for image in self.images)
        label = () if self.label is None else (Path(self.label),)
        return (*(path for paths in images for path in paths), *label)

    def scan_sources(self) -> tuple[ScanSource, ...]:
        """The images that `find_scans` found."""
        return tuple(image for image in self.images if isinstance(image, ScanSource))

    def source(self) -> tuple[str, ...]:
        """Names of the files, without folders; DICOM files, whose names may identify, are only counted."""
        slices = {path for image in self.scan_sources() if image.is_series for path in image.paths}
        names = tuple(path.name for path in self.files() if path not in slices)
        return (f"{len(slices)} DICOM files", *names) if slices else names

    def absolute(self) -> SourceCase:
        """The same case for a worker that runs in another folder."""
        images = tuple(
            dataclasses.replace(image, paths=tuple(path.absolute() for path in image.paths))
            if isinstance(image, ScanSource)
            else Path(image).absolute()
            for image in self.images
        )
        label = None if self.label is None else Path(self.label).absolute()
        return dataclasses.replace(self, images=images, label=label)

    def stamp(self) -> str:
        """A text that changes when the case or its files change.

        Raises:
            ReadError: a file is missing.
        """
        try:
            files = file_stamp(self.files())
        except OSError as error:
            raise ReadError(f"{error.filename} can't be read: {error.strerror}") from error
        said = "".join(f"{source.problem}{source.series}" for source in self.scan_sources())
        return digest([files, self.patient, str(self.box), self.which, said])


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


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """A record, or why there is none."""

    case_id: str
    record: CaseRecord | None = None
    reason: str = ""
    fatal: StoreError | None = None


def store_cases(
    cases: Sequence[SourceCase],
    out: str | Path,
    *,
    preprocess: Preprocess,
    dtype: StoredType = "int16",
    workers: int | None = None,
    cluster: str | None = None,
    progress: bool = True,
) -> tuple[Store, IngestReport]:
    """Read, preprocess and store cases.

    Args:
        cases: what to store.
        out: folder of the store; made if missing, added to if there.
        preprocess: how scans are brought to [0, 1].
        dtype: type of the stored voxels.
        workers: processes; default one a core, 0 works in this process.
        cluster: a Dask cluster to work on, see `parts2whole.data.jobs.run_jobs`; default this machine.
        progress: show a progress bar and print a summary.

    Returns:
        The store, and what became of every case.

    Raises:
        IngestError: two cases with the same id.
        parts2whole.data.jobs.JobError: a number of workers or a cluster that can't be used.
        parts2whole.data.store.StoreError: ``out`` is in use, or was prepared in another way.
        parts2whole.data.store.DiskFullError: no space is left; finished cases are kept.
    """
    began = time.monotonic()
    ids = [case.case_id for case in cases]
    twice = sorted({case for case in ids if ids.count(case) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise IngestError(f"case ids must be unique; twice there: {', '.join(twice[:5])}")
    check_workers(workers, cluster)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Runs that start together share one store of labelled cases: the first prepares it, the others wait.
    with FileLock(out.with_name(f".{out.name}.lock")):
        store = Store.open_or_create(out, preprocess=preprocess, dtype=dtype)
        return _store_missing(cases, store, began, _Workers(workers, cluster), progress=progress)


def _store_missing(
    cases: Sequence[SourceCase], store: Store, began: float, hands: _Workers, *, progress: bool
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
            jobs.append(_Job(case.absolute(), store.path.absolute(), store.preprocess, store.dtype, stamp))
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


def _run(store: Store, jobs: list[_Job], hands: _Workers, *, progress: bool) -> list[_Outcome]:
    """Do all jobs and enter their outcomes in the store."""
    stream = run_jobs(_attempt, jobs, lost=_killed, workers=hands.workers, cluster=hands.cluster)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    outcomes = []
    bar = Progress(*columns, disable=not progress, console=Console(stderr=True))
    with closing(stream), bar:
        task = bar.add_task("Preparing", total=len(jobs))
        for outcome in stream:
            if outcome.fatal is not None:
                raise outcome.fatal
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
    scan = _read_channels(case)
    label = None if case.label is None else read_label(case.label)
    if label is None and _named_as_label(case) and looks_like_label(scan):
        raise IngestError("looks like a label map, by its name and by its voxels; scans only, please")
    if label is not None and not label.same_grid(scan, tolerance=SAME_GRID_VOXELS):
        raise IngestError(
            f"image and label lie on different grids: {_grid(scan)} against {_grid(label)}; "
            "resample the label onto its image"
        )
    original = content_hash(to_canonical(scan).array)
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
        content_hash=original,
        series=next((source.series for source in case.scan_sources()), ""),
        source=case.source(),
        notes=(*prepared.notes, *(note for image in case.scan_sources() for note in image.notes)),
        quantisation_error=stored.error,
        stamp=job.stamp,
    )
    return write_case(job.folder, record, stored.array, None if mask is None else mask.array, dtype=job.dtype)


def _read_channels(case: SourceCase) -> Volume:
    """The scan of a case; several files are stacked as channels."""
    if not case.images:
        raise IngestError("the case names no image")
    scans = [
        read_scan(image, which=case.which)
        if isinstance(image, ScanSource)
        else read_volume(Path(image), which=case.which)
        for image in case.images
    ]
    first = scans[0]
    for file, scan in zip(case.files()[1:], scans[1:], strict=False):
        if not scan.same_grid(first, tolerance=SAME_GRID_VOXELS):
            raise IngestError(
                f"channels lie on different grids: {_grid(first)} against {_grid(scan)} in {file.name}"
            )
    if len(scans) == 1:
        return first
    arrays = [scan.array.reshape(-1, *scan.shape) for scan in scans]
    return dataclasses.replace(first, array=np.concatenate(arrays))


def _named_as_label(case: SourceCase) -> bool:
    words = re.split(r"[^a-z]+", " ".join(path.name for path in case.files()).lower())
    return any(word in LABEL_WORDS for word in words)


def _grid(volume: Volume | LabelVolume) -> str:
    shape, spacing, origin = volume.shape, volume.spacing_mm, volume.origin_mm
    return (
        f"shape {shape}, spacing {tuple(round(s, 4) for s in spacing)} mm, "
        f"{orientation_code(volume.direction)} from {tuple(round(o, 2) for o in origin)} mm"
    )
