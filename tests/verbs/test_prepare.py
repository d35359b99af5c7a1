"""`prepare`: any folder of scans in, a store out, and a clear word where that can't be."""

from __future__ import annotations

from collections import Counter

import nibabel as nib
import numpy as np
import pytest

import parts2whole as p2w
from parts2whole.files import DiskFullError
from parts2whole.scans.find import find_scans
from parts2whole.scans.patients import BY_BIDS, PatientError
from parts2whole.scans.read import file_stamp, read_scan, read_volume, write_nifti
from parts2whole.scans.volume import Volume, to_canonical
from parts2whole.spec import digest
from parts2whole.store.store import Store
from parts2whole.verbs.prepare import PrepareError, prepare
from task_trees import write_series

QUIET = {"workers": 0, "progress": False}


def hounsfield(seed=0):
    return np.random.default_rng(seed).integers(-1100, 1500, (6, 9, 8)).astype(np.int16)


@pytest.fixture
def scans(tmp_path):
    for number in range(3):
        write_nifti(Volume(hounsfield(number), (3.0, 1.0, 1.0)), tmp_path / "scans" / f"s{number}.nii.gz")
    return tmp_path / "scans"


def test_the_public_name(scans, tmp_path):
    store = p2w.prepare(str(scans), out=str(tmp_path / "store"), **QUIET)
    assert [record.case_id for record in store.cases] == ["s0", "s1", "s2"]
    assert all("guessed: CT" in record.notes[0] for record in store.cases)


def test_settings_reach_the_store(scans, tmp_path):
    store = prepare(
        [scans / "s0.nii.gz"],
        out=tmp_path / "store",
        modality="CT",
        spacing_mm=(1.5, 1.0, 2.0),
        window_hu=(-150, 250),
        percentiles=(1, 99),
        dtype="uint8",
        **QUIET,
    )
    assert store.record("s0").shape == (12, 9, 4)
    assert store.read("s0").dtype == np.uint8
    opened = Store.open(tmp_path / "store")
    assert (opened.dtype, opened.preprocess.window_hu, opened.preprocess.percentiles) == (
        "uint8",
        (-150.0, 250.0),
        (1.0, 99.0),
    )


def test_new_scans_are_added(scans, tmp_path):
    first = prepare(scans, out=tmp_path / "store", **QUIET)
    before = {record.case_id: record for record in first.cases}
    write_nifti(Volume(hounsfield(9)), tmp_path / "more" / "s9.nii")
    store = prepare([tmp_path / "more"], out=tmp_path / "store", **QUIET)
    assert [record.case_id for record in store.cases] == ["s0", "s1", "s2", "s9"]
    assert all(store.record(case) == record for case, record in before.items())


def test_verifying_repairs_what_is_damaged(scans, tmp_path, capsys):
    store = prepare(scans, out=tmp_path / "s", modality="CT", workers=0, progress=False)
    before = {record.case_id: store.read(record.case_id) for record in store.cases}
    hurt = store.cases[0].case_id
    shard = next(
        file for file in (store.path / "cases" / f"{hurt}.zarr" / "0" / "c").rglob("*") if file.is_file()
    )
    shard.write_bytes(shard.read_bytes()[:-9])
    prepare(scans, out=tmp_path / "s", modality="CT", workers=0)
    assert Store.open(tmp_path / "s").damage(hurt) is not None
    again = prepare(scans, out=tmp_path / "s", modality="CT", workers=0, verify=True)
    said = " ".join(capsys.readouterr().err.split())
    assert f"done again {hurt}: " in said
    assert "1 prepared" in said
    for case, voxels in before.items():
        np.testing.assert_array_equal(again.read(case), voxels)


def test_a_store_at_a_url(scans):
    upath = pytest.importorskip("upath", reason="universal-pathlib isn't installed (extra 'remote')")
    url = "memory://prepared/s"
    store = prepare(scans, out=url, modality="CT", workers=0, progress=False)
    assert len(Store.open(url).cases) == len(store.cases) > 0
    assert prepare(scans, out=url, modality="CT", workers=0, progress=False, overwrite=True).cases
    upath.UPath(url).fs.rm("/prepared", recursive=True)


def test_one_bad_scan_among_good_ones(scans, tmp_path):
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), np.eye(4)), scans / "bad.nii")
    (scans / "sp ace ü.nii.gz").write_bytes((scans / "s0.nii.gz").read_bytes()[:300])
    store = prepare(scans, out=tmp_path / "store", **QUIET)
    assert len(store.cases) == 3
    assert set(store.set_aside) == {"bad", "sp_ace_u"}


