"""Commands to be pasted are what the command line reads back, in lines that fit a terminal."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import parts2whole as p2w
from parts2whole.cli import load, read, split_name
from parts2whole.command_line.commands import COMMANDS
from parts2whole.own import import_own
from parts2whole.scans.preprocess import Preprocess
from parts2whole.study.read import Reader
from parts2whole.tasks.augment import Augmentation
from parts2whole.verbs import paste


def read_back(text: str) -> dict[str, object]:
    """What a shell and the command line make of it."""
    assert all(len(line) <= 80 for line in text.splitlines())
    program, *words = shlex.split(text.replace("\\\n", " "))
    assert program == "parts2whole"
    name, arguments = split_name(words)
    return read(COMMANDS[name], load(COMMANDS[name]), arguments, Reader())


@pytest.mark.parametrize(
    "task",
    [
        p2w.Segmentation(Path("my data")),
        p2w.Segmentation(
            Path("labelled"),
            preprocess=Preprocess(modality="MR", spacing_mm=(2.0, 1.0, 1.0)),
            augmentation=Augmentation(flip_axes=(1, 2), scale=(0.9, 1.0)),
            window_size=(16, 24, 32),
            patch_size=(16, 24, 32),
            test_fraction=0.5,
            patient_pattern=r"sub-(\d+)",
        ),
    ],
)
def test_a_typed_task_is_the_task(task):
    typed = paste.command(
        "finetune", task=task, init="runs/it's", out="runs/b", encoder_lr=0.1, progress=False
    )
    values = read_back(typed)
    assert values == {
        "task": task,
        "init": "runs/it's",
        "out": "runs/b",
        "encoder_lr": 0.1,
        "progress": False,
    }


def test_names_of_groups_and_what_stands_alone(tmp_path):
    assert read_back(paste.command("stats patients", tmp_path / "a b", "c"))["runs"] == [
        str(tmp_path / "a b"),
        "c",
    ]


def test_a_class_of_ones_own_is_typed_with_its_file(tmp_path):
    file = tmp_path / "mine_to_paste.py"
    file.write_text(
        "import dataclasses\nfrom parts2whole.networks.unet3d import UNet3D\n"
        "@dataclasses.dataclass(frozen=True)\nclass PastedNet(UNet3D):\n    depth: int = 3\n"
    )
    network = import_own(file)
    typed = paste.command("pretrain", "store", out="runs/a", network=network.PastedNet(depth=4))
    assert f"--network {file}:PastedNet" in typed.replace("\\\n      ", "")
    assert shlex.split(typed.replace("\\\n", " "))[-2:] == ["--network.depth", "4"]


def test_scans_are_where_the_layout_has_them_and_nothing_is_written_over(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    assert paste.scans_of(tmp_path) == tmp_path / "imagesTr"
    assert paste.scans_of(tmp_path / "imagesTr") == tmp_path / "imagesTr"
    (tmp_path / "out").mkdir()
    (tmp_path / "out-2").mkdir()
    assert paste.unused(tmp_path / "out") == tmp_path / "out-3"
    assert paste.unused(tmp_path / "other") == tmp_path / "other"
