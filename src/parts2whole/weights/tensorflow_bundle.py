"""Read a TensorFlow V2 checkpoint (``.index`` and ``.data-*``) without TensorFlow.

The index is a sorted table as LevelDB writes it: blocks of prefix-compressed keys with restart points, each
followed by a compression byte and a masked CRC-32C, found through an index block that a 48-byte footer
points to (https://github.com/google/leveldb/blob/main/doc/table_format.md).  Its values are protocol
buffers that say in which data file, and at which bytes, a tensor lies
(tensorflow/core/protobuf/tensor_bundle.proto).  All is parsed with bounds and checksums; nothing is
executed.
"""

from __future__ import annotations

import dataclasses
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from parts2whole.weights.base import WeightsError

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
LARGEST_INDEX_BYTES = 256 * 2**20
TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "<u1", 6: "<i1", 9: "<i8", 19: "<f2"}
"""Numbers of TensorFlow's types; others, such as strings, are passed over."""

NORMS = {"beta": "bias", "gamma": "weight", "moving_mean": "running_mean", "moving_variance": "running_var"}
"""What TensorFlow calls the tensors of a batch norm, and torch."""


@dataclasses.dataclass
class _Entry:
    """Where a tensor lies: its type, shape, data file, first byte, number of bytes and checksum."""

    kind: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    is_partitioned: bool = False


def find_bundle(path: Path) -> Path | None:
    """The prefix of the checkpoint that ``path`` names (prefix, file or folder), or None."""
    if path.is_dir():
        listing = path / "checkpoint"
        if not listing.is_file():
            return None
        named = re.search(r'^model_checkpoint_path: "(.+)"$', listing.read_text(), flags=re.MULTILINE)
        return path / Path(named.group(1)).name if named else None
    prefix = re.sub(r"\.(index|data-\d{5}-of-\d{5})$", "", str(path))
    return Path(prefix) if Path(prefix + ".index").is_file() else None


def read_bundle(prefix: Path) -> dict[str, Tensor]:
    """Every numeric tensor of a checkpoint, by its variable's name.

    Raises:
        WeightsError: a file is missing, damaged, or of a kind that can't be read.
    """
    index = Path(f"{prefix}.index")
    try:
        table = dict(_read_table(index))
        entries = {key.decode(): _parse_entry(value) for key, value in table.items() if key}
        shards = _parse_header(table.get(b"", b""))
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{index} is damaged: {error}") from error
    tensors = {}
    for name, entry in sorted(entries.items()):
        if entry.is_partitioned:
            raise WeightsError(
                f"{name} is saved in slices; save the checkpoint without partitioned variables"
            )
        if entry.kind in TYPES:
            data = Path(f"{prefix}.data-{entry.shard:05d}-of-{shards:05d}")
            tensors[name] = torch.from_numpy(_read_tensor(data, name, entry).copy())
    return tensors


def _read_tensor(data: Path, name: str, entry: _Entry) -> npt.NDArray[np.generic]:
    kind = np.dtype(TYPES[entry.kind])
    if any(edge < 0 for edge in entry.shape) or math.prod(entry.shape) * kind.itemsize != entry.size:
        raise WeightsError(f"{name} has shape {entry.shape} but {entry.size} bytes: the index is damaged")
    try:
        with data.open("rb") as file:
            file.seek(0, 2)
            if entry.offset + entry.size > file.tell():
                raise WeightsError(f"{data} is truncated: {name} ends at byte {entry.offset + entry.size}")
            file.seek(entry.offset)
            content = file.read(entry.size)
    except FileNotFoundError as error:
        raise WeightsError(f"{data} is missing; a checkpoint is .index and .data files together") from error
    if _masked_crc(content) != entry.checksum:
        raise WeightsError(f"{data} is damaged: the checksum of {name} differs")
    return np.frombuffer(content, kind).reshape(entry.shape)


def _read_table(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a sorted table."""
    if path.stat().st_size > LARGEST_INDEX_BYTES:
        raise WeightsError(f"{path} has {path.stat().st_size} bytes, too many for the index of a checkpoint")
    content = path.read_bytes()
    if len(content) < FOOTER_BYTES or struct.unpack("<Q", content[-8:])[0] != MAGIC:
        raise WeightsError(f"{path} is truncated, or not the index of a TensorFlow V2 checkpoint")
    footer = content[-FOOTER_BYTES:]
    _, at = _handle(footer, 0)
    (offset, size), _ = _handle(footer, at)
    for _, value in _read_block(content, offset, size):
        (first, length), _ = _handle(value, 0)
        yield from _read_block(content, first, length)


def _read_block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block, trailer = content[offset : offset + size], content[offset + size : offset + size + 5]
    if len(block) != size or len(trailer) != 5:
        raise WeightsError("the index is truncated")
    if struct.unpack("<I", trailer[1:])[0] != _masked_crc(block + trailer[:1]):
        raise WeightsError("the index is damaged: a checksum differs")
    if trailer[0] != 0:
        raise WeightsError("the index is compressed, which TensorFlow's own writer doesn't do; save it again")
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + fresh + length > end:
            raise WeightsError("the index is damaged: an entry leaves its block")
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + length]
        at += fresh + length


def _parse_header(message: bytes) -> int:
    """Number of data files."""
    fields = dict(_fields(message))
    if fields.get(2, 0) != 0:
        raise WeightsError("the checkpoint is big-endian, which can't be read here")
    shards = fields.get(1, 1)
    return shards if isinstance(shards, int) else 1


def _parse_entry(message: bytes) -> _Entry:
    entry = _Entry()
    for field, value in _fields(message):
        if field == 2 and isinstance(value, bytes):
            edges = [dict(_fields(d)).get(1, 0) for f, d in _fields(value) if f == 2 and isinstance(d, bytes)]
            entry.shape = tuple(edge for edge in edges if isinstance(edge, int))
        elif field == 7:
            entry.is_partitioned = True
        elif isinstance(value, int):
            name = {1: "kind", 3: "shard", 4: "offset", 5: "size", 6: "checksum"}.get(field)
            if name:
                setattr(entry, name, value)
    return entry


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol buffer's fields."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield field, value
        elif wire == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise WeightsError("the index is damaged: a field leaves its message")
            yield field, message[at : at + length]
            at += length
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
            yield field, int.from_bytes(message[at : at + length], "little")
            at += length
        else:
            raise WeightsError(f"the index is damaged: wire type {wire}")


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    """First byte and size of a block, and where the next handle begins."""
    offset, at = _varint(content, at)
    size, at = _varint(content, at)
    return (offset, size), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WeightsError("the index is damaged: a number doesn't end")


def _masked_crc(content: bytes) -> int:
    """CRC-32C, rotated and shifted as LevelDB and TensorFlow store it."""
    crc = int(google_crc32c.value(content))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
