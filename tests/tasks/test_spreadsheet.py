"""The same table in every dialect that spreadsheets write."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from parts2whole.tasks.labelled import TaskError
from parts2whole.tasks.spreadsheet import read_rows, to_number

ROWS = [("Ärmel/c0.nii", "benign"), ("c1.nii", "malignant")]
PLAIN = "path,label\n" + "".join(f"{path},{label}\n" for path, label in ROWS)


def cells(path: Path) -> list[tuple[str, str]]:
    return [(row.cells["path"], row.cells["label"]) for row in read_rows(path, ("path", "label"))]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        codecs.BOM_UTF8 + PLAIN.encode(),
        codecs.BOM_UTF16_LE + PLAIN.replace(",", "\t").encode("utf-16-le"),  # "Unicode text"
        codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
        PLAIN.encode("cp1252"),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        PLAIN.replace(",", " | ").encode(),
        b"sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n").encode(),
        PLAIN.replace(",", ", ").encode(),
        PLAIN.replace(",", " ,\u00a0").replace("\n", " \n").encode(),
        PLAIN.replace("benign", "benign\u200b").encode(),
        PLAIN.replace("path,label", "Path, LABEL ").encode(),
        (PLAIN + ",\n\n , \n").encode(),
        PLAIN.replace("path,label", 'path,note,"label"').replace("nii,", 'nii,"a, b",').encode(),
        PLAIN.replace("\n", ",,\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.rstrip("\n").encode(),
    ],
)
def test_dialects_say_the_same(tmp_path, content):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    assert cells(path) == ROWS


def test_lines_are_those_of_the_file(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('sep=;\npath;label\n\n"c\n0";a\nc1;b\n')
    assert [row.line for row in read_rows(path, ("path", "label"))] == [5, 6]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("file,class\na,b\n", "path, label is missing, it has file, class"),
        ("path,label,Label\na,b,c\n", "the column label twice"),
        ("path,label\na,b,c\n", "line 2: 3 cells under 2 columns"),
        ("path,label\n\na,b\nc,d,e\n", "line 4: 3 cells"),
    ],
)
def test_what_is_no_such_table_is_named(tmp_path, text, reason):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(TaskError, match=reason):
        read_rows(path, ("path", "label"))
    with pytest.raises(TaskError, match="is missing"):
        read_rows(tmp_path / "other.csv", ("path",))


def test_optional_columns_are_read_where_they_are(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("Patient;path\nA;c0\n;c1\n")
    rows = read_rows(path, ("path",), optional=("patient", "z_min"))
    assert [row.cells for row in rows] == [{"path": "c0", "patient": "A"}, {"path": "c1", "patient": ""}]


@pytest.mark.parametrize(("text", "number"), [("-12,5", -12.5), ("1.25", 1.25), ("3", 3.0), ("1e-3", 0.001)])
def test_numbers_have_a_point_or_a_comma(text, number):
    assert to_number(text) == number


@pytest.mark.parametrize("text", ["1.234,5", "1,2,3", "", "left"])
def test_what_could_be_two_numbers_is_none(text):
    with pytest.raises(ValueError, match="could not convert"):
        to_number(text)
