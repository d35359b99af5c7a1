"""Models Genesis transforms of one volume as one would first write them: NumPy, one block after the other."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
from scipy.special import comb

Volume = npt.NDArray[np.float64]


def spoil(volume: Volume) -> tuple[Volume, Volume]:
    """A spoiled copy of (C, D, H, W), and what it should become again; rates of the public code."""
    flips = 3
    while flips and random.random() < 0.4:
        volume = np.flip(volume, random.choice([1, 2, 3]))
        flips -= 1
    spoiled = volume.copy()
    if random.random() < 0.5:
        spoiled = shuffle(spoiled)
    if random.random() < 0.9:
        spoiled = bend(spoiled)
    if random.random() < 0.9:
        spoiled = paint_outside(spoiled) if random.random() < 0.8 else paint_inside(spoiled)
    return spoiled, volume


def shuffle(volume: Volume) -> Volume:
    shuffled = volume.copy()
    for _ in range(10_000):
        size = [random.randint(1, edge // 10) for edge in volume.shape[1:]]
        box = place(volume, size, margin=0)
        window = volume[box].flatten()
        np.random.shuffle(window)  # noqa: NPY002  (what the public code uses)
        shuffled[box] = window.reshape(-1, *size)
    return shuffled


def bend(volume: Volume) -> Volume:
    points = np.array(
        [(0, 0), (random.random(), random.random()), (random.random(), random.random()), (1, 1)]
    )
    t = np.linspace(0, 1, 100_000)
    basis = np.array([comb(3, k) * t**k * (1 - t) ** (3 - k) for k in range(4)])
    x, y = np.sort(points[:, 0] @ basis), np.sort(points[:, 1] @ basis)
    return np.interp(volume, x, y[::-1] if random.random() < 0.5 else y)


def paint_inside(volume: Volume) -> Volume:
    windows = 5
    while windows and random.random() < 0.95:
        box = place(volume, [random.randint(edge // 6, edge // 3) for edge in volume.shape[1:]], margin=3)
        volume[box] = np.random.rand(*volume[box].shape)  # noqa: NPY002
        windows -= 1
    return volume


def paint_outside(volume: Volume) -> Volume:
    painted = np.random.rand(*volume.shape)  # noqa: NPY002
    windows = 5
    while windows == 5 or (windows and random.random() < 0.95):
        size = [edge - random.randint(3 * edge // 7, 4 * edge // 7) for edge in volume.shape[1:]]
        box = place(volume, size, margin=3)
        painted[box] = volume[box]
        windows -= 1
    return painted


def place(volume: Volume, size: list[int], *, margin: int) -> tuple[slice, ...]:
    """A box of ``size`` anywhere in the volume, ``margin`` voxels from its border."""
    edges = zip(volume.shape[1:], size, strict=True)
    start = [random.randint(margin, edge - extent - margin) for edge, extent in edges]
    return (slice(None), *(slice(first, first + extent) for first, extent in zip(start, size, strict=True)))
