"""Images and label maps that pair by equal file names in two folders."""

from __future__ import annotations

from pathlib import Path

from parts2whole.store.ingest import SourceCase
from parts2whole.tasks.base import TaskError, name_some

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz")


def pair_folders(images: Path, labels: Path, patient_separator: str | None = None) -> list[SourceCase]:
    """Cases of two folders; several channels are ``case_0000.nii.gz``, ``case_0001.nii.gz``.

    Args:
        images: folder of the images.
        labels: folder of the label maps.
        patient_separator: text that ends the patient's part of a file name; None takes each file for a
            patient of its own.

    Raises:
        TaskError: a folder is missing, or an image or a label is alone.
    """
    by_case = by_stem(labels)
    if not by_case:
        raise TaskError(f"no label maps in {labels}; known are {', '.join(SUFFIXES)}")
    channels: dict[str, list[Path]] = {}
    for stem, path in by_stem(images).items():
        case = stem if stem in by_case else stem.rpartition("_")[0]
        channels.setdefault(case if case in by_case else stem, []).append(path)
    unlabelled = sorted(set(channels) - set(by_case))
    without_image = sorted(set(by_case) - set(channels))
    if without_image:
        raise TaskError(f"labels without an image in {images}: {name_some(without_image)}")
    if unlabelled:
        raise TaskError(
            f"{len(unlabelled)} images have no label in {labels}: {name_some(unlabelled)}. Images and "
            "labels pair by equal file names; move unlabelled images elsewhere"
        )
    return [
        SourceCase(case, tuple(sorted(paths)), by_case[case], patient_of(case, patient_separator))
        for case, paths in sorted(channels.items())
    ]


def patient_of(case: str, separator: str | None) -> str:
    """The patient's part of a name."""
    return case.partition(separator)[0] if separator else case


def by_stem(folder: Path) -> dict[str, Path]:
    """Scans of a folder by their names without suffix."""
    if not folder.is_dir():
        raise TaskError(f"{folder} doesn't exist")
    found = sorted(p for p in folder.iterdir() if p.name.endswith(SUFFIXES) and not p.name.startswith("."))
    return {stem_of(path): path for path in found}


def stem_of(path: Path) -> str:
    """A file's name without the suffix of a scan."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem
