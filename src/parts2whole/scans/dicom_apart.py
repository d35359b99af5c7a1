"""What tells the slices of one grid apart: the value of a tag, or of two, or the order of one that counts.

No single tag does: many scanners rightly have one AcquisitionNumber a slice, and some number two passes that
overlap.  So slices are first looked at whole.  Where they are no regular stack, or may be two that are woven
into each other, every tag is tried, and one counts only if it leaves nothing but regular stacks that don't
continue each other.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from parts2whole.scans.dicom_slices import DIMENSION, Slice
from parts2whole.scans.dicom_stacks import (
    SAME_PLACE_MM,
    UNEVEN,
    UNEVEN_MM,
    is_simple,
    is_spread,
    places_of,
    runs_of,
    uneven,
)

SHORTEST = 3
"""Slices of a stack that doesn't share its places with another."""

MOST_PASSES = 4
"""Woven into each other, where nothing but their order tells them apart."""

CONTRASTS = (
    *("StackID", "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime"),
    *("EffectiveEchoTime", "DiffusionBValue", "private b-value (Siemens)", "private b-value (GE)"),
    *("private b-value (Philips)", "DiffusionDirectionality", "DiffusionGradientOrientation"),
    *("InversionTime", "InversionTimes", "FlipAngle", "RepetitionTime", "NominalPercentageOfCardiacPhase"),
    *("NominalPercentageOfRespiratoryPhase", "NominalCardiacTriggerDelayTime", "TemporalPositionTimeOffset"),
    *("ImageType", "FrameType", "ComplexImageComponent", "ConvolutionKernel", "KVP", "FrameOfReferenceUID"),
    *("EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector", "RRIntervalVector"),
    *("TimeSlotVector", "AngularViewVector", "TimeSliceVector"),
)
"""Tags whose values are of different volumes, the most telling first; so are the dimensions of a multi-frame
object."""

NUMBERS = ("AcquisitionNumber", "FrameAcquisitionNumber")
"""Tags that count acquisitions, or slices."""

TIMES = (
    *("AcquisitionDateTime", "AcquisitionTime", "FrameAcquisitionDateTime", "FrameReferenceDateTime"),
    *("TriggerTime", "FrameReferenceTime", "ContentTime"),
)
"""Tags whose values are of an acquisition, a pass or a slice."""

COUNTED = (*TIMES, *NUMBERS, "InstanceNumber")
"""Tags that may count through the slices of one pass after the other."""

DELAYS = ("TriggerTime", "NominalCardiacTriggerDelayTime")
"""Tags that grow from phase to phase at every place, by other steps at each."""

IN_PLANE = "place within the plane"
APART_MM = 1.0
"""Between places within the plane that are different."""

STILL = ("CT", "PT")
"""Modalities that never acquire every other slice of a volume first, as MR does."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Slices told apart.

    Attributes:
        stacks: one or more.
        alone: images that make no stack.
        by: what tells them apart.
    """

    stacks: list[list[Slice]]
    alone: list[Slice] = dataclasses.field(default_factory=list)
    by: str = ""


@dataclasses.dataclass(frozen=True)
class _Ends:
    """Where a stack lies along the normal, and its step, in mm."""

    first: float
    last: float
    step: float


class Whole:
    """All slices of one grid, in order, and what is known of them together.

    Attributes:
        slices: in order.
        places: along the normal, in mm.
        run: the number of its place for every slice.
        most: how many slices share a place at most.
    """

    def __init__(self, grid: list[Slice]) -> None:
        self.slices = grid
        self.normal = grid[0].normal
        self.places = places_of(grid)
        runs = runs_of(grid)
        self.most = max(map(len, runs))
        self.run = [number for number, run in enumerate(runs) for _ in run]
        self.known = {IN_PLANE} | {name for each in grid for name in each.marks}
        self.is_regular = uneven(grid) is None
        steps = np.diff(self.places)
        self.step = float(np.median(steps[steps > SAME_PLACE_MM])) if is_spread(grid) else 0.0
        thickness, planned = grid[0].thickness_mm or 0.0, grid[0].planned_mm or 0.0
        still = grid[0].modality in STILL
        # Slices that are thicker than their distance, or CT: no scanner jumps to and fro within one volume.
        self.is_in_turn = still or thickness > 1.5 * self.step
        # Slices as far from each other as was planned: packages of one volume, acquired in turn.
        self.is_as_planned = not still and abs(planned - self.step) <= UNEVEN * self.step

    def ends(self, stack: Sequence[Slice]) -> _Ends:
        """Where a stack lies."""
        first, last = (float(stack[i].position @ self.normal) for i in (0, -1))
        return _Ends(first, last, (last - first) / (len(stack) - 1))

    def runs_of(self, stack: Sequence[Slice]) -> set[int]:
        """Numbers of the places of a stack."""
        mine = {id(each) for each in stack}
        return {run for each, run in zip(self.slices, self.run, strict=True) if id(each) in mine}

    def names(self) -> list[str]:
        """What may tell the slices apart by its value, the most telling first."""
        dimensions = sorted(name for name in self.known if name.startswith(DIMENSION))
        names = (*CONTRASTS, *dimensions, IN_PLANE, *NUMBERS, *TIMES)
        return [name for name in names if name in self.known]

    def texts(self, name: str) -> list[str]:
        """A value for every slice."""
        if name != IN_PLANE:
            return [each.marks.get(name, "") for each in self.slices]
        axes = self.slices[0].orientation.reshape(2, 3)
        across, down = axes @ np.array([each.position for each in self.slices]).T
        return [f"{x} {y}" for x, y in zip(_clusters(across), _clusters(down), strict=True)]


