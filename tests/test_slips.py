"""The slips that people make most: one sentence each, nothing made, no torch imported, and the next try works."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import parts2whole as p2w
from parts2whole import slips
from parts2whole.cli import COMMANDS, load_outline, main
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
    for file in ("used/notes.txt", "finished/config.yaml", "plan.yaml"):
        (root / file).write_text("{}")
    (root / "finished" / "result.json").write_text("{}")
    (root / "weights" / "card.json").write_text(
        json.dumps({"network": {"class_path": "I3D", "init_args": {}}})
    )
    return root


def test_every_slip_is_one_sentence_before_torch_is_imported(place):
    script = f"""
import contextlib, io, sys
from parts2whole.cli import main
for arguments, said in {SLIPS!r}:
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        code = main(arguments)
    line = told.getvalue().strip()
    assert code == 2 and said in line and "\\n" not in line, (arguments, code, line)
    assert line.startswith(f"parts2whole {{arguments[0]}}: "), line
assert not {{"torch", "zarr", "nibabel", "numpy"}} & set(sys.modules)
"""
    before = sorted(place.rglob("*"))
    done = subprocess.run([sys.executable, "-c", script], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(place.rglob("*")) == before


def test_a_missing_modality_is_one_sentence_and_the_next_try_works(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    out = tmp_path / "store"
    assert main(["prepare", "scans", "--out", str(out), "--no-progress"]) == 1
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert "4 of 4 were set aside: can't tell the modality" in told
    assert "add --modality CT or --modality MR" in told
    assert main(["prepare", "scans", "--out", str(out), "--modality", "MR"]) == 0


def test_labelled_cases_among_the_scans_are_told(place, tmp_path, capsys):
    store = p2w.prepare(place / "labelled", out=tmp_path / "store", modality="MR")
    told = capsys.readouterr().out
    assert len(store.cases) == 4
    assert "labelled/labels holds labels" in told
    assert "--held-out" in told


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
