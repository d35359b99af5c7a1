"""Voxels of DICOM slices: cut from their file, decoded where they are compressed, and rescaled.

GDCM decodes nothing but JPEG, JPEG-LS and JPEG 2000, because it inverts MONOCHROME1, which says how an image
is shown and not what it measures, fills up with zeros what a file lacks, and can't decode some images in RLE.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from parts2whole.errors import first_line
from parts2whole.scans.checks import geometry
from parts2whole.scans.dicom_slices import Slice
from parts2whole.scans.source import Raw, ReadError

_sitk: Any = SimpleITK  # without annotations
BROKEN = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    NotImplementedError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)
"""What pydicom raises at files that are broken in one way or another."""

PIXEL_FIELDS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
PIXEL_TAGS: list[Any] = [
    *PIXEL_FIELDS,
    *("NumberOfFrames", "PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
]
UNCOMPRESSED = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
EXACT = 2**20
"""Whole slopes and intercepts below keep voxels whole numbers."""


def read_slices(slices: Sequence[Slice]) -> Raw:
    """A volume from slices in order, each with its own slope and intercept.

    The step between slices is that from the first to the last, so that a stack that leans stays as it is.

    Raises:
        ReadError: voxels that are missing, cut short or can't be decoded.
    """
    first, last = slices[0], slices[-1]
    step = (last.position - first.position) / max(1, len(slices) - 1)
    rows_mm, columns_mm = first.pixel_spacing_mm
    columns = np.column_stack([step, first.orientation[3:] * rows_mm, first.orientation[:3] * columns_mm])
    spacing, origin, direction = geometry(columns, first.position, "the series")
    voxels = Voxels()
    planes = [voxels.read(each) for each in slices]
    return Raw(np.stack(planes)[None], spacing, origin, direction, first.modality)


class Voxels:
    """Reads slices.  The last two files stay in memory: frames come one after another, or are compared."""

    def __init__(self) -> None:
        self._images: dict[Path, Any] = {}
        self._known: dict[tuple[Path, int | None], bytes | None] = {}

    def read(self, each: Slice) -> npt.NDArray[Any]:
        """The rescaled voxels of a slice (row, column): integers where slope and intercept are.

        Raises:
            ReadError: they are missing, cut short or can't be decoded.
        """
        try:
            if each.path not in self._images:
                if len(self._images) == 2:
                    del self._images[next(iter(self._images))]
                self._images[each.path] = pydicom.dcmread(each.path, specific_tags=PIXEL_TAGS, force=True)
            stored = _stored(self._images[each.path], each.frame or 0, each.path.name)
        except BROKEN as error:
            if isinstance(error, ReadError):
                raise
            what = "truncated" if isinstance(error, EOFError) else "broken"
            raise ReadError(f"{each.path.name}: {what}: {first_line(error)}") from error
        if stored.shape != each.size:
            raise ReadError(f"{each.path.name}: expected {each.size} voxels, got {stored.shape}")
        return _rescaled(stored, 1.0 if each.slope is None else each.slope, each.intercept or 0.0)

    def same(self, one: Slice, other: Slice) -> bool:
        """Whether two slices have equal voxels, however they are stored; False where one can't be read."""
        return (found := self.digest(one)) is not None and found == self.digest(other)

    def digest(self, each: Slice) -> bytes | None:
        """A hash of the rescaled voxels, None where they can't be read."""
        key = each.path, each.frame
        if key not in self._known:
            try:
                plane = np.ascontiguousarray(self.read(each), dtype="<f8") + 0.0
                self._known[key] = hashlib.blake2b(plane.data, digest_size=16).digest()
            except ReadError:
                self._known[key] = None
        return self._known[key]


