from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceCELoss

from parts2whole.methods.base import MethodError
from parts2whole.methods.volume_fusion import VolumeFusion
from parts2whole.networks.unet3d import UNet3D
from parts2whole.wholes.geometry import GeometryError
from parts2whole.wholes.random import BatchGenerator

SIZE = (16, 24, 16)


def wholes(rows: int = 5, channels: int = 1) -> torch.Tensor:
    return torch.rand(rows, channels, *SIZE, generator=torch.Generator().manual_seed(1))


def test_what_the_network_sees_is_the_mixture_that_it_must_tell():
    method, seen = VolumeFusion(), wholes(channels=2)
    views = method.views(seen, BatchGenerator.of_step(0, rows=5))
    fused = method.fuse(views, together=False).numpy()
    for row in range(5):
        share, other = views["share"][row].numpy(), int(views["other"][row])
        assert set(np.unique(share)) == {0, 1, 2, 3, 4}
        expected = share / 4 * seen[other].numpy() + (1 - share / 4) * seen[row].numpy()
        np.testing.assert_allclose(fused[row], expected, atol=1e-6)


def test_a_whole_is_mixed_with_every_other_one_equally_often():
    count = np.zeros((5, 5), dtype=int)
    for step in range(400):
        other = VolumeFusion(blocks=(1, 1)).views(wholes(), BatchGenerator.of_step(step, rows=5))["other"]
        count[range(5), other] += 1
    assert (np.diag(count) == 0).all()
    spread = np.sqrt(400 * 0.25 * 0.75)
    assert abs(count[~np.eye(5, dtype=bool)] - 100).max() < 4 * spread


def test_a_block_is_a_box_of_one_share_that_may_stick_out():
    drawn = VolumeFusion(shares=3, blocks=(1, 1), block_fraction=(0.25, 0.5)).draw(
        BatchGenerator.of_step(0, rows=400), SIZE
    )
    values, whole_boxes, cut_boxes, edges = [], 0, 0, set()
    for share in drawn.numpy():
        places = np.nonzero(share)
        low, high = (np.array([of(axis) for axis in places]) for of in (np.min, np.max))
        extent = high - low + 1
        box = share[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))]
        assert (box == box.flat[0]).all()
        values.append(int(box.flat[0]))
        assert (extent <= [8, 12, 8]).all()
        inside = (low > 0).all() and (high < np.array(SIZE) - 1).all()
        whole_boxes, cut_boxes = whole_boxes + inside, cut_boxes + (extent < [4, 6, 4]).any()
        if inside:
            assert (extent >= [4, 6, 4]).all()
            edges |= {int(extent[0])}
    assert edges == {4, 5, 6, 7, 8}
    assert min(whole_boxes, cut_boxes) > 40
    assert np.bincount(values)[1:].min() > 400 / 3 - 4 * np.sqrt(400 * 2 / 9)


def test_a_whole_has_as_many_blocks_as_were_asked_for():
    generator = BatchGenerator.of_step(0, rows=200)
    drawn = VolumeFusion(blocks=(5, 9), block_fraction=(1e-3, 1e-3)).draw(generator, (32, 32, 32))
    voxels = (drawn > 0).flatten(1).sum(1)  # blocks of one voxel, which hardly ever fall on each other
    assert set(voxels.tolist()) - {4} == {5, 6, 7, 8, 9}


def test_the_loss_is_dice_and_cross_entropy():
    method = VolumeFusion()
    module = method.build(UNet3D("tiny"), in_channels=1, whole_size=SIZE).eval()
    views = method.views(wholes(), BatchGenerator.of_step(0, rows=5))
    with torch.no_grad():
        logits = module(method.fuse(views, together=False))
        found = method.loss(module, views)
    reference = DiceCELoss(to_onehot_y=True, softmax=True, batch=True)(logits, views["share"][:, None])
    assert float(found["loss"]) == pytest.approx(float(reference), rel=1e-5)
    right = (logits.numpy().argmax(1) == views["share"].numpy()).mean()
    assert float(found["accuracy"]) == pytest.approx(right)


def test_guessing_costs_the_entropy_of_the_classes_and_the_dice_of_chance():
    method = VolumeFusion()
    views = method.views(wholes(), BatchGenerator.of_step(0, rows=5))
    frequency = np.bincount(views["share"].flatten(), minlength=5) / views["share"].numel()
    assert frequency.min() > 0
    # Where a class of frequency f is said with probability f of every voxel, its Dice is 2 f^2 / (f + f).
    expected = -(frequency * np.log(frequency)).sum() + 1 - frequency.mean()
    assert float(method.guess(views)) == pytest.approx(expected, rel=1e-4)
    views["share"][:] = 2  # the other classes have no voxels
    assert float(method.guess(views)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"shares": 0}, MethodError, "shares must be from 1 to 255, got 0"),
        ({"blocks": (0, 3)}, MethodError, r"1 <= fewest <= most, got \(0, 3\)"),
        ({"blocks": (4, 3)}, MethodError, r"1 <= fewest <= most, got \(4, 3\)"),
        ({"block_fraction": (0.5, 1.5)}, GeometryError, "block_fraction must be .* <= 1, got"),
    ],
)
def test_impossible_settings_are_refused(fields, error, message):
    with pytest.raises(error, match=message):
        VolumeFusion(**fields)


def test_a_batch_of_one_whole_is_refused():
    for attempt in (
        lambda: VolumeFusion().check_batch(1),
        lambda: VolumeFusion().views(wholes(1), BatchGenerator.of_step(0, rows=1)),
    ):
        with pytest.raises(MethodError, match="needs at least 2, got 1"):
            attempt()
