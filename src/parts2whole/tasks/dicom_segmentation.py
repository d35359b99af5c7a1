"""Segmentation of DICOM series by the segmentations and structure sets (RTSTRUCT) that refer to them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from parts2whole.errors import name_some
from parts2whole.scans.case import IngestError, SourceCase
from parts2whole.scans.dicom_labels import (
    OR,
    DicomLabel,
    LabelObject,
    find_label_objects,
    holds,
    holds_labels,
)
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import ScanSource, find_scans, read_scan, user_salt
from parts2whole.scans.source import ReadError, hashed
from parts2whole.scans.volume import VolumeError
from parts2whole.tasks.labelled import FoundCases, TaskError
from parts2whole.tasks.labels import LabelMeaning
from parts2whole.tasks.segmenting import SegmentationTask

BACKGROUND = "background"
USUAL = 0.9
"""Share of the series with drawings on which a structure must be drawn to be learned unasked."""
SIZED = 5
"""Series in which structures are measured."""


@dataclasses.dataclass(frozen=True)
class DicomSegmentation(SegmentationTask):
    """Structures drawn on DICOM series.

    ``data`` is a folder with series and, anywhere below it, the DICOM segmentations and RTSTRUCTs that refer
    to them, as archives and planning systems give them.  Cases and patients are told apart by hashed UIDs and
    patient ids.

    Attributes:
        structures: what to learn: labels of segments or names of regions, written into masks as 1, 2, ... in
            this order; of two that overlap the later one has the voxels. Names of one structure that differ
            between files are joined by ``|``, and its class is called as the first: ``Liver|LIVER|hepar``.
        may_lack: classes that a series need not have: it is background there. A series without one of the
            others is set aside, since nobody can know whether it is absent or was not drawn.
    """

    structures: tuple[str, ...] = ()
    may_lack: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [name for structure in self.structures for name in structure.split(OR)]
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise TaskError(f"structures name {name_some(twice)} twice; a name can be of one class only")
        if "" in names:
            raise TaskError(f"structures hold an empty name, got {self.structures}")
        unknown = [name for name in self.may_lack if name not in self.names]
        if unknown:
            raise TaskError(f"may_lack names {name_some(unknown)}, the classes are {', '.join(self.names)}")

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Tiny abdomens in DICOM, with structure sets of the liver and of its lesions."""
        from parts2whole.phantom.example import write_structure_sets

        return cls(
            write_structure_sets(folder),
            structures=("Liver|liver", "Lesion"),
            may_lack=("Lesion",),
            preprocess=Preprocess(modality="CT"),
            patch_size=(16, 16, 16),
            validation_fraction=0.25,
            test_fraction=0.25,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, without background."""
        return tuple(structure.partition(OR)[0] for structure in self.structures)

    def prepared_with(self) -> Any:
        """What is a class, and what may be absent."""
        return {"structures": list(self.structures), "may_lack": list(self.may_lack)}

    def sources(self) -> FoundCases:
        """Series with the segmentations and structure sets that refer to them."""
        root = Path(self.data)
        if not root.is_dir():
            raise TaskError(f"{root} is not a folder")
        found = find_scans([root.absolute()])
        try:
            objects = find_label_objects(found)
        except ReadError as error:
            raise TaskError(str(error)) from error
        if not self.structures:
            names = Counter(name for one in objects for name in set(one.names.values()))
            there = ", ".join(f"{name} ({count})" for name, count in names.most_common()) or "none"
            raise TaskError(f"say what to learn with --task.structures; {root} holds: {there}")
        by_series: dict[str, list[LabelObject]] = defaultdict(list)
        for one in objects:
            for uid in one.series:
                by_series[hashed(uid, user_salt())].append(one)
        mine = {one.path for one in objects}
        series = [each for each in found if each.is_series and not mine.issuperset(each.paths)]
        volumes: dict[str, list[ScanSource]] = defaultdict(list)
        for each in series:
            volumes[each.series].append(each)
        cases: list[SourceCase] = []
        set_aside = {
            f"{one.kind}-{hashed(str(one.path), user_salt())}": f"{os.path.relpath(one.path, root)} names no "
            f"series, and no image that it refers to is below {root}"
            for one in objects
            if not one.series
        }
        for known, sources in volumes.items():
            for each in sources if known in by_series else ():
                reason = self._problem(each, sources, by_series[known])
                if reason:
                    set_aside[each.case_id] = reason
                else:
                    label = DicomLabel(tuple(one.path for one in by_series[known]), self.structures)
                    cases.append(SourceCase(each.case_id, (each,), label, each.patient))
        for known, lost in by_series.items():
            if known not in volumes:
                set_aside[f"{lost[0].kind}-{known}"] = f"the series that it refers to isn't below {root}"
        unlabelled = sum(known not in by_series for known in volumes)
        notes = [f"{unlabelled} series have no segmentation and no structure set"] if unlabelled else []
        return FoundCases(sorted(cases, key=lambda case: case.case_id), set_aside, notes=tuple(notes))

    def find_inputs(self, scans: Sequence[str | Path]) -> list[SourceCase]:
        """New series to predict for, without what was drawn on them."""
        found = find_scans(list(scans), keep_series_uids=True)
        return [SourceCase(source.case_id, (source,)) for source in found if not holds_labels(source)]

    def _problem(
        self, source: ScanSource, volumes: Sequence[ScanSource], objects: Sequence[LabelObject]
    ) -> str | None:
        """Why a series with segmentations or structure sets can't be used."""
        if source.problem:
            return source.problem
        if len(volumes) > 1:
            return f"its series holds {len(volumes)} volumes, and which one was drawn on can't be known"
        absent = [
            name
            for name, structure in zip(self.names, self.structures, strict=True)
            if name not in self.may_lack and not holds(objects, structure)
        ]
        if absent:
            there = sorted({name for one in objects for name in one.names.values()})
            undrawn = sorted({name for one in objects for name in one.undrawn})
            named = f" (named, but not drawn: {name_some(undrawn)})" if undrawn else ""
            return (
                f"it has no {name_some(absent)} but {name_some(there) or 'nothing'}{named}; join names of "
                f"one structure by {OR}, and list what a series may lack in --task.may-lack"
            )
        return None

    def classes_in(self, values: Sequence[int]) -> tuple[str, ...]:
        """Background, and the structures that occur."""
        return self._meaning.classes(values)

    def mask_values(self, classes: Sequence[str]) -> tuple[int, ...]:
        """The place of every class in ``structures``, from 1."""
        return tuple(self._meaning.written[name] for name in classes)

    def to_classes(self, label: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Stored values as class indices."""
        return self._meaning.indices(label, classes)

    @property
    def _meaning(self) -> LabelMeaning:
        names = dict(enumerate((BACKGROUND, *self.names)))
        return LabelMeaning(names, written={name: value for value, name in names.items()})


def usual_structures(root: Path) -> tuple[tuple[str, ...], str]:
    """What is drawn on nearly all of the series that anything is drawn on, and why it is that.

    Names that differ in nothing but case, spaces and punctuation are one structure's.  Larger ones come
    first, so that what lies inside another keeps its voxels.

    Returns:
        Structures as `DicomSegmentation` takes them, and a sentence.

    Raises:
        TaskError: nothing is drawn, or nothing on nearly all.
    """
    sources = find_scans([root.absolute()])
    try:
        objects = [one for one in find_label_objects(sources) if one.series]
    except ReadError as error:
        raise TaskError(str(error)) from error
    spelled: dict[str, Counter[str]] = defaultdict(Counter)
    drawn_on: dict[str, set[str]] = defaultdict(set)
    for one in objects:
        for name in set(one.names.values()):
            plain = "".join(filter(str.isalnum, name.casefold()))
            if plain and OR not in name:
                spelled[plain][name] += 1
                drawn_on[plain].update(one.series)
    series = set().union(*drawn_on.values())
    if not series:
        raise TaskError(f"no DICOM segmentation or structure set in {root} names a structure of a series")
    counts = {plain: len(on) for plain, on in drawn_on.items()}
    joined = {plain: OR.join(name for name, _ in spelled[plain].most_common()) for plain in counts}
    usual = [joined[plain] for plain, count in counts.items() if count >= USUAL * len(series)]
    rare = [f"{joined[plain]} ({n})" for plain, n in sorted(counts.items()) if n < USUAL * len(series)]
    if not usual:
        raise TaskError(
            f"none of the structures in {root} is drawn on {USUAL:.0%} of the {len(series)} series: "
            f"{name_some(rare)}"
        )
    size = _sizes(usual, sources, objects)
    why = f"drawn on {USUAL:.0%} or more of {len(series)} series; where two overlap, the later one counts"
    why += f". Fewer have {name_some(rare)}" if rare else ""
    return tuple(sorted(usual, key=lambda structure: (-size[structure], structure))), why


def _sizes(
    structures: Sequence[str], sources: Sequence[ScanSource], objects: Sequence[LabelObject]
) -> dict[str, float]:
    """Voxels of every structure, the median over a few series; 0 where none can be read."""
    found: dict[str, list[int]] = {structure: [0] for structure in structures}
    known = {hashed(uid, user_salt()) for one in objects for uid in one.series}
    for source in [one for one in sources if one.problem is None and one.series in known][:SIZED]:
        try:
            scan = read_scan(source)
        except (ReadError, VolumeError):
            continue  # preparing it sets it aside, and says why
        mine = tuple(
            o.path for o in objects if source.series in {hashed(uid, user_salt()) for uid in o.series}
        )
        for structure in structures:
            with contextlib.suppress(IngestError):
                label = DicomLabel(mine, (structure,)).read(scan)
                found[structure].append(int(np.count_nonzero(label.array)))
    return {structure: float(np.median(sizes[1:] or sizes)) for structure, sizes in found.items()}
