"""Plain YAML values as typed arguments of the verbs; every error names the place in the file.

A spec may be written as its class alone, as the class with its fields, or in full:

    method: Parts2Whole
    method: {Parts2Whole: {part_fraction: [0.4, 0.7]}}
    method: {class_path: Parts2Whole, init_args: {part_fraction: [0.4, 0.7]}}
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from parts2whole.errors import Parts2WholeError
from parts2whole.spec import Spec, members

Locate = Callable[[str], Path]
"""Turns what the file calls a path into a path on disk."""


class StudyError(Parts2WholeError, ValueError):
    """A study that can't be read, with the place in its file, or can't be run."""


def read_arguments(
    plain: Mapping[str, Any],
    function: Callable[..., Any],
    where: str,
    *,
    locate: Locate,
    barred: Collection[str] = (),
) -> dict[str, Any]:
    """Settings as keyword arguments of ``function``, typed by its annotations.

    Args:
        plain: what the file says.
        function: one of the verbs.
        where: the place in the file, for errors.
        locate: what paths are relative to.
        barred: parameters that the study itself sets.

    Raises:
        StudyError: an unknown setting, or a value of another kind than the annotation.
    """
    hints = typing.get_type_hints(function)
    known = [name for name in inspect.signature(function).parameters if name not in barred]
    refuse_unknown(plain, known, where)
    return {key: read_value(value, hints[key], f"{where}.{key}", locate) for key, value in plain.items()}


def refuse_unknown(plain: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raise `StudyError` if a mapping has a key that isn't known."""
    for key in plain:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"
            raise StudyError(f"{where or 'the study'} has no setting {key!r}{hint}")


def read_mapping(plain: object, where: str) -> dict[str, Any]:
    """A mapping with names as keys; an empty one where the file says nothing.

    Raises:
        StudyError: it is something else.
    """
    if plain is None:
        return {}
    if not isinstance(plain, Mapping):
        raise StudyError(f"{where} must be a mapping of settings, got {plain!r}")
    return {str(key): value for key, value in plain.items()}


def read_value(value: Any, hint: Any, where: str, locate: Locate) -> Any:
    """A plain value as what the annotation ``hint`` asks for.

    Raises:
        StudyError: it is of another kind.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(value, Spec):
        return value
    if origin in (typing.Union, types.UnionType):
        return _read_union(value, arguments, where, locate)
    if origin is typing.Literal:
        if value not in arguments:
            raise StudyError(f"{where} must be one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if origin is tuple:
        return _read_tuple(value, arguments, where, locate)
    if origin in (list, collections.abc.Sequence):
        items = value if isinstance(value, list | tuple) else [value]
        return [read_value(item, arguments[0], f"{where}[{i}]", locate) for i, item in enumerate(items)]
    if isinstance(hint, type) and issubclass(hint, Spec):
        return read_spec(value, hint, where, locate)
    if isinstance(hint, type) and issubclass(hint, Path):
        if not isinstance(value, str | Path):
            raise StudyError(f"{where} must be a path, got {value!r}")
        return locate(str(value))
    if hint in (bool, int, float, str):
        return _read_scalar(value, hint, where)
    return value


def read_spec(value: Any, base: type[Spec], where: str, locate: Locate) -> Spec:
    """A spec of the family ``base``, in any of the forms that this module's head shows.

    Raises:
        StudyError: the class isn't known, or a field isn't, or a value is refused by the class.
    """
    found, fields = _class_and_fields(value, base, where)
    hints = typing.get_type_hints(found)
    known = [field.name for field in dataclasses.fields(found) if field.init]
    refuse_unknown(fields, known, f"{where} ({found.__name__})")
    values = {
        name: read_value(given, hints[name], f"{where}.{name}", locate) for name, given in fields.items()
    }
    try:
        return found(**values)
    except (ValueError, TypeError) as error:
        raise StudyError(f"{where}: {error}") from error


def _class_and_fields(value: Any, base: type[Spec], where: str) -> tuple[type[Spec], dict[str, Any]]:
    known = {member.__name__: member for member in members(base)}
    if isinstance(value, str):
        name, fields = value, {}
    elif isinstance(value, Mapping) and "class_path" in value:
        name, fields = str(value["class_path"]), read_mapping(value.get("init_args"), f"{where}.init_args")
    elif isinstance(value, Mapping) and len(value) == 1 and str(next(iter(value)))[:1].isupper():
        ((name, given),) = value.items()
        fields = read_mapping(given, f"{where}.{name}")
    elif isinstance(value, Mapping) and base.__name__ in known:
        return base, read_mapping(value, where)
    else:
        raise StudyError(
            f"{where} must name a {base.__name__}, such as {next(iter(known), base.__name__)}, got {value!r}"
        )
    short = str(name).rpartition(".")[2]
    if short not in known:
        close = difflib.get_close_matches(short, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
        raise StudyError(
            f"{where}: there is no {base.__name__} called {name}; {hint} (name "
            "modules of your own under imports)"
        )
    return known[short], fields


def _read_union(value: Any, arguments: tuple[Any, ...], where: str, locate: Locate) -> Any:
    if value is None and type(None) in arguments:
        return None
    if any(isinstance(a, type) and issubclass(a, Path) for a in arguments) and isinstance(value, str):
        return locate(value)
    errors = []
    for argument in arguments:
        if argument is type(None):
            continue
        try:
            return read_value(value, argument, where, locate)
        except StudyError as error:
            errors.append(error)
    raise errors[0]


def _read_tuple(value: Any, arguments: tuple[Any, ...], where: str, locate: Locate) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise StudyError(f"{where} must be a list, got {value!r}")
    if arguments[-1:] == (Ellipsis,):
        arguments = arguments[:1] * len(value)
    if len(arguments) != len(value):
        raise StudyError(f"{where} must have {len(arguments)} values, got {value!r}")
    return tuple(
        read_value(item, kind, f"{where}[{i}]", locate)
        for i, (item, kind) in enumerate(zip(value, arguments, strict=True))
    )


def _read_scalar(value: Any, kind: type, where: str) -> Any:
    if kind is float and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    raise StudyError(f"{where} must be {words[kind]}, got {value!r}")
