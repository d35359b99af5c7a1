"""Scans without labels: which are pre-trained on, which are measured on, and the card that tells of them."""

from __future__ import annotations

import dataclasses
import statistics
from importlib import metadata

from parts2whole.methods.base import Method
from parts2whole.networks.base import Network
from parts2whole.spec import digest
from parts2whole.store.split import SplitError, split_by_patient
from parts2whole.store.store import Store
from parts2whole.tasks.base import Task, default_cache
from parts2whole.weights.card import Card
from parts2whole.wholes.sampler import WholeSize


@dataclasses.dataclass(frozen=True)
class Sides:
    """Case ids of the scans to train on and to measure on, and what the user should know of the choice."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def held_out(self) -> list[str]:
        """What is measured on and not trained on."""
        return sorted(set(self.validation) - set(self.train))


def choose_sides(scans: Store, *, held_out: Task | None, validation_fraction: float, seed: int) -> Sides:
    """Divide the scans by patient, without those that a target task will be validated or tested on.

    Raises:
        SplitError: no scans are left, or no such fraction.
        parts2whole.tasks.base.TaskError: the labelled data of ``held_out`` can't be used.
    """
    records = list(scans.cases)
    notes = []
    if held_out is not None:
        barred = held_out.held_out_hashes(cache=default_cache())
        records = [record for record in scans.cases if barred.isdisjoint(record.hashes())]
        left_out = len(scans.cases) - len(records)
        notes.append(f"{left_out} of {len(scans.cases)} scans belong to the held-out task and are left out")
    if not records:
        raise SplitError(f"no scans to train on in {scans.path}" + "".join(f": {note}" for note in notes))
    patients = {record.case_id: record.patient for record in records}
    everything = tuple(sorted(patients))
    if len(set(patients.values())) < 2 or validation_fraction == 0:
        notes.append("no patient is held out: validation wholes come from the training scans")
        return Sides(everything, everything, tuple(notes))
    split = split_by_patient(patients, validation=validation_fraction, test=0, seed=seed)
    return Sides(tuple(sorted(split.train)), tuple(sorted(split.validation)), tuple(notes))


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
