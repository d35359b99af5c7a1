"""Trained weights brought to the scale of fresh ones: the function stays, the size of a step doesn't."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from parts2whole.networks.base import Network
from parts2whole.networks.unet3d import UNet3D
from parts2whole.spec import discover
from parts2whole.training.rescale import match_scale, normalised_convolutions

NETWORKS = {name: kind() for name, kind in discover(Network, "parts2whole.networks").items()}


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_weights_are_as_large_as_fresh_ones_and_the_maps_are_what_they_were(norm):
    network = UNet3D(size="tiny", norm=norm)
    torch.manual_seed(0)
    fresh, trained = network.build_encoder(1), network.build_encoder(1)
    x = torch.rand(2, 1, 16, 16, 16)
    with torch.no_grad():
        for number, unit in enumerate(normalised_convolutions(trained).values(), start=2):
            unit[0].weight *= number
            unit[0].bias *= number
            unit[1].eps = 1e-12  # which alone depends on the scale
        trained.train()(x)  # running statistics of the larger maps
        before = trained.eval()(x)
    ratios = match_scale(trained, fresh)
    assert len(ratios) == 8
    assert min(ratios.values()) > 1.5
    with torch.no_grad():
        after = trained(x)
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    again = match_scale(trained, fresh)
    assert list(again.values()) == pytest.approx([1.0] * 8, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "UNet3D"])
def test_it_leaves_the_function_of_every_network(name):
    network = NETWORKS[name]
    if "size" in {field.name for field in dataclasses.fields(network)}:
        network = network.replace(size="tiny")
    torch.manual_seed(0)
    fresh, trained = network.build_encoder(1), network.build_encoder(1)
    with torch.no_grad():
        for unit in normalised_convolutions(trained).values():
            unit[0].weight *= 3
            if unit[0].bias is not None:
                unit[0].bias *= 3
            unit[1].eps = 1e-12
        x = torch.rand(1, 1, *(2 * fresh.divisor,) * 3)
        trained.train()(x)
        before = trained.eval()(x)
        assert bool(match_scale(trained, fresh)) == (name != "SwinUNETR")  # whose convolutions have no norm
        for one, other in zip(before, trained(x), strict=True):
            assert torch.allclose(one, other, atol=1e-4 * float(one.abs().max()))


def test_weights_that_are_all_zero_are_left_alone():
    encoder = UNet3D(size="tiny").build_encoder(1)
    torch.nn.init.zeros_(encoder.get_parameter("levels.0.0.0.weight"))
    assert "levels.0.0.0" not in match_scale(encoder, UNet3D(size="tiny").build_encoder(1))
    assert torch.isfinite(encoder.get_parameter("levels.0.0.0.weight")).all()


def test_without_norms_there_is_nothing_to_scale():
    network = UNet3D(size="tiny", norm="none")
    assert match_scale(network.build_encoder(1), network.build_encoder(1)) == {}
