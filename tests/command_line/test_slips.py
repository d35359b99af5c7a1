"""The slips that people make most: one sentence each, nothing made, no torch imported, and the next try works."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import parts2whole as p2w
from parts2whole.cli import load_outline, main
from parts2whole.command_line import foresee, slips
from parts2whole.command_line.commands import COMMANDS
from parts2whole.files import DiskFullError
from parts2whole.networks.base import Network
from parts2whole.scans.read import write_nifti
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.spec import members
from parts2whole.study.read import ArgumentsError
from parts2whole.training.lock import hold_folder, refuse_begun

TASK = ["--task", "Segmentation", "--data", "labelled", "--out", "run"]
SLIPS = [
    # wrong path
    (["prepare", "scan", "--out", "new"], "SCANS: there is no file or folder scan; did you mean scans?"),
    (["pretrain", "stor", "--out", "run"], "STORE: there is no file or folder stor; did you mean store?"),
    (["finetune", *TASK[:3], "labeled", *TASK[4:]], "--task.data: there is no file or folder labeled; did you mean"),
    (["start", "scan"], "SCANS: there is no file or folder scan; did you mean scans?"),
    (["start", "scans", "scans", "--out", "new.yaml"], "LABELLED: scans needs images/ and labels/ folders, or a dataset.json"),
    (["finetune", *TASK[:3], "scans", *TASK[4:]], "--task.data: scans needs images/ and labels/ folders"),
    # divisible by 8
    (["pretrain", "store", "--out", "run", "--whole-size", "30,64,64"], "--whole-size must be divisible by 8"),
    (["pretrain", "store", "--out", "run", "--network", "I3D", "--whole-size", "16,32,32"], "by 32 along"),
    (["finetune", *TASK, "--task.patch-size", "20,32,32"], "for UNet3D, got 20,32,32; 16,32,32 is near"),
    (["finetune", *TASK, "--init", "weights", "--task.patch-size", "24,32,32"], "by 32 along every axis for I3D"),
    # wrong shape of a list
    (["pretrain", "store", "--out", "run", "--whole-size", "64,64"], "--whole-size must be 3 whole numbers"),
    (["finetune", *TASK, "--task.patch-size", "32x32x32"], "--task.patch-size must be 3 whole numbers"),
    (["prepare", "scans", "--out", "new", "--window-hu", "200"], "--window-hu must be 2 numbers"),
    (["start", "scans", "--minutes", "an hour"], "--minutes must be a number"),
    # a dash
    (["pretrain", "store", "--out", "run", "\u2013steps", "4"], "did you mean --steps, with two hyphens?"),
    (["finetune", *TASK, "\u2014-fraction", "0.1"], "did you mean --fraction, with two hyphens?"),
    (["prepare", "scans", "-out", "new"], "did you mean --out, with two hyphens?"),
    (["start", "scans", "\u2212minutes", "4"], "did you mean --minutes, with two hyphens?"),
    # a typo in an option
    (["prepare", "scans", "--out", "new", "--modalty", "CT"], "there is no option --modalty; did you mean --modality?"),
    (["pretrain", "store", "--out", "run", "--stepss", "4"], "did you mean --steps?"),
    (["finetune", *TASK, "--fractoin", "0.1"], "did you mean --fraction?"),
    (["start", "scans", "--minuts", "4"], "did you mean --minutes?"),
    # the out folder is in use
    (["prepare", "scans", "--out", "used"], "used is in use; choose another folder, or empty it first"),
    (["pretrain", "store", "--out", "used"], "used is not empty and holds no run, but notes.txt: choose another"),
    (["pretrain", "store", "--out", "finished"], "finished already holds a finished run: choose another --out"),
    (["finetune", *TASK[:4], "--out", "finished"], "finished already holds a finished run: choose another --out"),
    (["start", "scans", "--out", "plan.yaml"], "plan.yaml is there already; remove it, or name another file: --out plan-2"),
]  # fmt: skip

FULL = [
    (["prepare", "scans", "--out", "new", "--modality", "MR"], "no space is left for new: 7 MB are free there, and it"),
    (["pretrain", "store", "--out", "run"], "no space is left for run: 7 MB are free there, and it takes 10 MB or more"),
    (["finetune", *TASK], "no space is left for run: 7 MB are free"),
    (["benchmark", "study.yaml"], "no space is left for study: 7 MB are free"),
    (["start", "scans", "--out", "new.yaml"], "no space is left for new.yaml: 7 MB are free"),
]  # fmt: skip
UNSAID = [
    (["prepare", "scans", "--out", "new"], "--modality is missing: none of 2 scans looked at says whether it is CT or MR"),
    (["finetune", *TASK], "(l0.nii.gz: voxels range from 1 to 500: no air in Hounsfield units); add --task.preprocess"),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("slips")
    for number in range(4):
        scan = np.random.default_rng(number).integers(0, 500, (16, 16, 16)).astype(np.int16)
        write_nifti(Volume(scan), root / "scans" / f"s{number}.nii.gz")
        write_nifti(Volume(scan + 1), root / "labelled" / "images" / f"l{number}.nii.gz")
        label = LabelVolume((scan > 250).astype(np.uint8))
        write_nifti(label, root / "labelled" / "labels" / f"l{number}.nii.gz")
    for folder in ("store", "used", "finished", "weights"):
        (root / folder).mkdir()
    (root / "study.yaml").write_text("name: one\n")
    for file in ("used/notes.txt", "finished/config.yaml", "plan.yaml"):
        (root / file).write_text("{}")
    (root / "finished" / "result.json").write_text("{}")
    (root / "weights" / "card.json").write_text(
        json.dumps({"network": {"class_path": "I3D", "init_args": {}}})
    )
    return root


def test_every_slip_is_one_sentence_before_torch_is_imported(place):
    script = f"""
