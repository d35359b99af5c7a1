"""Lesions of the trunk: lung nodules, emboli in pulmonary arteries, liver tumours and cysts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from parts2whole.phantom.canvas import Canvas, Structure, Tubes, ellipsoid_distance, tube_path
from parts2whole.phantom.chest import Chest
from parts2whole.phantom.space import Array, Grid
from parts2whole.phantom.torso import Torso
from parts2whole.scans.volume import Triple, triple

SOLID, PART_SOLID, GROUND_GLASS, CALCIFIED = "solid", "part-solid", "ground-glass", "calcified"
NODULE_HU = {SOLID: 35.0, PART_SOLID: -560.0, GROUND_GLASS: -620.0, CALCIFIED: 320.0}
IN_LUNG = (Structure.LUNG, Structure.ARTERY, Structure.VEIN, Structure.AIRWAY)


@dataclasses.dataclass(frozen=True)
class Lesion:
    """A lesion.

    Attributes:
        kind: such as ``solid`` or ``embolus``.
        centre_mm: position (z, y, x) in the patient.
        radii_mm: of the ellipsoid that it is about, or of the artery it fills.
        contrast_hu: brightness, or for liver tumours the difference to the liver.
        path_mm: for emboli, the line they lie along.
        spicules_mm: for nodules, ends of the strands that radiate from them.
    """

    kind: str
    centre_mm: Triple
    radii_mm: Triple
    contrast_hu: float
    path_mm: tuple[Triple, ...] = ()
    spicules_mm: tuple[Triple, ...] = ()

    @property
    def diameter_mm(self) -> float:
        """Diameter of the ball of the same volume."""
        return float(2 * np.prod(self.radii_mm) ** (1 / 3))


def draw_nodules(
    generator: np.random.Generator, torso: Torso, chest: Chest, grid: Grid, *, count: int, smallest_mm: float
) -> list[Lesion]:
    """Nodules inside the lungs and the grid: free, at the pleura or at a vessel, none near another."""
    low, high = np.array([-190, -95, -135]), np.array([128, 100, 135])
    reference = generator.uniform(low, high, (4000, 3))
    depth = -torso.lung(*(reference[:, axis].astype(np.float32) for axis in range(3)))
    reference, depth = reference[depth > 2], depth[depth > 2]
    places = torso.to_patient(reference)
    crossings = np.concatenate(
        [t.nodes_mm[(t.radius_mm > 0.9) & (t.radius_mm < 2.5)] for t in chest.arteries]
    )
    found: list[Lesion] = []
    for _ in range(count):
        kind = str(generator.choice([SOLID, PART_SOLID, GROUND_GLASS, CALCIFIED], p=[0.7, 0.1, 0.12, 0.08]))
        diameter = float(
            np.clip(
                smallest_mm * np.exp(abs(generator.normal(0, 0.7))), smallest_mm, max(32, 1.8 * smallest_mm)
            )
        )
        radius = diameter / 2
        deep = np.flatnonzero(depth > radius + 2)
        near = np.flatnonzero((depth > 0.5 * radius) & (depth < 0.9 * radius))
        where = generator.random()
        if where < 0.25 and len(near):
            choices = places[near]
        elif where < 0.4:
            choices = crossings
        else:
            choices = places[deep]
        for centre in generator.permutation(choices)[:60]:
            index = grid.index(centre)
            if (index < 1.5).any() or (index > np.array(grid.shape) - 2.5).any():
                continue
            apart = [np.linalg.norm(centre - other.centre_mm) - max(other.radii_mm) for other in found]
            if min(apart, default=99.0) > radius + 8:
                found.append(_nodule(generator, kind, centre, radius))
                break
    return found


def draw_emboli(
    generator: np.random.Generator, chest: Chest, grid: Grid, *, count: int, smallest_mm: float
) -> list[Lesion]:
    """Emboli along pulmonary arteries of at least ``smallest_mm`` radius, none near another."""
    found: list[Lesion] = []
    for _ in range(count):
        tree = chest.arteries[int(generator.integers(2))]
        wide = np.flatnonzero(tree.radius_mm >= min(smallest_mm, float(np.sort(tree.radius_mm)[-8])))
        wide = wide[wide > 0]
        # As many in the few wide arteries as in the many narrow ones.
        shares = tree.radius_mm[wide] ** 2.5
        for node in generator.choice(wide, min(40, len(wide)), replace=False, p=shares / shares.sum()):
            chain = tree.chain(int(node), float(generator.uniform(8, 28)))
            if 0 in chain:
                chain = chain[:-1] if len(chain) > 2 else chain
            line = [tree.nodes_mm[chain[0]]]
            for step in chain[:-1]:
                line += [tree.bends_mm[step], tree.nodes_mm[tree.parent[step]]]
            path = np.array(line)
            centre = path[len(path) // 2]
            index = grid.index(path)
            if (index < 1.5).any() or (index > np.array(grid.shape) - 2.5).any():
                continue
            if min((np.linalg.norm(centre - other.centre_mm) for other in found), default=99.0) < 32:
                continue
            radius = float(tree.radius_mm[chain[0]])
            points = tuple(triple(point) for point in path)
            bright = float(generator.uniform(40, 80))
            found.append(Lesion("embolus", triple(centre), (radius, radius, radius), bright, points))
            break
    return found


def draw_liver_lesions(
    generator: np.random.Generator, torso: Torso, grid: Grid, *, count: int, smallest_mm: float
) -> list[Lesion]:
    """Tumours and a few cysts inside the liver."""
    top = torso.dome_mm[0]
    reference = generator.uniform((top - 180, -85, -125), (top - 4, 70, 60), (3000, 3))
    z, y, x = (reference[:, axis].astype(np.float32) for axis in range(3))
    depth = -torso.liver(z, y, x, torso.cage(z, y, x))
    places = torso.to_patient(reference)
    found: list[Lesion] = []
    for _ in range(count):
        radius = float(np.clip(smallest_mm * np.exp(abs(generator.normal(0, 0.8))), smallest_mm, 70) / 2)
        choices = places[depth > min(0.8 * radius, 18)]
        for centre in generator.permutation(choices)[:60]:
            index = grid.index(centre)
            if (index < 1).any() or (index > np.array(grid.shape) - 2).any():
                continue
            apart = [np.linalg.norm(centre - other.centre_mm) - max(other.radii_mm) for other in found]
            if min(apart, default=99.0) < radius + 6:
                continue
            cyst = generator.random() < 0.15
            radii = radius * generator.uniform(0.85, 1.15, 3)
            contrast = 8.0 if cyst else float(generator.uniform(-62, -30))
            found.append(Lesion("cyst" if cyst else "tumour", triple(centre), triple(radii), contrast))
            break
    return found


def paint_nodules(canvas: Canvas, nodules: Sequence[Lesion], fine: Array) -> None:
    """Paint nodules, each with its number as lesion."""
    for number, nodule in enumerate(nodules, start=1):
        for end in nodule.spicules_mm:
            strand = tube_path([nodule.centre_mm, end], [0.9, 0.3])
            canvas.paint_tubes(strand, -150.0, None, inside=(Structure.LUNG,))
        box = _around(canvas, nodule)
        if box is None:
            continue
        where, distance = box
        distance = distance + 0.09 * max(nodule.radii_mm) * fine[where]
        only = np.isin(canvas.structure[where], IN_LUNG)
        texture = nodule.contrast_hu + 12 * fine[where]
        canvas.paint(distance, texture, None, where=where, only=only, lesion=number)
        if nodule.kind == PART_SOLID:
            core = ellipsoid_distance(
                *_cut(canvas, where), nodule.centre_mm, 0.45 * np.array(nodule.radii_mm)
            )
            canvas.paint(core, 25.0, None, where=where, only=only)


def paint_emboli(canvas: Canvas, emboli: Sequence[Lesion]) -> None:
    """Paint filling defects: darker blood inside pulmonary arteries, never beyond them."""
    for number, embolus in enumerate(emboli, start=1):
        tubes = tube_path(embolus.path_mm, 1.0)
        widths = (
            np.full((len(tubes), 2), 0.85 * embolus.radii_mm[0])
            * np.linspace(0.85, 1.15, len(tubes))[:, None]
        )
        tubes = Tubes(tubes.start_mm, tubes.end_mm, widths)
        canvas.paint_tubes(tubes, embolus.contrast_hu, None, inside=(Structure.ARTERY,), lesion=number)


def paint_liver_lesions(canvas: Canvas, lesions: Sequence[Lesion], liver_hu: float, fine: Array) -> None:
    """Paint tumours, with fuzzy borders, as lesion 1; cysts are sharp and no lesion."""
    for lesion in lesions:
        box = _around(canvas, lesion)
        if box is None:
            continue
        where, distance = box
        only = canvas.structure[where] == Structure.LIVER
        if lesion.kind == "cyst":
            canvas.paint(distance, lesion.contrast_hu, None, where=where, only=only)
            continue
        distance = distance + 0.12 * max(lesion.radii_mm) * fine[where]
        inside = liver_hu + lesion.contrast_hu + 6 * fine[where]
        canvas.paint(
            distance - 1, liver_hu + 0.25 * lesion.contrast_hu, None, where=where, only=only, soft_mm=6
        )
        canvas.paint(distance, inside, None, where=where, only=only, soft_mm=3.5, lesion=1)
        if max(lesion.radii_mm) > 14:
            canvas.paint(
                distance + 0.55 * max(lesion.radii_mm), inside - 18, None, where=where, only=only, soft_mm=5
            )


def _nodule(
    generator: np.random.Generator, kind: str, centre: npt.NDArray[np.float64], radius: float
) -> Lesion:
    radii = radius * np.exp(generator.normal(0, 0.1, 3))
    radii *= radius / np.prod(radii) ** (1 / 3)
    strands = int(generator.integers(3, 9)) if kind != GROUND_GLASS and generator.random() < 0.3 else 0
    ways = generator.normal(0, 1, (strands, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    ends = centre + ways * radius * generator.uniform(1.4, 2.2, (strands, 1))
    bright = NODULE_HU[kind] + float(generator.normal(0, 15))
    return Lesion(kind, triple(centre), triple(radii), bright, (), tuple(triple(end) for end in ends))


def _around(canvas: Canvas, lesion: Lesion) -> tuple[tuple[slice, slice, slice], Array] | None:
    """The box of a lesion and the distance from its ellipsoid."""
    reach = 1.4 * np.array(lesion.radii_mm) + 3 + canvas.edge_mm
    where = canvas.grid.box(np.array(lesion.centre_mm) - reach, np.array(lesion.centre_mm) + reach)
    if where is None:
        return None
    return where, ellipsoid_distance(*_cut(canvas, where), lesion.centre_mm, lesion.radii_mm)


def _cut(canvas: Canvas, where: tuple[slice, slice, slice]) -> tuple[Array, Array, Array]:
    z, y, x = canvas.grid.axes()
    return z[where[0]], y[:, where[1]], x[:, :, where[2]]
