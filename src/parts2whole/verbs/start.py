"""From folders of scans to a plan: look at everything, try a few steps, write a study with its reasons."""

from __future__ import annotations

import dataclasses
import itertools
import os
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from parts2whole.errors import Parts2WholeError, name_some, tell_reasons
from parts2whole.files import write_text
from parts2whole.jobs.pool import usable_cores
from parts2whole.jobs.run import check_workers
from parts2whole.report.summary import format_duration
from parts2whole.scans.case import SourceCase
from parts2whole.scans.preprocess import Modality
from parts2whole.scans.read import ReadError, ScanSource, find_scans
from parts2whole.study.budget import Cost, Length, Sizes, choose_length, choose_pretraining, estimate
from parts2whole.study.draft import Draft
from parts2whole.study.settings import BATCH, Choice, choose, choose_sides, draft_study, values
from parts2whole.study.trial import FEW, Trial, try_out
from parts2whole.survey.propose import Proposal, Target
from parts2whole.survey.survey import Survey, survey_scans
from parts2whole.survey.table import plural, settings
from parts2whole.survey.targets import look_inside
from parts2whole.tasks.segmentation import Segmentation
from parts2whole.tasks.sides import FEW_TESTED
from parts2whole.verbs import paste, words
from parts2whole.verbs.benchmark import study_verbs
from parts2whole.verbs.inspect import is_labelled

SHORTEST_MINUTES = 1.0
FEWEST = 3
"""Labelled patients: one to train, one to validate and one to test on."""