import collections, contextlib, io, shutil, sys
from parts2whole.cli import main
there = shutil.disk_usage
lists = [(slips, {{"torch", "zarr", "nibabel", "numpy"}}) for slips in ({SLIPS!r}, {FULL!r})]
for slips, late in (*lists, ({UNSAID!r}, {{"torch", "zarr"}})):
  shutil.disk_usage = (lambda _: there("/")._replace(free=7_000_000)) if slips == {FULL!r} else there
  for arguments, said in slips:
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        code = main(arguments)
    line = told.getvalue().strip()
    assert code == 2 and said in line and "\\n" not in line, (arguments, code, line)
    assert line.startswith(f"parts2whole {{arguments[0]}}: "), line
  assert not late & set(sys.modules), slips
"""
    before = sorted(place.rglob("*"))
    done = subprocess.run([sys.executable, "-c", script], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(place.rglob("*")) == before


def test_scans_that_say_nothing_are_no_slip_where_something_else_does(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    out = tmp_path / "store"
    assert main(["prepare", "scans", "--out", str(out), "--modality", "MR"]) == 0
    assert main(["prepare", "scans", "--out", str(out), "--modality", "MR"]) == 0
    finetune, task = load_outline(COMMANDS["finetune"]), p2w.Segmentation("labelled")
    for known in ({"init": "weights"}, {"network_from": "weights"}, {"resume": True, "out": "finished"}):
        slips.check("finetune", (), finetune, {"task": task, "out": "run"} | known)


@pytest.mark.parametrize(
    ("voxels", "said"), [([0, 500], "none of 3 scans"), ([-1000, 500], ""), ([np.nan, 0], "")]
)
def test_scans_are_known_as_soon_as_one_of_a_few_is(tmp_path, voxels, said):
    for number in range(7):
        array = np.resize(voxels if number == 3 else [0, 500], (8, 8, 8)).astype(np.float32)
        write_nifti(Volume(array), tmp_path / f"s{number}.nii.gz")
    assert foresee.tell_unknown_modality([tmp_path])[: len("none of 3 scans")] == said


def test_scans_of_other_formats_and_large_ones_are_left_to_the_command(place, tmp_path, monkeypatch):
    assert foresee.tell_unknown_modality([place / "scans"])
    (tmp_path / "slice.dcm").touch()
    assert not foresee.tell_unknown_modality([place / "scans", tmp_path])
    monkeypatch.setattr(foresee, "SMALL", 10)
    assert not foresee.tell_unknown_modality([place / "scans"])


def test_the_room_that_a_store_takes_is_foreseen_from_below(place, tmp_path):
    scans = [place / "scans"]
    store = p2w.prepare(scans, out=tmp_path / "store", modality="MR", progress=False)
    takes = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert len(store.cases) == 4
    assert 0.1 * takes < foresee.room_for_store(scans, {}) < takes
    assert foresee.room_for_store(scans, {"spacing_mm": (4, 4, 4)}) == 0
    study = tmp_path / "study.yaml"
    study.write_text(f"data: {{stores: {{one: {{scans: {place / 'scans'}}}}}}}")
    assert foresee.room_for_study(study, tmp_path / "out") == foresee.room_for_store(scans, {})
    (tmp_path / "out" / "stores" / "one").mkdir(parents=True)
    (tmp_path / "out" / "stores" / "one" / "manifest.json").touch()
    assert foresee.room_for_study(study, tmp_path / "out") == 0


def test_a_mistake_in_a_study_is_told_by_its_reader(tmp_path):
    for text in ("data: [", "data: 3", "data: {stores: {one: 2}}", "{}"):
        (tmp_path / "study.yaml").write_text(text)
        assert foresee.room_for_study(tmp_path / "study.yaml", tmp_path) == 0


def test_labelled_cases_among_the_scans_are_told(place, tmp_path, capsys):
    store = p2w.prepare(place / "labelled", out=tmp_path / "store", modality="MR")
    told = capsys.readouterr().out
    assert len(store.cases) == 4
    assert "labelled/labels holds labels" in told
    assert "--held-out" in told


@pytest.fixture(scope="module")
def pretrained(place, tmp_path_factory):
    """What a pre-training on the labelled scans leaves, as far as a look at it goes."""
    run = tmp_path_factory.mktemp("pretrained")
    store = p2w.prepare(place / "labelled" / "images", out=run / "store", modality="MR", progress=False)
    (run / "weights").mkdir()
    card = {"network": {"class_path": "UNet3D"}, "seen": [record.content_hash for record in store.cases]}
    (run / "weights" / "card.json").write_text(json.dumps(card))
    (run / "config.yaml").write_text(f"store: {run / 'store'}\n")
    return run


def test_weights_that_have_seen_all_labelled_scans_are_told_before_torch_is_imported(place, pretrained):
    script = f"""
