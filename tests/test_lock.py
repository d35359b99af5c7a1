"""The lock file names public places only, and holds what the project depends on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())


def test_the_lock_names_public_places_only():
    text = (ROOT / "uv.lock").read_text()
    assert {urlsplit(url).hostname for url in re.findall(r"https?://[^\"' ]+", text)} == {
        "pypi.org",
        "files.pythonhosted.org",
    }
    sources = [package["source"] for package in LOCK["package"]]
    assert [one for one in sources if "registry" not in one] == [{"editable": "."}]


def test_the_lock_holds_what_the_project_depends_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = {package["name"]: package["version"] for package in LOCK["package"] if "version" in package}
    for line in project["dependencies"]:
        needed = Requirement(line)
        assert versions[needed.name.lower()] in needed.specifier, line
