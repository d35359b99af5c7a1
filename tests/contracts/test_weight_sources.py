"""Every source of published weights, now and later, held to the promises of `WeightSourceContract`."""

from __future__ import annotations

import functools

import pytest

from parts2whole.contracts import WeightSourceContract, suites
from parts2whole.spec import discover
from parts2whole.weights.base import WeightSource
from weights.public_networks import FILES

STAND_INS = {
    "medicalnet": "medicalnet_resnet10_backbone",
    "models_genesis": "models_genesis",
    "i3d": "i3d",
    "niftynet": "niftynet_highres3dnet",
}
PUBLIC = {"suprem": "suprem segresnet", "ct_fm": "ct_fm whole", "openmind": "openmind", "voco": "voco"}
"""A file of each source that has one; a new source is tried without, until it has a line here."""

globals().update(suites(WeightSourceContract, discover(WeightSource, "parts2whole.weights")))


@pytest.fixture(scope="session")
def public(tmp_path_factory):
    """A function from a source to a file of a public network."""
    return functools.cache(lambda prefix: FILES[PUBLIC[prefix]](tmp_path_factory.mktemp(prefix)).path)


@pytest.fixture(autouse=True)
def _published(request, stand_ins, public):
    prefix = request.cls.member.prefix
    model = STAND_INS.get(prefix)
    request.cls.published = stand_ins(model).path if model else public(prefix) if prefix in PUBLIC else None
