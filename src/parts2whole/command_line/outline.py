"""Signatures and specs read from the source of the package, without running it: a cheap first look.

Torch takes seconds to import, and what a command line says can be judged without it.  An outline of a module
has its functions and classes with their arguments, fields, defaults and docstrings, and nothing in them; what
comes from other packages is `Unknown`.  Its test compares all of it with the real thing.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any, TypeVar

from parts2whole.own import split_text
from parts2whole.spec import Spec, find_member, members

S = TypeVar("S", bound=Spec)

PACKAGE = "parts2whole"
ROOT = Path(__file__).parent.parent
REAL = frozenset({"parts2whole.spec"})  # light modules, which are taken as they are
KEPT = frozenset({"abstractmethod", "property", "classmethod", "staticmethod", "dataclass"})


class _Unknown:
    """Stands for anything of another package: it has every attribute, and is no type that is checked."""

    def __getattr__(self, name: str) -> _Unknown:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> _Unknown:
        return self

    def __getitem__(self, _: object) -> _Unknown:
        return self

    def __or__(self, _: object) -> _Unknown:
        return self

    __ror__ = __or__

    def __mro_entries__(self, _: object) -> tuple[type, ...]:
        return ()


Unknown: Any = _Unknown()
_HOMES: dict[type, Outline] = {}


@functools.cache
def outline(module: str) -> Outline:
    """The outline of a module of the package."""
    return Outline(module)


class Outline:
    """The names of a module, made when they are asked for.

    Args:
        module: its name.
    """

    def __init__(self, module: str) -> None:
        parts = module.split(".")[1:]
        self.module = module
        self.folder = ROOT.joinpath(*parts)
        file = self.folder / "__init__.py" if self.folder.is_dir() else self.folder.with_suffix(".py")
        self.file = file
        self.made: dict[str, Any] = {"__name__": f"{__name__}({module})"}
        self.text = file.read_text(encoding="utf-8")

    @functools.cached_property
    def statements(self) -> dict[str, ast.stmt]:
        """What defines every name, by name."""
        body = _flat(ast.parse(self.text).body)
        return {name: statement for statement in body for name in _defines(statement)}

    def get(self, name: str) -> Any:
        """What a name stands for; `Unknown` where that can't be said without running code."""
        if name in self.made:
            return self.made[name]
        statement = self.statements.get(name)
        if statement is None:
            if (self.folder / name).is_dir() or (self.folder / f"{name}.py").is_file():
                return outline(f"{self.module}.{name}")
            return getattr(builtins, name, Unknown)
        self.made[name] = Unknown  # for whatever refers to itself
        match statement:
            case ast.Import() | ast.ImportFrom():
                self.made[name] = self._imported(statement, name)
            case ast.ClassDef():
                self.made[name] = self._run(_hollow_class(statement), name)
                _HOMES[self.made[name]] = self
            case ast.FunctionDef():
                self.made[name] = self._run(_hollow_function(statement), name)
            case _:
                with contextlib.suppress(Exception):  # a value that takes running code
                    self.made[name] = self._run(statement, name)
        return self.made[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)

    def _run(self, statement: ast.stmt, name: str) -> Any:
        """Run one statement, with the names it uses."""
        used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        names = {"__name__": self.made["__name__"]} | {word: self.get(word) for word in used if word != name}
        exec(compile(ast.Module([statement], []), str(self.file), "exec", dont_inherit=True), names)
        return names[name]

    def _imported(self, statement: ast.Import | ast.ImportFrom, name: str) -> Any:
        alias = next(a for a in statement.names if (a.asname or a.name.partition(".")[0]) == name)
        module = alias.name if isinstance(statement, ast.Import) else str(statement.module)
        if module.partition(".")[0] == PACKAGE and module not in REAL:
            found: Any = outline(module)
        elif module in REAL or module.partition(".")[0] in sys.stdlib_module_names:
            found = importlib.import_module(module)
        else:
            return Unknown
        if isinstance(statement, ast.ImportFrom):
            return getattr(found, alias.name, Unknown)
        top = module.partition(".")[0]
        return found if alias.asname or top == PACKAGE else sys.modules[top]