import sys
from parts2whole.cli import main
code = main(["finetune", *{TASK!r}, "--init", {str(pretrained)!r}, "--task.preprocess.modality", "MR"])
assert code == 2 and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert f"{pretrained} was trained on all 4 labelled scans, those to validate and to test on" in said
    assert "among them; pre-train again with --held-out" in said
    assert not (place / "run").exists()


@pytest.mark.parametrize(
    ("compared", "copies"), [(0, False), (foresee.COMPARED, False), (foresee.COMPARED, True)]
)
def test_scans_are_known_by_their_files_and_copies_by_their_voxels(
    pretrained, place, tmp_path, compared, copies, monkeypatch
):
    monkeypatch.setattr(foresee, "COMPARED", compared)
    data, init = place / "labelled", pretrained
    if copies:  # under other names, turned, and without the store
        data, init = tmp_path / "copies", pretrained / "weights"
        for number in range(4):
            scan = np.random.default_rng(number).integers(0, 500, (16, 16, 16)).astype(np.float32) + 1
            turned = Volume(scan[::-1], direction=((0, 0, 1), (0, 1, 0), (-1, 0, 0)))
            write_nifti(turned, data / "images" / f"c{number}.nii")
    assert foresee.tell_all_seen(init, data).startswith(f"{init} was trained on all 4 labelled scans")


def test_scans_that_need_not_have_been_seen_are_left_to_the_command(pretrained, place, tmp_path, monkeypatch):
    data = tmp_path / "data"
    shutil.copytree(place / "labelled", data)
    assert foresee.tell_all_seen(pretrained, data)
    odd = tmp_path / "odd"
    shutil.copytree(pretrained / "weights", odd / "weights")
    (odd / "config.yaml").write_text("[]")
    for nothing in (tmp_path, place / "weights", place / "finished", odd):
        assert not foresee.tell_all_seen(nothing, data)
    assert not foresee.tell_all_seen(pretrained, place / "scans")
    monkeypatch.setattr(foresee, "COMPARED", 0)
    assert foresee.tell_all_seen(pretrained, data), "copies with the time of their files are the same files"
    (data / "images" / "l3.nii.gz").touch()
    assert not foresee.tell_all_seen(pretrained, data)
    monkeypatch.undo()
    scan = Volume(np.ones((16, 16, 16), np.int16))
    write_nifti(scan, data / "images" / "l3.nii.gz")
    assert not foresee.tell_all_seen(pretrained, data), "one is new"
    task = p2w.Segmentation(place / "labelled", preprocess=p2w.Preprocess("MR"))
    finetune = load_outline(COMMANDS["finetune"])
    for fine in ({"accept_leak": "yes"}, {"resume": True, "out": "finished"}, {"init": "scratch"}):
        slips.check("finetune", (), finetune, {"task": task, "out": "run", "init": str(pretrained)} | fine)


def test_a_folder_that_another_run_is_at(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    with hold_folder(tmp_path / "run"):
        assert main(["pretrain", "store", "--out", str(tmp_path / "run")]) == 2
    assert "run is in use by process" in capsys.readouterr().err
    refuse_begun(tmp_path / "run")


def test_no_space_left_is_one_sentence_with_the_place(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with (
            pytest.raises(DiskFullError, match=f"no space is left for {tmp_path}"),
            hold_folder(tmp_path / "run"),
        ):
            pass
    with hold_folder(tmp_path / "run"):
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("network", members(Network), ids=lambda network: network.__name__)
def test_a_network_takes_no_edge_that_its_class_rules_out(network):
    assert network().build_encoder(1).divisor % network.least_divisor == 0


def test_going_on_with_a_run_is_no_slip(place):
    settings = {"store": place / "store", "out": place / "finished"}
    pretrain = load_outline(COMMANDS["pretrain"])
    slips.check("pretrain", ("store",), pretrain, settings | {"resume": True})
    with pytest.raises(ArgumentsError, match="already holds a finished run"):
        slips.check("pretrain", ("store",), pretrain, settings)
