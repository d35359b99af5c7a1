"""The diagnosis of a machine names what is there and what isn't."""

from __future__ import annotations

import importlib.util

import torch

import parts2whole as p2w
from parts2whole.cli import main


def test_it_names_versions_and_what_is_missing(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "umap" else find(name))
    found = dict(p2w.doctor().found)
    assert found["torch"] == torch.__version__
    assert found["umap"].startswith("not installed")
    assert "GB free" in found["disk here"]
    assert found["compiler"].startswith("off,")
    assert not p2w.Hardware().compile


def test_the_command_prints_it(capsys):
    assert main(["doctor"]) == 0
    assert "precision" in capsys.readouterr().out
