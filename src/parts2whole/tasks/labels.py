"""What the values of label maps mean: classes that exclude each other, regions of them, what is ignored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.errors import name_some
from parts2whole.evaluation.regions import IGNORED, Regions, metric_name
from parts2whole.scans.preprocess import Preprocess, spacing_text
from parts2whole.store.store import CaseRecord
from parts2whole.tasks.labelled import TaskError


@dataclasses.dataclass(frozen=True)
class LabelMeaning:
    """What a data set says of its label values.

    Attributes:
        names: the class of every value that may occur but the ignored one; values may share a class.
        ignored: value of voxels that take part in nothing: no loss, no metric, no prediction.
        written: the value of each class in predicted masks.
        regions: names of the classes that make up each region, where regions are measured.
    """

    names: Mapping[int, str]
    ignored: int | None = None
    written: Mapping[str, int] = dataclasses.field(default_factory=dict)
    regions: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def classes(self, values: Sequence[int]) -> tuple[str, ...]:
        """The classes of the values that occur, background first.

        Raises:
            TaskError: a value that has no meaning.
        """
        unknown = sorted(set(values) - set(self.names) - {self.ignored})
        if unknown:
            raise TaskError(
                f"label maps hold {_listed(unknown)}, which dataset.json doesn't name; it names "
                f"{_listed(sorted(self.names))}"
            )
        there = dict.fromkeys(self.names[value] for value in sorted({0, *values}) if value in self.names)
        return tuple(there)

    def indices(self, label: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Label values as indices into ``classes``; `IGNORED` where they are to be ignored."""
        places = {name: index for index, name in enumerate(classes)}
        known = {value: places[name] for value, name in self.names.items() if name in places}
        return map_values(label, known | ({} if self.ignored is None else {self.ignored: IGNORED}))

    def regions_of(self, classes: Sequence[str]) -> Regions:
        """The regions that have a class, as indices into ``classes``."""
        found = {
            region: tuple(index for index, name in enumerate(classes) if name in members)
            for region, members in self.regions.items()
        }
        return {metric_name(region): indices for region, indices in found.items() if indices}


def check_not_negative(values: Mapping[int, Sequence[str]], ignored: int | None) -> None:
    """Refuse label values below 0, which no class has.

    Args:
        values: the cases that hold each value.
        ignored: the value to be ignored, which may be any.

    Raises:
        TaskError: with the values and some of the cases.
    """
    wrong = [value for value in sorted(values) if value < 0 and value != ignored]
    if wrong:
        cases = list(dict.fromkeys(case for value in wrong for case in values[value]))
        raise TaskError(
            f"label values must be 0 (background) or above, found {_listed(wrong)} in {len(cases)} label "
            f"maps, such as that of {cases[0]}. If this marks voxels that aren't annotated, say so with "
            f"--task.ignore-label {wrong[0]}; else write the label maps anew"
        )


def lost_notes(
    records: Sequence[CaseRecord], preprocess: Preprocess, *, ignored: int | None
) -> tuple[str, ...]:
    """A note on every label value that resampling has lost, and where."""
    cases: dict[int, list[str]] = {}
    for record in records:
        for value in record.labels_lost:
            cases.setdefault(value, []).append(record.case_id)
    at = spacing_text(preprocess.spacing_mm)
    return tuple(
        f"label {value} of {name_some(names)} vanished at {at}: it isn't learned there, and counts as missed "
        "where it is tested"
        for value, names in sorted(cases.items())
        if value != ignored
    )


def class_indices(
    label: npt.NDArray[Any], classes: Sequence[str], ignored: int | None = None
) -> npt.NDArray[np.int64]:
    """Label values as indices into ``classes``, whose names are the values.

    Args:
        label: values, any shape.
        classes: the value of every class.
        ignored: a value that becomes `IGNORED`.

    Raises:
        TaskError: a value that isn't among them.
    """
    known = {int(name): index for index, name in enumerate(classes)}
    return map_values(label, known | ({} if ignored is None else {ignored: IGNORED}))


def map_values(label: npt.NDArray[Any], known: Mapping[int, int]) -> npt.NDArray[np.int64]:
    """Every value replaced by what ``known`` says of it.

    Raises:
        TaskError: a value that isn't known.
    """
    values = np.array(sorted(known), np.int64)
    places = np.minimum(np.searchsorted(values, label), len(values) - 1)
    wrong = values[places] != label
    if wrong.any():
        found = _listed(np.unique(label[wrong]).tolist())
        raise TaskError(f"label maps hold {found}; the classes have {_listed(values.tolist())}")
    indices: npt.NDArray[np.int64] = np.array([known[value] for value in values.tolist()], np.int64)[places]
    return indices


def _listed(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:8]))
    return f"{shown} and {len(values) - 8} more" if len(values) > 8 else shown
