"""Plain values as typed arguments of the verbs, for studies and command lines; every error names its place.

A spec may be written as its class alone, as the class with its fields, in full, or as fields alone, which
change the default:

    method: Parts2Whole
    method: {Parts2Whole: {part_fraction: [0.4, 0.7]}}
    method: {class_path: Parts2Whole, init_args: {part_fraction: [0.4, 0.7]}}
    method: {part_fraction: [0.4, 0.7]}

What one value must be is decided by jsonargparse, from the annotation.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import functools
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from parts2whole.errors import Parts2WholeError
from parts2whole.own import OPTION, OwnError, find_class, split_text
from parts2whole.spec import Spec, SpecError, members

OWN = "FILE.py:CLASS"
COMMAND_LINE = "--"
"""The place of an option, whose name follows."""


UNCHECKED = object()
"""Stands for a spec whose class `Reader.find` doesn't know."""


class ArgumentsError(Parts2WholeError, ValueError):
    """A value that isn't what it must be, with its place in the file or its option."""


class StudyError(ArgumentsError):
    """A study that can't be read, with the place in its file, or can't be run."""


class Words(tuple[str, ...]):
    """What follows an option on the command line, not yet understood."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """How values are read.

    Attributes:
        locate: turns what the file calls a path into a path on disk.
        find: the class of a family that a text names; None where its fields can't be checked.
        known: the classes of a family.
    """

    locate: Callable[[str], str | Path] = os.path.expanduser
    find: Callable[[type[Spec], str], type[Spec] | None] = find_class
    known: Callable[[type[Spec]], list[type[Spec]]] = members

    def arguments(
        self,
        plain: Mapping[str, Any],
        function: Callable[..., Any],
        where: str,
        *,
        barred: Collection[str] = (),
        defaults: Mapping[str, Any] = {},
    ) -> dict[str, Any]:
        """Settings as keyword arguments of ``function``, typed by its annotations.

        Args:
            plain: what the file says.
            function: one of the verbs.
            where: the place in the file, for errors.
            barred: parameters that the study itself sets.
            defaults: values to be used instead of those of the signature.

        Raises:
            ArgumentsError: an unknown setting, or a value of another kind than the annotation.
        """
        hints = typing.get_type_hints(function)
        parameters = {
            name: parameter
            for name, parameter in inspect.signature(function).parameters.items()
            if name not in barred
        }
        refuse_unknown(plain, parameters, where)
        return {
            key: self.value(
                value, hints[key], at(where, key), default=defaults.get(key, parameters[key].default)
            )
            for key, value in plain.items()
        }

    def value(self, value: Any, hint: Any, where: str, *, default: Any = None) -> Any:
        """A plain value as what the annotation ``hint`` asks for.

        Args:
            value: what the file says.
            hint: the annotation.
            where: the place in the file.
            default: a spec that is changed where only fields are given, else an example for errors.

        Raises:
            ArgumentsError: it is of another kind.
        """
        given, choices = value, choices_of(hint)
        if isinstance(value, Words):
            value = _of_words(value, hint, where)
        if Any in leaves_of(hint) or isinstance(value, Spec):
            return value
        if type(None) in choices and value in (None, "null"):
            return None
        if isinstance(value, str) and {*choices} - {type(None)} == {str}:
            return value  # whatever YAML would take it for
        for base in choices:
            if isinstance(base, type) and issubclass(base, Spec):
                return self.spec(value, base, where, default=default)
        try:
            if value is None:
                raise ValueError
            return _typed(self._located(value, hint), hint)
        except ValueError as error:
            such = f", such as {_shown(default, where)}" if isinstance(default, tuple) and default else ""
            got = f"got {_shown(given, where)}{_close(value, hint)}"
            raise ArgumentsError(f"{where} must be {wanted(hint)}{such}; {got}") from error

    def spec(self, value: Any, base: type[Spec], where: str, *, default: Any = None) -> Any:
        """A spec of the family ``base``, in any of the forms that this module's head shows.

        Raises:
            ArgumentsError: the class isn't known, or a field isn't, or a value is refused by the class.
        """
        name, fields = class_and_fields(value, where)
        if name is None and default is UNCHECKED:
            return UNCHECKED
        start = default if name is None and isinstance(default, Spec) else None
        try:
            found = type(start) if start else self._class(name, base, where)
        except SpecError as error:
            raise ArgumentsError(
                f"{where}: {error} (one of your own: {OWN}, or add {OPTION} FILE.py)"
            ) from error
        except OwnError as error:
            raise ArgumentsError(f"{where}: {error}") from error
        if found is None:
            return UNCHECKED
        hints = typing.get_type_hints(found)
        known = {field.name: field for field in dataclasses.fields(found) if field.init}
        refuse_unknown(fields, known, where, of=found.__name__)
        values = {
            key: self.value(given, hints[key], at(where, key), default=getattr(start or found, key, None))
            for key, given in fields.items()
        }
        for key, field in known.items():
            if key not in values and not start and _required(field):
                raise ArgumentsError(f"{at(where, key)} is missing: {found.__name__} needs it")
        try:
            return dataclasses.replace(start, **values) if start else found(**values)
        except (ValueError, TypeError) as error:
            raise ArgumentsError(f"{where}: {error}") from error

    def _class(self, name: str | None, base: type[Spec], where: str) -> type[Spec] | None:
        if name is not None:
            return self.find(base, name)
        if not inspect.isabstract(base):
            return base
        usual = getattr(base, "usual", None)
        if usual:
            return self.find(base, usual)
        known = ", ".join(sorted(member.__name__ for member in self.known(base)))
        raise ArgumentsError(f"{where} must name {an(base.__name__)}: {known}; or one of your own: {OWN}")

    def _located(self, value: Any, hint: Any) -> Any:
        """A value in which what may be a path is one."""
        if isinstance(value, list | tuple):
            return [self._located(item, hint) for item in value]
        if isinstance(value, str) and Path in leaves_of(hint):
            return self.locate(value)
        return value


class _Once(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known: list[Any] = []
        for place, _ in node.value:
            if place.tag != "tag:yaml.org,2002:merge":
                key = self.construct_object(place, deep=True)
                if key in known:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key!r} is given twice", place.start_mark
                    )
                known.append(key)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """What a file of a user says.

    Raises:
        yaml.YAMLError: it is no YAML, or gives a key twice.
    """
    loader = _Once(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def class_and_fields(value: Any, where: str) -> tuple[str | None, dict[str, Any]]:
    """The class that a value names, None if it has only fields, and its fields.

    Raises:
        ArgumentsError: it is in none of the forms that this module's head shows.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ArgumentsError(f"{where}: {value} is not YAML") from error
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Mapping):
        if "class_path" in value:
            return str(value["class_path"]), read_mapping(value.get("init_args"), at(where, "init_args"))
        only = str(next(iter(value))) if len(value) == 1 else ""
        if ":" in only or only.endswith(".py") or split_text(only)[1][:1].isupper():
            return only, read_mapping(value[only], at(where, only))
        return None, read_mapping(value, where)
    raise ArgumentsError(f"{where} must name a class, alone or with its fields, got {_shown(value, where)}")


