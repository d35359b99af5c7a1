"""Classes of one's own, outside the package: of a file named by its path, or of a module on the Python path.

    --method my_method.py:Mine      --method my_package.methods:Mine      --own my_networks.py

A file is imported under a name that says where it lies, so that a process which is sent one of its specs
finds it by itself.  What is imported is what a person names, on the command line or in a study; what a run or
weights folder names is only looked for among the classes that are there (`spec.find_member`).
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from parts2whole.errors import Parts2WholeError
from parts2whole.run_folder import ENVIRONMENT
from parts2whole.spec import Spec, find_member, members

S = TypeVar("S", bound=Spec)

OPTION = "--own"
FILES = "own_files"
"""Key of `own_files` in a run's ``environment.json``: what to name where its classes aren't known."""
__path__: list[str] = []  # what makes a package of this module: the files that `_Files` finds are below it


class OwnError(Parts2WholeError, ValueError):
    """A file, module or class of one's own that can't be used."""


class _Files:
    """Finds modules below this one: a name is the path of the file, in hexadecimal digits."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        parent, _, digits = name.rpartition(".")
        if parent != __name__:
            return None
        file = Path(bytes.fromhex(digits[1:]).decode())
        if not file.is_file():
            raise ModuleNotFoundError(f"{file} doesn't exist", name=name)
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))  # last, for the files beside it; hides nothing
        return spec_from_file_location(name, file)


sys.meta_path.append(_Files)


def import_own(place: str | Path, *, folder: str | Path = ".") -> ModuleType:
    """Import a file by its path, or a module by its name; a second time gives the same module.

    Args:
        place: ``FILE.py`` or ``package.module``.
        folder: what the path of a file is relative to.

    Raises:
        OwnError: it isn't there, or its code fails.
    """
    name = str(place)
    if name.endswith(".py"):
        file = (Path(folder) / Path(name).expanduser()).resolve()
        if not file.is_file():
            raise OwnError(f"there is no file {file}")
        known = _imported(file)
        if known is not None:
            return known
        name = f"{__name__}._{str(file).encode().hex()}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise OwnError(
                f"there is no module {place} on the Python path; a file is named by its path, such as "
                f"{name.replace('.', '/')}.py"
            ) from error
        raise OwnError(f"{place} needs the package {error.name}, which isn't installed") from error
    except Exception as error:  # whatever their code does
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise OwnError(f"{place} can't be imported: {what}{_line(error, place)}") from error


def find_class(base: type[S], text: str, *, folder: str | Path | None = ".") -> type[S]:
    """The class of the family ``base`` that a person named.

    Args:
        base: the family.
        text: a class by its name, or ``FILE.py:Class``, ``package.module:Class``, ``package.module.Class``;
            ``FILE.py`` where that defines a single one.
        folder: what paths of files are relative to; None imports nothing and looks for the last word.

    Raises:
        OwnError: there is no such file, module or class, it is unfinished, or its name is taken.
        parts2whole.spec.SpecError: no class of this name is known.
    """
    place, name = split_text(text)
    if not place or folder is None or (place.startswith("parts2whole.") and not place.endswith(".py")):
        return find_member(base, name)
    module = import_own(place, folder=folder)
    mine = {
        one.__name__: one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, base) and one.__module__ == module.__name__
    }
    found = getattr(module, name, None) if name else None
    if not name and len(mine) == 1:
        (found,) = mine.values()
    if not (isinstance(found, type) and issubclass(found, base)):
        wanted = f"called {name}" if name else f"to take; name one: {place}:CLASS"
        has = f"it has {', '.join(sorted(mine))}" if mine else f"it has no {base.__name__} at all"
        raise OwnError(f"{place} has no {base.__name__} {wanted}; {has}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise OwnError(f"{place}: {found.__name__} isn't complete, a {base.__name__} also needs {missing}")
    find_member(base, found.__name__)  # it will be looked for by its name
    return found


def split_text(text: str) -> tuple[str, str]:
    """Where a class is, ``""`` for a plain name, and what it is called, ``""`` where only a file is named."""
    if text.endswith(".py"):
        return text, ""
    place, _, name = text.rpartition(":" if ":" in text else ".")
    return place, name


def own_modules() -> list[str]:
    """Modules outside the package that specs have been defined in; a worker imports them, too."""
    return sorted({one.__module__ for one in _own_classes()} - {"__main__"})


def own_files() -> dict[str, str]:
    """The file of every class of one's own, by the name that runs and weights call it by."""
    found = {one.__name__: getattr(sys.modules[one.__module__], "__file__", None) for one in _own_classes()}
    return {name: os.path.realpath(file) for name, file in found.items() if file}


def advise(name: str, folders: Iterable[Path]) -> str:
    """The option that makes a class known, as far as one of the run or weights folders tells its file."""
    for folder in folders:
        for place in (folder, folder.parent):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                file = json.loads((place / ENVIRONMENT).read_text())[FILES].get(name)
                if file:
                    return f"{OPTION} {file}"
    return ""


def is_own(module: str) -> bool:
    """Whether a module is one's own, and not of the package."""
    return module.startswith(f"{__name__}.") or module.partition(".")[0] != "parts2whole"


def _own_classes() -> list[type[Spec]]:
    return [one for one in members(Spec) if is_own(one.__module__) and one.__module__ in sys.modules]


def _imported(file: Path) -> ModuleType | None:
    """The module that a file has been imported as, by whatever name."""
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None) or ""
        if os.path.basename(source) == file.name and Path(source).resolve() == file:
            return module
    return None


def _line(error: Exception, place: str | Path) -> str:
    """Where in a file its code failed."""
    if isinstance(error, SyntaxError):
        return ""
    trace, lines = error.__traceback__, []
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == Path(place).name:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" (line {lines[-1]})" if lines else ""
