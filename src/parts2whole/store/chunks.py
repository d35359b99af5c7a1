"""Chunked arrays on disk: OME-Zarr written by zarr and tensorstore, crops read straight from the shard.

An array is one file (a shard) of small compressed chunks with an index at its end.  A single crop is read
here, chunk by chunk: no threads, no open library handle, so it costs little, and is the same in any process
or thread.  Several crops are read by tensorstore, whose threads need no interpreter lock, and so are arrays
in another layout.  Chunk shape and codec were chosen by `benchmarks/sampling.py`.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
import numpy.typing as npt
import tensorstore
import zarr
from numcodecs import blosc
from zarr.codecs import BloscCodec

from parts2whole.errors import Parts2WholeError
from parts2whole.jobs.pool import usable_cores
from parts2whole.store.location import Ranges, is_local

CHUNK = (16, 32, 32)
"""Voxels (z, y, x) of a chunk: small, so that a crop decodes little that it doesn't need."""

CODEC: Literal["lz4hc"] = "lz4hc"
LEVEL = 5
"""Of blosc: slower to write than plain lz4, but smaller, and quicker to read."""

OPEN_ARRAYS = 256
MOST_DECODERS = 8
NOT_WRITTEN = 2**64 - 1
DISK_FULL = re.compile(r"no space left|disk quota exceeded|ENOSPC|EDQUOT", re.IGNORECASE)
INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


class ChunkError(Parts2WholeError, ValueError):
    """An array that can't be read or written."""


class ChunkSpaceError(ChunkError):
    """No space is left to write an array."""


