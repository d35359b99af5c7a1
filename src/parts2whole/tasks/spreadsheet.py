"""Tables of labels as people and spreadsheets write them: CSV in any of its dialects.

Spreadsheets put a byte-order mark before the first column, semicolons between cells, ``sep=;`` on top,
empty lines at the end and blanks around words.  None of it means anything, so none of it reaches a task.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from parts2whole.tasks.labelled import TaskError

DELIMITERS = ",;\t|"
INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
"""Byte-order marks and joiners that editors leave in cells; `str.strip` takes them for letters."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        line: its number in the file, from 1.
        cells: text without blanks around it, by column; empty where the line has no such cell.
    """

    line: int
    cells: dict[str, str]


def read_rows(path: Path, columns: Sequence[str], *, optional: Sequence[str] = ()) -> list[Row]:
    """Read the lines of a CSV file that aren't empty.

    Args:
        path: the file: UTF-8, UTF-16 with its mark, or else Windows-1252.
        columns: what it must have; upper and lower case are alike.
        optional: what it may have; other columns are left out.

    Raises:
        TaskError: the file or a column is missing, a column is there twice, or a line has too many cells.
    """
    if not path.is_file():
        raise TaskError(f"{path} is missing")
    lines = io.StringIO(_decode(path.read_bytes()), newline="").readlines()
    above = 1 if lines and lines[0].lower().startswith("sep=") else 0
    wanted = {name.lower() for name in columns}
    first = {each: _heading(_parse(path, lines[above : above + 1], each)) for each in DELIMITERS}
    delimiter = max(
        DELIMITERS, key=lambda each: len(wanted & set(first[each]))
    )  # the first of equals: a comma
    table, heading = _parse(path, lines[above:], delimiter), first[delimiter]
    missing = [name for name in columns if name.lower() not in heading]
    if missing:
        found = f"it has {', '.join(filter(None, heading))}" if any(heading) else "it is empty"
        raise TaskError(
            f"{path} needs the columns {' and '.join(columns)}; {', '.join(missing)} is missing, {found}"
        )
    places: dict[str, int] = {}
    for name in (*columns, *optional):
        if heading.count(name.lower()) > 1:
            raise TaskError(f"{path} has the column {name} twice")
        if name.lower() in heading:
            places[name] = heading.index(name.lower())
    rows = []
    for line, cells in table[1:]:
        if not any(cells):
            continue
        if any(cells[len(heading) :]):
            raise TaskError(
                f"{path}, line {line + above}: {len(cells)} cells under {len(heading)} columns; put quotes "
                "around a cell that holds the delimiter"
            )
        found_cells = {name: cells[i] if i < len(cells) else "" for name, i in places.items()}
        rows.append(Row(line + above, found_cells))
    return rows


def to_number(text: str) -> float:
    """A number as people write it, with a point or a comma.

    Raises:
        ValueError: it is none.
    """
    return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)


def _decode(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _parse(path: Path, lines: list[str], delimiter: str) -> list[tuple[int, list[str]]]:
    """Number of the last line, and the cells, of every row; the first row is the heading."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        return [(reader.line_num, [_clean(cell) for cell in row]) for row in reader]
    except csv.Error as error:
        raise TaskError(f"{path}, line {reader.line_num}: {error}") from error


def _heading(table: list[tuple[int, list[str]]]) -> list[str]:
    return [cell.lower() for cell in table[0][1]] if table else []


def _clean(cell: str) -> str:
    return cell.strip().strip(INVISIBLE).strip()