def read_mapping(plain: object, where: str) -> dict[str, Any]:
    """A mapping with names as keys; an empty one where the file says nothing.

    Raises:
        ArgumentsError: it is something else.
    """
    if plain is None:
        return {}
    if not isinstance(plain, Mapping):
        raise ArgumentsError(f"{where} must be a mapping of settings, got {_shown(plain, where)}")
    return {str(key): value for key, value in plain.items()}


def refuse_unknown(plain: Mapping[str, Any], known: Collection[str], where: str, *, of: str = "") -> None:
    """Raise `ArgumentsError` if a mapping has a key that isn't known; ``of`` is the class with the fields."""
    for key in plain:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            names = [at(where, name) if where.startswith(COMMAND_LINE) else name for name in known]
            hint = f"did you mean {names[list(known).index(close[0])]}?" if close else ""
            hint = hint or f"known are {', '.join(sorted(names))}"
            place = (where or "it") + (f" ({of})" if of else "")
            raise ArgumentsError(f"{place} has no setting {key!r}; {hint}")


def at(where: str, key: str) -> str:
    """The place of a setting: ``pretrain.whole_size`` in a file, ``--whole-size`` on the command line."""
    if where.startswith(COMMAND_LINE):
        return f"{where}{'.' if where != COMMAND_LINE else ''}{key.replace('_', '-')}"
    return f"{where}.{key}".lstrip(".")


