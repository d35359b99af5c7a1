from __future__ import annotations

import pytest
import torch

from parts2whole.networks.base import count_parameters
from parts2whole.networks.blocks import NetworkError, build_decoder
from parts2whole.networks.heads import EncoderDecoder, PooledClassifier
from parts2whole.networks.unet3d import UNet3D


def test_base_has_exactly_the_published_number_of_parameters():
    # Counted on the public PyTorch code of Models Genesis: 7,027,776 in the contracting path, 19,073,665 in all.
    network = UNet3D(size="base")
    assert count_parameters(network.build_encoder(1)) == 7_027_776
    for skips, expected in ((True, 19_073_665), (False, 16_751_233)):
        assert (
            count_parameters(EncoderDecoder(network.build_encoder(1), out_channels=1, skips=skips))
            == expected
        )


@pytest.mark.parametrize("norm", ["batch", "batch_statistics", "instance", "group", "none"])
@pytest.mark.parametrize("shape", [(16, 8, 8), (16, 24, 40)])
@pytest.mark.parametrize("channels", [1, 4])
def test_pyramid_is_finest_first_for_any_size_and_channels(norm, shape, channels):
    encoder = UNet3D(size="tiny", norm=norm).build_encoder(channels)
    pyramid = encoder(torch.rand(2, channels, *shape))
    assert [p.shape[1] for p in pyramid] == [8, 16, 32, 64] == list(encoder.channels)
    for level, features in enumerate(pyramid):
        assert tuple(features.shape[2:]) == tuple(edge // 2**level for edge in shape)
    assert encoder.divisor == 8


@pytest.mark.parametrize("skips", [True, False])
def test_decoder_comes_back_to_input_resolution(skips):
    encoder = UNet3D(size="tiny").build_encoder(2)
    module = EncoderDecoder(encoder, out_channels=3, skips=skips)
    assert module(torch.rand(1, 2, 16, 8, 24)).shape == (1, 3, 16, 8, 24)


def test_without_skips_the_decoder_sees_only_the_bottleneck():
    encoder = UNet3D(size="tiny").build_encoder(1).eval()
    decoder = build_decoder(encoder, skips=False).eval()
    pyramid = encoder(torch.rand(1, 1, 8, 8, 8))
    other = (*(torch.rand_like(level) for level in pyramid[:-1]), pyramid[-1])
    torch.testing.assert_close(decoder(pyramid), decoder(other))
    with_skips = build_decoder(encoder, skips=True).eval()
    assert not torch.allclose(with_skips(pyramid), with_skips(other))


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 1, 8, 8, 9), "divisible by 8"), ((1, 2, 8, 8, 8), "expected")]
)
def test_input_that_does_not_fit_is_refused(shape, message):
    with pytest.raises(NetworkError, match=message):
        UNet3D(size="tiny").build_encoder(1)(torch.rand(shape))


def test_unknown_size_and_norm_are_refused():
    with pytest.raises(NetworkError, match="tiny, small, base"):
        UNet3D(size="huge")
    with pytest.raises(NetworkError, match="unknown norm"):
        UNet3D(norm="layer")


def test_batch_statistics_norm_depends_on_the_batch_in_eval_too():
    encoder = UNet3D(size="tiny", norm="batch_statistics").build_encoder(1).eval()
    x = torch.rand(2, 1, 16, 8, 8)
    assert not torch.allclose(encoder(x)[-1][:1], encoder(x[:1])[-1])
    plain = UNet3D(size="tiny", norm="batch").build_encoder(1).eval()
    torch.testing.assert_close(plain(x)[-1][:1], plain(x[:1])[-1])


def test_memory_layout_does_not_change_the_result():
    encoder = UNet3D(size="tiny").build_encoder(1).eval()
    x = torch.rand(1, 1, 16, 16, 16)
    expected = encoder(x)[-1]
    last = encoder.to(memory_format=torch.channels_last_3d)(x.to(memory_format=torch.channels_last_3d))[-1]
    torch.testing.assert_close(last, expected, atol=1e-5, rtol=1e-4)


def test_a_frozen_encoder_keeps_its_weights_and_statistics():
    encoder = UNet3D(size="tiny").build_encoder(1)
    module = PooledClassifier(encoder, classes=2)
    module.freeze_encoder()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    module.train()
    module(torch.rand(2, 1, 8, 8, 8)).sum().backward()
    assert all(p.grad is None for p in encoder.parameters())
    assert module.head[-1].weight.grad is not None
    for key, value in encoder.state_dict().items():
        torch.testing.assert_close(value, before[key])
