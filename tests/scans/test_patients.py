"""Who is who by paths and names."""

from __future__ import annotations

from pathlib import Path

import pytest

from parts2whole.scans.patients import (
    BY_BIDS,
    BY_DICOM,
    BY_MODALITY,
    BY_NAME,
    BY_PARTICIPANTS,
    BY_PATTERN,
    BY_STUDY,
    PatientError,
    Told,
    tell_patients,
)

ROOT = Path("/data/set")


def groups(*paths: str, roots: tuple[str, ...] = ("",), **settings) -> set[frozenset[str]]:
    """Which of these paths below the root are of one patient."""
    told = tell_patients(
        {path: ROOT / path for path in paths}, roots=[ROOT / root for root in roots], **settings
    )
    found: dict[str, set[str]] = {}
    for path, one in told.items():
        found.setdefault(one.patient, set()).add(path)
    return {frozenset(members) for members in found.values()}


def apart(*paths: str) -> bool:
    return groups(*paths) == {frozenset([path]) for path in paths}


@pytest.mark.parametrize(
    "together",
    [
        ("sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz"),
        ("sub-A7/anat/sub-A7_T1w.nii.gz", "sub-A7/pet/sub-A7_trc-FDG_pet.nii.gz"),
        ("images/sub-01_ses-1_T1w.nii.gz", "images/sub-01_ses-2_T1w.nii.gz", "images/sub-01.nii"),
        ("sub-01/anat/scan.nii.gz", "sub-01/scan.nii.gz"),
        ("sub-01/anat/sub-01_T1w.nii", "derivatives/prep/sub-01/anat/sub-01_desc-prep_T1w.nii"),
        ("sourcedata/sub-01/a.nii", "sub-01/b.nii"),
        ("P7/ses-01/anat/T1.nii.gz", "P7/ses-02/anat/T1.nii.gz"),
        ("P7_ses-01_T1.nii.gz", "P7_ses-02_T1.nii.gz"),
        ("CT/images/STS_002.nii.gz", "MR_T1/images/STS_002.nii.gz"),
        ("STS_002/CT/a.nii", "STS_002/PET/a.nii"),
        ("ct/p1.nii.gz", "PT/p1.mha", "t1w/p1.nrrd"),
        ("case1/t1.nii.gz", "case1/flair.nii.gz"),
        ("CT-arterial/p1.nii", "CT-venous/p1.nii"),
        ("CT/images/sub-03.nii.gz", "MR/images/sub-03.nii.gz"),
        ("t1/P1_ses-1.nii.gz", "t2/P1_ses-1.nii.gz", "t1/P1_ses-2.nii.gz"),
        ("t1/P1/ses-1/a.nii.gz", "t2/P1/ses-1/a.nii.gz"),
        ("imagesTr/P1_ses-1.nii.gz", "imagesTs/P1_ses-2.nii.gz"),
        ("P1/ses-1/a.nii.gz", "derivatives/prep/P1/ses-1/a.nii.gz"),
    ],
)
def test_images_of_one_patient_are_together(together):
    others = ("sub-02/anat/sub-02_T1w.nii.gz", "CT/images/STS_0021.nii.gz", "case2/t1.nii.gz")
    assert groups(*together, *others) == {frozenset(together), *(frozenset([path]) for path in others)}


@pytest.mark.parametrize(
    "alone",
    [
        ("case_0001_t1.nii.gz", "case_0001_t2.nii.gz"),
        ("a/001.nii.gz", "b/001.nii.gz"),
        ("hospital-a/sub-01/x.nii", "hospital-b/sub-01/x.nii"),
        ("train/001.nii.gz", "test/001.nii.gz"),
        ("sub-01/anat/x.nii", "sub-011/anat/x.nii"),
        ("subject-01.nii", "subject-02.nii"),
        ("images/subtraction-01_a.nii", "images/subtraction-01_b.nii"),
        ("case1/scan.nii", "case2/scan.nii"),
        ("ct.nii", "mr.nii"),
        ("images/CT001.nrrd", "images/CT002.nrrd", "images/MR-3.nrrd"),
        ("MRI-Dataset-A/001.nii", "MRI-Dataset-B/001.nii"),
    ],
)
def test_what_nothing_tells_is_a_patient_of_its_own(alone):
    assert apart(*alone)


def test_two_folders_of_modalities_may_be_named_one_by_one():
    paths = ("CT/images/P1.nii", "MR/images/P1.nii", "MR/images/P2.nii")
    expected = {frozenset(paths[:2]), frozenset(paths[2:])}
    assert groups(*paths, roots=("CT/images", "MR/images")) == expected
    assert groups(*paths) == expected


