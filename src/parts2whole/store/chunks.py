"""Chunked arrays on disk: OME-Zarr, written by zarr and tensorstore, read by tensorstore.

An array is one file (a shard) of small compressed chunks with an index at its end, of which tensorstore reads
and decodes those that a crop touches, in threads that need no interpreter lock.  Where it can't, zarr reads
the same at several times the cost: at URLs, which only fsspec knows, and in a process forked from one with
such threads.  Chunk shape and codec were chosen by `benchmarks/sampling.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorstore
import zarr
from zarr.codecs import BloscCodec

from parts2whole.errors import Parts2WholeError
from parts2whole.jobs.pool import usable_cores
from parts2whole.scans.ome_zarr import OWN, USUAL
from parts2whole.scans.volume import Box, LabelVolume, Triple, size_of
from parts2whole.store.location import is_local

CHUNK = (16, 32, 32)
"""Voxels (z, y, x) of a chunk: small, so that a crop decodes little that it doesn't need."""

CODEC: Literal["lz4hc"] = "lz4hc"
LEVEL = 5
"""Of blosc: slower to write than plain lz4, but smaller, and quicker to read."""

OPEN_ARRAYS = 256
MOST_DECODERS = 8


class ChunkError(Parts2WholeError, ValueError):
    """An array that can't be read or written."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the voxels of a case lie, and what their values are.

    Attributes:
        spacing_mm: of (z, y, x).
        affine_lps: from (z, y, x, 1) in canonical orientation to LPS mm.
        scale: value in [0, 1] = stored * scale + offset.
        offset: see ``scale``.
        hounsfield: stored values are Hounsfield units.
    """

    spacing_mm: Triple
    affine_lps: npt.NDArray[np.float64]
    scale: float = 1.0
    offset: float = 0.0
    hounsfield: bool = False


def write_image(folder: Path, name: str, image: npt.NDArray[Any], place: Place) -> None:
    """Write voxels (channel, z, y, x) as an OME-Zarr 0.5 image; see `write_mask` for labels."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "multiscales": [_multiscale(name, "czyx", place)]}
    values = {"scale": place.scale, "offset": place.offset, "hounsfield": place.hounsfield}
    group.attrs[OWN] = {"affine_lps": place.affine_lps.tolist(), **values}
    _write_array(group, folder, image, "czyx")


def write_mask(folder: Path, mask: npt.NDArray[Any], place: Place) -> None:
    """Write labels (z, y, x) below the image in ``folder``, as ``labels/mask``."""
    labels = zarr.open_group(folder, mode="a", zarr_format=3).create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": ["mask"]}
    group = labels.create_group("mask")
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [_multiscale("mask", "zyx", place)],
        "image-label": {"source": {"image": "../../"}},
    }
    group.attrs[OWN] = {"affine_lps": place.affine_lps.tolist(), "label": True}
    _write_array(group, folder / "labels" / "mask", mask, "zyx")


def write_label_image(folder: Path, name: str, label: LabelVolume) -> None:
    """Write a label map in canonical orientation as an OME-Zarr 0.5 image by itself."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    place = Place(label.spacing_mm, label.affine())
    multiscale = _multiscale(name, "zyx", place)
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], "image-label": {}}
    group.attrs[OWN] = {"affine_lps": place.affine_lps.tolist(), "label": True}
    _write_array(group, folder, label.array, "zyx")


def write_cells(folder: Path, counts: npt.NDArray[Any]) -> None:
    """Write counts (kind, z, y, x) as ``cells/0`` below an image or label; other readers pass them over."""
    group = zarr.open_group(folder, mode="a", zarr_format=3).create_group("cells")
    _write_array(group, folder / "cells", counts, "kzyx")


