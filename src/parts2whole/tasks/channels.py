"""Channels of a scan: cases that have others than the rest, and files that are channels of one scan."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from parts2whole.errors import plural
from parts2whole.scans.case import SourceCase
from parts2whole.scans.read import ScanSource, strip_suffix
from parts2whole.store.record import CaseRecord


def odd_channels(records: Sequence[CaseRecord]) -> dict[str, str]:
    """Cases that have another number of channels than most, and what to say of each; more wins a tie."""
    counts = Counter(record.channels for record in records)
    usual = max(counts, key=lambda channels: (counts[channels], channels), default=0)
    return {
        record.case_id: (
            f"it has {plural(record.channels, 'channel')}, {counts[usual]} other cases have {usual}"
        )
        for record in records
        if record.channels != usual
    }


def channel_names(record: CaseRecord) -> tuple[str, ...]:
    """What a case's images end in, one a channel: ``0000`` and ``0001``; () if all are in one file."""
    start = f"{record.case_id}_"
    stems = [strip_suffix(name) for name in record.source[: record.channels]]
    if record.channels < 2 or not all(stem.startswith(start) for stem in stems):
        return ()
    return tuple(stem.removeprefix(start) for stem in stems)


def group_channels(cases: Sequence[SourceCase], channels: int, names: Sequence[str] = ()) -> list[SourceCase]:
    """New scans of several channels: files of one folder that differ in the channel's name are one case.

    Args:
        cases: one a file, or already whole.
        channels: how many the model has.
        names: what the files' names end in after ``_``, in the model's order; default 0000 and so on.

    Returns:
        Cases of all channels, files that hold every channel themselves among them; what a case lacks is the
        problem of its first file.
    """
    if channels < 2:
        return list(cases)
    order = tuple(names) or tuple(f"{number:04d}" for number in range(channels))
    ending = re.compile(rf"_(?:{'|'.join(map(re.escape, order))})(-[0-9a-f]{{8}})?$")
    whole: list[SourceCase] = []
    found: dict[tuple[Path, str], dict[str, SourceCase]] = {}
    for case in cases:
        file = case.files()[0]
        stem, _, channel = strip_suffix(file.name).rpartition("_")
        if len(case.files()) > 1 or channel not in order:
            whole.append(dataclasses.replace(case, which="channels"))
        else:
            found.setdefault((file.absolute().parent, stem), {})[channel] = case
    for (_, stem), parts in found.items():
        there = [channel for channel in order if channel in parts]
        missing = ", ".join(f"{stem}_{channel}" for channel in order if channel not in parts)
        first = parts[there[0]]
        images = tuple(image for channel in there for image in parts[channel].images)
        if missing:
            problem = f"it has no {missing}; the model has {channels} channels"
            images = (ScanSource(first.case_id, tuple(case.files()[0] for case in parts.values()), problem),)
        whole.append(SourceCase(ending.sub(r"\1", first.case_id), images, patient=first.patient))
    return sorted(whole, key=lambda case: case.case_id)
