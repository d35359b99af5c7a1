"""What a look at scans and disks tells before a command begins.

That is their modality, whether there is room, and whether weights have seen all that is labelled.
"""

from __future__ import annotations

import glob
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from parts2whole.errors import Parts2WholeError
from parts2whole.run_folder import CARD, CONFIG, WEIGHTS
from parts2whole.scans.layout import files_below
from parts2whole.scans.stamps import say_scan, stamp_case, stamp_files
from parts2whole.store.location import MANIFEST

NIFTI = (".nii", ".nii.gz")
NO_SCAN = (".json", ".txt", ".csv", ".tsv", ".md")
LOOKED_AT = 3
"""Scans that are read to see whether they say what they are."""
SMALL = 12_000_000
"""Bytes of files that are read for it, so that it takes less than a second."""
COMPARED = 20_000_000
"""Bytes of files that are read to see whether weights have seen them, so that it takes about a second."""

LEAST = 10_000_000
"""Bytes that any run or store takes."""
OF_PACKED, OF_PLAIN = 0.4, 0.1
"""Share of the bytes of compressed scans and of others that a store at their own spacing takes, at least."""
OF_WEIGHTS = 4
"""Weights that a training writes: the last ones, and in a checkpoint again with two moments of each value."""


def scan_files(places: Iterable[str | Path]) -> Iterator[Path]:
    """Files that may be scans, in folders, globs and by name; addresses and lists are passed over."""
    for place in map(str, places):
        if Path(place).is_dir():
            yield from files_below(Path(place))
        elif Path(place).is_file():
            yield Path(place)
        else:
            yield from map(Path, sorted(glob.glob(place, recursive=True)))


