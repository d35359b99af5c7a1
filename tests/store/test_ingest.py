"""From files to a store: nothing is lost, nothing ends the run, nothing is done twice."""

from __future__ import annotations

import dataclasses
import multiprocessing
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from parts2whole.files import DiskFullError
from parts2whole.jobs.run import JobError
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import file_stamp, read_volume, write_nifti
from parts2whole.scans.volume import Box, LabelVolume, Volume, content_hash, to_canonical
from parts2whole.spec import digest
from parts2whole.store import ingest
from parts2whole.store.ingest import IngestError, SourceCase, store_cases
from parts2whole.store.store import Store, StoreError

CT = Preprocess("CT")
FLIPPED = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))


def hounsfield(seed=0, shape=(6, 9, 8)):
    return np.random.default_rng(seed).integers(-1100, 1500, shape).astype(np.int16)


@pytest.fixture
def make(tmp_path):
    """Writes a scan, and a label beside it; returns the case."""

    def write(name, seed=0, *, shape=(6, 9, 8), label=False, direction=FLIPPED, spacing=(3.0, 1.0, 1.0)):
        image = tmp_path / "in" / f"{name}.nii.gz"
        write_nifti(Volume(hounsfield(seed, shape), spacing, direction=direction), image)
        mask = None
        if label:
            mask = tmp_path / "in" / f"{name}_mask.nii.gz"
            values = np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
            write_nifti(LabelVolume(values, spacing, direction=direction), mask)
        return SourceCase(name, (image,), mask)

    return write


def store(cases, tmp_path, preprocess=CT, **more):
    more = {"workers": 0, "progress": False} | more
    return store_cases(cases, tmp_path / "store", preprocess=preprocess, **more)


def test_images_and_labels_become_cases(make, tmp_path):
    cases = [make("a", 1, label=True), make("b", 2)]
    made, report = store(cases, tmp_path)
    assert report.prepared == ("a", "b")
    assert report.set_aside == {}
    original = to_canonical(read_volume(cases[0].images[0]))
    np.testing.assert_array_equal(made.read("a")[0], np.clip(original.array, -1000, 1000))
    record = made.record("a")
    assert record.content_hash == content_hash(original.array)
    assert record.spacing_mm == (3.0, 1.0, 1.0)
    assert record.source == ("a.nii.gz", "a_mask.nii.gz")
    assert record.quantisation_error == 0
    assert (record.patient, made.record("b").has_label) == ("a", False)
    expected = np.random.default_rng(1).integers(0, 3, (6, 9, 8))[::-1, :, ::-1]
    np.testing.assert_array_equal(made.read_label("a"), expected)
    assert Store.open(made.path).cases == made.cases


def test_files_become_channels(make, tmp_path):
    first, second = make("t1", 1), make("t2", 2)
    cases = [
        SourceCase("both", (*first.images, *second.images)),
        SourceCase("bad", (*first.images, *make("t3", 3, shape=(6, 9, 9)).images)),
    ]
    made, report = store(cases, tmp_path, Preprocess("MR"))
    assert made.record("both").channels == 2
    assert made.read("both").shape == (2, 6, 9, 8)
    assert "different grids" in report.set_aside["bad"]


def test_a_box_is_cut_and_the_scan_remembered(make, tmp_path):
    case = make("a", 1, label=True)
    box = Box((0, 2, 4), (3, 7, 4))
    made, _ = store([case, dataclasses.replace(case, case_id="part", box=box)], tmp_path)
    scan = read_volume(case.images[0]).array
    np.testing.assert_array_equal(
        made.read("part")[0], np.clip(scan[0:3, 2:9, 4:8], -1000, 1000)[::-1, :, ::-1]
    )
    assert made.read_label("part").shape == (3, 7, 4)
    assert made.record("part").content_hash == made.record("a").content_hash
    stamped = (
        "(slice(0, 3, None), slice(2, 9, None), slice(4, 8, None))"  # as 0.1.0 has it: no case is made again
    )
    part = SourceCase("part", case.images, box=box)
    assert part.stamp() == digest([file_stamp(part.files()), None, stamped, None, ""])
    _, report = store([dataclasses.replace(case, case_id="out", box=Box((0, 0, 0), (99, 99, 99)))], tmp_path)
    assert "inside the volume" in report.set_aside["out"]


