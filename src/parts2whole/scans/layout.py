"""How labelled scans lie in a folder: what can be told by a look at it, without reading anything."""

from __future__ import annotations

from pathlib import Path


def is_labelled(folder: Path) -> bool:
    """Whether there are ``images/`` and ``labels/``, or a ``dataset.json``, as segmentation takes them."""
    both = (folder / "images").is_dir() and (folder / "labels").is_dir()
    return both or (folder / "dataset.json").is_file()


def tell_unlabelled(folder: Path) -> str:
    """What is missing where `is_labelled` says no."""
    return f"{folder} needs images/ and labels/ folders, or a dataset.json"
