"""Slices of one series sorted into volumes, by what they are: position, orientation and voxels.

No single tag tells volumes apart: many scanners rightly have one AcquisitionNumber a slice, and some number
two passes that overlap.  So slices of one orientation are first looked at whole.  Where they are no regular
stack, or may be two that are woven into each other, tags are tried, and taken if they leave nothing but
regular stacks.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from parts2whole.scans.checks import LARGEST_SCAN_VOXELS
from parts2whole.scans.dicom_slices import Slice
from parts2whole.scans.dicom_voxels import Voxels

SAME_DIRECTION = 0.01
"""Orientations whose cosines differ by less are one stack."""

MOST_GRIDS = 1000
"""Orientations and sizes in one series; images of more are each alone."""

SAME_PLACE_MM = 1e-3
"""Slices whose places along the normal differ by less share it."""

SAME_POSITION_MM = 0.01
"""Copies of a slice may differ by this much, which is rounding."""

UNEVEN, UNEVEN_MM = 0.1, 0.1
"""Slices may be this share of a spacing, or this far, off their place: positions often have few digits."""

SHORTEST = 3
"""Slices of a stack that doesn't share its places with another."""

MOST_PASSES = 4
"""Woven into each other, where nothing but their order tells them apart."""

TILT_DEGREES = 0.5

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
STILL = ("CT", "PT")
"""Modalities that never acquire every other slice of a volume first, as MR does."""

COPIES, BROKEN_COPIES = "copies of slices", "broken copies of slices"


@dataclasses.dataclass(frozen=True)
class Stack:
    """Slices of one volume.

    Attributes:
        slices: in order of their place along the normal.
        problem: why they are no volume.
        notes: what the user should know.
    """

    slices: tuple[Slice, ...]
    problem: str | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sorted:
    """What became of the slices of a series.

    Attributes:
        stacks: volumes, the largest grid first, and what is none, with its problem.
        left_out: how many slices are in none of them, by reason.
    """

    stacks: tuple[Stack, ...]
    left_out: Counter[str]


@dataclasses.dataclass(frozen=True)
class _Split:
    """Slices told apart: stacks, images that make none, and by what."""

    stacks: list[list[Slice]]
    alone: list[Slice] = dataclasses.field(default_factory=list)
    by: str = ""


def sort_slices(slices: Sequence[Slice], voxels: Voxels) -> Sorted:
    """Sort the slices of one series into volumes.

    Slices that don't make a volume are left out where they are fewer than those that do.  ``voxels`` are read
    only of slices that share a place.
    """
    volumes: list[Stack] = []
    alone: list[tuple[Slice, str]] = []
    left_out: Counter[str] = Counter()
    for grid in _by_grid(slices):
        split = _split(grid, voxels, left_out)
        alone += [(each, f"of another {split.by}") for each in split.alone]
        for stack in split.stacks:
            if not _is_spread(stack):
                alone += [(each, "of another orientation or size") for each in stack]
                continue
            problem = _problem(stack)
            notes = [] if problem else _tilt(stack)
            if len(split.stacks) > 1:
                notes.append(f"one of {len(split.stacks)} volumes of its series, told apart by {split.by}")
            volumes.append(Stack(tuple(stack), problem, tuple(notes)))
    if len(alone) < sum(len(volume.slices) for volume in volumes):
        left_out.update(reason for _, reason in alone)
        return Sorted(tuple(volumes), left_out)
    rest = tuple(each for each, _ in alone)
    problem = "a single slice" if len(rest) == 1 else f"{len(rest)} images, no two of which are neighbours"
    if len(rest) > 1 and len(_by_grid(rest)) == 1:
        problem = f"{len(rest)} images at one position"
    return Sorted((*volumes, Stack(rest, problem)), left_out)