class ChunkedArray:
    """One array on disk, opened for reading.

    Args:
        path: its folder, which holds ``zarr.json``.

    Raises:
        ChunkError: it is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = os.getpid()
        self._by_tensorstore = is_local(path) and _owner() == self.process
        try:
            self._array = _open_by_tensorstore(path) if self._by_tensorstore else _open_by_zarr(path)
        except _ERRORS as error:
            raise ChunkError(f"{path} can't be opened: {_said(error)}; prepare this case again") from error
        self.shape: tuple[int, ...] = tuple(self._array.shape)

    def read(self, box: Box | None = None, *, fill: float = 0) -> npt.NDArray[Any]:
        """The voxels of a box of the last three axes, with ``fill`` outside the array; default: all."""
        return self.begin(box, fill=fill)()

    def begin(self, box: Box | None = None, *, fill: float = 0) -> Callable[[], npt.NDArray[Any]]:
        """Begin to read a box elsewhere; what is returned waits for it, and raises what `read` would."""
        box = Box.of(self) if box is None else box
        inside = box.inside(size_of(self))
        index = (..., *inside.slices)
        if self._by_tensorstore:
            reading = self._array[index].read()
        else:
            reading = _zarr_readers(self.process).submit(self._array.__getitem__, index)

        def finish() -> npt.NDArray[Any]:
            try:
                voxels = np.asarray(reading.result())
            except _ERRORS as error:
                raise ChunkError(
                    f"{self.path} is damaged, truncated or out of reach ({_said(error)}); "
                    "prepare this case again"
                ) from error
            return box.relative_to(inside).cut(voxels, fill)

        return finish


_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError)
"""What libraries raise over files that are missing or damaged."""


def _open_by_tensorstore(path: Path) -> Any:
    return tensorstore.open(_spec(path), context=_decoders(), open=True, read=True).result()


def _open_by_zarr(path: Path) -> Any:
    remote: Any = path
    options = None if is_local(path) else dict(remote.storage_options)
    array = zarr.open_array(str(path), mode="r", storage_options=options)
    first = path.joinpath("c", *"0" * array.ndim)
    if first.exists() and first.stat().st_size == 0:  # which zarr takes for one that was never written
        raise ValueError("its shard is truncated to nothing")
    return array


def _spec(path: Path) -> dict[str, Any]:
    return {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}


@functools.cache
def _owner() -> int:
    """The process in which tensorstore has its threads; in one forked from it, tensorstore would abort."""
    return os.getpid()


@functools.cache
def _zarr_readers(process: int) -> ThreadPoolExecutor:
    """Threads of a process in which zarr waits for what is far away."""
    return ThreadPoolExecutor(MOST_DECODERS, thread_name_prefix=f"zarr-{process}")


@functools.cache
def _decoders() -> tensorstore.Context:
    """Threads of this process that read and decode, beside those that train."""
    threads = {"limit": max(1, min(MOST_DECODERS, usable_cores() // 2))}
    return tensorstore.Context({"data_copy_concurrency": threads, "file_io_concurrency": threads})


def _said(error: Exception) -> str:
    return str(error).partition("\n")[0]


class ArrayCache:
    """Arrays opened in this process, for all its threads; the least recently used is closed first."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, path: Path, *, within: Path) -> ChunkedArray:
        """The array in ``path``, which links must not lead out of the folder ``within``."""
        with self._lock:
            array = self._open.pop(path, None)
            if array is None or array.process != os.getpid():
                if not path.resolve().is_relative_to(within.resolve()):
                    raise ChunkError(f"{path} is a link that leaves {within}; copy the case into the store")
                array = ChunkedArray(path)
            self._open[path] = array
            while len(self._open) > OPEN_ARRAYS:
                self._open.popitem(last=False)
        return array

    def __len__(self) -> int:
        return len(self._open)

    def forget(self) -> None:
        """Close all, because arrays on disk have changed."""
        with self._lock:
            self._open.clear()


def _write_array(group: zarr.Group, folder: Path, array: npt.NDArray[Any], axes: str) -> None:
    chunk = tuple(min(c, s) for c, s in zip((1, *CHUNK)[-array.ndim :], array.shape, strict=True))
    made = group.create_array(
        "0",
        shape=array.shape,
        dtype=array.dtype,
        chunks=chunk,
        shards=tuple(-(-s // c) * c for c, s in zip(chunk, array.shape, strict=True)),
        compressors=BloscCodec(cname=CODEC, clevel=LEVEL, shuffle="shuffle", typesize=array.dtype.itemsize),
        fill_value=0,
        dimension_names=tuple(axes),
    )
    if _owner() != os.getpid():
        made[...] = array
        return
    try:
        tensorstore.open(_spec(folder / "0"), open=True).result().write(array).result()
    except ValueError as error:
        raise ChunkError(f"{folder} can't be written: {str(error).partition(chr(10))[0]}") from error


def _multiscale(name: str, axes: str, place: Place) -> dict[str, Any]:
    """Scale, and the place of the first voxel; axes point where they do in canonical orientation."""
    space: list[dict[str, Any]] = [
        {
            "name": axis,
            "type": "space",
            "unit": "millimeter",
            "orientation": {"type": "anatomical", "value": towards},
        }
        for axis, towards in USUAL.items()
    ]
    channel: list[dict[str, Any]] = [{"name": "c", "type": "channel"}] if "c" in axes else []
    scale = [*(1.0 for _ in channel), *place.spacing_mm]
    first = [*(0.0 for _ in channel), *place.affine_lps[2::-1, 3].tolist()]
    moves = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": first}]
    dataset = {"path": "0", "coordinateTransformations": moves}
    return {"name": name, "axes": [*channel, *space], "datasets": [dataset]}
