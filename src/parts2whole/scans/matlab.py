"""MATLAB files that hold one 3-D array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.scans.source import ReadError


def read_matlab(path: Path) -> npt.NDArray[Any]:
    """The one 3-D array of a ``.mat`` file, with its axes as they are (rows, columns, slices).

    Raises:
        ReadError: broken, saved as version 7.3, or not exactly one 3-D array of numbers.
    """
    from scipy import io  # as slow to import as all other readers together, and few have such files

    try:
        content = io.loadmat(path)
    except NotImplementedError as error:
        raise ReadError(f"{path.name} is of MATLAB version 7.3; save it with the option -v7") from error
    except (OSError, ValueError, TypeError) as error:
        raise ReadError(f"{path.name} can't be read: {error}") from error
    arrays = {
        key: value
        for key, value in content.items()
        if isinstance(value, np.ndarray) and value.ndim == 3 and value.dtype.kind in "biuf"
    }
    if len(arrays) != 1:
        raise ReadError(f"{path.name} holds {len(arrays)} 3-D arrays, expected one")
    found: npt.NDArray[Any] = next(iter(arrays.values()))
    return found