def find_class(base: type[S], text: str, *, lenient: bool = False) -> type[S] | None:
    """The outline of a class of the family ``base``; None for one outside the package, which has none.

    Args:
        base: the outline of the family.
        text: what a person named it by.
        lenient: a name that the package doesn't have may be that of a class outside.

    Raises:
        parts2whole.spec.SpecError: the package has no such class.
    """
    place, name = split_text(text)
    if place and not place.startswith(f"{PACKAGE}."):
        return None
    for module in _family_modules(base):
        if f"class {name}(" in outline(module).text:
            found: type[S] = outline(module).get(name)
            if issubclass(found, base) and not inspect.isabstract(found):
                return found
    if lenient:
        return None
    known(base)
    return find_member(base, name)


def known(base: type[S]) -> list[type[S]]:
    """The outlines of all classes of a family."""
    for module in _family_modules(base):
        for name in re.findall(r"^class (\w+)\(", outline(module).text, flags=re.MULTILINE):
            outline(module).get(name)
    return members(base)


def _family_modules(base: type[Spec]) -> list[str]:
    """Modules that members of a family are in: its own, and those of its folder."""
    home = _HOMES[base]
    if not home.module.endswith(".base"):
        return [home.module]
    package = home.module.rpartition(".")[0]
    return [f"{package}.{file.stem}" for file in sorted(home.file.parent.glob("[!_]*.py"))]


def _flat(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements of a module, with those under ``if TYPE_CHECKING``."""
    nested = [s.body for s in body if isinstance(s, ast.If)]
    return [*body, *(statement for inner in nested for statement in inner)]


def _defines(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.Import(names) | ast.ImportFrom(names=names):
            return [alias.asname or alias.name.partition(".")[0] for alias in names]
        case ast.ClassDef(name) | ast.FunctionDef(name):
            return [name]
        case ast.AnnAssign(target=ast.Name(name)) | ast.Assign(targets=[ast.Name(name)]):
            return [name]
    return []


def _hollow_class(node: ast.ClassDef) -> ast.ClassDef:
    """A class with its fields, and with the names of its methods."""
    body: list[ast.stmt] = []
    for statement in node.body:
        match statement:
            case ast.FunctionDef(name=name) if name == "__call__" or not name.startswith("__"):
                hollow = _hollow_function(statement)
                hollow.args, hollow.returns = _NO_ARGUMENTS, None
                body.append(hollow)
            case ast.AnnAssign() | ast.Expr(ast.Constant()):
                body.append(statement)
    decorators = [d for d in node.decorator_list if _last(d) in KEPT]
    copy = ast.ClassDef(node.name, node.bases, node.keywords, body or [ast.Pass()], decorators)
    return ast.fix_missing_locations(ast.copy_location(copy, node))


def _hollow_function(node: ast.FunctionDef) -> ast.FunctionDef:
    """A function with its arguments and its docstring."""
    document = node.body[:1] if ast.get_docstring(node) is not None else []
    decorators = [d for d in node.decorator_list if _last(d) in KEPT]
    copy = ast.FunctionDef(node.name, node.args, [*document, ast.Pass()], decorators, node.returns)
    return ast.fix_missing_locations(ast.copy_location(copy, node))


_NO_ARGUMENTS = ast.arguments([], [], None, [], [], None, [])


def _last(node: ast.expr) -> str:
    """The last word of a decorator or base: ``dataclass`` of ``dataclasses.dataclass(frozen=True)``."""
    match node:
        case ast.Call(func):
            return _last(func)
        case ast.Attribute(attr=name) | ast.Name(name):
            return name
    return ""