def test_resampling_image_and_label_together(make, tmp_path):
    made, _ = store([make("a", label=True)], tmp_path, Preprocess("CT", spacing_mm=(1.5, 1.0, 2.0)))
    assert made.record("a").shape == (12, 9, 4) == made.read_label("a").shape
    assert made.record("a").spacing_mm == (1.5, 1.0, 2.0)


def test_bad_cases_are_set_aside_with_their_reason(make, tmp_path):
    good = make("good", label=True)
    truncated = make("truncated")
    data = truncated.images[0].read_bytes()
    truncated.images[0].write_bytes(data[: len(data) // 2])
    holes = make("holes").images[0]
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), np.eye(4)), holes)
    constant = make("constant").images[0]
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 7, np.int16), np.eye(4)), constant)
    halves = make("halves").images[0]
    nib.save(nib.Nifti1Image(np.full((8, 9, 6), 0.5, np.float32), nib.load(good.label).affine), halves)
    cases = [
        good,
        truncated,
        SourceCase("holes", (holes,)),
        SourceCase("constant", (constant,)),
        dataclasses.replace(good, case_id="halves", label=halves),
        dataclasses.replace(good, case_id="grid", label=make("g", label=True, spacing=(3, 1, 1.1)).label),
        SourceCase("missing", (tmp_path / "nowhere.nii",)),
        dataclasses.replace(good, case_id="no_label", label=tmp_path / "nowhere.nii"),
        SourceCase("nothing", ()),
    ]
    made, report = store(cases, tmp_path)
    assert report.prepared == ("good",)
    expected = {
        "truncated": "truncated",
        "holes": "NaN",
        "constant": "constant volume: every voxel is 7",
        "halves": "whole numbers",
        "grid": "different grids",
        "missing": "nowhere.nii",
        "no_label": "nowhere.nii",
        "nothing": "names no image",
    }
    assert set(report.set_aside) == set(expected)
    for case, words in expected.items():
        assert words in report.set_aside[case]
    assert Store.open(made.path).set_aside == report.set_aside


def test_a_fault_in_the_program_costs_one_case(make, tmp_path, monkeypatch):
    real = ingest.prepare_volume

    def sometimes(volume, preprocess):
        if volume.array[0, 0, 0] == hounsfield(2)[0, 0, 0]:
            raise RuntimeError("surprise")
        return real(volume, preprocess)

    monkeypatch.setattr(ingest, "prepare_volume", sometimes)
    _, report = store([make("a", 1), make("b", 2), make("c", 3)], tmp_path)
    assert report.prepared == ("a", "c")
    assert report.set_aside == {"b": "unexpected RuntimeError: surprise"}


def test_finished_cases_are_kept_and_changed_ones_redone(make, tmp_path, monkeypatch):
    cases = [make("a", 1), make("b", 2)]
    store(cases[:1], tmp_path)
    made, report = store(cases, tmp_path)
    assert (report.kept, report.prepared) == (("a",), ("b",))
    before = (made.path / "manifest.json").stat().st_mtime_ns
    _, report = store(cases, tmp_path)
    assert (report.kept, report.prepared) == (("a", "b"), ())
    assert (made.path / "manifest.json").stat().st_mtime_ns == before
    write_nifti(Volume(hounsfield(7), (3.0, 1.0, 1.0)), cases[1].images[0])
    made, report = store(cases, tmp_path)
    assert (report.kept, report.prepared) == (("a",), ("b",))
    np.testing.assert_array_equal(made.read("b")[0], np.clip(hounsfield(7), -1000, 1000))
    cases[0].images[0].write_bytes(b"broken")
    made, report = store(cases, tmp_path)
    assert list(report.set_aside) == ["a"]
    assert not Store.open(made.path).has("a")


def test_after_a_crash_it_goes_on(make, tmp_path, monkeypatch):
    cases = [make(name, seed) for seed, name in enumerate("abc")]
    real = ingest.write_case

    def crash(folder, record, *args, **kwargs):
        if record.case_id == "b":
            raise KeyboardInterrupt
        return real(folder, record, *args, **kwargs)

    monkeypatch.setattr(ingest, "write_case", crash)
    with pytest.raises(KeyboardInterrupt):
        store(cases, tmp_path)
    monkeypatch.undo()
    assert [record.case_id for record in Store.open(tmp_path / "store").cases] == ["a"]
    _, report = store(cases, tmp_path)
    assert (report.kept, report.prepared) == (("a",), ("b", "c"))


