"""Places in new scans that a CSV names: LPS positions in mm, by file or series, as in LUNA16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from parts2whole.errors import name_some
from parts2whole.scans.case import SourceCase
from parts2whole.scans.read import strip_suffix
from parts2whole.scans.volume import Volume
from parts2whole.tasks.candidates import POINT_COLUMNS, is_inside, read_points, to_voxels
from parts2whole.tasks.labelled import TaskError

Places = Mapping[str, list[tuple[float, ...]]]
"""LPS positions (x, y, z) in mm, by the file name without suffix or the series UID of their scan."""
Points = npt.NDArray[np.float64]
"""Places (n, 3) in voxels (z, y, x)."""


def read_places(path: Path) -> Places:
    """The places of a CSV with ``seriesuid,coordX,coordY,coordZ``.

    Raises:
        TaskError: the file or a column is missing, or a coordinate isn't a number.
    """
    named: dict[str, list[tuple[float, ...]]] = {}
    for row in read_points(path, POINT_COLUMNS):
        world = tuple(float(row[f"coord{axis}"]) for axis in "XYZ")
        named.setdefault(row["seriesuid"], []).append(world)
    return named


def check_names(named: Places, cases: Sequence[SourceCase]) -> None:
    """Refuse names that several scans have, as files of one name in two folders do.

    Raises:
        TaskError: a scan has one that places are named by; each has a case id of its own, which may be used.
    """
    ids = {case.case_id for case in cases}
    for name in named:
        others = [case.case_id for case in cases if name in _names(case) and case.case_id != name]
        if len(others) > 1 or (others and name in ids):
            both = name_some([*([name] if name in ids else []), *others])
            raise TaskError(
                f"{name} in the list of points names several scans ({both}): write which is meant"
            )


def _names(case: SourceCase) -> set[str]:
    """What a scan may be called in a list of places."""
    names = {case.case_id, *(source.series for source in case.scan_sources())}
    return (names | {strip_suffix(path.name) for path in case.files()}) - {""}


def places_in(named: Places, case: SourceCase, volume: Volume) -> Points:
    """The places of a case, in voxels (z, y, x) of its prepared volume.

    Raises:
        TaskError: there is none, or one lies outside.
    """
    world = [place for name in sorted(_names(case)) for place in named.get(name, ())]
    if not world:
        raise TaskError("no point names it")
    return inside(np.array(world), volume)


def inside(world_mm: npt.NDArray[np.float64], volume: Volume) -> Points:
    """LPS positions (n, 3) in mm, in voxels (z, y, x) of a volume.

    Raises:
        TaskError: one lies outside.
    """
    voxels = to_voxels(volume, world_mm)
    outside = np.flatnonzero(~is_inside(volume, voxels))
    if len(outside):
        places = ", ".join(str(tuple(world_mm[i].tolist())) for i in outside[:3])
        raise TaskError(f"{len(outside)} points lie outside the scan, such as {places} mm")
    return voxels
