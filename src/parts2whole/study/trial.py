"""A trial before a plan is made: a few steps of everything, as a study would run them, timed.

Every worker that the study will have tries the same at the same time, on a few of the scans, so that what is
measured has them all competing for the machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from parts2whole.errors import Parts2WholeError, is_out_of_memory, sentence
from parts2whole.files import read_json
from parts2whole.jobs.pool import usable_cores
from parts2whole.jobs.run import run_jobs
from parts2whole.report.runs import read_run
from parts2whole.run_folder import RESULT, SPLIT
from parts2whole.scans.case import SourceCase
from parts2whole.scans.itk import SUFFIXES, data_files
from parts2whole.scans.read import ScanSource, strip_suffix
from parts2whole.study.asked import Verbs
from parts2whole.study.devices import end_with
from parts2whole.study.plan import Settings
from parts2whole.tasks.dataset_json import copy_meaning
from parts2whole.training.model import as_function, load_model
from parts2whole.training.provenance import peak_memory_mb
from parts2whole.training.runtime import Hardware, Runtime

STEPS, EVERY = 6, 3
"""Steps that are tried; the first ``EVERY`` of them warm up."""

FEW = 4
"""Scans, and labelled cases, that are tried."""

WHOLES = 24
"""Wholes of a validation in the trial: as many as contrast is watched on; all of them would take too long."""

BACK_AND_FORTH = 3
"""A step takes as long as so many passes forward."""


class TrialError(Parts2WholeError, RuntimeError):
    """A trial that fails, as the study would."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What was measured, in seconds and megabytes (10^6 bytes), of one process among ``workers``.

    Attributes:
        workers: processes at a time.
        start_s: until a process has imported everything.
        prepare_s: preparing a scan.
        pretrain: of pre-training.
        label_s: preparing a labelled case.
        finetune: of fine-tuning; None where nothing is labelled.
        memory_mb: highest resident memory of a process.
        gpu_memory_mb: highest memory of its GPU; 0 without one.
    """

    workers: int
    start_s: float
    prepare_s: float
    pretrain: Pace
    label_s: float = 0.0
    finetune: Pace | None = None
    memory_mb: float = 0.0
    gpu_memory_mb: float = 0.0


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds of a step, of a validation (of a case, in fine-tuning), of a test case, and of all the rest."""

    step_s: float
    validation_s: float
    test_s: float
    fixed_s: float


@dataclasses.dataclass(frozen=True)
class TrialJob:
    """What a worker is told to try.

    Attributes:
        verbs: what the study calls.
        scans: a few of them.
        prepare: arguments of `prepare`.
        pretrain: arguments of `pretrain`.
        cases: a few labelled cases of different patients.
        finetune: arguments of `finetune`; the data of its task are replaced.
        folder: for everything that is made.
        threads: of the worker.
        parent: process to end with.
        asked_at: when the job was given out, by the clock of the system.
    """

    verbs: Verbs
    scans: tuple[ScanSource, ...]
    prepare: Settings
    pretrain: Settings
    cases: tuple[SourceCase, ...]
    finetune: Settings
    folder: Path
    threads: int | None
    parent: int
    asked_at: float = 0.0