def _clusters(values: npt.NDArray[np.float64]) -> list[int]:
    """The number of its cluster for every value; clusters are more than `APART_MM` apart."""
    order = np.argsort(values)
    numbers = np.zeros(len(values), int)
    numbers[order[1:]] = np.cumsum(np.diff(values[order]) > APART_MM)
    return [int(number) for number in numbers]


@dataclasses.dataclass(frozen=True)
class _Way:
    """One way to tell slices apart: groups in order of their value, by what, and what that is worth."""

    groups: list[list[Slice]]
    by: str
    kind: Literal["contrast", "number", "time", "count"]


def tell_apart_with_copies(whole: Whole) -> Split | None:
    """Slices told apart so clearly that copies among them don't matter; nothing may be left over."""
    return (
        _best(whole, _by_value(whole))
        or _best(whole, _by_two_values(whole))
        or _best(whole, _by_count(whole), everywhere=True)
    )


def tell_apart(whole: Whole) -> Split:
    """Slices without copies as one stack, or as several where something tells them apart."""
    return (
        _best(whole, _by_value(whole), alone=True)
        or _best(whole, _by_count(whole))
        or _best(whole, _by_two_values(whole), alone=True)
        or next(filter(None, (_partly_judged(whole, way) for way in _by_value(whole))), Split([whole.slices]))
    )


def _best(
    whole: Whole, ways: Iterator[_Way], *, alone: bool = False, everywhere: bool = False
) -> Split | None:
    """Of the ways that leave nothing but regular stacks, that with the fewest.

    Args:
        whole: all slices.
        ways: to tell them apart.
        alone: whether single images may be left over.
        everywhere: whether stacks that are counted must all have the same places.
    """
    found = [split for way in ways if (split := _judged(whole, way, alone=alone, everywhere=everywhere))]
    return min(found, key=lambda split: (len(split.alone), len(split.stacks)), default=None)


def _by_value(whole: Whole) -> Iterator[_Way]:
    """Slices in which one tag has one value."""
    for name in whole.names():
        yield _Way(_equal(whole, whole.texts(name)), name, _kind(name))


