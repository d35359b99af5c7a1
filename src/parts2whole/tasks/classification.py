"""Classification of one's own data: a CSV of paths and labels, or an .npz in MedMNIST layout."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Self

from parts2whole.errors import name_some, tell_reasons
from parts2whole.scans.patients import BY_DICOM
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import find_scans, strip_suffix
from parts2whole.scans.volume import Box, Volume
from parts2whole.store.ingest import SourceCase, store_cases, store_scans
from parts2whole.store.split import split_by_patient
from parts2whole.store.store import Store
from parts2whole.tasks.classifying import ClassificationTask
from parts2whole.tasks.labelled import Item, LabelledData, TaskError
from parts2whole.tasks.npz import read_npz, scale_alike
from parts2whole.tasks.spreadsheet import Row, read_rows

BOX_COLUMNS = ("z_min", "z_max", "y_min", "y_max", "x_min", "x_max")
PLACE_COLUMNS = ("path", *BOX_COLUMNS)
TABLES = (".csv", ".tsv")
BY_COLUMN = "the column patient"


@dataclasses.dataclass(frozen=True)
class Classification(ClassificationTask):
    """One class a volume, or a box of a volume.

    ``data`` is either

    - a CSV with columns ``path`` (relative to the CSV), ``label``, optionally ``patient``, and optionally a
      box in voxels of the file's own array, ``z_min, z_max, y_min, y_max, x_min, x_max`` (upper ends
      exclusive); or
    - an ``.npz`` in MedMNIST layout: ``train_images`` (n, D, H, W), ``train_labels`` (n, 1), and the same for
      ``val_`` and ``test_``.  With a test set, its three sides are used as they are; with only ``val_``,
      that becomes the test side and validation is cut from ``train_``.  Bytes, and numbers in [0, 1], need
      nothing; of others ``preprocess.modality`` says how they are scaled, as of files.

    Copies of one scan are one patient, wherever they are listed: of a copy on two sides of an ``.npz``, only
    the one on the test side takes part, or else on the validation side.
    """

    def labelled(self, *, cache: Path, workers: int | None = None, progress: bool = True) -> LabelledData:
        """Prepare the volumes once into ``cache``, and open them."""
        path = Path(self.data)
        folder = self.cache_folder(cache)
        if path.suffix.lower() == ".npz":
            return self._from_npz(path, folder)
        if path.suffix.lower() in TABLES:
            return self._from_csv(path, folder, workers=workers, progress=progress)
        raise TaskError(f"{path} must be a .csv or an .npz file")

    def takes_boxes(self) -> bool:
        """Whether every row of the table names a box."""
        path = Path(self.data)
        return path.suffix.lower() in TABLES and all(_box(row, path) for row in _read_rows(path))

    def find_inputs(self, scans: Sequence[str | Path]) -> list[SourceCase]:
        """New scans, and of every table with a column ``path`` its rows, with boxes where they name them."""
        tables = [Path(scan) for scan in scans if str(scan).lower().endswith(TABLES)]
        others = [scan for scan in scans if not str(scan).lower().endswith(TABLES)]
        found = super().find_inputs(others) if others else []
        for table in tables:
            rows = read_rows(table, ("path",), optional=BOX_COLUMNS)
            names = [strip_suffix(PurePath(row.cells["path"]).name) for row in rows]
            for row, name in zip(rows, names, strict=True):
                case_id = f"{name}-line{row.line}" if names.count(name) > 1 else name
                image = _find_image(table.parent, row.cells["path"])
                found.append(SourceCase(case_id, (image,), box=_box(row, table)))
        return found

    def _from_csv(self, path: Path, folder: Path, *, workers: int | None, progress: bool) -> LabelledData:
        rows = _read_rows(path)
        classes = tuple(sorted({row.cells["label"] for row in rows}))
        if len(classes) < 2:
            raise TaskError(f"{path} has only one class, {classes[0]!r}: there is nothing to tell apart")
        sources: list[SourceCase] = []
        targets: dict[str, int] = {}
        names: dict[str, str] = {}
        boxes: dict[str, Box | None] = {}
        for number, row in enumerate(rows):
            item = f"{number:06d}"
            image = _find_image(path.parent, row.cells["path"])
            patient, by = row.cells.get("patient") or None, BY_COLUMN
            if patient is None:
                patient, by = _patient_in(image), BY_DICOM
            boxes[item] = _box(row, path)
            sources.append(SourceCase(item, (image,), None, patient, box=boxes[item], patient_by=by))
            targets[item], names[item] = classes.index(row.cells["label"]), row.cells["path"]
        store, report = store_cases(
            self.tell_patients(sources, names=names),
            folder,
            preprocess=self.preprocess,
            workers=workers,
            progress=progress,
        )
        items = [
            Item(name, name, store.record(name).patient, t, box=boxes[name])
            for name, t in targets.items()
            if store.has(name)
        ]
        found = self._usable(store, items, classes, report.set_aside)
        unnamed = sum(not row.cells.get("patient") for row in rows)
        if self.patient_pattern is not None or not 0 < unnamed < len(rows):
            return found
        note = (
            f"{unnamed} of {len(rows)} rows name no patient, though others do: they are told apart by "
            "folders and names"
        )
        return dataclasses.replace(found, notes=(*found.notes, note))

    def prepared_like(self, theirs: Preprocess) -> Self:
        """As those of weights; but arrays of an ``.npz`` have no spacing and no modality."""
        return self if Path(self.data).suffix.lower() == ".npz" else super().prepared_like(theirs)

    def prepared_with(self) -> str | None:
        """Of an ``.npz``, that signed and other numbers are preprocessed as those of files."""
        return "as files" if Path(self.data).suffix.lower() == ".npz" else None

    def _from_npz(self, path: Path, folder: Path) -> LabelledData:
        npz = read_npz(path)
        scaling = scale_alike(path, npz, self.preprocess)
        has_test = "test" in npz.sides
        names = {"train": "train", "val": "validation" if has_test else "test", "test": "test"}
        scans: list[tuple[str, Volume]] = []
        items: list[Item] = []
        for key, side in npz.sides.items():
            for i, (image, target) in enumerate(zip(side.images, side.targets, strict=True)):
                item = f"{key}_{i:06d}"
                scans.append((item, Volume(image)))
                items.append(Item(item, item, item, int(target), names[key]))
        store = store_scans(
            scans,
            folder,
            preprocess=self.preprocess,
            dtype=scaling.dtype,
            modality=scaling.modality,
            divisor=scaling.divisor,
        )
        found = self._usable(store, items, npz.classes, store.set_aside)
        return found if has_test else self._cut_validation(found)

    def _cut_validation(self, whole: LabelledData) -> LabelledData:
        """The data with a validation side of what isn't tested; copies of tested scans are on no other."""
        tested = {item.patient for item in whole.items if item.side == "test"}
        train = [item for item in whole.items if item.patient not in tested]
        split = split_by_patient(
            {item.item_id: item.patient for item in train},
            validation=self.validation_fraction,
            test=0,
            seed=self.split_seed,
            strata={item.item_id: item.target for item in train},
        )
        chosen = set(split.validation)
        sided = (
            dataclasses.replace(item, side="validation") if item.item_id in chosen else item
            for item in whole.items
        )
        return dataclasses.replace(whole, items=tuple(sided))

    def _usable(
        self, store: Store, items: list[Item], classes: tuple[str, ...], set_aside: Mapping[str, str]
    ) -> LabelledData:
        there = {record.case_id for record in store.cases}
        usable = tuple(item for item in items if item.case_id in there)
        notes = tuple(tell_reasons(set_aside, of=len({*there, *set_aside})))
        if not usable:
            raise TaskError(f"no usable volume in {self.data}. " + "; ".join(notes))
        return LabelledData(store, usable, classes, notes)


