"""What lies in folders of scans: facts about every scan and label map, and settings that suit them.

Scans are read one at a time and only facts are kept.  Shapes and spacings are those of the canonical axes
(z, y, x), as everywhere else; the orientation says how the file itself stores them.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from parts2whole.progress import watch, watching
from parts2whole.scans.label_maps import is_label_map, said_to_be_label
from parts2whole.scans.preprocess import AIR_HU, Modality, contradicts, guess_modality, looks_like_label
from parts2whole.scans.read import ReadError, ScanSource, find_scans, read_scan
from parts2whole.scans.volume import (
    Triple,
    Volume,
    VolumeError,
    content_hash,
    orientation_code,
    to_canonical,
)
from parts2whole.survey.beside import count_others, find_labels, look_around
from parts2whole.survey.propose import (
    BODY_ABOVE_SHARE,
    BODY_HU,
    WHOLE_VOXELS,
    Proposal,
    Target,
    propose,
)
from parts2whole.survey.thumbnail import draw_slices

Kind = Literal["scan", "label map"]

FORMATS = {
    ".nii.gz": "NIfTI",
    ".nii": "NIfTI",
    ".mgz": "MGZ",
    ".mgh": "MGH",
    ".mha": "MHA",
    ".mhd": "MHD",
    ".nrrd": "NRRD",
    ".nhdr": "NHDR",
}
SAMPLED_VOXELS = 2**22
"""About so many voxels, evenly spread, stand for a larger scan in percentiles and shares."""

LUNG_HU = (-850, -500)
"""The density of lung; the rims of bodies in air have it too."""

SHOWN_HU = (-1000.0, 500.0)
"""Window of the pictures of CT: lung and soft tissue can both be seen."""

MOST_PICTURES = 1000
"""Pictures are kept of so many scans, to bound memory and the size of a page."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What reading a scan or a label map shows.

    Attributes:
        kind: scan, or label map.
        modality: what the file says, or a guess where that is safe; None where it is unclear.
        guessed: whether it is a guess.
        modality_reason: why.
        volumes: how many the file holds.
        shape: voxels along (z, y, x).
        spacing_mm: of (z, y, x).
        orientation: where the file's own axes (z, y, x) point, ``SPL`` for superior, posterior, left.
        values: smallest and largest.
        percentiles: 0.5 and 99.5, of values.
        lung_share: of CT, share of the voxels in the body that have the density of lung.
        body_share: share of the voxels that are no air: of CT by their density, else by their brightness.
        label_values: of a label map, every value that occurs.
        content_hash: equal for scans with equal voxels, whatever their format.
    """

    kind: Kind
    modality: str | None
    guessed: bool
    modality_reason: str
    volumes: int
    shape: tuple[int, int, int]
    spacing_mm: Triple
    orientation: str
    values: tuple[float, float]
    percentiles: tuple[float, float]
    lung_share: float
    body_share: float
    label_values: tuple[int, ...]
    content_hash: str


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One scan or label map that was found.

    Attributes:
        case_id: the name it has in a store, without names of patients from DICOM.
        source: its path; of DICOM, whose file names may identify patients, only the number of files.
        format: of the file.
        patient: salted hash of the patient id, where the file holds one.
        series: salted hash of the series UID, where the file holds one.
        facts: what reading it showed; None if it can't be read.
        problem: why it can't be used.
        notes: what the user should know.
        passed_over: whether it lies in a folder of labels beside one of images, where no scans are searched.
        duplicate_of: an earlier case with the same voxels.
        picture: grey middle slices (row, column), axial, coronal and sagittal, if they were asked for.
    """

    case_id: str
    source: str
    format: str
    patient: str | None = None
    series: str = ""
    facts: Facts | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()
    passed_over: bool = False
    duplicate_of: str | None = None
    picture: npt.NDArray[np.uint8] | None = None


@dataclasses.dataclass(frozen=True)
class Survey:
    """Everything that was found.

    Attributes:
        entries: scans, label maps, and what can't be used, by case id.
        proposals: settings for each modality.
        others: number of files that are no scans, by suffix.
        places: folder of every DICOM series that can't be used, for the screen only.
    """

    entries: tuple[Entry, ...]
    proposals: tuple[Proposal, ...]
    others: dict[str, int]
    places: dict[str, str]

    @property
    def scans(self) -> tuple[Entry, ...]:
        """Scans that can be used."""
        return self._of("scan")

    @property
    def label_maps(self) -> tuple[Entry, ...]:
        """Label maps that can be used."""
        return self._of("label map")

    @property
    def unusable(self) -> tuple[Entry, ...]:
        """What can't be used."""
        return tuple(entry for entry in self.entries if entry.problem is not None)

    @property
    def duplicates(self) -> tuple[Entry, ...]:
        """What has the voxels of an earlier case."""
        return tuple(entry for entry in self.entries if entry.duplicate_of is not None)

    def _of(self, kind: Kind) -> tuple[Entry, ...]:
        usable = (f for f in self.entries if f.problem is None and f.facts is not None)
        return tuple(f for f in usable if f.facts is not None and f.facts.kind == kind)


