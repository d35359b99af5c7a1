"""Voxels that are ready as they are, into a store, for benchmarks that need volumes and no scans."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from parts2whole.scans.volume import CANONICAL, content_hash
from parts2whole.store.store import CaseRecord, Store


def write_ready(store: Store, case_id: str, voxels: npt.NDArray[np.int16], *, patient: str) -> CaseRecord:
    """Write int16 (z, y, x), whose range from 0 up means [0, 1]."""
    record = CaseRecord(
        case_id, patient, "unit", 1, voxels.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), CANONICAL,
        1 / np.iinfo(np.int16).max, 0.0, content_hash(voxels), source=("scan.nii.gz",),
    )  # fmt: skip
    return store.write_case(record, voxels[None])