def test_nothing_to_prepare(tmp_path, scans):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PrepareError, match=r"no scans found in .*empty"):
        prepare(tmp_path / "empty", out=tmp_path / "store", **QUIET)
    with pytest.raises(PrepareError, match="doesn't exist"):
        prepare(tmp_path / "nowhere", out=tmp_path / "store", **QUIET)
    with pytest.raises(PrepareError, match="no scans found in an empty list"):
        prepare([], out=tmp_path / "store", **QUIET)
    assert not (tmp_path / "store").exists()


def test_no_usable_scan(tmp_path):
    for number in range(7):
        write_nifti(Volume(hounsfield(number) + 2000), tmp_path / "in" / f"s{number}.nii")
    with pytest.raises(
        PrepareError, match=r"(?s)none of 7 scans.*7 of 7 were set aside: .*--modality MR.* s4 and 2 more"
    ):
        prepare(tmp_path / "in", out=tmp_path / "store", **QUIET)
    assert len(prepare(tmp_path / "in", out=tmp_path / "store", modality="MR", **QUIET).cases) == 7


def test_an_out_folder_in_use(tmp_path, scans):
    prepare(scans, out=tmp_path / "store", **QUIET)
    with pytest.raises(PrepareError, match=r"modality='auto' \(asked for 'MR'\)"):
        prepare(scans, out=tmp_path / "store", modality="MR", **QUIET)
    store = prepare(scans, out=tmp_path / "store", modality="MR", overwrite=True, **QUIET)
    assert {record.modality for record in store.cases} == {"MR"}
    for overwrite in (False, True):
        with pytest.raises(PrepareError, match=r"in use|not a store"):
            prepare(scans, out=scans, overwrite=overwrite, **QUIET)
    assert len(list(scans.iterdir())) == 3


def test_a_full_disk(tmp_path, scans, monkeypatch):
    def full(*_, **__):
        raise DiskFullError("no space is left for store")

    monkeypatch.setattr("parts2whole.store.ingest.write_case", full)
    with pytest.raises(DiskFullError, match="no space is left"):
        prepare(scans, out=tmp_path / "store", **QUIET)


def test_a_choice_among_several_volumes(tmp_path):
    array = np.random.default_rng(0).integers(0, 900, (5, 6, 7, 3)).astype(np.int16)
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "in" / "a.nii")
    with pytest.raises(PrepareError, match="holds 3 volumes"):
        prepare(tmp_path / "in", out=tmp_path / "s", modality="MR", **QUIET)
    one = prepare(tmp_path / "in", out=tmp_path / "s1", modality="MR", volumes_4d=1, **QUIET)
    assert one.record("a").channels == 1
    every = prepare(tmp_path / "in", out=tmp_path / "s3", modality="MR", volumes_4d="channels", **QUIET)
    assert every.record("a").channels == 3


@pytest.mark.shared
def test_real_ct_is_exact(shared, tmp_path):
    folder = shared / "sarcoma" / "CT" / "images"
    store = prepare([str(folder / "STS_00*.nii.gz")], out=tmp_path / "store", **QUIET)
    assert len(store.cases) == 5
    for record in store.cases:
        assert record.modality == "CT"
        original = to_canonical(read_volume(folder / record.source[0])).array
        np.testing.assert_array_equal(store.read(record.case_id)[0], np.clip(original, -1000, 1000))


@pytest.mark.shared
def test_real_mr_keeps_to_its_quantisation(shared, tmp_path):
    pattern = str(shared / "hippocampus" / "images" / "hippocampus_00*.nii.gz")
    with pytest.raises(PrepareError, match=r"6 of 6 were set aside.*add --modality CT or --modality MR"):
        prepare(pattern, out=tmp_path / "store", **QUIET)
    store = prepare(pattern, out=tmp_path / "store", modality="MR", **QUIET)
    for source in find_scans([pattern]):
        original = to_canonical(read_scan(source)).array.astype(np.float64)
        low, high = np.percentile(original, (0.5, 99.5))
        record = store.record(source.case_id)
        unit = store.read(source.case_id)[0] * record.scale + record.offset
        error = np.abs(unit - np.clip((original - low) / (high - low), 0, 1)).max()
        assert error <= record.quantisation_error + 1e-6 < 2e-5


