"""The command line: mistakes are told first and alone, help is there, and own classes work everywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

import parts2whole as p2w
from parts2whole.cli import load_outline, main, read
from parts2whole.command_line import outline
from parts2whole.command_line.commands import COMMANDS
from parts2whole.study.read import Reader, Words

OWN = """
import dataclasses

import torch

import parts2whole as p2w


@dataclasses.dataclass(frozen=True)
class OwnBlur(p2w.Reconstruction):
    '''Rebuild a whole from a blurred one.

    Attributes:
        width: edge of the blur, in voxels.
    '''

    width: int = 3

    def build(self, network, *, in_channels, whole_size):
        return p2w.Parts2Whole().build(network, in_channels=in_channels, whole_size=whole_size)

    def views(self, wholes, generator):
        if self.width > 8:
            raise RuntimeError("too wide")
        part = torch.nn.functional.avg_pool3d(wholes, self.width, 1, self.width // 2)
        return {"part": part, "whole": wholes}

    def loss(self, module, views):
        return {"loss": torch.nn.functional.l1_loss(self.reconstruct(module, views["part"]), views["whole"])}

    def reconstruct(self, module, part):
        return torch.sigmoid(module(part))


@dataclasses.dataclass(frozen=True)
class OwnThin(p2w.Network):
    norm: str = "group"

    def build_encoder(self, in_channels):
        return p2w.UNet3D(size="tiny", norm=self.norm).build_encoder(in_channels)


@dataclasses.dataclass(frozen=True)
class OwnCases(p2w.SegmentationTask):
    def sources(self):
        return p2w.Segmentation(self.data).sources()
"""
SMALL = "--whole-size 16 16 16 --steps 1 --batch-size 2 --validation-wholes 2 --embed-wholes 0 --no-progress"
TASK = "--task.patch-size 16,16,16 --task.preprocess.modality MR --task.validation-fraction .25"
EXACT = "--hardware.accelerator cpu --hardware.precision 32-true"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``mine.py``, and labelled scans with a store of them."""
    root = tmp_path_factory.mktemp("own")
    (root / "mine.py").write_text(OWN)
    generator = np.random.default_rng(0)
    for case in range(6):
        for kind in ("scans", "labelled/images", "labelled/labels"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            image = generator.normal(100, 5, (16, 16, 16)).astype(np.float32)
            array = (image > 100).astype(np.uint8) if kind.endswith("labels") else image
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / kind / f"{case}.nii.gz")
    p2w.prepare(root / "scans", out=root / "store", modality="MR", workers=0, progress=False)
    return root


@pytest.fixture(scope="module")
def pretrained(folder: Path) -> Path:
    method = f"--method {folder}/mine.py:OwnBlur --method.width 5 --network {folder}/mine.py:OwnThin"
    assert main(f"pretrain {folder}/store --out {folder}/run {method} {SMALL} {EXACT}".split()) == 0
    return folder / "run"


def told(capsys: pytest.CaptureFixture[str], line: str, code: int = 2) -> str:
    """The only line that a command says, which doesn't work."""
    assert main(line.split()) == code
    said = capsys.readouterr()
    assert said.out == ""
    (only,) = said.err.strip().splitlines()
    return only


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pretrian", "parts2whole: there is no command 'pretrian'; did you mean pretrain?"),
        ("weights imprt x", "there is no command 'weights imprt'; did you mean weights import?"),
        ("pretrain", "parts2whole pretrain: STORE is missing: folder made by `prepare`"),
        ("pretrain .", "parts2whole pretrain: --out is missing: the run folder to make."),
        ("pretrain sore --out x", "STORE: there is no file or folder sore; did you mean store?"),
        ("pretrain store --out x --method Mine", "--method: there is no Method called 'Mine'"),
        ("pretrain store --out x --method none.py:Mine", "--method: there is no file none.py"),
        ("pretrain store --out x --whole-size 16,16", "--whole-size must be 3 whole numbers, such as 32,64,64"),
        ("pretrain store --out x --config none.yaml", "--config none.yaml can't be read"),
        ("pretrain store --out x --config bad.yaml", "--config bad.yaml: it has no setting 'stepps'"),
        ("finetune --out x --data labeled", "--task must name a Task: BrainTumourSegmentation"),
        ("finetune --out x --task Segmentation", "--task.data is missing: Segmentation needs it"),
        ("finetune --out x --task Segmentation --data labeled", "--task.data: there is no file or folder labeled; did you mean labelled?"),
        ("evaluate store --own none.py", "--own: there is no file none.py"),
        ("evaluate store --own", "--own needs a value: a file with classes of your own"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_first_and_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "bad.yaml").write_text("stepps: 3")
    assert message in told(capsys, line)
    assert not (folder / "x").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_for_all_its_parameters(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: parts2whole {name}")
    assert max(map(len, text.splitlines())) <= 110
    assert "--own FILE.py" in text


def test_help_says_what_is_typed_and_what_happens_without(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "-h"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "usage: parts2whole pretrain STORE --out PATH [OPTIONS]" in text
    for words in (
        "--whole-size N,N,N size of a whole in voxels (z, y, x), as the network sees it. (default 32,64,64)",
        "--seed N of initial weights, wholes and views. (default 0)",
        "--weights scans|voxels draw all scans alike",
        "--no-progress don't show a progress bar.",
        "--resume [auto] true goes on",
        "One of Autoencoder, Exemplar, MaskedAutoencoder, MoCo, ModelsGenesis, Parts2Whole, Parts2WholeContrast, SimCLR, VolumeFusion. (default Parts2Whole)",
        "--method.part-fraction X,X band (low, high)",
    ):
        assert words in text


def test_help_shows_the_fields_of_the_class_that_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "--method", "SimCLR", "--help"]) == 0
    text = capsys.readouterr().out
    assert "fields of --method SimCLR:" in text
    assert "t; small values care for the hardest negatives. (default 0.1)" in " ".join(text.split())
    assert main(f"pretrain --method {folder}/mine.py:OwnBlur --help".split()) == 0
    assert "--method.width N        edge of the blur, in voxels. (default 3)" in capsys.readouterr().out


def test_own_classes_work_from_pretraining_to_prediction(
    folder: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = yaml.safe_load((pretrained / "config.yaml").read_text())
    assert config["method"] == {"class_path": "OwnBlur", "init_args": {"width": 5}}
    monkeypatch.chdir(folder)
    line = f"--own mine.py finetune --task OwnCases --data labelled --init run {TASK} {EXACT} --out {tmp_path}/ft"
    assert main([*line.split(), "--steps", "1", "--no-progress"]) == 0
    assert (
        main(f"predict {tmp_path}/ft labelled/images/0.nii.gz --out {tmp_path}/masks --no-progress".split())
        == 0
    )
    assert (tmp_path / "masks" / "0.nii.gz").exists()


def test_a_config_is_run_again_with_other_settings_and_imports_nothing(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"pretrain --config {pretrained}/config.yaml --method.width 7 --out {tmp_path}/again"
    assert told(capsys, line).endswith(f"It was made with --own {pretrained.parent}/mine.py")
    assert main([*line.split(), "--own", f"{pretrained.parent}/mine.py"]) == 0
    config = yaml.safe_load((tmp_path / "again" / "config.yaml").read_text())
    assert config["method"]["init_args"] == {"width": 7}
    assert config["steps"] == 1
    (tmp_path / "evil.py").write_text("raise SystemExit(3)")
    (tmp_path / "config.yaml").write_text(f"method: {tmp_path}/evil.py:Evil")
    capsys.readouterr()
    message = told(capsys, f"pretrain . --out x --config {tmp_path}/config.yaml")
    assert "method: there is no Method called 'Evil'" in message


def test_what_was_made_with_a_class_that_is_not_known_says_which_file_to_name(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pretrained / "weights", tmp_path / "weights")
    card = json.loads((pretrained / "weights" / "card.json").read_text())
    card["network"]["class_path"] = "Gone"
    (tmp_path / "weights" / "card.json").write_text(json.dumps(card))
    environment = json.loads((pretrained / "environment.json").read_text())
    assert environment["own_files"]["OwnThin"] == str(pretrained.parent / "mine.py")
    (tmp_path / "environment.json").write_text(json.dumps({"own_files": {"Gone": "/home/me/gone.py"}}))
    message = told(capsys, f"weights show {tmp_path}/weights", code=1)
    assert "there is no Network called 'Gone'" in message
    assert message.endswith("It was made with --own /home/me/gone.py")


def test_a_mistake_in_an_own_method_is_one_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = f"--method {folder}/mine.py:OwnBlur --method.width 9 --network.size tiny"
    line = f"pretrain {folder}/store --out {tmp_path}/run {method} {SMALL} {EXACT}"
    message = told(capsys, line, code=1)
    number = next(i for i, text in enumerate(OWN.splitlines(), 1) if "too wide" in text)
    assert message.startswith(
        f"parts2whole pretrain: RuntimeError: too wide, raised by OwnBlur ({folder}/mine.py, line {number})"
    )


def test_a_study_names_own_classes_and_its_workers_know_them(folder: Path, pretrained: Path) -> None:
    settings: dict[str, Any] = {"data": "labelled", "patch_size": [16] * 3, "preprocess": {"modality": "MR"}}
    study = {
        "arms": {"given": {"init": "run"}},  # whose network only mine.py knows
        "tasks": {"Own": {"task": {"mine.py:OwnCases": settings | {"validation_fraction": 0.25}}}},
        "finetune": {"steps": 1, "accept_leak": None},
        "hardware": {"accelerator": "cpu", "precision": "32-true"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    done = p2w.benchmark(folder / "study.yaml", out=folder / "bench", workers=1, progress=False)
    assert (done.finished, done.failures) == (1, {})


def test_a_reader_that_has_seen_enough_is_no_error():
    command = subprocess.Popen(
        [sys.executable, "-m", "parts2whole", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with command:
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 141


def typed(command: str, line: list[str]) -> dict[str, object]:
    return read(COMMANDS[command], load_outline(COMMANDS[command]), line, Reader(known=outline.known))


def test_an_option_of_several_values_that_is_given_twice_has_all_of_them():
    found = typed("prepare", ["--scans", "a", "b", "--scans", "c", "--out", "o"])
    assert list(map(str, found["scans"])) == ["a", "b", "c"]
    found = typed("compare", ["--runs", "a", "--runs", "b"])
    assert list(map(str, found["runs"])) == ["a", "b"]
    found = typed("prepare", ["a", "--out", "o", "--workers", "2", "--workers", "3"])
    assert found["workers"] == 3


@pytest.mark.parametrize("text", ["#", "~", "Null", r"#(\d+)", "# seen", "&a", "_", "- x", "[", "yes", "1"])
def test_text_is_what_was_typed_whatever_yaml_would_take_it_for(text):
    assert Reader().value(text, str | None, "--x") == text
    assert Reader().value(Words([text]), str | None, "--x") == text
    assert Reader().value("null", str | None, "--x") is None
