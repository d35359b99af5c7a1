"""Inputs that go wrong in many tools, kind by kind: are they right here, or refused with a true reason?

    python benchmarks/kinds.py --write

Every kind names the tests that make inputs of it and hold what comes out against values derived another way.
The tests are run, counted, and entered in docs/reliability.md; one that fails or is skipped shows there.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from findings import Finding, keep, show

HERE = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What goes wrong elsewhere, what happens here, and the tests of it: ``file`` or ``file::test``."""

    inputs: str
    here: str
    tests: Sequence[str]


SCANS, TASKS, VERBS = "tests/scans", "tests/tasks", "tests/verbs"
KINDS = (
    Kind(
        "Validation without a positive or without foreground; figures that are undefined or tied",
        "the loss decides, later beats earlier, nothing stops early, and it is said",
        ["tests/training/test_choice.py", f"{VERBS}/test_undefined_figures.py"],
    ),
    Kind(
        "Few positives, rare classes, small sides",
        "every class on every side where the number of patients allows; what is absent or too few is said",
        ["tests/store/test_split.py", f"{TASKS}/test_sides.py"],
    ),
    Kind(
        "Tables with missing seeds or undefined runs; arms that differ in more than their start",
        "means and difference over the same seeds; runs, seeds and settings that differ are named below",
        [
            "tests/report/test_alike.py",
            "tests/report/test_tables.py::test_means_and_difference_of_a_row_are_over_the_same_seeds",
            "tests/report/test_tables.py::test_without_pairs_every_mean_is_over_its_own_seeds_and_that_is_said",
            "tests/report/test_tables.py::test_arms_without_a_common_seed_are_said_to_have_none",
            "tests/report/test_tables.py::test_an_undefined_value_is_named_and_its_seed_is_left_out_everywhere",
            "tests/report/test_tables.py::test_an_arm_without_any_figure_is_named_and_hides_no_other",
            "tests/report/test_tables.py::test_settings_in_which_arms_differ_stand_under_the_table",
        ],
    ),
    Kind(
        "dataset.json of nnU-Net v1 and v2 and of the Decathlon: every key",
        "honoured, or refused by its name; classes have their names, ignored voxels count nowhere",
        [f"{TASKS}/test_dataset_json.py"],
    ),
    Kind(
        "Label values below 0, above 255, without a class, or that aren't whole",
        "read, ignored where that is said, or refused with the values",
        [f"{TASKS}/test_labels.py", "tests/scans/test_read.py"],
    ),
    Kind(
        "Arrays in .npz: signed, in HU, of other ranges, constant, other scales on other sides",
        "scaled by one rule for all sides, or refused with their range",
        [f"{TASKS}/test_npz.py"],
    ),
    Kind(
        "Tables from a spreadsheet: byte-order marks, blanks, semicolons, decimal commas",
        "read as meant, or refused with the line",
        [f"{TASKS}/test_spreadsheet.py"],
    ),
    Kind(
        "Channels in files of their own, along the fourth axis, or missing in one case",
        "grouped alike in training and prediction; the one case is set aside by name",
        [f"{TASKS}/test_channels.py"],
    ),
    Kind(
        "Folders of masks, twins (c0.nii beside c0.nii.gz), suffixes in capitals",
        "search, survey and pairs agree; what is ambiguous is refused",
        [f"{SCANS}/test_find.py", f"{SCANS}/test_label_maps.py", "tests/survey"],
    ),
    Kind(
        "NIfTI with odd forms, units and contents",
        "lengths in mm, one good form is enough, reasons are true",
        [f"{SCANS}/test_nifti.py"],
    ),
    Kind(
        "MetaImage and NRRD with lists, patterns, text and units",
        "read, or refused with what is true of them",
        [f"{SCANS}/test_itk.py"],
    ),
    Kind(
        "DICOM series with scouts, copies, several acquisitions, gaps, tilt",
        "sorted by position, orientation and voxels; odd images are left out with a note",
        [f"{SCANS}/test_dicom.py", f"{SCANS}/test_dicom_sort.py", f"{SCANS}/test_dicom_apart.py"],
    ),
    Kind(
        "Multi-frame DICOM, classic and enhanced, and all types of voxels",
        "read as other readers read it, or refused with what is true",
        [f"{SCANS}/test_dicom_frames.py", f"{SCANS}/test_dicom_voxels.py"],
    ),
    Kind(
        "One bad scan among many in predict and evaluate; equal names in several folders",
        "the others are done, a table says whose mask is which, what failed is listed, the exit code tells",
        [f"{VERBS}/test_predict.py", f"{VERBS}/test_evaluate.py"],
    ),
    Kind(
        "Labels that resampling loses; scores on another grid than the user's file",
        "scored on the label file's own voxels, and a lost label counts as missed",
        [f"{TASKS}/test_native.py", f"{VERBS}/test_evaluate.py"],
    ),
    Kind(
        "Several sessions, modalities or series of one patient",
        "on one side; the split says how patients were told apart",
        [f"{SCANS}/test_patients.py", f"{TASKS}/test_sides.py"],
    ),
    Kind(
        "Fine-tuning and prediction with another window, spacing or modality than the weights'",
        "the weights decide what the task leaves open; what differs is said",
        ["tests/training/test_transfer.py"],
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="enter the results in docs/reliability.md")
    given = parser.parse_args()
    outcomes = run(sorted({test.partition("::")[0] for kind in KINDS for test in kind.tests}))
    found = [judge(kind, outcomes) for kind in KINDS]
    show(found)
    if given.write:
        keep("kinds", "python benchmarks/kinds.py --write", found)
    sys.exit(not all(finding.passed for finding in found))


def run(files: Sequence[str]) -> list[tuple[str, str]]:
    """Run files of tests; ``file::test`` and what came of it: passed, skipped or failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        subprocess.run([*command, *files], cwd=HERE, check=False)
        cases = ElementTree.parse(report).getroot().iter("testcase")
        return [
            (
                f"{case.get('file')}::{str(case.get('name')).partition('[')[0]}",
                {"skipped": "skipped", "failure": "failed", "error": "failed"}.get(
                    next((child.tag for child in case if child.tag != "properties"), ""), "passed"
                ),
            )
            for case in cases
        ]


def judge(kind: Kind, outcomes: Sequence[tuple[str, str]]) -> Finding:
    """The row of a kind; a test it names must be there."""
    mine = [
        (name, outcome)
        for name, outcome in outcomes
        if any(name == test or name.startswith((f"{test}::", f"{test}/")) for test in kind.tests)
    ]
    for test in kind.tests:
        if not any(name == test or name.startswith((f"{test}::", f"{test}/")) for name, _ in mine):
            raise SystemExit(f"there is no test {test}; correct the list of kinds")
    counts = {word: sum(outcome == word for _, outcome in mine) for word in ("failed", "skipped")}
    rest = "".join(f"; {count} {word}" for word, count in counts.items() if count)
    return Finding(kind.inputs, len(mine), f"{kind.here}{rest}", counts["failed"] == 0)


if __name__ == "__main__":
    main()
