"""MHA, MHD and NRRD through SimpleITK, detached data files included."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from parts2whole.scans.checks import check_size, geometry
from parts2whole.scans.source import Raw, ReadError

_sitk: Any = SimpleITK  # without annotations
NRRD_SUFFIXES = (".nrrd", ".nhdr")
SUFFIXES = (".mha", ".mhd", *NRRD_SUFFIXES)
HEADER_BYTES = 1 << 22
PATTERN = re.compile(r"([^%]*%0?\d?d[^%\s]*)\s+(\d+)\s+(\d+)\s+(-?\d+)(?:\s+\d+)?")
"""A name with one number in it, as C prints it, and the range of that number."""

UNITS_MM = {
    **dict.fromkeys(("mm", "millimeter", "millimetre", "millimeters", "millimetres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre", "centimeters", "centimetres"), 10.0),
    **dict.fromkeys(("m", "meter", "metre", "meters", "metres"), 1000.0),
    **dict.fromkeys(("um", "\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m"), 1e-3),
    **dict.fromkeys(("micron", "microns", "micrometer", "micrometre", "micrometers", "micrometres"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers", "nanometres"), 1e-6),
    **dict.fromkeys(("in", "inch", "inches"), 25.4),
}

SPACES = frozenset(
    ("lps", "left-posterior-superior", "ras", "right-anterior-superior", "las", "left-anterior-superior")
)
"""Spaces of NRRD that are fixed to the patient; those with time end in ``t`` or ``-time``."""

LONGEST_FIELD = 500
"""Bytes in a field of an NRRD header, free text excepted; sizes and directions of four axes take a fifth."""


def read_itk(path: Path) -> Raw:
    """Read every volume of a file; vector components count as volumes.

    Raises:
        ReadError: broken, truncated, in colour, or without a place in space.
    """
    is_nrrd = path.suffix.lower() in NRRD_SUFFIXES
    (_check_lines if is_nrrd else _check_dimensions)(path)
    header, files = _read_header(path), data_files(path)
    reader = _sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if is_nrrd else "MetaImageIO")  # it would pass over .NRRD
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
    packed = header.is_packed()
    if header.names_parts():
        whole = math.prod(size) * parts * bits // 8
        _check_parts(header, files[1:], size[-1], None if packed else whole)
    on_disk = sum(file.stat().st_size for file in files)
    check_size(path.name, (*size, parts), bits // 8, start=0, size=on_disk, packed=packed)
    try:
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise ReadError(f"{path.name}: truncated or broken: {_reason(error)}") from error
    array = _sitk.GetArrayFromImage(image)
    if parts > 1:
        array = np.moveaxis(array, -1, 0)
    directions = np.reshape(image.GetDirection(), (len(size), len(size)))[:3, :3]
    columns = (directions * np.array(image.GetSpacing()[:3]))[:, ::-1]
    mm, notes = header.unit_mm()
    notes = (*notes, *(header.place_notes() if is_nrrd else ()))
    spacing, origin, direction = geometry(columns * mm, np.array(image.GetOrigin()[:3]) * mm, path.name)
    return Raw(array.reshape(-1, *size[2::-1]), spacing, origin, direction, notes=notes)


def data_files(path: Path) -> tuple[Path, ...]:
    """The file itself and the detached data it names: one file, a list of them, or a numbered pattern.

    Raises:
        ReadError: a data file is missing, or outside the header's folder.
    """
    files = [path]
    for name in _read_header(path).data_names():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ReadError(
                f"{path.name}: its data file {name!r} is outside its folder; put it beside the header"
            )
        try:
            is_there = (path.parent / name).is_file()
        except (OSError, ValueError):  # no name for a file
            is_there = False
        if not is_there:
            raise ReadError(f"{path.name}: its data file {name[:80]!r} is missing")
        files.append(path.parent / name)
    return tuple(files)


@dataclasses.dataclass(frozen=True)
class _Header:
    """The text of a header.

    Attributes:
        name: of its file.
        fields: lower-case names without blanks (``elementdatafile``, ``spaceunits``) and their values.
        after: the lines after the field that names data.
    """

    name: str
    fields: dict[str, str]
    after: tuple[str, ...]

    @property
    def data(self) -> str:
        """What it says of its data."""
        return self.fields.get("elementdatafile", self.fields.get("datafile", "LOCAL"))

    def place_notes(self) -> tuple[str, ...]:
        """What to know of the axes of an NRRD whose space isn't fixed to the patient."""
        space = self.fields.get("space", "").lower()
        if space.removesuffix("-time").removesuffix("t") in SPACES:
            return ()
        said = f"its space, {space[:60]!r}, says nothing of the patient" if space else "it names no space"
        return (f"{said}: axes are taken as left, posterior, superior",)

    def names_parts(self) -> bool:
        """Whether its data lies in many files."""
        return self.data.upper().startswith("LIST") or "%" in self.data

    def data_names(self) -> Iterator[str]:
        """Names of the detached files, none where the data follows the header.

        Raises:
            ReadError: a pattern that names no range.
        """
        if self.data.upper().startswith("LIST"):
            yield from self.after
        elif "%" in self.data:
            found = PATTERN.fullmatch(self.data)
            if not found or int(found[4]) == 0:
                raise ReadError(
                    f"{self.name}: its data files {self.data!r} aren't one number and its range, such as "
                    "'slice%03d.raw 0 99 1'"
                )
            first, last, step = (int(word) for word in found.groups()[1:])
            yield from (found[1] % number for number in range(first, last + (1 if step > 0 else -1), step))
        elif self.data.upper() != "LOCAL":
            yield self.data

    def is_packed(self) -> bool:
        """Whether voxels take another number of bytes than they do in memory."""
        return (
            self.fields.get("compresseddata", "").lower() == "true"
            or self.fields.get("binarydata", "").lower() == "false"
            or self.fields.get("encoding", "raw").lower() != "raw"
        )

    def unit_mm(self) -> tuple[float, tuple[str, ...]]:
        """The unit of length in mm, and notes on it.  Without one it is mm.

        Raises:
            ReadError: axes have different units.
        """
        said = self.fields.get("spaceunits") or self.fields.get("units") or ""
        quoted = re.findall(r'"([^"]*)"', said)
        words = [word.strip().lower() for word in (*quoted, self.fields.get("distanceunits", ""))]
        found = {UNITS_MM[word] for word in words if word in UNITS_MM}
        if len(found) > 1:
            raise ReadError(f"{self.name}: its axes have different units of length ({said})")
        unknown = sorted({word for word in words if word not in ("", "?", *UNITS_MM)})
        if found or not unknown:
            return (found.pop() if found else 1.0), ()
        return 1.0, (f"its unit of length, {unknown[0]!r}, is unknown: taken for mm",)


