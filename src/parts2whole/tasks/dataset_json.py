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
from parts2whole.evaluation.regions import metric_name
from parts2whole.scans.read import SUFFIXES, strip_suffix
from parts2whole.store.ingest import SourceCase
from parts2whole.tasks.base import TaskError
from parts2whole.tasks.labels import LabelMeaning
from parts2whole.tasks.pairs import pair_folders, patient_of
from parts2whole.tasks.segmenting import FoundCases

FILE = "dataset.json"
IGNORE = "ignore"
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

MRI_WORDS = (
    "mri",
    "mr",
    "t1",
    "t2",
    "flair",
    "adc",
    "dwi",
    "t1w",
    "t2w",
    "t1gd",
    "t1ce",
    "t1c",
    "t1n",
    "t2f",
    "pd",
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
                cases.append(SourceCase(name, tuple(files), label, patient_of(name, separator)))
        if missing:
            raise TaskError(f"{self.path} names files that don't exist: {name_some(missing)}")
        return FoundCases(cases, set_aside)


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
    labels = _labels(take.pop("labels", None))
    meaning = _meaning(labels, take.pop("regions_class_order", None))
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


def _labels(labels: Any) -> dict[str, int | tuple[int, ...]]:
    """Values by name, whichever way they are written."""
    if not isinstance(labels, dict) or not labels:
        raise TaskError(f'labels must be an object such as {{"background": 0, "liver": 1}}, got {labels!r}')
    if all(
        isinstance(name, str) and not _is_number(name) and _is_number(value) for value, name in labels.items()
    ):
        found: dict[str, int | tuple[int, ...]] = {}
        for value, name in labels.items():
            if name in found:
                raise TaskError(
                    f"labels calls both {found[name]} and {value} {name!r}: give each a name of its own"
                )
            found[name] = int(value)
        return found
    return {name: _value(name, value) for name, value in labels.items()}


def _value(name: str, value: Any) -> int | tuple[int, ...]:
    if isinstance(value, list):
        inside = [_value(name, each) for each in value]
        plain = tuple(each for each in inside if isinstance(each, int))
        if not plain or len(plain) < len(inside) or len(set(plain)) < len(plain):
            raise TaskError(f"the region {name!r} must list different label values, got {value!r}")
        return plain
    if isinstance(value, bool) or not _is_number(value):
        raise TaskError(f"the label {name!r} must be a whole number or a list of them, got {value!r}")
    return int(value)


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | str | float) and int(value) == float(value)
    except (ValueError, OverflowError):
        return False


def _meaning(labels: dict[str, int | tuple[int, ...]], order: Any) -> LabelMeaning:
    ignored = None
    plain: dict[str, tuple[int, ...]] = {}
    for name, value in labels.items():
        if name.strip().casefold() == IGNORE:
            if not isinstance(value, int) or value == 0:
                raise TaskError(f"ignore must be one label value other than 0, got {value!r}")
            ignored = value
            continue
        plain[name] = (value,) if isinstance(value, int) else value
    below = sorted({v for values in plain.values() for v in values if v < 0})
    if below:
        raise TaskError(f"labels has {below}: values must be 0 or above; only ignore may be below")
    if ignored is not None and any(ignored in values for values in plain.values()):
        raise TaskError(f"the label value {ignored} is both ignore and a class")
    background = [name for name, values in plain.items() if values == (0,)]
    for name, values in plain.items():
        if name.casefold() == "background" and values != (0,):
            raise TaskError(f"background must be 0, got {values if len(values) > 1 else values[0]}")
    if len(background) > 1:
        raise TaskError(f"labels gives 0 to {' and '.join(background)}")
    zero = background[0] if background else "background"
    foreground = {name: values for name, values in plain.items() if values != (0,)}
    if not foreground:
        raise TaskError("labels names nothing but background")
    alike: dict[str, str] = {}
    for name in foreground:
        other = alike.setdefault(metric_name(name).casefold(), name)
        if other != name:
            raise TaskError(f"the names {other!r} and {name!r} are alike in tables: rename one")
    if all(len(values) == 1 for values in foreground.values()):
        return _classes(zero, {name: values[0] for name, values in foreground.items()}, ignored)
    return _regions(zero, foreground, ignored, order)


def _classes(zero: str, foreground: dict[str, int], ignored: int | None) -> LabelMeaning:
    names = {0: zero}
    for name, value in foreground.items():
        if value in names:
            raise TaskError(f"labels gives {value} to {names[value]!r} and {name!r}")
        names[value] = name
    return LabelMeaning(names, ignored, {name: value for value, name in names.items()})


def _regions(zero: str, regions: dict[str, tuple[int, ...]], ignored: int | None, order: Any) -> LabelMeaning:
    """Classes that exclude each other are the values that lie in the same regions.

    As in nnU-Net, masks get the values of ``regions_class_order``, a later region over an earlier one.
    """
    if not isinstance(order, list) or not all(isinstance(v, int) and not isinstance(v, bool) for v in order):
        raise TaskError(
            "labels has regions (lists of values), which need regions_class_order, a list of the values that "
            f"{len(regions)} regions have in masks; got {order!r}"
        )
    if len(order) != len(regions) or min(order) < 1 or ignored in order:
        raise TaskError(
            f"regions_class_order {order} must give each of the {len(regions)} regions "
            f"({', '.join(regions)}) a value above 0 that isn't ignored"
        )
    if any(0 in values for values in regions.values()):
        raise TaskError("a region holds the value 0, which is background")
    names, written = {0: zero}, {zero: 0}
    members: dict[str, list[str]] = {region: [] for region in regions}
    for value in sorted({value for values in regions.values() for value in values}):
        inside = [region for region, values in regions.items() if value in values]
        name = "+".join(inside)
        names[value] = name
        if name not in written:
            written[name] = order[list(regions).index(inside[-1])]
            for region in inside:
                members[region].append(name)
    return LabelMeaning(names, ignored, written, {region: tuple(found) for region, found in members.items()})


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