def an(name: str) -> str:
    """A name with its article."""
    return f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def wanted(hint: Any) -> str:
    """What an annotation asks for, in words."""
    choices = [choice for choice in choices_of(hint) if choice is not type(None)]
    if Path in choices:
        choices.remove(str)
    return " or ".join(dict.fromkeys(_wanted(choice) for choice in choices))


WORDS = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
}


def _wanted(choice: Any) -> str:
    origin, arguments = typing.get_origin(choice), typing.get_args(choice)
    if origin is typing.Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(str, arguments))
    if origin in _SEQUENCES:
        count = "" if origin is not tuple or arguments[-1] is Ellipsis else f"{len(arguments)} "
        kind = choices_of(arguments[0])[-1]  # paths may be texts, too
        items = WORDS[kind][1] if kind in WORDS else f"lists of {wanted(kind)}"
        return f"{count}{items}" if count else f"a list of {items}"
    return WORDS.get(choice, (getattr(choice, "__name__", str(choice)),))[0]


_SEQUENCES = (tuple, list, collections.abc.Sequence)


def choices_of(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the one that there is."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def leaves_of(hint: Any) -> set[Any]:
    """Types that an annotation is made of; `Any` for what isn't known."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return set()
    if origin is None:
        return {hint} if isinstance(hint, type) else set() if hint is Ellipsis else {Any}
    return {leaf for argument in typing.get_args(hint) for leaf in leaves_of(argument)}


def _typed(value: Any, hint: Any) -> Any:
    """A value of the type that an annotation asks for; raises `ValueError` if it is none."""
    from jsonargparse import ArgumentError  # a tenth of a second, which errors can spare

    if typing.get_origin(hint) in _SEQUENCES and not isinstance(value, list) and str(value)[:1] != "[":
        value = [value]
    try:
        return _parser(hint).parse_object({"value": value}).value
    except ArgumentError as error:
        raise ValueError(str(error)) from error


@functools.cache
def _parser(hint: Any) -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    return parser


def _of_words(words: Words, hint: Any, where: str) -> Any:
    """What a person typed after an option; lists may be ``1,2,3``, ``1 2 3`` or ``[1,2,3]``."""
    choices, text = choices_of(hint), " ".join(words)
    if not words:
        if bool in choices:
            return True
        raise ArgumentsError(f"{where} needs a value: {wanted(hint)}")
    lists = [choice for choice in choices if typing.get_origin(choice) in _SEQUENCES]
    if text.startswith(("[", "{")) or text == "null":
        return text
    if not lists:
        if len(words) > 1 and choices[0] is not str and Any not in leaves_of(hint):
            raise ArgumentsError(f"{where} takes one value, got {text}")
        return text
    item = typing.get_args(lists[0])[0]
    split = [word for word in re.split(r"[,\s]+", text) if word]
    if Path in leaves_of(item):
        split = list(words)
    elif typing.get_origin(item) in _SEQUENCES:
        return [[number for number in word.split(",") if number] for word in words]
    return split[0] if len(split) == 1 and str in choices else split


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _shown(value: Any, where: str) -> str:
    """A value as it is written there."""
    if not where.startswith(COMMAND_LINE):
        return repr(list(value) if isinstance(value, tuple) else value)
    if isinstance(value, Words):
        return " ".join(value)
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _close(value: Any, hint: Any) -> str:
    """The choice that was probably meant."""
    names = [
        str(name)
        for c in choices_of(hint)
        if typing.get_origin(c) is typing.Literal
        for name in typing.get_args(c)
    ]
    close = difflib.get_close_matches(str(value), names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
