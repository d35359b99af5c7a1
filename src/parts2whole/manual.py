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
INDENT = 26


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One option: how it is written, and what it is."""

    option: str
    text: str


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
    parameters = inspect.signature(function).parameters
    bare = [word.lstrip("*").upper() + (" ..." if word.startswith("*") else "") for word in positional]
    needed: list[_Entry] = []
    optional: list[_Entry] = []
    fields = []
    for key, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        entry = _Entry(
            _option(at(COMMAND_LINE, key), hints[key], default),
            _text(documents.get(key, ""), hints[key], default, required=required),
        )
        (needed if required else optional).append(entry)
        kind = chosen.get(key) or (type(default) if isinstance(default, Spec) else None)
        if kind is not None:
            start = default if isinstance(default, kind) else None
            fields.append((key, kind.__name__, list(_fields(key, kind, start))))
    others = [
        entry.option
        for entry in needed
        if entry.option.partition(" ")[0][2:].replace("-", "_")
        not in {word.lstrip("*") for word in positional}
    ]
    lines = [" ".join(["usage: parts2whole", name, *bare, *others, "[OPTIONS]"]), "", summary]
    groups = [("needed:", needed), ("options:", optional)]
    groups += [(f"fields of {at(COMMAND_LINE, key)} {kind}:", entries) for key, kind, entries in fields]
    common = [
        _Entry(
            "--config FILE",
            "a YAML file with any of these, such as the config.yaml of a run; options count more.",
        ),
        _Entry(
            "--own FILE.py", "a file with classes of your own that a run or weights need; may be repeated."
        ),
        _Entry(
            "--help", "this text; with --method SimCLR --help, the fields of SimCLR, and so for any class."
        ),
    ]
    groups.append(("for every command:", common))
    for title, entries in groups:
        if entries:
            lines += ["", title, *(line for entry in entries for line in _lines(entry))]
    return "\n".join(lines)


def parameters_of(document: str | None) -> dict[str, str]:
    """What a docstring says of every parameter or field, under ``Args:`` or ``Attributes:``."""
    found: dict[str, str] = {}
    section = re.search(
        r"^(?:Args|Attributes):\n((?:[ ]+.*\n|\n)+)", f"{inspect.cleandoc(document or '')}\n", re.M
    )
    for match in re.finditer(r"^    (\w+): (.*(?:\n      +.*)*)", section[1] if section else "", re.M):
        found[match[1]] = " ".join(match[2].split()).replace("``", "")
    return found


def _fields(key: str, kind: type[Spec], start: Spec | None) -> Iterator[_Entry]:
    hints = typing.get_type_hints(kind)
    documents: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        documents |= parameters_of(one.__doc__)
    for field in dataclasses.fields(kind):
        if field.init:
            default = getattr(start or kind, field.name, None)
            text = _text(documents.get(field.name, ""), hints[field.name], default)
            yield _Entry(_option(at(at(COMMAND_LINE, key), field.name), hints[field.name], default), text)


def _option(option: str, hint: Any, default: Any) -> str:
    """``--whole-size N,N,N``."""
    choices = [choice for choice in choices_of(hint) if choice is not type(None)]
    if Path in choices:
        choices.remove(str)
    if bool in choices:
        head, dot, last = option[2:].rpartition(".")
        also = "".join(f" [{_metavar(choice)}]" for choice in choices if choice is not bool)
        return f"--{head}{dot}{'no-' if default is True else ''}{last}{also}"
    return f"{option} {'|'.join(dict.fromkeys(map(_metavar, choices)))}"


def _metavar(choice: Any) -> str:
    arguments = typing.get_args(choice)
    if typing.get_origin(choice) is typing.Literal:
        return "|".join(map(str, arguments))
    if typing.get_origin(choice) is tuple and Ellipsis not in arguments:
        return ",".join(_metavar(argument) for argument in arguments)
    if arguments:
        return f"{_option('', arguments[0], None).strip()} ..."
    return METAVARS.get(choice, "CLASS")


def _text(document: str, hint: Any, default: Any, *, required: bool = False) -> str:
    families = [c for c in choices_of(hint) if isinstance(c, type) and issubclass(c, Spec)]
    text = document
    for family in families:
        known = sorted(member.__name__ for member in members(family))
        if len(known) > 1:
            text += f" One of {', '.join(known)}."
    if required or default is None or default is False or default == () or "default" in document:
        return text.strip()
    if default is True and bool in choices_of(hint):
        return f"don't {text}".strip()
    shown = (
        type(default).__name__
        if isinstance(default, Spec)
        else (",".join(map(str, default)) if isinstance(default, tuple) else default)
    )
    return f"{text} (default {shown})".strip()


def _lines(entry: _Entry) -> list[str]:
    width = min(shutil.get_terminal_size().columns, 110) - 2
    text = textwrap.wrap(entry.text, max(30, width - INDENT)) or [""]
    first = f"  {entry.option}"
    if len(first) > INDENT - 2:
        return [first, *(" " * INDENT + line for line in text)]
    return [f"{first:<{INDENT}}{text[0]}", *(" " * INDENT + line for line in text[1:])]
