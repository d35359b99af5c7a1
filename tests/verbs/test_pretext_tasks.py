"""Every pretext task from the command line: pre-train, go on, fine-tune; and a new one in one file."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import parts2whole as p2w
from parts2whole.cli import main
from parts2whole.methods.base import FixedBank, Method
from parts2whole.spec import discover

METHODS = discover(Method, "parts2whole.methods")
SOURCE = Path(p2w.__file__).parent
TESTS = Path(__file__).parents[1]
SHORT = [
    "--network.size",
    "tiny",
    "--whole_size",
    "[8,16,16]",
    "--batch_size",
    "4",
    "--validation_wholes",
    "5",
    "--validate_every",
    "2",
    "--embed_wholes",
    "0",
    "--progress",
    "false",
    "--hardware.accelerator",
    "cpu",
    "--hardware.precision",
    "32-true",
]


def write_scans(folder: Path, cases: range) -> Path:
    for case in cases:
        generator = np.random.default_rng(case)
        image = generator.normal(0, 50, (18, 18, 10)).astype(np.float32)
        label = np.zeros(image.shape, np.uint8)
        label[4:10, 5:12, 3:7] = 1
        image[label == 1] += 300
        for kind, array in (("images", image), ("labels", label)):
            (folder / kind).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / kind / f"case_{case}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """The labelled scans of the target task, none of which is pre-trained on."""
    return write_scans(tmp_path_factory.mktemp("labelled"), range(5))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    unlabelled = write_scans(tmp_path_factory.mktemp("unlabelled"), range(5, 10)) / "images"
    out = tmp_path_factory.mktemp("store") / "store"
    return p2w.prepare([unlabelled], out=out, modality="MR", workers=0, progress=False).path


def pretrain(store: Path, out: Path, method: str, *more: str) -> int:
    return main(["pretrain", str(store), "--out", str(out), "--method", method, *SHORT, *more])


def finetune(scans: Path, init: Path, out: Path) -> int:
    line = (
        f"finetune --task Segmentation --data {scans} --task.preprocess.modality MR --task.patch_size [8,16,16] "
        f"--task.validation_fraction 0.2 --task.test_fraction 0.2 --init {init} --out {out} --cache {out}-cache "
        "--steps 2 --batch_size 2 --progress false --hardware.accelerator cpu --hardware.precision 32-true"
    )
    return main(line.split())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_pretrains(name, store, tmp_path):
    assert pretrain(store, tmp_path / "run", name, "--steps", "4") == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in records if r["split"] == "validation"]
    assert len(losses) == 3  # before the first step, too
    assert all(np.isfinite(losses))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert any(key.startswith("baseline_") for key in result)
    said = any("wholes that are trained on" in note for note in result["notes"])
    assert said is issubclass(METHODS[name], FixedBank)
    card = json.loads((tmp_path / "run" / "weights" / "card.json").read_text())
    assert card["citation"] == METHODS[name].citation
    assert (tmp_path / "run" / "report.html").stat().st_size > 0


@pytest.mark.parametrize("in_a_file", [False, True])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_chosen_by_name_has_its_own_defaults(name, in_a_file, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr("parts2whole.cli.load", lambda command: spy)

    @functools.wraps(p2w.pretrain)
    def spy(*_, **values):
        seen.update(values)

    (tmp_path / "store").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(f"method: {name}\nsteps: 3\n")
    chosen = ["--config", str(tmp_path / "run.yaml")] if in_a_file else ["--method", name]
    assert main(["pretrain", "store", "--out", "x", *chosen]) == 0
    assert seen["method"] == METHODS[name]()
    field = dataclasses.fields(METHODS[name])[-1]
    value = {bool: not field.default, int: 3, float: 0.5}[type(field.default)]
    assert (
        main(["pretrain", "store", "--out", "x", *chosen, f"--method.{field.name}", json.dumps(value)]) == 0
    )
    assert seen["method"] == METHODS[name](**{field.name: value})


def test_fields_of_the_default_method_can_be_changed_without_naming_it(tmp_path, monkeypatch):
    seen = {}
    (tmp_path / "store").mkdir()
    monkeypatch.chdir(tmp_path)

    @functools.wraps(p2w.pretrain)
    def spy(*_, **values):
        seen.update(values)

    monkeypatch.setattr("parts2whole.cli.load", lambda command: spy)
    assert main(["pretrain", "store", "--out", "x", "--method.parts_per_whole", "3"]) == 0
    assert seen["method"] == p2w.Parts2Whole(parts_per_whole=3)


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """``simclr.py`` copied under another class name into a package out of the tree."""
    folder = tmp_path / "my_pkg"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    text = (SOURCE / "methods" / "simclr.py").read_text()
    (folder / "mine.py").write_text(text.replace("class SimCLR(", "class Mine("))
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder / "mine.py"


def test_a_method_out_of_the_tree_works_from_the_command_line(
    mine, store, scans, tmp_path, monkeypatch, capsys
):
    name = "my_pkg.mine.Mine"
    out = tmp_path / "run"
    assert pretrain(store, out, name, "--method.temperature", "0.3", "--steps", "2") == 0
    assert "class_path: Mine\n" in (out / "config.yaml").read_text()
    (out / "result.json").unlink()  # as if it had been interrupted after its checkpoint
    assert pretrain(store, out, name, "--method.temperature", "0.3", "--steps", "2", "--resume", "true") == 0
    for module in ("my_pkg", "my_pkg.mine"):
        monkeypatch.delitem(sys.modules, module)
    shutil.rmtree(mine.parent)  # whoever gets the weights doesn't have the method
    encoder = p2w.load_encoder(out)
    assert encoder.channels == (8, 16, 32, 64)
    assert finetune(scans, out, tmp_path / "ft") == 0
    assert pretrain(store, tmp_path / "again", name, "--steps", "2") == 2
    assert "no module my_pkg.mine on the Python path" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("importlinter") is None, reason="needs the extra check")
def test_a_copied_file_keeps_the_import_rules(tmp_path):
    package = tmp_path / "parts2whole"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCE / "methods" / "simclr.py", package / "methods" / "mine.py")
    shutil.copy(TESTS.parent / "pyproject.toml", tmp_path)
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", lint]
    kept = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert kept.returncode == 0, kept.stdout
    (package / "methods" / "mine.py").write_text("from parts2whole.methods.moco import MoCo as Mine\n")
    broken = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert broken.returncode == 1
    assert "mine -> parts2whole.methods.moco" in broken.stdout
