"""Lung nodule false positive reduction on LUNA16: is a candidate a nodule? (The poster's NCC.)

    LUNA16/
      subset0/ ... subset9/   <seriesuid>.mhd + .raw or .zraw
      candidates_V2.csv       seriesuid,coordX,coordY,coordZ,class
      annotations.csv         seriesuid,coordX,coordY,coordZ,diameter_mm
      annotations_excluded.csv  optional, of the challenge's evaluation script

Data and rules: https://luna16.grand-challenge.org (Setio et al. 2017, Medical Image Analysis 42).  Sizes and
folds that are defaults here come from the public code of Models Genesis
(https://github.com/MrGiovanni/ModelsGenesis, keras/downstream_tasks), not from the Parts2Whole paper.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from parts2whole.errors import name_some, tell_reasons
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Size, triple
from parts2whole.store.ingest import SourceCase, store_cases
from parts2whole.store.store import CaseRecord, Store
from parts2whole.tasks.candidates import (
    CLASSES,
    POINT_COLUMNS,
    CandidateTask,
    is_inside,
    read_points,
    to_voxels,
)
from parts2whole.tasks.labelled import Item, LabelledData, TaskError

OTHER_DIAMETER_MM = 10.0
"""Of excluded findings without a diameter, as in the challenge's evaluation."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of an annotations file: LPS position (x, y, z) and diameter in mm."""

    name: str
    world_mm: tuple[float, float, float]
    diameter_mm: float


