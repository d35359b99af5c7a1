"""The contrast monitor: the right wholes, the same parts every time, and right about known encoders."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from parts2whole.networks.base import Encoder
from parts2whole.networks.unet3d import UNet3D
from parts2whole.scans.volume import Box
from parts2whole.training.monitor import PARTS, ContrastMonitor, choose_distinct
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.wholes.sampler import Whole

SIZE = (16, 16, 16)


class Known(Encoder):
    """Gives the mean of every channel (which tells wholes apart), or ones."""

    def __init__(self, *, blind: bool) -> None:
        super().__init__()
        self.blind = blind
        self.calls = 0

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self.calls += len(x)
        return (torch.ones_like(x) if self.blind else x,)


def wholes_of(count: int) -> tuple[list[Whole], list[Tensor]]:
    """Wholes of constant channels: every part of one is like it, whatever the box."""
    drawn = [Whole(f"case_{i}", Box((0, 0, 0), SIZE)) for i in range(count)]
    generator = torch.Generator().manual_seed(0)
    return drawn, [torch.rand(5, 1, 1, 1, generator=generator).expand(5, *SIZE).clone() for _ in drawn]


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(Hardware(accelerator="cpu", precision="32-true"))


def test_one_whole_of_every_scan_comes_first_and_none_twice() -> None:
    names = ["a", "a", "b", "a", "c", "b"]
    starts = [0, 0, 0, 4, 0, 0]
    drawn = [Whole(name, Box((start, 0, 0), SIZE)) for name, start in zip(names, starts, strict=True)]
    assert choose_distinct(drawn, 10) == [0, 2, 4, 3]
    assert choose_distinct(drawn, 2) == [0, 2]


def test_an_encoder_that_tells_wholes_apart_and_one_that_does_not(runtime: Runtime) -> None:
    monitor = ContrastMonitor(*wholes_of(6), seed=0, batch_size=4, runtime=runtime)
    module = nn.Module()
    module.encoder = Known(blind=False)
    seen = monitor(module)
    assert module.encoder.calls == 6 * PARTS
    assert seen["which_whole"] == 1
    assert seen["alignment"] == pytest.approx(0, abs=1e-6)
    assert seen["info_nce_0.1"] < seen["info_nce_chance"] == pytest.approx(math.log(6 * PARTS - 1))
    module.encoder = Known(blind=True)
    blind = monitor(module)
    assert blind["info_nce_0.1"] == pytest.approx(blind["info_nce_chance"])
    assert blind["which_whole"] == pytest.approx(blind["which_whole_chance"])
    assert blind["effective_rank"] == 0
    assert {key for key in seen if key.startswith("map_")} == {
        f"map_{key}" for key in seen if not key.startswith("map_") and not key.endswith("_chance")
    }


class Placed(Encoder):
    """A map whose average is the same for all images, and which differs by whole in its halves along z."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        mean = x.mean(dim=(2, 3, 4), keepdim=True)
        return (torch.cat([1 + mean, 1 - mean], dim=2).expand(-1, -1, -1, 3, 3),)


def test_maps_tell_what_their_averages_can_not(runtime: Runtime) -> None:
    module = nn.Module()
    module.encoder = Placed()
    found = ContrastMonitor(*wholes_of(6), seed=0, batch_size=4, runtime=runtime)(module)
    assert found["map_which_whole"] == 1
    assert found["which_whole"] == pytest.approx(found["which_whole_chance"])
    assert found["map_distance_between"] > 100 * found["distance_between"]


def test_it_repeats_itself_and_leaves_the_module_as_it_was(runtime: Runtime) -> None:
    monitor = ContrastMonitor(*wholes_of(3), seed=0, batch_size=2, runtime=runtime)
    module = nn.Module()
    module.encoder = UNet3D(size="tiny").build_encoder(5).eval()
    before = {key: value.clone() for key, value in module.encoder.state_dict().items()}
    random = torch.random.get_rng_state()
    first = monitor(module)
    assert torch.equal(random, torch.random.get_rng_state())
    assert monitor(module) == first
    assert all(torch.equal(value, before[key]) for key, value in module.encoder.state_dict().items())


def test_a_single_whole_says_nothing(runtime: Runtime) -> None:
    drawn, voxels = wholes_of(1)
    monitor = ContrastMonitor(drawn * 3, voxels * 3, seed=0, batch_size=2, runtime=runtime)
    assert monitor(nn.Module()) == {}
