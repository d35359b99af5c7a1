"""Splits by patient: deterministic, saved as JSON, with nested subsets for label fractions.

A patient's place is a function of the seed and the patient's own id, so adding patients later never
moves the others between subsets more than it must, and no patient is ever on two sides.  Where a class would
be absent from a side although there are patients enough for it, patients change places until it isn't.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parts2whole.errors import Parts2WholeError
from parts2whole.files import write_text

Occurring = Mapping[str, Collection[Hashable]]
"""What occurs in every case: the classes that are in it."""

Classes = Mapping[str, frozenset[Hashable]]
"""The same of every patient."""

BY_NEED = ("train", "test", "validation")
"""Who gets a class that is too rare for all: nothing is learnt without it, then nothing is measured."""

ATTEMPTS = 32
"""Orders of the patients that are tried until every class is where it can be."""


class SplitError(Parts2WholeError, ValueError):
    """A split or a subset that can't be made from these cases."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Case ids of the three sides.

    Attributes:
        train: ordered so that any prefix of patients is a fair subset.
        validation: what settings and stopping are chosen on.
        test: what results are reported on.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def to_json(self, **about: Any) -> str:
        """The split as JSON text, with what else a reader should know ``about`` it."""
        return json.dumps(dataclasses.asdict(self) | about, indent=1)

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
    occurring: Occurring | None = None,
) -> Split:
    """Divide cases into train, validation and test so that no patient is on two sides.

    Every class of ``occurring`` is on every side if at least three patients have it and the sides are large
    enough; of two patients one is for training and one for the test.  A side grows by what it takes to hold
    every class, as long as the training side stays the largest.

    Args:
        patients: patient id of every case id.
        validation: share of the patients, in [0, 1).
        test: share of the patients, in [0, 1).
        seed: another seed, another split.
        strata: an optional class of every case; its proportions are kept on every side.
        occurring: what occurs in every case and must be on every side; default: its stratum.

    Raises:
        SplitError: too few patients to give every non-zero share one, or impossible shares.
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise SplitError(f"shares must be in [0, 1) and leave a rest: {validation=}, {test=}")
    order = order_patients(patients, seed=seed, strata=strata)
    shares = {"test": test, "validation": validation}
    sizes = {side: max(1, round(share * len(order))) for side, share in shares.items() if share}
    if len(order) < 1 + len(sizes):
        raise SplitError(
            f"{len(order)} patients can't be split into {1 + len(sizes)} sides; "
            "add labelled patients, or set a share to 0"
        )
    classes = _by_patient(patients, strata, occurring)
    needed = len(_cover(order, _common(classes, 1 + len(sizes))))
    for side in sizes:
        grown = sizes | {side: max(sizes[side], needed)}
        if len(order) - sum(grown.values()) >= max(needed, *grown.values()):
            sizes = grown
    sides = _divide(order, sizes, classes, seed)
    cases: dict[str, list[str]] = defaultdict(list)
    for case, patient in sorted(patients.items()):
        cases[patient].append(case)
    train, validated, tested = (
        tuple(case for patient in sides.get(name, ()) for case in cases[patient])
        for name in ("train", "validation", "test")
    )
    return Split(train, validated, tested)


def fold_by_patient(
    patients: Mapping[str, str],
    *,
    fold: int,
    of: int,
    validation: float,
    seed: int = 0,
    strata: Mapping[str, object] | None = None,
    occurring: Occurring | None = None,
) -> Split:
    """One of several splits whose test sides are disjoint and have every patient: cross-validation.

    The proportions of strata are kept in every fold.  The rest is divided as by `split_by_patient`.

    Args:
        patients: patient id of every case id.
        fold: which one is tested, from 1.
        of: how many there are.
        validation: share of all patients, in [0, 1).
        seed: another seed, other folds.
        strata: an optional class of every case.
        occurring: what occurs in every case; default: its stratum.

    Raises:
        SplitError: no such fold, or too few patients.
    """
    order = order_patients(patients, seed=seed, strata=strata)
    if not 2 <= of <= len(order):
        raise SplitError(f"folds must be from 2 to the number of patients, {len(order)}; got {of}")
    if not 1 <= fold <= of:
        raise SplitError(f"a fold of {of} must be from 1 to {of}, got {fold}")
    kinds = dict.fromkeys(order, "")
    for case, patient in patients.items():  # as `order_patients` tells them apart
        kinds[patient] = max(kinds[patient], str(strata[case]) if strata else "")
    tested = sorted(order, key=lambda patient: kinds[patient])[fold - 1 :: of]  # dealt, kind by kind
    rest = {case: patient for case, patient in patients.items() if patient not in set(tested)}
    share = validation * len(order) / max(1, len(order) - len(tested))
    inner = split_by_patient(rest, validation=share, test=0.0, seed=seed, strata=strata, occurring=occurring)
    cases = [case for patient in tested for case in sorted(patients) if patients[case] == patient]
    return Split(inner.train, inner.validation, tuple(cases))


def join_patients(patients: Mapping[str, str], scans: Mapping[str, str]) -> dict[str, str]:
    """The patient of every case, where patients that share a scan are taken for one.

    Args:
        patients: patient id of every case id.
        scans: what every case is a copy of, or itself.
    """
    named: dict[str, str] = {}

    def root(patient: str) -> str:
        while named.get(patient, patient) != patient:
            patient = named[patient]
        return patient

    owners: dict[str, str] = {}
    for case, patient in patients.items():
        named[root(patient)] = root(owners.setdefault(scans.get(case, case), patient))
    return {case: root(patient) for case, patient in patients.items()}


def labelled_subset(
    train: Sequence[str],
    patients: Mapping[str, str],
    *,
    fraction: float = 1.0,
    count: int | None = None,
    seed: int = 0,
    strata: Mapping[str, object] | None = None,
    occurring: Occurring | None = None,
) -> tuple[str, ...]:
    """The first patients of a seeded order: subsets of one seed are nested.

    The order begins with few patients that together have every class, so that a small subset has as many
    classes as it can hold; a subset that has them all in any case isn't touched.

    Args:
        train: case ids to choose from.
        patients: patient id of every case id.
        fraction: share of the patients, rounded up; ignored where ``count`` is given.
        count: number of patients.
        seed: another seed, another order.
        strata: an optional class of every case, kept in proportion.
        occurring: what occurs in every case; default: its stratum.

    Raises:
        SplitError: ``fraction`` outside (0, 1], or more patients asked for than there are.
    """
    mine = {case: patients[case] for case in train}
    order = order_patients(mine, seed=seed, strata=strata)
    if count is None:
        if not 0 < fraction <= 1:
            raise SplitError(f"fraction must be in (0, 1], got {fraction}")
        count = math.ceil(fraction * len(order) - 1e-9)
    if not 1 <= count <= len(order):
        raise SplitError(f"asked for {count} labelled patients, the training side has {len(order)}")
    classes = _by_patient(mine, strata, occurring)
    first = min((_cover(order[: _complete(order, classes)], classes), _cover(order, classes)), key=len)
    chosen = set([*first, *(patient for patient in order if patient not in first)][:count])
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


def _draw(seed: int | str, patient: str) -> str:
    return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()


def _by_patient(
    patients: Mapping[str, str], strata: Mapping[str, object] | None, occurring: Occurring | None
) -> Classes:
    """The classes of every patient; empty where nothing is known of them."""
    found: dict[str, set[Hashable]] = defaultdict(set)
    for case, patient in patients.items():
        found[patient].update(occurring[case] if occurring else [str(strata[case])] if strata else ())
    return {patient: frozenset(classes) for patient, classes in found.items()}


def _common(classes: Classes, least: int) -> Classes:
    """Only the classes that at least so many patients have."""
    counts = Counter(itertools.chain.from_iterable(classes.values()))
    return {p: frozenset(c for c in found if counts[c] >= least) for p, found in classes.items()}


def _cover(order: Sequence[str], classes: Classes) -> list[str]:
    """Few patients that together have every class, each with as many new ones as there are."""
    missing = {each for patient in order for each in classes[patient]}
    chosen: list[str] = []
    while missing:
        chosen.append(max(order, key=lambda patient: len(classes[patient] & missing)))  # the first of equals
        missing -= classes[chosen[-1]]
    return chosen


def _complete(order: Sequence[str], classes: Classes) -> int:
    """Length of the shortest beginning that has every class."""
    first: dict[Hashable, int] = {}
    for place, patient in enumerate(order, start=1):
        for each in classes[patient]:
            first.setdefault(each, place)
    return max(first.values(), default=0)


def _divide(
    order: Sequence[str], sizes: Mapping[str, int], classes: Classes, seed: int
) -> dict[str, list[str]]:
    """Patients by side: cut from the order, then swapped until every class is where it can be."""
    counts = Counter(itertools.chain.from_iterable(classes.values()))
    names = [side for side in BY_NEED if side == "train" or side in sizes]
    least = [sum(count <= place for count in counts.values()) for place in range(len(names))]
    found: list[tuple[list[int], dict[str, list[str]]]] = []
    for attempt in range(ATTEMPTS):
        again = sorted(order, key=lambda patient: _draw(f"{seed}:{attempt}", patient))
        left = iter(order if attempt == 0 else again)
        sides = {side: list(itertools.islice(left, size)) for side, size in sizes.items()}
        sides["train"] = list(left)
        found.append((_swap(sides, names, counts, classes), sides))
        if found[-1][0] == least:
            break
    return min(found, key=lambda one: one[0])[1]


def _swap(
    sides: dict[str, list[str]], names: Sequence[str], classes: Iterable[Hashable], of: Classes
) -> list[int]:
    """Exchange patients of two sides while fewer classes are then missing, the first side's before all.

    Returns:
        How many classes are missing on every side.
    """
    held = {side: Counter(c for patient in sides[side] for c in of[patient]) for side in names}

    def missing(changes: Mapping[str, Counter[Hashable]]) -> list[int]:
        return [sum(held[s][c] + changes.get(s, _NONE)[c] <= 0 for c in classes) for s in names]

    while True:
        now = missing({})
        best: tuple[list[int], str, int, str, int] | None = None
        kinds = {side: _kinds(sides[side], of) for side in names}
        for side, other in itertools.permutations(names, 2):
            wanted = {each for each in classes if not held[side][each]}
            useful = [(into, j) for into, j in kinds[other].items() if into & wanted]
            for (into, j), (out, i) in itertools.product(useful, kinds[side].items()):
                gained = Counter(into)
                gained.subtract(out)
                then = missing({side: gained, other: Counter({c: -n for c, n in gained.items()})})
                if then < (best[0] if best else now):
                    best = (then, side, i, other, j)
        if best is None:
            return now
        _, side, i, other, j = best
        sides[side][i], sides[other][j] = sides[other][j], sides[side][i]
        for patient, gains, loses in ((sides[side][i], side, other), (sides[other][j], other, side)):
            held[gains].update(of[patient])
            held[loses].subtract(of[patient])


_NONE: Counter[Hashable] = Counter()


def _kinds(patients: Sequence[str], of: Classes) -> dict[frozenset[Hashable], int]:
    """The place of the first patient of every kind: those with the same classes are alike."""
    found: dict[frozenset[Hashable], int] = {}
    for place, patient in enumerate(patients):
        found.setdefault(of[patient], place)
    return found


def write_split(split: Split, path: Path, **about: Any) -> None:
    """Save a split, with what else a reader should know ``about`` it."""
    write_text(path, split.to_json(**about))


def read_split(path: Path) -> Split:
    """Load a split saved by `write_split`."""
    return Split.from_json(path.read_text())
