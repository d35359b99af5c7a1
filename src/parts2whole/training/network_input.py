"""A new scan on its way into a network: as training saw those of its store."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from parts2whole.errors import Parts2WholeError
from parts2whole.scans.preprocess import Preprocess, prepare_volume, quantise, to_unit
from parts2whole.scans.volume import Volume


class InputError(Parts2WholeError, ValueError):
    """A scan that a network doesn't take."""


@dataclasses.dataclass(frozen=True)
class NetworkInput:
    """A prepared scan.

    Attributes:
        image: what the network sees, (channel, z, y, x) in [0, 1].
        volume: the same voxels, with where they lie.
        notes: what the user should know.
    """

    image: Tensor
    volume: Volume
    notes: tuple[str, ...]


def network_input(scan: Volume, preprocess: Preprocess, in_channels: int) -> NetworkInput:
    """A scan as training saw it: through the type of the store, so that `evaluate` sees the same voxels.

    Raises:
        InputError: another number of channels than the model's.
        parts2whole.scans.preprocess.PreprocessError: it can't be prepared so.
    """
    count = scan.array.size // int(np.prod(scan.shape))
    if count != in_channels:
        raise InputError(f"the model expects {in_channels} channels, the scan has {count}")
    prepared = prepare_volume(scan, preprocess)
    stored = quantise(prepared, "int16")
    channels = to_unit(stored.array, scale=stored.scale, offset=stored.offset)
    volume = prepared.volume
    volume = dataclasses.replace(volume, array=channels.reshape(volume.array.shape))
    return NetworkInput(torch.from_numpy(channels), volume, prepared.notes)