def test_a_full_disk_ends_the_run_and_keeps_what_is_done(make, tmp_path, monkeypatch):
    cases = [make(name, seed) for seed, name in enumerate("abc")]
    real = ingest.write_case

    def full(folder, record, *args, **kwargs):
        if record.case_id == "b":
            raise DiskFullError("no space is left for store")
        return real(folder, record, *args, **kwargs)

    monkeypatch.setattr(ingest, "write_case", full)
    with pytest.raises(DiskFullError, match="no space"):
        store(cases, tmp_path)
    assert [record.case_id for record in Store.open(tmp_path / "store").cases] == ["a"]


def test_a_case_that_kills_its_worker_is_set_aside(make, tmp_path, monkeypatch):
    def deadly(
        work, jobs, *, lost, workers, cluster
    ):  # what `run_jobs` does, without the processes; see test_pool
        for job in jobs:
            yield lost(job) if job.case.case_id == "killer" else work(job)

    monkeypatch.setattr(ingest, "run_jobs", deadly)
    _, report = store([make("killer", 1), make("b", 2)], tmp_path)
    assert report.prepared == ("b",)
    assert "killed" in report.set_aside["killer"]


def test_it_runs_from_a_script_without_a_main_guard(make, tmp_path):
    cases = [make("a", 1), make("b", 2)]
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        from pathlib import Path
        from parts2whole.store.ingest import SourceCase, store_cases
        from parts2whole.scans.preprocess import Preprocess
        paths = {[str(case.images[0]) for case in cases]}
        cases = [SourceCase(Path(p).name, (Path(p),)) for p in paths]
        store, _ = store_cases(cases, {str(tmp_path / "store")!r}, preprocess=Preprocess("CT"), workers=1)
        print(len(store.cases))
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "2"
    assert "2 prepared" in done.stderr
    assert "Warning" not in done.stderr


def test_label_maps_among_scans_are_set_aside(tmp_path, make):
    blob = np.zeros((12, 20, 20), dtype=np.int16)
    blob[3:9, 5:15, 6:16] = 1
    folder = tmp_path / "all" / "in"  # two folders below that of this test, whose name says label
    write_nifti(Volume(blob), folder / "case1_label.nii")
    write_nifti(Volume(blob), folder / "shape.nii")
    cases = [SourceCase(name, (folder / f"{name}.nii",)) for name in ("case1_label", "shape")]
    _, report = store(cases, tmp_path, Preprocess("MR"))
    assert "label map" in report.set_aside["case1_label"]
    assert report.prepared == ("shape",)


def test_the_summary_names_every_reason(make, tmp_path, capsys):
    broken = make("bro[ken]")
    broken.images[0].write_bytes(b"")
    store([make("a", 1), make("copy", 1), broken], tmp_path, Preprocess(), progress=True)
    said = " ".join(capsys.readouterr().err.split())
    for words in ("2 prepared", "1 set aside", "is empty", "bro[ken]", "guessed", "same voxels as a"):
        assert words in said


def test_misuse_is_explained(make, tmp_path):
    case = make("a")
    with pytest.raises(IngestError, match="unique"):
        store([case, case], tmp_path)
    with pytest.raises(JobError, match="workers"):
        store([case], tmp_path, workers=-1)
    store([case], tmp_path)
    with pytest.raises(StoreError, match="prepared with"):
        store([case], tmp_path, Preprocess("MR"))


def test_two_processes_that_want_one_store_prepare_it_once(tmp_path):
    for case in range(4):
        voxels = np.random.default_rng(case).integers(-1000, 1000, (8, 8, 8)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{case}.nii.gz")
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        found = pool.map(_prepare_alone, [tmp_path] * 2)
    assert sorted(found) == [0, 4]


def _prepare_alone(folder: Path) -> int:
    """How many cases this process prepared itself."""
    cases = [SourceCase(str(case), (folder / f"{case}.nii.gz",)) for case in range(4)]
    _, report = store_cases(
        cases, folder / "store", preprocess=Preprocess(modality="CT"), workers=0, progress=False
    )
    return len(report.prepared)
