"""Contract suites: what every member of a family promises, to be checked on a member of your own.

Families: methods, networks, tasks, weight sources, rules for the place of a whole, optimisers and schedules.

    class TestMine(MethodContract):     # in a file of tests: pytest runs the suite on Mine
        member = Mine

    parts2whole check-method mine.py:Mine    # or in words, without pytest

Read `base` first, then the family you write a member of.
"""

from __future__ import annotations

from parts2whole.contracts.base import BrokenPromise, Contract, Outcome, keep, promise, promises, suites
from parts2whole.contracts.methods import MethodContract
from parts2whole.contracts.networks import NetworkContract
from parts2whole.contracts.optimisers import OptimiserContract, ScheduleContract
from parts2whole.contracts.tasks import TaskContract
from parts2whole.contracts.weight_sources import WeightSourceContract
from parts2whole.contracts.where import WhereContract

SUITES: tuple[type[Contract], ...] = (
    MethodContract,
    NetworkContract,
    TaskContract,
    WeightSourceContract,
    WhereContract,
    OptimiserContract,
    ScheduleContract,
)

__all__ = [
    "SUITES",
    "BrokenPromise",
    "Contract",
    "MethodContract",
    "NetworkContract",
    "OptimiserContract",
    "Outcome",
    "ScheduleContract",
    "TaskContract",
    "WeightSourceContract",
    "WhereContract",
    "keep",
    "promise",
    "promises",
    "suites",
]
