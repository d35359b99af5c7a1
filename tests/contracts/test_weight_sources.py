"""Every source of published weights, now and later, held to the promises of `WeightSourceContract`."""

from __future__ import annotations

from parts2whole.contracts import WeightSourceContract, suites
from parts2whole.spec import discover
from parts2whole.weights.base import WeightSource

SOURCES = discover(WeightSource, "parts2whole.weights")
globals().update(suites(WeightSourceContract, SOURCES))
