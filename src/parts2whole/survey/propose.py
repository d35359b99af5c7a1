"""Proposals for spacing, intensity window and whole size from what a set of scans looks like, each explained.

They are starting points.  The defaults of the paper's line of work (native spacing, -1000 to 1000 HU, wholes
of 32 x 64 x 64 voxels) are left only where the scans give a reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Size, Triple

SAME_SPACING = 1.25
"""Spacings are alike if, on every axis, the 90th percentile is at most so many times the 10th."""

SOFT_TISSUE_HU = (-200.0, 300.0)
"""From fat to vessels with contrast agent."""

LUNG_SHARE = 0.25
"""A body that is lung to this share is a chest; rims in air, and bases of lungs, stay below."""

WHOLE_VOXELS = 32 * 64 * 64
"""Voxels of the published wholes."""

STEP = 8
"""Edges must be divisible by the largest stride of the encoder."""


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Settings for the scans of one modality, and one sentence on each.

    Attributes:
        modality: CT, MR, another that the files say, or ``unclear``.
        scans: how many there are, copies left out.
        spacing_mm: resample to it (z, y, x); None keeps each scan's own.
        spacing_why: reason.
        window_hu: Hounsfield units that become 0 and 1; None where that isn't CT.
        percentiles: percentiles of each volume that become 0 and 1; None for CT.
        window_why: reason.
        whole_voxels: edges (z, y, x) of a whole.
        whole_mm: the same in mm, at the spacing proposed, or the median one.
        whole_why: reason.
    """

    modality: str
    scans: int
    spacing_mm: Triple | None
    spacing_why: str
    window_hu: tuple[float, float] | None
    percentiles: tuple[float, float] | None
    window_why: str
    whole_voxels: Size
    whole_mm: Triple
    whole_why: str


def propose(
    modality: str,
    *,
    shapes: Sequence[Size],
    spacings_mm: Sequence[Triple],
    largest_values: Sequence[float],
    lung_shares: Sequence[float],
) -> Proposal:
    """Settings that suit scans of one modality.

    Args:
        modality: CT, MR, another, or ``unclear``.
        shapes: voxels (z, y, x) of every scan.
        spacings_mm: their spacing.
        largest_values: their largest value.
        lung_shares: share of their bodies that is lung, where they are CT.
    """
    spacings, sizes = np.array(spacings_mm, dtype=float), np.array(shapes, dtype=float)
    spacing, spacing_why = _propose_spacing(spacings)
    if modality == "CT":
        window_hu, window_why = _propose_window(lung_shares)
        percentiles = None
    else:
        window_hu, percentiles = None, Preprocess().percentiles
        window_why = _explain_percentiles(modality, largest_values)
    at_mm = np.median(spacings, axis=0) if spacing is None else np.array(spacing)
    sizes = sizes if spacing is None else np.maximum(1, np.rint(sizes * spacings / at_mm))
    whole = _whole_size(sizes, at_mm)
    z, y, x = (float(mm) for mm in np.round(whole * at_mm, 1))
    return Proposal(
        modality=modality,
        scans=len(shapes),
        spacing_mm=spacing,
        spacing_why=spacing_why,
        window_hu=window_hu,
        percentiles=percentiles,
        window_why=window_why,
        whole_voxels=(int(whole[0]), int(whole[1]), int(whole[2])),
        whole_mm=(z, y, x),
        whole_why=_explain_whole(whole, sizes),
    )


def _propose_spacing(spacings: npt.NDArray[np.float64]) -> tuple[Triple | None, str]:
    if len(spacings) == 1:
        return None, "There is a single scan, so there is nothing to harmonise."
    low, high = np.percentile(spacings, (10, 90), axis=0)
    ratio = high / low
    worst = int(np.argmax(ratio))
    smallest, largest = float(spacings[:, worst].min()), float(spacings[:, worst].max())
    axis = "zyx"[worst]
    if ratio[worst] <= SAME_SPACING:
        few = ""
        if largest > 1.5 * smallest:
            few = f"Most spacings are alike (at the extremes, {axis} is {smallest:.3g} and {largest:.3g} mm)"
        return None, f"{few or 'Spacings are alike'}, so resampling would blur and gain nothing."
    z, y, x = (float(f"{mm:.2g}") for mm in np.median(spacings, axis=0))
    return (z, y, x), (
        f"Spacing along {axis} runs from {smallest:.3g} to {largest:.3g} mm, so wholes of equal voxels would "
        f"show tissue at scales up to {largest / smallest:.2g} times apart; the median stays closest to all."
    )


def _propose_window(lung_shares: Sequence[float]) -> tuple[tuple[float, float], str]:
    chests = sum(share >= LUNG_SHARE for share in lung_shares)
    count = len(lung_shares)
    if 3 * chests >= count:
        return Preprocess().window_hu, (
            f"{chests} of {count} scans hold much lung, and this window spans everything from air to dense "
            "bone, as Models Genesis takes it."
        )
    few = f"{chests or 'None'} of {count} scans hold much lung" if count > 1 else "The scan holds little lung"
    return SOFT_TISSUE_HU, (
        f"{few}, and this window, from fat to enhanced vessels, gives soft tissue four times the contrast of "
        "-1000 to 1000; take that one if air or dense bone matter."
    )


def _explain_percentiles(modality: str, largest: Sequence[float]) -> str:
    low, high = _short(min(largest)), _short(max(largest))
    span = (
        f"The largest values lie between {low} and {high}" if low != high else f"The largest value is {high}"
    )
    own = f"{span}, on no fixed scale, so each volume's own percentiles decide"
    if modality == "unclear":
        return f"{own}; the files don't name a modality, so prepare must be told --modality MR (or CT)."
    if modality != "MR":
        return f"{own}; prepare takes {modality} with --modality MR."
    return f"{own}."


def _whole_size(sizes: npt.NDArray[np.float64], spacing_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Edges near a cube in mm of the usual number of voxels, that nine of ten scans hold."""
    room = np.maximum(2 * STEP, STEP * np.floor(np.percentile(sizes, 10, axis=0, method="lower") / STEP))
    edges = np.zeros(3)
    free = np.ones(3, dtype=bool)
    while free.any():
        # What edges already fixed leave is shared by the others as a square or a cube in mm.
        left = WHOLE_VOXELS / np.prod(edges[~free])
        mm = (left * np.prod(spacing_mm[free])) ** (1 / free.sum())
        wanted = np.where(free, mm / spacing_mm, 0)
        full = free & (wanted >= room)
        if not full.any():
            edges = np.where(free, np.maximum(2 * STEP, STEP * np.rint(wanted / STEP)), edges)
            break
        edges = np.where(full, room, edges)
        free &= ~full
    chosen: npt.NDArray[np.int64] = np.minimum(edges, room).astype(np.int64)
    return chosen


def _explain_whole(whole: npt.NDArray[np.int64], sizes: npt.NDArray[np.float64]) -> str:
    held = int(np.all(sizes >= whole, axis=1).sum())
    share = np.prod(whole) / WHOLE_VOXELS
    padded = "" if held == len(sizes) else ", others are padded"
    size = "about as many voxels as" if 0.6 < share < 1.6 else f"{100 * share:.0f} % of the voxels of"
    return (
        f"Edges are as equal in mm as multiples of {STEP} and the scans allow, with {size} the published "
        f"32 x 64 x 64; {held} of {len(sizes)} scans hold it{padded}."
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
