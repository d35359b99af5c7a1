"""What tells label maps from scans: where they lie, what they are called, and their voxels.

`prepare` sets label maps aside and `inspect` lists them, both by what is said here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from parts2whole.scans.preprocess import is_integral, looks_like_label
from parts2whole.scans.volume import Volume

WORDS = frozenset(
    (
        "label",
        "labelmap",
        "seg",
        "segm",
        "segmentation",
        "mask",
        "gt",
        "groundtruth",
        "truth",
        "annotation",
        "contour",
        "roi",
    )
)
"""Words of names that say label map, in the singular."""

ENDINGS = ("mask", "seg", "segmentation", "label")
"""How words of names end that say it, too: ``lungmask``, ``dseg``."""

FOLDERS_UP = 2
"""So many folders above a file may say what it is: ``masks/patient1/liver.nii.gz``."""

MOST_SPARSE = 0.1
"""A label map of scattered voxels leaves at least nine tenths of its voxels at one value."""

FEW_VALUES = 32
"""A scan without its surroundings, with bytes as voxels, has more values than this."""

Said = Literal["its name", "its folder"]


def said_to_be_label(files: Sequence[Path]) -> Said | None:
    """What says that files are a label map: a name, or a folder that they lie in; None if nothing does."""
    if any(_says(path.name) for path in files):
        return "its name"
    folders = {folder for path in files for folder in path.absolute().parents[:FOLDERS_UP]}
    return "its folder" if any(_says(folder.name) for folder in folders) else None


def is_label_map(volume: Volume, *, certain: bool = False) -> bool:
    """Whether the voxels of what is said to be a label map are those of one, be it an empty one.

    Args:
        volume: what was read; of several channels the first decides.
        certain: it lies where only label maps do, so that scattered voxels of many values are one, too.
    """
    array = volume.array[0] if volume.array.ndim == 4 else volume.array
    if array.min() == array.max():
        return True
    return looks_like_label(Volume(array)) or _is_scattered(array, most=256 if certain else FEW_VALUES)


def _is_scattered(array: np.ndarray, *, most: int) -> bool:
    """Whether nearly all voxels have one value, and the others few: whole numbers, wherever they lie."""
    if not is_integral(array):
        return False
    others = array[array != np.median(array)]
    return others.size <= MOST_SPARSE * array.size and len(np.unique(others)) < most


def _says(name: str) -> bool:
    words = re.split(r"[^a-z]+", name.lower())
    plain = {form for word in words for form in (word, re.sub(r"(tr|ts|val)$", "", word))}  # labelsTr
    return any(form.removesuffix("s") in WORDS or form.removesuffix("s").endswith(ENDINGS) for form in plain)