def write_image(folder: Path, name: str, image: npt.NDArray[Any], spacing_mm: tuple[float, ...]) -> None:
    """Write voxels (channel, z, y, x) as an OME-Zarr 0.5 image; see `write_mask` for labels."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "multiscales": [_multiscale(name, "czyx", spacing_mm)]}
    _write_array(group, folder, image, "czyx")


def write_mask(folder: Path, mask: npt.NDArray[Any], spacing_mm: tuple[float, ...]) -> None:
    """Write labels (z, y, x) below the image in ``folder``, as ``labels/mask``."""
    labels = zarr.open_group(folder, mode="a", zarr_format=3).create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": ["mask"]}
    group = labels.create_group("mask")
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [_multiscale("mask", "zyx", spacing_mm)],
        "image-label": {"source": {"image": "../../"}},
    }
    _write_array(group, folder / "labels" / "mask", mask, "zyx")


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
        self._file = -1
        self._handle: Any = None
        self._remote: Ranges | None = None
        try:
            plain = json.loads((path / "zarr.json").read_bytes())
            self.shape = tuple(int(edge) for edge in plain["shape"])
            self.dtype = np.dtype(plain["data_type"])
            self._chunk = _own_layout(plain)
            if self._chunk is not None:
                self._open_shard()
        except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ChunkError(f"{path} can't be opened: {error}; prepare this case again") from error

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def read(self, box: tuple[slice, ...] = ()) -> npt.NDArray[Any]:
        """The voxels of a box, one slice an axis; axes left out are read in full."""
        full = (*box, *(slice(None),) * (len(self.shape) - len(box)))
        bounds = [part.indices(edge)[:2] for part, edge in zip(full, self.shape, strict=True)]
        if any(part.step not in (None, 1) for part in full):
            raise ChunkError(f"a box has no steps, got {box}")
        start, stop = [low for low, _ in bounds], [max(low, high) for low, high in bounds]
        if self._chunk is None:
            return self._read_foreign(start, stop)
        return self._read_own(self._chunk, start, stop)

    def begin(self, box: tuple[slice, ...] = ()) -> Callable[[], npt.NDArray[Any]]:
        """Begin to read a box elsewhere; what is returned waits for it, and raises what `read` would."""
        if not is_local(self.path):
            return lambda: self.read(box)
        if self._handle is None:
            spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(self.path)}}
            self._handle = tensorstore.open(spec, context=_decoders(), open=True, read=True)

        def finish() -> npt.NDArray[Any]:
            try:
                return np.asarray(reading.result())
            except ValueError as error:
                raise _damaged(self.path, error) from error

        try:
            reading = self._handle.result()[box].read()
        except ValueError as error:
            raise _damaged(self.path, error) from error
        return finish

    def _open_shard(self) -> None:
        assert self._chunk is not None
        grid = tuple(-(-edge // c) for edge, c in zip(self.shape, self._chunk, strict=True))
        self._index: npt.NDArray[np.uint64] = np.full((*grid, 2), NOT_WRITTEN, dtype="<u8")
        shard = self.path.joinpath("c", *("0" for _ in grid))
        if not shard.exists():  # every voxel is zero, so nothing was written
            return
        if is_local(shard):
            self._file = os.open(shard, os.O_RDONLY)
            size = os.fstat(self._file).st_size
        else:
            self._remote = Ranges(shard)
            size = self._remote.size
        if size < self._index.nbytes + 4:
            raise ValueError("its shard is truncated")
        (raw,) = map(bytes, self._fetch([size - self._index.nbytes - 4], [self._index.nbytes + 4]))
        if google_crc32c.value(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise ValueError("the index of its shard is damaged")
        self._index = np.frombuffer(raw[:-4], dtype="<u8").reshape(self._index.shape)

    def _fetch(self, offsets: list[int], lengths: list[int]) -> Iterable[bytes | memoryview]:
        """Ranges of the shard, valid until this thread fetches again: those from afar together."""
        if self._remote is not None:
            return self._remote.read(offsets, lengths)
        return self._fetch_local(offsets, lengths)

    def _fetch_local(self, offsets: list[int], lengths: list[int]) -> list[memoryview]:
        # Neighbours along x follow each other in the file: one call reads them all.  The memory is kept, as
        # fresh memory costs more than the reading.
        memory = _scratch(sum(lengths))
        pieces = []
        begin = end = 0
        last = len(offsets) - 1
        for n, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
            pieces.append(memory[end : end + length])
            end += length
            if n == last or offsets[n + 1] != offset + length:
                if os.preadv(self._file, [memory[begin:end]], offset + length - (end - begin)) != end - begin:
                    raise ValueError("its shard is truncated")
                begin = end
        return pieces

    def _read_own(self, chunk: tuple[int, ...], start: list[int], stop: list[int]) -> npt.NDArray[Any]:
        # Chunks are so small that handing them to threads costs more than decoding them.
        blosc.use_threads = False
        size = [high - low for low, high in zip(start, stop, strict=True)]
        if not all(size):
            return np.zeros(size, dtype=self.dtype)
        decoded = np.empty(chunk, dtype=self.dtype)
        # Along each axis: the first and last chunk touched, where each lands in the result, its part used.
        grid = [slice(low // c, -(-high // c)) for low, high, c in zip(start, stop, chunk, strict=True)]
        axes = [
            [
                (slice(max(n * c, low) - low, min((n + 1) * c, high) - low),
                 slice(max(n * c, low) - n * c, min((n + 1) * c, high) - n * c))
                for n in range(touched.start, touched.stop)
            ]
            for low, high, c, touched in zip(start, stop, chunk, grid, strict=True)
        ]  # fmt: skip
        places = self._index[tuple(grid)].reshape(-1, 2).tolist()
        written = [
            (offset, length, pieces)
            for (offset, length), pieces in zip(places, itertools.product(*axes), strict=True)
            if offset != NOT_WRITTEN
        ]
        complete = len(written) == len(places)
        out = np.empty(size, dtype=self.dtype) if complete else np.zeros(size, dtype=self.dtype)
        if not written:
            return out
        offsets, lengths, boxes = (list(each) for each in zip(*written, strict=True))
        try:
            for raw, pieces in zip(self._fetch(offsets, lengths), boxes, strict=True):
                targets, parts = zip(*pieces, strict=True)
                blosc.decompress(raw, decoded)
                out[targets] = decoded[parts]
        except (RuntimeError, ValueError) as error:
            raise _damaged(self.path, error) from error
        return out

    def _read_foreign(self, start: list[int], stop: list[int]) -> npt.NDArray[Any]:
        if not is_local(self.path):
            raise ChunkError(
                f"{self.path} was written by another program; copy it to a local folder to read it"
            )
        return self.begin(tuple(slice(low, high) for low, high in zip(start, stop, strict=True)))()


def read_together(
    wanted: Sequence[tuple[ChunkedArray, tuple[slice, ...]]],
) -> list[npt.NDArray[Any]]:
    """Boxes of several arrays, read at once."""
    waiting = [array.begin(box) for array, box in wanted]
    return [finish() for finish in waiting]


@functools.cache
def _decoders() -> tensorstore.Context:
    """Threads of this process that read and decode, beside those that train."""
    threads = {"limit": max(1, min(MOST_DECODERS, usable_cores() // 2))}
    return tensorstore.Context({"data_copy_concurrency": threads, "file_io_concurrency": threads})


def _damaged(path: Path, error: Exception) -> ChunkError:
    first = str(error).partition("\n")[0]
    return ChunkError(f"{path} is damaged ({first}); prepare this case again")


class ArrayCache:
    """Arrays opened in this process, for all its threads; the least recently used is closed first."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, path: Path, *, within: Path) -> ChunkedArray:
        """The array in ``path``, which links must not lead out of the folder ``within``."""
        with self._lock:
            array = self._open.pop(path, None)
            if array is None:
                if not path.resolve().is_relative_to(within.resolve()):
                    raise ChunkError(f"{path} is a link that leaves {within}; copy the case into the store")
                array = ChunkedArray(path)
            self._open[path] = array
            while len(self._open) > OPEN_ARRAYS:
                self._open.popitem(last=False)
        return array

    def forget(self) -> None:
        """Close all, because arrays on disk have changed."""
        with self._lock:
            self._open.clear()