def _read_rows(path: Path) -> list[Row]:
    """Lines of the CSV, checked: every volume has one label, and every label and patient one spelling."""
    rows = read_rows(path, ("path", "label"), optional=("patient", *BOX_COLUMNS))
    if not rows:
        raise TaskError(f"{path} lists no volumes")
    labels: dict[tuple[str, ...], tuple[Row, str]] = {}
    spellings: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        label, volume = row.cells["label"], tuple(v for k, v in row.cells.items() if k in PLACE_COLUMNS)
        if not (row.cells["path"] and label):
            raise TaskError(f"{path}, line {row.line}: path or label is empty")
        first, other = labels.setdefault(volume, (row, label))
        if other != label:
            raise TaskError(
                f"{path}: {row.cells['path']} is {other!r} in line {first.line}, {label!r} in line {row.line}"
            )
        for what, name in (("class", label), ("patient", row.cells.get("patient") or "")):
            spellings[what, _spelt(name)].add(name)
    for what in ("class", "patient"):
        doubtful = [sorted(found) for (of, _), found in spellings.items() if of == what and len(found) > 1]
        if doubtful:
            named = name_some([" and ".join(map(repr, found)) for found in doubtful])
            raise TaskError(
                f"{path} spells one {what} in several ways, or nearly so: {named}; write each in one way"
            )
    return rows


def _spelt(label: str) -> str:
    """What two names have in common that a person would take for one: case and blanks, 1, 01 and 1.0."""
    try:
        return repr(float(label))
    except ValueError:
        return " ".join(label.casefold().split())


def _find_image(folder: Path, name: str) -> Path:
    """The file that a row names; backslashes are those of Windows where that makes it a file."""
    image = (folder / name).resolve()
    other = (folder / name.replace("\\", "/")).resolve()
    return other if "\\" in name and other.exists() and not image.exists() else image


def _patient_in(image: Path) -> str | None:
    """The hashed PatientID of a folder of DICOM; None of other files, and where there isn't one patient."""
    sources = find_scans([image]) if image.is_dir() else []
    found = {source.patient for source in sources}
    return found.pop() if len(found) == 1 and all(source.patient_named for source in sources) else None


def _box(row: Row, path: Path) -> Box | None:
    given = [row.cells.get(name) or "" for name in BOX_COLUMNS]
    if not any(given):
        return None
    try:
        z0, z1, y0, y1, x0, x1 = (int(value) for value in given)
    except ValueError as error:
        raise TaskError(
            f"{path}, line {row.line}: a box needs whole numbers in all of {', '.join(BOX_COLUMNS)}"
        ) from error
    if not (0 <= z0 < z1 and 0 <= y0 < y1 and 0 <= x0 < x1):
        raise TaskError(f"{path}, line {row.line}: an empty or negative box")
    return Box((z0, y0, x0), (z1 - z0, y1 - y0, x1 - x0))
