"""Every pretext task, now and later: found by listing the folder, held to the same promises."""

from __future__ import annotations

import pytest
import torch

from parts2whole.data.random import BatchGenerator
from parts2whole.methods.base import Method, Reconstruction
from parts2whole.networks.unet3d import UNet3D
from parts2whole.spec import discover, spec_from_yaml

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
