"""A simple torso of ellipsoids in HU: few voxels, quickly drawn, with look-alikes only context tells apart.

Liver and spleen have the same brightness, and only the liver is labelled.  To tell it from its look-alikes a
network must know where in the body it is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.wholes.random import sample_generator

SIZE = (40, 56, 56)
SPACING_MM = (4.0, 4.0, 4.0)


@dataclasses.dataclass(frozen=True)
class Organ:
    """An ellipsoid in units of the body: centre and radii along (z, y, x), brightness, class index."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    hu: float
    label: int = 0


# y grows towards posterior, x towards the patient's left, z towards superior.
ORGANS = (
    Organ((0.45, -0.15, -0.45), (0.45, 0.5, 0.42), 110.0, 1),  # liver
    Organ((0.5, 0.3, 0.6), (0.3, 0.25, 0.2), 110.0),  # spleen
    Organ((-0.15, 0.4, 0.42), (0.35, 0.18, 0.16), 180.0),  # left kidney
    Organ((-0.25, 0.4, -0.42), (0.35, 0.18, 0.16), 180.0),  # right kidney
    Organ((0.0, 0.05, -0.05), (1.5, 0.11, 0.11), 230.0),  # aorta
    Organ((-0.45, -0.45, 0.1), (0.3, 0.25, 0.35), -350.0),  # bowel gas
)
SPINE = Organ((0.0, 0.62, 0.0), (1.5, 0.2, 0.2), 600.0)


def make_torso(seed: int, case: int) -> tuple[Volume, LabelVolume]:
    """One patient: CT in HU, and the label map (1 is liver).

    Args:
        seed: of the data set.
        case: number of the patient; another number, another patient.

    Returns:
        A volume of `SIZE` voxels at `SPACING_MM`, int16, and its label map, uint8.
    """
    generator = sample_generator("torso", seed, case)
    grid = _body_grid(generator)
    _, y, x = grid
    hu = np.full(SIZE, -1000.0)
    body = y**2 + x**2 < 1
    hu[body] = 40.0
    hu[body & (y**2 + x**2 > 0.82)] = -100.0  # fat below the skin
    label = np.zeros(SIZE, dtype=np.uint8)
    for organ in (*ORGANS, SPINE):
        inside = _inside(organ, grid, generator) & body
        hu[inside] = organ.hu + generator.normal(0, 12)
        label[inside] = organ.label
    coarse = gaussian_filter(generator.normal(0, 1, SIZE), 2.0)
    hu = gaussian_filter(hu, 0.6) + 25 * coarse / coarse.std() + generator.normal(0, 18, SIZE)
    voxels = np.clip(np.round(hu), -1024, 1500).astype(np.int16)
    return Volume(voxels, SPACING_MM), LabelVolume(label, SPACING_MM)


def _body_grid(generator: np.random.Generator) -> tuple[npt.NDArray[np.float64], ...]:
    """Coordinates (z, y, x) of every voxel in units of a randomly placed, turned and scaled body."""
    axes = [np.arange(edge) - (edge - 1) / 2 for edge in SIZE]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    radius_y, radius_x = generator.uniform(17, 21), generator.uniform(21, 26)
    half_length = generator.uniform(16, 22)
    angle = generator.uniform(-0.2, 0.2)
    shift = generator.uniform(-3, 3, 3)
    z, y, x = z - 2 * shift[0], y - shift[1], x - shift[2]
    turned_y = np.cos(angle) * y - np.sin(angle) * x
    turned_x = np.sin(angle) * y + np.cos(angle) * x
    return z / half_length, turned_y / radius_y, turned_x / radius_x


def _inside(
    organ: Organ, grid: tuple[npt.NDArray[np.float64], ...], generator: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Voxels inside a randomly varied copy of an organ."""
    centre = np.asarray(organ.centre) + generator.normal(0, 0.04, 3)
    radii = np.asarray(organ.radii) * generator.uniform(0.85, 1.15, 3)
    distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True))
    wobble = gaussian_filter(generator.normal(0, 1, SIZE), 4.0)
    return np.asarray(distance + 0.12 * wobble / wobble.std() < 1)
