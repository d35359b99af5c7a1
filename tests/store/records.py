"""Records and voxels of cases that never were files."""

from __future__ import annotations

import numpy as np

from parts2whole.scans.volume import CANONICAL
from parts2whole.store.store import CaseRecord


def a_record(case_id="a", array=None, **changes):
    channels, *shape = array.shape if array is not None else (1, 4, 5, 6)
    return CaseRecord(
        **{
            "case_id": case_id,
            "patient": case_id,
            "modality": "CT",
            "channels": channels,
            "shape": tuple(shape),
            "spacing_mm": (3.0, 1.0, 1.0),
            "origin_mm": (0.0, 0.0, 0.0),
            "direction": CANONICAL,
            "scale": 1 / 2000,
            "offset": 0.5,
            "content_hash": case_id,
        }
        | changes
    )


def voxels(shape, dtype="int16", seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)
