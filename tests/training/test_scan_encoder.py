"""From a scan to a vector: every voxel counts once, and a scan is prepared as its card says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import parts2whole as p2w
from parts2whole.scans.volume import Box, Volume
from parts2whole.training.encode import embed_map
from parts2whole.training.network_input import InputError
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.training.scan_encoder import ScanEncoder, ScanEncoderError, load
from parts2whole.weights.card import Card
from parts2whole.weights.native import save_encoder

CPU = Hardware(accelerator="cpu", devices=1, precision="32-true")
HU = p2w.Preprocess(modality="CT", window_hu=(0.0, 1000.0))


class Halved(p2w.Encoder):
    """The mean of every 2 x 2 x 2 voxels: its map says which voxels were counted."""

    in_channels, channels, strides, norm = 1, (1,), ((2, 2, 2),), "none"

    def forward(self, x):
        return (F.avg_pool3d(x, 2),)


def card(network=None, **changes) -> Card:
    given = {
        "network": network or p2w.UNet3D(size="tiny"), "in_channels": 1, "preprocess": HU, "whole_size": (4, 8, 8),
        "whole_mm": None, "spacing_mm": None, "method": {}, "steps": 1, "seen": (), "fingerprint": "",
    }  # fmt: skip
    return Card(**(given | changes))


def scan(shape, *, seed=0, **where) -> Volume:
    array = np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)
    given = {
        "spacing_mm": (2.0, 1.0, 1.0),
        "origin_mm": (5.0, -3.0, 7.0),
        "direction": ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    }
    return Volume(array, **(given | where))


@pytest.fixture
def halving() -> ScanEncoder:
    return ScanEncoder(Halved().eval(), HU, card(), Runtime(CPU))


@pytest.mark.parametrize("shape", [(8, 12, 16), (4, 8, 8), (2, 4, 20)])
def test_octants_are_means_of_the_voxels_in_them(halving, shape):
    volume = scan(shape)
    unit = volume.array / 1000
    z, y, x = (edge // 2 for edge in shape)
    halves = [(slice(None, n), slice(n, None)) for n in (z, y, x)]
    expected = [unit[a, b, c].mean() for a in halves[0] for b in halves[1] for c in halves[2]]
    if all(edge % 4 == 0 for edge in shape):  # the map's voxels end where octants do
        assert np.allclose(halving.encode(volume, features="map"), expected, atol=1e-4)
    assert np.allclose(halving.encode(volume), [unit.mean()], atol=1e-4)


def test_what_is_padded_does_not_count(halving):
    volume = scan((9, 11, 13))  # the last voxel of an axis stands alone in its pair, beside a copy of it
    assert np.allclose(halving.encode(volume), [(volume.array / 1000).mean()], atol=1e-4)


def test_a_box_lies_around_its_point(halving):
    volume = scan((8, 12, 16))
    world = volume.affine() @ [4, 6, 9, 1]
    found = halving.encode(volume, points_mm=[world[:3], world[:3]], size=(2, 4, 4), features="average")
    box = Box.around((4, 6, 9), (2, 4, 4))
    assert np.allclose(found, [[(volume.array[box.slices] / 1000).mean()]] * 2, atol=1e-4)
    outside = volume.affine() @ [4, 6, 30, 1]
    with pytest.raises(p2w.Parts2WholeError, match="1 points lie outside the scan"):
        halving.encode(volume, points_mm=[outside[:3]])
    assert halving.encode(volume, points_mm=[]).shape == (0, 1)


def test_one_window_gives_what_embed_gives(tmp_path):
    network = p2w.UNet3D(size="tiny")
    torch.manual_seed(0)
    encoder = network.build_encoder(1)
    save_encoder(tmp_path / "w", encoder, card(whole_size=(16, 16, 32)))
    loaded = p2w.load(tmp_path / "w", hardware=CPU)
    volume = scan((16, 16, 32))
    image = loaded.prepare(volume).image
    assert np.allclose(image.numpy(), volume.array[None] / 1000, atol=1e-3)
    map_, average = embed_map(encoder, [image[None]], Runtime(CPU))
    assert np.allclose(loaded.encode(volume, features="map"), map_[0], atol=1e-5)
    assert np.allclose(loaded.encode(volume), average[0], atol=1e-5)
    assert loaded.width("map") == 8 * loaded.width("average") == 8 * 64


def test_the_card_decides_and_says_what_does_not_fit(tmp_path):
    save_encoder(tmp_path / "w", p2w.UNet3D(size="tiny").build_encoder(1), card())
    loaded = load(tmp_path / "w", hardware=CPU)
    assert (loaded.preprocess, loaded.window_size, loaded.in_channels) == (HU, (8, 8, 8), 1)
    with pytest.raises(ScanEncoderError, match="was trained on CT, not on MR"):
        load(tmp_path / "w", modality="MR", hardware=CPU)
    with pytest.raises(ScanEncoderError, match="takes 1 input channels, not 2"):
        load(tmp_path / "w", in_channels=2, hardware=CPU)
    with pytest.raises(ScanEncoderError, match='"scratch" has no weights'):
        load("scratch")
    with pytest.raises(
        ScanEncoderError, match=r"size must be three multiples of 8 for this network, got \(8, 8, 9\)"
    ):
        loaded.encode(scan((8, 8, 8)), size=(8, 8, 9))
    with pytest.raises(InputError, match="the model expects 1 channels, the scan has 2"):
        loaded.encode(scan((2, 8, 8, 8)))
    (tmp_path / "two").mkdir()
    with pytest.raises(ScanEncoderError, match="two holds 0 scans; name one"):
        loaded.encode(tmp_path / "two")


def test_a_scan_is_shown_as_wholes_of_physical_size_were(tmp_path):
    network = p2w.UNet3D(size="tiny")
    wide = card(network, whole_size=(8, 8, 8), whole_mm=(32.0, 32.0, 16.0))
    save_encoder(tmp_path / "w", network.build_encoder(1), wide)
    found = load(tmp_path / "w", hardware=CPU).prepare(scan((16, 32, 32)))
    assert found.volume.spacing_mm == pytest.approx((4.0, 4.0, 2.0))
    assert found.volume.shape == (8, 8, 16)
