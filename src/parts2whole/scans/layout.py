"""How labelled scans lie in a folder: what names and first bytes of files tell, without reading scans."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

FIRST_ELEMENTS = (b"\x02\0\0\0", *(bytes([8, 0, element, 0]) for element in (0, 1, 5, 8, 0x12, 0x16, 0x18)))
"""What a file without a preamble begins with: the meta group, or an early element of group 8."""

LOOKED_AT = 200
"""Files of which one must be DICOM where a folder is to hold any."""


def is_labelled(folder: Path) -> bool:
    """Whether there are ``images/`` and ``labels/``, or a ``dataset.json``, as `Segmentation` takes them."""
    both = (folder / "images").is_dir() and (folder / "labels").is_dir()
    return both or (folder / "dataset.json").is_file()


def tell_unlabelled(folder: Path) -> str:
    """What is missing where `is_labelled` says no."""
    return f"{folder} needs images/ and labels/ folders, or a dataset.json"


def files_below(folder: Path) -> Iterator[Path]:
    """Files of a folder and its subfolders, among them its scans; labels beside images are passed over."""
    for here, folders, files in os.walk(folder):
        siblings = {name.lower() for name in folders}
        folders[:] = sorted(name for name in folders if not passed_over(name, siblings))
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))


def passed_over(name: str, siblings: set[str]) -> bool:
    """Hidden folders, and ``labels`` beside ``images``, ``labelsTr`` beside ``imagesTr``.

    Args:
        name: of a folder.
        siblings: names of the folders beside it, in small letters.
    """
    lower = name.lower()
    return name.startswith(".") or (
        lower.startswith("labels") and "images" + lower.removeprefix("labels") in siblings
    )


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes, with or without the preamble."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or start[:4] in FIRST_ELEMENTS


def holds_dicom(folder: Path) -> bool:
    """Whether DICOM is among the first files of a folder, which may then hold segmentations of it."""
    return any(map(is_dicom, islice(files_below(folder), LOOKED_AT)))