def survey_scans(
    paths: Sequence[str | Path],
    *,
    targets: Sequence[Target] = (),
    salt: bytes | None = None,
    pictures: bool = False,
    progress: bool = False,
) -> Survey:
    """Look at every scan and label map in folders (with subfolders), globs, ``.txt`` lists, and files.

    Args:
        paths: where to look.
        targets: what is labelled in scans of theirs, for the proposals.
        salt: secret to hash patient ids with; default the user's own.
        pictures: keep small pictures of middle slices.
        progress: show a progress bar.

    Returns:
        What was found; empty if nothing was.

    Raises:
        ReadError: a path that doesn't exist, or a glob that matches nothing.
    """
    scans = find_scans(paths, salt=salt)
    folders, files = look_around(paths)
    sources = [*scans, *find_labels(folders, taken={source.case_id for source in scans}, salt=salt)]
    entries: list[Entry] = []
    earlier: dict[tuple[str, str], str] = {}
    with watching("Reading", len(sources), show=progress):
        for number, source in enumerate(watch(sources, len(sources))):
            drawn = pictures and number < MOST_PICTURES
            entry = _look(source, passed_over=number >= len(scans), picture=drawn)
            entries.append(_compare(entry, earlier))
    places = {
        entry.case_id: printable(source.paths[0].parent)
        for entry, source in zip(entries, sources, strict=True)
        if entry.problem is not None and source.is_series
    }
    by_name = tuple(sorted(entries, key=lambda entry: entry.case_id))
    return Survey(by_name, propose_for(by_name, targets), count_others(files, sources), places)


def _compare(entry: Entry, earlier: dict[tuple[str, str], str]) -> Entry:
    """Note whether an earlier case has the same voxels; empty label maps may well be equal."""
    facts = entry.facts
    if facts is None or entry.problem is not None or facts.values[0] == facts.values[1]:
        return entry
    first = earlier.setdefault((facts.kind, facts.content_hash), entry.case_id)
    return entry if first == entry.case_id else dataclasses.replace(entry, duplicate_of=first)


def propose_for(
    entries: Sequence[Entry],
    targets: Sequence[Target] = (),
    *,
    asked: Modality = "auto",
    voxels: int = WHOLE_VOXELS,
) -> tuple[Proposal, ...]:
    """Settings for each modality, from scans that `prepare` would use; copies count once.

    Args:
        entries: of a survey.
        targets: what is labelled in scans among them.
        asked: what all of them are to be prepared as; scans that it refuses are left out.
        voxels: about so many in a whole.
    """
    groups: dict[str, list[Facts]] = {}
    for entry in entries:
        if entry.problem or entry.passed_over or entry.duplicate_of or entry.facts is None:
            continue
        called = prepared_as(entry.facts.modality, asked, named=not entry.facts.guessed)
        if entry.facts.kind == "scan" and called is not None:
            groups.setdefault(called, []).append(entry.facts)
    return tuple(
        propose(
            modality,
            shapes=[facts.shape for facts in group],
            spacings_mm=[facts.spacing_mm for facts in group],
            largest_values=[facts.values[1] for facts in group],
            lung_shares=[facts.lung_share for facts in group],
            body_shares=[facts.body_share for facts in group],
            targets=[
                target
                for target in targets
                for called in [prepared_as(target.modality, asked, named=target.named)]
                if called == modality or (called == "unclear" and called not in groups)
            ],
            voxels=voxels,
        )
        for modality, group in sorted(groups.items())
    )


def prepared_as(modality: str | None, asked: Modality, *, named: bool) -> str | None:
    """What a scan of a modality is prepared as; None where it is refused, as its file names another."""
    if asked not in ("CT", "MR"):
        return modality or "unclear"
    return None if named and contradicts(modality, asked) else asked


def _look(source: ScanSource, *, passed_over: bool, picture: bool) -> Entry:
    """Read one scan; whatever goes wrong becomes its problem."""
    count = len(source.paths)
    entry = Entry(
        case_id=source.case_id,
        source=f"{count} DICOM file{'s' * (count != 1)}" if source.is_series else printable(source.paths[0]),
        format=_format(source),
        patient=source.patient,
        series=source.series.strip("-"),
        notes=source.notes,
        passed_over=passed_over,
    )
    try:
        volume = read_scan(source, which="channels")
        facts, notes = _measure(volume, source, passed_over=passed_over)
        drawn = _picture(volume, facts) if picture else None
    except (ReadError, VolumeError) as error:
        return dataclasses.replace(entry, problem=_reason(error, source))
    except MemoryError:
        return dataclasses.replace(entry, problem="not enough memory to read it")
    except Exception as error:  # one odd scan must not end the survey of a thousand
        problem = _reason(f"unexpected {type(error).__name__}: {error}", source)
        return dataclasses.replace(entry, problem=problem)
    constant = facts.kind == "scan" and facts.values[0] == facts.values[1]
    return dataclasses.replace(
        entry,
        facts=facts,
        problem=f"constant volume: every voxel is {facts.values[0]:g}" if constant else None,
        notes=(*entry.notes, *notes),
        picture=drawn,
    )