def try_out(
    verbs: Verbs,
    *,
    scans: Sequence[ScanSource],
    prepare: Settings,
    pretrain: Settings,
    cases: Sequence[SourceCase] = (),
    finetune: Settings | None = None,
    workers: int | None = None,
) -> Trial:
    """Measure a few steps of everything in as many processes as a study has.

    Args:
        verbs: what the study calls.
        scans: a few of them.
        prepare: arguments of `prepare`, without those that say which scans and where to.
        pretrain: of `pretrain`, without those that say how long, on what and where to.
        cases: a few labelled cases of different patients, none where nothing is labelled.
        finetune: of `finetune`, as of `pretrain`.
        workers: processes; default one a GPU, or one a core; 0 works in this one.

    Raises:
        TrialError: it fails.
        MemoryError: there is too little memory for it.
    """
    gpus = torch.cuda.device_count()
    count = workers if workers is not None else gpus or usable_cores()
    with tempfile.TemporaryDirectory(prefix="parts2whole-trial-") as place:
        jobs = [
            TrialJob(
                verbs=verbs,
                scans=tuple(scans),
                prepare=prepare,
                pretrain=pretrain,
                cases=tuple(cases),
                finetune=finetune or {},
                folder=Path(place) / str(number),
                threads=max(1, usable_cores() // max(1, count)),
                parent=os.getpid(),
                asked_at=time.time(),
            )
            for number in range(max(1, count))
        ]
        found = list(run_jobs(_try, jobs, lost=_lost, workers=count))
    problems = [one for one in found if isinstance(one, str)]
    if any(problem == SHORT for problem in problems):
        raise MemoryError(SHORT)
    if problems:
        raise TrialError(f"a trial of {STEPS} steps failed: {problems[0]}")
    return _middle([one for one in found if isinstance(one, Trial)], max(1, count))


SHORT = "not enough memory"


def _lost(job: TrialJob) -> Trial | str:
    return SHORT


def _try(job: TrialJob) -> Trial | str:
    """Try everything; an error becomes its sentence."""
    started = time.time() - job.asked_at
    if job.parent != os.getpid():
        end_with(job.parent)
    threads = torch.get_num_threads()
    torch.set_num_threads(job.threads or threads)
    try:
        # What so few steps have learned would only worry.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return dataclasses.replace(_measure(job), start_s=started)
    except Exception as error:
        if is_out_of_memory(error):
            return SHORT
        return sentence(error) or f"{type(error).__name__}: {error}"
    finally:
        torch.set_num_threads(threads)


def _measure(job: TrialJob) -> Trial:
    store, run = job.folder / "store", job.folder / "pretraining"
    began = time.monotonic()
    files = [path for source in job.scans for path in source.paths]
    job.verbs.prepare(files, out=store, workers=0, progress=False, **job.prepare)
    prepared = (time.monotonic() - began) / len(job.scans)
    length: Settings = {"steps": STEPS, "validate_every": EVERY, "validation_wholes": WHOLES}
    spent = _time(lambda: job.verbs.pretrain(store, out=run, progress=False, **job.pretrain, **length))
    step, validation = _read_pace(run)
    fixed = max(0.0, spent - STEPS * step - (1 + STEPS // EVERY) * validation)
    usual = inspect.signature(job.verbs.pretrain).parameters["validation_wholes"].default
    whole = step / (BACK_AND_FORTH * job.pretrain["batch_size"])
    memory = read_json(run / RESULT)
    trial = Trial(
        1,
        0.0,
        prepared,
        Pace(step, validation + max(0, usual - WHOLES) * whole, 0.0, fixed),
        memory_mb=memory.get("peak_memory_mb", 0.0),
        gpu_memory_mb=memory.get("peak_gpu_memory_mb", 0.0),
    )
    return _measure_finetuning(job, trial) if job.cases else trial


def _measure_finetuning(job: TrialJob, trial: Trial) -> Trial:
    """Add what fine-tuning takes, from scratch: other weights are no faster."""
    out, cache = job.folder / "finetuning", job.folder / "cache"
    task = job.finetune["task"].replace(
        data=_link(job.cases, Path(job.finetune["task"].data), job.folder / "labelled"),
        validation_fraction=1 / len(job.cases),
        test_fraction=1 / len(job.cases),
    )
    prepared = _time(lambda: task.labelled(cache=cache, workers=0, progress=False)) / len(job.cases)
    settings = job.finetune | {"task": task, "cache": cache, "progress": False}
    spent = _time(lambda: job.verbs.finetune(out=out, steps=STEPS, validate_every=EVERY, **settings))
    step, validation = _read_pace(out)
    validated = read_json(out / SPLIT)["validation"]
    labelled = task.labelled(cache=cache, workers=0, progress=False)
    model, _ = load_model(out)
    predictor = as_function(model, Runtime(settings.get("hardware", Hardware())))
    tested = [item.item_id for item in labelled.items]  # all of them, as cases differ in size
    with torch.no_grad():
        light = _time(lambda: task.examine(predictor, labelled, tested, thorough=False)) / len(tested)
        thorough = _time(lambda: task.examine(predictor, labelled, tested, thorough=True)) / len(tested)
    rest = spent - STEPS * step - (2 + STEPS // EVERY) * validation - len(validated) * thorough
    memory = peak_memory_mb()
    return dataclasses.replace(
        trial,
        label_s=prepared,
        finetune=Pace(step, light, thorough, max(0.0, rest)),
        memory_mb=max(trial.memory_mb, memory.get("peak_memory_mb", 0.0)),
        gpu_memory_mb=max(trial.gpu_memory_mb, memory.get("peak_gpu_memory_mb", 0.0)),
    )


def _time(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _read_pace(folder: Path) -> tuple[float, float]:
    """Seconds of a step and of a validation, from the records of a run, without the steps that warm up."""
    at = {(line["split"], line["step"]): line["time_s"] for line in read_run(folder).records}
    trained, validated = at["train", STEPS], at["validation", STEPS]
    return (trained - at["validation", STEPS - EVERY]) / EVERY, validated - trained


def _link(cases: Sequence[SourceCase], root: Path, folder: Path) -> Path:
    """The cases as a folder of their own, without copying them, with what their dataset.json says of them."""
    to_images, to_labels = ("imagesTr", "labelsTr") if copy_meaning(root, folder) else ("images", "labels")
    for number, case in enumerate(cases):
        files = case.files()
        if any(source.is_series for source in case.scan_sources()):
            for place, file in enumerate(files):
                _link_one(file, folder / f"case{number}", f"{place}")
            continue
        images, label = files[: len(case.images)], files[len(case.images)]
        for channel, image in enumerate(images):
            name = f"case{number}" + (f"_{channel:04d}" if len(images) > 1 else "")
            _link_one(image, folder / to_images, name)
        _link_one(label, folder / to_labels, f"case{number}")
    return folder


def _link_one(file: Path, folder: Path, name: str) -> None:
    """Link a file under a name of its own, and its detached data under theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = file.name[len(strip_suffix(file.name)) :]
    others = data_files(file)[1:] if file.name.lower().endswith(SUFFIXES) else ()
    for source, target in [(file, f"{name}{suffix}"), *((other, other.name) for other in others)]:
        try:
            (folder / target).symlink_to(source.resolve())
        except FileExistsError:
            continue
        except OSError:  # a file system without links
            shutil.copyfile(source, folder / target)


def _middle(found: Sequence[Trial], workers: int) -> Trial:
    """The mean of what the processes measured, and the largest memory."""
    fields = ("step_s", "validation_s", "test_s", "fixed_s")

    def mean(paces: Sequence[Pace]) -> Pace:
        return Pace(*(statistics.fmean(getattr(pace, name) for pace in paces) for name in fields))

    tuned = [one.finetune for one in found if one.finetune is not None]
    return Trial(
        workers,
        statistics.fmean(one.start_s for one in found),
        statistics.fmean(one.prepare_s for one in found),
        mean([one.pretrain for one in found]),
        statistics.fmean(one.label_s for one in found),
        mean(tuned) if tuned else None,
        max(one.memory_mb for one in found),
        max(one.gpu_memory_mb for one in found),
    )
