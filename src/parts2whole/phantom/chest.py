"""Organs of the chest: lungs with vessels and airways, heart, great vessels, mediastinum."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from parts2whole.phantom.canvas import Canvas, Structure, Tubes, ellipsoid_distance, tube_path
from parts2whole.phantom.enhancement import Enhancement
from parts2whole.phantom.space import Array
from parts2whole.phantom.torso import HEART_TURN, Space, Torso
from parts2whole.phantom.trees import Tree, grow_tree

SIDES = (-1, 1)
"""Right, left."""

HILUM = {-1: (12.0, 8.0, -31.0), 1: (18.0, 12.0, 35.0)}


@dataclasses.dataclass(frozen=True, eq=False)
class Chest:
    """Vessels and airways of a chest, in the patient.

    Attributes:
        lung_hu: brightness of lung tissue.
        arteries: trees of the pulmonary arteries, right and left.
        veins: trees of the pulmonary veins.
        trunk: main pulmonary arteries.
        vein_trunks: main pulmonary veins.
        airways: trachea and bronchi.
        nodes: lymph nodes, (n, 4) position and radius.
        flow: how unevenly contrast is mixed into the pulmonary arteries, 0 to 1.
    """

    lung_hu: float
    arteries: tuple[Tree, Tree]
    veins: tuple[Tree, Tree]
    trunk: Tubes
    vein_trunks: Tubes
    airways: Tubes
    nodes: npt.NDArray[np.float64]
    flow: float

    @classmethod
    def draw(cls, generator: np.random.Generator, torso: Torso, *, branches: int = 260) -> Chest:
        """Grow the vessels of a chest; ``branches`` is the number of last arteries in each lung."""
        arteries, veins, airways = [], [], _windpipe(torso)
        for side in SIDES:
            root = torso.to_patient([HILUM[side]])[0]
            targets = torso.to_patient(_spread(generator, torso, side, branches))
            thin = float(generator.uniform(0.75, 0.95))
            tree = grow_tree(root, (-0.3, 0.1, side), targets, leaf_radius_mm=thin, generator=generator)
            arteries.append(tree)
            low = torso.to_patient([(torso.heart_centre[0] + 32, 16.0, side * 26.0)])[0]
            targets = torso.to_patient(_spread(generator, torso, side, (3 * branches) // 4))
            thin = float(generator.uniform(0.7, 0.9))
            veins.append(grow_tree(low, (-0.1, 0.2, side), targets, leaf_radius_mm=thin, generator=generator))
            airways = airways.joined(_bronchi(tree, generator))
        heart_top = torso.heart_centre[0] + 34
        trunk = [(heart_top, -40, 8), (20, -18, 16), (20, -8, 12), (12, 4, -22), HILUM[-1]]
        left = [(20, -18, 16), (23, 2, 30), HILUM[1]]
        main = tube_path(torso.to_patient(trunk), [14.5, 13.5, 12.5, 11, 9.5]).joined(
            tube_path(torso.to_patient(left), [13, 12, 9.5])
        )
        back = torso.heart_centre[0] + 32
        into = [tube_path(torso.to_patient([(back - 6, 6, 0), (back, 16, s * 26)]), [9, 7]) for s in SIDES]
        count = generator.integers(4, 10)
        nodes = np.column_stack(
            [
                generator.uniform(-25, 60, count),
                generator.uniform(-15, 30, count),
                generator.normal(0, 20, count),
            ]
        )
        nodes = np.column_stack([torso.to_patient(nodes), generator.uniform(2.5, 6.5, count)])
        return cls(
            float(generator.uniform(-880, -820)),
            (arteries[0], arteries[1]),
            (veins[0], veins[1]),
            main,
            into[0].joined(into[1]),
            airways,
            nodes,
            float(generator.uniform(0.0, 0.35)),
        )


def paint_lungs(
    canvas: Canvas, space: Space, torso: Torso, chest: Chest, cage: Array, wobble: Array, fine: Array
) -> None:
    """Paint the soft tissue between the lungs, then the lungs."""
    above = torso.dome(space.y, space.x) - space.z
    inside = np.maximum(np.maximum(cage + 1, above), np.abs(space.x) - 52)
    canvas.paint(inside, -78 + 26 * fine, Structure.MEDIASTINUM)
    lung = torso.lung(space.z, space.y, space.x, cage, wobble)
    posterior = np.clip((space.y + 40) / 130, 0, 1)
    tissue = chest.lung_hu + 55 * posterior + 22 * fine
    canvas.paint(lung - 0.8, 20.0, None)
    canvas.paint(lung, tissue, Structure.LUNG)


def paint_heart(canvas: Canvas, space: Space, torso: Torso, enhancement: Enhancement) -> None:
    """Paint pericardial fat, heart muscle and the four chambers."""
    centre, s = torso.heart_centre, torso.heart_scale
    reach = np.full(3, 62 * s)
    where = space.box(np.asarray(centre) - reach, np.asarray(centre) + reach)
    if where is None:
        return
    z, y, x = space.cut(where)
    above = torso.dome(y, x) - z
    outside = np.maximum(torso.heart(z, y, x) - 3, above)
    canvas.paint(outside, -85.0, Structure.MEDIASTINUM, where=where)
    canvas.paint(outside + 6.5, enhancement.heart_muscle, Structure.HEART, where=where)
    chambers = (  # offset in the frame of the heart, radii, blood
        ((-2, 8, 14), (24, 20, 30), enhancement.left_heart),
        ((-2, -22, -2), (28, 13, 32), enhancement.right_heart),
        ((12, 22, -24), (20, 16, 17), enhancement.left_heart),
        ((2, -8, -34), (26, 19, 14), enhancement.right_heart),
    )
    for offset, radii, blood in chambers:
        middle = np.asarray(centre) + s * HEART_TURN.T @ np.asarray(offset, dtype=float)
        chamber = ellipsoid_distance(z, y, x, middle, s * np.asarray(radii), HEART_TURN)
        canvas.paint(np.maximum(chamber, outside + 9), blood, Structure.HEART, where=where)


def paint_great_vessels(canvas: Canvas, torso: Torso, enhancement: Enhancement) -> None:
    """Paint aorta with the arteries of the arch, both venae cavae, and the oesophagus."""
    to_patient = torso.to_patient
    top = torso.heart_centre[0]
    gullet = tube_path(to_patient([(190, 24, 4), (60, 26, 2), (-40, 26, 6), (-115, 24, 14)]), 7.0)
    canvas.paint_tubes(gullet, 38.0, Structure.OESOPHAGUS)
    canvas.paint_tubes(gullet.thinner(0.3), -300.0)
    upper = to_patient([(110, -18, -24), (60, -24, -28), (20, -16, -31), (top + 28, -14, -30)])
    canvas.paint_tubes(tube_path(upper, 8.5), enhancement.upper_vein, Structure.VEIN)
    crossing = to_patient([(70, -24, -26), (82, -28, 6), (104, -22, 34)])
    canvas.paint_tubes(tube_path(crossing, 6.5), enhancement.upper_vein, Structure.VEIN)
    lower = to_patient([(top - 6, -4, -28), (-110, 8, -27), (-170, 18, -24), (-430, 14, -22)])
    canvas.paint_tubes(tube_path(lower, [10, 11, 11, 10]), enhancement.lower_vein, Structure.VEIN)
    arch = [(top + 26, -22, -6), (10, -34, -14), (40, -24, -10), (54, -4, 4), (52, 18, 18), (38, 34, 24)]
    down = [(0, 39, 25), (-100, 40, 20), (-170, 30, 12), (-430, 18, 6)]
    radii = [15, 15, 14.5, 13.5, 12.5, 12, 11.5, 11, 10, 8]
    aorta = tube_path(to_patient(arch + down), radii)
    branches = [[(55, -10, -2), (100, -8, -16)], [(58, 2, 8), (115, 4, 16)], [(54, 12, 14), (110, 16, 26)]]
    for branch in branches:
        aorta = aorta.joined(tube_path(to_patient(branch), [6, 4]))
    canvas.paint_tubes(aorta.thinner(1.0, -1.3), 45.0, Structure.AORTA)
    canvas.paint_tubes(aorta, enhancement.aorta, Structure.AORTA)


def paint_lung_vessels(canvas: Canvas, chest: Chest, enhancement: Enhancement) -> None:
    """Paint lymph nodes, pulmonary veins, airways, then pulmonary arteries."""
    centres = chest.nodes[:, :3]
    radius = np.repeat(chest.nodes[:, 3:], 2, axis=1)
    soft = (Structure.MEDIASTINUM, Structure.FAT, Structure.LUNG)
    canvas.paint_tubes(Tubes(centres, centres + 2.0, radius), 42.0, Structure.NODE, inside=soft)
    veins = chest.vein_trunks.joined(*(tree.tubes() for tree in chest.veins))
    canvas.paint_tubes(veins, enhancement.left_heart, Structure.VEIN)
    canvas.paint_tubes(chest.airways, -20.0, Structure.AIRWAY)
    arteries = artery_tubes(chest)
    middle = (arteries.start_mm + arteries.end_mm) / 2
    mixing = np.sin(middle @ np.array([0.05, 0.11, 0.07]) + 40 * chest.flow)
    blood = enhancement.right_heart * (1 - chest.flow * (0.5 + 0.5 * mixing))
    canvas.paint_tubes(arteries, blood, Structure.ARTERY)
    lumen = chest.airways.thinner(0.82, 0.35)
    canvas.paint_tubes(lumen, -985.0, Structure.AIRWAY)


def artery_tubes(chest: Chest) -> Tubes:
    """All pulmonary arteries."""
    return chest.trunk.joined(*(tree.tubes() for tree in chest.arteries))


def _windpipe(torso: Torso) -> Tubes:
    """Trachea and main bronchi."""
    down = torso.to_patient([(200, 2, 0), (80, 6, -1), (32, 14, -2)])
    right = torso.to_patient([(32, 14, -2), (16, 18, -26)])
    left = torso.to_patient([(32, 14, -2), (12, 22, 32)])
    return tube_path(down, 9.5).joined(tube_path(right, [8.5, 7]), tube_path(left, [8, 6.5]))


def _bronchi(tree: Tree, generator: np.random.Generator) -> Tubes:
    """Airways that accompany the larger arteries of a lung."""
    tubes = tree.tubes()
    wide = tubes.radius_mm.max(axis=1) > 1.5
    kept = tubes.chosen(wide)
    aside = generator.normal(0, 1, 3)
    aside[0] *= 0.3
    aside /= np.linalg.norm(aside)
    shift = 1.9 * kept.radius_mm[:, :1] * aside
    return Tubes(kept.start_mm + shift, kept.end_mm + shift, np.minimum(0.9 * kept.radius_mm, 6.0))


def _spread(generator: np.random.Generator, torso: Torso, side: int, count: int) -> npt.NDArray[np.float64]:
    """Points inside one lung of the reference body, not too near its surface."""
    low, high = np.array([-190, -95, 12]), np.array([132, 100, 135])
    points = generator.uniform(low, high, (14 * count, 3)) * np.array([1, 1, side])
    z, y, x = (points[:, axis].astype(np.float32) for axis in range(3))
    inside = points[torso.lung(z, y, x) < -4]
    return np.asarray(inside[:count])
