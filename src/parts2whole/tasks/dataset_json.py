"""The one reader of ``dataset.json``: of nnU-Net v1 and v2, and of the Medical Segmentation Decathlon.

Every key is honoured, or refused by name, or (where it only tells people something) passed over:

| key | what becomes of it |
|---|---|
| labels | names of classes, ``{"0": "background"}`` or ``{"background": 0}``; ``ignore`` is ignored |
| labels that are lists, regions_class_order | regions: what is measured, and the values of masks |
| channel_names, modality | how many channels a case has, their order, and CT or MR where that is unclear |
| tensorImageSize | ``4D`` files hold the channels along their fourth axis; a 3D file is one channel |
| training, dataset | the cases; without them those in imagesTr and labelsTr |
| file_ending | which files of these folders are meant |
| overwrite_image_reader_writer | refused where it reads what isn't a volume |
| numTraining, and keys that nobody knows | a note where something is amiss |

nnU-Net: Isensee et al. 2021, Nature Methods 18, and ``documentation/dataset_format.md`` of its repository;
Decathlon: Antonelli et al. 2022, Nature Communications 13.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from parts2whole.errors import name_some
from parts2whole.files import write_json
from parts2whole.scans.read import SUFFIXES, strip_suffix
from parts2whole.store.ingest import SourceCase
from parts2whole.tasks.dataset_labels import read_labels
from parts2whole.tasks.labelled import FoundCases, TaskError
from parts2whole.tasks.labels import LabelMeaning
from parts2whole.tasks.pairs import pair_folders, separate_patients

FILE = "dataset.json"
READERS = ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")
"""Readers of nnU-Net v2 for volumes, which this program reads alike."""

TOLD = frozenset(
    (
        *("name", "description", "reference", "references", "licence", "license", "release", "relase"),
        *("citation", "authors", "author", "url", "dim", "converted_by", "contact", "version", "date"),
        *("numTest", "test", "dataset_name", "image_orientation", "notes"),
    )
)
"""Keys that tell people something, or of cases without labels."""

OF_CASES = frozenset(("training", "dataset", "numTraining", "file_ending"))
"""Keys about single cases and their files."""

MRI_WORDS = frozenset(
    (
        *("mri", "mr", "pd", "adc", "dwi", "flair", "t2f"),
        *("t1", "t1w", "t1gd", "t1ce", "t1c", "t1n", "t2", "t2w"),
    )
)
Said = Literal["CT", "MR"]


@dataclasses.dataclass(frozen=True)
class DatasetJson:
    """What a ``dataset.json`` says.

    Attributes:
        path: the file.
        meaning: of the label values.
        channels: their names, in order; empty where the file doesn't say.
        file_ending: of images and labels; None is any.
        listed: image paths and label of each case, where cases are listed.
        count: how many training cases there should be, where the file says so.
        notes: what the user should know.
    """

    path: Path
    meaning: LabelMeaning
    channels: tuple[str, ...] = ()
    file_ending: str | None = None
    listed: Mapping[str, tuple[tuple[Path, ...], Path]] | None = None
    count: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def modality(self) -> Said | None:
        """CT or MR, where all channels are of it."""
        said = {_modality(name) for name in self.channels}
        return said.pop() if len(said) == 1 else None

    @property
    def mixed(self) -> bool:
        """Whether some channels are CT, and others something else."""
        said = {_modality(name) for name in self.channels}
        return "CT" in said and len(said) > 1

    def cases(self, separator: str | None) -> FoundCases:
        """The training cases; one that lacks a channel is set aside.

        Args:
            separator: text that ends the patient's part of a name.

        Raises:
            TaskError: files are missing, or images and labels don't pair.
        """
        root = self.path.parent
        if self.listed is None:
            found = pair_folders(
                root / "imagesTr",
                root / "labelsTr",
                separator,
                channels=len(self.channels) or None,
                ending=self.file_ending,
            )
        else:
            found = self._listed_cases(separator)
        there = len(found.cases) + len(found.set_aside)
        notes = list(self.notes)
        if self.count not in (None, there):
            notes.append(f"{FILE} says numTraining {self.count}, there are {there} cases")
        cases = [
            dataclasses.replace(c, which="channels", channels=len(self.channels) or None) for c in found.cases
        ]
        return dataclasses.replace(found, cases=cases, notes=(*found.notes, *notes), modality=self.modality)

    def _listed_cases(self, separator: str | None) -> FoundCases:
        cases, set_aside, missing = [], {}, []
        for name, (images, label) in (self.listed or {}).items():
            files = [*images]
            if len(images) == 1 and not images[0].exists():
                files = [
                    file
                    for n in range(max(1, len(self.channels)))
                    if (file := _channel(images[0], n)).exists()
                ]
                if 0 < len(files) < len(self.channels):
                    set_aside[name] = (
                        f"{len(files)} of {len(self.channels)} channels are there: "
                        + name_some([file.name for file in files])
                    )
                    continue
            lost = [str(file) for file in (*(files or images), label) if not file.exists()]
            missing += lost
            if not lost:
                cases.append(SourceCase(name, tuple(files), label))
        if missing:
            raise TaskError(f"{self.path} names files that don't exist: {name_some(missing)}")
        return FoundCases(separate_patients(cases, separator), set_aside)


def read_dataset_json(root: Path) -> DatasetJson | None:
    """What the ``dataset.json`` of a folder says; None where there is none.

    Raises:
        TaskError: it can't be read, contradicts itself, or asks for what this program doesn't do.
    """
    path = root / FILE
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _read(path, stat.st_mtime_ns, stat.st_size)


def copy_meaning(root: Path, folder: Path) -> bool:
    """Write what the ``dataset.json`` of a folder says of labels and channels into another folder.

    Cases are then looked for in its imagesTr and labelsTr.  False where there is no such file.
    """
    path = root / FILE
    if not path.is_file():
        return False
    said = json.loads(path.read_text(encoding="utf-8-sig"))
    write_json(folder / FILE, {key: value for key, value in said.items() if key not in OF_CASES})
    return True


@functools.lru_cache(maxsize=8)
def _read(path: Path, _changed: int, _size: int) -> DatasetJson:
    try:
        plain = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{path} is not JSON: {error}") from error
    if not isinstance(plain, dict):
        raise TaskError(f"{path} must hold an object with labels, got {type(plain).__name__}")
    try:
        return _understand(path, plain)
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from error


def _understand(path: Path, plain: dict[str, Any]) -> DatasetJson:
    take = dict(plain)
    meaning = read_labels(take.pop("labels", None), take.pop("regions_class_order", None))
    channels = _channels(take.pop("channel_names", None), take.pop("modality", None))
    ending = take.pop("file_ending", None)
    if ending is not None and not (isinstance(ending, str) and ending.lower() in SUFFIXES):
        raise TaskError(
            f"file_ending is {ending!r}; files of volumes end in {', '.join(SUFFIXES)}: convert them"
        )
    reader = take.pop("overwrite_image_reader_writer", None)
    if reader not in (None, "None", *READERS):
        raise TaskError(
            f"overwrite_image_reader_writer is {reader!r}; volumes are read by {', '.join(READERS)}: "
            "convert the files to NIfTI and leave the key out"
        )
    size = take.pop("tensorImageSize", None)
    if size is not None and str(size).upper() not in ("3D", "4D"):
        raise TaskError(f"tensorImageSize is {size!r}; known are 3D and 4D")
    validation = take.pop("validation", None)
    if validation:
        raise TaskError(
            "validation lists cases apart from training, but sides are drawn by patient here: move its cases "
            "to training, or leave it out"
        )
    training, dataset = take.pop("training", None), take.pop("dataset", None)
    listed = _listed(path.parent, training, dataset if isinstance(dataset, dict) else None)
    count = take.pop("numTraining", None)
    unknown = sorted(set(take) - TOLD - ({"dataset"} if isinstance(dataset, str) else set()))
    notes = [f"{FILE} has keys that mean nothing here: {name_some(unknown)}"] if unknown else []
    written: dict[int, list[str]] = defaultdict(list)
    for name, value in meaning.written.items():
        written[value].append(name)
    notes += [
        f"by its regions_class_order, masks hold {value} for {' and '.join(names)} alike"
        for value, names in written.items()
        if len(names) > 1
    ]
    if str(size).upper() == "4D" and len(channels) == 1:
        notes.append(f"{FILE} says tensorImageSize 4D, and names one channel")
    if any(name.casefold() == "nonorm" for name in channels):
        notes.append(f"{FILE} calls a channel noNorm, but every channel is brought to [0, 1]")
    number = int(count) if isinstance(count, int | str) and str(count).isdigit() else None
    return DatasetJson(path, meaning, channels, ending, listed, number, tuple(notes))


def _channels(names: Any, modality: Any) -> tuple[str, ...]:
    found = [_numbered(key, each) for key, each in (("channel_names", names), ("modality", modality)) if each]
    if len(found) == 2 and len(found[0]) != len(found[1]):
        raise TaskError(f"channel_names has {len(found[0])} channels, modality {len(found[1])}")
    return found[0] if found else ()


def _numbered(key: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        return (given,)
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return tuple(given)
    if isinstance(given, dict):
        if sorted(given) == sorted(map(str, range(len(given)))):
            return tuple(str(given[str(n)]) for n in range(len(given)))
        numbers = {value: name for name, value in given.items() if isinstance(value, int)}
        if sorted(numbers) == list(range(len(given))):
            return tuple(str(numbers[n]) for n in range(len(given)))
    raise TaskError(f'{key} must number the channels from 0, as {{"0": "CT"}}, got {given!r}')


def _modality(name: str) -> Said | None:
    words = name.casefold().replace("-", " ").replace("_", " ").split()
    if "ct" in words:
        return "CT"
    return "MR" if any(word in MRI_WORDS for word in words) else None


def _listed(
    root: Path, training: Any, dataset: dict[str, Any] | None
) -> dict[str, tuple[tuple[Path, ...], Path]] | None:
    if training is not None and not isinstance(training, list):
        raise TaskError(f"training must be a list of cases, got {type(training).__name__}")
    if dataset is not None:
        entries = [(str(name), entry, "images") for name, entry in dataset.items()]
    elif training:
        entries = [("", entry, "image") for entry in training]
    else:
        return None
    found: dict[str, tuple[tuple[Path, ...], Path]] = {}
    for name, entry, key in entries:
        if not (isinstance(entry, dict) and {key, "label"} <= set(entry)):
            raise TaskError(
                f"a case of {'dataset' if name else 'training'} needs {key} and label, got {entry!r}"
            )
        given = entry[key] if isinstance(entry[key], list) else [entry[key]]
        if not given or not all(isinstance(file, str) for file in (*given, entry["label"])):
            raise TaskError(f"{key} and label must name files, got {entry!r}")
        images = tuple(_inside(root, file) for file in given)
        case = name or _case_name(images)
        if case in found:
            raise TaskError(f"the case {case!r} is listed twice")
        found[case] = (images, _inside(root, entry["label"]))
    return found


def _case_name(images: Sequence[Path]) -> str:
    """The name of the file; of several channels without their numbers."""
    name = strip_suffix(images[0].name)
    return name.removesuffix("_0000") if len(images) > 1 else name


def _channel(image: Path, number: int) -> Path:
    """The file of a channel: ``case_0001.nii.gz`` of ``case.nii.gz``."""
    stem = strip_suffix(image.name)
    return image.with_name(f"{stem}_{number:04d}{image.name.removeprefix(stem)}")


def _inside(root: Path, name: str) -> Path:
    path = Path(os.path.normpath(root / name.replace("\\", "/")))
    if not path.is_relative_to(os.path.normpath(root)):
        raise TaskError(f"{name!r} leaves the folder {root}; copy or link the file into it")
    return path


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TaskError(f"the key {', '.join(map(repr, twice))} is there twice")
    return dict(pairs)
