"""Proposals for spacing, intensities, wholes and where they come from, each explained by what the scans show.

They are starting points, and the one place that `inspect` and `start` take them from.  The defaults of the
paper's line of work (native spacing, -1000 to 1000 HU, wholes of 32 x 64 x 64 voxels) are left only where the
scans, or what is labelled in them, give a reason.
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

BODY_HU, BODY_ABOVE_SHARE = -500.0, 0.1
"""Voxels above are body: in HU, or else as a share of a volume's intensities; as `Body` in `wholes.where`."""

BODY_SHARE = 0.5
"""With less body, wholes are centred on it, as pre-training does where it isn't told."""

WINDOW_STEP_HU = 50.0
WIDEST_HU = (-1024.0, 3071.0)
"""What 12 bits of a CT hold."""

PERCENTILES = (Preprocess().percentiles, (0.1, 99.9), (0.0, 100.0))
"""Those that are tried, until one keeps what is labelled."""

KEPT = " Nine tenths of what is labelled, of every label, lie inside."

LARGEST_WINDOW = 2**21
"""A window at inference has at most so many voxels, as 128 x 128 x 128."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What one label marks, as medians over the cases that were looked at.

    Attributes:
        value: of the label.
        cases: how many have it.
        voxels: how many a case has.
        values: 5th and 95th percentile of the scan inside it.
        ranks: percentiles of all voxels of the scan that these are.
        modality: of the scans; None where it is unclear.
        named: whether their files name it, and it isn't a guess.
    """

    value: int
    cases: int
    voxels: float
    values: tuple[float, float]
    ranks: tuple[float, float]
    modality: str | None = None
    named: bool = False


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
        window_voxels: largest window (z, y, x) at inference, where patches are as large as wholes.
        window_voxels_why: reason.
        above_hu: of CT, wholes are centred on voxels above; None draws them anywhere, as below.
        above_share: elsewhere, wholes are centred on voxels above this share of the intensities.
        where_why: reason.
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
    window_voxels: Size
    window_voxels_why: str
    above_hu: float | None
    above_share: float | None
    where_why: str


def propose(
    modality: str,
    *,
    shapes: Sequence[Size],
    spacings_mm: Sequence[Triple],
    largest_values: Sequence[float],
    lung_shares: Sequence[float],
    body_shares: Sequence[float],
    targets: Sequence[Target] = (),
    voxels: int = WHOLE_VOXELS,
) -> Proposal:
    """Settings that suit scans of one modality.

    Args:
        modality: CT, MR, another, or ``unclear``.
        shapes: voxels (z, y, x) of every scan.
        spacings_mm: their spacing.
        largest_values: their largest value.
        lung_shares: share of their bodies that is lung, where they are CT.
        body_shares: share of their voxels that isn't air.
        targets: what is labelled in them, as far as anything is.
        voxels: about so many in a whole, as far as the scans hold them.
    """
    spacings, sizes = np.array(spacings_mm, dtype=float), np.array(shapes, dtype=float)
    spacing, spacing_why = _propose_spacing(spacings)
    if modality == "CT":
        window_hu, window_why = _propose_window(lung_shares, targets)
        percentiles = None
    else:
        window_hu, (percentiles, kept) = None, _propose_percentiles(targets)
        window_why = _explain_percentiles(modality, largest_values) + kept
    at_mm = np.median(spacings, axis=0) if spacing is None else np.array(spacing)
    sizes = sizes if spacing is None else np.maximum(1, np.rint(sizes * spacings / at_mm))
    whole = _whole_size(sizes, at_mm, voxels)
    z, y, x = (float(mm) for mm in np.round(whole * at_mm, 1))
    window, window_voxels_why = _propose_inference(sizes, whole)
    above_hu, above_share, where_why = _propose_where(body_shares, window_hu)
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
        window_voxels=window,
        window_voxels_why=window_voxels_why,
        above_hu=above_hu,
        above_share=above_share,
        where_why=where_why,
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


