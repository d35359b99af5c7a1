"""Do one piece of a study's work in a worker: a pre-training, or a fine-tuning."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import torch
from filelock import FileLock

from parts2whole.files import write_text
from parts2whole.report.results import test_figures
from parts2whole.report.runs import as_number, read_run
from parts2whole.report.tables import metric_title
from parts2whole.study.devices import end_with
from parts2whole.study.work import (
    LOCKS,
    PRETRAINING,
    Job,
    Outcome,
    is_finished,
    mark_finished,
    on_one_device,
)


class HasResult(Protocol):
    """What a verb gives back: the figures of `result.json`."""

    @property
    def result(self) -> dict[str, Any]:
        """The figures."""


Verb = Callable[..., HasResult]
"""`pretrain` or `finetune`, which are upstairs: a study is told which to call."""


def do_job(job: Job, *, pretrain: Verb, finetune: Verb) -> Outcome:
    """Do one piece of work; never raises, except for Ctrl-C in the process that runs the study itself."""
    began = time.monotonic()
    alone = job.parent != os.getpid()
    try:
        if job.parent is not None and alone:
            end_with(job.parent)
        if job.threads is not None:
            torch.set_num_threads(job.threads)
        for module in job.own:
            with contextlib.suppress(ImportError):  # a class that is needed will be missed by its name
                importlib.import_module(module)
        locks = job.folder.parent / LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{job.folder.name}.lock"):  # another call of the same study may be at it
            message = _do(job, pretrain if job.kind == PRETRAINING else finetune)
        return Outcome(job.title, job.kind, job.digest, time.monotonic() - began, message, failed=False)
    except KeyboardInterrupt:
        if not alone:
            raise
        return Outcome(job.title, job.kind, job.digest, time.monotonic() - began, "stopped")
    except Exception as error:
        with contextlib.suppress(OSError):
            write_text(job.failure, traceback.format_exc())
        message = f"{error} ({type(error).__name__}; {job.failure})"
        return Outcome(job.title, job.kind, job.digest, time.monotonic() - began, message)


def _do(job: Job, verb: Verb) -> str:
    if not is_finished(job.folder):
        done = verb(out=job.folder, **on_one_device(job), resume="auto", progress=False)
        mark_finished(job, done.result)
    run = read_run(job.folder)
    if job.kind == PRETRAINING:
        loss = as_number(run.result["validation_loss"])
        return "validation loss undefined" if loss is None else f"validation loss {loss:.4g}"
    name, value = next(iter(test_figures(run).items()), ("no result", math.nan))
    return f"{metric_title(name)} " + ("undefined" if math.isnan(value) else f"{value:.4f}")
