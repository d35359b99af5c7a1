"""How bright blood and organs are at a phase of enhancement, in HU."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

Phase = Literal["none", "portal", "pulmonary"]


@dataclasses.dataclass(frozen=True)
class Enhancement:
    """Brightness in HU; ranges of contrast-enhanced CT in adults at 120 kV.

    Attributes:
        right_heart: blood of the right heart and of the pulmonary arteries.
        left_heart: blood of the left heart and of the pulmonary veins.
        aorta: blood of the aorta and its branches.
        upper_vein: blood of the superior vena cava.
        lower_vein: blood of the inferior vena cava.
        portal: blood of the vessels in the liver.
        heart_muscle: of the heart.
        liver: its tissue.
        spleen: its tissue.
        cortex: of the kidney.
        medulla: of the kidney.
        bowel_wall: of stomach and bowel.
    """

    right_heart: float
    left_heart: float
    aorta: float
    upper_vein: float
    lower_vein: float
    portal: float
    heart_muscle: float
    liver: float
    spleen: float
    cortex: float
    medulla: float
    bowel_wall: float

    @classmethod
    def draw(cls, phase: Phase, generator: np.random.Generator) -> Enhancement:
        """The brightness of one patient at a phase."""
        means, spreads = PHASES[phase]
        drawn = np.asarray(means) + np.asarray(spreads) * np.clip(generator.normal(0, 1, len(means)), -2, 2)
        return cls(*(float(value) for value in drawn))


#          heart R, L, aorta, SVC, IVC, portal, muscle, liver, spleen, cortex, medulla, bowel
PHASES = {
    "none": ((42, 42, 42, 42, 42, 40, 46, 58, 50, 34, 32, 40), (3, 3, 3, 3, 3, 3, 3, 5, 3, 2, 2, 4)),
    "portal": (
        (150, 150, 155, 150, 140, 168, 105, 108, 118, 190, 160, 85),
        (14, 14, 15, 14, 14, 14, 8, 8, 8, 18, 18, 10),
    ),
    "pulmonary": (
        (410, 250, 215, 650, 60, 45, 75, 60, 62, 70, 40, 50),
        (50, 45, 45, 110, 10, 5, 10, 5, 8, 12, 5, 5),
    ),
}
