"""The help of a command: its parameters with their docstrings, and the fields of the specs it takes."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parts2whole.spec import Spec, members
from parts2whole.study.read import COMMAND_LINE, at, choices_of

METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
COMMON = {
    "--config FILE": "a YAML file with any of these, such as the config.yaml of a run; options count more. "
    "finetune also knows presets, such as preset:openmind (docs/methods.md).",
    "--own FILE.py": "a file with classes of your own that a run or weights need; may be repeated.",
    "--help": "this text; with --method SimCLR --help, the fields of SimCLR, and so for any class.",
    "CLASS": "one of those listed, or one of your own: FILE.py:CLASS, or package.module:CLASS.",
}
INDENT, WIDEST = 26, 110

Entry = tuple[str, str]
"""How an option is written, and what it is."""


def describe(
    name: str,
    summary: str,
    function: Callable[..., Any],
    positional: Sequence[str],
    chosen: Mapping[str, type[Spec]],
) -> str:
    """All that can be said after a command.

    Args:
        name: of the command.
        summary: what it does, in one line.
        function: the verb, or its outline.
        positional: parameters that may be given without their names; ``*`` takes several.
        chosen: classes whose fields are listed, by parameter; the default's where there is none.
    """
    hints, documents = typing.get_type_hints(function), parameters_of(function.__doc__)
    usage = [word.lstrip("*").upper() + (" ..." if word.startswith("*") else "") for word in positional]
    groups: dict[str, list[Entry]] = {"needed:": [], "options:": []}
    for key, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is parameter.empty
        default = None if required else parameter.default
        option = _option(at(COMMAND_LINE, key), hints[key], default)
        groups["needed:" if required else "options:"].append(
            (option, _text(documents.get(key, ""), hints[key], default))
        )
        if required and not {key, f"*{key}"} & {*positional}:
            usage.append(option)
        kind = chosen.get(key) or (type(default) if isinstance(default, Spec) else None)
        if kind is not None:
            place = at(COMMAND_LINE, key)
            start = default if isinstance(default, kind) else None
            groups[f"fields of {place} {kind.__name__}:"] = list(_fields(place, kind, start))
    groups["for every command:"] = list(COMMON.items())
    lines = [" ".join(["usage: parts2whole", name, *usage, "[OPTIONS]"]), "", summary]
    for title, entries in groups.items():
        if entries:
            lines += ["", title, *(line for entry in entries for line in _lines(*entry))]
    return "\n".join(lines)


def parameters_of(document: str | None) -> dict[str, str]:
    """What a docstring says of every parameter or field, under ``Args:`` or ``Attributes:``."""
    text = f"{inspect.cleandoc(document or '')}\n"
    section = re.search(r"^(?:Args|Attributes):\n((?: +.*\n|\n)+)", text, re.M)
    found = re.findall(r"^    (\w+): (.*(?:\n      +.*)*)", section[1] if section else "", re.M)
    return {name: " ".join(words.split()).replace("``", "") for name, words in found}


def _fields(place: str, kind: type[Spec], start: Spec | None) -> Iterator[Entry]:
    hints = typing.get_type_hints(kind)
    documents: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        documents |= parameters_of(one.__doc__)
    for field in dataclasses.fields(kind):
        if field.init:
            hint, default = hints[field.name], getattr(start or kind, field.name, None)
            text = _text(documents.get(field.name, ""), hint, default)
            yield _option(at(place, field.name), hint, default), text


def _option(option: str, hint: Any, default: Any) -> str:
    """``--whole-size N,N,N``."""
    choices = [choice for choice in choices_of(hint) if choice is not type(None)]
    names = [_metavar(c) for c in choices if c is not bool and (c is not str or Path not in choices)]
    values = [name for name in dict.fromkeys(names) if f"{name} ..." not in names]
    if bool in choices:
        head, dot, last = option[2:].rpartition(".")
        option = f"--{head}{dot}{'no-' if default is True else ''}{last}"
        return " ".join([option, *(f"[{value}]" for value in values)])
    return f"{option} {'|'.join(values)}".strip()


def _metavar(choice: Any) -> str:
    arguments = typing.get_args(choice)
    if typing.get_origin(choice) is typing.Literal:
        return "|".join(map(str, arguments))
    if typing.get_origin(choice) is tuple and Ellipsis not in arguments:
        return ",".join(map(_metavar, arguments))
    return f"{_option('', arguments[0], None)} ..." if arguments else METAVARS.get(choice, "CLASS")


def _text(document: str, hint: Any, default: Any) -> str:
    """What an option is, the classes it may be, and its default."""
    families = [
        choice for choice in choices_of(hint) if isinstance(choice, type) and issubclass(choice, Spec)
    ]
    known = sorted(member.__name__ for family in families for member in members(family))
    text = document + (f" One of {', '.join(known)}." if len(known) > 1 else "")
    if default is None or default is False or default == () or "default" in document:
        return text.strip()
    if default is True:
        return f"don't {text}"
    if isinstance(default, Spec):
        default = type(default).__name__
    return (
        f"{text} (default {','.join(map(str, default)) if isinstance(default, tuple) else default})".strip()
    )


def _lines(option: str, text: str) -> list[str]:
    width = min(shutil.get_terminal_size().columns, WIDEST) - INDENT - 2
    rest = [" " * INDENT + line for line in textwrap.wrap(text, max(30, width))] or [""]
    if len(option) > INDENT - 4:
        return [f"  {option}", *rest]
    return [f"  {option:<{INDENT - 2}}{rest[0].lstrip()}", *rest[1:]]
