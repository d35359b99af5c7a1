from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from parts2whole.tasks.augment import Augmentation, Drawn, augment_image, augment_label, draw_augmentation
from parts2whole.wholes.random import BatchGenerator

SIZE = (12, 16, 20)


def drawn(spec: Augmentation, rows: int = 4, step: int = 0) -> Drawn:
    return draw_augmentation(spec, BatchGenerator.of_step(step, rows=rows), SIZE)


def test_nothing_is_changed_at_probability_zero():
    image = torch.rand(4, 2, *SIZE)
    label = torch.randint(0, 3, (4, 1, *SIZE))
    parameters = drawn(Augmentation(probability=0.0))
    torch.testing.assert_close(augment_image(image, parameters), image, atol=1e-5, rtol=0)
    assert torch.equal(augment_label(label, parameters), label)


def test_rotation_equals_scipy_on_axes_of_different_length():
    spec = Augmentation(
        probability=1.0, rotation_degrees=25, scale=(1, 1), noise_std=0, contrast=(1, 1), gamma=(1, 1)
    )
    parameters = drawn(spec, rows=1)
    image = torch.rand(1, 1, *SIZE)
    # theta maps output to input in normalised (x, y, z); bring it to voxels (z, y, x) about the centre.
    edges = np.array(SIZE)
    matrix = parameters.theta[0, :, :3].numpy()[::-1, ::-1] * edges[:, None] / edges[None, :]
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-5)
    centre = (edges - 1) / 2
    expected = affine_transform(
        image[0, 0].numpy(), matrix, offset=centre - matrix @ centre, order=1, mode="nearest"
    )
    np.testing.assert_allclose(augment_image(image, parameters)[0, 0].numpy(), expected, atol=1e-4)


def test_image_and_label_move_together():
    label = torch.zeros(8, 1, *SIZE, dtype=torch.long)
    label[:, :, 3:9, 4:12, 5:15] = 1
    spec = Augmentation(probability=1.0, flip_axes=(0, 1, 2), noise_std=0, contrast=(1, 1), gamma=(1, 1))
    parameters = drawn(spec, rows=8)
    image = augment_image(label.float(), parameters)
    moved = augment_label(label, parameters)
    assert ((image > 0.5) == (moved == 1)).float().mean() > 0.98
    assert set(moved.unique().tolist()) <= {0, 1}


def test_a_flip_mirrors_the_axis_asked_for():
    spec = Augmentation(probability=0.0, flip_axes=(2,))
    image = torch.rand(32, 1, *SIZE)
    found = augment_image(image, drawn(spec, rows=32))
    mirrored = [bool(torch.allclose(f, i.flip(3), atol=1e-4)) for f, i in zip(found, image, strict=True)]
    same = [bool(torch.allclose(f, i, atol=1e-4)) for f, i in zip(found, image, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 4 < sum(mirrored) < 28


def test_parameters_stay_in_their_bands():
    spec = Augmentation(
        probability=1.0, rotation_degrees=0, scale=(0.5, 2.0), contrast=(0.8, 1.1), gamma=(0.9, 1.3)
    )
    parameters = drawn(spec, rows=500)
    zoom = 1 / parameters.theta[:, 0, 0]
    assert 0.5 <= float(zoom.min()) < 0.6
    assert 1.8 < float(zoom.max()) <= 2.0
    assert float(zoom.log().mean()) == pytest.approx(0, abs=0.1 * math.log(4))
    for values, (low, high) in ((parameters.contrast, spec.contrast), (parameters.gamma, spec.gamma)):
        assert low <= float(values.min())
        assert float(values.max()) <= high


def test_values_stay_in_the_unit_interval():
    found = augment_image(torch.rand(8, 1, *SIZE), drawn(Augmentation(probability=1.0), rows=8))
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
