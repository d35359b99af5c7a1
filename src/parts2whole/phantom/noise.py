"""What a scanner adds: slice thickness, reconstruction kernel, correlated noise, streaks, bias field."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from parts2whole.phantom.space import Array


@dataclasses.dataclass(frozen=True)
class Scanner:
    """How a CT is reconstructed.

    Attributes:
        noise_hu: standard deviation of the noise.
        blur_mm: in-plane resolution of the kernel, as a standard deviation.
        edge: 0 for a soft kernel; larger for one that enhances edges.
        streaks: strength of horizontal streaks through the shoulders.
        circle: whether voxels outside the reconstruction circle hold `OUTSIDE_HU`.
    """

    noise_hu: float
    blur_mm: float
    edge: float
    streaks: float
    circle: bool

    @classmethod
    def draw(cls, generator: np.random.Generator) -> Scanner:
        """Draw a scanner with its kernel."""
        edge = float(generator.choice([0.0, 0.0, 0.4, 0.9]))
        return cls(
            float(generator.uniform(8, 20) * (1 + edge)),
            float(generator.uniform(0.5, 0.9)),
            edge,
            float(generator.uniform(0, 1)),
            bool(generator.random() < 0.25),
        )


OUTSIDE_HU = -2000
"""Value outside the reconstruction circle; manufacturers use several below air."""


def scan_ct(
    value: Array, spacing_mm: tuple[float, float, float], shoulder: npt.NDArray[Any], scanner: Scanner,
    generator: np.random.Generator,
) -> npt.NDArray[np.int16]:  # fmt: skip
    """The reconstruction of a body: blurred by the kernel, with correlated noise, in whole HU.

    Args:
        value: the body in HU, (z, y, x).
        spacing_mm: distance between voxels.
        shoulder: (z,) how much of the dose is lost in a slice, 0 to 1.
        scanner: kernel and noise.
        generator: for the noise.
    """
    _, mm_y, mm_x = spacing_mm
    noise = generator.standard_normal(value.shape, dtype=np.float32)
    streaks = gaussian_filter1d(noise, 9.0, axis=2) * (scanner.streaks * shoulder[:, None, None]).astype(
        np.float32
    )
    grain = scanner.blur_mm * 1.3
    smooth = _blur(noise, grain / mm_y, grain / mm_x)
    grainy: Array = smooth - 0.5 * _blur(smooth, 1.6, 1.6)
    grainy *= np.float32(scanner.noise_hu / float(grainy[len(grainy) // 2].std()))
    image = _blur(value, scanner.blur_mm / mm_y, scanner.blur_mm / mm_x)
    if scanner.edge:
        image += np.float32(scanner.edge) * (image - _blur(image, 1.1 / mm_y, 1.1 / mm_x))
    image += grainy * (1 + shoulder[:, None, None].astype(np.float32)) + 90 * streaks
    hu = np.clip(np.rint(image), -1024, 3071).astype(np.int16)
    if scanner.circle:
        y, x = (np.linspace(-1, 1, n) for n in value.shape[1:])
        hu[:, np.hypot(y[:, None], x[None]) > 1] = OUTSIDE_HU
    return hu


def scan_mr(
    signal: Array, bias: Array, noise: float, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """The magnitude image of a signal: bias field, slight blur, Rician noise."""
    biased = signal * np.exp(bias)
    for axis in range(3):
        biased = gaussian_filter1d(biased, 0.45, axis=axis)
    real = biased + noise * generator.standard_normal(signal.shape, dtype=np.float32)
    imaginary = noise * generator.standard_normal(signal.shape, dtype=np.float32)
    return np.asarray(np.hypot(real, imaginary), dtype=np.float32)


def _blur(array: Array, sigma_y: float, sigma_x: float) -> Array:
    """In-plane Gaussian, left out where it is far narrower than a voxel."""
    for axis, sigma in ((1, sigma_y), (2, sigma_x)):
        if sigma > 0.2:
            array = gaussian_filter1d(array, sigma, axis=axis, truncate=3.0)
    return array
