"""Places of a list go to the scan that they name, and to no other of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from parts2whole.scans.case import SourceCase
from parts2whole.tasks.labelled import TaskError
from parts2whole.tasks.places import check_names

PLACE = [(1.0, 2.0, 3.0)]
TWO = [SourceCase(f"{patient}__ct", (Path(patient, "ct.nii.gz"),)) for patient in ("p1", "p2")]


def test_a_name_of_several_files_is_refused():
    with pytest.raises(TaskError, match=r"ct in the list of points names several scans \(p1__ct, p2__ct\)"):
        check_names({"ct": PLACE}, TWO)


def test_case_ids_and_names_of_one_file_are_fine():
    check_names({"p1__ct": PLACE, "p2__ct": PLACE}, TWO)
    check_names({"ct": PLACE}, TWO[:1])
    check_names({"elsewhere": PLACE}, TWO)


def test_a_case_id_that_is_the_file_name_of_another_is_refused():
    cases = [SourceCase("ct", (Path("p1", "ct.nii.gz"),)), SourceCase("ct-1a2b", (Path("p2", "ct.nii.gz"),))]
    with pytest.raises(TaskError, match=r"\(ct, ct-1a2b\)"):
        check_names({"ct": PLACE}, cases)
