"""Every pretext task, now and later: found by listing the folder, held to the promises of `MethodContract`."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import parts2whole
from parts2whole.contracts import MethodContract, suites
from parts2whole.methods.base import Method
from parts2whole.methods.volume_fusion import VolumeFusion
from parts2whole.spec import discover

METHODS = discover(Method, "parts2whole.methods")
globals().update(suites(MethodContract, METHODS))


class TestVolumeFusion(MethodContract):
    """With few blocks: in twenty steps nothing learns to tell forty apart."""

    member = VolumeFusion

    @classmethod
    def make(cls, folder: Path) -> VolumeFusion:
        return VolumeFusion(blocks=(1, 4))


@pytest.mark.parametrize("name", METHODS)
def test_its_file_cites_the_paper_and_states_deviations(name):
    text = inspect.getmodule(METHODS[name]).__doc__
    assert "https://" in text
    assert "loss = " in text
    assert METHODS[name].citation


@pytest.mark.parametrize("name", METHODS)
def test_it_is_part_of_the_package_by_name(name):
    assert getattr(parts2whole, name) is METHODS[name]
