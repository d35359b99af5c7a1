"""Errors have one base, and a user is told in one sentence what is wrong, of an own class as well."""

from __future__ import annotations

import ast
import dataclasses
import errno
import importlib
import pkgutil
import re
import sys
import typing
from functools import partial
from pathlib import Path

import pytest

import parts2whole
from parts2whole.cli import load, main
from parts2whole.command_line.commands import COMMANDS
from parts2whole.contracts.base import BrokenPromise
from parts2whole.errors import Parts2WholeError, sentence, tell_reasons
from parts2whole.jobs.run import run_jobs
from parts2whole.methods.base import MethodError
from parts2whole.own import OPTION
from parts2whole.spec import Spec, members
from parts2whole.study.aliases import NoAlias
from parts2whole.study.read import COMMAND_LINE, at, choices_of

OWN = '''"""A method of one's own, with mistakes."""

import dataclasses

from parts2whole.methods.autoencoder import Autoencoder


def pick(edges, number):
    return edges[number]


@dataclasses.dataclass(frozen=True)
class Slabs(Autoencoder):
    edge: int = 3

    def __post_init__(self):
        if self.edge > 9:
            raise KeyError("too wide")

    def loss(self, module, views):
        return pick((1, 2), self.edge)
'''


@pytest.fixture
def slabs(tmp_path, monkeypatch):
    (tmp_path / "own_slabs.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("own_slabs").Slabs
    sys.modules.pop("own_slabs")


def test_every_error_of_the_package_has_the_base_and_is_caught_as_before():
    found = set()
    for entry in pkgutil.walk_packages(parts2whole.__path__, "parts2whole."):
        if entry.name != "parts2whole.__main__":
            module = importlib.import_module(entry.name)
            found |= {
                value
                for value in vars(module).values()
                if isinstance(value, type)
                and issubclass(value, Exception)
                and value.__module__.startswith("parts2whole.")
            }
    assert len(found) > 50
    assert {each for each in found if not issubclass(each, Parts2WholeError)} == set()
    plain = {each for each in found if not issubclass(each, (ValueError, RuntimeError))}
    assert plain == {Parts2WholeError, NoAlias, BrokenPromise}
    assert parts2whole.Parts2WholeError is Parts2WholeError


def test_what_the_package_and_the_system_say_is_enough():
    assert sentence(MethodError("edge must be odd, got 4")) == "edge must be odd, got 4"
    assert sentence(FileNotFoundError(errno.ENOENT, "No such file", "x")) == "[Errno 2] No such file: 'x'"
    said = sentence(PermissionError(errno.EACCES, "Permission denied", "runs"))
    assert said.startswith("[Errno 13] Permission denied: 'runs'; make it writable for you")


def test_a_bug_of_the_package_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("parts2whole.verbs.doctor.doctor", lambda: {}["nothing"])
    with pytest.raises(KeyError):
        main(["doctor"])


def test_a_mistake_in_an_own_class_is_one_sentence(slabs, tmp_path, capsys, monkeypatch):
    command = ["pretrain", str(tmp_path), "--out", str(tmp_path / "run"), "--method", "own_slabs.Slabs"]
    command += ["--method.edge", "12"]
    assert main(command) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    where = tmp_path / "own_slabs.py"
    assert line.startswith(f"parts2whole pretrain: KeyError: 'too wide', raised by Slabs ({where}, line 18)")
    monkeypatch.setenv("PARTS2WHOLE_TRACEBACK", "1")
    with pytest.raises(KeyError, match="too wide"):
        main(command)


def test_the_class_is_named_when_a_function_beside_it_fails(slabs, tmp_path):
    with pytest.raises(IndexError) as caught:
        slabs().loss(None, {})
    assert sentence(caught.value).startswith(
        f"IndexError: tuple index out of range, raised by Slabs ({tmp_path / 'own_slabs.py'}, line 9);"
    )


def test_the_place_is_known_when_it_failed_in_another_process(slabs, tmp_path):
    with pytest.raises(IndexError) as caught:
        list(run_jobs(partial(slabs().loss, None), [{}], lost=str, workers=1))
    assert f"raised by Slabs ({tmp_path / 'own_slabs.py'}, line 9)" in sentence(caught.value)


def test_reasons_that_differ_in_names_paths_and_numbers_are_told_once():
    reasons = {
        f"c{n:03}": f"c{n:03} has voxels from {n} to -1.5e+0{n % 7} (in /data/{n}/x.nii)" for n in range(180)
    }
    reasons["odd"] = "it is empty"
    first, second = tell_reasons(reasons, of=200)
    assert first.startswith("180 of 200 were set aside: for example, c000 has voxels from 0 to -1.5e+00")
    assert first.endswith("(c000, c001, c002, c003, c004 and 175 more)")
    assert second == "odd was set aside: it is empty"


def test_equal_reasons_are_no_example():
    assert tell_reasons({"a": "gone", "b": "gone", "c": "cut"}, of=3, verb="were lost") == [
        "2 of 3 were lost: gone (a, b)",
        "c was lost: cut",
    ]
    assert tell_reasons({}, of=3) == []


def options_of(place: str, hint: object, depth: int = 3) -> set[str]:
    """An option, and those of the fields of every class that its value may be of."""
    families = [one for one in choices_of(hint) if isinstance(one, type) and issubclass(one, Spec)]
    found = {place}
    for member in {one for family in families for one in members(family)} if depth else ():
        hints = typing.get_type_hints(member)
        for field in dataclasses.fields(member):
            found |= options_of(at(place, field.name), hints[field.name], depth - 1)
    return found


FOREIGN = {"--error-unmatch", "--porcelain", "--untracked-files", "--logdir", "--nthreads", "--value"}
FOREIGN |= {"--bundle_root", "--config_file", "--meta_file", "--dataset_dir", "--output_dir", "--no_pp"}
"""Options of git, TensorBoard, Dask, MONAI's bundles and nnU-Net, and of the parser that reads single values."""


def test_options_that_messages_name_exist():
    """What a message tells to type is an option of some command, written as its help writes it."""
    functions = [load(command) for command in COMMANDS.values()]
    hints = {pair for one in functions for pair in typing.get_type_hints(one).items()}
    known = {option for key, hint in hints for option in options_of(at(COMMAND_LINE, key), hint)}
    known |= {"--config", OPTION, "--help", "--version"} | FOREIGN
    named = set()
    for file in Path(parts2whole.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
                words = re.findall(r"(?<![\w-])--[a-z][\w-]*(?:\.[a-z][\w-]*)*", node.value)
                named |= {(option, file.name) for option in words}
    assert {"--held-out", "--resume", "--task.preprocess.modality"} <= {option for option, _ in named} & known
    assert {one for one in named if one[0] not in known} == set()
