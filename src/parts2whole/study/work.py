"""Pieces of a study's work: what a worker is told and tells, what is left to do, what is done."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from parts2whole.files import read_json, write_json
from parts2whole.jobs.pool import usable_cores
from parts2whole.own import own_modules
from parts2whole.run_folder import CELL, CHECKPOINTS, ENVIRONMENT, RESULT, WEIGHTS
from parts2whole.spec import to_plain
from parts2whole.study.devices import claim_gpu
from parts2whole.study.plan import Settings, Study, name_labels, name_steps

LOCKS = ".locks"
PRETRAINING = "pre-training"


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker is told.

    Attributes:
        kind: `PRETRAINING` or the name of the task, with its steps where there are several; pieces of one
            kind take about equally long.
        title: what it is called.
        digest: of its settings.
        folder: where it is done.
        settings: arguments of the verb, without ``out``.
        about: what is kept with the result: arm, task, labels, seed.
        needs: digest of the pre-training that must be there first.
        threads: of the worker; None leaves them as they are.
        parent: process to end with; None on a cluster.
        keep_model: keep the trained model.
        own: modules with classes of the user's own, which folders of earlier work name.
    """

    kind: str
    title: str
    digest: str
    folder: Path
    settings: Settings
    about: Settings
    needs: str | None = None
    threads: int | None = None
    parent: int | None = None
    keep_model: bool = True
    own: tuple[str, ...] = ()

    @property
    def failure(self) -> Path:
        """Where the reason of a failure is kept: beside the folder, which may not have been begun."""
        return self.folder.with_name(f"{self.folder.name}.failure.txt")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a worker tells: how long it took, and the result or the reason of a failure in words."""

    title: str
    kind: str
    digest: str
    seconds: float
    message: str
    failed: bool = True


def is_finished(folder: Path) -> bool:
    """Whether a piece of work is done and never has to be run again."""
    return (folder / CELL).exists() and (folder / RESULT).exists()


def make_jobs(study: Study, *, local_workers: int | None, cluster: bool) -> tuple[list[Job], list[Job]]:
    """What is left to do.

    Returns:
        Jobs that can be begun at once, pre-trainings first; and fine-tunings that need one of these.
    """
    cores = usable_cores()
    threads = (
        None if cluster else max(1, cores // max(1, local_workers or (cores if local_workers is None else 1)))
    )
    common: dict[str, Any] = {"threads": threads, "parent": None if cluster else os.getpid()}
    common["own"] = tuple(own_modules())
    left = [finetuning for finetuning in study.finetunings if not is_finished(finetuning.folder)]
    wanted = dict.fromkeys(finetuning.pretraining for finetuning in left)
    first = [
        Job(PRETRAINING, one.title, key, one.folder, one.settings, {"arm": one.arm}, **common)
        for key, one in study.pretrainings.items()
        if key in wanted and not is_finished(one.folder)
    ]
    begun = {job.digest for job in first}
    then: list[Job] = []
    for finetuning in left:
        about = {
            "arm": finetuning.arm,
            "task_name": finetuning.task,
            "labels": finetuning.labels,
            "seed": finetuning.seed,
        }
        about |= {"monitor": finetuning.metric} if finetuning.metric else {}
        about |= {"fold": list(finetuning.fold)} if finetuning.fold else {}
        job = Job(
            finetuning.task + name_steps(finetuning.steps),
            finetuning.title,
            finetuning.digest,
            finetuning.folder,
            finetuning.settings,
            about | {"pretraining": finetuning.pretraining},
            needs=finetuning.pretraining,
            keep_model=study.keep_models,
            **common,
        )
        (then if finetuning.pretraining in begun else first).append(job)
    return first, then


def on_one_device(job: Job) -> Settings:
    """The job's settings, for one device; several GPUs of a machine are shared out among its workers."""
    hardware = job.settings["hardware"]
    if hardware.devices != "auto":
        return job.settings
    if torch.cuda.device_count() > 1:
        claims = job.folder.parent / LOCKS
        os.environ["CUDA_VISIBLE_DEVICES"] = str(claim_gpu(claims, torch.cuda.device_count()))
    return job.settings | {"hardware": hardware.replace(devices=1)}


def mark_finished(job: Job, result: Settings) -> None:
    """Write what the result must be judged by, last of all, and drop what only an unfinished run needs."""
    shutil.rmtree(job.folder / CHECKPOINTS, ignore_errors=True)
    if job.kind != PRETRAINING and not job.keep_model:
        shutil.rmtree(job.folder / WEIGHTS, ignore_errors=True)
    job.failure.unlink(missing_ok=True)
    environment = read_json(job.folder / ENVIRONMENT)
    kept = ("data_fingerprint", "duration_s", "peak_memory_mb", "peak_gpu_memory_mb")
    labels = {"labels_name": name_labels(job.about["labels"])} if "labels" in job.about else {}
    write_json(
        job.folder / CELL,
        job.about
        | labels
        | {"digest": job.digest, "config": to_plain(job.settings), "commit": environment.get("commit")}
        | {key: result[key] for key in kept if key in result}
        | {"hardware": {k: v for k, v in environment.items() if k not in ("packages", "commit")}},
    )
