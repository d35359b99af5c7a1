"""What is shipped: a wheel that holds every file of the package, and runs from where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, with the setuptools that are installed."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SHIPPED:
        shutil.copy(ROOT / name, folder / "source" / name)
    shutil.copytree(ROOT / "src/parts2whole", folder / "source/src/parts2whole")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", folder)
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, folder / "source"], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package(wheel):
    package = ROOT / "src/parts2whole"
    files = {
        file.relative_to(ROOT / "src").as_posix()
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {Path(file).suffix for file in files} >= {".py", ".j2", ".css", ".js", ".json"}
    assert "parts2whole/py.typed" in files
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("parts2whole/")}
    assert held == files


def test_what_is_installed_runs_from_where_it_is(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path / "site")

    def run(code: str) -> list[str]:
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    start = "import parts2whole, sys; from parts2whole.cli import main; print(parts2whole.__file__); "
    where, *told = run(start + "sys.exit(main(['doctor', '--help']))")
    assert where == str(tmp_path / "site/parts2whole/__init__.py")
    assert any("usage: parts2whole doctor" in line for line in told)
    hint = run("from parts2whole.extras import install_hint; print(install_hint('export'))")
    assert hint == ["pip install 'parts2whole[export]'"]


def test_the_wheel_says_what_the_project_says(wheel):
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(wheel) as content:
        (name,) = [one for one in content.namelist() if one.endswith(".dist-info/METADATA")]
        text = content.read(name).decode()
        (scripts,) = [one for one in content.namelist() if one.endswith("entry_points.txt")]
        assert "parts2whole = parts2whole.cli:main" in content.read(scripts).decode()
        assert any(one.endswith("licenses/LICENSE") for one in content.namelist())
    assert f"Version: {said['version']}\n" in text
    for extra in said["optional-dependencies"]:
        assert f"Provides-Extra: {extra}\n" in text
    for line in said["dependencies"]:
        assert f"Requires-Dist: {line}\n" in text
