from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from parts2whole.methods.base import MethodError
from parts2whole.methods.masked_autoencoder import MaskedAutoencoder
from parts2whole.networks.unet3d import UNet3D
from parts2whole.wholes.random import BatchGenerator


def views(method: MaskedAutoencoder, size: tuple[int, ...], *, rows: int = 3, channels: int = 1):
    wholes = torch.rand(rows, channels, *size, generator=torch.Generator().manual_seed(1)) * 0.9 + 0.1
    return wholes, method.views(wholes, BatchGenerator.of_step(0, rows=rows))


@pytest.mark.parametrize(
    ("size", "edge", "ratio"),
    [((24, 32, 24), 8, 0.75), ((32, 32, 32), 8, 0.6), ((20, 16, 30), 8, 0.5), ((8, 8, 8), 3, 0.1)],
)
def test_so_many_cubes_are_hidden_and_nothing_else(size, edge, ratio):
    wholes, seen = views(MaskedAutoencoder(mask_ratio=ratio, patch_voxels=edge), size, channels=2)
    grid = [math.ceil(n / edge) for n in size]  # those at the far border are cut off
    for whole, part in zip(wholes.numpy(), seen["part"].numpy(), strict=True):
        hidden = 0
        for z, y, x in np.ndindex(*grid):
            cube = (slice(None), *(slice(edge * n, edge * n + edge) for n in (z, y, x)))
            if (part[cube] == 0).all():
                hidden += 1
            else:
                np.testing.assert_array_equal(part[cube], whole[cube])
        assert hidden == round(ratio * math.prod(grid))


def test_every_cube_is_hidden_equally_often_and_every_row_is_drawn_anew():
    rows = 2000
    hidden = MaskedAutoencoder(mask_ratio=0.75).draw(BatchGenerator.of_step(5, rows=rows), (16, 24, 16))[
        :, 0, ::8, ::8, ::8
    ]
    assert hidden.flatten(1).sum(1).tolist() == [9] * rows
    share = hidden.float().mean(0)
    spread = math.sqrt(0.75 * 0.25 / rows)
    assert float((share - 0.75).abs().max()) < 4 * spread
    assert len({tuple(row.flatten().tolist()) for row in hidden}) > 200  # of 220 there are


@pytest.mark.parametrize("all_voxels", [False, True])
def test_the_loss_is_the_squared_error_of_hidden_voxels_or_of_all(all_voxels):
    method = MaskedAutoencoder(all_voxels=all_voxels, mask_ratio=0.5)
    # Cubes at the border are thinner, so that wholes have different numbers of hidden voxels.
    module = method.build(UNet3D("tiny"), in_channels=2, whole_size=(16, 8, 24)).eval()
    wholes, seen = views(MaskedAutoencoder(mask_ratio=0.5, patch_voxels=7), (16, 8, 24), channels=2)
    with torch.no_grad():
        rebuilt = 1 / (1 + np.exp(-module(seen["part"]).double().numpy()))
        found = float(method.loss(module, seen)["loss"])
    hidden = seen["part"].numpy() == 0
    assert len({int(row.sum()) for row in hidden}) > 1
    squares = (rebuilt - wholes.numpy()) ** 2
    counted = [
        row[np.full_like(gone, True) if all_voxels else gone].mean()
        for row, gone in zip(squares, hidden, strict=True)
    ]
    assert found == pytest.approx(np.mean(counted), rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask_ratio": 0}, "mask_ratio must be above 0 and below 1, got 0"),
        ({"mask_ratio": 1.0}, "mask_ratio must be above 0 and below 1, got 1.0"),
        ({"patch_voxels": 0}, "patch_voxels must be at least 1, got 0"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(MethodError, match=message):
        MaskedAutoencoder(**fields)


@pytest.mark.parametrize(
    ("edge", "ratio", "cubes", "hides"), [(16, 0.6, 1, 1), (8, 0.75, 2, 2), (8, 0.2, 2, 0)]
)
def test_a_whole_that_would_be_hidden_altogether_or_not_at_all_is_refused(edge, ratio, cubes, hides):
    said = (
        rf"a whole of \(8, 8, 16\) voxels has {cubes} cubes of {edge}, and .* hides {hides} of them: choose"
    )
    with pytest.raises(MethodError, match=said):
        MaskedAutoencoder(ratio, edge).build(UNet3D("tiny"), in_channels=1, whole_size=(8, 8, 16))
