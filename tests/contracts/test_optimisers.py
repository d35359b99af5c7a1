"""Every optimiser and schedule: held to the promises of `OptimiserContract` and `ScheduleContract`."""

from __future__ import annotations

from parts2whole.contracts import OptimiserContract, ScheduleContract, suites
from parts2whole.spec import discover
from parts2whole.training.optim import Optimiser, Schedule

globals().update(suites(OptimiserContract, discover(Optimiser, "parts2whole.training")))
globals().update(suites(ScheduleContract, discover(Schedule, "parts2whole.training")))
