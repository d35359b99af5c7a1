"""Volumes and classes in one ``.npz`` in MedMNIST layout: read, checked, and brought to one scale.

MedMNIST: Yang et al. 2023, Scientific Data 10; its 3D sets hold bytes, 0 to 255.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.scans.preprocess import Modality, Preprocess, StoredType, guess_modality
from parts2whole.scans.volume import Volume
from parts2whole.tasks.labelled import TaskError

SIDES = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """Volumes (n, z, y, x), and the index of the class of each."""

    images: npt.NDArray[Any]
    targets: npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Npz:
    """What the file holds: ``train``, ``val`` and ``test``, as far as they are there."""

    sides: Mapping[str, Side]
    classes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How all volumes of a file become [0, 1], divided, then preprocessed as the modality; and their type."""

    modality: Modality
    divisor: float = 1.0
    dtype: StoredType = "int16"


def read_npz(path: Path) -> Npz:
    """Read all sides.

    Raises:
        TaskError: no archive of plain arrays, not in MedMNIST layout, or labels that aren't classes.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise TaskError(f"{path} is no .npz of plain arrays: {error}") from error
    there = [side for side in SIDES if f"{side}_images" in arrays]
    if "train" not in there:
        raise TaskError(
            f"{path} is not in MedMNIST layout, train_images, train_labels and the same of val_ and test_: "
            f"it holds {', '.join(arrays) or 'nothing'}"
        )
    labels = {}
    for side in there:
        images, key = arrays[f"{side}_images"], f"{side}_labels"
        _check_images(path, f"{side}_images", images)
        if key not in arrays:
            raise TaskError(f"{path} has {side}_images, but no {key}")
        labels[side] = _check_labels(path, key, arrays[key])
        if len(images) != len(labels[side]):
            raise TaskError(f"{path}: {len(images)} {side}_images but {len(labels[side])} {key}")
    if len({found.dtype.kind for found in labels.values()}) > 1:
        raise TaskError(f"{path}: the labels of some sides are numbers, of others text")
    values = np.unique(np.concatenate(list(labels.values())))
    if len(values) < 2:
        raise TaskError(
            f"{path} has only one class, {', '.join(map(str, values))}: there is nothing to tell apart"
        )
    sides = {
        s: Side(arrays[f"{s}_images"], np.searchsorted(values, labels[s]).astype(np.int64)) for s in there
    }
    return Npz(sides, tuple(map(str, values.tolist())))


def scale_alike(path: Path, npz: Npz, preprocess: Preprocess) -> Scaling:
    """One rule for the volumes of all sides.

    A stated CT or MR is treated as in files.  Otherwise bytes are divided by 255 (by 1 if none is above), and
    what lies in [0, 1] stays as it is.

    Raises:
        TaskError: other values whose modality isn't said and isn't clear.
    """
    if preprocess.spacing_mm is not None:
        raise TaskError(f"{path} says no spacing, so nothing can be resampled to {preprocess.spacing_mm} mm")
    if preprocess.modality in ("CT", "MR"):
        return Scaling(preprocess.modality)
    images = [side.images for side in npz.sides.values() if len(side.images)]
    low, high = min(float(np.nanmin(i)) for i in images), max(float(np.nanmax(i)) for i in images)
    if all(array.dtype == np.uint8 for array in images):
        return Scaling("unit", 1.0 if high <= 1 else 255.0, "uint8")
    if low >= 0 and high <= 1:
        return Scaling("unit")
    guess = guess_modality(Volume(npz.sides["train"].images))[0] if preprocess.modality == "auto" else None
    if guess is None:
        raise TaskError(
            f"{path}: voxels range from {low:g} to {high:g}, which are neither bytes nor in [0, 1]. Scale "
            "them, or say --task.preprocess.modality CT (Hounsfield units) or MR (percentiles of each volume)"
        )
    return Scaling(guess)


def _check_images(path: Path, key: str, images: npt.NDArray[Any]) -> None:
    if images.ndim != 4 or images.dtype.kind not in "biuf":
        raise TaskError(
            f"{path}: {key} must be numbers (n, depth, height, width), got {images.dtype} {images.shape}"
        )
    _, depth, height, width = images.shape
    if width in (3, 4) and depth == height > width:
        raise TaskError(f"{path}: {key} {images.shape} are colour pictures, not volumes")
    if min(depth, height, width) < 2:
        raise TaskError(f"{path}: {key} {images.shape} are single slices, not volumes")


def _check_labels(path: Path, key: str, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One whole number from 0, or one text, an item."""
    if labels.ndim not in (1, 2) or (labels.ndim == 2 and labels.shape[1] != 1):
        raise TaskError(f"{path}: {key} must be one class an item, (n,) or (n, 1), got shape {labels.shape}")
    flat = labels.reshape(-1)
    if flat.dtype.kind == "U":
        return np.char.strip(flat)
    if flat.dtype.kind not in "biuf":
        raise TaskError(f"{path}: {key} must be whole numbers or text, got {flat.dtype}")
    wrong = flat[~((flat >= 0) & (flat < 2**31) & (flat == np.floor(flat)))]
    if len(wrong):
        found = ", ".join(f"{value:g}" for value in np.unique(wrong)[:5].tolist())
        raise TaskError(f"{path}: {key} must be whole numbers from 0, found {found}")
    return flat.astype(np.int64)
