"""Specs: frozen dataclasses that describe a network, method, task or weight source.

A spec *is* the configuration.  Its fields are the hyper-parameters, with units in their names; it is
hashable, pickles to workers, prints as YAML and is read back unchanged.  Families are folders: a new
member is one new file, found by `discover`, never entered in a registry.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import inspect
import json
import os
import pkgutil
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from parts2whole.errors import Parts2WholeError

S = TypeVar("S", bound="Spec")
Plain = dict[str, Any]


class SpecError(Parts2WholeError, ValueError):
    """A spec that cannot be read: unknown class, unknown field or a value of the wrong kind."""


class UnknownClassError(SpecError):
    """No class of this name is known.

    Attributes:
        name: the name.
    """

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


@dataclasses.dataclass(frozen=True)
class Spec:
    """Base of every spec. Subclasses are frozen dataclasses, and either abstract or final."""

    def to_dict(self) -> Plain:
        """Plain data: ``{"class_path": name, "init_args": {...}}``; no module, so that files may move."""
        return {
            "class_path": type(self).__qualname__,
            "init_args": {
                field.name: to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)
            },
        }

    def digest(self) -> str:
        """Twelve hexadecimal digits that change when the class or any field changes."""
        return digest(self.to_dict())

    def to_yaml(self) -> str:
        """The spec as YAML; `spec_from_yaml` reads it back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def replace(self: S, **changes: Any) -> S:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def digest(plain: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of plain data, independent of key order."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_plain(value: Any) -> Any:
    """Specs, paths and tuples as dicts, strings and lists, ready for YAML or JSON."""
    if isinstance(value, Spec):
        return value.to_dict()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise SpecError(f"{value!r} of type {type(value).__name__} can't be part of a spec")


def spec_from_dict(plain: Plain, base: type[S]) -> S:
    """Rebuild a spec of the family ``base`` from `Spec.to_dict`.

    The class is found by its name; of a path, as version 0.1.0 wrote it, the last word counts.  Files may
    come from others, so reading one never imports what it names: a class is in the family's folder, or of a
    module that the program has imported itself.

    Raises:
        SpecError: the class isn't known, isn't a ``base``, or has no such field.
    """
    try:
        name = str(plain["class_path"]).rpartition(".")[2]
        arguments = dict(plain.get("init_args") or {})
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(f"expected class_path and init_args, got {plain!r}") from error
    try:
        found = find_member(base, name)
    except UnknownClassError as error:
        advice = "if it is your own, add --own FILE.py; in Python, import its file first"
        raise UnknownClassError(f"{error} ({advice})", name) from None
    known = {field.name for field in dataclasses.fields(found)}
    unknown = sorted(map(str, set(arguments) - known))
    if unknown:
        raise SpecError(f"{name} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    hints = typing.get_type_hints(found)
    try:
        return found(**{name: from_plain(value, hints[name]) for name, value in arguments.items()})
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):  # an error of this package says what is wrong
            raise
        raise SpecError(f"{name} can't have {arguments}: {error}") from error


def spec_from_yaml(text: str, base: type[S]) -> S:
    """Read a spec written by `Spec.to_yaml`.

    Raises:
        SpecError: it is not YAML, or as `spec_from_dict`.
    """
    try:
        plain = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError(f"this is not YAML: {' '.join(str(error).split())}") from error
    return spec_from_dict(plain, base)


def from_plain(value: Any, hint: Any) -> Any:
    """Plain data turned into what the annotation ``hint`` asks for: specs, paths, nested tuples."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return from_plain(value, next(a for a in arguments if a is not type(None)))
    if isinstance(value, dict) and isinstance(hint, type) and issubclass(hint, Spec):
        return spec_from_dict(value, hint)
    if isinstance(hint, type) and issubclass(hint, Path):
        return Path(value)
    if origin is tuple:
        items = arguments[:1] * len(value) if arguments[-1:] == (Ellipsis,) else arguments
        return tuple(from_plain(item, kind) for item, kind in zip(value, items, strict=True))
    if hint in (int, float) and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise SpecError(f"expected a number, got {value!r}")
    return value


def find_member(base: type[S], name: str) -> type[S]:
    """The class called ``name`` of the family ``base``.

    Raises:
        SpecError: there is none, or there are two.
    """
    found = [member for member in members(base) if member.__name__ == name]
    if not found:
        known = sorted(member.__name__ for member in members(base))
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        raise UnknownClassError(f"there is no {base.__name__} called {name!r}; {hint}", name)
    if len(found) > 1:  # `outline` draws classes from their source before they are imported
        found = [member for member in found if "outline(" not in member.__module__] or found
    if len(found) > 1:
        homes = " and in ".join(sorted(member.__module__ for member in found))
        raise SpecError(f"two classes are called {name}, in {homes}; give yours another name")
    return found[0]


def members(base: type[S]) -> list[type[S]]:
    """Every class of the family ``base`` that can be named: those in its folder, and those imported."""
    for one in base.__mro__:
        if one.__module__.startswith("parts2whole.") and one.__module__.endswith(".base"):
            discover(one, one.__module__.rpartition(".")[0])
    found: dict[tuple[str, str], type[S]] = {}  # by file, which may have been imported by two names
    left = [base]
    while left:
        one = left.pop()
        left += one.__subclasses__()
        if not inspect.isabstract(one) and not one.__name__.startswith("_"):
            file = getattr(sys.modules.get(one.__module__), "__file__", None) or one.__module__
            found[os.path.realpath(file), one.__qualname__] = (
                one  # of a file that was loaded again, the newest
            )
    return list(found.values())


def check_specs(settings: Mapping[str, object], **families: type[Any]) -> None:
    """Raise `SpecError` for a setting that isn't of its family, such as a name instead of a spec.

    Args:
        settings: values by name; None is left alone.
        families: the class that each must be an instance of, by the same names.
    """
    for name, family in families.items():
        if settings[name] is not None and not isinstance(settings[name], family):
            such = ", ".join(sorted(f"{one.__name__}(...)" for one in members(family))[:3])
            raise SpecError(f"{name} must be a {family.__name__}, such as {such}; got {settings[name]!r}")


def discover(base: type[S], package: str) -> dict[str, type[S]]:
    """Every final spec of the family ``base`` found in the modules of ``package``, by class name."""
    folder = importlib.import_module(package)
    found: dict[str, type[S]] = {}
    for entry in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{package}.{entry.name}")
        for name, member in vars(module).items():
            if (
                isinstance(member, type)
                and issubclass(member, base)
                and member is not base
                and member.__module__ == module.__name__
                and not getattr(member, "__abstractmethods__", None)
                and not name.startswith("_")
            ):
                found[name] = member
    return dict(sorted(found.items()))