def _measure(volume: Volume, source: ScanSource, *, passed_over: bool) -> tuple[Facts, list[str]]:
    """Facts of a volume (channel, z, y, x), and what is odd about them."""
    array = volume.array
    first = dataclasses.replace(volume, array=array[0])
    low, high = float(array.min()), float(array.max())
    step = max(1, array.size // SAMPLED_VOXELS) | 1  # odd, so that it falls on all columns
    sample = np.ravel(array, order="K")[::step]
    below, above = (float(value) for value in np.percentile(sample, (0.5, 99.5)))
    dark = below + BODY_ABOVE_SHARE * (above - below)
    said = passed_over or said_to_be_label(source.paths)
    is_label = bool(said) and is_label_map(first, certain=passed_over)
    modality, reason = (None, "a label map") if is_label else guess_modality(first)
    grid = to_canonical(first)
    facts = Facts(
        kind="label map" if is_label else "scan",
        # What the file says counts, even where it is neither CT nor MR.
        modality=None if is_label else modality or volume.modality,
        guessed=modality is not None and volume.modality is None,
        modality_reason=reason,
        volumes=len(array),
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        orientation=orientation_code(volume.direction),
        values=(low, high),
        percentiles=(below, above),
        lung_share=_lung_share(sample) if modality == "CT" else 0.0,
        body_share=float(np.mean(sample > (BODY_HU if modality == "CT" else dark))),
        label_values=_values(array) if is_label else (),
        content_hash=content_hash(to_canonical(volume).array if len(array) > 1 else grid.array),
    )
    notes = list(volume.notes)
    if facts.volumes > 1:
        notes.append(f"holds {facts.volumes} volumes: prepare needs --volumes-4d, an index or channels")
    if is_label and low == high:
        notes.append(f"an empty label map: every voxel is {low:g}")
    if not (said or low == high) and looks_like_label(first):
        notes.append("its voxels are those of a label map, but nothing in its name says so")
    if not is_label and passed_over:
        notes.append("in a folder of labels, so prepare passes it over, but its voxels vary like a scan's")
    if facts.modality == "CT" and low > AIR_HU:
        notes.append(f"no voxel at or below {AIR_HU}: check that values are Hounsfield units")
    return facts, notes


def _lung_share(sample: npt.NDArray[Any]) -> float:
    lung = int(np.count_nonzero((sample > LUNG_HU[0]) & (sample < LUNG_HU[1])))
    body = lung + int(np.count_nonzero(sample > AIR_HU))
    return lung / max(1, body)


def _values(array: npt.NDArray[Any]) -> tuple[int, ...]:
    found: set[int] = set()
    for plane in array.reshape(-1, *array.shape[-2:]):
        found.update(int(value) for value in np.unique(plane))
    return tuple(sorted(found))


def _format(source: ScanSource) -> str:
    if source.is_series:
        return "DICOM"
    name = source.paths[0].name.lower()
    return next((text for suffix, text in FORMATS.items() if name.endswith(suffix)), "unknown")


def _reason(error: Exception | str, source: ScanSource) -> str:
    """An error in one line that can be printed, without names of DICOM files."""
    text = re.sub(r"\(0x[0-9a-f]+\)", "", printable(" ".join(str(error).split())))
    if source.is_series:
        for number, path in enumerate(source.paths, start=1):
            text = text.replace(printable(path.absolute()), f"slice {number}")
            text = text.replace(printable(path), f"slice {number}")
            text = re.sub(rf"(?<!\S){re.escape(printable(path.name))}: ", f"slice {number}: ", text)
    return text


def printable(text: str | Path) -> str:
    """Text that a terminal and UTF-8 can bear: names of files may hold anything."""
    decoded = os.fsencode(str(text)).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in decoded)


def _picture(volume: Volume, facts: Facts) -> npt.NDArray[np.uint8]:
    """Middle slices of the first volume."""
    first = to_canonical(dataclasses.replace(volume, array=volume.array[0]))
    if facts.kind == "label map":
        return draw_slices(first, labels=facts.label_values)
    return draw_slices(first, window=SHOWN_HU if facts.modality == "CT" else facts.percentiles)
