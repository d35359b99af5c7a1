"""Labelled cases: as a data set has them, and prepared, with what there is to learn from them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

from parts2whole.errors import Parts2WholeError, plural
from parts2whole.scans.case import SourceCase
from parts2whole.scans.preprocess import Modality
from parts2whole.scans.volume import Box, Triple
from parts2whole.store.record import describe_patients
from parts2whole.store.split import join_patients, labelled_subset
from parts2whole.store.store import Store

CHANGED = "scan, label, class or box are others now, or rows of a table have moved"
PUBLIC_SALT = b"public data set"
"""Ids of public data sets are hashed with this, so that cases and splits are the same on every machine."""


class TaskError(Parts2WholeError, ValueError):
    """Labelled data that can't be used, with what is wrong and how to mend it."""


@dataclasses.dataclass(frozen=True)
class FoundCases:
    """The cases of a data set.

    Attributes:
        cases: what to store.
        set_aside: reason for every case that can't be used.
        sides: ``train``, ``validation`` or ``test`` of cases, where the data set prescribes it.
        notes: what else the user should know.
        modality: what the data set says that its scans are.
    """

    cases: Sequence[SourceCase]
    set_aside: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    modality: Modality | None = None


@dataclasses.dataclass(frozen=True)
class Item:
    """One thing to learn from or be tested on.

    Attributes:
        item_id: unique in the task.
        case_id: the stored volume it lies in.
        patient: never split over two sides.
        target: class index, for classification.
        side: ``train``, ``validation`` or ``test`` where the data set itself prescribes it.
        centre: where in the stored volume it lies, in voxels (z, y, x); None is all of the volume.
        lesions: what a candidate hits, of `LabelledData.lesions`.
        irrelevant: a candidate on a finding that counts neither as a lesion nor as a false positive.
        holds: foreground classes in its label map, by index, for segmentation.
        lost: those that its label file has, and resampling left no voxel of: not learned, but scored.
        box: what of the file's own array was stored as its volume; None is all of it.
    """

    item_id: str
    case_id: str
    patient: str
    target: int | None = None
    side: str | None = None
    centre: Triple | None = None
    lesions: tuple[str, ...] = ()
    irrelevant: bool = False
    holds: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()
    box: Box | None = None


@dataclasses.dataclass(frozen=True)
class LabelledData:
    """A task's data, prepared.  Patients whose scans are equal voxel for voxel are one patient.

    Attributes:
        store: the prepared volumes, with labels for segmentation.
        items: what there is to learn from.
        classes: names of the classes; index 0 of a segmentation is background.
        notes: what the user should know, such as cases set aside.
        lesions: of a detection task, every lesion of a case, found by a candidate or not.
        sources: files of every case, where label maps are read from again to be scored on.
        set_aside: reason for every case that should be there and can't be used.
    """

    store: Store
    items: tuple[Item, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    lesions: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    sources: Mapping[str, SourceCase] = dataclasses.field(default_factory=dict)
    set_aside: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def item(self, item_id: str) -> Item:
        """The item called ``item_id``.

        Raises:
            TaskError: there is none, as where a run's own split names a case that is gone.
        """
        if item_id not in self._by_id:
            raise TaskError(
                f"there is no {item_id!r} in the data; was its file removed, renamed or set aside?"
            )
        return self._by_id[item_id]

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", same_scan_same_patient(self.items, self.store))
        object.__setattr__(self, "_by_id", {item.item_id: item for item in self.items})

    _by_id: dict[str, Item] = dataclasses.field(init=False, repr=False, compare=False, default_factory=dict)

    def patients(self) -> dict[str, str]:
        """Patient of every item."""
        return {item.item_id: item.patient for item in self.items}

    def strata(self) -> dict[str, object] | None:
        """Class of every item, where items have one."""
        if any(item.target is None for item in self.items):
            return None
        return {item.item_id: item.target for item in self.items}

    def occurring(self) -> dict[str, frozenset[int]]:
        """Classes that occur in every item, by index: its own, or those in its label map."""
        return {i.item_id: i.holds if i.target is None else frozenset((i.target,)) for i in self.items}

    def fingerprint(self) -> str:
        """A hash over what is labelled, and how; empty where the store, of version 0.1.0, doesn't know it.

        That of the scans is `Store.fingerprint`.
        """
        records = [self.store.record(case) for case in sorted({item.case_id for item in self.items})]
        if any(record.has_label and not record.label_hash for record in records):
            return ""
        lines = [
            f"{item.item_id} {item.target}" + (f" {item.box}" if item.box else "") for item in self.items
        ]
        lines += [f"{record.case_id} {record.label_hash}" for record in records]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:32]

    def marks(self, item_ids: Iterable[str]) -> dict[str, str]:
        """What some items are, by their names: hashes that another scan, label, class or place changes.

        Behind a dash stands that of a place in voxels, which is another where scans are prepared otherwise.
        """
        found = {}
        for name in item_ids:
            item = self.item(name)
            record = self.store.record(item.case_id)
            kind = (item.target, len(item.lesions), item.irrelevant)
            found[name] = _hash((record.content_hash, record.label_hash, item.box, *kind))
            if item.centre:
                found[name] += f"-{_hash(round(place, 1) for place in item.centre)}"
        return found

    def refuse_changed(self, marks: Mapping[str, str], *, of: str) -> None:
        """Refuse data in which items aren't what they were, be it only that their names moved on.

        Args:
            marks: as `marks` gave them.
            of: whose they are, in words.

        Raises:
            TaskError: an item is another now, or gone.
        """
        now = self.marks(marks)
        changed = [name for name, mark in marks.items() if now[name] != mark]
        if changed:
            names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
            raise TaskError(
                f"{len(changed)} of {plural(len(marks), 'case')} of {of} changed since ({names}): {CHANGED}. "
                "Put them back, or begin a new run in another --out"
            )

    @property
    def patients_by(self) -> str:
        """What patients are told apart by, in words."""
        records = [self.store.record(case) for case in dict.fromkeys(item.case_id for item in self.items)]
        return describe_patients(records, {item.patient for item in self.items})

    def expected_classes(self) -> range:
        """Indices of the classes that every side should have: all, or those of the foreground."""
        return range(self.strata() is None, len(self.classes))

    def choose_labelled(
        self, train: Sequence[str], *, fraction: float, count: int | None, seed: int
    ) -> tuple[str, ...]:
        """Items of some training patients, with every class where that can be; see `labelled_subset`."""
        return labelled_subset(
            train,
            self.patients(),
            fraction=fraction,
            count=count,
            seed=seed,
            strata=self.strata(),
            occurring=self.occurring(),
        )


def _hash(told: Iterable[object]) -> str:
    return hashlib.sha256(" ".join(map(str, told)).encode()).hexdigest()[:8]


def same_scan_same_patient(items: Sequence[Item], store: Store) -> tuple[Item, ...]:
    """The items, where patients that share a scan, voxel for voxel, are taken for one."""
    twins = store.duplicates()
    patients = join_patients(
        {item.item_id: item.patient for item in items},
        {item.item_id: twins.get(item.case_id, item.case_id) for item in items},
    )
    return tuple(
        item
        if item.patient == patients[item.item_id]
        else dataclasses.replace(item, patient=patients[item.item_id])
        for item in items
    )
