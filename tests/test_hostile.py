"""Files from others: nothing in them runs, leaves its folder, or ends in anything but a clear error.

What `benchmarks/fuzz.py` has found is kept here, in its smallest form.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from parts2whole.methods.base import Method
from parts2whole.report.page import write_report
from parts2whole.report.runs import read_run
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import ReadError, find_scans, read_volume
from parts2whole.scans.volume import Volume
from parts2whole.spec import SpecError, spec_from_yaml
from parts2whole.store.record import CaseRecord, is_plain_name
from parts2whole.store.store import Store, StoreError
from parts2whole.training.checkpoint import load_checkpoint
from parts2whole.weights.card import Card, CardError

NAMES = ["with space", "Ä ö ü 肝臓", "line\nbreak", "quote'\"", "-dash", "per%cent", "emoji🫁"]


@pytest.fixture
def store(tmp_path) -> Path:
    made = Store.create(tmp_path / "store", preprocess=Preprocess(modality="unit"))
    voxels = np.arange(8**3, dtype=np.int16).reshape(8, 8, 8)
    made.write_volume("case", Volume(voxels, (1.0, 1.0, 1.0)), patient="p")
    made.finish()
    return tmp_path / "store"


def change_manifest(store: Path, **changes: object) -> None:
    manifest = store / "manifest.json"
    plain = json.loads(manifest.read_text())
    plain["cases"][0] |= changes
    manifest.write_text(json.dumps(plain))


class Attack:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return (Path.touch, (self.victim,))


def test_a_pickle_with_code_is_no_checkpoint_and_runs_nothing(tmp_path):
    folder, victim = tmp_path / "checkpoints", tmp_path / "owned"
    folder.mkdir()
    module = torch.nn.Linear(1, 1)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    path = folder / "step-00000009.ckpt"
    for content in ({"module": Attack(victim), "progress": {}}, Attack(victim)):
        torch.save(content, path)
        assert_refused(path, tmp_path, module, optimiser)
    path.write_bytes(pickle.dumps(Attack(victim)))
    assert_refused(path, tmp_path, module, optimiser)
    assert not victim.exists()


def assert_refused(path: Path, run: Path, module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    path.with_suffix(".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    progress, _, messages = load_checkpoint(run, module=module, optimiser=optimiser)
    assert progress.step == 0
    assert f"{path.name} is no checkpoint" in messages[0]
    assert "starting again from the first step" in messages[-1]


@pytest.mark.parametrize(
    "case", ["../../secret", "/etc/passwd", "..", ".hidden", "a/b", "a\\b", "nul\0", "", 7]
)
def test_a_manifest_cannot_name_what_is_outside_the_store(store, case):
    change_manifest(store, case_id=case)
    with pytest.raises(StoreError, match="not a plain name"):
        Store.open(store)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [10**10, 8, 8]},
        {"shape": [8, 8]},
        {"shape": [8, 8, -1]},
        {"shape": ["8", 8, 8]},
        {"spacing_mm": [0, 1, 1]},
        {"spacing_mm": [1e-300, 1, 1]},
        {"scale": float("nan")},
        {"scale": "1"},
        {"unknown": 1},
    ],
)
def test_a_manifest_with_impossible_values_is_refused(store, changes):
    change_manifest(store, **changes)
    with pytest.raises(StoreError):
        Store.open(store)


def test_a_link_does_not_lead_out_of_the_store(store, tmp_path):
    case = store / "cases" / "case.zarr"
    case.rename(tmp_path / "elsewhere.zarr")
    case.symlink_to(tmp_path / "elsewhere.zarr")
    with pytest.raises(StoreError, match="a link that leaves"):
        Store.open(store).read("case")
    moved = tmp_path / "moved"
    moved.symlink_to(store)
    case.unlink()
    (tmp_path / "elsewhere.zarr").rename(case)
    assert Store.open(moved).read("case").shape == (1, 8, 8, 8)  # the store itself may be behind a link


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [field.name for field in dataclasses.fields(CaseRecord)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(FIELDS), value=JSON, place=st.sampled_from(["case", "manifest"]))
def test_any_value_in_a_manifest_is_read_or_refused(store, field, value, place):
    manifest = store / "manifest.json"
    before = manifest.read_text()
    plain = json.loads(before)
    if place == "case":
        plain["cases"][0][field] = value
    else:
        key = sorted(plain)[len(field) % len(plain)]
        plain[key] = value
    manifest.write_text(json.dumps(plain))
    try:
        with contextlib.suppress(StoreError):
            assert all(is_plain_name(record.case_id) for record in Store.open(store).cases)
    finally:
        manifest.write_text(before)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"network": 1}', "null", '{"network": {"class_path": "os.system"}}']
)
def test_a_broken_card_is_refused(tmp_path, text):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(CardError):
        Card.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch owned']",
        "class_path: os.system",
        "{",
        "class_path: parts2whole.methods.parts2whole.Parts2Whole\ninit_args: {part_fraction: [a, 2]}",
        "class_path: parts2whole.methods.parts2whole.Parts2Whole\ninit_args: {part_fraction: [1, 2, 3]}",
        "class_path: parts2whole.methods.parts2whole.Parts2Whole\ninit_args: {1: 2}",
    ],
)
def test_a_hostile_spec_is_refused_and_runs_nothing(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError):
        spec_from_yaml(text, Method)
    assert not list(tmp_path.iterdir())


def test_the_package_never_loads_unsafe_yaml_or_pickles():
    source = Path(__file__).parents[1] / "src"
    text = {path: path.read_text() for path in source.rglob("*.py")}
    for path, code in text.items():
        assert "yaml.load(" not in code, path
        assert "allow_pickle=True" not in code, path
        assert code.count("torch.load(") == code.count("weights_only=True"), path


@pytest.mark.parametrize("kind", [9999, -1])
def test_an_unknown_voxel_type_is_refused(tmp_path, kind):
    nibabel.save(nibabel.MGHImage(np.zeros((4, 4, 4), np.float32), np.eye(4)), tmp_path / "a.mgh")
    content = bytearray((tmp_path / "a.mgh").read_bytes())
    content[20:24] = kind.to_bytes(4, "big", signed=True)
    (tmp_path / "a.mgh").write_bytes(bytes(content))
    with pytest.raises(ReadError, match=r"a\.mgh can't be read"):
        read_volume(tmp_path / "a.mgh")


def test_an_axis_without_voxels_is_refused(tmp_path):
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 0 7 8\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "a.mha").write_text(header)
    with pytest.raises(ReadError, match=r"a\.mha"):
        read_volume(tmp_path / "a.mha")


@pytest.mark.parametrize(
    "dimensions", ["-1", "399999999999999999999", "-1 3", "3 3", "x", "", "-1BinaryData = True"]
)
def test_a_number_of_dimensions_that_kills_the_library_is_refused(tmp_path, dimensions):
    header = f"ObjectType = Image\nNDims = {dimensions}\nDimSize = 4 4 4\nElementType = MET_SHORT\n"
    (tmp_path / "a.mha").write_bytes(f"{header}ElementDataFile = LOCAL\n".encode() + bytes(128))
    with pytest.raises(ReadError, match=r"a\.mha can't be read: its number of dimensions"):
        read_volume(tmp_path / "a.mha")


@pytest.mark.parametrize("name", ["[" * 3000, "a\0b", "x" * 300 + ".raw"])
def test_a_data_file_of_an_impossible_name_is_missing(tmp_path, name):
    header = (
        f"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = {name}\n"
    )
    (tmp_path / "a.mhd").write_text(header)
    with pytest.raises(ReadError, match="is missing"):
        read_volume(tmp_path / "a.mhd")


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/hostname"])
def test_a_header_cannot_name_data_outside_its_folder(tmp_path, name):
    folder = tmp_path / "scans"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(64 * 2))
    header = (
        f"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = {name}\n"
    )
    (folder / "a.mhd").write_text(header)
    with pytest.raises(ReadError, match="outside its folder"):
        read_volume(folder / "a.mhd")


def write_dicom(path: Path, *, patient: str = "p") -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = CTImageStorage, "1.2.3", "1.2.4"
    data.Modality, data.PatientID, data.Rows, data.Columns = "CT", patient, 4, 4
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"UL\x04\x00", b"UL\x03\x00"), (b"PN", b"\x42\x00"), (b"US\x02\x00", b"EI\x02\x00")],
)
def test_a_broken_dicom_header_is_listed_not_raised(tmp_path, before, after):
    content = write_dicom(tmp_path / "a.dcm")
    (tmp_path / "a.dcm").write_bytes(content.replace(before, after))
    sources = find_scans([tmp_path])
    assert all(source.problem for source in sources)


@pytest.mark.parametrize("name", NAMES)
def test_odd_file_names_are_read(tmp_path, name):
    path = tmp_path / f"{name}.nii.gz"
    array = np.arange(4**3, dtype=np.int16).reshape(4, 4, 4)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    (source,) = find_scans([tmp_path])
    assert is_plain_name(source.case_id)
    assert "\n" not in source.case_id
    assert read_volume(path).array.shape == (4, 4, 4)


SCRIPT = "<script>alert('x')</script>"


def test_the_report_escapes_names(tmp_path):
    run = tmp_path / "runs" / "<img src=x onerror=alert(1)>"
    run.mkdir(parents=True)
    result = {"kind": "finetune", "task": SCRIPT, "init": SCRIPT, "seed": 0, "test": {"dice_mean": 0.5}}
    result |= {"notes": [SCRIPT], "train_cases": [SCRIPT], "steps": 1}
    (run / "result.json").write_text(json.dumps(result))
    (run / "config.yaml").write_text(yaml.safe_dump({"task": SCRIPT, "init": f"</style>{SCRIPT}"}))
    (run / "metrics.jsonl").write_text(
        json.dumps({"step": 1, "split": "train", SCRIPT: 0.5, "loss": 1}) + "\n"
    )
    (run / "test_cases.csv").write_text(f'case,dice_mean\n"{SCRIPT}",0.5\n')
    page = write_report(tmp_path / "runs")
    text = Path(page).read_text()
    assert "alert('x')" in text or "alert(&#39;x&#39;)" in text  # the names are on the page
    assert "<script>alert" not in text
    assert "<img src=x" not in text


def test_a_log_that_nests_too_deep_is_a_note(tmp_path):
    (tmp_path / "config.yaml").write_text("method: x\n")
    good = json.dumps({"step": 1, "split": "train", "loss": 0.5})
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{'[' * 100_000}\n{good}\n")
    run = read_run(tmp_path)
    assert len(run.records) == 2
    assert run.notes


@pytest.mark.parametrize("line", [b"[" * 3000, b"kinds: domain " + b"[" * 3000])
def test_an_nrrd_header_that_kills_its_library_is_refused(tmp_path, line):
    header = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\n" + line + b"\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(header + bytes(128))
    with pytest.raises(ReadError, match="line 5 of its header is no field"):
        read_volume(tmp_path / "a.nrrd")


def test_an_unknown_unit_of_length_is_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[123] = 7
    (tmp_path / "a.nii").write_bytes(bytes(content))
    with pytest.raises(ReadError, match=r"a\.nii can't be read"):
        read_volume(tmp_path / "a.nii")
