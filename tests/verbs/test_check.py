"""The contract suites from the command line, on classes of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.new_files import CLASSES, FILES
from parts2whole.cli import main
from parts2whole.own import OwnError
from parts2whole.verbs.check import CheckError, check


def rename(text: str, old: str, new: str) -> str:
    """Classes are found by their names, so that each file of this process needs its own."""
    return text.replace(f"class {old}(", f"class {new}(")


@pytest.fixture
def file(tmp_path: Path, request):
    """Writes one of the new files with changes, under another class name."""

    def write(folder: str, **changes: str) -> str:
        name = f"Own{CLASSES[folder]}{abs(hash(request.node.name)):x}"
        text = rename(FILES[folder], CLASSES[folder], name)
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / f"{folder}.py").write_text(text)
        return f"{tmp_path / f'{folder}.py'}:{name}"

    return write


@pytest.mark.parametrize("folder", sorted(FILES))
def test_a_good_one_passes(folder, file, capsys):
    place = file(folder)
    command = "check-method" if folder == "methods" else "check"
    assert main([command, place]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{place.partition(':')[2]}, a {folder.capitalize().removesuffix('s')}\n")
    assert "BROKEN" not in said
    assert said.splitlines()[-1].split(" kept")[0].isdigit()


def test_a_broken_promise_is_told_in_words_and_by_the_exit_code(file, capsys):
    place = file("methods", **{"generator.uniform(1)[:, 0]": "torch.rand(len(wholes))"})
    assert main(["check-method", place]) == 1
    said = capsys.readouterr().out
    assert "BROKEN     Views are a function of the wholes and the generator" in said
    assert "image differs between two calls with the same generator" in said
    assert "broken" in said.splitlines()[-1]


def test_an_error_of_the_class_is_told_with_its_line(file, capsys):
    place = file("methods", **{'return {"image": image, ': 'return {"image": imagine, '})
    assert main(["check-method", place]) == 1
    said = capsys.readouterr().out
    line = next(
        n
        for n, text in enumerate(Path(place.partition(":")[0]).read_text().splitlines(), 1)
        if "imagine" in text
    )
    assert f"NameError: name 'imagine' is not defined (methods.py, line {line})" in said
    assert "kept       It is a frozen spec" in said


def test_a_task_is_checked_on_data_of_ones_own(file, tmp_path, capsys):
    place = file("tasks")
    assert main(["check", place, "--data", str(tmp_path / "nowhere")]) == 2
    assert "there is no file or folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["check", place, "--data", str(tmp_path / "empty")]) == 1
    said = capsys.readouterr().out
    assert "BROKEN     It can be made, to be looked at." in said
    assert "no usable labelled case in" in said


def test_what_has_no_suite_is_refused(file):
    with pytest.raises(CheckError, match="Preprocess is of none of the families that have a suite: Method, "):
        check("Preprocess")
    with pytest.raises(
        CheckError, match="data is for tasks and sources of weights; leave it out for a Method"
    ):
        check("SimCLR", data=".")
    with pytest.raises(OwnError, match="there is no file"):
        check("nowhere.py:Mine")


def test_a_class_of_the_package_is_named_by_its_name():
    found = check("Constant")
    assert (found.member, found.family, found.failed) == ("Constant", "Schedule", False)
    assert len(found.outcomes) > 4
