"""Classification of one's own data: a CSV of paths and labels, or an .npz in MedMNIST layout."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.scans.volume import Box, Volume
from parts2whole.store.ingest import IngestReport, SourceCase, store_cases
from parts2whole.store.split import split_by_patient
from parts2whole.store.store import Store
from parts2whole.tasks.base import Item, LabelledData, TaskError
from parts2whole.tasks.classifying import ClassificationTask

BOX_COLUMNS = ("z_min", "z_max", "y_min", "y_max", "x_min", "x_max")


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
        rows = list(_read_rows(path))
        classes = tuple(sorted({row["label"] for row in rows}))
        if len(classes) < 2:
            raise TaskError(f"{path} has only one class, {classes[0]!r}: there is nothing to tell apart")
        sources, items = [], []
        for number, row in enumerate(rows):
            item = f"{number:06d}"
            image = (path.parent / row["path"]).resolve()
            patient = row.get("patient") or row["path"]
            sources.append(SourceCase(item, (image,), None, patient, box=_box(row, path, number)))
            items.append(Item(item, item, patient, classes.index(row["label"])))
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
        if not has_test:
            items = self._cut_validation(items)
        classes = tuple(str(i) for i in range(max(item.target or 0 for item in items) + 1))
        return LabelledData(store, tuple(items), classes)

    def _cut_validation(self, items: list[Item]) -> list[Item]:
        train = {item.item_id: item for item in items if item.side == "train"}
        split = split_by_patient(
            {name: name for name in train},
            validation=self.validation_fraction,
            test=0,
            seed=self.split_seed,
            strata={name: item.target for name, item in train.items()},
        )
        chosen = set(split.validation)
        return [
            dataclasses.replace(item, side="validation") if item.item_id in chosen else item for item in items
        ]

    def _usable(
        self, store: Store, items: list[Item], classes: tuple[str, ...], report: IngestReport
    ) -> LabelledData:
        there = {record.case_id for record in store.cases}
        usable = tuple(item for item in items if item.case_id in there)
        notes = tuple(f"{case} was set aside: {reason}" for case, reason in report.set_aside.items())
        if not usable:
            raise TaskError(f"no usable volume in {self.data}. " + "; ".join(notes))
        return LabelledData(store, usable, classes, notes)


def _read_rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = {"path", "label"} - set(reader.fieldnames or ())
        if missing:
            raise TaskError(
                f"{path} needs the columns path and label; {', '.join(sorted(missing))} is missing"
            )
        count = 0
        for count, row in enumerate(reader, start=1):
            if not (row["path"] and row["label"]):
                raise TaskError(f"{path}, line {count + 1}: path or label is empty")
            yield row
        if not count:
            raise TaskError(f"{path} lists no volumes")


def _box(row: dict[str, str], path: Path, number: int) -> Box | None:
    given = [row.get(name) or "" for name in BOX_COLUMNS]
    if not any(given):
        return None
    try:
        z0, z1, y0, y1, x0, x1 = (int(value) for value in given)
    except ValueError as error:
        raise TaskError(
            f"{path}, line {number + 2}: a box needs whole numbers in all of {', '.join(BOX_COLUMNS)}"
        ) from error
    if not (0 <= z0 < z1 and 0 <= y0 < y1 and 0 <= x0 < x1):
        raise TaskError(f"{path}, line {number + 2}: an empty or negative box")
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
