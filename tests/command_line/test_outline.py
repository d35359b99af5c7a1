"""Outlines say what the package says: signatures, fields, defaults and docstrings of all that can be typed."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import typing
from typing import Any

import pytest

from parts2whole.cli import load, load_outline
from parts2whole.command_line import outline
from parts2whole.command_line.commands import COMMANDS
from parts2whole.own import is_own
from parts2whole.spec import Spec, SpecError, members
from parts2whole.study.read import choices_of


def families(hint: Any) -> list[type[Spec]]:
    return [one for one in choices_of(hint) if isinstance(one, type) and issubclass(one, Spec)]


def name(hint: Any) -> str:
    """An annotation in words that don't say where its classes are."""
    found = families(hint)
    others = [one for one in choices_of(hint) if one not in found]
    return " | ".join([one.__name__ for one in found] + [str(one) for one in others])


def describe(function: Any, known: Any) -> dict[str, Any]:
    """All that the command line reads of a function and of every class that may be named for it."""
    hints = typing.get_type_hints(function)
    found: dict[str, Any] = {"": function.__doc__}
    left: list[type[Spec]] = []
    for key, parameter in inspect.signature(function).parameters.items():
        found[key] = (name(hints[key]), repr(parameter.default))
        left += families(hints[key])
    done: set[type[Spec]] = set()
    while left:
        base = left.pop()
        if base in done:
            continue
        done.add(base)
        classes = [one for one in known(base) if not is_own(one.__module__)]
        found[base.__name__] = sorted(one.__name__ for one in classes), inspect.isabstract(base)
        found[f"{base.__name__}.usual"] = getattr(base, "usual", None)
        for one in classes:
            hints = typing.get_type_hints(one)
            fields = [field for field in dataclasses.fields(one) if field.init]
            found[f"fields of {one.__name__}"] = (
                one.__doc__,
                {
                    field.name: (name(hints[field.name]), repr(getattr(one, field.name, "missing")))
                    for field in fields
                },
            )
            left += [family for field in fields for family in families(hints[field.name])]
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_an_outline_says_what_the_verb_says(command: str) -> None:
    real, hollow = load(COMMANDS[command]), load_outline(COMMANDS[command])
    expected = describe(real, members)
    assert describe(hollow, outline.known) == expected
    assert outline.Unknown not in typing.get_type_hints(hollow).values()


def test_a_class_is_found_without_making_its_whole_family() -> None:
    base = outline.outline("parts2whole.methods.base").get("Method")
    found = outline.find_class(base, "SimCLR")
    assert found is not None
    assert found(temperature=0.5).temperature == 0.5
    assert outline.find_class(base, "parts2whole.methods.simclr.SimCLR") is found
    assert outline.find_class(base, "mine.py:Mine") is None
    assert outline.find_class(base, "Mine", lenient=True) is None
    with pytest.raises(SpecError, match=r"no Method called 'SimCLRR'; did you mean SimCLR\?"):
        outline.find_class(base, "SimCLRR")
    with pytest.raises(
        SpecError, match="no Method called 'Projector'"
    ):  # of a method's folder, and no method
        outline.find_class(base, "Projector")


def test_outlines_import_nothing_heavy() -> None:
    code = (
        "from parts2whole.cli import main; import sys; "
        "code = main(['pretrain', '/', '--out', 'x', '--method', 'SimCLR', '--whole-size', '32,64']); "
        "sys.exit(code != 2 or any(name in sys.modules for name in ('torch', 'numpy', 'monai', 'rich')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "parts2whole pretrain: --whole-size must be 3 whole numbers, such as 32,64,64; got 32,64"
    ]
