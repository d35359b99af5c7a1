"""CT phantoms: chest with nodules, abdomen with liver tumours, pulmonary angiography with emboli."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

from parts2whole.phantom.abdomen import Abdomen, paint_abdomen
from parts2whole.phantom.canvas import Canvas, Structure
from parts2whole.phantom.chest import (
    Chest,
    paint_great_vessels,
    paint_heart,
    paint_lung_vessels,
    paint_lungs,
)
from parts2whole.phantom.enhancement import Enhancement, Phase
from parts2whole.phantom.lesions import (
    Lesion,
    draw_emboli,
    draw_liver_lesions,
    draw_nodules,
    paint_emboli,
    paint_liver_lesions,
    paint_nodules,
)
from parts2whole.phantom.noise import Scanner, scan_ct
from parts2whole.phantom.space import Grid
from parts2whole.phantom.torso import Space, Torso
from parts2whole.phantom.wall import AIR_HU, paint_ribs, paint_spine, paint_table, paint_wall
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.wholes.random import sample_generator

Region = Literal["chest", "abdomen", "angiography"]
PHASES: dict[Region, Phase] = {"chest": "none", "abdomen": "portal", "angiography": "pulmonary"}


@dataclasses.dataclass(frozen=True)
class Resolution:
    """How finely a CT is sampled; the size in mm follows from the patient.

    Attributes:
        pixels: rows and columns of a slice.
        slices_mm: distances of slices to choose from.
        slices: number of slices instead, whatever their distance.
        smallest_mm: diameter of the smallest lesion.
    """

    pixels: int
    slices_mm: tuple[float, ...] = ()
    slices: int | None = None
    smallest_mm: float = 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class CtScan:
    """A scan with what is known about it.

    Attributes:
        image: in HU, int16.
        structures: `Structure` of every voxel.
        lesion: 0, or the number of a lesion, from 1.
        lesions: all lesions, in the order of their numbers; of liver tumours, all are number 1.
        grid: the voxels in the patient.
        chest: vessels, for look-alikes of lesions.
        torso: the patient.
    """

    image: Volume
    structures: npt.NDArray[np.uint8]
    lesion: npt.NDArray[np.uint8]
    lesions: tuple[Lesion, ...]
    grid: Grid
    chest: Chest
    torso: Torso

    def liver_label(self) -> LabelVolume:
        """1 liver, 2 tumour."""
        liver = self.structures == Structure.LIVER
        return self.grid.label((liver * (1 + (self.lesion > 0))).astype(np.uint8))

    def lesion_label(self) -> LabelVolume:
        """The number of every lesion."""
        return self.grid.label(self.lesion)


def make_ct(
    region: Region, resolution: Resolution, *, seed: int, case: int, lesions: int | None = None
) -> CtScan:
    """A patient scanned: a function of region, resolution, seed and case.

    The anatomy depends on seed and case alone, so another resolution shows the same patient.

    Args:
        region: what is scanned, and with which contrast.
        resolution: how finely.
        seed: of the data set.
        case: number of the patient.
        lesions: how many lesions to place; default draws it. Fewer are placed where they find no room.
    """
    generator = sample_generator("phantom", region, seed, case)
    torso = Torso.draw(generator)
    chest = Chest.draw(generator, torso, branches=90 if region == "abdomen" else 260)
    abdomen = Abdomen.draw(generator, torso)
    enhancement = Enhancement.draw(PHASES[region], generator)
    scanner = Scanner.draw(generator)
    drawn = int(generator.choice([1, 2, 3, 4, 6], p=[0.3, 0.25, 0.2, 0.15, 0.1]))
    grid = place_grid(region, resolution, torso, sample_generator("grid", region, seed, case))
    number = drawn if lesions is None else lesions
    sampler = sample_generator("lesions", region, seed, case)
    if region == "chest":
        placed = draw_nodules(sampler, torso, chest, grid, count=number, smallest_mm=resolution.smallest_mm)
    elif region == "abdomen":
        placed = draw_liver_lesions(
            sampler, torso, grid, count=number, smallest_mm=2 * resolution.smallest_mm
        )
    else:
        placed = draw_emboli(sampler, chest, grid, count=number, smallest_mm=0.5 * resolution.smallest_mm)
    times = max(1, round(grid.spacing_mm[0] / (2.2 * grid.spacing_mm[1])))
    canvas = paint_body(grid.finer(times), region, torso, chest, abdomen, enhancement, placed)
    value = canvas.value.reshape(grid.shape[0], times, *grid.shape[1:]).mean(axis=1)
    shoulder = np.clip((grid.axis(0) / torso.scale[0] - 70) / 60, 0, 1)
    noise = sample_generator("noise", region, seed, case)
    image = scan_ct(value, grid.spacing_mm, shoulder, scanner, noise)
    layers = canvas.lesion.reshape(grid.shape[0], times, *grid.shape[1:])
    lesion = layers.max(axis=1) * (2 * (layers > 0).sum(axis=1) >= times)
    return CtScan(
        grid.volume(image, "CT"),
        canvas.structure[times // 2 :: times],
        lesion.astype(np.uint8),
        tuple(placed),
        grid,
        chest,
        torso,
    )


def place_grid(region: Region, resolution: Resolution, torso: Torso, generator: np.random.Generator) -> Grid:
    """The field of view: the whole chest, or the liver with what is above and below."""
    scale_z, _, scale_x = torso.scale
    width = (2 * (164 + torso.fat_mm) * scale_x + 30) * generator.uniform(0.96, 1.08)
    top = torso.dome_mm[0]
    low, high = (top - 200, top + 45) if region == "abdomen" else (top - 75, 146)
    low, high = (scale_z * (edge + generator.uniform(-8, 8)) for edge in (low, high))
    extent = high - low
    step = float(generator.choice(resolution.slices_mm)) if resolution.slices_mm else 1.0
    slices = resolution.slices or max(8, round(extent / step))
    if resolution.slices:
        step = extent / slices
    pixel = round(float(width) / resolution.pixels, 4)
    centre = ((low + high) / 2, 6.0 + float(generator.uniform(-6, 6)), float(generator.uniform(-6, 6)))
    table = (round(float(generator.uniform(-400, 400)), 1), round(float(generator.uniform(-30, 30)), 1), 0.0)
    shape = (slices, resolution.pixels, resolution.pixels)
    return Grid(shape, (round(step, 4), pixel, pixel), centre, table)


def paint_body(
    grid: Grid, region: Region, torso: Torso, chest: Chest, abdomen: Abdomen, enhancement: Enhancement,
    lesions: list[Lesion],
) -> Canvas:  # fmt: skip
    """Paint the whole trunk, from the outside inwards."""
    canvas = Canvas(grid, AIR_HU)
    space = Space(grid, torso)
    cage = torso.cage(space.z, space.y, space.x)
    fine, wobble = torso.fine.on(grid), torso.wobble.on(grid)
    paint_table(canvas, torso)
    paint_wall(canvas, space, torso, cage, wobble, fine)
    paint_lungs(canvas, space, torso, chest, cage, wobble, fine)
    paint_ribs(canvas, space, torso, cage)
    paint_spine(canvas, space, torso, fine)
    paint_heart(canvas, space, torso, enhancement)
    paint_great_vessels(canvas, torso, enhancement)
    paint_lung_vessels(canvas, chest, enhancement)
    paint_abdomen(canvas, space, torso, abdomen, enhancement, cage, wobble, fine)
    if region == "chest":
        paint_nodules(canvas, lesions, fine)
    elif region == "abdomen":
        paint_liver_lesions(canvas, lesions, enhancement.liver, fine)
    else:
        paint_emboli(canvas, lesions)
    return canvas
