"""Classification of one's own data: a CSV of paths and labels, or an .npz in MedMNIST layout."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.scans.read import find_scans
from parts2whole.scans.volume import Box, Volume
from parts2whole.store.ingest import IngestReport, SourceCase, store_cases
from parts2whole.store.split import split_by_patient
from parts2whole.store.store import Store
from parts2whole.tasks.base import Item, LabelledData, TaskError
from parts2whole.tasks.classifying import ClassificationTask
from parts2whole.tasks.spreadsheet import Row, read_rows

BOX_COLUMNS = ("z_min", "z_max", "y_min", "y_max", "x_min", "x_max")
PLACE_COLUMNS = ("path", *BOX_COLUMNS)


@dataclasses.dataclass(frozen=True)
class Classification(ClassificationTask):
    """One class a volume, or a box of a volume.

    ``data`` is either

    - a CSV with columns ``path`` (relative to the CSV), ``label``, optionally ``patient``, and optionally a
      box in voxels of the file's own array, ``z_min, z_max, y_min, y_max, x_min, x_max`` (upper ends
      exclusive); or
    - an ``.npz`` in MedMNIST layout: ``train_images`` (n, D, H, W), ``train_labels`` (n, 1), and the same for
      ``val_`` and ``test_``.  With a test set, its three sides are used as they are; with only ``val_``,
      that becomes the test side and validation is cut from ``train_``.

    Copies of one scan are one patient, wherever they are listed: of a copy on two sides of an ``.npz``, only
    the one on the test side takes part, or else on the validation side.
    """

    def labelled(self, *, cache: Path, workers: int | None = None, progress: bool = True) -> LabelledData:
        """Prepare the volumes once into ``cache``, and open them."""
        path = Path(self.data)
        folder = self.cache_folder(cache)
        if path.suffix == ".npz":
            return self._from_npz(path, folder)
        if path.suffix == ".csv":
            return self._from_csv(path, folder, workers=workers, progress=progress)
        raise TaskError(f"{path} must be a .csv or an .npz file")

    def _from_csv(self, path: Path, folder: Path, *, workers: int | None, progress: bool) -> LabelledData:
        rows = _read_rows(path)
        classes = tuple(sorted({row.cells["label"] for row in rows}))
        if len(classes) < 2:
            raise TaskError(f"{path} has only one class, {classes[0]!r}: there is nothing to tell apart")
        sources, items = [], []
        for number, row in enumerate(rows):
            item = f"{number:06d}"
            image = _find_image(path.parent, row.cells["path"])
            patient = row.cells.get("patient") or _patient_in(image) or row.cells["path"]
            sources.append(SourceCase(item, (image,), None, patient, box=_box(row, path)))
            items.append(Item(item, item, patient, classes.index(row.cells["label"])))
        store, report = store_cases(
            sources, folder, preprocess=self.preprocess, workers=workers, progress=progress
        )
        return self._usable(store, items, classes, report)

    def _from_npz(self, path: Path, folder: Path) -> LabelledData:
        with np.load(path, allow_pickle=False) as archive:
            sides = {key: archive[key] for key in archive.files}
        has_test = "test_images" in sides
        names = {"train": "train", "val": "validation" if has_test else "test", "test": "test"}
        items: list[Item] = []
        store = Store.open_or_create(folder, preprocess=self.preprocess, dtype="uint8")
        for key, side in names.items():
            if f"{key}_images" not in sides:
                continue
            images, labels = sides[f"{key}_images"], sides[f"{key}_labels"].reshape(-1)
            if len(images) != len(labels):
                raise TaskError(f"{path}: {len(images)} {key}_images but {len(labels)} {key}_labels")
            highest = _highest(images)
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                item = f"{key}_{i:06d}"
                if not store.has(item):
                    store.write_volume(item, Volume(_as_bytes(image, highest)), patient=item, modality="unit")
                items.append(Item(item, item, item, int(label), side))
        store.finish()
        if not items:
            raise TaskError(f"{path} is not in MedMNIST layout: it holds {', '.join(sides) or 'nothing'}")
        classes = tuple(str(i) for i in range(max(item.target or 0 for item in items) + 1))
        return (
            LabelledData(store, tuple(items), classes)
            if has_test
            else self._cut_validation(store, items, classes)
        )

    def _cut_validation(self, store: Store, items: list[Item], classes: tuple[str, ...]) -> LabelledData:
        """The data with a validation side of what isn't tested; copies of tested scans are on no other."""
        whole = LabelledData(store, tuple(items), classes)
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
        return LabelledData(store, tuple(sided), classes)

    def _usable(
        self, store: Store, items: list[Item], classes: tuple[str, ...], report: IngestReport
    ) -> LabelledData:
        there = {record.case_id for record in store.cases}
        usable = tuple(item for item in items if item.case_id in there)
        notes = tuple(f"{case} was set aside: {reason}" for case, reason in report.set_aside.items())
        if not usable:
            raise TaskError(f"no usable volume in {self.data}. " + "; ".join(notes))
        return LabelledData(store, usable, classes, notes)


def _read_rows(path: Path) -> list[Row]:
    """Lines of the CSV, checked: every volume has one label, and every label one spelling."""
    rows = read_rows(path, ("path", "label"), optional=("patient", *BOX_COLUMNS))
    if not rows:
        raise TaskError(f"{path} lists no volumes")
    labels: dict[tuple[str, ...], tuple[Row, str]] = {}
    spellings: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        label, volume = row.cells["label"], tuple(v for k, v in row.cells.items() if k in PLACE_COLUMNS)
        if not (row.cells["path"] and label):
            raise TaskError(f"{path}, line {row.line}: path or label is empty")
        first, other = labels.setdefault(volume, (row, label))
        if other != label:
            raise TaskError(
                f"{path}: {row.cells['path']} is {other!r} in line {first.line}, {label!r} in line {row.line}"
            )
        spellings[_spelt(label)].add(label)
    doubtful = [sorted(found) for found in spellings.values() if len(found) > 1]
    if doubtful:
        named = "; ".join(" and ".join(map(repr, found)) for found in doubtful)
        raise TaskError(
            f"{path} spells one class in several ways, or nearly so: {named}; write each in one way"
        )
    return rows


def _spelt(label: str) -> str:
    """What two labels have in common that a person would take for one: case and blanks, 1 and 1.0."""
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
    found = {source.patient for source in find_scans([image])} if image.is_dir() else set()
    return found.pop() if len(found) == 1 else None


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


def _highest(images: npt.NDArray[Any]) -> float:
    if images.ndim != 4:
        raise TaskError(f"expected images (n, depth, height, width), got shape {images.shape}")
    if images.dtype == np.uint8:
        return 1.0 if images.max() <= 1 else 255.0
    return float(images.max()) or 1.0


def _as_bytes(image: npt.NDArray[Any], highest: float) -> npt.NDArray[np.uint8]:
    scaled: npt.NDArray[np.uint8] = np.round(image.astype(np.float32) / highest * 255).astype(np.uint8)
    return scaled