def tell_unknown_modality(places: Iterable[str | Path]) -> str:
    """What is wrong where none of a few NIfTI scans says whether it is CT or MR; else nothing.

    Scans of other formats say it themselves; files that take long to read are left alone, and broken ones.
    """
    files = [file for file in scan_files(places) if not file.name.lower().endswith(NO_SCAN)]
    if not files or not all(file.name.lower().endswith(NIFTI) for file in files):
        return ""
    left, first, count = SMALL, "", 0
    for file in files[:: -(-len(files) // LOOKED_AT)]:
        left -= file.stat().st_size
        if left < 0:
            break
        why = _unknown_modality(file)
        if not why:
            return ""
        first, count = first or f"{file.name}: {why}", count + 1
    if count == 0:
        return ""
    of = "the only scan doesn't say" if len(files) == 1 else f"none of {count} scans looked at says"
    return f"{of} whether it is CT or MR ({first})"


def _unknown_modality(file: Path) -> str:
    """Why a scan's modality can't be known; nothing where it can, or where it can't be read."""
    from parts2whole.scans.nifti import read_nifti  # half a second, which only this needs
    from parts2whole.scans.preprocess import guess_modality
    from parts2whole.scans.volume import Volume

    try:
        raw = read_nifti(file)
        guess, why = guess_modality(Volume(raw.array[0], modality=raw.modality))
    except Parts2WholeError:
        return ""
    broken = math.isnan(raw.array.min()) or math.isinf(raw.array.max())
    return "" if guess or broken else why


def tell_no_room(out: Path, needed: float) -> str:
    """What is wrong where a disk has less room than is needed, in bytes; else nothing."""
    place = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    free = shutil.disk_usage(place).free
    if free >= needed:
        return ""
    return (
        f"no space is left for {out}: {free / 1e6:,.0f} MB are free there, and it takes "
        f"{needed / 1e6:,.0f} MB or more; free some, or choose another disk"
    )


def room_for_store(scans: Sequence[str | Path], settings: dict[str, Any]) -> float:
    """Bytes that a store of these scans takes, at least; 0 where their spacing changes.

    Args:
        scans: as `prepare` takes them.
        settings: of `prepare`.
    """
    if settings.get("spacing_mm") is not None:
        return 0
    size = {True: 0, False: 0}
    for file in scan_files(scans):
        size[file.name.lower().endswith("z")] += file.stat().st_size
    share = 0.5 if settings.get("dtype") == "uint8" else 1.0
    return share * (OF_PACKED * size[True] + OF_PLAIN * size[False])


def room_for_study(spec: Path, out: Path) -> float:
    """Bytes that the stores of a study take, at least, that aren't there yet."""
    try:
        stores = yaml.safe_load(spec.read_text(encoding="utf-8"))["data"]["stores"]
        given = [(one["scans"], one) for one in stores.values()]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return 0  # it has none, or can't be read, which the study's reader tells
    if any(out.glob(f"stores/*/{MANIFEST}")):
        return 0
    listed = [([scans] if isinstance(scans, str) else list(scans), one) for scans, one in given]
    return sum(
        room_for_store([spec.parent / Path(s).expanduser() for s in scans], one) for scans, one in listed
    )


def tell_all_seen(init: Path, data: Path) -> str:
    """What is wrong where weights were trained on every labelled scan, so that any split leaks; else nothing.

    A scan is known by its file, as the store of the weights has it, or by its voxels, as long as files are
    few or small.  Where one isn't known so, nothing is said: `parts2whole.training.leak` compares them all.

    Args:
        init: a run folder of a pre-training, or a folder of weights.
        data: with ``images`` or ``imagesTr``, as segmentation takes it.
    """
    weights = init / WEIGHTS if (init / WEIGHTS).is_dir() else init
    images = data / ("imagesTr" if (data / "dataset.json").is_file() else "images")
    if not (weights / CARD).is_file() or not images.is_dir():
        return ""
    files = sorted(files_below(images), key=lambda file: file.stat().st_size)
    if not files or not all(file.name.lower().endswith(NIFTI) for file in files):
        return ""
    try:
        seen = frozenset(json.loads((weights / CARD).read_text(encoding="utf-8"))["seen"])
        known = _records_of(init) if seen else {}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return ""  # what is wrong with weights and stores is told when they are opened
    if not seen:
        return ""
    left = COMPARED
    for file in files:
        found = _hashes_by_stamp(file, known)
        if not found:
            left -= file.stat().st_size
            found = _hashes_by_voxels(file) if left >= 0 else frozenset()
        if not found & seen:
            return ""
    count = "the only labelled scan" if len(files) == 1 else f"all {len(files)} labelled scans"
    return f"{init} was trained on {count}, those to validate and to test on among them"


def _records_of(init: Path) -> dict[str, list[dict[str, Any]]]:
    """What the store of a pre-training says of its scans, by the names of their files, where it is there."""
    config = init / CONFIG
    store = yaml.safe_load(config.read_text(encoding="utf-8")).get("store") if config.is_file() else None
    found: dict[str, list[dict[str, Any]]] = {}
    for file in Path(store).glob("records/*.json") if isinstance(store, str) else ():
        record = json.loads(file.read_text(encoding="utf-8"))
        found.setdefault("/".join(record["source"]), []).append(record)
    return found


def _hashes_by_stamp(file: Path, known: Mapping[str, Sequence[Mapping[str, Any]]]) -> frozenset[str]:
    """Hashes of the scan that was made from this very file, unchanged; nothing where there is none."""
    files = stamp_files([(file.name, [file.stat()])])
    for record in known.get(file.name, ()):
        patients = (None, record.get("patient"))  # None where a name alone tells who it is
        if record.get("stamp") in [stamp_case(files, patient, said=say_scan()) for patient in patients]:
            return frozenset((record["content_hash"], *record.get("channel_hashes", ())))
    return frozenset()


def _hashes_by_voxels(file: Path) -> frozenset[str]:
    """The hash of a scan as `prepare` makes it; nothing for several channels, or where it can't be read."""
    from parts2whole.scans.nifti import read_nifti
    from parts2whole.scans.volume import Volume, content_hash, to_canonical

    try:
        raw = read_nifti(file)
        if len(raw.array) > 1:
            return frozenset()
        scan = Volume(raw.array[0], raw.spacing_mm, raw.origin_mm, raw.direction, raw.modality)
        return frozenset((content_hash(to_canonical(scan).array),))
    except Parts2WholeError:
        return frozenset()
