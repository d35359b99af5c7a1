"""Brain phantoms in four MR modalities, with a glioma: core, oedema, enhancing rim.

Positions are (z, y, x) in mm from the middle of the brain.
"""

from __future__ import annotations

import dataclasses
from enum import IntEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

from parts2whole.phantom.canvas import Canvas, ellipsoid_distance, tube_path
from parts2whole.phantom.noise import scan_mr
from parts2whole.phantom.space import Array, Grid, Smooth
from parts2whole.scans.volume import LabelVolume, Triple, Volume
from parts2whole.wholes.random import sample_generator

BrainModality = Literal["t1", "t1ce", "t2", "flair"]
Grade = Literal["HGG", "LGG"]
MODALITIES: tuple[BrainModality, ...] = ("t1", "t1ce", "t2", "flair")
NECROSIS, OEDEMA, ENHANCING = 1, 2, 4
"""Labels of BraTS 2018: necrotic and non-enhancing core, oedema, enhancing tumour."""


class Tissue(IntEnum):
    """What a voxel mostly is."""

    AIR = 0
    SCALP = 1
    SKULL = 2
    FLUID = 3
    GREY = 4
    WHITE = 5
    DEEP_GREY = 6
    VESSEL = 7
    LESION = 8


# Brightness of each tissue at t1, t1ce, t2, flair, in per cent of a full scale.
SIGNAL: dict[str, tuple[float, float, float, float]] = {
    "scalp": (95, 95, 70, 60),
    "skull": (8, 8, 8, 6),
    "fluid": (16, 17, 96, 10),
    "grey": (46, 48, 56, 52),
    "white": (64, 66, 39, 42),
    "deep": (53, 55, 49, 47),
    "vessel": (30, 110, 15, 18),
    "oedema": (42, 44, 78, 84),
    "core": (30, 30, 84, 62),
    "rim": (50, 108, 66, 72),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """A head with a tumour.

    Attributes:
        radii_mm: of the cerebrum along (z, y, x).
        ventricle: size of the ventricles.
        atrophy: width of the furrows in mm.
        folds: a smooth function whose zeros are the furrows of the cortex.
        shape: large-scale irregularity.
        ragged: irregularity of the tumour.
        bias: of the coil.
        tumour_mm: middle of the tumour.
        core_mm: radius of its core with the rim; 0 in a healthy head.
        oedema_mm: radius of the oedema.
        rim_mm: thickness of the enhancing rim; 0 where nothing enhances.
        spots_mm: middles of small bright spots of white matter, which are no tumour.
        stains: size (percent of scale) of each modality.
    """

    radii_mm: Triple
    ventricle: float
    atrophy: float
    folds: Smooth
    shape: Smooth
    ragged: Smooth
    bias: Smooth
    tumour_mm: Triple
    core_mm: float
    oedema_mm: float
    rim_mm: float
    spots_mm: npt.NDArray[np.float64]
    stains: npt.NDArray[np.float64]

    @classmethod
    def draw(cls, generator: np.random.Generator, grade: Grade, *, tumour: bool = True) -> Head:
        """Draw a head."""
        size = generator.uniform(0.94, 1.06)
        z, y, x = (float(v) for v in size * np.array([60, 84, 66]) * generator.uniform(0.97, 1.03, 3))
        side = float(generator.choice([-1, 1]))
        place = np.array(
            [generator.uniform(-6, 30), generator.uniform(-46, 46), side * generator.uniform(20, 44)]
        )
        high = grade == "HGG"
        core = float(generator.uniform(8, 19)) if high else float(generator.uniform(7, 16))
        oedema = core + float(generator.uniform(5, 16) if high else generator.uniform(2, 8))
        rim = float(generator.uniform(2.0, 4.5)) if high or generator.random() < 0.2 else 0.0
        if not tumour:
            core = oedema = rim = 0.0
        count = int(generator.integers(0, 12))
        spots = np.column_stack(
            [
                generator.uniform(4, 26, count),
                generator.uniform(-45, 45, count),
                generator.choice([-1, 1], count) * generator.uniform(18, 34, count),
            ]
        )
        return cls(
            (z, y, x),
            float(generator.uniform(0.8, 1.35)),
            float(generator.uniform(0.7, 1.5)),
            Smooth.draw(generator, 9.0),
            Smooth.draw(generator, 45.0),
            Smooth.draw(generator, 9.0),
            Smooth.draw(generator, 90.0),
            (float(place[0]), float(place[1]), float(place[2])),
            core,
            oedema,
            rim,
            spots,
            generator.uniform(2.5, 8.0, 4),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class BrainScan:
    """A head scanned.

    Attributes:
        images: one image for each modality, int16.
        tissue: `Tissue` of every voxel.
        label: 0, 1 necrotic core, 2 oedema, 4 enhancing.
        grid: the voxels.
        head: what was scanned.
    """

    images: dict[BrainModality, Volume]
    tissue: npt.NDArray[np.uint8]
    label: LabelVolume
    grid: Grid
    head: Head


def make_brain(
    grid: Grid, *, seed: int, case: int, grade: Grade = "HGG", stripped: bool = True, tumour: bool = True,
    modalities: tuple[BrainModality, ...] = MODALITIES,
) -> BrainScan:  # fmt: skip
    """A head scanned: a function of grid, grade, seed and case.

    Args:
        grid: voxels around the middle of the brain.
        seed: of the data set.
        case: number of the patient.
        grade: high grade, most with enhancing rim and wide oedema, or low grade.
        stripped: remove everything outside the brain, as BraTS does.
        tumour: whether there is one.
        modalities: those to make.
    """
    head = Head.draw(sample_generator("brain", grade, seed, case), grade, tumour=tumour)
    canvases = {name: Canvas(grid, 0.0) for name in modalities}
    painter = _Painter(head, grid, canvases)
    label = painter.paint(stripped=stripped)
    tissue = next(iter(canvases.values())).structure
    bias = np.float32(0.13) * head.bias.on(grid)
    images: dict[BrainModality, Volume] = {}
    for name, canvas in canvases.items():
        noise = sample_generator("brain noise", name, grade, seed, case)
        scale = head.stains[MODALITIES.index(name)]
        image = scan_mr(canvas.value, bias, 1.6, noise) * scale
        if stripped:
            image = image * (tissue > 0)
        images[name] = grid.volume(np.clip(np.rint(image), 0, 32767).astype(np.int16), "MR")
    return BrainScan(images, tissue, grid.label(label), grid, head)


class _Painter:
    """Paints every tissue into all modalities at once."""

    def __init__(self, head: Head, grid: Grid, canvases: dict[BrainModality, Canvas]) -> None:
        self.head, self.grid, self.canvases = head, grid, canvases
        z, y, x = grid.axes()
        self.shape = head.shape.on(grid)
        # The tumour pushes its surroundings outwards: look up the healthy brain nearer to its middle.
        away = [axis - place for axis, place in zip((z, y, x), head.tumour_mm, strict=True)]
        distance = np.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2)
        push = (
            0.28 * np.exp(-((distance / np.float32(2.0 * head.core_mm + 1e-3)) ** 2))
            if head.core_mm
            else 0 * distance
        )
        self.distance = distance
        self.z, self.y, self.x = (axis - push * d for axis, d in zip((z, y, x), away, strict=True))

    def paint(self, *, stripped: bool) -> npt.NDArray[np.uint8]:
        """Paint the head, and return the labels of the tumour."""
        z, y, x = self.z, self.y, self.x
        brain, cerebrum = self._surfaces()
        if not stripped:
            rz, ry, rx = self.head.radii_mm
            hull = ellipsoid_distance(z, y, x, (-26, -2, 0), (rz + 34, ry + 12, rx + 12))
            self._put(np.minimum(brain - 15, hull), "scalp", Tissue.SCALP)
            self._put(np.minimum(brain - 15, hull) + 6, "grey", Tissue.SCALP, scale=0.8)
            self._put(brain - 10, "skull", Tissue.SKULL)
            self._put(brain - 3.5, "fluid", Tissue.FLUID)
        self._put(brain, "fluid", Tissue.FLUID)
        folds = self.head.folds.on(self.grid)
        furrow = np.abs(folds) * 5.2
        furrow = furrow + np.clip(-cerebrum - 15, 0, 40)  # furrows end 15 mm below the surface
        midline = np.maximum(np.abs(x - 1.2 * self.shape), 10 - 0.02 * (y + 10) ** 2 - z + 14)
        to_fluid = np.minimum(np.minimum(furrow, 0.3 - cerebrum), midline)
        half = np.float32(0.6 * self.head.atrophy)
        self._put(np.maximum(cerebrum, half - to_fluid), "grey", Tissue.GREY)
        self._put(np.maximum(cerebrum + 2.6, half + 3.0 - to_fluid), "white", Tissue.WHITE)
        self._hind_brain(folds)
        self._deep()
        self._vessels()
        for spot in self.head.spots_mm:
            blob = ellipsoid_distance(*self.grid.axes(), spot, (2.6, 3.2, 2.6))
            self._put(np.maximum(blob, half + 3.5 - to_fluid), "oedema", None, soft_mm=2)
        return self._tumour(brain)

    def _put(
        self, distance: Array, name: str, tissue: Tissue | None, *, soft_mm: float = 0.0, scale: float = 1.0
    ) -> None:
        for modality, canvas in self.canvases.items():
            signal = scale * SIGNAL[name][MODALITIES.index(modality)]
            canvas.paint(distance, signal, tissue, soft_mm=soft_mm)

    def _surfaces(self) -> tuple[Array, Array]:
        """Distances from the surface of the brain, and of the cerebrum alone."""
        z, y, x = self.z, self.y, self.x
        rz, ry, rx = self.head.radii_mm
        # Narrower in front; flat below.
        narrow = rx * (1 - 0.10 * np.clip(-y / ry, -1, 1))
        cerebrum = ellipsoid_distance(z, y, x * (rx / narrow), (6, 0, 0), (rz, ry, rx)) + 2.2 * self.shape
        temporal = ellipsoid_distance(z, y, np.abs(x), (-24, -10, 0.62 * rx), (24, 44, 21))
        base = -22 - z + 0.0014 * y**2
        cerebrum = np.minimum(np.maximum(cerebrum, base), temporal)
        hind = ellipsoid_distance(z, y, x, (-34, 44, 0), (22, 30, 46))
        stem = np.maximum(np.hypot(x / 1.1, y - 14 - 0.12 * z) - 11.5, np.abs(z + 34) - 42)
        self.hind, self.stem = hind, stem
        return np.minimum(cerebrum, np.minimum(hind, stem)), cerebrum

    def _hind_brain(self, folds: Array) -> None:
        """Cerebellum with its leaves, and the brain stem."""
        leaves = np.sin(0.95 * (self.z + 0.35 * self.y) + 1.2 * folds)
        self._put(self.hind - 1.5, "fluid", Tissue.FLUID)
        self._put(self.hind, "grey", Tissue.GREY)
        self._put(self.hind + 1.0 + 1.2 * leaves, "grey", Tissue.GREY, scale=0.96)
        self._put(np.maximum(self.hind + 9 + 2.5 * leaves, 3 - np.abs(self.x)), "white", Tissue.WHITE)
        self._put(self.stem, "white", Tissue.WHITE, scale=0.95)

    def _deep(self) -> None:
        """Corpus callosum, basal ganglia, thalamus and ventricles."""
        z, y, x = self.z, self.y, self.x
        s = self.head.ventricle
        side = np.abs(x - 0.8 * self.shape)
        arch = 15 - 0.006 * y**2
        callosum = np.maximum(np.maximum(np.abs(z - arch - 4) - 3.0, np.abs(y) - 36), side - 18)
        self._put(callosum, "white", Tissue.WHITE)
        for centre, radii in (
            ((2, 4, 10), (8, 14, 8)),
            ((2, -6, 25), (9, 17, 5.5)),
            ((9, -18, 13), (9, 9, 4.5)),
        ):
            self._put(ellipsoid_distance(z, y, side, centre, radii), "deep", Tissue.DEEP_GREY)
        front = ellipsoid_distance(z - arch + 12, y, side, (9, -12, 8.5), (5.5 * s, 24, 3.6 * s))
        body = ellipsoid_distance(z - arch + 12, y, side, (8.5, 16, 11), (5.5 * s, 26, 4.2 * s))
        rear = ellipsoid_distance(z, y, side, (-1, 42, 20), (9 * s, 17, 4.5 * s))
        horn = ellipsoid_distance(z, y, side, (-20, 2, 30), (4 * s, 20, 3 * s))
        third = np.maximum(np.maximum(side - 1.6 * s, np.abs(z) - 8), np.abs(y) - 12)
        fourth = ellipsoid_distance(z, y, x, (-32, 25, 0), (8, 4, 6))
        ventricles = np.minimum.reduce([front, body, rear, horn, third, fourth])
        self._put(ventricles, "fluid", Tissue.FLUID)

    def _vessels(self) -> None:
        """A few arteries at the base and the sagittal sinus: as bright after contrast as a tumour's rim."""
        rz, ry, _ = self.head.radii_mm
        angle = np.linspace(-2.6, 0.2, 16)
        sinus = np.column_stack([6 + (rz - 1.5) * -np.sin(angle), (ry - 1.5) * np.cos(angle), np.zeros(16)])
        paths = [(sinus, 2.4)]
        for sign in (-1, 1):
            middle = [(-12, -14, 4), (-10, -16, 22 * 1.0), (-2, -10, 38), (8, 6, 46)]
            paths.append((np.array(middle) * (1, 1, sign), 1.5))
        for path, radius in paths:
            for modality, canvas in self.canvases.items():
                signal = SIGNAL["vessel"][MODALITIES.index(modality)]
                inside = (Tissue.FLUID, Tissue.GREY)
                canvas.paint_tubes(tube_path(path, radius), signal, Tissue.VESSEL, inside=inside)

    def _tumour(self, brain: Array) -> npt.NDArray[np.uint8]:
        """Paint oedema, rim and core, from the outside inwards."""
        head = self.head
        label = np.zeros(self.grid.shape, dtype=np.uint8)
        if not head.core_mm:
            return label
        ragged = head.ragged.on(self.grid)
        first = next(iter(self.canvases.values()))
        # Oedema spreads in white matter and halts before cortex and ventricles.
        barrier = np.where(np.isin(first.structure, (Tissue.WHITE, Tissue.DEEP_GREY)), 1.5 * ragged, 6.0)
        surface = self.distance + 0.2 * head.core_mm * ragged + 3.0 * self.shape
        limit = brain + 1.5
        oedema = np.maximum(surface - head.oedema_mm + barrier, limit)
        outer = np.maximum(surface - head.core_mm, limit)
        self._put(oedema, "oedema", Tissue.LESION, soft_mm=2.5)
        label[oedema < 0] = OEDEMA
        inner = outer + head.rim_mm * (1 + 0.35 * ragged)
        if head.rim_mm:
            self._put(outer, "rim", Tissue.LESION)
            label[outer < 0] = ENHANCING
        self._put(inner, "core", Tissue.LESION)
        label[inner < 0] = NECROSIS
        return label
