"""Stores, codecs and chunks to read wholes from: ours, tensorstore, zarr-python, blosc2, uncompressed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorstore
import zarr
from zarr.codecs import BloscCodec

from parts2whole.scans.volume import Box
from parts2whole.store import chunks

Read = Callable[[Box], npt.NDArray[Any]]
SHAPES = ((8, 32, 32), (16, 16, 32), (32, 32, 32), (16, 64, 64), (32, 64, 64))
CODECS = (("lz4", 5, "shuffle"), ("lz4", 5, "bitshuffle"), ("lz4hc", 9, "shuffle"), ("zstd", 1, "shuffle"))


def codec_readers(
    volume: npt.NDArray[np.int16], folder: Path
) -> tuple[dict[str, Read], dict[str, int], list[str]]:
    """Readers by name, bytes on disk by name, and what couldn't be measured."""
    readers: dict[str, Read] = {}
    sizes: dict[str, int] = {}
    missing: list[str] = []

    def enter(name: str, path: Path, read: Read) -> None:
        readers[name] = read
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        sizes[name] = sum(file.stat().st_size for file in files)

    own = folder / "own"
    _write(own, volume, chunks.CHUNK, (chunks.CODEC, chunks.LEVEL, "shuffle"))
    said = f"{chunks.CODEC} {chunks.LEVEL}, {_text(chunks.CHUNK)}"
    enter(f"parts2whole, zarr 3 sharded, {said}", own, chunks.ChunkedArray(own).read)
    for number, codec in enumerate(CODECS):
        path = folder / f"codec{number}"
        _write(path, volume, chunks.CHUNK, codec)
        text = f"{codec[0]} {codec[1]}{' ' + codec[2] if codec[2] != 'shuffle' else ''}"
        enter(
            f"parts2whole, zarr 3 sharded, {text}, {_text(chunks.CHUNK)}",
            path,
            chunks.ChunkedArray(path).read,
        )
    for number, shape in enumerate(SHAPES):
        path = folder / f"shape{number}"
        _write(path, volume, shape, (chunks.CODEC, chunks.LEVEL, "shuffle"))
        name = f"parts2whole, zarr 3 sharded, {chunks.CODEC} {chunks.LEVEL}, {_text(shape)}"
        enter(name, path, chunks.ChunkedArray(path).read)
    opened = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(own)}, "recheck_cached_data": "open"}
    ).result()
    enter(f"tensorstore, the same array, {said}", own, lambda box: opened[box.slices].read().result())
    array = zarr.open_array(own, mode="r")
    enter(f"zarr-python, the same array, {said}", own, lambda box: np.asarray(array[box.slices]))
    plain = folder / "plain.npy"
    np.save(plain, volume)
    mapped = np.load(plain, mmap_mode="r")
    enter("uncompressed, memory-mapped", plain, lambda box: np.array(mapped[box.slices]))
    if importlib.util.find_spec("blosc2") is None:
        missing.append("blosc2 was not measured: it is not installed.")
    else:
        import blosc2

        for shape in (chunks.CHUNK, (32, 64, 64)):
            path = folder / f"blosc{shape[0]}.b2nd"
            blosc2.asarray(
                volume, chunks=(64, 128, 128), blocks=shape, urlpath=str(path), mode="w",
                cparams={"codec": blosc2.Codec.LZ4, "clevel": 5}, dparams={"nthreads": 1},
            )  # fmt: skip
            packed = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
            enter(
                f"blosc2, lz4 5, blocks {_text(shape)}", path, lambda box, packed=packed: packed[box.slices]
            )
    return readers, sizes, missing


def _write(path: Path, volume: npt.NDArray[np.int16], chunk: tuple[int, ...], codec: tuple[Any, ...]) -> None:
    name, level, shuffle = codec
    zarr.create_array(
        path,
        shape=volume.shape,
        dtype=volume.dtype,
        chunks=chunk,
        shards=tuple(-(-s // c) * c for c, s in zip(chunk, volume.shape, strict=True)),
        compressors=BloscCodec(cname=name, clevel=level, shuffle=shuffle, typesize=2),
        fill_value=0,
    )
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    tensorstore.open(spec, open=True).result().write(volume).result()


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
