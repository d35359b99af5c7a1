"""Every pretext task, now and later: found by listing the folder, held to the same promises."""

from __future__ import annotations

import inspect

import pytest
import torch

import parts2whole
from parts2whole.methods.base import Discrimination, Method, Reconstruction
from parts2whole.networks.unet3d import UNet3D
from parts2whole.spec import discover, spec_from_yaml
from parts2whole.wholes.random import BatchGenerator

METHODS = discover(Method, "parts2whole.methods")
WHOLE = (8, 16, 16)


@pytest.fixture(params=sorted(METHODS))
def method(request) -> Method:
    return METHODS[request.param]()


@pytest.fixture
def wholes() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 1, 2, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=WHOLE, mode="trilinear")


def build(method: Method) -> torch.nn.Module:
    torch.manual_seed(0)
    return method.build(UNet3D(size="tiny"), in_channels=1, whole_size=WHOLE)


def test_is_a_frozen_spec_that_reads_back(method):
    assert spec_from_yaml(method.to_yaml(), Method) == method
    with pytest.raises(AttributeError):
        method.citation = "x"


def test_views_depend_on_the_generator_alone(method, wholes):
    first = method.views(wholes, BatchGenerator.of_step(1, rows=6))
    again = method.views(wholes, BatchGenerator.of_step(1, rows=6))
    assert first.keys() == again.keys()
    for key in first:
        torch.testing.assert_close(first[key], again[key], rtol=0, atol=0)


def test_two_devices_see_what_one_sees(method, wholes):
    together = method.views(wholes, BatchGenerator.of_step(1, rows=6))
    apart = [
        method.views(wholes[3 * r : 3 * r + 3], BatchGenerator.of_step(1, rows=3, rank=r, ranks=2))
        for r in (0, 1)
    ]
    for key in together:
        torch.testing.assert_close(torch.cat([views[key] for views in apart]), together[key])


def test_views_leave_the_wholes_alone(method, wholes):
    before = wholes.clone()
    method.views(wholes, BatchGenerator.of_step(1, rows=6))
    torch.testing.assert_close(wholes, before, rtol=0, atol=0)


def test_loss_is_a_finite_scalar_that_reaches_the_encoder(method, wholes):
    module = build(method)
    losses = method.loss(module, method.views(wholes, BatchGenerator.of_step(1, rows=6)))
    assert losses["loss"].ndim == 0
    assert torch.isfinite(losses["loss"])
    losses["loss"].backward()
    assert all(p.grad is not None for p in module.encoder.parameters())


def test_it_learns(method, wholes):
    module = build(method)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    history = []
    for step in range(20):
        loss = method.loss(module, method.views(wholes, BatchGenerator.of_step(step, rows=6)))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(float(loss.detach()))
    assert sum(history[-5:]) < 0.9 * sum(history[:5])


def test_a_reconstruction_is_an_image_of_the_whole(method, wholes):
    if not isinstance(method, Reconstruction):
        pytest.skip("not a reconstruction")
    views = method.views(wholes, BatchGenerator.of_step(1, rows=6))
    image = method.reconstruct(build(method), views["part"])
    assert image.shape == views["part"].shape
    assert 0 <= float(image.min()) <= float(image.max()) <= 1


def run_steps(module, optimiser, method, wholes, steps) -> None:
    module.train()
    for step in steps:
        loss = method.loss(module, method.views(wholes, BatchGenerator.of_step(step, rows=6)))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_a_run_restored_from_its_state_is_the_run(method, wholes, tmp_path):
    module = build(method)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    run_steps(module, optimiser, method, wholes, range(2))
    torch.save({"module": module.state_dict(), "optimiser": optimiser.state_dict()}, tmp_path / "state")
    run_steps(module, optimiser, method, wholes, range(2, 4))
    torch.manual_seed(99)
    again = method.build(UNet3D(size="tiny"), in_channels=1, whole_size=WHOLE)
    other = torch.optim.AdamW(again.parameters(), lr=3e-3)
    state = torch.load(tmp_path / "state", weights_only=True)
    again.load_state_dict(state["module"])
    other.load_state_dict(state["optimiser"])
    run_steps(again, other, method, wholes, range(2, 4))
    for key, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_validating_leaves_the_state_alone(method, wholes):
    module = build(method)
    views = method.views(wholes, BatchGenerator.of_step(1, rows=6))
    method.loss(module.train(), views)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module.eval()
    with torch.no_grad():
        first, again = (method.loss(module, views) for _ in range(2))
    assert {key: float(value) for key, value in first.items()} == {k: float(v) for k, v in again.items()}
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_guessing_is_what_a_discrimination_can_be_compared_with(method):
    if not isinstance(method, Discrimination):
        pytest.skip("nothing to guess")
    assert method.candidates(6) > 1


def test_its_file_cites_the_paper_and_states_deviations(method):
    text = inspect.getmodule(type(method)).__doc__
    assert "https://" in text
    assert "loss = " in text
    assert method.citation


def test_it_is_part_of_the_package_by_name(method):
    assert getattr(parts2whole, type(method).__name__) is type(method)
