"""Preprocessing: one orientation, optional resampling, and intensities in [0, 1], as pure functions.

`Preprocess` is the contract that travels with a store and with the weights trained on it: new scans must
be prepared alike.  CT is clipped to a window in Hounsfield units, MR to percentiles of the volume itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from parts2whole.errors import Parts2WholeError
from parts2whole.scans.volume import Box, LabelVolume, Triple, Volume, to_canonical
from parts2whole.spec import Spec

Modality = Literal["auto", "CT", "MR", "unit"]
StoredType = Literal["int16", "uint8", "float16"]
G = TypeVar("G", Volume, LabelVolume)

AIR_HU = -200
"""Voxels at or below are air or lung in CT, and rare in any other modality."""


NOT_IN_HU = ("MR", "PT", "NM", "US")
"""Modalities of files whose values are no Hounsfield units, whatever is asked for."""

GUESSED = "modality guessed: "
"""How the note on a guessed modality begins."""


class PreprocessError(Parts2WholeError, ValueError):
    """A scan or a setting that can't be preprocessed."""


@dataclasses.dataclass(frozen=True)
class Preprocess(Spec):
    """How scans are brought to [0, 1].

    Attributes:
        modality: ``CT`` uses the window, ``MR`` the percentiles, ``unit`` expects voxels already in [0, 1];
            ``auto`` believes what a file says, or guesses where that is safe.
        window_hu: Hounsfield units that become 0 and 1.
        percentiles: percentiles of a volume that become 0 and 1.
        spacing_mm: voxel spacing (z, y, x) to resample to; None keeps each scan's own.
    """

    modality: Modality = "auto"
    window_hu: tuple[float, float] = (-1000.0, 1000.0)
    percentiles: tuple[float, float] = (0.5, 99.5)
    spacing_mm: Triple | None = None

    def __post_init__(self) -> None:
        if self.modality not in ("auto", "CT", "MR", "unit"):
            raise PreprocessError(f"modality must be auto, CT, MR or unit, got {self.modality!r}")
        for name in ("window_hu", "percentiles"):
            try:
                low, high = (float(value) for value in getattr(self, name))
            except (TypeError, ValueError) as error:
                raise PreprocessError(f"{name} must be (low, high), got {getattr(self, name)!r}") from error
            if not (np.isfinite([low, high]).all() and low < high):
                raise PreprocessError(f"{name} must be (low, high) with low < high, got {(low, high)}")
            object.__setattr__(self, name, (low, high))
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise PreprocessError(f"percentiles must lie in [0, 100], got {self.percentiles}")
        if self.spacing_mm is not None:
            spacing = tuple(float(value) for value in self.spacing_mm)
            if len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
                raise PreprocessError(f"spacing_mm must be three positive numbers (z, y, x), got {spacing}")
            object.__setattr__(self, "spacing_mm", spacing)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A scan in canonical orientation with values in [0, 1].

    Attributes:
        volume: float32 in [0, 1], (z, y, x) or (channel, z, y, x).
        modality: what it was treated as: CT, MR or unit.
        window: original values that became 0 and 1, one pair a channel.
        integral: whether the original voxels (after resampling) are whole numbers.
        notes: what the user should know, such as a guessed modality.
    """

    volume: Volume
    modality: str
    window: tuple[tuple[float, float], ...]
    integral: bool
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Quantised:
    """A prepared volume as it is stored: value in [0, 1] = array * scale + offset.

    Attributes:
        array: stored voxels (channel, z, y, x).
        scale: of the stored values.
        offset: of the stored values.
        error: largest difference, in [0, 1], between a stored and a prepared voxel.
    """

    array: npt.NDArray[Any]
    scale: float
    offset: float
    error: float


def guess_modality(volume: Volume) -> tuple[Literal["CT", "MR"] | None, str]:
    """What a scan is, if its file says so or its voxels leave no doubt, and why.

    Only CT can be told from voxels: nothing else has air near -1000.  Positive voxels are MR, PET,
    ultrasound, or CT stored with an offset, so the answer is then None.
    """
    if volume.modality in ("CT", "MR"):
        return ("CT" if volume.modality == "CT" else "MR"), f"the file says {volume.modality}"
    if volume.modality is not None:
        return None, f"the file says {volume.modality}, which is neither CT nor MR"
    array = volume.array
    low, high = float(array.min()), float(array.max())
    span = f"voxels range from {low:g} to {high:g}"
    if low > AIR_HU:
        return None, f"{span}: no air in Hounsfield units"
    share = float(np.count_nonzero(array <= AIR_HU)) / array.size
    whole = is_integral(array)
    plausible = low >= -32768 and high <= 32767 and share >= 5e-4 and float(np.median(array)) <= 1500
    if plausible and (whole or (-3100 <= low <= -500 and share >= 0.01)):
        return "CT", f"{span}, {share:.1%} of them at or below {AIR_HU} like air in Hounsfield units"
    return None, f"{span}, which is not clearly Hounsfield units"


def prepare_volume(volume: Volume, preprocess: Preprocess) -> Prepared:
    """Bring a scan to canonical orientation, the wanted spacing and values in [0, 1].

    Raises:
        PreprocessError: a constant scan, or a modality that is unknown or contradicts the file.
    """
    modality, notes = _resolve_modality(volume, preprocess)
    if volume.array.min() == volume.array.max():
        raise PreprocessError(f"constant volume: every voxel is {float(volume.array.flat[0]):g}")
    canonical = to_canonical(volume)
    if preprocess.spacing_mm is not None:
        canonical = resample(canonical, preprocess.spacing_mm)
    integral = is_integral(canonical.array)
    channels = canonical.array.reshape(-1, *canonical.shape)
    unit = np.empty(channels.shape, dtype=np.float32)
    windows = []
    for channel, out in zip(channels, unit, strict=True):
        low, high = _window(channel, modality, preprocess)
        windows.append((low, high))
        np.subtract(channel, low, out=out, dtype=np.float32, casting="unsafe")
        out /= np.float32(high - low)
        np.clip(out, 0, 1, out=out)
        if out.min() == out.max():
            raise PreprocessError(
                f"constant volume: every voxel is {out.flat[0]:g} in the window {low:g}, {high:g}"
            )
    if modality == "CT" and float(volume.array.min()) > AIR_HU:
        notes.append(f"no voxel at or below {AIR_HU}: check that values are Hounsfield units")
    prepared = dataclasses.replace(canonical, array=unit.reshape(canonical.array.shape))
    return Prepared(prepared, modality, tuple(windows), integral, (*volume.notes, *notes))


def prepare_label(label: LabelVolume, preprocess: Preprocess) -> LabelVolume:
    """Bring a label map to the grid that `prepare_volume` gives its scan, by nearest neighbour."""
    canonical = to_canonical(label)
    return canonical if preprocess.spacing_mm is None else resample(canonical, preprocess.spacing_mm)


def values_lost(label: LabelVolume, prepared: LabelVolume) -> tuple[int, ...]:
    """Values of a label map that what `prepare_label` made of it no longer holds, ascending."""
    return tuple(sorted(set(np.unique(label.array).tolist()) - set(np.unique(prepared.array).tolist())))


def spacing_text(spacing_mm: Triple | None) -> str:
    """A spacing in words: ``4 mm``, ``5 x 1 x 1 mm`` (z, y, x)."""
    if spacing_mm is None:
        return "the scan's own spacing"
    edges = [f"{edge:.3g}" for edge in spacing_mm]
    return f"{edges[0] if len(set(edges)) == 1 else ' x '.join(edges)} mm"


def quantise(prepared: Prepared, stored: StoredType) -> Quantised:
    """Voxels in the type of the store.

    CT of whole Hounsfield units is exact in int16: the stored value is the clipped HU itself.
    """
    unit = prepared.volume.array.reshape(-1, *prepared.volume.shape)
    if stored == "float16":
        halves = unit.astype(np.float16)
        return Quantised(halves, 1.0, 0.0, _largest_difference(unit, halves, 1.0, 0.0))
    low, high = prepared.window[0]
    exact = prepared.modality == "CT" and prepared.integral and low == round(low) and high == round(high)
    if stored == "int16" and exact and low >= -32768 and high <= 32767:
        scale, offset = 1 / (high - low), -low / (high - low)
    else:
        scale, offset, exact = 1 / np.iinfo(stored).max, 0.0, False
    array = np.empty(unit.shape, dtype=stored)
    for plane, out in zip(unit.reshape(-1, *unit.shape[2:]), array.reshape(-1, *unit.shape[2:]), strict=True):
        out[...] = np.rint((plane.astype(np.float64) - offset) / scale)
    return Quantised(array, scale, offset, 0.0 if exact else _largest_difference(unit, array, scale, offset))


def to_unit(stored: npt.NDArray[Any], *, scale: float, offset: float) -> npt.NDArray[np.float32]:
    """Stored voxels as networks see them, float32 in [0, 1]: undoes `quantise`."""
    unit = stored.astype(np.float32)
    unit *= np.float32(scale)
    unit += np.float32(offset)
    return np.clip(unit, 0, 1, out=unit)


def resample(grid: G, spacing_mm: Triple) -> G:
    """Change the spacing and keep the middle of the volume where it is.

    Images are interpolated linearly, averaged over the larger voxel where the grid gets coarser;
    label maps take the nearest voxel.  Axes whose spacing differs by less than 0.1 % stay untouched.
    """
    array, spacing = grid.array, list(grid.spacing_mm)
    origin = np.asarray(grid.origin_mm, dtype=float)
    for axis in range(3):
        old, new, n_in = spacing[axis], spacing_mm[axis], grid.shape[axis]
        if abs(new / old - 1) < 1e-3:
            continue
        n_out = max(1, round(n_in * old / new))
        places = (np.arange(n_out) + 0.5 - n_out / 2) * (new / old) + n_in / 2 - 0.5
        array = _along(array, axis - 3, places, new / old, nearest=isinstance(grid, LabelVolume))
        origin = origin + np.asarray(grid.direction)[:, axis] * places[0] * old
        spacing[axis] = new
    return dataclasses.replace(
        grid,
        array=array,
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
    )


def onto_grid(grid: G, like: Volume | LabelVolume) -> G:
    """Bring a volume onto the grid of ``like``, which has the same axes: undoes `resample`.

    Raises:
        PreprocessError: the axes of the two volumes differ.
    """
    if not np.allclose(grid.direction, like.direction, atol=1e-4):
        raise PreprocessError("onto_grid needs volumes with the same axes; bring both to canonical first")
    array = grid.array
    apart = np.linalg.solve(np.asarray(grid.direction), np.subtract(like.origin_mm, grid.origin_mm))
    for axis in range(3):
        step = like.spacing_mm[axis] / grid.spacing_mm[axis]
        places = apart[axis] / grid.spacing_mm[axis] + np.arange(like.shape[axis]) * step
        same = len(places) == grid.shape[axis] and np.allclose(places, np.arange(len(places)), atol=1e-3)
        if not same:
            array = _along(array, axis - 3, places, step, nearest=isinstance(grid, LabelVolume))
    return dataclasses.replace(grid, array=array, spacing_mm=like.spacing_mm, origin_mm=like.origin_mm)


def crop(grid: G, box: Box) -> G:
    """Cut a box of voxels (z, y, x) out of a volume; what remains keeps its place.

    Raises:
        PreprocessError: the box is empty or leaves the volume.
    """
    if box.inside(grid.shape) != box or 0 in box.size:
        text = ", ".join(f"{a}:{b}" for a, b in zip(box.start, box.stop, strict=True))
        raise PreprocessError(f"the box {text} doesn't lie inside the volume, which has shape {grid.shape}")
    origin = grid.affine() @ [*box.start, 1]
    return dataclasses.replace(
        grid,
        array=grid.array[..., *box.slices],
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
    )


def looks_like_label(volume: Volume) -> bool:
    """Whether voxels are those of a label map: few whole numbers, in patches of one value."""
    array = volume.array
    if not is_integral(array):
        return False
    values, counts = np.unique(array[:: max(1, len(array) // 32)], return_counts=True)
    if len(values) > 256:
        return False
    left, right = array[..., :-1], array[..., 1:]
    inside = (left != values[counts.argmax()]) | (right != values[counts.argmax()])
    return bool(np.count_nonzero((left == right) & inside) > 0.6 * np.count_nonzero(inside))


def is_integral(array: npt.NDArray[Any]) -> bool:
    """Whether every voxel is a whole number."""
    if array.dtype.kind in "iub":
        return True
    planes = array.reshape(-1, *array.shape[-2:])
    return all(bool(np.array_equal(plane, np.rint(plane))) for plane in planes)


def contradicts(named: str | None, asked: str) -> bool:
    """Whether a scan whose file names a modality can't be prepared as another that is asked for."""
    return named in {"CT": NOT_IN_HU, "MR": ("CT",)}.get(asked, ())


