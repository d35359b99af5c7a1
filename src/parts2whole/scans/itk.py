"""MHA, MHD and NRRD through SimpleITK, detached data files included."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from parts2whole.scans.checks import check_size, geometry
from parts2whole.scans.source import Raw, ReadError

_sitk: Any = SimpleITK  # without annotations
SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
DATA_FILE = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)

LONGEST_FIELD = 500
"""Bytes in a field of an NRRD header, free text excepted; sizes and directions of four axes take a fifth."""


def read_itk(path: Path) -> Raw:
    """Read every volume of a file; vector components count as volumes.

    Raises:
        ReadError: broken, truncated, in colour, or without a place in space.
    """
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        _check_lines(path)
    reader = _sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ReadError(f"{path.name} can't be read: {_reason(error)}") from error
    size = reader.GetSize()
    if len(size) not in (3, 4):
        raise ReadError(f"{path.name}: expected a 3-D or 4-D scan, the header says {size}")
    if min(size) < 1:
        raise ReadError(f"{path.name}: the header says {size} voxels")
    kind = _sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
    parts = reader.GetNumberOfComponents()
    if "complex" in kind or (parts in (3, 4) and "8-bit unsigned" in kind):
        raise ReadError(f"{path.name}: colour or complex voxels ({kind}) are not a scan")
    bits = int((re.search(r"(\d+)-bit", kind) or ["", "8"])[1])
    on_disk = sum(file.stat().st_size for file in data_files(path))
    check_size(path.name, (*size, parts), bits // 8, start=0, size=on_disk, packed=_is_packed(path))
    try:
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise ReadError(f"{path.name}: truncated or broken: {_reason(error)}") from error
    array = _sitk.GetArrayFromImage(image)
    if parts > 1:
        array = np.moveaxis(array, -1, 0)
    directions = np.reshape(image.GetDirection(), (len(size), len(size)))[:3, :3]
    columns = (directions * np.array(image.GetSpacing()[:3]))[:, ::-1]
    spacing, origin, direction = geometry(columns, np.array(image.GetOrigin()[:3]), path.name)
    return Raw(array.reshape(-1, *size[2::-1]), spacing, origin, direction)


def data_files(path: Path) -> tuple[Path, ...]:
    """The file itself and the detached data it names.

    Raises:
        ReadError: the data file is missing, or outside the header's folder.
    """
    header = _header(path)
    found = DATA_FILE.search(header)
    name = found[1].decode(errors="surrogateescape") if found else "LOCAL"
    if name.upper().startswith(("LOCAL", "LIST")) or "%" in name:
        return (path,)
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ReadError(
            f"{path.name}: its data file {name!r} is outside its folder; put it beside the header"
        )
    data = path.parent / name
    if not data.is_file():
        raise ReadError(f"{path.name}: its data file {name!r} is missing")
    return path, data


def _check_lines(path: Path) -> None:
    """Refuse lines that are no NRRD header's: the library that reads them dies of some, with the process."""
    magic, *lines = _header(path).split(b"\n")
    if not magic.startswith(b"NRRD000"):
        raise ReadError(f"{path.name} can't be read: it doesn't begin as NRRD does")
    for number, line in enumerate(lines, 2):
        text = line.rstrip(b"\r")
        if not text or re.match(rb"data ?file:\s*LIST", text, re.IGNORECASE):
            return
        free = text.startswith(b"#") or b":=" in text
        if not free and (b":" not in text or len(text) > LONGEST_FIELD):
            raise ReadError(f"{path.name} can't be read: line {number} of its header is no field")


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise ReadError(f"{path.name} can't be read: {error.strerror}") from error


def _is_packed(path: Path) -> bool:
    """Whether voxels are compressed, or spread over files that aren't counted here."""
    text = _header(path).lower()
    return bool(
        re.search(rb"compresseddata\s*=\s*true|encoding:\s*(gzip|gz|bzip2|bz2|txt|text|ascii)", text)
    ) or (data_files(path) == (path,) and path.suffix.lower() in (".mhd", ".nhdr"))


def _reason(error: Exception) -> str:
    """The line of an ITK error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useless = ("sitk::ERROR", "Exception thrown", "Reason: No such file", "Reason: Success", "Read failed")
    telling = [line for line in lines if not line.startswith(useless) and "ImageFileReader" not in line]
    return re.sub(r"^.*?(\(0x[0-9a-f]+\):\s*|sitk::ERROR:\s*)", "", (telling or lines or ["unknown"])[-1])
