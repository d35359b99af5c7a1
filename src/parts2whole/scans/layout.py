"""How labelled scans lie in a folder: what can be told by a look at it, without reading anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def is_labelled(folder: Path) -> bool:
    """Whether there are ``images/`` and ``labels/``, or a ``dataset.json``, as segmentation takes them."""
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
