"""Adapters: nothing at first, a product of two small matrices later, and plain layers in the end."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from parts2whole.networks.base import count_parameters
from parts2whole.networks.blocks import NetworkError
from parts2whole.networks.heads import LinearDecoder
from parts2whole.networks.i3d import I3D
from parts2whole.networks.low_rank import add_low_rank, merge_low_rank
from parts2whole.networks.unet3d import UNet3D

X = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))


def test_adapters_change_nothing_at_first_and_learn_alone():
    encoder = UNet3D(size="tiny").build_encoder(1).eval()
    before = [level.clone() for level in encoder(X)]
    assert add_low_rank(encoder, 2) == 8
    assert all(torch.equal(a, b) for a, b in zip(before, encoder(X), strict=True))
    # (out, in * 27) of every convolution, at most of its smaller edge
    shapes = [(4, 27), (8, 108), (8, 216), (16, 216), (16, 432), (32, 432), (32, 864), (64, 864)]
    assert count_parameters(encoder) == sum(2 * (rows + columns) for rows, columns in shapes)
    sum(level.square().sum() for level in encoder(X)).backward()
    learns = {name for name, value in encoder.named_parameters() if value.grad is not None}
    assert learns == {name for name, value in encoder.named_parameters() if name.endswith((".a", ".b"))}


@pytest.mark.parametrize("rank", [1, 3])
def test_merged_layers_are_plain_and_compute_the_same(rank):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv3d(2, 6, 3, groups=2), nn.Conv3d(6, 4, 1), nn.Flatten(), nn.Linear(4, 5))
    before = copy.deepcopy(module.state_dict())
    assert add_low_rank(module, rank) == 3
    with torch.no_grad():
        for value in module.parameters():
            if value.requires_grad:
                value.normal_()
    x = torch.rand(2, 2, 3, 3, 3)
    expected = copy.deepcopy(module)(x)  # a copy has adapters of its own
    factors = {name: value.clone() for name, value in module.named_parameters()}
    merge_low_rank(module)
    assert torch.allclose(module(x), expected, atol=1e-5)
    after = module.state_dict()
    assert after.keys() == before.keys()
    for name in ("0", "1", "3"):
        a, b = (factors[f"{name}.parametrizations.weight.0.{letter}"] for letter in "ab")
        assert a.shape[0] == min(rank, *before[f"{name}.weight"].flatten(1).shape)
        product = torch.einsum("or,ri->oi", b, a).reshape(before[f"{name}.weight"].shape)
        assert torch.allclose(after[f"{name}.weight"], before[f"{name}.weight"] + product, atol=1e-5)


def test_layers_that_pad_by_their_input_take_adapters():
    encoder = I3D().build_encoder(1).eval()
    assert add_low_rank(encoder, 1) > 50
    merge_low_rank(encoder)
    assert encoder.state_dict().keys() == I3D().build_encoder(1).state_dict().keys()


def test_what_can_not_be_adapted_is_said():
    with pytest.raises(NetworkError, match="must be at least 1, got 0"):
        add_low_rank(nn.Conv3d(1, 1, 1), 0)
    with pytest.raises(NetworkError, match="ReLU has no convolution"):
        add_low_rank(nn.ReLU(), 1)


def test_a_linear_decoder_is_linear_in_the_features_of_all_levels():
    encoder = UNet3D(size="tiny").build_encoder(1).eval()
    model = LinearDecoder(encoder, classes=3).eval()
    with torch.no_grad():
        found = model(X)
        pyramid = encoder(X)
        grown = [nn.functional.interpolate(level, size=X.shape[2:], mode="trilinear") for level in pyramid]
        weights = torch.cat([head.weight.flatten(1) for head in model.heads], dim=1)
        bias = sum(head.bias for head in model.heads)
        expected = torch.einsum("of,bfdhw->bodhw", weights, torch.cat(grown, dim=1)) + bias.view(
            1, -1, 1, 1, 1
        )
    assert torch.allclose(found, expected, atol=1e-5)
