from __future__ import annotations

import numpy as np
import pytest
import torch

from parts2whole.methods.base import MethodError
from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.networks.unet3d import UNet3D
from parts2whole.wholes.geometry import GeometryError
from parts2whole.wholes.random import BatchGenerator


def test_a_part_is_a_stretched_piece_of_its_own_whole():
    # Wholes are linear ramps: a part of a ramp is a flatter ramp, with known slope and range.
    ramp = torch.linspace(0, 1, 16).expand(8, 16, 16)
    wholes = torch.stack([ramp, ramp.transpose(1, 2)])[:, None].contiguous()
    method = Parts2Whole(part_fraction=(0.5, 0.5), parts_per_whole=3)
    parts = method.views(wholes, BatchGenerator.of_step(0, rows=2))["part"]
    assert parts.shape == (6, 1, 8, 16, 16)
    for row, part in enumerate(parts):
        along = part[0, 0, 0] if row < 3 else part[0, 0, :, 0]
        across = part[0, 0, :, 0] if row < 3 else part[0, 0, 0]
        assert float(across.max() - across.min()) < 1e-6
        assert float(along.max() - along.min()) == pytest.approx(7 / 15, abs=1e-6)


def test_the_loss_is_the_mean_squared_error_to_the_right_whole():
    method = Parts2Whole(parts_per_whole=2)
    module = method.build(UNet3D("tiny"), in_channels=1, whole_size=(8, 8, 8)).eval()
    wholes = torch.rand(3, 1, 8, 8, 8)
    views = method.views(wholes, BatchGenerator.of_step(0, rows=3))
    with torch.no_grad():
        logits = module(views["part"]).double().numpy()
        found = float(method.loss(module, views)["loss"])
    rebuilt = 1 / (1 + np.exp(-logits))
    expected = np.mean([(rebuilt[i] - wholes.numpy()[i // 2]) ** 2 for i in range(6)])
    assert found == pytest.approx(expected, rel=1e-5)


def test_no_skip_connections_unless_asked_for():
    for skips in (False, True):
        module = Parts2Whole(skips=skips).build(UNet3D("tiny"), in_channels=1, whole_size=(8, 8, 8))
        assert module.decoder.skips is skips


def test_impossible_settings_are_refused():
    with pytest.raises(GeometryError, match="low <= high"):
        Parts2Whole(part_fraction=(0.7, 0.4))
    with pytest.raises(MethodError, match="at least 1"):
        Parts2Whole(parts_per_whole=0)


def test_boxes_are_where_the_parts_of_the_same_numbers_are_cut_from():
    # The middle of a part of a ramp has the value of the middle of its box.
    ramps = torch.meshgrid(*(torch.arange(float(edge)) for edge in (8, 16, 12)), indexing="ij")
    method = Parts2Whole(part_fraction=(0.3, 0.9), per_axis=True, parts_per_whole=2)
    for axis, ramp in enumerate(ramps):
        wholes = torch.stack([ramp, ramp + 100])[:, None]
        parts = method.views(wholes, BatchGenerator.of_step(0, rows=2))["part"]
        boxes = method.boxes((8, 16, 12), BatchGenerator.of_step(0, rows=2))
        middles = boxes.start[:, axis] + (boxes.size[:, axis] - 1) / 2
        found = parts.mean(dim=(1, 2, 3, 4)) - torch.tensor([0, 0, 100, 100])
        assert torch.allclose(found, middles, atol=1e-4)
