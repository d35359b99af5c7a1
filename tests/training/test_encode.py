"""The one loop over frozen encoders: what it reads, one image or many at a time, and what it leaves as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from parts2whole.evaluation.probes import upsampled_pyramid
from parts2whole.networks.base import Encoder
from parts2whole.networks.heads import pooled_features
from parts2whole.networks.unet3d import UNet3D
from parts2whole.training.encode import AT_ONCE, batches_of, embed_images, read_features, settle_norms
from parts2whole.training.runtime import Hardware, Runtime


class Normed(Encoder):
    """One batch norm; remembers in which mode and with gradients or not it was called."""

    strides = ((1, 1, 1),)

    def __init__(self) -> None:
        super().__init__()
        self.norm_layer = nn.BatchNorm3d(2)
        self.calls: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self.calls.append((self.training, torch.is_grad_enabled()))
        return (self.norm_layer(x),)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(Hardware(accelerator="cpu", precision="32-true"))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2 * AT_ONCE + 3, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))


def test_batches_hold_every_image_once_in_order(images):
    sizes = [len(batch) for batch in batches_of(images)]
    assert sizes == [AT_ONCE, AT_ONCE, 3]
    assert torch.equal(torch.cat(list(batches_of(images))), images)


def test_features_are_those_of_each_image_alone_in_eval_mode(runtime, images):
    encoder = Normed()
    encoder.norm_layer.running_mean += torch.tensor([0.5, -1.0])
    found = embed_images(encoder, batches_of(images), runtime)
    expected = (images.mean(dim=(2, 3, 4)) - torch.tensor([0.5, -1.0])) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(found, expected)
    assert encoder.calls == [(False, False)] * 3
    assert encoder.training  # as it was
    assert torch.equal(encoder.norm_layer.running_mean, torch.tensor([0.5, -1.0]))


def test_batches_are_taken_one_at_a_time_and_read_as_asked(runtime, images):
    encoder = UNet3D(size="tiny").build_encoder(2)
    taken = 0

    def one_by_one():
        nonlocal taken
        for image in images[:3]:
            taken += 1
            yield image[None]

    found = read_features(encoder, one_by_one(), runtime, upsampled_pyramid)
    first = next(found)
    assert taken == 1
    assert torch.equal(first, upsampled_pyramid(encoder.eval(), images[:1]))
    assert first.shape == (8 + 16 + 32 + 64, 4, 4, 4)
    assert len(list(found)) == 2


def test_norms_settle_on_the_data(runtime, images):
    """The mean over batches alike: nothing of mean 0 and variance 1 is left, whatever the momentum."""
    encoder = Normed().eval()
    settle_norms(encoder, batches_of(images), runtime, pooled_features)
    values = [batch.transpose(0, 1).flatten(1) for batch in (images[:16], images[16:32], images[32:])]
    mean = torch.stack([each.mean(1) for each in values]).mean(0)
    variance = torch.stack([each.var(1) for each in values]).mean(0)
    assert encoder.norm_layer.momentum == 0.1  # as it was
    torch.testing.assert_close(encoder.norm_layer.running_mean, mean)
    torch.testing.assert_close(encoder.norm_layer.running_var, variance)
    assert encoder.calls == [(True, False)] * 3
    assert not encoder.training