@pytest.mark.shared
def test_a_real_mixed_tree(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    store = prepare(shared / "formats", out=tmp_path / "store", **QUIET)
    assert sorted(record.shape for record in store.cases) == [(20, 512, 512), (41, 512, 512), (112, 101, 122)]
    assert sum("label map" in reason for reason in store.set_aside.values()) == 4
    assert sum("can't tell the modality" in reason for reason in store.set_aside.values()) == 3


def test_patients_are_told_apart_by_folders_of_modalities_and_subjects(tmp_path, capsys):
    for number, name in enumerate(
        [
            "CT/images/STS_002",
            "MR_T1/images/STS_002",
            "CT/images/STS_003",
            "sub-01/ses-1/anat/x",
            "sub-01/ses-2/anat/x",
        ]
    ):
        write_nifti(Volume(hounsfield(number)), tmp_path / "in" / f"{name}.nii.gz")
    store = prepare(tmp_path / "in", out=tmp_path / "store", modality="MR", workers=0)
    by_case = {record.case_id: record.patient for record in store.cases}
    assert (
        by_case["CT__images__STS_002"] == by_case["MR_T1__images__STS_002"] != by_case["CT__images__STS_003"]
    )
    assert by_case["sub-01__ses-1__anat__x"] == by_case["sub-01__ses-2__anat__x"] == "sub-01"
    assert {record.patient_by for record in store.cases} == {
        "equal names in folders of modalities",
        "names, each image a patient of its own",
        "BIDS subjects",
    }
    assert "Patients: 3 (5 scans), told apart by" in capsys.readouterr().out
    again = Store.open(tmp_path / "store")
    assert {record.case_id: record.patient for record in again.cases} == by_case


def test_a_pattern_says_who_is_who(scans, tmp_path):
    store = prepare(scans, out=tmp_path / "store", patient_pattern=r"(s)\d", **QUIET)
    assert {record.patient for record in store.cases} == {"s"}
    with pytest.raises(PatientError, match="finds no patient in"):
        prepare(scans, out=tmp_path / "other", patient_pattern="(x)", **QUIET)
    assert not (tmp_path / "other").exists()


def test_dicom_patients_are_hashed_and_one_for_all_is_pointed_at(tmp_path, capsys):
    for number in range(3):
        write_series(tmp_path / "in" / f"scan{number}", hounsfield(number), patient="ANON")
    store = prepare(tmp_path / "in", out=tmp_path / "store", workers=0)
    assert len({record.patient for record in store.cases}) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "Patients: 1 (3 scans), told apart by DICOM PatientID (hashed). If that is because" in told
    text = (tmp_path / "store" / "manifest.json").read_text()
    assert "ANON" not in text
    told = prepare(tmp_path / "in", out=tmp_path / "store", patient_pattern=r"(scan\d)", **QUIET)
    assert {record.patient for record in told.cases} == {"scan0", "scan1", "scan2"}


def test_a_store_of_before_is_not_prepared_again_where_nothing_is_told(scans, tmp_path):
    """Stamps hold the patient; those of version 0.1.0 did, where no name or header says who is who."""
    store = prepare(scans, out=tmp_path / "store", **QUIET)
    for record in store.cases:
        assert record.stamp == digest([file_stamp([scans / record.source[0]]), None, "None", None, "None"])


def test_series_without_a_patient_id_are_told_apart_by_their_folders(tmp_path, capsys):
    for number, place in enumerate(("sub-1/ses-1", "sub-1/ses-2", "sub-2/ses-1", "sub-2/ses-2")):
        study, uid = f"1.8.{number}", f"1.2.9.{number}"
        write_series(tmp_path / "in" / place, hounsfield(number), patient="", series=uid, study=study)
    store = prepare([tmp_path / "in"], out=tmp_path / "store", modality="CT", workers=0, progress=False)
    assert sorted(Counter(record.patient for record in store.cases).values()) == [2, 2]
    assert {record.patient_by for record in store.cases} == {BY_BIDS}


def test_scans_of_another_folder_never_replace_those_of_their_names(tmp_path):
    def write(site: str, number: int, seed: int) -> None:
        path = tmp_path / site / f"case_{number}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_nifti(Volume(hounsfield(seed)), path)

    for site, number, seed in (("a", 0, 1), ("a", 1, 2), ("b", 0, 3), ("b", 2, 4)):
        write(site, number, seed)
    settings = {"out": tmp_path / "store", "modality": "CT", "workers": 0, "progress": False}
    first = prepare([tmp_path / "a"], **settings)
    before = {record.case_id: record.content_hash for record in first.cases}
    with pytest.raises(
        PrepareError, match=r"case_0 is in the store from another folder.*name all folders in one"
    ):
        prepare([tmp_path / "b"], **settings)
    assert {record.case_id: record.content_hash for record in Store.open(tmp_path / "store").cases} == before
    write("a", 0, 5)  # corrected where it was
    again = prepare([tmp_path / "a"], **settings)
    assert again.record("case_0").content_hash != before["case_0"]
    both = prepare([tmp_path / "a", tmp_path / "b"], **settings | {"out": tmp_path / "both"})
    assert len(both.cases) == 4
