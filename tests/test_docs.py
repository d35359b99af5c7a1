"""The documentation is tried: every command in it parses, and every call in it binds to a real signature."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest
import yaml

import parts2whole
from parts2whole.cli import COMMANDS, load, read, split_name
from parts2whole.contracts import Contract, keep
from parts2whole.study.read import Reader
from parts2whole.study.resolve import read_study
from parts2whole.verbs.benchmark import study_verbs
from parts2whole.verbs.check import check

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


FILES = {
    match[1]: block
    for page in PAGES
    for block in blocks(page, "python")
    if (match := re.match(r"# (\w+\.py)\n", block))
}
"""Files of a user's own that pages show: a block of Python that begins with the name."""

COMMAND_LINES = sorted(
    {
        line.strip()
        for page in PAGES
        for block in blocks(page, "")
        for line in block.splitlines()
        if line.startswith("parts2whole ")
    }
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.mark.parametrize("name", FILES)
def test_every_class_of_ones_own_keeps_the_promises_of_its_family(name, files):
    module = name.removesuffix(".py")
    classes = re.findall(r"^class (\w+)", FILES[name], re.MULTILINE)
    for one in classes:
        found = vars(importlib.import_module(module))[one]
        is_suite = issubclass(found, Contract)
        outcomes = list(keep(found)) if is_suite else check(f"{module}:{one}").outcomes
        assert not [outcome for outcome in outcomes if outcome.fate == "broken"]
    assert classes


def test_a_study_with_a_class_of_ones_own_is_read(files):
    (block,) = (block for block in blocks(ROOT / "docs" / "methods.md", "yaml") if "my_method.py" in block)
    study = yaml.safe_load(block) | {"tasks": {"T": {"task": {"Segmentation": {"data": "x"}}}}}
    (files / "study.yaml").write_text(yaml.safe_dump(study | {"pretrain": {"store": "x"}}))
    read_study(files / "study.yaml", out=files / "out", verbs=study_verbs())


def test_there_are_commands_to_try():
    assert len(COMMAND_LINES) >= 8


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_parses(line, files, monkeypatch):
    monkeypatch.chdir(files)
    name, arguments = split_name(shlex.split(line, comments=True)[1:])
    assert read(COMMANDS[name], load(COMMANDS[name]), arguments, Reader())


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_every_call_binds(page):
    for block in (block for block in blocks(page, "python") if block not in FILES.values()):
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


NAMES = sorted(
    {
        name
        for page in PAGES
        for family in re.findall(
            r"`--(?:method|network|task|init) ([A-Z]\w+)`((?:,\s+`[A-Z]\w+`)*)", page.read_text()
        )
        for name in re.findall(r"[A-Z]\w+", " ".join(family))
    }
)


def test_every_class_that_a_page_lists_is_there():
    assert {"SimCLR", "LiverSegmentation"} <= set(NAMES)
    assert not [name for name in NAMES if not hasattr(parts2whole, name)]
