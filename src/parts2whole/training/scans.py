"""Scans without labels: which are pre-trained on, which are measured on, and the card that tells of them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from parts2whole.files import read_json
from parts2whole.methods.base import Method
from parts2whole.networks.base import Network
from parts2whole.spec import digest, spec_from_dict
from parts2whole.store.record import describe_patients
from parts2whole.store.split import (
    Split,
    SplitError,
    join_patients,
    read_split,
    split_by_patient,
    write_split,
)
from parts2whole.store.store import Store
from parts2whole.tasks.base import Task, default_cache
from parts2whole.weights.card import Card
from parts2whole.wholes.sampler import WholeSize
from parts2whole.wholes.where import Anywhere, Where, usual_where

SCANS = "scans"
"""In ``split.json`` of a pre-training: the hash of every scan's voxels."""


@dataclasses.dataclass(frozen=True)
class Sides:
    """Case ids of the scans to train on and to measure on, and what the user should know of the choice.

    Attributes:
        train: to train on.
        validation: to measure on; the same where there is a single patient.
        patients: of every case; those that share a scan, voxel for voxel, are one.
        hashes: of every case's voxels.
        patients_by: what they are told apart by, in words.
        notes: what the user should know.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    patients: Mapping[str, str]
    hashes: Mapping[str, str]
    patients_by: str
    notes: tuple[str, ...]

    @property
    def held_out(self) -> list[str]:
        """What is measured on and not trained on."""
        return sorted(set(self.validation) - set(self.train))

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Patients and images of both sides."""
        sides = {"train": self.train, "validation": self.validation}
        return {
            name: {"patients": len({self.patients[case] for case in cases}), "images": len(cases)}
            for name, cases in sides.items()
        }

    def describe(self) -> str:
        """Who is where, in a line."""
        train, validation = (f"{n['patients']} ({n['images']} scans)" for n in self.counts.values())
        return f"patients to train on: {train}, to validate: {validation}; told apart by {self.patients_by}."

    def write(self, path: Path, *, where: Where) -> None:
        """Save them as a split without a test side, with the rule by which wholes are drawn."""
        split = Split(self.train, self.validation, ())
        scans = {case: self.hashes[case] for case in (*self.train, *self.validation)}
        about = {
            "sides": self.counts,
            "patients_by": self.patients_by,
            "where": where.to_dict(),
            SCANS: scans,
        }
        write_split(split, path, **about)

    def choose_where(self, scans: Store, path: Path | None) -> Where:
        """The rule by which wholes are drawn where none is given.

        Args:
            scans: where they are.
            path: what `write` left of a run that is gone on with; version 0.1.0 drew them anywhere.
        """
        if path is None or not path.exists():
            return usual_where(scans, self.train)
        kept = read_json(path).get("where")
        return spec_from_dict(kept, Where) if kept else Anywhere()  # type: ignore[type-abstract]

    def kept_in(self, path: Path) -> Sides:
        """Those that a run was begun with, as `write` left them; these, where it left none.

        Raises:
            SplitError: a scan of theirs isn't in the store any more, or is another now.
        """
        if not path.exists():
            return self
        kept = read_split(path)
        lost = sorted({*kept.train, *kept.validation} - set(self.patients))
        if lost:
            raise SplitError(f"the store has lost {', '.join(lost[:5])}, which the run was begun with")
        hashes = read_json(path).get(SCANS) or {}  # none of runs of version 0.1.0
        others = sorted(case for case, kept_hash in hashes.items() if self.hashes[case] != kept_hash)
        if others:
            raise SplitError(
                f"{', '.join(others[:5])} in the store are other scans than those that {path.parent} was "
                "begun with: put them back, choose another --out, or delete that folder"
            )
        return dataclasses.replace(self, train=kept.train, validation=kept.validation)


def choose_sides(scans: Store, *, held_out: Task | None, validation_fraction: float, seed: int) -> Sides:
    """Divide the scans by patient, without patients that a target task will be validated or tested on.

    Raises:
        SplitError: no scans are left, or no such fraction.
        parts2whole.tasks.labelled.TaskError: the labelled data of ``held_out`` can't be used.
    """
    who = join_patients({record.case_id: record.patient for record in scans.cases}, scans.duplicates())
    cases = [record.case_id for record in scans.cases]
    notes = []
    if held_out is not None:
        hashes = held_out.held_out_hashes(cache=default_cache())
        barred = {record.case_id for record in scans.cases if not hashes.isdisjoint(record.hashes())}
        people = {who[case] for case in barred}
        cases = [case for case in cases if who[case] not in people]
        others = len(scans.cases) - len(cases) - len(barred)
        more = f", and {others} others of the same patients," if others else ""
        notes.append(
            f"{len(barred)} of {len(scans.cases)} scans belong to the held-out task{more} and are left out"
        )
    if not cases:
        raise SplitError(f"no scans to train on in {scans.path}" + "".join(f": {note}" for note in notes))
    patients = {case: who[case] for case in cases}
    train = validation = tuple(sorted(patients))
    if len(set(patients.values())) < 2 or validation_fraction == 0:
        notes.append("no patient is held out: validation wholes come from the training scans")
    else:
        split = split_by_patient(patients, validation=validation_fraction, test=0, seed=seed)
        train, validation = tuple(sorted(split.train)), tuple(sorted(split.validation))
    by = describe_patients([scans.record(case) for case in cases], set(patients.values()))
    voxels = {record.case_id: record.content_hash for record in scans.cases}
    return Sides(train, validation, who, voxels, by, tuple(notes))


def make_card(
    scans: Store, sides: Sides, *, network: Network, size: WholeSize, method: Method, steps: int
) -> Card:
    """The card of an encoder pre-trained on these scans."""
    records = [scans.record(case) for case in sorted({*sides.train, *sides.validation})]
    modalities = {record.modality for record in records}
    preprocess = scans.preprocess
    if len(modalities) == 1:
        preprocess = preprocess.replace(modality=modalities.pop())
    z, y, x = (statistics.median(r.spacing_mm[axis] for r in records) for axis in range(3))
    seen = tuple(sorted({found for record in records for found in record.hashes()}))
    return Card(
        network=network,
        in_channels=records[0].channels,
        preprocess=preprocess,
        whole_size=size.voxels,
        whole_mm=size.mm,
        spacing_mm=(z, y, x),
        method=method.to_dict(),
        steps=steps,
        seen=seen,
        fingerprint=digest(list(seen)),
        series=tuple(sorted({record.series for record in records} - {""})),
        citation=method.citation,
        version=metadata.version("parts2whole"),
    )
