"""Every example runs to its end, on little, and stays short."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_it_is_called(path):
    text = path.read_text()
    assert len(text.splitlines()) < 80
    assert f"python examples/{path.name}" in text


def test_pretrain(tmp_path, capsys):
    load("pretrain").main(tmp_path, steps=2)
    said = capsys.readouterr().out
    assert "features of (1, 8, 32, 32, 32)" in said
    assert "Parts2Whole" in said
    card = json.loads((tmp_path / "pretrained" / "weights" / "card.json").read_text())
    tested = json.loads((tmp_path / "runs" / "pretrained" / "result.json").read_text())
    assert tested["leaks"] == []
    assert len(card["seen"]) < 13


def test_own_method(tmp_path, capsys):
    load("own_method").main(tmp_path, steps=2)
    said = capsys.readouterr().out
    assert "kept      It is a frozen spec" in said
    assert "broken" not in said
    assert "WhichWayUp" in (tmp_path / "run" / "config.yaml").read_text()


def test_published_weights(tmp_path, capsys):
    load("published_weights").main(tmp_path, steps=1)
    assert "MedicalNet" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 1


def test_published_numbers(capsys):
    # Welch's t = 0.41 / sqrt((0.23^2 + 0.27^2) / 10) = 3.66 with 17.6 degrees of freedom: p = 0.0018
    assert load("published_numbers").main("98.67±0.23", "98.26±0.27", n=10) == pytest.approx(0.0018, abs=1e-4)
    assert "how many runs?" in capsys.readouterr().out