def _resolve_modality(volume: Volume, preprocess: Preprocess) -> tuple[str, list[str]]:
    wanted = preprocess.modality
    if wanted == "auto":
        guess, reason = guess_modality(volume)
        if guess is None:
            raise PreprocessError(
                f"can't tell the modality ({reason}); add --modality CT or --modality MR "
                "(of a task, --task.preprocess.modality)"
            )
        return guess, [] if volume.modality else [f"{GUESSED}{guess} ({reason})"]
    if contradicts(volume.modality, wanted):
        raise PreprocessError(f"the file says {volume.modality}, but modality={wanted!r} was asked for")
    return wanted, []


def _window(channel: npt.NDArray[Any], modality: str, preprocess: Preprocess) -> tuple[float, float]:
    """The values that become 0 and 1."""
    lowest, highest = float(channel.min()), float(channel.max())
    if modality == "CT":
        return preprocess.window_hu
    if modality == "unit":
        if lowest < 0 or highest > 1:
            raise PreprocessError(f"modality='unit' needs voxels in [0, 1], got {lowest:g} to {highest:g}")
        return 0.0, 1.0
    if lowest == highest:
        raise PreprocessError(f"constant channel: every voxel is {lowest:g}")
    low, high = (float(value) for value in np.percentile(channel, preprocess.percentiles))
    return (low, high) if low < high else (lowest, highest)


