"""From folders of scans to a plan: look at everything, try a few steps, write a study with its reasons."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from parts2whole.errors import name_some, plural
from parts2whole.files import refuse_present, write_text
from parts2whole.jobs.pool import usable_cores
from parts2whole.jobs.run import check_workers
from parts2whole.progress import fill
from parts2whole.report.summary import format_duration
from parts2whole.scans.layout import is_labelled
from parts2whole.scans.preprocess import Modality
from parts2whole.study.budget import Cost, Length, choose_length, enough, estimate
from parts2whole.study.draft import Draft
from parts2whole.study.look import GUESS, Found, StartError, look
from parts2whole.study.settings import BATCH, Choice, choose, draft_study, values
from parts2whole.study.trial import Trial, try_out
from parts2whole.survey.propose import WHOLE_VOXELS, Proposal
from parts2whole.survey.table import settings
from parts2whole.tasks.sides import FEW_TESTED
from parts2whole.verbs import paste
from parts2whole.verbs.benchmark import study_verbs

SHORTEST_MINUTES = 1.0
SMALLER = 0.6
"""Wholes of more than this share of the voxels of others take about as long."""


@dataclasses.dataclass(frozen=True)
class Started:
    """The plan that was written.

    Attributes:
        path: the plan.
        facts: what was found, and what the plan will take, in sentences.
        warnings: what should be known before it is run.
        whole: the command that runs all of it; empty where nothing is labelled.
        steps: the same step by step.
        length: how long training is.
        cost: how long that takes, as tried.
    """

    path: Path
    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    whole: str
    steps: tuple[str, ...]
    length: Length
    cost: Cost

    def summary(self) -> str:
        """Facts, warnings and commands."""
        lines = [fill(text) for text in (*self.facts, *(f"Note: {text}" for text in self.warnings))]
        lines.append(fill(f"Wrote {self.path}, with the reason of every value beside it."))
        if self.whole:
            lines += paste.next_step("all of it, to a table and a page", self.whole)
            lines += ["Or step by step:", *self.steps]
        else:
            lines += paste.next_step("in this order", *self.steps)
        return "\n".join(lines)


def start(
    scans: str | Path,
    labelled: str | Path | None = None,
    *,
    out: str | Path = "plan.yaml",
    minutes: float = 30.0,
    modality: Modality = "auto",
    workers: int | None = None,
    progress: bool = True,
) -> Started:
    """Look at scans and labelled cases, try a few steps on this machine, and write a plan for them.

    With labels the plan is a study: the labelled cases segmented from scratch and after pre-training on the
    scans, which `benchmark` runs to a table and a page.  Without, it is a configuration of `pretrain`.  Every
    value has its reason beside it, and is meant to be changed.

    Args:
        scans: unlabelled scans: a folder (searched with subfolders), a glob, or a ``.txt`` list.
        labelled: labelled cases: a folder with images/ and labels/, with a dataset.json, or of DICOM series
            and the segmentations and RTSTRUCTs that refer to them; default: ``scans`` itself, where it is
            one of the first two.
        out: the plan to write.
        minutes: what all of it may take; numbers of steps, seeds and labels follow from it. Half an hour is
            the least in which two cores give some hundred small scans several seeds.
        modality: ``CT``, ``MR``, or ``auto``: what the files say, or their voxels.
        workers: processes that the plan will be run in; default one a GPU, or one a core.
        progress: show progress bars.

    Returns:
        The plan, and the commands that run it.

    Raises:
        parts2whole.files.PresentError: ``out`` is there already.
        StartError: nothing found, scans of two modalities, or too few labelled patients.
        parts2whole.tasks.labelled.TaskError: labelled cases that can't be used.
        parts2whole.study.trial.TrialError: a few steps fail.
    """
    path = Path(out)
    refuse_present(path)
    if not minutes >= SHORTEST_MINUTES:
        raise StartError(f"minutes must be {SHORTEST_MINUTES:g} or more, got {minutes:g}")
    check_workers(workers, None)
    scans = Path(scans)
    if labelled is None and is_labelled(scans):
        labelled = scans
    found = look(scans, None if labelled is None else Path(labelled), progress=progress).taken_as(modality)
    fitted = _fit(found, scans, modality, minutes=minutes, workers=workers, progress=progress)
    choice, length = fitted.choice, fitted.length
    told = _tell(found, fitted)
    warnings = _warn(found, fitted, minutes)
    name, task_name = f"What pre-training on {scans.resolve().name} gives", "task"
    if found.labelled is not None:
        task_name = found.labelled.resolve().name
        name = f"What pre-training on {scans.resolve().name} gains on {task_name}"
    hands = {} if workers is None else {"workers": workers}
    whole = paste.command("benchmark", path, **hands) if choice.task else ""
    draft = draft_study(
        choice,
        length,
        found.sizes(),
        name=name,
        task_name=task_name,
        opening=(f"Written by parts2whole start. {told[0]}", told[-1], *(f"Note: {one}" for one in warnings)),
        minutes=minutes,
    )
    store, run = "store", "runs/parts2whole"
    write_text(path, draft.study() if choice.task else draft.pretraining(store, run))
    steps = _commands(choice, length, draft, path, store, run)
    return Started(path, told, warnings, whole, steps, length, fitted.cost)


@dataclasses.dataclass(frozen=True)
class _Fitted:
    """Settings that fit into memory and time, and what was tried of them."""

    proposal: Proposal
    modality: Modality
    guessed: bool
    choice: Choice
    trial: Trial
    length: Length
    cost: Cost


def _fit(
    found: Found, scans: Path, modality: Modality, *, minutes: float, workers: int | None, progress: bool
) -> _Fitted:
    """Settings with the largest wholes for which time suffices: those that `inspect` proposes, or a quarter.

    Raises:
        StartError: there is too little memory.
    """
    gpu, seconds = torch.cuda.is_available(), 60 * minutes
    last: _Fitted | None = None
    for voxels in (WHOLE_VOXELS, WHOLE_VOXELS // 4):
        proposal, chosen, why = found.propose(modality, voxels=voxels)
        if last is not None:
            if math.prod(proposal.whole_voxels) > SMALLER * math.prod(last.proposal.whole_voxels):
                break
            told = f"Smaller than inspect proposes, as that takes longer than {minutes:g} minutes"
            proposal = dataclasses.replace(proposal, whole_why=f"{told}. {proposal.whole_why}")
        if progress:
            edges = " x ".join(map(str, proposal.whole_voxels))
            place = "the GPU" if gpu else "the CPU"
            print(f"Trying a few steps on {place} with wholes of {edges} voxels", flush=True)
        choose_all = partial(
            choose,
            proposal,
            modality=chosen,
            modality_why=why,
            scans=scans.resolve(),
            labelled=None if found.labelled is None else found.labelled.resolve(),
            structures=found.structures,
            patients=len(found.patients),
            gpu=gpu,
        )
        choice, trial = _try(choose_all, found, workers)
        batch, sizes = choice.pretrain["batch_size"].value, found.sizes()
        length = choose_length(trial, sizes, seconds=seconds, batch_size=batch, cores=usable_cores())
        cost = estimate(length, trial, sizes, tried_batch=batch, cores=usable_cores())
        last = _Fitted(proposal, chosen, why.startswith(GUESS), choice, trial, length, cost)
        if length.is_ample and length.batch_size == batch:
            break
    assert last is not None
    return last


def _try(choose_all: Callable[..., Choice], found: Found, workers: int | None) -> tuple[Choice, Trial]:
    """Settings whose batch fits into memory, and what they take."""
    batch = BATCH
    while batch:
        choice = choose_all(batch_size=batch)
        try:
            trial = try_out(
                study_verbs(),
                scans=found.few_scans(),
                prepare=choice.prepare_settings(),
                pretrain=choice.pretrain_settings(),
                cases=found.few_cases() if choice.task else (),
                finetune=choice.finetune_settings() if choice.task else None,
                workers=workers,
            )
            return choice, trial
        except MemoryError:
            batch //= 2
    raise StartError(
        "there is too little memory to train on a single whole in every process; give --workers 1, or use a "
        "machine with more"
    )


def _tell(found: Found, fitted: _Fitted) -> tuple[str, ...]:
    """What was found, what is proposed, and what it takes."""
    length, cost, trial = fitted.length, fitted.cost, fitted.trial
    unusable = f", {len(found.unusable)} more can't be used" if found.unusable else ""
    there = f"{plural(len(found.scans), 'scan')} to pre-train on{unusable}"
    if found.labelled is not None:
        people, labels = plural(len(found.patients), "patient"), plural(len(found.targets), "label")
        there += f"; {plural(len(found.cases), 'labelled case')} of {people}, {labels}"
    proposed = "; ".join(f"{name} {value}" for name, value, _ in settings(fitted.proposal))
    memory = f"{trial.memory_mb / 1000:.1f} GB a process"
    memory += f", {trial.gpu_memory_mb / 1000:.1f} GB of a GPU" if trial.gpu_memory_mb else ""
    parts = [f"preparing {_minutes(cost.prepare_s)}", f"pre-training {_minutes(cost.pretrain_s)}"]
    if length.finetunings:
        many = f"{length.finetunings} fine-tunings"
        parts.append(f"{many} of {_minutes(cost.finetune_s)}")
    hands = f"{trial.workers} process{'es' * (trial.workers > 1)}"
    took = (
        f"Estimate, from a trial on this machine: {_minutes(cost.total_s)} in {hands} ({', '.join(parts)}); "
        f"peak {memory}."
    )
    return f"{there}.", f"Proposed: {proposed}.", took


def _minutes(seconds: float) -> str:
    return (
        f"{seconds:.0f} s" if seconds < 60 else format_duration(60 * round(seconds / 60)).removesuffix(" 0 s")
    )


def _warn(found: Found, fitted: _Fitted, minutes: float) -> tuple[str, ...]:
    """What should be known before the plan is run."""
    sizes = found.sizes()
    tested = sizes.test
    told = []
    if fitted.guessed:
        why = fitted.choice.prepare["modality"].why
        told.append(f"taken as {fitted.modality}, which is {why}; --modality says otherwise.")
    if found.several:
        told.append(
            f"{plural(found.several, 'scan')} more with several volumes each are left out; step by step, "
            "prepare --volumes-4d takes one of them, or all as channels."
        )
    if found.others:
        why = (
            "it is unclear whether they are CT"
            if fitted.modality == "auto"
            else f"their files say they aren't {fitted.modality}"
        )
        told.append(f"{plural(found.others, 'scan')} more left out: {why}.")
    if found.copies:
        told.append(
            f"{found.copies} of {len(found.scans)} scans are scans of labelled cases, too, voxel for voxel: "
            "held_out keeps those of validation and test patients out of pre-training."
        )
    if found.unusable:
        told.append(f"can't be used: {name_some(found.unusable)}; parts2whole inspect says why.")
    if found.labelled is not None and tested < FEW_TESTED:
        small = (
            f"a test side of {plural(tested, 'patient')} is too small to show anything: with fewer than "
            f"{FEW_TESTED} not even a difference of one sign in all of them has p < 0.05."
        )
        if sizes.folds > 1:
            small += (
                f" So there are {sizes.folds} folds: every labelled patient is tested once a seed, in "
                f"{sizes.folds} times as many fine-tunings."
            )
        told.append(small)
    told += _tell_short(fitted, found, minutes)
    return tuple(told)


def _tell_short(fitted: _Fitted, found: Found, minutes: float) -> list[str]:
    """Whether the plan is too short to show anything, or longer than asked for, and what it would take."""
    if not fitted.choice.task:
        return []
    batch, cores = fitted.choice.pretrain["batch_size"].value, usable_cores()
    ample = enough(found.sizes(), batch)
    takes = estimate(ample, fitted.trial, found.sizes(), tried_batch=batch, cores=cores).total_s
    longer = (
        f"--minutes {math.ceil(takes / 60)} gives {ample.seeds} seeds of {ample.finetune_steps} steps or more"
    )
    if fitted.cost.total_s > 60 * minutes * 1.1:
        return [f"no plan fits into {minutes:g} minutes; this is the shortest, and only a try. {longer}."]
    if fitted.length.seeds < ample.seeds or not fitted.length.is_ample:
        return [f"in {minutes:g} minutes it is only a try, too short to show anything. {longer}."]
    return []


def _commands(
    choice: Choice, length: Length, draft: Draft, plan: Path, store: str, run: str
) -> tuple[str, ...]:
    """The plan as commands to be pasted."""
    prepared = paste.command("prepare", choice.prepare["scans"].value, out=store, **choice.prepare_settings())
    if not choice.task:
        embedded = paste.command("embed", run)
        return prepared, paste.command("pretrain", config=plan), embedded
    pretrained = choice.pretrain_settings() | values(draft.pretrain) | {"held_out": choice.segmentation}
    tuned = choice.finetune_settings() | values(draft.finetune)
    cases = next(count for count in length.cases if count is not None)
    del tuned["network"]
    return (
        prepared,
        paste.command("pretrain", store, out=run, **pretrained),
        paste.command("finetune", out="runs/finetuned", init=run, cases=cases, **tuned),
    )
