"""A fine-tuning that starts with the decoder of the pre-training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.networks.unet3d import UNet3D
from parts2whole.tasks.segmentation import Segmentation
from parts2whole.training.model import ModelError, build_model, load_pretrained_decoder

TINY = UNet3D(size="tiny")
SIZE = (16, 16, 16)


def pretrained(*, skips: bool) -> torch.nn.Module:
    torch.manual_seed(1)
    return Parts2Whole(skips=skips).build(TINY, in_channels=1, whole_size=SIZE).eval()


def model() -> torch.nn.Module:
    torch.manual_seed(2)
    task = Segmentation(Path("data"))
    return build_model(task, TINY, TINY.build_encoder(1), ("0", "1", "2"), decoder="pretrained").eval()


@pytest.mark.parametrize("skips", [False, True])
def test_before_the_last_layer_the_model_does_what_pretraining_did(skips):
    before, after = pretrained(skips=skips), model()
    after.encoder.load_state_dict(before.encoder.state_dict())
    head = after.head.weight.clone()
    (told,) = load_pretrained_decoder(after, before.decoder.state_dict())
    assert ("zero" in told) is not skips
    x = torch.rand(2, 1, *SIZE)
    with torch.no_grad():
        pyramid = before.encoder(x)
        assert torch.allclose(after.decoder(pyramid), before.decoder(pyramid), atol=1e-6)
    assert torch.equal(after.head.weight, head)


def test_what_comes_through_skip_connections_can_be_learned():
    after = model()
    load_pretrained_decoder(after, pretrained(skips=False).decoder.state_dict())
    after(torch.rand(1, 1, *SIZE)).square().sum().backward()
    weight = after.decoder.units[-1][0][0].weight
    new = weight.shape[1] - TINY.build_encoder(1).channels[0]
    assert torch.count_nonzero(weight[:, new:]) == 0
    assert torch.count_nonzero(weight.grad[:, new:]) > 0


def test_weights_without_a_decoder_are_said_to_be():
    assert load_pretrained_decoder(model(), {}) == [
        "the decoder is fresh: the weights hold the encoder alone"
    ]


def test_a_decoder_of_another_network_is_refused():
    other = Parts2Whole().build(UNet3D(size="small"), in_channels=1, whole_size=SIZE)
    with pytest.raises(ModelError, match=r"doesn't fit the task's; use decoder='fresh'"):
        load_pretrained_decoder(model(), other.decoder.state_dict())
