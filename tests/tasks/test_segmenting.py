from __future__ import annotations

from pathlib import Path

import pytest
import torch

from parts2whole.tasks.segmentation import Segmentation


class Recorder:
    """A model that notes what it sees and answers with the brightness as two classes."""

    divisor = 8
    norm = "batch"

    def __init__(self) -> None:
        self.seen: set[tuple[int, ...]] = set()

    def __call__(self, images: torch.Tensor, /) -> torch.Tensor:
        self.seen.add(tuple(images.shape[2:]))
        return torch.cat([0.5 - images, images - 0.5], dim=1)


@pytest.mark.parametrize(
    ("volume", "window", "expected"),
    [
        ((35, 50, 36), (48, 64, 48), (40, 56, 40)),  # shrinks to the volume
        ((20, 50, 36), (48, 64, 48), (32, 56, 40)),  # but not below the patch, which training padded to
        ((90, 90, 90), (48, 64, 48), (48, 64, 48)),
        ((90, 90, 90), None, (32, 48, 32)),
    ],
)
def test_windows_pad_no_more_than_training_did(volume, window, expected):
    task = Segmentation(Path("data"), patch_size=(32, 48, 32), window_size=window)
    model = Recorder()
    image = torch.rand(1, 1, *volume)
    found = task.segment(model, image)
    assert model.seen == {expected}
    assert torch.equal(torch.from_numpy(found), (image[0, 0] > 0.5).long())


class Seen:
    """Takes down what a network would see, and gives back its voxels as logits."""

    divisor = 8
    norm = "batch"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.images = images
        return torch.cat([images, 1 - images], dim=1)


def test_a_volume_is_padded_with_its_border_but_with_zeros_up_to_the_patch(tmp_path):
    task = Segmentation(tmp_path, patch_size=(16, 16, 16), window_size=(64, 64, 64))
    image = torch.rand(1, 1, 10, 19, 24)  # shorter than the patch, no multiple of 8, a multiple of 8
    seen = Seen()
    logits = task.logits(seen, image)
    assert seen.images.shape == (1, 1, 16, 24, 24)
    assert torch.equal(seen.images[:, :, 3:13, :19], image)
    assert torch.count_nonzero(seen.images[:, :, :3]) == torch.count_nonzero(seen.images[:, :, 13:]) == 0
    assert torch.equal(seen.images[:, :, 3:13, 19:], image[..., 18:19, :].expand(1, 1, 10, 5, 24))
    assert torch.allclose(logits[:, :1], image)