def _along(
    array: npt.NDArray[Any], axis: int, places: npt.NDArray[np.floating[Any]], step: float, *, nearest: bool
) -> npt.NDArray[Any]:
    """Sample one axis at fractional ``places``, ``step`` voxels apart; borders repeat."""
    n_in = array.shape[axis]
    if nearest:
        taken: npt.NDArray[Any] = np.take(
            array, np.clip(np.floor(places + 0.5), 0, n_in - 1).astype(int), axis
        )
        return taken
    # The mean of the linear interpolant over a box; a box this wide widens a voxel's extent from 1 to step.
    box = float(np.sqrt(max(0.0, step**2 - 1)))
    reach = int(np.ceil(1 + box / 2))
    near = np.floor(places).astype(int)[:, None] + np.arange(-reach, reach + 2)
    apart = near - places[:, None]
    if box < 1e-3:
        weights = np.clip(1 - np.abs(apart), 0, None)
    else:
        weights = (_triangle_integral(apart + box / 2) - _triangle_integral(apart - box / 2)) / box
    rows = np.repeat(np.arange(len(places)), near.shape[1])
    matrix = sparse.csr_array(
        (weights.ravel(), (rows, np.clip(near, 0, n_in - 1).ravel())), shape=(len(places), n_in)
    ).astype(np.float32)
    moved = np.moveaxis(array, axis, 0)
    flat = np.ascontiguousarray(moved, dtype=np.float32).reshape(n_in, -1)
    sampled = (matrix @ flat).reshape(len(places), *moved.shape[1:])
    back: npt.NDArray[Any] = np.moveaxis(sampled, 0, axis)
    return back


def _triangle_integral(t: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """The integral of the triangle 1 - |t| from -1 to t."""
    t = np.clip(t, -1, 1)
    total: npt.NDArray[np.floating[Any]] = 0.5 + t - np.sign(t) * t**2 / 2
    return total


def _largest_difference(
    unit: npt.NDArray[np.float32], array: npt.NDArray[Any], scale: float, offset: float
) -> float:
    planes = zip(unit.reshape(-1, *unit.shape[2:]), array.reshape(-1, *unit.shape[2:]), strict=True)
    return max(float(np.abs(a - (b.astype(np.float64) * scale + offset)).max()) for a, b in planes)
