"""The documentation is tried: every command in it parses, and every call in it binds to a real signature."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest

import parts2whole
from parts2whole.cli import COMMANDS, load, read, split_name
from parts2whole.study.read import Reader

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


COMMAND_LINES = sorted(
    {
        line.strip()
        for page in PAGES
        for block in blocks(page, "")
        for line in block.splitlines()
        if line.startswith("parts2whole ")
    }
)


def test_there_are_commands_to_try():
    assert len(COMMAND_LINES) >= 8


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_parses(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, arguments = split_name(shlex.split(line, comments=True)[1:])
    assert read(COMMANDS[name], load(COMMANDS[name]), arguments, Reader())


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_every_call_binds(page):
    for block in blocks(page, "python"):
        for call in (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)):
            assert isinstance(call.func, ast.Attribute), ast.unparse(call)
            function = getattr(parts2whole, call.func.attr)
            inspect.signature(function).bind(*call.args, **{k.arg: k.value for k in call.keywords})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_readme_names_both_commands_on_its_first_screen():
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:25])
    assert "make demo" in first_screen
    assert "make test" in first_screen