def _check_parts(header: _Header, files: Sequence[Path], slices: int, needed: int | None) -> None:
    """Refuse data in many files that the library would read in part: it says nothing of what it lacks."""
    if "elementdatafile" in header.fields:
        words = header.data.split()
        slabs = len(words) == 2 and words[1].rstrip("dD") != str(int(header.fields.get("ndims", "3")) - 1)
        if slabs or len(files) != slices:
            raise ReadError(
                f"{header.name} names {len(files)} data files for {slices} slices; one a slice is expected"
            )
        numbers = PATTERN.fullmatch(header.data)
        if numbers and int(numbers[4]) < 0:
            raise ReadError(f"{header.name}: its data files count down ({header.data!r}); make it a list")
    for file in files:
        if needed is not None and file.stat().st_size < needed // len(files):
            raise ReadError(
                f"{header.name}: its data file {file.name!r} is truncated: {needed // len(files):,} bytes "
                f"were expected, it has {file.stat().st_size:,}"
            )


def _check_dimensions(path: Path) -> None:
    """Refuse a number of dimensions that is none: the library that reads MetaImages dies of -1."""
    for said in re.findall(rb"^\s*NDims\s*[=:]?\s*(.*?)\s*$", _start(path), re.IGNORECASE | re.MULTILINE):
        if not re.fullmatch(rb"[1-9]", said):
            raise ReadError(f"{path.name} can't be read: its number of dimensions, {said[:30]!r}, is none")


def _check_lines(path: Path) -> None:
    """Refuse lines that are no NRRD header's: the library that reads them dies of some, with the process."""
    magic, *lines = _start(path).split(b"\n")
    if not magic.startswith(b"NRRD000"):
        raise ReadError(f"{path.name} can't be read: it doesn't begin as NRRD does")
    for number, line in enumerate(lines, 2):
        text = line.rstrip(b"\r")
        if not text or re.match(rb"data ?file:\s*LIST", text, re.IGNORECASE):
            return
        free = text.startswith(b"#") or b":=" in text
        if not free and (b":" not in text or len(text) > LONGEST_FIELD):
            raise ReadError(f"{path.name} can't be read: line {number} of its header is no field")


def _read_header(path: Path) -> _Header:
    """Fields up to the one that names the data, which is a MetaImage's last, or to the end of a NRRD's."""
    separator, last = (":", "datafile") if path.suffix.lower() in NRRD_SUFFIXES else ("=", "elementdatafile")
    fields: dict[str, str] = {}
    lines = _start(path).decode(errors="surrogateescape").split("\n")
    after: list[str] = []
    for number, line in enumerate(lines, 1):
        key, found, value = line.partition(separator)
        name = key.replace(" ", "").lower()
        if found and not line.startswith("#"):
            fields[name] = value.strip()
        if name == last and value.strip().upper().startswith("LIST"):
            after = [line.strip() for line in lines[number:] if line.strip()]
        if after or name == "elementdatafile" or not line.strip():
            break
    return _Header(path.name, fields, tuple(after))


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEADER_BYTES if path.suffix.lower() in (".mhd", ".nhdr") else 1 << 16)
    except OSError as error:
        raise ReadError(f"{path.name} can't be read: {error.strerror}") from error


def _reason(error: Exception) -> str:
    """The line of an ITK error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useless = ("sitk::ERROR", "Exception thrown", "Reason: No such file", "Reason: Success", "Read failed")
    telling = [line for line in lines if not line.startswith(useless) and "ImageFileReader" not in line]
    return re.sub(r"^.*?(\(0x[0-9a-f]+\):\s*|sitk::ERROR:\s*)", "", (telling or lines or ["unknown"])[-1])
