from __future__ import annotations

import dataclasses
from itertools import pairwise

import genesis_reference as reference
import numpy as np
import pytest
import torch
from torch import nn

from parts2whole.methods.base import MethodError
from parts2whole.methods.models_genesis import ModelsGenesis, Spoiling, draw_windows, leading, spoil
from parts2whole.methods.transforms import bend_intensities, flip, paint, shuffle_blocks
from parts2whole.networks.unet3d import UNet3D
from parts2whole.training.error_maps import _mean_error
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.wholes.random import BatchGenerator

SHAPE = (2, 16, 20, 30)
ROWS = 6
ALL = {"flip_rate": 0.9, "shuffle_rate": 0.7, "bend_rate": 0.7, "paint_rate": 0.8, "outside_rate": 0.5}


@pytest.fixture(scope="module")
def volumes() -> torch.Tensor:
    return torch.rand(ROWS, *SHAPE, generator=torch.Generator().manual_seed(0))


def draw(rows: int = ROWS, shape=SHAPE, step: int = 0, **fields) -> Spoiling:
    return ModelsGenesis(**fields).draw(BatchGenerator.of_step(step, rows=rows), shape)


def blocks_of(spoiling: Spoiling, index: int) -> tuple[np.ndarray, ...]:
    return dataclasses.astuple(spoiling.blocks[index])


def windows_of(spoiling: Spoiling, index: int) -> tuple[np.ndarray, ...]:
    return spoiling.windows.start[index].numpy(), spoiling.windows.size[index].numpy()


def test_flips_are_the_definition(volumes):
    drawn = draw(flip_rate=0.9)
    assert drawn.flipped.any()
    for row, found in enumerate(flip(volumes, drawn.flipped)):
        np.testing.assert_array_equal(found, reference.flip(volumes[row].numpy(), drawn.flipped[row]))


def test_shuffling_is_the_definition(volumes):
    # Enough blocks that most are partly overwritten, so the order matters.
    drawn = draw(alone="shuffle", shuffle_rate=1)
    found = shuffle_blocks(volumes, drawn.blocks)
    for row in range(ROWS):
        expected = reference.shuffle_blocks(volumes[row].numpy(), *blocks_of(drawn, row))
        np.testing.assert_array_equal(found[row], expected)
        assert (expected != volumes[row].numpy()).mean() > 0.5


def test_bent_intensities_are_the_definition(volumes):
    drawn = draw(rows=64, alone="bend", bend_rate=1)
    controls, falling = drawn.controls.clone(), drawn.falling.clone()
    controls[:4] = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1], [1e-3, 0.5, 0.999, 0.5], [0.9, 0.1, 0.1, 0.9]])
    wholes = volumes.repeat(11, 1, 1, 1, 1)[:64].clone()
    wholes[:, 0, 0, 0] = 0
    wholes[:, 0, 0, 1] = 1
    found = bend_intensities(wholes, controls, falling)
    for row in range(64):
        expected = reference.bend_intensities(wholes[row].numpy(), controls[row], bool(falling[row]))
        np.testing.assert_allclose(found[row], expected, atol=2e-5)
    assert 20 < int(falling.sum()) < 44


def test_a_curve_clamps_what_lies_outside():
    outside = torch.tensor([-0.5, 0.0, 1.0, 1.5]).reshape(1, 1, 1, 1, 4)
    for falling, expected in ((False, [0, 0, 1, 1]), (True, [1, 1, 0, 0])):
        found = bend_intensities(outside, torch.tensor([[0.3, 0.2, 0.8, 0.4]]), torch.tensor([falling]))
        assert found.flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("where", ["paint_inside", "paint_outside"])
def test_painting_is_the_definition(volumes, where):
    drawn = draw(alone=where, paint_rate=1)
    assert bool(drawn.outside.all()) is (where == "paint_outside")
    found = paint(volumes, drawn.windows, torch.stack(drawn.noise), outside=drawn.outside)
    for row in range(ROWS):
        expected = reference.paint(
            volumes[row].numpy(), *windows_of(drawn, row), drawn.noise[row].numpy(), where == "paint_outside"
        )
        np.testing.assert_array_equal(found[row], expected)