def _by_grid(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices of one orientation, size and pixel spacing, the most first."""
    # Ten logarithms of a spacing change by SAME_DIRECTION where the spacing changes by a thousandth.
    looks = np.array(
        [[*each.size, *10 * np.log(each.pixel_spacing_mm), *each.orientation] for each in slices]
    )
    groups: list[list[Slice]] = []
    left = np.arange(len(slices))
    while len(left) and len(groups) < MOST_GRIDS:
        like = np.abs(looks[left] - looks[left[0]]).max(axis=1) < SAME_DIRECTION
        groups.append([slices[i] for i in left[like]])
        left = left[~like]
    groups += [[slices[int(i)]] for i in left]
    return sorted(groups, key=len, reverse=True)


def _split(grid: list[Slice], voxels: Voxels, left_out: Counter[str]) -> _Split:
    """Slices of one grid as volumes, without copies."""
    grid = _ordered(grid)
    if not _is_spread(grid):
        return _Split([grid])
    whole = _Whole(grid)
    if whole.most > 1:
        split = (
            _best(whole, _by_value(whole))
            or _best(whole, _by_two_values(whole))
            or _best(whole, _by_count(whole), everywhere=True)
        )
        if split is not None:
            return _without_copied_stacks(whole, split, voxels, left_out)
        grid = _without_copies(grid, voxels, left_out)
        whole = _Whole(grid)
    return (
        _best(whole, _by_value(whole), alone=True)
        or _best(whole, _by_count(whole), alone=True)
        or _best(whole, _by_two_values(whole), alone=True)
        or next((split for way in _by_value(whole) if (split := _partly_judged(whole, way))), _Split([grid]))
    )


def _best(
    whole: _Whole, ways: Iterator[_Way], *, alone: bool = False, everywhere: bool = False
) -> _Split | None:
    """Of the ways that leave nothing but regular stacks, that with the fewest."""
    found = [split for way in ways if (split := _judged(whole, way, alone=alone, everywhere=everywhere))]
    return min(found, key=lambda split: (len(split.alone), len(split.stacks)), default=None)


@dataclasses.dataclass(frozen=True)
class _Ends:
    """Where a stack lies along the normal, and its step, in mm."""

    first: float
    last: float
    step: float


class _Whole:
    """All slices of one grid, in order, and what is known of them together."""

    def __init__(self, grid: list[Slice]) -> None:
        self.slices = grid
        self.normal = grid[0].normal
        self.places = _places(grid)
        runs = _runs(grid)
        self.most = max(map(len, runs))
        self.run = [number for number, run in enumerate(runs) for _ in run]
        self.known = {IN_PLANE} | {name for each in grid for name in each.marks}
        self.is_regular = _uneven(grid) is None
        steps = np.diff(self.places)
        self.step = float(np.median(steps[steps > SAME_PLACE_MM])) if _is_spread(grid) else 0.0
        thickness, planned = grid[0].thickness_mm or 0.0, grid[0].planned_mm or 0.0
        still = grid[0].modality in STILL
        # Slices that are thicker than their distance, or CT: no scanner jumps to and fro within one volume.
        self.is_in_turn = still or thickness > 1.5 * self.step
        # Slices as far from each other as was planned: packages of one volume, acquired in turn.
        self.is_as_planned = not still and abs(planned - self.step) <= UNEVEN * self.step

    def ends(self, stack: Sequence[Slice]) -> _Ends:
        first, last = (float(stack[i].position @ self.normal) for i in (0, -1))
        return _Ends(first, last, (last - first) / (len(stack) - 1))

    def runs_of(self, stack: Sequence[Slice]) -> set[int]:
        """Numbers of the places of a stack."""
        mine = {id(each) for each in stack}
        return {run for each, run in zip(self.slices, self.run, strict=True) if id(each) in mine}

    def texts(self, name: str) -> list[str]:
        if name != IN_PLANE:
            return [each.marks.get(name, "") for each in self.slices]
        axes = self.slices[0].orientation.reshape(2, 3)
        across = np.array([each.position for each in self.slices]) - self.slices[0].position
        return [f"{x:.0f} {y:.0f}" for x, y in np.rint(across @ axes.T) + 0.0]


@dataclasses.dataclass(frozen=True)
class _Way:
    """One way to tell slices apart: groups in order of their value, by what, and what that is."""

    groups: list[list[Slice]]
    by: str
    is_contrast: bool = False
    is_number: bool = False
    is_count: bool = False


def _by_value(whole: _Whole) -> Iterator[_Way]:
    """Slices in which one tag has one value."""
    dimensions = sorted(name for name in whole.known if name.startswith("dimension "))
    for name in (*CONTRASTS, *dimensions, IN_PLANE, *NUMBERS, *TIMES):
        if name in whole.known:
            is_contrast = name.removeprefix("dimension ") not in (*NUMBERS, *TIMES)
            yield _Way(_equal(whole, whole.texts(name)), name, is_contrast, name in NUMBERS)


def _by_two_values(whole: _Whole) -> Iterator[_Way]:
    """Slices in which two tags have one value each."""
    if whole.most == 1:
        return
    texts = {
        name: whole.texts(name) for name in (*CONTRASTS, IN_PLANE, *NUMBERS, *TIMES) if name in whole.known
    }
    few = [name for name in texts if 1 < len(set(texts[name])) <= len(whole.slices) // 2]
    for one, other in itertools.combinations(few, 2):
        both = [f"{a} {b}" for a, b in zip(texts[one], texts[other], strict=True)]
        yield _Way(_equal(whole, both), f"{one} and {other}", is_contrast=one in CONTRASTS)


def _by_count(whole: _Whole) -> Iterator[_Way]:
    """Passes through slices that a tag counts, and phases at every place."""
    for name in COUNTED:
        if name in whole.known:
            yield _Way(_passes(whole, whole.texts(name)), name, is_count=True)
    for name in DELAYS:
        if name in whole.known:
            yield _Way(_ranked(whole, whole.texts(name)), name, is_count=True)


def _judged(whole: _Whole, way: _Way, *, alone: bool, everywhere: bool) -> _Split | None:
    """The stacks of one way if they are all regular, and better than the whole.

    Args:
        whole: all slices.
        way: how they are told apart.
        alone: whether single images may be left over.
        everywhere: whether stacks must all have the same places.
    """
    stacks = [group for group in way.groups if _is_spread(group)]
    single = [each for group in way.groups if not _is_spread(group) for each in group]
    if not stacks or len(stacks) + bool(single) < 2 or any(_uneven(stack) for stack in stacks):
        return None
    if single and not (alone and (way.is_contrast or way.is_number) and not whole.is_regular):
        return None
    if whole.most == 1 and min(map(len, stacks)) < SHORTEST:
        return None
    ends = [whole.ends(stack) for stack in stacks]
    if any(_continues(*pair) for pair in itertools.permutations(ends, 2)):
        return None
    found = _Split(stacks, single, way.by)
    if way.is_count and not _are_passes(whole, stacks, everywhere=everywhere):
        return None
    if way.by == IN_PLANE and (single or not _lie_together(whole, stacks)):
        return None
    return found if whole.most > 1 or _is_telling(whole, way) else None


def _partly_judged(whole: _Whole, way: _Way) -> _Split | None:
    """The stacks of one way that is beyond doubt, though some are no volume, such as for a lost slice."""
    stacks = [group for group in way.groups if _is_spread(group)]
    if not 1 < len(stacks) == len(way.groups) <= max(whole.most, 2) or min(map(len, stacks)) < SHORTEST:
        return None
    if not all(map(_is_simple, stacks)) or all(map(_uneven, stacks)) or not _lie_together(whole, stacks):
        return None
    return _Split(stacks, by=way.by) if whole.most > 1 or _is_telling(whole, way) else None


def _is_telling(whole: _Whole, way: _Way) -> bool:
    """Whether a way may divide slices none of which share a place."""
    return way.is_contrast or (not whole.is_as_planned and (way.is_number or whole.is_in_turn))


def _are_passes(whole: _Whole, stacks: list[list[Slice]], *, everywhere: bool) -> bool:
    """Whether counted stacks are passes: few, long, one beside the other, and not cut at one odd image."""
    runs = [whole.runs_of(stack) for stack in stacks]
    if len(stacks) > (whole.most if whole.most > 1 else MOST_PASSES):
        return False
    if everywhere:
        return all(run == runs[0] for run in runs)
    shared = (len(one & other) for one, other in itertools.combinations(runs, 2))
    return min(map(len, runs)) >= SHORTEST and 1 not in shared and _lie_together(whole, stacks)


def _lie_together(whole: _Whole, stacks: list[list[Slice]]) -> bool:
    """Whether no stack ends before another begins."""
    ends = [whole.ends(stack) for stack in stacks]
    return max(each.first for each in ends) < min(each.last for each in ends)


def _equal(whole: _Whole, texts: Sequence[str]) -> list[list[Slice]]:
    """Slices of equal text, in order of the texts."""
    groups: dict[str, list[Slice]] = defaultdict(list)
    for each, text in zip(whole.slices, texts, strict=True):
        groups[text].append(each)
    return [group for _, group in sorted(groups.items(), key=lambda item: _number(item[0]))]


def _passes(whole: _Whole, texts: Sequence[str]) -> list[list[Slice]]:
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


def _ranked(whole: _Whole, texts: Sequence[str]) -> list[list[Slice]]:
    """The first slices of all places, the second ones, ..., where places have equally many."""
    of = {id(each): _number(text) for each, text in zip(whole.slices, texts, strict=True)}
    runs = [sorted(run, key=lambda each: of[id(each)]) for run in _runs(whole.slices)]
    if any(len(run) != whole.most or len({of[id(each)] for each in run}) < whole.most for run in runs):
        return []
    return [list(group) for group in zip(*runs, strict=True)]


def _without_copies(grid: list[Slice], voxels: Voxels, left_out: Counter[str]) -> list[Slice]:
    """Slices in order, each once: of those with one place and equal voxels the first, and no broken ones."""
    kept: list[Slice] = []
    for run in _runs(grid):
        once: list[Slice] = []
        for each in run:
            if len(run) > 1 and any(_is_copy(each, other, voxels) for other in once):
                left_out[COPIES] += 1
            else:
                once.append(each)
        sound = {each.instance for each in once if len(once) > 1 and voxels.digest(each) is not None}
        broken = [e for e in once if len(once) > 1 and e.instance in sound and voxels.digest(e) is None]
        left_out[BROKEN_COPIES] += len(broken)
        kept += [each for each in once if each not in broken]
    return kept


def _without_copied_stacks(whole: _Whole, split: _Split, voxels: Voxels, left_out: Counter[str]) -> _Split:
    """Stacks all of whose slices are in none of the others."""
    run_of = {id(each): run for each, run in zip(whole.slices, whole.run, strict=True)}
    at: dict[int, list[tuple[int, Slice]]] = defaultdict(list)
    for number, stack in enumerate(split.stacks):
        for each in stack:
            at[run_of[id(each)]].append((number, each))
    kept: set[int] = set()
    for number, stack in enumerate(split.stacks):
        holders = kept | {i for i, other in enumerate(split.stacks) if len(other) > len(stack)}
        for each in stack:
            here = at[run_of[id(each)]]
            holders = {i for i, other in here if i in holders and _is_copy(each, other, voxels)}
            if not holders:
                kept.add(number)
                break
        else:
            left_out[COPIES] += len(stack)
    return dataclasses.replace(split, stacks=[split.stacks[number] for number in sorted(kept)])


def _is_copy(one: Slice, other: Slice, voxels: Voxels) -> bool:
    return voxels.same(one, other) and bool(np.abs(one.position - other.position).max() < SAME_POSITION_MM)


def _places(stack: Sequence[Slice]) -> npt.NDArray[np.float64]:
    """Of slices along the normal of the first, in mm."""
    return np.array([each.position for each in stack]) @ stack[0].normal


def _ordered(stack: Sequence[Slice]) -> list[Slice]:
    return [stack[i] for i in np.argsort(_places(stack), kind="stable")]


def _runs(ordered: Sequence[Slice]) -> list[list[Slice]]:
    """Slices in order, together where they share a place."""
    runs: list[list[Slice]] = []
    for each, step in zip(ordered, np.diff(_places(ordered), prepend=-np.inf), strict=True):
        if step > SAME_PLACE_MM:
            runs.append([])
        runs[-1].append(each)
    return runs


def _is_simple(ordered: Sequence[Slice]) -> bool:
    """Whether no two slices share a place."""
    return bool((np.diff(_places(ordered)) > SAME_PLACE_MM).all())


def _is_spread(ordered: Sequence[Slice]) -> bool:
    """Whether two slices have different places."""
    return len(ordered) > 1 and bool(np.ptp(_places(ordered)) > SAME_PLACE_MM)


def _continues(one: _Ends, other: _Ends) -> bool:
    """Whether a stack begins where another ends, with the same spacing: they are one."""
    limit = max(UNEVEN_MM, UNEVEN * one.step)
    return abs(other.first - one.last - one.step) <= limit and abs(other.step - one.step) <= limit


def _problem(ordered: Sequence[Slice]) -> str | None:
    """Why slices in order aren't a volume, or None."""
    unread = next((each.problem for each in ordered if each.problem), None)
    if unread:
        return unread
    rows, columns = ordered[0].size
    if len(ordered) * rows * columns > LARGEST_SCAN_VOXELS:
        return f"{len(ordered)} images of {rows} x {columns} are more than any scan may have"
    plain = sum(each.slope is None and each.intercept is None for each in ordered)
    if 0 < plain < len(ordered):
        return f"{plain} of {len(ordered)} images have no rescale slope and intercept, the others do"
    return _uneven(ordered)


def _uneven(ordered: Sequence[Slice]) -> str | None:
    """Why slices in order aren't evenly stacked, or None."""
    if not _is_simple(ordered):
        runs = _runs(ordered)
        one_name = any(len({each.instance for each in run}) < len(run) for run in runs)
        return (
            f"up to {max(map(len, runs))} images at one position"
            f"{' under one SOPInstanceUID' if one_name else ''}, and nothing tells them apart"
        )
    places = _places(ordered)
    steps = np.diff(places)
    usual = float(np.median(steps))
    gaps = steps[steps > 1.5 * usual]
    if len(gaps) and np.abs(gaps / usual - np.rint(gaps / usual)).max() < 0.2 and not _is_zoned(steps, usual):
        missing = int(np.rint(gaps / usual - 1).sum())
        return (
            f"missing slices: about {missing} of {len(ordered) + missing}, in {len(gaps)} "
            f"gap{'s' * (len(gaps) != 1)}; the usual distance is {usual:.3g} mm, the largest "
            f"{float(steps.max()):.3g} mm"
        )
    even = np.linspace(places[0], places[-1], len(places))
    if np.abs(places - even).max() > max(UNEVEN_MM, UNEVEN * usual):
        return f"non-uniform spacing: distances of slices from {steps.min():.3g} to {steps.max():.3g} mm"
    apart = np.diff([each.position for each in ordered], axis=0)
    if np.abs(apart - apart.mean(axis=0)).max() > max(1.0, UNEVEN * usual):
        return "slices are shifted against each other"
    return None


def _is_zoned(steps: npt.NDArray[np.float64], usual: float) -> bool:
    """Whether three wide steps in a row are equal: that is another spacing, not slices that are missing."""
    equal = np.abs(np.diff(steps)) < UNEVEN * usual
    wide = steps > 1.5 * usual
    return bool((equal[:-1] & equal[1:] & wide[:-2]).any())


def _tilt(ordered: Sequence[Slice]) -> list[str]:
    """A note on gantry tilt: the stack leans, so its axes aren't at right angles."""
    step = ordered[-1].position - ordered[0].position
    cosine = float(step @ ordered[0].normal) / float(np.linalg.norm(step))
    degrees = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return [f"gantry tilt of {degrees:.1f} degrees: slices are kept as they are"] * (degrees > TILT_DEGREES)


def _number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text
