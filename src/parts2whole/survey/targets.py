"""What labels mark: how bright a scan is inside each of them, so that settings keep it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from parts2whole.progress import watch, watching
from parts2whole.scans.case import IngestError, SourceCase, read_case_label, read_channels
from parts2whole.scans.preprocess import guess_modality
from parts2whole.scans.read import ReadError
from parts2whole.scans.volume import VolumeError
from parts2whole.survey.propose import Target

LOOKED_AT = 40
"""So many cases, evenly spread, are looked at."""

INSIDE = (5.0, 95.0)
"""Percentiles that stand for what lies inside a label, without its rims."""


Named = tuple[str | None, bool]
"""A modality, and whether the file names it."""


def look_inside(
    cases: Sequence[SourceCase], *, ignored: int | None = None, progress: bool = False
) -> tuple[Target, ...]:
    """Look at scans inside their labels; cases that can't be read say nothing.

    Args:
        cases: with labels; some are looked at, the first channel of each.
        ignored: label value that marks nothing.
        progress: show a progress bar.

    Returns:
        One entry a label and modality, without 0.
    """
    chosen = cases[:: -(-len(cases) // LOOKED_AT) or 1]
    found: dict[tuple[Named, int], list[tuple[float, ...]]] = defaultdict(list)
    with watching("Looking inside the labels", len(chosen), show=progress):
        for case in watch(chosen, len(chosen)):
            try:
                for known, marked, numbers in _look(case):
                    found[known, marked].append(numbers)
            except (ReadError, IngestError, VolumeError, MemoryError):
                continue  # preparing it sets it aside, and says why
    targets = []
    for ((modality, named), value), facts in sorted(found.items(), key=lambda one: (one[0][1], str(one[0]))):
        if value not in (0, ignored):
            voxels, low, high, low_rank, high_rank = (float(n) for n in np.median(facts, axis=0))
            ranks = (low_rank, high_rank)
            targets.append(Target(value, len(facts), voxels, (low, high), ranks, modality, named))
    return tuple(targets)


def _look(case: SourceCase) -> list[tuple[Named, int, tuple[float, ...]]]:
    """Of every label in a case: the modality, its value, voxels, and percentiles of the scan inside it."""
    scan = read_channels(case)
    label = read_case_label(case, scan)
    if label is None:
        return []
    array = scan.array.reshape(-1, *scan.shape)[0]
    named = (guess_modality(dataclasses.replace(scan, array=array))[0], scan.modality is not None)
    found: list[tuple[Named, int, tuple[float, ...]]] = []
    for value in np.unique(label.array):
        inside = array[label.array == value]
        low, high = np.percentile(inside, INSIDE)
        ranks = 100 * np.mean(array < low), 100 * np.mean(array <= high)
        facts = (float(inside.size), float(low), float(high), *map(float, ranks))
        found.append((named, int(value), facts))
    return found
