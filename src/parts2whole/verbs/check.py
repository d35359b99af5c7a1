"""Run the contract suite of a family on a class of one's own, and say promise by promise what it keeps."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from pathlib import Path

from parts2whole.contracts import SUITES, Contract, Outcome, TaskContract, WeightSourceContract, keep
from parts2whole.errors import Parts2WholeError
from parts2whole.own import find_class
from parts2whole.spec import Spec, members


class CheckError(Parts2WholeError, ValueError):
    """A class that no suite is for, or data that its suite has no use for."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a class keeps of the promises of its family."""

    member: str
    family: str
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> bool:
        """Whether a promise is broken."""
        return any(outcome.fate == "broken" for outcome in self.outcomes)

    def summary(self) -> str:
        """A line for every promise, and how many are kept."""
        lines = [line for outcome in self.outcomes for line in _lines(outcome)]
        fates = [outcome.fate for outcome in self.outcomes]
        counts = [f"{fates.count(fate)} {fate}" for fate in ("kept", "broken", "not asked") if fate in fates]
        return "\n".join([f"{self.member}, a {self.family}", *lines, ", ".join(counts)])


def check(member: str, *, data: str | Path | None = None) -> Checked:
    """Check whether a class keeps the promises of its family.

    Args:
        member: ``FILE.py:Class``, ``package.module:Class``, or the name of a class of the package: a method,
            network, task, source of weights, rule for the place of a whole, optimiser or schedule.
        data: of a task, labelled data to check it on, with its defaults, instead of its example; of a source
            of weights, a file as it is published.

    Returns:
        What became of every promise; `failed` if one is broken.

    Raises:
        CheckError: there is no suite for it, or none that takes ``data``.
        parts2whole.own.OwnError: there is no such file or class.
    """
    for suite in SUITES:
        members(suite.family)  # so that a class of the package is known by its name
    found = find_class(Spec, member)
    suite = _suite_of(found)
    settings = {} if data is None else {_setting(suite): Path(data)}
    tried = type(f"Test{found.__name__}", (suite,), {"member": found, **settings})
    return Checked(found.__name__, suite.family.__name__, tuple(keep(tried)))


def _suite_of(member: type[Spec]) -> type[Contract]:
    for suite in SUITES:
        if issubclass(member, suite.family):
            return suite
    families = ", ".join(suite.family.__name__ for suite in SUITES)
    raise CheckError(f"{member.__name__} is of none of the families that have a suite: {families}")


def _setting(suite: type[Contract]) -> str:
    """What ``data`` is called in a suite."""
    names = {TaskContract: "data", WeightSourceContract: "published"}
    if suite not in names:
        raise CheckError(
            f"data is for tasks and sources of weights; leave it out for a {suite.family.__name__}"
        )
    return names[suite]


def _lines(outcome: Outcome) -> Iterator[str]:
    mark = outcome.fate.upper() if outcome.fate == "broken" else outcome.fate
    yield f"  {mark:<9}  {outcome.promise}"
    if outcome.why:
        yield textwrap.indent(outcome.why, " " * 13)
