"""Scores of the file the user has: the label map as it lies on disk, and the way from prepared voxels to it.

A store holds label maps on the grid that networks see.  Where that isn't the grid of the file, figures over
it are of another task: a lesion that resampling has lost isn't there to be missed.  So tests read the label
file again, and bring predictions onto it exactly as `predict` writes them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from parts2whole.scans.case import SourceCase, read_case_label, read_channels
from parts2whole.scans.preprocess import crop, onto_grid, prepare_label
from parts2whole.scans.volume import LabelVolume, to_canonical
from parts2whole.store.store import CaseRecord, Store
from parts2whole.tasks.labelled import TaskError

T = TypeVar("T", bound=np.generic)


@dataclasses.dataclass(frozen=True, eq=False)
class Original:
    """The label map of a case, with the values of its file, and the prepared voxels it belongs to.

    Attributes:
        label: in canonical orientation, at the file's own spacing; of the case's box, where it has one.
        record: of the prepared volume.
    """

    label: LabelVolume
    record: CaseRecord

    def bring(self, prepared: npt.NDArray[T]) -> npt.NDArray[T]:
        """What the prepared voxels (z, y, x) hold, on those of the file: that of the nearest voxel."""
        return np.take(prepared, self._nearest)

    @functools.cached_property
    def _nearest(self) -> npt.NDArray[np.int32]:
        """For every voxel of the file the number of the nearest prepared one."""
        record = self.record
        numbers = np.arange(math.prod(record.shape), dtype=np.int32).reshape(record.shape)
        volume = LabelVolume(numbers, record.spacing_mm, record.origin_mm, record.direction)
        return onto_grid(volume, self.label).array


def read_original(case: SourceCase, store: Store) -> Original:
    """Read the label map of a case from its files again.

    Raises:
        TaskError: a file is gone, or isn't what was prepared.
        parts2whole.scans.source.ReadError: a file that can't be read.
        parts2whole.scans.case.IngestError: image and label don't belong together any more.
    """
    missing = [str(path) for path in case.files() if not path.exists()]
    if missing:
        raise TaskError(
            f"scores are on the voxels of the label file, but {missing[0]} is gone: put the files of "
            f"{case.case_id} back where they were"
        )
    scan = read_channels(case)
    label = read_case_label(case, scan)
    if label is None:
        raise TaskError(f"{case.case_id} has no label map to be scored on")
    if case.box is not None:
        scan, label = crop(scan, case.box), crop(label, case.box)
    record = store.record(case.case_id)
    if not _is_prepared_from(label, record, store):
        raise TaskError(
            f"the files of {case.case_id} have changed since they were prepared: put them back as they were, "
            "or start again with the data as they are now"
        )
    like = to_canonical(scan)
    array = to_canonical(label).array
    return Original(LabelVolume(array, like.spacing_mm, like.origin_mm, like.direction), record)


def _is_prepared_from(label: LabelVolume, record: CaseRecord, store: Store) -> bool:
    """Whether preparing a label map gives what is stored."""
    prepared = prepare_label(label, store.preprocess).array
    return prepared.shape == record.shape and np.array_equal(prepared, store.read_label(record.case_id))
