"""How large phantoms are: a dial from what tests need to what looks like a hospital's."""

from __future__ import annotations

from typing import Literal

from parts2whole.phantom.ct import Region, Resolution
from parts2whole.phantom.space import Grid

Size = Literal["tiny", "small", "full"]
"""``tiny`` for tests, ``small`` for a laptop, ``full`` near clinical matrices."""

CT: dict[Region, dict[Size, Resolution]] = {
    "chest": {
        "tiny": Resolution(48, slices=32, smallest_mm=20.0),
        "small": Resolution(176, (2.0, 2.5), smallest_mm=6.0),
        "full": Resolution(320, (1.0, 1.25, 2.0, 2.5), smallest_mm=4.0),
    },
    "abdomen": {
        "tiny": Resolution(48, slices=32, smallest_mm=12.0),
        "small": Resolution(144, (2.5, 3.0, 5.0), smallest_mm=5.0),
        "full": Resolution(320, (1.0, 1.5, 2.5, 5.0), smallest_mm=4.0),
    },
    "angiography": {
        "tiny": Resolution(48, slices=32, smallest_mm=12.0),
        "small": Resolution(176, (1.5, 2.0), smallest_mm=6.0),
        "full": Resolution(320, (1.0, 1.25), smallest_mm=4.0),
    },
}
"""LUNA16 keeps scans with slices of at most 2.5 mm; LiTS has slices of 0.7 to 5 mm."""

BRAIN: dict[Size, tuple[tuple[int, int, int], float]] = {
    "tiny": ((32, 48, 48), 4.6),
    "small": ((78, 120, 120), 2.0),
    "full": ((155, 240, 240), 1.0),
}
"""Voxels and their edge in mm; ``full`` is the grid of BraTS."""


def brain_grid(size: Size) -> Grid:
    """The grid of BraTS, or a coarser one of the same extent: its last row, not its first, is at y = 0."""
    shape, edge = BRAIN[size]
    grid = Grid(shape, (edge, edge, edge), (-12.0, 0.0, 0.0))
    z, y, x = grid.first_mm
    return Grid(shape, grid.spacing_mm, grid.centre_mm, (-z, -y - edge * (shape[1] - 1), -x))
