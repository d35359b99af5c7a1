"""Read scans and write them into a store: oriented, windowed to [0, 1], chunked, with a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from parts2whole.errors import Parts2WholeError, name_some, plural, tell_reasons
from parts2whole.jobs.pool import usable_cores
from parts2whole.jobs.run import check_workers
from parts2whole.progress import fill
from parts2whole.scans.patients import BY_DICOM, Told, tell_patients
from parts2whole.scans.preprocess import Modality, Preprocess, StoredType
from parts2whole.scans.read import ReadError, ScanSource, Which, find_scans
from parts2whole.scans.volume import Triple
from parts2whole.store.ingest import IngestReport, SourceCase, store_cases
from parts2whole.store.location import MANIFEST, remove, to_location
from parts2whole.store.store import Store, StoreError
from parts2whole.survey.beside import look_around


class PrepareError(Parts2WholeError, ValueError):
    """Scans or an out folder that can't be used."""


def prepare(
    scans: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    modality: Modality = "auto",
    spacing_mm: Triple | None = None,
    window_hu: tuple[float, float] = (-1000.0, 1000.0),
    percentiles: tuple[float, float] = (0.5, 99.5),
    dtype: StoredType = "int16",
    volumes_4d: Which = None,
    patient_pattern: str | None = None,
    keep_series_uids: bool = False,
    workers: int | None = None,
    cluster: str | None = None,
    verify: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Store:
    """Prepare scans for pre-training.

    A scan that can't be used is set aside with its reason, in the printed summary and in the manifest.
    Calling it again does only what is missing or has changed, and adds new scans.

    Args:
        scans: folders (searched with subfolders), files, globs, or ``.txt`` lists of paths.
        out: folder of the store, or a URL that fsspec knows, such as ``s3://bucket/store``.
        modality: ``CT``, ``MR``, ``unit`` (already in [0, 1]), or ``auto``: what the file says, or a guess
            where that is safe.
        spacing_mm: resample to this spacing (z, y, x); default each scan's own.
        window_hu: Hounsfield units that become 0 and 1, for CT.
        percentiles: percentiles of the volume that become 0 and 1, for MR.
        dtype: type of the stored voxels.
        volumes_4d: of files with several volumes, one by its index, or ``channels`` for all; default sets
            such files aside.
        patient_pattern: a regular expression with one group, which is the patient, searched for in every
            scan's path from the folder named; default: the PatientID of DICOM (hashed), BIDS subjects, and
            equal names in folders of modalities; what these don't tell is a patient of its own.
        keep_series_uids: keep DICOM series UIDs in the manifest; by default they are hashed, as patient ids
            always are.
        workers: processes; default one a core, 0 works in this process.  On a queueing system, how many
            workers to submit.
        cluster: work on a Dask cluster: the address of its scheduler (``tcp://host:port``), or ``slurm``,
            ``pbs``, ``sge`` or ``lsf`` to submit workers as ``~/.config/dask/jobqueue.yaml`` says.
        verify: read what is in the store already back, and prepare again what doesn't have its checksum.
        overwrite: delete the store in ``out`` first.
        progress: show a progress bar and print a summary.

    Returns:
        The store.

    Raises:
        parts2whole.scans.patients.PatientError: ``patient_pattern`` doesn't say who is who.
        PrepareError: no scans found, none of them usable, or ``out`` holds something else.
        parts2whole.files.DiskFullError: no space is left; finished cases are kept.
        parts2whole.jobs.run.JobError: a number of workers or a cluster that can't be used.
    """
    check_workers(workers, cluster)
    out = to_location(out)
    named = [scans] if isinstance(scans, str | Path) else list(scans)
    try:
        sources = find_scans(named, keep_series_uids=keep_series_uids)
    except ReadError as error:
        raise PrepareError(str(error)) from error
    if not sources:
        raise PrepareError(f"no scans found in {', '.join(map(str, named)) or 'an empty list'}")
    preprocess = Preprocess(modality, window_hu, percentiles, spacing_mm)
    if overwrite and out.exists() and any(out.iterdir()):
        if not (out / MANIFEST).exists():
            raise PrepareError(f"{out} is not a store, so it is not overwritten; choose another folder")
        remove(out)
    patients = _tell(sources, named, patient_pattern)
    cases = [
        SourceCase(source.case_id, (source,), patient=patient, which=volumes_4d, patient_by=by)
        for source, (patient, by) in zip(sources, patients, strict=True)
    ]
    if progress:
        count = min(workers or usable_cores() or 1, len(cases))
        hands = f"on {cluster}" if cluster else f"in {count} process{'es' * (count != 1)}"
        print(f"Preparing {plural(len(cases), 'scan')} {hands} into {out}", flush=True)
    try:
        store, report = store_cases(
            cases,
            out,
            preprocess=preprocess,
            dtype=dtype,
            workers=workers,
            cluster=cluster,
            verify=verify,
            progress=progress,
        )
    except StoreError as error:
        raise PrepareError(str(error)) from error
    if not store.cases:
        raise PrepareError(_none_usable(report))
    if progress:
        print("\n".join(map(fill, [_count_patients(store), *_tell_labelled(named)])))
    return store


def _tell(
    sources: Sequence[ScanSource], named: Sequence[str | Path], pattern: str | None
) -> list[tuple[str | None, str]]:
    """Who every scan is of, and what says so; None is whom the file names, or a patient of its own."""
    told = tell_patients(
        {source.case_id: source.paths[0] for source in sources},
        roots=named,
        pattern=pattern,
        given={s.case_id: Told(s.patient, BY_DICOM) for s in sources if s.patient and s.patient_named},
        studies={s.case_id: s.patient for s in sources if s.patient and not s.patient_named},
    )
    found = [told[source.case_id] for source in sources]
    return [
        (None if one.by == BY_DICOM or one.patient == source.case_id else one.patient, one.by)
        for source, one in zip(sources, found, strict=True)
    ]


def _count_patients(store: Store) -> str:
    """How many patients there are, and what they are told apart by."""
    patients = {record.patient for record in store.cases}
    ways = Counter(record.patient_by or "names" for record in store.cases)
    text = f"Patients: {len(patients)} ({len(store.cases)} scans), told apart by {' and '.join(ways)}."
    if len(patients) == 1 < len(store.cases) and BY_DICOM in ways:
        text += " If that is because ids were made anonymous alike, say who is who with --patient-pattern."
    return text


def _tell_labelled(named: Sequence[str | Path]) -> list[str]:
    """Whether scans of labelled cases are among those prepared, which pre-training mustn't be tested on."""
    folders = [str(folder) for _, folder in look_around(named)[0]]
    if not folders:
        return []
    return [
        f"Note: {name_some(folders)} holds labels, and the scans beside it were prepared, too. Those that a "
        "task is tested on must not be pre-trained on: name it with pretrain --held-out."
    ]


def _none_usable(report: IngestReport) -> str:
    count = len(report.set_aside)
    reasons = tell_reasons(report.set_aside, of=count)
    more = f"; and {len(reasons) - 5} more reasons" if len(reasons) > 5 else ""
    return f"none of {count} scans could be used: {'; '.join(reasons[:5])}{more}"