def _by_two_values(whole: Whole) -> Iterator[_Way]:
    """Slices in which two tags have one value each."""
    if whole.most == 1:
        return
    texts = {name: whole.texts(name) for name in whole.names()}
    few = [name for name in texts if 1 < len(set(texts[name])) <= len(whole.slices) // 2]
    for one, other in itertools.combinations(few, 2):
        both = [f"{a} {b}" for a, b in zip(texts[one], texts[other], strict=True)]
        yield _Way(_equal(whole, both), f"{one} and {other}", _kind(one))


def _by_count(whole: Whole) -> Iterator[_Way]:
    """Passes through slices that a tag counts, and phases at every place."""
    for name in COUNTED:
        if name in whole.known:
            yield _Way(_passes(whole, whole.texts(name)), name, "count")
    for name in DELAYS:
        if name in whole.known:
            yield _Way(_ranked(whole, whole.texts(name)), name, "count")


def _kind(name: str) -> Literal["contrast", "number", "time"]:
    plain = name.removeprefix(DIMENSION)
    return "number" if plain in NUMBERS else "time" if plain in TIMES else "contrast"


def _judged(whole: Whole, way: _Way, *, alone: bool, everywhere: bool) -> Split | None:
    """The stacks of one way if they are all regular, and better than the whole."""
    stacks = [group for group in way.groups if is_spread(group)]
    single = [each for group in way.groups if not is_spread(group) for each in group]
    if not stacks or len(stacks) + bool(single) < 2 or any(uneven(stack) for stack in stacks):
        return None
    if single and not (alone and way.kind in ("contrast", "number") and not whole.is_regular):
        return None
    if whole.most == 1 and min(map(len, stacks)) < SHORTEST:
        return None
    ends = [whole.ends(stack) for stack in stacks]
    if any(_continues(*pair) for pair in itertools.permutations(ends, 2)):
        return None
    found = Split(stacks, single, way.by)
    if way.kind == "count" and not _are_passes(whole, stacks, everywhere=everywhere):
        return None
    if way.by == IN_PLANE and (single or not _lie_together(whole, stacks)):
        return None
    return found if whole.most > 1 or _is_telling(whole, way) else None


def _partly_judged(whole: Whole, way: _Way) -> Split | None:
    """The stacks of one way that is beyond doubt, though some are no volume, such as for a lost slice."""
    stacks = [group for group in way.groups if is_spread(group)]
    if not 1 < len(stacks) == len(way.groups) <= max(whole.most, 2) or min(map(len, stacks)) < SHORTEST:
        return None
    if not all(map(is_simple, stacks)) or all(map(uneven, stacks)) or not _lie_together(whole, stacks):
        return None
    return Split(stacks, by=way.by) if whole.most > 1 or _is_telling(whole, way) else None


def _is_telling(whole: Whole, way: _Way) -> bool:
    """Whether a way may divide slices none of which share a place."""
    return way.kind == "contrast" or (not whole.is_as_planned and (way.kind == "number" or whole.is_in_turn))


def _are_passes(whole: Whole, stacks: list[list[Slice]], *, everywhere: bool) -> bool:
    """Whether counted stacks are passes: few, long, one beside the other, and not cut at one odd image."""
    runs = [whole.runs_of(stack) for stack in stacks]
    if len(stacks) > (whole.most if whole.most > 1 else MOST_PASSES):
        return False
    if everywhere:
        return all(run == runs[0] for run in runs)
    shared = (len(one & other) for one, other in itertools.combinations(runs, 2))
    return min(map(len, runs)) >= SHORTEST and 1 not in shared and _lie_together(whole, stacks)


def _lie_together(whole: Whole, stacks: list[list[Slice]]) -> bool:
    """Whether no stack ends before another begins."""
    ends = [whole.ends(stack) for stack in stacks]
    return max(each.first for each in ends) < min(each.last for each in ends)


def _continues(one: _Ends, other: _Ends) -> bool:
    """Whether a stack begins where another ends, with the same spacing: they are one."""
    limit = max(UNEVEN_MM, UNEVEN * one.step)
    return abs(other.first - one.last - one.step) <= limit and abs(other.step - one.step) <= limit


def _equal(whole: Whole, texts: Sequence[str]) -> list[list[Slice]]:
    """Slices of equal text, in order of the texts."""
    groups: dict[str, list[Slice]] = defaultdict(list)
    for each, text in zip(whole.slices, texts, strict=True):
        groups[text].append(each)
    return [group for _, group in sorted(groups.items(), key=lambda item: _number(item[0]))]


def _passes(whole: Whole, texts: Sequence[str]) -> list[list[Slice]]:
    """Slices in order of distinct values: a new one begins where a place comes again, or the step changes."""
    if len(set(texts)) < len(texts) or "" in texts:
        return []
    groups: list[list[int]] = []
    seen: set[int] = set()
    for i in sorted(range(len(texts)), key=lambda i: _number(texts[i])):
        last = groups[-1] if groups else []
        turns = False
        if whole.most == 1 and len(last) > 1:
            step, usual = whole.places[[i, last[1]]] - whole.places[[last[-1], last[0]]]
            turns = abs(step - usual) > max(UNEVEN_MM, UNEVEN * abs(usual))
        if not groups or whole.run[i] in seen or turns:
            groups.append([])
            seen.clear()
        groups[-1].append(i)
        seen.add(whole.run[i])
    return [[whole.slices[i] for i in sorted(group)] for group in groups]


def _ranked(whole: Whole, texts: Sequence[str]) -> list[list[Slice]]:
    """The first slices of all places, the second ones, ..., where places have equally many."""
    of = {id(each): _number(text) for each, text in zip(whole.slices, texts, strict=True)}
    runs = [sorted(run, key=lambda each: of[id(each)]) for run in runs_of(whole.slices)]
    if any(len(run) != whole.most or len({of[id(each)] for each in run}) < whole.most for run in runs):
        return []
    return [list(group) for group in zip(*runs, strict=True)]


def _number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text
