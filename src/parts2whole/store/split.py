"""Splits by patient: deterministic, saved as JSON, with nested subsets for label fractions.

A patient's place is a function of the seed and the patient's own id, so adding patients later never
moves the others between subsets more than it must, and no patient is ever on two sides.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from parts2whole.errors import Parts2WholeError
from parts2whole.files import write_text


class SplitError(Parts2WholeError, ValueError):
    """A split or a subset that can't be made from these cases."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Case ids of the three sides; `train` is ordered so that any prefix of patients is a fair subset."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def to_json(self) -> str:
        """The split as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read what `to_json` wrote."""
        sides = json.loads(text)
        return cls(*(tuple(sides[name]) for name in ("train", "validation", "test")))


def split_by_patient(
    patients: Mapping[str, str],
    *,
    validation: float,
    test: float,
    seed: int = 0,
    strata: Mapping[str, object] | None = None,
) -> Split:
    """Divide cases into train, validation and test so that no patient is on two sides.

    Args:
        patients: patient id of every case id.
        validation: share of the patients, in [0, 1).
        test: share of the patients, in [0, 1).
        seed: another seed, another split.
        strata: an optional class of every case; its proportions are kept on every side.

    Raises:
        SplitError: too few patients to give every non-zero share one, or impossible shares.
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise SplitError(f"shares must be in [0, 1) and leave a rest: {validation=}, {test=}")
    order = order_patients(patients, seed=seed, strata=strata)
    needed = 1 + (validation > 0) + (test > 0)
    if len(order) < needed:
        raise SplitError(
            f"{len(order)} patients can't be split into {needed} sides; "
            "add labelled patients, or set a share to 0"
        )
    n_test = max(1, round(test * len(order))) if test else 0
    n_validation = max(1, round(validation * len(order))) if validation else 0
    cases: dict[str, list[str]] = defaultdict(list)
    for case, patient in sorted(patients.items()):
        cases[patient].append(case)

    def of(chosen: Sequence[str]) -> tuple[str, ...]:
        return tuple(case for patient in chosen for case in cases[patient])

    return Split(
        train=of(order[n_test + n_validation :]),
        validation=of(order[n_test : n_test + n_validation]),
        test=of(order[:n_test]),
    )


def labelled_subset(
    train: Sequence[str],
    patients: Mapping[str, str],
    *,
    fraction: float = 1.0,
    count: int | None = None,
    seed: int = 0,
    strata: Mapping[str, object] | None = None,
) -> tuple[str, ...]:
    """The first patients of a seeded order: subsets of one seed are nested.

    Args:
        train: case ids to choose from.
        patients: patient id of every case id.
        fraction: share of the patients, rounded up; ignored where ``count`` is given.
        count: number of patients.
        seed: another seed, another order.
        strata: an optional class of every case, kept in proportion.

    Raises:
        SplitError: ``fraction`` outside (0, 1], or more patients asked for than there are.
    """
    order = order_patients({case: patients[case] for case in train}, seed=seed, strata=strata)
    if count is None:
        if not 0 < fraction <= 1:
            raise SplitError(f"fraction must be in (0, 1], got {fraction}")
        count = math.ceil(fraction * len(order) - 1e-9)
    if not 1 <= count <= len(order):
        raise SplitError(f"asked for {count} labelled patients, the training side has {len(order)}")
    chosen = set(order[:count])
    return tuple(case for case in train if patients[case] in chosen)


def order_patients(
    patients: Mapping[str, str], *, seed: int, strata: Mapping[str, object] | None = None
) -> list[str]:
    """Patients in a seeded order in which every prefix has about the same mix of strata."""
    kind: dict[str, str] = {}
    for case, patient in sorted(patients.items()):
        # A patient belongs to its largest stratum: with 0/1 labels, "has a positive".
        kind[patient] = max(kind.get(patient, ""), str(strata[case]) if strata else "")
    groups: dict[str, list[str]] = defaultdict(list)
    for patient in kind:
        groups[kind[patient]].append(patient)
    placed: list[tuple[float, str, str]] = []
    for group in groups.values():
        group.sort(key=lambda patient: _draw(seed, patient))
        placed += [((i + 0.5) / len(group), _draw(seed, p), p) for i, p in enumerate(group)]
    return [patient for _, _, patient in sorted(placed)]


def _draw(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()


def write_split(split: Split, path: Path) -> None:
    """Save a split atomically."""
    write_text(path, split.to_json())


def read_split(path: Path) -> Split:
    """Load a split saved by `write_split`."""
    return Split.from_json(path.read_text())