def _propose_window(
    lung_shares: Sequence[float], targets: Sequence[Target]
) -> tuple[tuple[float, float], str]:
    chests = sum(share >= LUNG_SHARE for share in lung_shares)
    count = len(lung_shares)
    if 3 * chests >= count:
        usual = Preprocess().window_hu
        why = (
            f"{chests} of {count} scans hold much lung, and this window spans everything from air to dense "
            "bone, as Models Genesis takes it"
        )
    else:
        usual = SOFT_TISSUE_HU
        few = f"{chests or 'None'} of {count} scans hold" if count > 1 else "The scan holds"
        why = f"{few} {'much' if count > 1 else 'little'} lung"
    low = min([usual[0], *(_outwards(target.values[0], down=True) for target in targets)])
    high = max([usual[1], *(_outwards(target.values[1], down=False) for target in targets)])
    wide = [t for t in targets if t.values[0] < usual[0] or t.values[1] > usual[1]]
    if usual == SOFT_TISSUE_HU and not wide:
        why += (
            ", and this window, from fat to enhanced vessels, gives soft tissue four times the contrast of "
            "-1000 to 1000"
        )
        why += "" if targets else "; take that one if air or dense bone matter"
    if not wide:
        return usual, f"{why}.{KEPT if targets else ''}"
    named = ", ".join(f"{t.value} ({t.values[0]:.0f} to {t.values[1]:.0f} HU)" for t in wide[:3])
    more = f" and {len(wide) - 3} more" if len(wide) > 3 else ""
    return (low, high), (
        f"{why}; {usual[0]:g} to {usual[1]:g} HU are widened to keep nine tenths of every label, looked at "
        f"inside: {named}{more}."
    )


def _outwards(hu: float, *, down: bool) -> float:
    """The next round value that holds ``hu``."""
    steps = np.floor(hu / WINDOW_STEP_HU) if down else np.ceil(hu / WINDOW_STEP_HU)
    return float(np.clip(WINDOW_STEP_HU * steps, *WIDEST_HU))


def _propose_percentiles(targets: Sequence[Target]) -> tuple[tuple[float, float], str]:
    low = min((target.ranks[0] for target in targets), default=100.0)
    high = max((target.ranks[1] for target in targets), default=0.0)
    found = next(each for each in PERCENTILES if each[0] <= low and high <= each[1])
    if not targets:
        return found, ""
    return found, KEPT


def _propose_inference(sizes: npt.NDArray[np.float64], patch: npt.NDArray[np.int64]) -> tuple[Size, str]:
    """The largest window at inference: one that holds nine of ten scans, or as many voxels as are allowed."""
    wanted = STEP * np.ceil(np.percentile(sizes, 90, axis=0) / STEP)
    wanted = np.maximum(patch, wanted).astype(np.int64)
    if np.prod(wanted) <= LARGEST_WINDOW:
        why = "It holds nine of ten scans, which then take one pass instead of several overlapping ones."
    else:
        wanted, why = patch, "As large as the patch: scans are too large for one pass."
    z, y, x = (int(edge) for edge in wanted)
    return (z, y, x), why


def _propose_where(
    body_shares: Sequence[float], window_hu: tuple[float, float] | None
) -> tuple[float | None, float | None, str]:
    """Above what a voxel is body, in HU or as a share of the intensities; None, None draws anywhere."""
    share = float(np.median(body_shares))
    if not 0 < share < BODY_SHARE:
        return None, None, f"{100 * (1 - share):.0f} % of the voxels are air, so few wholes show nothing."
    why = f"{100 * (1 - share):.0f} % of the voxels are air, of which there is nothing to learn."
    if window_hu is None:
        return None, BODY_ABOVE_SHARE, why
    low, high = window_hu
    return max(BODY_HU, low + (high - low) / 20), None, why


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


def _whole_size(
    sizes: npt.NDArray[np.float64], spacing_mm: npt.NDArray[np.float64], voxels: int
) -> npt.NDArray[np.int64]:
    """Edges near a cube in mm of so many voxels, that nine of ten scans hold."""
    room = np.maximum(2 * STEP, STEP * np.floor(np.percentile(sizes, 10, axis=0, method="lower") / STEP))
    edges = np.zeros(3)
    free = np.ones(3, dtype=bool)
    while free.any():
        # What edges already fixed leave is shared by the others as a square or a cube in mm.
        left = voxels / np.prod(edges[~free])
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
