"""What lies in a folder of scans and in one of labelled cases, looked at once before a plan is made."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parts2whole.errors import Parts2WholeError, plural, tell_reasons
from parts2whole.scans.case import SourceCase
from parts2whole.scans.dicom_labels import holds_labels
from parts2whole.scans.layout import holds_dicom, is_labelled
from parts2whole.scans.preprocess import Modality
from parts2whole.scans.read import ReadError, ScanSource, find_scans
from parts2whole.study.budget import Sizes
from parts2whole.study.draft import Reason
from parts2whole.study.settings import choose_folds, choose_sides
from parts2whole.study.trial import FEW
from parts2whole.survey.propose import WHOLE_VOXELS, Proposal, Target
from parts2whole.survey.survey import Facts, Survey, prepared_as, printable, propose_for, survey_scans
from parts2whole.survey.targets import look_inside
from parts2whole.tasks.dicom_segmentation import DicomSegmentation, usual_structures
from parts2whole.tasks.segmentation import Segmentation
from parts2whole.tasks.segmenting import SegmentationTask

GUESS = "a guess"
FEWEST = 3
"""Labelled patients: one to train, one to validate and one to test on."""


class StartError(Parts2WholeError, ValueError):
    """Folders that no plan can be made for."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What was looked at.

    Attributes:
        survey: of scans and labelled cases.
        scans: those to pre-train on that can be used, and what reading them showed.
        labelled: folder of labelled cases.
        structures: to be learned of what is drawn in DICOM; None where the labels are files of their own.
        cases: labelled cases.
        patients: a case of every patient among them.
        targets: what is labelled in them.
        said: modality that the labelled cases' ``dataset.json`` names; None where it names none.
        several: how many of the scans hold several volumes, and are left out.
        others: how many are of another modality than asked for, and are left out.
        theirs: content hashes of the labelled cases' images.
        drawings: case ids of DICOM segmentations and structure sets, which the survey calls unusable.
    """

    survey: Survey
    scans: Mapping[ScanSource, Facts]
    labelled: Path | None = None
    structures: Reason | None = None
    cases: tuple[SourceCase, ...] = ()
    patients: tuple[SourceCase, ...] = ()
    targets: tuple[Target, ...] = ()
    said: Modality | None = None
    several: int = 0
    others: int = 0
    theirs: frozenset[str] = frozenset()
    drawings: frozenset[str] = frozenset()

    @property
    def copies(self) -> int:
        """How many scans are those of labelled cases, too."""
        return sum(facts.content_hash in self.theirs for facts in self.scans.values())

    @property
    def unusable(self) -> tuple[str, ...]:
        """Case ids of scans that can't be used."""
        return tuple(e.case_id for e in self.survey.unusable if e.case_id not in self.drawings)

    def sizes(self) -> Sizes:
        """How many there are of everything."""
        test, validation = choose_sides(len(self.patients)) if self.patients else (0, 0)
        train = len(self.patients) - test - validation
        folds = choose_folds(len(self.patients)) or 1
        others = len(self.scans) - self.copies
        return Sizes(
            *(len(self.scans), len(self.cases), train, validation, test, folds),
            pretrainings=folds if others < self.copies else 1,
        )

    def propose(self, modality: Modality, *, voxels: int = WHOLE_VOXELS) -> tuple[Proposal, Modality, str]:
        """Settings for all of the scans, their modality, and why it is that; see `propose_for`."""
        asked = self.said if self.said is not None and modality == "auto" else modality
        entries = self.survey.entries
        if self.several:
            entries = tuple(one for one in entries if one.facts is None or one.facts.volumes == 1)
        found = propose_for(entries, self.targets, asked=asked, voxels=voxels)
        if not found:
            raise StartError(f"none of the scans can be prepared as {asked}")
        proposal, chosen, why = choose_modality(found, asked)
        return proposal, chosen, "dataset.json says so" if asked != modality else why

    def taken_as(self, modality: Modality) -> Found:
        """What is left where scans are prepared as the modality that `propose` chooses.

        Raises:
            StartError: nothing is.
        """
        proposal, chosen, _ = self.propose(modality)

        def fits(facts: Facts) -> bool:
            called = prepared_as(facts.modality, chosen, named=not facts.guessed)
            return called is not None and (chosen != "auto" or called == proposal.modality)

        kept = {source: facts for source, facts in self.scans.items() if fits(facts)}
        if not kept:
            raise StartError(
                f"none of the {len(self.scans)} scans can be prepared as {proposal.modality}, as most scans "
                "and labelled cases together: say --modality, or give scans of the labelled cases' modality"
            )
        return dataclasses.replace(self, scans=kept, others=len(self.scans) - len(kept))

    def few_scans(self) -> list[ScanSource]:
        """A few scans, evenly spread."""
        return _spread([*self.scans])

    def few_cases(self) -> list[SourceCase]:
        """Labelled cases of a few patients, evenly spread."""
        return _spread(self.patients)


