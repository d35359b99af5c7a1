"""Models Genesis transforms of one volume, slow and straight from their definition, with given parameters."""

from __future__ import annotations

import numpy as np


def box(start, size) -> tuple[slice, ...]:
    return (slice(None), *(slice(int(s), int(s) + int(n)) for s, n in zip(start, size, strict=True)))


def flip(volume: np.ndarray, flipped) -> np.ndarray:
    for axis in range(3):
        if flipped[axis]:
            volume = np.flip(volume, axis + 1)
    return volume


def shuffle_blocks(volume: np.ndarray, start, size, number, order) -> np.ndarray:
    """One block after the other; each is taken from the original and written into the copy."""
    original, shuffled = volume, volume.copy()
    ends = np.cumsum(np.prod(size, axis=1))
    for block in np.argsort(number):
        inside = box(start[block], size[block])
        taken = order[ends[block] - np.prod(size[block]) : ends[block]]
        window = original[inside].reshape(len(volume), -1)[:, taken]
        shuffled[inside] = window.reshape(len(volume), *size[block])
    return shuffled


def bend_intensities(volume: np.ndarray, controls, falling: bool) -> np.ndarray:
    """Sample the cubic Bezier curve at 100,000 points and interpolate, as the public code does."""
    x1, y1, x2, y2 = (float(c) for c in controls)
    t = np.linspace(0, 1, 100_000)
    basis = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
    x = x1 * basis[1] + x2 * basis[2] + basis[3]
    y = y1 * basis[1] + y2 * basis[2] + basis[3]
    return np.interp(volume, np.sort(x), np.sort(y)[::-1] if falling else np.sort(y))


def paint(volume: np.ndarray, start, size, noise: np.ndarray, outside: bool) -> np.ndarray:
    painted = noise.copy() if outside else volume.copy()
    for one_start, one_size in zip(start, size, strict=True):
        inside = box(one_start, one_size)
        painted[inside] = volume[inside] if outside else noise[inside]
    return painted
