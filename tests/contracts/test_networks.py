"""Every network, now and later: found by listing the folder, held to the same promises."""

from __future__ import annotations

import pytest
import torch

from parts2whole.networks.base import Network
from parts2whole.networks.heads import EncoderDecoder, PooledClassifier
from parts2whole.spec import discover, spec_from_yaml

NETWORKS = discover(Network, "parts2whole.networks")


@pytest.fixture(params=sorted(NETWORKS))
def network(request) -> Network:
    return NETWORKS[request.param]()


def test_reads_back(network):
    assert spec_from_yaml(network.to_yaml(), Network) == network


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pyramid_is_what_the_encoder_says(network, channels):
    encoder = network.build_encoder(channels).eval()
    shape = tuple(encoder.divisor * n for n in (1, 2, 3))
    pyramid = encoder(torch.rand(1, channels, *shape))
    assert [level.shape[1] for level in pyramid] == list(encoder.channels)
    for level, stride in zip(pyramid, encoder.strides, strict=True):
        assert tuple(level.shape[2:]) == tuple(e // s for e, s in zip(shape, stride, strict=True))
    assert list(encoder.strides) == sorted(encoder.strides)


@pytest.mark.parametrize("skips", [True, False])
def test_a_decoder_and_a_head_fit(network, skips):
    encoder = network.build_encoder(1)
    # A single voxel has no spread that an instance norm could divide by.
    shape = (encoder.divisor, encoder.divisor, encoder.divisor * (2 if encoder.norm == "instance" else 1))
    x = torch.rand(2, 1, *shape)
    assert EncoderDecoder(encoder, out_channels=3, skips=skips)(x).shape == (2, 3, *shape)
    assert PooledClassifier(encoder, classes=4, hidden=8)(x).shape == (2, 4)


def test_the_same_seed_gives_the_same_weights(network):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(network.build_encoder(1).state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