def _spread(things: Sequence[Any]) -> list[Any]:
    """A few of them, evenly spaced."""
    return [things[number * len(things) // FEW] for number in range(FEW)] if len(things) > FEW else [*things]


def look(scans: Path, labelled: Path | None, *, progress: bool) -> Found:
    """Look at everything once.

    Raises:
        StartError: no scans, none that can be used, or too few labelled patients.
        parts2whole.tasks.labelled.TaskError: labelled cases that can't be used.
    """
    try:
        sources = find_scans([scans])
    except ReadError as error:
        raise StartError(str(error)) from error
    if not sources:
        raise StartError(f"no scans found in {scans}")
    task, structures = (None, None) if labelled is None else _find_task(labelled)
    cases, patients = ((), ()) if task is None else _labelled_cases(task)
    targets = () if task is None else look_inside(cases, ignored=task.ignored_value, progress=progress)
    named = [scans] if labelled is None else [scans, labelled]
    survey = survey_scans(named, targets=targets, progress=progress)
    together = find_scans(named)  # case ids of series depend on what lies beside them
    places = {one.case_id: _place(one.paths[0]) for one in together if one.is_series}
    seen = {
        places.get(entry.case_id) or os.path.abspath(entry.source): entry.facts
        for entry in survey.scans
        if entry.facts is not None and not entry.passed_over
    }
    drawings = frozenset(one.case_id for one in together if holds_labels(one))
    usable = {one: facts for one in sources if (facts := seen.get(_place(one.paths[0]))) is not None}
    if not usable:
        problems = {e.case_id: str(e.problem) for e in survey.unusable if e.case_id not in drawings}
        why = "; ".join(tell_reasons(problems, of=len(sources)))
        raise StartError(f"none of {len(sources)} scans in {scans} can be used" + (f": {why}" if why else ""))
    single = {source: facts for source, facts in usable.items() if facts.volumes == 1}
    if not single:
        raise StartError(
            f"each scan in {scans} holds several volumes: prepare them with --volumes-4d, step by step"
        )
    theirs = [seen.get(_place(file)) for case in cases for file in case.files()]
    return Found(
        survey,
        single,
        labelled,
        structures,
        cases,
        patients,
        targets,
        None if task is None else task.modality_said(),
        several=len(usable) - len(single),
        theirs=frozenset(facts.content_hash for facts in theirs if facts is not None),
        drawings=drawings,
    )


def _place(file: Path) -> str:
    """A file as the survey prints it."""
    return printable(os.path.abspath(file))


def _find_task(labelled: Path) -> tuple[SegmentationTask, Reason | None]:
    """What there is to learn, and of what is drawn in DICOM which structures."""
    if is_labelled(labelled) or not holds_dicom(labelled):
        return Segmentation(labelled), None
    structures, why = usual_structures(labelled)
    return DicomSegmentation(labelled, structures=structures), Reason(structures, why)


def _labelled_cases(task: SegmentationTask) -> tuple[tuple[SourceCase, ...], tuple[SourceCase, ...]]:
    """All labelled cases, and one of every patient."""
    cases = tuple(task.tell_patients(task.sources().cases))
    patients: dict[str, SourceCase] = {}
    for case in cases:
        patients.setdefault(case.patient or case.case_id, case)
    if len(patients) < FEWEST:
        people = plural(len(patients), "labelled patient")
        raise StartError(
            f"{task.data} has {people}; to train, validate and test takes {FEWEST}. Leave it out for a "
            "plan of the pre-training alone"
        )
    return cases, tuple(patients.values())


def choose_modality(proposals: Sequence[Proposal], asked: Modality) -> tuple[Proposal, Modality, str]:
    """The proposal to go by, the modality, and why.

    Raises:
        StartError: there are scans of several modalities.
    """
    most = max(proposals, key=lambda proposal: proposal.scans)
    if asked != "auto":
        return most, asked, "as --modality said"
    named = [one for one in proposals if one.modality != "unclear"]
    if len(named) > 1:
        counts = ", ".join(f"{one.scans} {one.modality}" for one in named)
        raise StartError(
            f"scans of several modalities: {counts}. A plan is for one of them: give a folder or a .txt list "
            "of one, or say --modality"
        )
    if not named:
        why = f"{GUESS}: the files don't say it, and the voxels aren't Hounsfield units"
        return most, "MR", why
    one = named[0]
    if one.modality != "CT":
        return one, "MR", f"the files say {one.modality}"
    unclear = sum(other.scans for other in proposals if other is not one)
    if unclear > one.scans:
        raise StartError(
            f"{one.scans} scans are CT, of {unclear} it is unclear what they are: say --modality CT or MR"
        )
    if unclear:
        return one, "auto", "most are CT; of the others it is unclear, and they are set aside"
    return one, "CT", "what the files say, or their voxels show: air near -1000"
