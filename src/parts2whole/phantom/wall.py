"""The wall of the trunk: skin, fat, muscle, ribs, sternum, shoulder blades and spine."""

from __future__ import annotations

import numpy as np

from parts2whole.phantom.canvas import Canvas, Structure, tube_path
from parts2whole.phantom.space import Array
from parts2whole.phantom.torso import Space, Torso

AIR_HU, FAT_HU, MUSCLE_HU, SKIN_HU = -1000.0, -103.0, 55.0, 20.0
RIB_MM, VERTEBRA_MM = 26.0, 31.0


def paint_wall(canvas: Canvas, space: Space, torso: Torso, cage: Array, wobble: Array, fine: Array) -> None:
    """Paint everything outside the rib cage, and fat inside it."""
    z, y, x = space.z, space.y, space.x
    skin = torso.skin(z, y, x)
    canvas.paint(skin, SKIN_HU, Structure.SKIN)
    canvas.paint(skin + 2.0, FAT_HU + 9 * fine, Structure.FAT)
    # Planes of fat between muscles, where a smooth function changes its sign; not where a wall is thin.
    planes = 14 * (0.09 - np.abs(wobble + 0.15 * fine))
    muscle = np.maximum(skin + 2.0 + torso.fat_mm * _fat_share(y), planes)
    muscle = np.where(cage < 9, np.minimum(muscle, cage - 9), muscle)
    canvas.paint(muscle, MUSCLE_HU + 5 * fine, Structure.MUSCLE)
    canvas.paint(cage, FAT_HU + 14 + 14 * fine, Structure.FAT)


def paint_table(canvas: Canvas, torso: Torso) -> None:
    """Paint the curved top of the patient table."""
    _, y, x = canvas.grid.axes()
    below = (118 + 0.9 * torso.fat_mm) * torso.scale[1] + 8
    surface = below + 12 - 0.0011 * x**2
    shell = np.abs(y - surface) - 2.0
    inside = np.maximum(shell, np.abs(x) - 210)
    canvas.paint(np.broadcast_to(inside, canvas.grid.shape), 60.0, Structure.TABLE)


def paint_ribs(canvas: Canvas, space: Space, torso: Torso, cage: Array) -> None:
    """Paint ribs with their cartilage, the shoulder blades, sternum and collar bones."""
    shell = np.nonzero((cage > -2) & (cage < 26))
    z = space.z[shell[0], 0, 0]
    y, x, depth = space.y[shell], space.x[shell], cage[shell]
    back = y / np.maximum(np.hypot(y, x), 1e-3)  # 1 behind, -1 in front
    height = (z + 40 * (1 - back) - 128) / RIB_MM + torso.rib_phase
    number = np.clip(-np.rint(height), 0, 11)
    rise = (height + number) * RIB_MM
    round_mm = 4.2 * (np.hypot(rise / 6.8, (depth - 6) / 4.2) - 1)
    ends = np.where(number >= 10, 40 * (0.1 - back), np.where(number >= 7, 40 * (-0.45 - back), -9.0))
    gristle = back < -0.78
    rib = np.where(gristle, 9.0, np.maximum(round_mm, ends))
    flat = np.full(cage.shape, 9.0, dtype=np.float32)
    flat[shell] = rib
    canvas.paint(flat, 640.0, Structure.BONE)
    canvas.paint(flat + 2.2, 240.0, Structure.BONE)
    flat[shell] = np.where(gristle & (number <= 8), np.maximum(round_mm, ends), 9.0)
    canvas.paint(flat, 115.0, Structure.CARTILAGE)
    blade = np.maximum(np.abs(depth - 17) - 2.6, np.maximum(-18 - z, z - 112))
    flat[shell] = np.maximum(blade, np.maximum(30 * (0.3 - back), 52 - np.abs(x) + 0.3 * z))
    canvas.paint(flat, 560.0, Structure.BONE)
    where = space.box((-58, -125, -24), (118, -40, 24))
    if where is not None:
        z, y, x = space.cut(where)
        plate = np.maximum(np.abs(cage[where] - 7) - 5.5, np.abs(x) - 17 + 4 * np.sin(z / 14))
        plate = np.maximum(plate, np.maximum(np.abs(z - 28) - 80, y))
        canvas.paint(plate, 480.0, Structure.BONE, where=where)
        canvas.paint(plate + 2.5, 190.0, Structure.BONE, where=where)
    for side in (-1, 1):
        bone = tube_path(
            torso.to_patient([(112, -40, 20 * side), (122, -30, 70 * side), (132, -6, 130 * side)]), 6.0
        )
        canvas.paint_tubes(bone, 600.0, Structure.BONE)
        canvas.paint_tubes(bone.thinner(1, 2.3), 250.0, Structure.BONE)


def paint_spine(canvas: Canvas, space: Space, torso: Torso, fine: Array) -> None:
    """Paint vertebrae with discs, arches, processes and the spinal canal."""
    where = space.box((-450, 10, -46), (220, 140, 46))
    if where is None:
        return
    z, y, x = space.cut(where)
    lumbar = np.clip(-z / 250, 0, 1)
    half_x, half_y = 16 + 7 * lumbar, 14 + 4 * lumbar
    middle = torso.spine_y(z)
    place = z / np.float32(VERTEBRA_MM) + np.float32(torso.spine_phase)
    rise = (place - np.rint(place)) * VERTEBRA_MM  # 0 in the middle of a disc, +-15.5 in that of a vertebra
    centre = VERTEBRA_MM / 2 - np.abs(rise)
    waist = 1 - 0.1 * np.clip(1 - centre / 11, 0, 1)
    ring = np.hypot(x / half_x, (y - middle) / half_y)
    body = (ring - waist) * half_y
    bone = np.maximum(body, 3.2 - np.abs(rise))
    canvas.paint(body - 1, 92.0, Structure.CARTILAGE, where=where)
    canvas.paint(bone, 520.0, Structure.BONE, where=where)
    canvas.paint(
        np.maximum(body + 2.0, 5.0 - np.abs(rise)), 190 + 45 * fine[where], Structure.BONE, where=where
    )
    canal = middle + half_y + 8
    hollow = (np.hypot(x / 11, (y - canal) / 8) - 1) * 9
    level = centre - 10.5  # arches cover two thirds of a vertebra
    arch = np.maximum(np.maximum(hollow - 5.5, level), middle + half_y - 2 - y)
    process = np.maximum(np.maximum(np.abs(x) - 3.2, np.abs(y - canal - 22) - 15), np.abs(rise + 8) - 7)
    wings = np.maximum(np.maximum(np.abs(y - canal - 2) - 5, np.abs(x) - 33), centre - 6)
    processes = np.minimum(arch, np.minimum(process, wings))
    canvas.paint(processes, 470.0, Structure.BONE, where=where)
    canvas.paint(processes + 2.6, 220.0, Structure.BONE, where=where)
    canvas.paint(hollow, 12.0, Structure.MUSCLE, where=where)
    canvas.paint(hollow + 3.5, 38.0, Structure.MUSCLE, where=where)


def _fat_share(y: Array) -> Array:
    """How thick the fat is: most of it in front and behind, less at the sides."""
    return np.asarray(0.75 + 0.25 * np.clip(np.abs(y) / 100, 0, 1.6), dtype=np.float32)
