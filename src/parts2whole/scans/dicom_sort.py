"""Slices of one series sorted into volumes, by what they are: position, orientation and voxels."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from parts2whole.scans.dicom_apart import Split, Whole, tell_apart, tell_apart_with_copies
from parts2whole.scans.dicom_slices import Slice
from parts2whole.scans.dicom_stacks import in_order, is_spread, problem_of, runs_of, tilt_notes
from parts2whole.scans.dicom_voxels import Voxels

SAME_DIRECTION = 0.01
"""Orientations whose cosines differ by less are one stack."""

MOST_GRIDS = 1000
"""Orientations and sizes in one series; images of more are each alone."""

SAME_POSITION_MM = 0.01
"""Copies of a slice may differ by this much, which is rounding."""

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
            if not is_spread(stack):
                alone += [(each, "of another orientation or size") for each in stack]
                continue
            problem = problem_of(stack)
            notes = [] if problem else tilt_notes(stack)
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


def _split(grid: list[Slice], voxels: Voxels, left_out: Counter[str]) -> Split:
    """Slices of one grid as volumes, without copies."""
    grid = in_order(grid)
    if not is_spread(grid):
        return Split([grid])
    whole = Whole(grid)
    if whole.most > 1:
        split = tell_apart_with_copies(whole)
        if split is not None:
            return _without_copied_stacks(whole, split, voxels, left_out)
        whole = Whole(_without_copies(grid, voxels, left_out))
    return tell_apart(whole)


def _without_copies(grid: list[Slice], voxels: Voxels, left_out: Counter[str]) -> list[Slice]:
    """Slices in order, each once: of those with one place and equal voxels the first, and no broken ones."""
    kept: list[Slice] = []
    for run in runs_of(grid):
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


def _without_copied_stacks(whole: Whole, split: Split, voxels: Voxels, left_out: Counter[str]) -> Split:
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
