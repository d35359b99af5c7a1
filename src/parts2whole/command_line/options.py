"""What a person types, as plain settings of a function: ``store/ --whole-size 32 64 64 --no-progress``.

Dashes and underscores are alike, a list is ``1,2,3``, ``1 2 3`` or ``[1,2,3]``, a switch may stand alone, and
fields of a spec follow a dot.  What a value must be is not decided here, but by `parts2whole.study.read`.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parts2whole.spec import Spec
from parts2whole.study.read import COMMAND_LINE, ArgumentsError, Words, at, choices_of, class_and_fields

ODD_DASH = re.compile(
    "(-|[-\u2010\u2011\u2012\u2013\u2014\u2212]*[\u2010\u2011\u2012\u2013\u2014\u2212]-*)[A-Za-z]"
)
"""An option after one hyphen, or after dashes as word processors make them of two."""

SWITCHES = frozenset({"true", "false", "yes", "no", "on", "off"})


@dataclasses.dataclass(frozen=True)
class Typed:
    """What was typed.

    Attributes:
        settings: by parameter; a spec is its class, or ``class_path`` and ``init_args``, or only fields.
        configs: files with more settings.
    """

    settings: dict[str, Any]
    configs: tuple[str, ...] = ()


def parse(arguments: Sequence[str], function: Callable[..., Any], positional: Sequence[str]) -> Typed:
    """Sort arguments by the parameters of a function.

    Args:
        arguments: what follows the command.
        function: whose signature says what there is.
        positional: parameters that may be given without their names; ``*`` takes several.

    Raises:
        ArgumentsError: there is no such option, or more unnamed values than there are places.
    """
    hints = {key: hint for key, hint in typing.get_type_hints(function).items() if key != "return"}
    bare, options = _sort(arguments)
    found: list[tuple[list[str], Words]] = []
    configs: list[str] = []
    left = [place for place in positional if place.lstrip("*") not in dict(options)]
    for name, words in options:
        if name == "config":
            configs += words
            continue
        way = _way(name, hints, function)
        off = way[-1].startswith("no_") and name not in hints
        if left and (left[-1].startswith("*") or len(left) > len(bare)) and (off or len(way) == 1):
            count = 0 if off else _count(words, hints[way[0]])
            bare, words = [*bare, *words[count:]], words[:count]
        if off and words:
            raise ArgumentsError(f"{at(COMMAND_LINE, name)} takes no value, got {' '.join(words)}")
        before = next((place for place, (known, _) in enumerate(found) if known == way), None)
        if before is not None and len(way) == 1 and not off and _takes_several(hints[way[0]]):
            found[before] = (way, Words([*found[before][1], *words]))
            continue
        found.append(([*way[:-1], way[-1][3:]], Words(["false"])) if off else (way, Words(words)))
    settings = _place(bare, left)
    for way, value in sorted(found, key=lambda pair: len(pair[0])):
        _insert(settings, way, value)
    return Typed(settings, tuple(configs))


def _sort(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Values before the first option, and every option with what follows it."""
    bare: list[str] = []
    options: list[tuple[str, list[str]]] = []
    into = bare
    for argument in arguments:
        if ODD_DASH.match(argument):
            meant = "--" + argument.lstrip("-\u2010\u2011\u2012\u2013\u2014\u2212")
            raise ArgumentsError(
                f"{argument!r} begins with an odd dash: did you mean {meant}, with two hyphens?"
            )
        if not argument.startswith("--"):
            into.append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        options.append((name.replace("-", "_"), [value] if equals else []))
        into = bare if equals else options[-1][1]
    return bare, options


def _way(name: str, hints: dict[str, Any], function: Callable[..., Any]) -> list[str]:
    """The parameter and fields that an option names."""
    if name.partition(".")[0] == "data" and "data" not in hints and "task" in hints:
        name = f"task.{name}"
    way = name.split(".")
    first = way[0]
    if len(way) == 1 and first.startswith("no_") and bool in choices_of(hints.get(first[3:], Any)):
        return way
    if first in hints and (len(way) == 1 or any(map(_is_spec, choices_of(hints[first])))):
        return way
    known = {at(COMMAND_LINE, key) for key in hints} | {"--config", "--own", "--help"}
    defaults = {key: p.default for key, p in inspect.signature(function).parameters.items()}
    known |= {
        at(at(COMMAND_LINE, key), field.name)
        for key, default in defaults.items()
        if isinstance(default, Spec)
        for field in dataclasses.fields(default)
    }
    option = at(COMMAND_LINE, name)
    close = difflib.get_close_matches(option, known, n=1)
    close = close or sorted(other for other in known if other.endswith(f".{option[2:]}"))
    raise ArgumentsError(
        f"there is no option {option}; "
        + (f"did you mean {close[0]}?" if close else "--help lists those that there are")
    )


def _count(words: Sequence[str], hint: Any) -> int:
    """How many of the words after an option are its own; what is left stands for itself."""
    choices = choices_of(hint)
    if not words:
        return 0
    if bool in choices:
        also = {str(name) for choice in choices for name in typing.get_args(choice)}
        return int(words[0].lower() in SWITCHES | also)
    count = 1
    while count < len(words) and (words[count - 1].endswith(",") or _is_open(" ".join(words[:count]))):
        count += 1
    if words[0][:1] in ("[", "{"):
        return count
    for choice in choices:
        items = typing.get_args(choice)
        if typing.get_origin(choice) is not None and typing.get_origin(choice) is not typing.Literal:
            if Ellipsis in items or typing.get_origin(choice) is not tuple:
                return len(words)
            return len(items) if count == 1 and "," not in words[0] else count
    return count


def _takes_several(hint: Any) -> bool:
    """Whether an option takes as many values as one gives it, so that a second time adds to the first."""
    return any(
        origin not in (None, typing.Literal) and (origin is not tuple or Ellipsis in typing.get_args(choice))
        for choice in choices_of(hint)
        for origin in [typing.get_origin(choice)]
        if not isinstance(origin, type) or not issubclass(origin, Mapping)
    )


def _is_open(text: str) -> bool:
    """Whether a bracket isn't closed yet."""
    return sum(map(text.count, "[{")) > sum(map(text.count, "]}"))


def _place(bare: Sequence[str], positional: Sequence[str]) -> dict[str, Any]:
    """Unnamed values by the parameters that they stand for."""
    settings: dict[str, Any] = {}
    left = list(bare)
    for name in positional:
        if left:
            taken, left = (left, []) if name.startswith("*") else (left[:1], left[1:])
            settings[name.lstrip("*")] = Words(taken)
    if left:
        places = " ".join(name.lstrip("*").upper() for name in positional)
        takes = f"only {places} may stand without a name" if places else "every value follows its option"
        raise ArgumentsError(f"{left[0]!r} belongs to no option: {takes}")
    return settings


def _insert(settings: dict[str, Any], way: Sequence[str], value: Words) -> None:
    """Enter a value, and make room for fields of a spec that was only named."""
    inner, place = settings, COMMAND_LINE
    for key in way[:-1]:
        place = at(place, key)
        given = inner.get(key)
        name, fields = class_and_fields(" ".join(given) if isinstance(given, Words) else given or {}, place)
        inner[key] = fields if name is None else {"class_path": name, "init_args": fields}
        inner = fields
    inner[way[-1]] = value


def _is_spec(choice: Any) -> bool:
    return choice is Any or (isinstance(choice, type) and issubclass(choice, Spec))