def test_files_that_are_named_alone_are_looked_at_from_where_they_meet():
    paths = ("sub-01/ses-1/a.nii", "sub-01/ses-2/a.nii", "sub-02/ses-1/a.nii")
    assert groups(*paths, roots=("no/such/folder",)) == {frozenset(paths[:2]), frozenset(paths[2:])}


def test_a_pattern_counts_before_all_else():
    paths = ("CT/STS_002.nii.gz", "MR/STS_002.nii.gz", "MR/sub-9_STS_003.nii.gz")
    told = tell_patients(
        {path: ROOT / path for path in paths},
        roots=[ROOT],
        pattern=r"(STS_\d+)",
        given={paths[0]: Told("hash", BY_DICOM)},
    )
    assert [told[path] for path in paths] == [
        Told("STS_002", BY_PATTERN),
        Told("STS_002", BY_PATTERN),
        Told("STS_003", BY_PATTERN),
    ]
    by_folder = groups(*paths, pattern=r"^([^/]+)/")
    assert by_folder == {frozenset(paths[:1]), frozenset(paths[1:])}


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "no regular expression"),
        (r"P\d+", "has 0 groups"),
        (r"(P)(\d+)", "has 2 groups"),
        (r"(P\d+)", r"no patient in 1 of 2 paths: x/other\.nii"),
        (r"P1|(other)", r"no patient in 1 of 2 paths: x/P1\.nii"),
    ],
)
def test_a_pattern_that_does_not_say_who_is_who_is_refused(pattern, reason):
    with pytest.raises(PatientError, match=reason):
        groups("x/P1.nii", "x/other.nii", pattern=pattern)


def test_what_is_given_counts_before_names():
    told = tell_patients(
        {"a": ROOT / "sub-01/a.nii", "b": ROOT / "sub-01/b.nii", "c": ROOT / "x/c.nii"},
        roots=[ROOT],
        given={"a": Told("someone", BY_DICOM)},
        names={"c": "x/c.nii"},
    )
    assert told == {
        "a": Told("someone", BY_DICOM),
        "b": Told("sub-01", BY_BIDS),
        "c": Told("x/c.nii", BY_NAME),
    }


def test_the_name_of_a_patient_in_two_modalities_is_that_of_the_first():
    told = tell_patients({"m": ROOT / "MR/1.nii", "c": ROOT / "CT/1.nii"}, roots=[ROOT], names={"c": "first"})
    assert set(told.values()) == {Told("first", BY_MODALITY)}


def test_participants_are_known_from_their_table(tmp_path):
    table = "participant_id\tage\nP1\t40\nP10\t50\nsub-03\t60\nn/a\t0\n"
    (tmp_path / "participants.tsv").write_text(table, encoding="utf-8-sig")
    paths = ("P1/a/x.nii", "P1/b/x.nii", "P10/a/x.nii", "P10_b.nii", "P100.nii", "sub-03/x.nii", "n/a/y.nii")
    told = tell_patients({path: tmp_path / path for path in paths}, roots=[tmp_path])
    assert [told[path].patient for path in paths] == [
        "P1",
        "P1",
        "P10",
        "P10",
        "P100.nii",
        "sub-03",
        "n/a/y.nii",
    ]
    assert {told[path].by for path in paths[:4]} == {BY_PARTICIPANTS}
    assert told["sub-03/x.nii"].by == BY_BIDS


def test_patients_scanned_by_ct_and_mr_are_known_again(shared):
    """35 patients, 12 of whom have a T1 beside their CT."""
    files = sorted((shared / "sarcoma").rglob("images/*.nii.gz"))
    assert len(files) == 47
    told = tell_patients({str(file): file for file in files}, roots=[shared / "sarcoma"])
    assert len({one.patient for one in told.values()}) == 35
    by_name = {}
    for file in files:
        by_name.setdefault(file.name, set()).add(told[str(file)].patient)
    assert all(len(patients) == 1 for patients in by_name.values())


def test_studies_without_a_patient_id_count_after_the_folders():
    paths = {name: ROOT / name for name in ("sub-1/ses-1/x", "sub-1/ses-2/x", "a/x", "b/x", "c/x")}
    studies = dict(zip(paths, ["s1", "s2", "s3", "s3", "s4"], strict=True))
    told = tell_patients(paths, roots=[ROOT], studies=studies)
    assert {name: (one.patient, one.by) for name, one in told.items()} == {
        "sub-1/ses-1/x": ("sub-1", BY_BIDS),
        "sub-1/ses-2/x": ("sub-1", BY_BIDS),
        "a/x": ("s3", BY_STUDY),
        "b/x": ("s3", BY_STUDY),
        "c/x": ("s4", BY_STUDY),
    }