_memory = threading.local()
KEPT_BYTES = 2**22
"""Memory that each thread keeps for reading; a crop that needs more gets memory of its own."""


def _scratch(size: int) -> memoryview:
    """``size`` bytes that the next call in this thread may overwrite."""
    if size > KEPT_BYTES:
        return memoryview(bytearray(size))
    if not hasattr(_memory, "bytes"):
        _memory.bytes = memoryview(bytearray(KEPT_BYTES))
    kept: memoryview = _memory.bytes
    return kept[:size]


def _own_layout(plain: dict[str, Any]) -> tuple[int, ...] | None:
    """Size of a chunk if an array is one shard of blosc chunks as `_write_array` makes it, else None."""
    (codec,) = plain["codecs"] if len(plain["codecs"]) == 1 else ({},)
    inner = codec.get("configuration", {})
    if (
        codec.get("name") != "sharding_indexed"
        or [each["name"] for each in inner["codecs"]] != ["bytes", "blosc"]
        or inner["codecs"][0].get("configuration", {}).get("endian", "little") != "little"
        or inner["index_codecs"] != INDEX_CODECS
        or inner.get("index_location", "end") != "end"
        or plain["fill_value"] != 0
        or plain["chunk_key_encoding"].get("configuration", {}).get("separator", "/") != "/"
    ):
        return None
    chunk = tuple(int(edge) for edge in inner["chunk_shape"])
    shard = [int(edge) for edge in plain["chunk_grid"]["configuration"]["chunk_shape"]]
    one_shard = all(-(-e // c) * c == s for e, c, s in zip(plain["shape"], chunk, shard, strict=True))
    return chunk if one_shard else None


def _write_array(group: zarr.Group, folder: Path, array: npt.NDArray[Any], axes: str) -> None:
    chunk = tuple(min(c, s) for c, s in zip((1, *CHUNK)[-array.ndim :], array.shape, strict=True))
    group.create_array(
        "0",
        shape=array.shape,
        dtype=array.dtype,
        chunks=chunk,
        shards=tuple(-(-s // c) * c for c, s in zip(chunk, array.shape, strict=True)),
        compressors=BloscCodec(cname=CODEC, clevel=LEVEL, shuffle="shuffle", typesize=array.dtype.itemsize),
        fill_value=0,
        dimension_names=tuple(axes),
    )
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / "0")}}
    try:
        tensorstore.open(spec, open=True).result().write(array).result()
    except ValueError as error:
        kind = ChunkSpaceError if DISK_FULL.search(str(error)) else ChunkError
        raise kind(f"{folder} can't be written: {str(error).partition(chr(10))[0]}") from error


def _multiscale(name: str, axes: str, spacing_mm: tuple[float, ...]) -> dict[str, Any]:
    space = [{"name": axis, "type": "space", "unit": "millimeter"} for axis in "zyx"]
    channel = [{"name": "c", "type": "channel"}] if "c" in axes else []
    scale = [*(1.0 for _ in channel), *spacing_mm]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    return {"name": name, "axes": [*channel, *space], "datasets": [dataset]}