def _stored(image: Any, frame: int, name: str) -> npt.NDArray[Any]:
    """The voxels of one frame as they are stored."""
    if "PixelData" not in image:
        raise ReadError(f"{name}: it has no voxels, or is truncated before their end")
    syntax = image.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian
    if syntax not in UNCOMPRESSED:
        return _decoded(image, frame, name, syntax)
    bits, order = int(image.BitsAllocated), ">" if image.original_encoding[1] is False else "<"
    if bits not in (8, 16, 32) or (bits == 8 and order == ">"):
        raise ReadError(f"{name}: voxels of {bits} bits can't be read" + " in big-endian" * (order == ">"))
    size = int(image.Rows) * int(image.Columns) * bits // 8
    data = image.PixelData[frame * size : (frame + 1) * size]
    if len(data) < size:
        raise ReadError(f"{name}: truncated: image {frame + 1} lacks {size - len(data):,} of {size:,} bytes")
    array = np.frombuffer(data, f"{order}u{bits // 8}").reshape(int(image.Rows), int(image.Columns))
    return _significant(array, image, name)


def _significant(array: npt.NDArray[Any], image: Any, name: str) -> npt.NDArray[Any]:
    """Stored values without the bits beside them, which may hold overlays, and with their sign."""
    bits = 8 * array.dtype.itemsize
    stored = int(image.get("BitsStored") or bits)
    high = int(image.get("HighBit") or stored - 1)
    if not stored - 1 <= high < bits:
        raise ReadError(f"{name}: {stored} bits up to bit {high} don't fit {bits} bits")
    values = array.astype(np.int64) >> (high + 1 - stored) & ((1 << stored) - 1)
    if image.get("PixelRepresentation"):
        sign = 1 << (stored - 1)
        values = (values ^ sign) - sign
    return values


def _decoded(image: Any, frame: int, name: str, syntax: UID) -> npt.NDArray[Any]:
    """One compressed frame, decoded as a file of its own."""
    offsets = None
    if "ExtendedOffsetTable" in image:
        offsets = (image.ExtendedOffsetTable, image.ExtendedOffsetTableLengths)
    frames = int(image.get("NumberOfFrames") or 1)
    data = get_frame(image.PixelData, frame, number_of_frames=frames, extended_offsets=offsets)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = syntax
    alone = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    alone.SOPClassUID, alone.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    alone.SamplesPerPixel, alone.PhotometricInterpretation = 1, "MONOCHROME2"
    for field in PIXEL_FIELDS:
        setattr(alone, field, image.get(field))
    alone.PixelData = encapsulate([data])
    alone["PixelData"].VR, alone["PixelData"].is_undefined_length = "OB", True
    try:
        if syntax == RLELossless:
            words, _ = get_decoder(syntax).as_array(alone, raw=True)
            return _significant(words.view(f"u{words.dtype.itemsize}"), image, name)
        return _decoded_by_gdcm(alone)
    except (RuntimeError, MemoryError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].removeprefix("sitk::ERROR: ") if lines else first_line(error)
        raise ReadError(f"{name}: its compressed voxels can't be decoded: {reason}") from error


def _decoded_by_gdcm(image: FileDataset) -> npt.NDArray[Any]:
    """An image of one frame, which GDCM reads from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.dcm"
        image.save_as(path, enforce_file_format=True)
        reader = _sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        decoded = _sitk.GetArrayFromImage(reader.Execute())
    plane: npt.NDArray[Any] = decoded.reshape(decoded.shape[-2:])
    return plane


def _rescaled(stored: npt.NDArray[Any], slope: float, intercept: float) -> npt.NDArray[Any]:
    whole = slope.is_integer() and intercept.is_integer() and max(abs(slope), abs(intercept)) < EXACT
    if not whole:
        with np.errstate(over="ignore"):
            return (stored * slope + intercept).astype(np.float32)
    values = stored.astype(np.int64) * int(slope) + int(intercept)
    limits = np.iinfo(np.int16)
    fits = limits.min <= int(values.min()) and int(values.max()) <= limits.max
    return values.astype(np.int16) if fits else values
