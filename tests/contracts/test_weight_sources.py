"""Every source of published weights, now and later, held to the promises of `WeightSourceContract`."""

from __future__ import annotations

import pytest

from parts2whole.contracts import WeightSourceContract, suites
from parts2whole.spec import discover
from parts2whole.weights.base import WeightSource

STAND_INS = {
    "medicalnet": "medicalnet_resnet10_backbone",
    "models_genesis": "models_genesis",
    "i3d": "i3d",
    "niftynet": "niftynet_highres3dnet",
}
"""A file of each source that has one; a new source is tried without, until it has a line here."""

globals().update(suites(WeightSourceContract, discover(WeightSource, "parts2whole.weights")))


@pytest.fixture(autouse=True)
def _published(request, stand_ins):
    model = STAND_INS.get(request.cls.member.prefix)
    request.cls.published = stand_ins(model).path if model else None