@pytest.mark.parametrize("conformant", [False, True])
def test_the_composition_is_the_definition_in_order(volumes, conformant):
    method = ModelsGenesis(conformant=conformant, blocks=500, **ALL)
    views = method.views(volumes, BatchGenerator.of_step(7, rows=ROWS))
    drawn = method.draw(BatchGenerator.of_step(7, rows=ROWS), SHAPE)
    shuffled, bent, painted = (drawn.shuffled, drawn.bent, drawn.painted)
    assert all(len(rows) > 0 for rows in (shuffled, bent, painted))
    for row in range(ROWS):
        expected = reference.flip(volumes[row].numpy(), drawn.flipped[row])
        np.testing.assert_array_equal(views["whole"][row], expected)
        if row in shuffled:
            expected = reference.shuffle_blocks(expected, *blocks_of(drawn, shuffled.index(row)))
        if row in bent:
            n = bent.index(row)
            expected = reference.bend_intensities(expected, drawn.controls[n], bool(drawn.falling[n]))
        if row in painted:
            n = painted.index(row)
            noise, outside = drawn.noise[n].numpy(), bool(drawn.outside[n])
            expected = reference.paint(expected, *windows_of(drawn, n), noise, outside)
        np.testing.assert_allclose(views["part"][row], expected, atol=2e-5)


def test_rates_are_those_of_the_public_code():
    drawn = draw(rows=3000, shape=(1, 14, 14, 14), blocks=1)
    assert len(drawn.shuffled) / 3000 == pytest.approx(0.5, abs=0.04)
    assert len(drawn.bent) / 3000 == pytest.approx(0.9, abs=0.03)
    assert len(drawn.painted) / 3000 == pytest.approx(0.9, abs=0.03)
    assert float(drawn.outside.float().mean()) == pytest.approx(0.8, abs=0.03)
    windows = (drawn.windows.size > 0).all(dim=2).sum(dim=1)
    outside, inside = windows[drawn.outside].float(), windows[~drawn.outside].float()
    goes_on = [0.95**n for n in range(6)]
    assert float(inside.mean()) == pytest.approx(sum(goes_on[1:]), abs=0.15)
    assert float(outside.mean()) == pytest.approx(sum(goes_on[:5]), abs=0.1)
    assert (int(inside.max()), int(outside.min()), int(outside.max())) == (5, 1, 5)


@pytest.mark.parametrize("conformant", [False, True])
def test_flips_per_axis(conformant):
    found = draw(rows=4000, shape=(1, 14, 14, 14), conformant=conformant, alone="flip").flipped
    # A chain of up to three flips, each on one of three axes: chance that an axis is hit an odd number of times.
    once, twice, thrice = 0.4 * 0.6, 0.4**2 * 0.6, 0.4**3
    odd = once / 3 + twice * 2 * (1 / 3) * (2 / 3) + thrice * (3 * (1 / 3) * (4 / 9) + 1 / 27)
    expected = [0.0, odd, odd] if conformant else [odd] * 3
    assert found.float().mean(dim=0).tolist() == pytest.approx(expected, abs=0.025)


