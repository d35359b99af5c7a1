"""The diagnosis of a machine names what is there and what isn't."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import torch

import parts2whole as p2w
from parts2whole.cli import main
from parts2whole.verbs.doctor import OPTIONAL


def test_it_names_versions_and_what_is_missing(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "umap" else find(name))
    found = dict(p2w.doctor().found)
    assert found["torch"] == torch.__version__
    assert found["umap"].startswith("not installed")
    assert "GB free" in found["disk here"]
    assert found["compiler"].startswith("off,")
    assert not p2w.Hardware().compile


def test_it_tells_of_every_extra_that_a_user_may_want():
    """Where it is installed, what is looked for is imported from one of the packages that the extra asks for."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    installed = packages_distributions()
    for extra in extras.keys() - {"test", "check", "bench", "docs"}:  # of developers
        asked = {re.match(r"[\w.-]+", line).group().replace("_", "-") for line in extras[extra]}
        looked_for = [module for module, use in OPTIONAL.items() if f"(extra {extra})" in use]
        assert looked_for, extra
        for module in looked_for:
            by = {name.replace("_", "-") for name in installed.get(module, asked)}
            assert asked & by, (extra, module)
    told = {name for use in OPTIONAL.values() for name in re.findall(r"\(extra ([\w-]+)\)", use)}
    assert told <= extras.keys()


def test_the_command_prints_it(capsys):
    assert main(["doctor"]) == 0
    assert "precision" in capsys.readouterr().out
