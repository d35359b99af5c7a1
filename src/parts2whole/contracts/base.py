"""What a contract suite is: a class whose ``test_`` methods are promises, told in words by their docstrings.

pytest collects a suite as any class of tests, and `keep` runs one without pytest.  A suite is for a family
and runs on one member: derive from it, name the member, and pytest does the rest::

    class TestMine(MethodContract):
        member = Mine
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
import pickle
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal
from unittest import SkipTest

from parts2whole.errors import Parts2WholeError
from parts2whole.spec import Spec, SpecError, find_member, spec_from_yaml


class BrokenPromise(Parts2WholeError, AssertionError):
    """A member doesn't keep a promise of its family."""


def promise(claim: object, otherwise: str) -> None:
    """Raise `BrokenPromise` with the words ``otherwise`` unless the claim holds."""
    if not claim:
        raise BrokenPromise(otherwise)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one promise.

    Attributes:
        promise: in words.
        fate: ``kept``, ``broken``, or ``not asked`` where it doesn't apply to this member.
        why: of what is broken or not asked.
    """

    promise: str
    fate: Literal["kept", "broken", "not asked"]
    why: str = ""


class Contract(abc.ABC):
    """Promises of every spec; a family adds its own.

    Attributes:
        family: what it is a suite for.
        member: the class it is run on.
        spec: the one it is run on, which `make` made.
        folder: a temporary folder for this suite.
    """

    family: ClassVar[type[Spec]]
    member: ClassVar[type[Spec]]
    spec: Any
    folder: ClassVar[Path]
    _temporary: ClassVar[tempfile.TemporaryDirectory[str]]

    @classmethod
    def make(cls, folder: Path) -> Spec:
        """The spec to run on; override it for other settings than the defaults."""
        return cls.member()

    @classmethod
    def setup_class(cls) -> None:
        """Make the spec; pytest and `keep` call it before the first promise."""
        cls._temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        cls.folder = Path(cls._temporary.name)
        cls.spec = cls.make(cls.folder)

    @classmethod
    def teardown_class(cls) -> None:
        """Remove the folder."""
        cls._temporary.cleanup()

    def test_is_a_frozen_spec_that_reads_back(self) -> None:
        """It is a frozen spec, hashable, and YAML and pickle give it back as it was."""
        spec = self.spec
        frozen = getattr(vars(type(spec)).get("__dataclass_params__"), "frozen", False)
        promise(frozen, f"write @dataclasses.dataclass(frozen=True) above class {type(spec).__name__}")
        hash(spec)
        again = spec_from_yaml(spec.to_yaml(), self.family)
        promise(again == spec, f"written as YAML and read again, {spec} becomes {again}")
        promise(pickle.loads(pickle.dumps(spec)) == spec, "pickled and loaded again, it is another")

    def test_is_found_by_its_name(self) -> None:
        """Its name is enough to find it, and belongs to no other member."""
        found = find_member(self.family, self.member.__name__)
        promise(
            found is self.member, f"the name leads to {found.__module__}, not to {self.member.__module__}"
        )


def promises(suite: type[Contract]) -> dict[str, str]:
    """Name and words of every promise of a suite, first those of all specs."""
    names = [name for one in reversed(suite.__mro__) for name in vars(one) if name.startswith("test_")]
    return {name: _words(getattr(suite, name)) for name in dict.fromkeys(names)}


def keep(suite: type[Contract]) -> Iterator[Outcome]:
    """Run a suite without pytest: the outcome of every promise, in order."""
    try:
        suite.setup_class()
    except Exception as error:
        yield Outcome("It can be made, to be looked at.", "broken", _explain(error, suite))
        return
    try:
        for name, words in promises(suite).items():
            try:
                getattr(suite(), name)()
            except SkipTest as reason:
                yield Outcome(words, "not asked", str(reason))
            except Exception as error:
                yield Outcome(words, "broken", _explain(error, suite))
            else:
                yield Outcome(words, "kept")
    finally:
        suite.teardown_class()


def suites(
    suite: type[Contract], members: Mapping[str, type[Spec]], **more: Any
) -> dict[str, type[Contract]]:
    """One class of tests for every member, to be put among a module's names for pytest to find.

    ``globals().update(suites(MethodContract, discover(Method, "parts2whole.methods")))``
    """
    return {
        f"Test{name}": type(f"Test{name}", (suite,), {"member": one, **more}) for name, one in members.items()
    }


def _words(test: Any) -> str:
    return " ".join((inspect.getdoc(test) or test.__name__.removeprefix("test_").replace("_", " ")).split())


def _explain(error: Exception, suite: type[Contract]) -> str:
    """An error in words: a broken promise as it is, anything else with its kind and the member's line."""
    if isinstance(error, BrokenPromise | SpecError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == inspect.getfile(suite.member)] or frames
    return f"{type(error).__name__}: {error} ({Path(own[-1].filename).name}, line {own[-1].lineno})"
