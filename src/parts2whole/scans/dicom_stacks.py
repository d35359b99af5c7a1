"""Stacks of DICOM slices: their order along the normal, whether they are evenly spaced, and why not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from parts2whole.scans.checks import LARGEST_SCAN_VOXELS
from parts2whole.scans.dicom_slices import Slice

SAME_PLACE_MM = 1e-3
"""Slices whose places along the normal differ by less share it."""

UNEVEN, UNEVEN_MM = 0.1, 0.1
"""Slices may be this share of a spacing, or this far, off their place: positions often have few digits."""

TILT_DEGREES = 0.5


def places_of(stack: Sequence[Slice]) -> npt.NDArray[np.float64]:
    """Of slices along the normal of the first, in mm."""
    return np.array([each.position for each in stack]) @ stack[0].normal


def in_order(stack: Sequence[Slice]) -> list[Slice]:
    """Slices by their place along the normal."""
    return [stack[i] for i in np.argsort(places_of(stack), kind="stable")]


def runs_of(ordered: Sequence[Slice]) -> list[list[Slice]]:
    """Slices in order, together where they share a place."""
    runs: list[list[Slice]] = []
    for each, step in zip(ordered, np.diff(places_of(ordered), prepend=-np.inf), strict=True):
        if step > SAME_PLACE_MM:
            runs.append([])
        runs[-1].append(each)
    return runs


def is_simple(ordered: Sequence[Slice]) -> bool:
    """Whether no two slices share a place."""
    return bool((np.diff(places_of(ordered)) > SAME_PLACE_MM).all())


def is_spread(ordered: Sequence[Slice]) -> bool:
    """Whether two slices have different places."""
    return len(ordered) > 1 and bool(np.ptp(places_of(ordered)) > SAME_PLACE_MM)


def problem_of(ordered: Sequence[Slice]) -> str | None:
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
    return uneven(ordered)


def uneven(ordered: Sequence[Slice]) -> str | None:
    """Why slices in order aren't evenly stacked, or None."""
    if not is_simple(ordered):
        runs = runs_of(ordered)
        one_name = any(len({each.instance for each in run}) < len(run) for run in runs)
        return (
            f"up to {max(map(len, runs))} images at one position"
            f"{' under one SOPInstanceUID' if one_name else ''}, and no tag sorts all of them into "
            "regular volumes"
        )
    places = places_of(ordered)
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


def tilt_notes(ordered: Sequence[Slice]) -> list[str]:
    """A note on gantry tilt: the stack leans, so its axes aren't at right angles."""
    step = ordered[-1].position - ordered[0].position
    cosine = float(step @ ordered[0].normal) / float(np.linalg.norm(step))
    degrees = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return [f"gantry tilt of {degrees:.1f} degrees: slices are kept as they are"] * (degrees > TILT_DEGREES)
