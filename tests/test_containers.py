"""Container recipes, which can't be built here: linted, and checked against the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKER = (ROOT / "Dockerfile").read_text()
APPTAINER = (ROOT / "apptainer.def").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def instructions(text: str) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile and what follows them, lines joined."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def sections(text: str) -> dict[str, str]:
    """Sections of an Apptainer recipe, its header under the empty name."""
    parts = re.split(r"(?m)^%(\w+)\n", re.sub(r"(?m)^#.*\n", "", text))
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def test_hadolint_has_nothing_to_say():
    beside = Path(sys.executable).with_name("hadolint")
    found = beside if beside.exists() else shutil.which("hadolint")
    if not found:
        pytest.skip("hadolint isn't installed (the extra test has it)")
    done = subprocess.run([found, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_both_recipes_copy_what_is_there_and_install_the_same():
    docker, apptainer = instructions(DOCKER), sections(APPTAINER)
    copied = [source for name, rest in docker if name == "COPY" for source in rest.split()[:-1]]
    files = [line.split()[0] for line in apptainer["files"].strip().splitlines()]
    assert copied == files
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    for needed in ("pyproject.toml", "README.md", "LICENSE", "src"):
        assert needed in copied
    base = next(rest for name, rest in docker if name == "FROM")
    assert f"From: {base}\n" in apptainer[""]
    arguments = dict(rest.split("=") for name, rest in docker if name == "ARG")
    assert arguments == dict(line.strip().split("=") for line in apptainer["arguments"].strip().splitlines())
    assert set(arguments["EXTRAS"].split(",")) <= set(EXTRAS)
    pin = re.search(r"uv==[\d.]+", DOCKER)
    assert pin
    assert pin[0] in APPTAINER
    installs = [re.search(r"uv pip install .*?\"(?= |$|\n)", re.sub(r"\\\n\s*", "", text)) for text in (DOCKER, APPTAINER)]  # fmt: skip
    one, other = (re.sub(r"\$\{(\w+)\}|\{\{ (\w+) \}\}", r"\1\2", found[0]) for found in installs if found)
    assert one == other


def test_the_container_is_no_root_and_runs_the_command():
    docker = dict(instructions(DOCKER))
    assert docker["USER"].isdigit()
    assert docker["USER"] != "0"
    assert docker["ENTRYPOINT"] == '["parts2whole"]'
    assert 'exec parts2whole "$@"' in sections(APPTAINER)["runscript"]
