"""Commands as a person types them: what a command ends with, to be pasted."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parts2whole import own
from parts2whole.spec import Spec

WIDTH = 80
"""Columns that a command takes at most, where no word of it is longer."""
FOLDERS = ("imagesTs", "images", "imagesTr")
"""Where a folder of labelled data has its scans, those without labels first."""


def command(verb: str, *values: str | Path, **options: Any) -> str:
    """A command of this package as a person types it, in lines of at most `WIDTH` columns.

    Args:
        verb: the command.
        values: that stand without a name.
        options: by parameter; of a spec only the fields are typed that aren't at their defaults.
    """
    words = ["parts2whole", *verb.split(), *(shlex.quote(str(value)) for value in values)]
    given = (words_of(f"--{_dashed(key)}", value) for key, value in options.items())
    return wrap([*words, *(" ".join(map(shlex.quote, one)) for many in given for one in many)])


def wrap(words: Iterable[str]) -> str:
    """Words of a command in indented lines, each but the last ending so that a shell goes on reading."""
    lines = ["  "]
    for word in words:
        if len(lines[-1]) + len(word) + 3 > WIDTH and lines[-1].strip():
            lines.append("      ")
        lines[-1] += f"{word} "
    return " \\\n".join(line.rstrip() for line in lines)


def words_of(option: str, value: Any, usual: Any = None) -> list[list[str]]:
    """What is typed so that an option has a value, an option a list; nothing where it is as usual."""
    if value == usual:
        return []
    if not isinstance(value, Spec):
        return [[option, _typed(value)]]
    named = type(value) is not type(usual)
    found = [[option, _name(value)]] if named else []
    for field in dataclasses.fields(value):
        if field.init:
            default = getattr(type(value) if named else usual, field.name, dataclasses.MISSING)
            found += words_of(f"{option}.{_dashed(field.name)}", getattr(value, field.name), default)
    return found


def scans_of(data: str | Path) -> Path:
    """The folder that the scans of labelled data are in, as far as its layout is a usual one."""
    data = Path(data)
    return next((data / name for name in FOLDERS if (data / name).is_dir()), data)


def unused(path: Path) -> Path:
    """The path, with a number behind it if there is something already."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(one for one in (path, *itertools.islice(numbered, 99)) if not one.exists())


def next_step(why: str, *commands: str) -> list[str]:
    """The last lines of a command: what may come next, and how it is typed."""
    return [f"Next, {why}:", *commands]


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _name(spec: Spec) -> str:
    """What a class is typed as: its name, or the file of one's own and its name."""
    kind = type(spec)
    file = own.own_files().get(kind.__name__) if own.is_own(kind.__module__) else None
    return f"{file}:{kind.__name__}" if file else kind.__name__


def _typed(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)) and not any(isinstance(one, (list, tuple)) for one in value):
        return ",".join(map(str, value)) or "[]"
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else str(value)