@dataclasses.dataclass(frozen=True)
class NoduleFalsePositives(CandidateTask):
    """Candidates of LUNA16, nodule or not; patches of 64 x 64 x 32 voxels (x, y, z) at native spacing.

    Attributes:
        folds: ``official`` uses the challenge's subsets as below; ``patient`` draws a split of scans, for a
            partial download.
        train_subsets: 0-4, as in the public code of Models Genesis; so are the other two.
        validation_subsets: 5-6.
        test_subsets: 7-9.
        candidates: name of the candidates file; the challenge replaced its first by V2.
    """

    preprocess: Preprocess = Preprocess(modality="CT")
    patch_size: Size = (32, 64, 64)
    folds: Literal["official", "patient"] = "official"
    train_subsets: tuple[int, ...] = (0, 1, 2, 3, 4)
    validation_subsets: tuple[int, ...] = (5, 6)
    test_subsets: tuple[int, ...] = (7, 8, 9)
    candidates: str = "candidates_V2.csv"

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Tiny phantoms of LUNA16, one scan in each subset."""
        from parts2whole.phantom.example import write_data_set
        from parts2whole.phantom.write_luna import Luna16

        return cls(write_data_set(Luna16(), folder, range(10)), patch_size=(16, 16, 16), hidden=8)

    def labelled(self, *, cache: Path, workers: int | None = None, progress: bool = True) -> LabelledData:
        """Prepare the scans once into ``cache``, and place the candidates in them."""
        root = Path(self.data)
        scans = self._scans(root)
        points = _by_series(_find(root, self.candidates), (*POINT_COLUMNS, "class"))
        nodules = read_findings(_find(root, "annotations.csv"))
        excluded = root / "annotations_excluded.csv"
        other = read_findings(excluded) if excluded.exists() else {}
        store, report = store_cases(
            self.tell_patients([SourceCase(series, (path,)) for series, (path, _) in scans.items()]),
            self.cache_folder(cache),
            preprocess=self.preprocess,
            workers=workers,
            progress=progress,
        )
        notes = tell_reasons(report.set_aside, of=len(scans))
        items: list[Item] = []
        outside: list[str] = []
        for record in (record for record in store.cases if record.case_id in scans):
            placed, lost = _place(
                record,
                points.get(record.case_id, []),
                nodules.get(record.case_id, ()),
                other.get(record.case_id, ()),
                self._side(scans[record.case_id][1]),
            )
            items += placed
            outside += lost
        notes += _remarks(store, points, outside, other)
        return LabelledData(store, self._checked(items, notes), CLASSES, tuple(notes), _names(nodules))

    def _scans(self, root: Path) -> dict[str, tuple[Path, int | None]]:
        """Path and subset of every scan."""
        if not root.is_dir():
            raise TaskError(f"{root} is not a folder; --task.data must name the folder with subset0/ ...")
        found: dict[str, tuple[Path, int | None]] = {}
        for path in sorted(root.rglob("*.mhd")):
            subsets = [re.fullmatch(r"subset(\d+)", part) for part in path.relative_to(root).parts[:-1]]
            number = next((int(match[1]) for match in reversed(subsets) if match), None)
            if number is not None:
                found[path.stem] = (path, number)
        if not found:
            raise TaskError(f"no subset*/*.mhd in {root}; unpack the archives of LUNA16 there")
        return found

    def _side(self, subset: int | None) -> str | None:
        sides = {
            "train": self.train_subsets,
            "validation": self.validation_subsets,
            "test": self.test_subsets,
        }
        return next((side for side, numbers in sides.items() if subset in numbers), None)

    def _checked(self, items: list[Item], notes: list[str]) -> tuple[Item, ...]:
        """The items that take part; refuses a set that nothing can be learnt from."""
        if self.folds == "patient":
            items = [dataclasses.replace(item, side=None) for item in items]
        else:
            unused = [item for item in items if item.side is None]
            if unused:
                notes.append(f"{len(unused)} candidates lie in subsets that are on no side, and are left out")
            items = [item for item in items if item.side is not None]
            for side in ("train", "validation", "test"):
                if not any(item.side == side for item in items):
                    numbers = ", ".join(map(str, getattr(self, f"{side}_subsets")))
                    raise TaskError(
                        f"no candidates for the {side} side in {self.data}: it needs subset {numbers}; "
                        "add them, or draw an own split with --task.folds patient"
                    )
        if not any(item.target == 1 for item in items):
            raise TaskError(
                f"{self.candidates} marks no candidate in the scans of {self.data} as a nodule (class 1)"
            )
        return tuple(items)


def read_findings(path: Path) -> dict[str, tuple[Finding, ...]]:
    """Findings of every series in an annotations file.

    Raises:
        TaskError: the file, a column or a number is missing.
    """
    found: dict[str, list[Finding]] = defaultdict(list)
    for line, row in enumerate(read_points(path, (*POINT_COLUMNS, "diameter_mm")), start=2):
        diameter = float(row["diameter_mm"])
        world = (float(row["coordX"]), float(row["coordY"]), float(row["coordZ"]))
        name = f"{path.stem}-{line}"
        found[row["seriesuid"]].append(Finding(name, world, diameter if diameter > 0 else OTHER_DIAMETER_MM))
    return {series: tuple(findings) for series, findings in found.items()}


def hits(world_mm: npt.NDArray[np.float64], findings: tuple[Finding, ...]) -> npt.NDArray[np.bool_]:
    """Which points (n, 3) lie within the radius of which findings: (n, findings)."""
    if not findings:
        return np.zeros((len(world_mm), 0), dtype=bool)
    centres = np.array([finding.world_mm for finding in findings])
    radii = np.array([finding.diameter_mm for finding in findings]) / 2
    apart = np.linalg.norm(world_mm[:, None] - centres[None], axis=2)
    within: npt.NDArray[np.bool_] = apart < radii
    return within


def _place(
    record: CaseRecord,
    rows: list[tuple[int, dict[str, str]]],
    nodules: tuple[Finding, ...],
    other: tuple[Finding, ...],
    side: str | None,
) -> tuple[list[Item], list[str]]:
    """Items of one scan, and the candidates that lie outside it."""
    if not rows:
        return [], []
    world = np.array([[float(row[f"coord{axis}"]) for axis in "XYZ"] for _, row in rows])
    voxels = to_voxels(record, world)
    inside = is_inside(record, voxels)
    found, irrelevant = hits(world, nodules), np.asarray(hits(world, other).any(axis=1))
    items, lost = [], []
    for place, (line, row) in enumerate(rows):
        if not inside[place]:
            lost.append(f"line {line}")
            continue
        items.append(
            Item(
                f"candidate-{line:06d}",
                record.case_id,
                record.patient,
                target=_target(row, line),
                side=side,
                centre=triple(voxels[place]),
                lesions=tuple(nodules[hit].name for hit in np.flatnonzero(found[place])),
                irrelevant=bool(irrelevant[place]),
            )
        )
    return items, lost


def _target(row: Mapping[str, str], line: int) -> int:
    if row["class"].strip() not in ("0", "1"):
        raise TaskError(f"candidates, line {line}: class must be 0 or 1, got {row['class']!r}")
    return int(row["class"])


def _remarks(
    store: Store,
    points: Mapping[str, list[tuple[int, dict[str, str]]]],
    outside: list[str],
    other: Mapping[str, tuple[Finding, ...]],
) -> list[str]:
    notes = []
    if outside:
        notes.append(
            f"{len(outside)} candidates lie outside their scans and are left out: {name_some(outside)}"
        )
    absent = {series: len(rows) for series, rows in points.items() if not store.has(series)}
    if absent:
        notes.append(f"{sum(absent.values())} candidates belong to {len(absent)} scans that are not here")
    bare = [record.case_id for record in store.cases if not points.get(record.case_id)]
    if bare:
        notes.append(f"{len(bare)} scans have no candidates and count nowhere: {name_some(bare)}")
    if not other:
        notes.append("no annotations_excluded.csv: candidates on excluded findings count as false positives")
    return notes


def _by_series(path: Path, columns: tuple[str, ...]) -> dict[str, list[tuple[int, dict[str, str]]]]:
    """Numbered lines of a CSV for every series."""
    found: dict[str, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for line, row in enumerate(read_points(path, columns), start=2):
        found[row["seriesuid"]].append((line, row))
    return found


def _names(findings: Mapping[str, tuple[Finding, ...]]) -> dict[str, tuple[str, ...]]:
    return {series: tuple(finding.name for finding in found) for series, found in findings.items()}


def _find(root: Path, name: str) -> Path:
    """A file in the folder or below it."""
    return next(iter(sorted(root.rglob(name), key=lambda path: len(path.parts))), root / name)
