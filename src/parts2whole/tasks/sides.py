"""Who is on which side of a split, and what the sides are too small to say."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from parts2whole.errors import name_some, plural
from parts2whole.files import read_json
from parts2whole.run_folder import SPLIT
from parts2whole.store.split import Split
from parts2whole.tasks.base import Examination, Task
from parts2whole.tasks.labelled import LabelledData

NAMES = {"train": "training", "validation": "validation", "test": "test"}
MARKS = "items"
"""In ``split.json`` of a fine-tuning: what every case is, see `LabelledData.marks`."""
FEW_TESTED = 6
"""With fewer patients not even a difference of one sign in all of them has p < 0.05 (two-sided sign test)."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a split.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        patients: how many people.
        images: how many scans.
        items: how many things to learn from or be tested on.
        classes: how many patients have each class.
    """

    name: str
    patients: int
    images: int
    items: int
    classes: dict[str, int]

    def describe(self) -> str:
        """In one line."""
        items = f", {plural(self.items, 'item')}" if self.items != self.images else ""
        held = ", ".join(f"{name!r}: {number}" for name, number in self.classes.items())
        classes = f"; patients with {held}" if held else ""
        people = f"{plural(self.patients, 'patient')}, {plural(self.images, 'image')}{items}"
        return f"  {NAMES[self.name]:<11} {people}{classes}"


def count_sides(labelled: LabelledData, split: Split) -> tuple[Side, ...]:
    """The three sides in numbers."""
    return tuple(_count_side(labelled, name, getattr(split, name)) for name in NAMES)


def about_split(labelled: LabelledData, split: Split) -> dict[str, Any]:
    """What ``split.json`` says beside the split: numbers of sides, who is one patient, what cases are."""
    sides = {side.name: dataclasses.asdict(side) for side in count_sides(labelled, split)}
    for side in sides.values():
        del side["name"]
    marks = labelled.marks((*split.train, *split.validation, *split.test))
    return {"sides": sides, "patients_by": labelled.patients_by, MARKS: marks}


def refuse_changed(labelled: LabelledData, run: Path, *, items: Collection[str]) -> None:
    """Refuse data in which cases of a run aren't what they were; see `LabelledData.refuse_changed`.

    Args:
        labelled: the data as they are.
        run: its folder.
        items: look at these of its cases.
    """
    marks = read_json(run / SPLIT).get(MARKS) or {}  # none of runs of version 0.1.0
    wanted = {name: marks[name] for name in items if name in marks}
    labelled.refuse_changed(wanted, of=f"the run in {run}")


def describe_sides(labelled: LabelledData, split: Split) -> list[str]:
    """Who is where, in lines."""
    told_apart = f"  Patients are told apart by {labelled.patients_by}."
    return [*(side.describe() for side in count_sides(labelled, split)), told_apart]


def remarks(task: Task, labelled: LabelledData, split: Split) -> list[str]:
    """What the user should know of a split before training: what is missing, and what is too little."""
    sides = {side.name: side for side in count_sides(labelled, split)}
    notes = []
    for side in sides.values():
        if side.patients:
            notes += _absent(labelled, side)
    if not task.can_judge(labelled, split.validation):
        notes.append(
            f"{task.monitor} is undefined on the validation side: the step is chosen by the validation loss "
            "instead, and nothing stops early"
        )
    if not (task.can_judge(labelled, split.test) or any(labelled.item(item).lost for item in split.test)):
        notes.append(f"{task.monitor} is undefined on the test side: this run has no figure to be judged by")
    if sides["test"].patients < FEW_TESTED:
        notes.append(
            f"a test side of {plural(sides['test'].patients, 'patient')} says next to nothing of others"
        )
    for name in ("train", "validation"):
        if sides[name].patients == 1:
            notes.append(f"a {NAMES[name]} side of 1 patient: much depends on who that is")
    return [*notes, *_left_out(labelled), *_contradictions(labelled)]


def undefined_in(task: Task, examined: Examination) -> list[str]:
    """How many test items have no figure of their own, so that the mean is over the others."""
    values = [row[task.monitor] for row in examined.per_item if task.monitor in row]
    without = sum(value != value for value in values)
    if not without:
        return []
    return [
        f"{task.monitor} is undefined in {without} of {len(values)} test items, as nothing was to be found "
        "and nothing was; the mean is over the others"
    ]


def _count_side(labelled: LabelledData, name: str, items: Sequence[str]) -> Side:
    mine = [labelled.item(item) for item in items]
    occurring = labelled.occurring()
    lost = {item.item_id: item.lost if name == "test" else frozenset() for item in mine}  # scored, see Item
    held = {(item.patient, each) for item in mine for each in occurring[item.item_id] | lost[item.item_id]}
    numbers = Counter(each for _, each in held)
    return Side(
        name,
        patients=len({item.patient for item in mine}),
        images=len({item.case_id for item in mine}),
        items=len(mine),
        classes={labelled.classes[each]: numbers[each] for each in labelled.expected_classes()},
    )


def _absent(labelled: LabelledData, side: Side) -> list[str]:
    """Classes that nobody on a side has."""
    absent = [name for name, number in side.classes.items() if not number]
    among = f"among the {plural(side.patients, f'{NAMES[side.name]} patient')}"
    by_class = labelled.strata() is not None
    if not absent:
        return []
    if not by_class and len(absent) == len(side.classes):
        return [f"no foreground {among}"]
    if by_class and len(side.classes) == 2:
        sign = "positive" if absent[0] == labelled.classes[1] else "negative"
        return [f"no {sign} ({absent[0]}) {among}"]
    return [f"no {name_some(absent)} {among}"]


def _left_out(labelled: LabelledData) -> list[str]:
    """Items of patients that a data set's own split has on two sides."""
    sides: dict[str, set[str]] = defaultdict(set)
    for item in labelled.items:
        sides[item.patient].add(item.side or "")
    counting = {
        p: next((side for side in ("test", "validation", "train") if side in found), "")
        for p, found in sides.items()
    }
    lost = [item.item_id for item in labelled.items if item.side and item.side != counting[item.patient]]
    if not lost:
        return []
    return [
        f"{plural(len(lost), 'item')} of the data set's own split left out, whose patients or scans are on a "
        f"side that counts more, too: {name_some(lost)}"
    ]


def _contradictions(labelled: LabelledData) -> list[str]:
    """Copies of one scan that are labelled differently."""
    first: dict[tuple[object, ...], int | None] = {}
    found = []
    twins = labelled.store.duplicates()
    for item in labelled.items if labelled.strata() else ():
        record = labelled.store.record(item.case_id)
        scan = twins.get(item.case_id, item.case_id)
        place = (scan, record.shape, record.origin_mm, item.centre)
        if first.setdefault(place, item.target) != item.target:
            found.append(item.item_id)
    return [f"copies of one scan have different classes: {name_some(found)}"] if found else []
