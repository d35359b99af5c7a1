"""Against what dynamic_network_architectures 0.4.4 gives: ResidualEncoderUNet with bias, instance norm, LeakyReLU,
kernels 3, strides 1, 2, 2, ..., one convolution a decoder stage; the numbers were recorded from it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import nn

from parts2whole.networks.base import count_parameters
from parts2whole.networks.blocks import NetworkError
from parts2whole.networks.resenc_unet3d import ResEncUNet3D, ResidualBlock


def fill(parameters: Iterable[nn.Parameter]) -> None:
    """Values that depend on the place of a parameter alone."""
    done = 0
    for parameter in parameters:
        place = torch.arange(done, done + parameter.numel(), dtype=torch.float64)
        parameter.data.copy_((0.5 * torch.sin(12.9898 * place)).reshape(parameter.shape))
        done += parameter.numel()


@pytest.mark.parametrize(
    ("size", "encoder", "whole"),
    [("tiny", 502_112, 596_425), ("small", 6_101_056, 6_477_841), ("base", 90_296_576, 102_348_193)],
)
def test_it_has_the_published_number_of_parameters(size, encoder, whole):
    with torch.device("meta"):
        network = ResEncUNet3D(size)
        found = count_parameters(network.build_encoder(1))
        assert (found, found + count_parameters(network.build_own(1, 1))) == (encoder, whole)


@torch.no_grad()
def test_it_computes_what_the_published_network_does():
    network = ResEncUNet3D("tiny")
    encoder, own = network.build_encoder(2).eval(), network.build_own(2, 3).eval()
    parts = (encoder, own.ups, own.stages, own.classes)
    fill(parameter for part in parts for parameter in part.parameters())
    place = torch.arange(2 * 16**3, dtype=torch.float64)
    x = torch.sin(0.37 * place).float().reshape(1, 2, 16, 16, 16)
    pyramid = encoder(x)
    logits = own(pyramid)
    found = [float(level.double().abs().mean()) for level in pyramid]
    assert found == pytest.approx([0.363863, 0.279274, 0.432503, 0.364094], rel=1e-4)
    assert logits.shape == (1, 3, 16, 16, 16)
    assert logits[0, :, 3, 5, 7].tolist() == pytest.approx([-0.384425, 1.238962, -0.140976], abs=1e-4)
    assert float(logits.double().abs().mean()) == pytest.approx(0.736216, rel=1e-4)


@torch.no_grad()
def test_a_fresh_block_is_the_way_around_it():
    torch.manual_seed(0)
    x = torch.rand(2, 4, 4, 8, 6) - 0.5
    slope = nn.functional.leaky_relu
    same = ResEncUNet3D("tiny").build_encoder(1).levels[0][0]
    wide = torch.rand(1, 8, 4, 4, 4) - 0.5
    torch.testing.assert_close(same(wide), slope(wide, 0.01))
    block = ResidualBlock(4, 4, "instance", stride=2)
    for parameter in block.second[1].parameters():
        parameter.zero_()
    expected = x.reshape(2, 4, 2, 2, 4, 2, 3, 2).mean(dim=(3, 5, 7))
    torch.testing.assert_close(block(x), slope(expected, 0.01))


def test_unknown_sizes_and_norms_are_refused():
    with pytest.raises(NetworkError, match="unknown size 'M'; choose from tiny, small, base"):
        ResEncUNet3D(size="M")
    with pytest.raises(NetworkError, match="unknown norm 'layer'"):
        ResEncUNet3D(norm="layer")
