"""What to install is told for where this runs from."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

from parts2whole.extras import install_hint

ROOT = Path(__file__).parents[1]


def test_a_clone_is_installed_from_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert install_hint("export", root=tmp_path) == "pip install 'parts2whole[export]'"
    clone = tmp_path / "a clone"
    clone.mkdir()
    (clone / "pyproject.toml").touch()
    assert shlex.split(install_hint("export", root=clone))[-2:] == ["-e", f"{clone}[export]"]
    monkeypatch.chdir(clone)
    assert install_hint("export", root=clone) == "pip install -e '.[export]'"


def test_every_extra_that_is_told_of_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    told = {
        part.partition(quote)[0]
        for file in (ROOT / "src").rglob("*.py")
        for quote in "\"'"
        for part in file.read_text().split(f"install_hint({quote}")[1:]
    }
    assert {"export", "dicom-seg", "cluster", "remote"} <= told <= set(extras)
