"""What the writers of all data sets share: their interface, deterministic identifiers, flips."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import SimpleITK
from pydicom.uid import generate_uid

from parts2whole.files import flush, temporary
from parts2whole.phantom.montage import Picture
from parts2whole.phantom.sizes import Size
from parts2whole.scans.volume import LabelVolume, Volume, triple

G = TypeVar("G", Volume, LabelVolume)
Rows = Mapping[str, Any]
_sitk: Any = SimpleITK  # without annotations


@dataclasses.dataclass(frozen=True)
class DataSet(abc.ABC):
    """A public data set whose form phantoms take.

    Attributes:
        folder: its name on disk.
        task: the task that reads it; empty for the unlabelled pool.
    """

    folder: str
    task: str

    @abc.abstractmethod
    def write_case(self, root: Path, case: int, *, seed: int, size: Size) -> Rows:
        """Write one patient's files, and return what the data set's tables say of them."""

    def draw(self, case: int, *, seed: int, size: Size) -> list[Picture]:
        """Pictures of a patient; none where there is nothing special to see."""
        return []

    def finish(self, root: Path, rows: Sequence[Rows]) -> None:
        """Write the tables of the data set; most have none."""
        return


def make_uid(*labels: int | str) -> str:
    """A DICOM UID that belongs to these labels alone."""
    return str(generate_uid(entropy_srcs=["parts2whole", *(str(label) for label in labels)]))


def write_itk(volume: Volume | LabelVolume, out: Path, *, compress: bool = False) -> None:
    """Write MetaImage or NRRD, with detached data where the suffix asks for it."""
    image = _sitk.GetImageFromArray(volume.array)
    image.SetSpacing([float(mm) for mm in volume.spacing_mm[::-1]])
    image.SetOrigin([float(mm) for mm in volume.origin_mm])
    image.SetDirection([float(v) for v in np.asarray(volume.direction)[:, ::-1].ravel()])
    with temporary(out) as folder:
        folder.mkdir()
        _sitk.WriteImage(image, str(folder / out.name), compress)
        flush(folder)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == out.name):
            file.replace(out.parent / file.name)


def flip(volume: G, axes: Sequence[int]) -> G:
    """The same scan stored from the other end of some axes: voxels stay where they are in the patient."""
    origin = np.asarray(volume.origin_mm, dtype=float)
    matrix = np.array(volume.direction)
    for axis in axes:
        origin = origin + matrix[:, axis] * volume.spacing_mm[axis] * (volume.shape[axis] - 1)
        matrix[:, axis] *= -1
    place, rows = triple(origin), [triple(row) for row in matrix]
    array = np.ascontiguousarray(np.flip(volume.array, tuple(axes)))
    return dataclasses.replace(volume, array=array, origin_mm=place, direction=(rows[0], rows[1], rows[2]))