class StartError(Parts2WholeError, ValueError):
    """Folders that no plan can be made for."""


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
        """Facts, warnings and commands, in 80 columns."""
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
    minutes: float = 60.0,
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
        labelled: labelled cases: a folder with images/ and labels/, or a dataset.json; default: ``scans``
            itself, where it is such a folder.
        out: the plan to write.
        minutes: what all of it may take; numbers of steps, seeds and labels follow from it.
        modality: ``CT``, ``MR``, or ``auto``: what the files say, or their voxels.
        workers: processes that the plan will be run in; default one a GPU, or one a core.
        progress: show progress bars.

    Returns:
        The plan, and the commands that run it.

    Raises:
        StartError: nothing found, scans of two modalities, or too few labelled patients.
        parts2whole.tasks.base.TaskError: labelled cases that can't be used.
        parts2whole.study.trial.TrialError: a few steps fail.
    """
    path = Path(out)
    if path.exists():
        others = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
        other = next(one for one in others if not one.exists())
        raise StartError(f"{path} is there already; remove it, or name another file: --out {other}")
    if not minutes >= SHORTEST_MINUTES:
        raise StartError(f"minutes must be {SHORTEST_MINUTES:g} or more, got {minutes:g}")
    check_workers(workers, None)
    scans = Path(scans)
    if labelled is None and is_labelled(scans):
        labelled = scans
    found = _look(scans, None if labelled is None else Path(labelled), progress=progress)
    proposal, chosen, why = _choose_modality(found.survey.proposals, modality)
    gpu = torch.cuda.is_available()
    choose_all = partial(
        choose,
        proposal,
        modality=chosen,
        modality_why=why,
        scans=scans.resolve(),
        labelled=None if found.labelled is None else found.labelled.resolve(),
        patients=len(found.patients),
        gpu=gpu,
    )
    if progress:
        print(
            f"Trying a few steps on {'the GPU' if gpu else 'the CPU'}, to know how long they take", flush=True
        )
    choice, trial = _try(choose_all, found, workers)
    batch = choice.pretrain["batch_size"].value
    sizes = found.sizes()
    options = {"seconds": 60 * minutes, "batch_size": batch, "cores": usable_cores()}
    length = (choose_length if choice.task else choose_pretraining)(trial, sizes, **options)
    cost = estimate(length, trial, sizes, tried_batch=batch, cores=usable_cores())
    told = _tell(found, proposal, length, cost, trial)
    warnings = _warn(found, sizes, cost, minutes, why, chosen)
    name, task_name = f"What pre-training on {scans.resolve().name} gives", "task"
    if found.labelled is not None:
        task_name = found.labelled.resolve().name
        name = f"What pre-training on {scans.resolve().name} gains on {task_name}"
    whole = paste.command("benchmark", path) if choice.task else ""
    opening = (f"Written by parts2whole start. {told[0]}", told[-1], "", *warnings)
    draft = draft_study(
        choice, length, sizes, name=name, task_name=task_name, opening=opening, minutes=minutes
    )
    store, run = "store", "runs/parts2whole"
    write_text(path, draft.study() if choice.task else draft.pretraining(store, run))
    return Started(
        path, told, warnings, whole, _commands(choice, length, draft, path, store, run), length, cost
    )


@dataclasses.dataclass(frozen=True)
class _Found:
    """What was looked at.

    Attributes:
        survey: of scans and labelled cases.
        scans: those to pre-train on that can be used.
        copies: how many of them are scans of labelled cases, too.
        labelled: folder of labelled cases.
        cases: labelled cases.
        patients: a case of every patient among them.
        targets: what is labelled in them.
    """

    survey: Survey
    scans: tuple[ScanSource, ...]
    copies: int
    labelled: Path | None = None
    cases: tuple[SourceCase, ...] = ()
    patients: tuple[SourceCase, ...] = ()
    targets: tuple[Target, ...] = ()

    def sizes(self) -> Sizes:
        """How many there are of everything."""
        test, validation = choose_sides(len(self.patients)) if self.patients else (0, 0)
        train = len(self.patients) - test - validation
        return Sizes(len(self.scans), len(self.cases), train, validation, test)

    def few_scans(self) -> list[Path]:
        """Files of a few scans, evenly spread."""
        return [path for source in _spread(self.scans) for path in source.paths]

    def few_cases(self) -> list[SourceCase]:
        """Labelled cases of a few patients, evenly spread."""
        return _spread(self.patients)


def _spread(things: Sequence[Any]) -> list[Any]:
    """A few of them, evenly spaced."""
    return [things[number * len(things) // FEW] for number in range(FEW)] if len(things) > FEW else [*things]


def _look(scans: Path, labelled: Path | None, *, progress: bool) -> _Found:
    """Look at everything once.

    Raises:
        StartError: no scans, none that can be used, or too few labelled patients.
        parts2whole.tasks.base.TaskError: labelled cases that can't be used.
    """
    cases: tuple[SourceCase, ...] = ()
    patients: dict[str, SourceCase] = {}
    targets: tuple[Target, ...] = ()
    try:
        sources = find_scans([scans])
    except ReadError as error:
        raise StartError(str(error)) from error
    if not sources:
        raise StartError(f"no scans found in {scans}")
    if labelled is not None:
        task = Segmentation(labelled)
        cases = tuple(task.tell_patients(task.sources().cases))
        for case in cases:
            patients.setdefault(case.patient or case.case_id, case)
        if len(patients) < FEWEST:
            people = plural(len(patients), "labelled patient")
            raise StartError(
                f"{labelled} has {people}; to train, validate and test takes {FEWEST}. Leave it out for a "
                "plan of the pre-training alone"
            )
        targets = look_inside(cases, ignored=task.ignored_value, progress=progress)
    named = [scans] if labelled is None else [scans, labelled]
    survey = survey_scans(named, targets=targets, progress=progress)
    usable = {_key(entry.source, entry.case_id): entry for entry in survey.scans if not entry.passed_over}
    mine = [source for source in sources if _key(str(source.paths[0]), source.case_id) in usable]
    if not mine:
        why = "; ".join(tell_reasons({e.case_id: str(e.problem) for e in survey.unusable}, of=len(sources)))
        raise StartError(f"none of {len(sources)} scans in {scans} can be used" + (f": {why}" if why else ""))
    labelled_files = {_key(str(file), "") for case in cases for file in case.files()}
    theirs = {
        entry.facts.content_hash
        for key, entry in usable.items()
        if key in labelled_files and entry.facts is not None
    }
    hashes = [usable[_key(str(source.paths[0]), source.case_id)].facts for source in mine]
    copies = sum(facts is not None and facts.content_hash in theirs for facts in hashes)
    return _Found(survey, tuple(mine), copies, labelled, cases, tuple(patients.values()), targets)


def _key(source: str, case_id: str) -> str:
    """What an entry of the survey and its source have in common: the file, or for DICOM the case id."""
    return case_id if source.endswith((" DICOM file", " DICOM files")) else os.path.abspath(source)


def _choose_modality(proposals: Sequence[Proposal], asked: Modality) -> tuple[Proposal, Modality, str]:
    """The proposal to go by, the modality, and why.

    Raises:
        StartError: there are scans of several modalities.
    """
    most = max(proposals, key=lambda proposal: proposal.scans)
    if asked != "auto":
        return next((one for one in proposals if one.modality == asked), most), asked, "as --modality said"
    named = [one for one in proposals if one.modality != "unclear"]
    if len(named) > 1:
        counts = ", ".join(f"{one.scans} {one.modality}" for one in named)
        raise StartError(
            f"scans of several modalities: {counts}. A plan is for one of them: give a folder or a .txt list "
            "of one, or say --modality"
        )
    if not named:
        why = "a guess: the files don't say it, and the voxels aren't Hounsfield units"
        return most, "MR", why
    one = named[0]
    if one.modality != "CT":
        return one, "MR", f"the files say {one.modality}"
    if len(proposals) > 1:
        return one, "auto", "most are CT; of the others it is unclear, and they are set aside"
    return one, "CT", "what the files say, or their voxels show: air near -1000"


def _try(choose_all: Callable[..., Choice], found: _Found, workers: int | None) -> tuple[Choice, Trial]:
    """Settings whose batch fits into memory, and what they take.

    Raises:
        StartError: not even a single whole fits.
    """
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


def _tell(found: _Found, proposal: Proposal, length: Length, cost: Cost, trial: Trial) -> tuple[str, ...]:
    """What was found, what is proposed, and what it takes."""
    unusable = f", {len(found.survey.unusable)} more can't be used" if found.survey.unusable else ""
    there = f"{plural(len(found.scans), 'scan')} to pre-train on{unusable}"
    if found.labelled is not None:
        people, labels = plural(len(found.patients), "patient"), plural(len(found.targets), "label")
        there += f"; {plural(len(found.cases), 'labelled case')} of {people}, {labels}"
    proposed = "; ".join(f"{name} {value}" for name, value, _ in settings(proposal))
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


def _warn(
    found: _Found, sizes: Sizes, cost: Cost, minutes: float, why: str, modality: Modality
) -> tuple[str, ...]:
    """What should be known before the plan is run."""
    told = []
    if why.startswith("a guess"):
        told.append(f"taken as {modality}, which is {why}; --modality says otherwise.")
    if found.copies:
        told.append(
            f"{found.copies} of {len(found.scans)} scans are scans of labelled cases, too, voxel for voxel: "
            "held_out keeps those of validation and test patients out of pre-training."
        )
    if found.survey.unusable:
        named = name_some([entry.case_id for entry in found.survey.unusable])
        told.append(f"can't be used: {named}; parts2whole inspect says why.")
    if found.labelled is not None and sizes.test < FEW_TESTED:
        told.append(
            f"a test side of {plural(sizes.test, 'patient')} is too small to show anything: with fewer than "
            f"{FEW_TESTED} not even a difference of one sign in all of them has p < 0.05."
        )
    if cost.total_s > 60 * minutes * 1.1:
        told.append(
            f"the shortest plan that makes sense takes longer than the {minutes:g} minutes asked for."
        )
    return tuple(told)


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


def fill(text: str) -> str:
    """Text in 80 columns."""
    return textwrap.fill(text, **words.LAYOUT)
