"""Organs of the upper abdomen: liver with vessels, spleen, kidneys, stomach, bowel, pancreas, gallbladder."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from parts2whole.phantom.canvas import Canvas, Structure, Tubes, ellipsoid_distance, tube_path
from parts2whole.phantom.enhancement import Enhancement
from parts2whole.phantom.space import Array
from parts2whole.phantom.torso import Space, Torso
from parts2whole.phantom.trees import grow_tree

SOFT = (Structure.FAT, Structure.MUSCLE, Structure.MEDIASTINUM)
Points = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Abdomen:
    """What varies between abdomens.

    Attributes:
        liver_vessels: portal and hepatic veins, in the patient.
        spleen_scale: size of the spleen.
        kidneys: middle of the right and of the left kidney, in the reference body.
        gas: y below which the stomach holds gas.
        bowel: paths of bowel loops in the patient, with their radius, and what fills each in HU.
        stomach_shift: displacement of the stomach.
    """

    liver_vessels: Tubes
    spleen_scale: float
    kidneys: Points
    gas: float
    bowel: tuple[tuple[Tubes, float], ...]
    stomach_shift: Points

    @classmethod
    def draw(cls, generator: np.random.Generator, torso: Torso) -> Abdomen:
        """Draw an abdomen."""
        top = torso.dome_mm[0]
        points = generator.uniform((top - 170, -85, -125), (top - 4, 70, 60), (1600, 3))
        z, y, x = (points[:, axis].astype(np.float32) for axis in range(3))
        liver = torso.liver(z, y, x, torso.cage(z, y, x))
        targets = torso.to_patient(points[liver < -6])
        portal, hepatic = torso.to_patient([(top - 92, 0, -30), (top - 22, 6, -30)])
        trees = (
            grow_tree(portal, (0.3, -0.2, -1), targets[:70], leaf_radius_mm=1.1, generator=generator),
            grow_tree(hepatic, (-0.5, -0.5, -0.6), targets[70:120], leaf_radius_mm=1.2, generator=generator),
        )
        kidneys = np.array([(top - 148, 46, -58), (top - 132, 46, 60)]) + generator.normal(
            0, (8, 3, 3), (2, 3)
        )
        return cls(
            trees[0].tubes().joined(trees[1].tubes()),
            float(generator.uniform(0.85, 1.2)),
            kidneys,
            float(generator.uniform(-50, -22)),
            tuple(_loops(generator, torso)),
            generator.normal(0, 4, 3),
        )


def paint_abdomen(
    canvas: Canvas, space: Space, torso: Torso, abdomen: Abdomen, enhancement: Enhancement,
    cage: Array, wobble: Array, fine: Array,
) -> None:  # fmt: skip
    """Paint the organs below the diaphragm."""
    _paint_gut(canvas, space, torso, abdomen, enhancement, cage)
    _paint_spleen_and_kidneys(canvas, space, torso, abdomen, enhancement, cage, wobble)
    top = torso.dome_mm[0]
    pancreas = tube_path(
        torso.to_patient([(top - 116, -14, -26), (top - 106, -14, 8), (top - 92, 10, 56)]), 10
    )
    canvas.paint_tubes(pancreas, 0.8 * enhancement.spleen + 8, Structure.PANCREAS, inside=SOFT)
    where = space.box((top - 200, -110, -135), (top + 12, 95, 90))
    if where is None:
        return
    z, y, x = space.cut(where)
    free = np.isin(canvas.structure[where], (*SOFT, Structure.STOMACH, Structure.PANCREAS, Structure.BOWEL))
    liver = torso.liver(z, y, x, cage[where], wobble[where])
    canvas.paint(liver, enhancement.liver + 3 * fine[where], Structure.LIVER, where=where, only=free)
    canvas.paint_tubes(
        abdomen.liver_vessels, enhancement.portal, None, inside=(Structure.LIVER,), soft_mm=1.5
    )
    bladder = ellipsoid_distance(z, y, x, (top - 112, -38, -46), (26, 15, 15))
    canvas.paint(bladder, 30.0, Structure.GALLBLADDER, where=where)
    canvas.paint(bladder + 2, 8.0, Structure.GALLBLADDER, where=where)


def _paint_spleen_and_kidneys(
    canvas: Canvas,
    space: Space,
    torso: Torso,
    abdomen: Abdomen,
    enhancement: Enhancement,
    cage: Array,
    wobble: Array,
) -> None:
    """Paint spleen, kidneys with cortex, medulla and sinus, and the psoas muscles."""
    psoas = [(-430, 44, 46), (-300, 46, 36), (-215, 54, 26)]
    for side in (-1, 1):
        path = torso.to_patient(np.array(psoas) * (1, 1, side))
        canvas.paint_tubes(tube_path(path, [24, 17, 7]), 56.0, Structure.MUSCLE, inside=SOFT)
    low = torso.dome_mm[1]
    where = space.box((low - 120, -20, 40), (low + 10, 100, 135))
    if where is not None:
        z, y, x = space.cut(where)
        s = abdomen.spleen_scale
        spleen = ellipsoid_distance(z, y, x, (low - 52, 36, 96), (50 * s, 44 * s, 30 * s))
        hollow = 30 - np.hypot(y - 8, (x - 62))  # the stomach presses into it
        limits = (cage[where] + 5, z - torso.dome(y, x) + 5, hollow)
        spleen = spleen + 3 * wobble[where]
        for limit in limits:
            spleen = np.maximum(spleen, limit)
        canvas.paint(spleen, enhancement.spleen, Structure.SPLEEN, where=where)
    for centre, side in zip(abdomen.kidneys, (-1, 1), strict=True):
        where = space.box(centre - 66, centre + 66)
        if where is None:
            continue
        z, y, x = space.cut(where)
        lean = x - 0.22 * side * (z - centre[0]) * -1
        kidney = ellipsoid_distance(z, y, lean, centre, (53, 25, 28))
        kidney = np.maximum(kidney, cage[where] + 6)
        sinus = ellipsoid_distance(z, y, lean, np.add(centre, (0, -6, -16 * side)), (25, 11, 17))
        canvas.paint(kidney, enhancement.cortex, Structure.KIDNEY, where=where)
        pyramids = np.maximum(kidney + 7, 5 * np.sin((z - centre[0]) / 4.0) * np.sin(y / 4.5) - 1.2)
        canvas.paint(pyramids, enhancement.medulla, Structure.KIDNEY, where=where)
        canvas.paint(sinus, -70.0, Structure.FAT, where=where)
        canvas.paint(sinus + 5.5, 18.0, Structure.KIDNEY, where=where)


def _paint_gut(
    canvas: Canvas, space: Space, torso: Torso, abdomen: Abdomen, enhancement: Enhancement, cage: Array
) -> None:
    """Paint stomach and bowel; gas gathers in front, because patients lie on their backs."""
    for loop, filling in abdomen.bowel:
        canvas.paint_tubes(loop, enhancement.bowel_wall, Structure.BOWEL, inside=(*SOFT, Structure.BOWEL))
        canvas.paint_tubes(loop.thinner(1, 3.0), filling, None, inside=(Structure.BOWEL,))
    low = torso.dome_mm[1]
    where = space.box((low - 150, -95, -45), (low, 60, 125))
    if where is None:
        return
    z, y, x = space.cut(where)
    shift = abdomen.stomach_shift
    parts = (
        ((low - 38, 4, 62), (36, 38, 36)),
        ((low - 80, -34, 50), (52, 32, 32)),
        ((low - 114, -48, 8), (23, 22, 40)),
    )
    stomach: Array = np.full(y.shape, 99.0, dtype=np.float32)
    for centre, radii in parts:
        part = ellipsoid_distance(z, y, x, np.asarray(centre) + shift, radii)
        blend = np.clip(0.5 + 0.5 * (stomach - part) / 16, 0, 1)
        stomach = stomach + blend * (part - stomach) - 16 * blend * (1 - blend)
    stomach = np.maximum(np.maximum(stomach, cage[where] + 5), z - torso.dome(y, x) + 5)
    canvas.paint(stomach, enhancement.bowel_wall, Structure.STOMACH, where=where)
    canvas.paint(stomach + 4.5, 22.0, Structure.STOMACH, where=where)
    canvas.paint(np.maximum(stomach + 4.5, y - abdomen.gas), -960.0, Structure.STOMACH, where=where)


def _loops(generator: np.random.Generator, torso: Torso) -> list[tuple[Tubes, float]]:
    """Colon and small bowel as winding tubes."""
    top = torso.dome_mm[0]
    colon: list[tuple[list[tuple[float, float, float]], float]] = [
        ([(-430, 8, -92), (top - 210, 0, -92), (top - 188, -20, -84)], 19),
        ([(top - 180, -46, -70), (top - 160, -64, -20), (top - 158, -64, 30), (top - 120, -30, 92)], 17),
        ([(top - 118, 6, 104), (top - 190, 20, 104), (-430, 14, 98)], 15),
    ]
    loops = []
    for path, radius in colon:
        fine = _bend(np.asarray(path, dtype=float), generator, 7, 6.0)
        radii = radius * generator.uniform(0.75, 1.2, len(fine))
        tubes = tube_path(torso.to_patient(fine), radii)
        for piece in np.array_split(np.arange(len(tubes)), 3):
            loops.append((tubes.chosen(piece), float(generator.choice([-920.0, -180.0, 25.0, 45.0]))))
    for _ in range(34):
        start = generator.uniform((-420, -68, -72), (top - 158, 14, 76))
        steps = np.cumsum(generator.normal(0, 15, (6, 3)) * (0.8, 0.8, 1), axis=0)
        path_points = np.clip(start + steps, (-450, -74, -84), (top - 150, 18, 86))
        tubes = tube_path(torso.to_patient(path_points), generator.uniform(9, 13))
        loops.append(
            (tubes, float(generator.choice([18.0, 25.0, 32.0, 60.0, -880.0], p=[0.25, 0.25, 0.2, 0.2, 0.1])))
        )
    return loops


def _bend(path: Points, generator: np.random.Generator, pieces: int, spread_mm: float) -> Points:
    """A polyline cut into more pieces, whose corners wander."""
    old = np.arange(len(path))
    new = np.linspace(0, len(path) - 1, pieces * (len(path) - 1) + 1)
    fine = np.stack([np.interp(new, old, path[:, axis]) for axis in range(3)], axis=1)
    return np.asarray(fine + generator.normal(0, spread_mm, fine.shape))