def test_sizes_are_those_of_the_public_code_at_its_size():
    edges = np.array([32, 64, 64])
    drawn = draw(rows=2, shape=(1, *edges), alone="shuffle", shuffle_rate=1)
    for blocks in drawn.blocks:
        assert len(blocks.size) == 10_000
        assert (blocks.size.min(axis=0).tolist(), blocks.size.max(axis=0).tolist()) == ([1, 1, 1], [3, 6, 6])
        assert blocks.start.min() == 0
        assert (blocks.start + blocks.size).max(axis=0).tolist() == [32, 64, 64]
        assert sorted(blocks.number) == list(range(10_000))
        assert len(np.unique(blocks.size, axis=0)) == 3 * 6 * 6
    random = np.random.default_rng(0)
    for outside, low, high in (
        (False, edges // 6, edges // 3),
        (True, edges - 4 * edges // 7, edges - 3 * edges // 7),
    ):
        found = [draw_windows(random, edges, outside=outside) for _ in range(400)]
        start, size = (np.concatenate(part) for part in zip(*found, strict=True))
        used = size[:, 0] > 0
        start, size = start[used], size[used]
        np.testing.assert_array_equal(size.min(axis=0), low)
        np.testing.assert_array_equal(size.max(axis=0), high)
        np.testing.assert_array_equal(start.min(axis=0), [3, 3, 3])
        np.testing.assert_array_equal((start + size).max(axis=0), edges - 3)


def test_orders_are_permutations_and_all_alike():
    counts: dict[tuple[int, ...], int] = {}
    (blocks,) = draw(rows=1, shape=(1, 14, 14, 30), alone="shuffle", shuffle_rate=1).blocks
    ends = np.concatenate([[0], blocks.size.prod(axis=1).cumsum()])
    for begin, end in pairwise(ends):
        order = tuple(blocks.order[begin:end].tolist())
        assert sorted(order) == list(range(end - begin))
        counts[order] = counts.get(order, 0) + 1
    three = [count for order, count in counts.items() if len(order) == 3]
    assert len(three) == 6
    assert min(three) > 0.8 * max(three)


@pytest.mark.parametrize("alone", ["flip", "shuffle", "bend", "paint_inside", "paint_outside"])
def test_a_transform_can_be_used_alone(alone, volumes):
    drawn = draw(alone=alone, **ALL)
    rows = {"shuffle": drawn.shuffled, "bend": drawn.bent, "paint": drawn.painted}
    assert [name for name, found in rows.items() if len(found)] == [
        name for name in rows if alone.startswith(name)
    ]
    assert bool(drawn.flipped.any()) is (alone == "flip")
    if alone == "flip":
        torch.testing.assert_close(spoil(volumes, drawn), volumes, rtol=0, atol=0)


def test_volumes_too_small_for_the_published_sizes():
    small = torch.rand(2, 1, 8, 8, 8)
    with pytest.raises(MethodError, match="at least 14 voxels, got"):
        ModelsGenesis(conformant=True).views(small, BatchGenerator.of_step(0, rows=2))
    with pytest.raises(MethodError, match="at least 10 voxels"):
        ModelsGenesis(conformant=True, alone="shuffle").build(
            UNet3D("tiny"), in_channels=1, whole_size=(8, 8, 8)
        )
    ModelsGenesis(conformant=True, alone="paint_inside").views(small, BatchGenerator.of_step(0, rows=2))
    for step in range(20):
        part = ModelsGenesis(**ALL).views(small, BatchGenerator.of_step(step, rows=2))["part"]
        assert 0 <= float(part.min()) <= float(part.max()) <= 1


def test_the_loss_is_the_mean_squared_error_over_the_whole_volume():
    method = ModelsGenesis()
    module = method.build(UNet3D("tiny"), in_channels=1, whole_size=(8, 8, 8)).eval()
    assert module.decoder.skips
    views = method.views(torch.rand(2, 1, 8, 8, 8), BatchGenerator.of_step(0, rows=2))
    with torch.no_grad():
        logits = module(views["part"]).double().numpy()
        found = float(method.loss(module, views)["loss"])
    expected = np.mean((1 / (1 + np.exp(-logits)) - views["whole"].numpy()) ** 2)
    assert found == pytest.approx(expected, rel=1e-5)


def test_impossible_settings_are_refused():
    with pytest.raises(MethodError, match="bend_rate must be from 0 to 1"):
        ModelsGenesis(bend_rate=1.2)
    with pytest.raises(MethodError, match="blocks must be at least 1"):
        ModelsGenesis(blocks=0)


def test_a_chain_ends_at_the_first_miss():
    assert leading(np.array([True, True, False, True])) == 2
    assert leading(np.array([False, True])) == 0


@pytest.mark.parametrize("flip_rate", [0.0, 0.4, 1.0])
def test_errors_have_their_place_in_the_scan_although_the_target_is_flipped(flip_rate):
    class Restored(nn.Module):
        """Gives back what it sees, which nothing but flips has changed."""

        def forward(self, x):
            return torch.logit(x.clamp(1e-6, 1 - 1e-6))

    wholes = torch.rand(4, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    method = ModelsGenesis(alone="flip", flip_rate=flip_rate)
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true"))
    generator = BatchGenerator.of_step(0, "maps", rows=4)
    errors = _mean_error(method, Restored(), wholes, generator, (16, 16, 16), runtime)
    assert float(errors.max()) < 1e-5
