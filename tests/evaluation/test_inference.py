from __future__ import annotations

import itertools

import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer
from torch import Tensor, nn

from parts2whole.evaluation.inference import InferenceError, count_windows, sliding_window


def pointwise(windows: Tensor) -> Tensor:
    """Two logits of each voxel, whatever the window."""
    return torch.cat([windows.sum(dim=1, keepdim=True), windows[:, :1] ** 2], dim=1)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("size", [(8, 8, 8), (13, 9, 21), (5, 9, 3), (1, 1, 1), (5, 20, 8)])
def test_a_pointwise_model_gives_the_same_in_windows(size: tuple[int, int, int], overlap: float) -> None:
    image = torch.rand(1, 2, *size)
    found = sliding_window(pointwise, image, window=(8, 8, 8), overlap=overlap)
    torch.testing.assert_close(found, pointwise(image))


def test_a_window_of_the_volume_is_one_plain_pass() -> None:
    torch.manual_seed(0)
    model = nn.Conv3d(1, 3, 3, padding=1)
    image = torch.rand(1, 1, 8, 10, 12)
    found = sliding_window(model, image, window=(8, 10, 12))
    torch.testing.assert_close(found, model(image).detach())
    assert not found.requires_grad


def test_the_middle_of_a_window_counts_more_than_its_border() -> None:
    # Each window says how far a voxel is from its own start, so border voxels of overlapping windows
    # disagree. Two windows of 8 overlap in 4 to 8: at 4 the first one is nearer to its middle.
    def place(windows: Tensor) -> Tensor:
        return torch.arange(8.0).expand(windows.shape).clone()

    line = sliding_window(place, torch.zeros(1, 1, 8, 8, 12), window=(8, 8, 8))[0, 0, 4, 4]
    assert line[:4].tolist() == pytest.approx([0, 1, 2, 3])
    assert line[8:].tolist() == pytest.approx([4, 5, 6, 7])
    first = (line[4:8] - torch.arange(4.0)) / 4  # share of the first window: 1 is all
    assert first.tolist() == sorted(first.tolist(), reverse=True)
    assert first[0] > 0.9
    assert first[3] < 0.1


def test_the_padding_is_zero_and_on_both_sides() -> None:
    seen: list[Tensor] = []

    def watch(windows: Tensor) -> Tensor:
        seen.append(windows.clone())
        return windows

    sliding_window(watch, torch.ones(1, 1, 4, 8, 5), window=(8, 8, 8))
    (window,) = seen
    assert window.shape == (1, 1, 8, 8, 8)
    assert float(window.sum()) == 4 * 8 * 5
    assert float(window[:, :, 2:6, :, 1:6].sum()) == 4 * 8 * 5


def test_a_model_that_returns_its_input_does_not_spoil_the_image() -> None:
    image = torch.rand(1, 1, 16, 8, 8)
    before = image.clone()
    found = sliding_window(lambda windows: windows, image, window=(8, 8, 8), batch=1)
    torch.testing.assert_close(image, before)
    torch.testing.assert_close(found, before)


def test_memory_holds_a_few_windows() -> None:
    largest: list[int] = []

    def count(windows: Tensor) -> Tensor:
        largest.append(len(windows))
        return windows

    sliding_window(count, torch.rand(1, 1, 16, 16, 16), window=(8, 8, 8), batch=3)
    assert max(largest) == 3
    assert sum(largest) == 27


@pytest.mark.parametrize("size", [(12, 16, 8), (8, 8, 20)])
def test_windows_are_blended_as_monai_does_where_they_lie_alike(size: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 3, padding=1))
    image = torch.rand(1, 1, *size)
    with torch.no_grad():
        wanted = SlidingWindowInferer((8, 8, 8), overlap=0.5, mode="gaussian")(image, model)
    found = sliding_window(model, image, window=(8, 8, 8), overlap=0.5)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_where_memory_runs_out_fewer_windows_go_at_once() -> None:
    tried: list[int] = []

    def small(windows: Tensor) -> Tensor:
        tried.append(len(windows))
        if len(windows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return windows

    image = torch.rand(1, 1, 8, 8, 40)
    found = sliding_window(small, image, window=(8, 8, 8), overlap=0.0, batch=5)
    torch.testing.assert_close(found, image)
    assert tried == [5, 2, 2, 1]

    def none(windows: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        sliding_window(none, image, window=(8, 8, 8), batch=4)


def test_neighbours_have_the_voxels_in_common_that_are_asked_for() -> None:
    seen: list[tuple[int, int]] = []

    def note(windows: Tensor) -> Tensor:
        seen.extend((int(w.min()), int(w.max()) + 1) for w in windows)
        return windows

    line = torch.arange(50.0).view(1, 1, 1, 1, 50)
    sliding_window(note, line, window=(1, 1, 20), overlap=0.25)
    assert seen[0][0] == 0
    assert seen[-1][1] == 50
    assert all(b - a == 20 for a, b in seen)
    assert all(end - start >= 5 for (_, end), (start, _) in itertools.pairwise(seen))
    assert len(seen) == 3 == count_windows((1, 1, 50), (1, 1, 20), 0.25)


def test_half_precision_does_not_add_up() -> None:
    image = torch.rand(1, 1, 16, 16, 16)
    found = sliding_window(lambda w: torch.full_like(w, 1 / 3).bfloat16(), image, window=(8, 8, 8))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full_like(image, float(torch.tensor(1 / 3).bfloat16())))


def test_what_can_not_work_is_refused() -> None:
    image = torch.rand(1, 1, 8, 8, 8)
    for call, message in (
        (lambda: sliding_window(pointwise, image[0], window=(8, 8, 8)), "one volume"),
        (lambda: sliding_window(pointwise, image.expand(2, 1, 8, 8, 8), window=(8, 8, 8)), "one volume"),
        (lambda: sliding_window(pointwise, image, window=(8, 0, 8)), "three sizes"),
        (lambda: sliding_window(pointwise, image, window=(8, 8, 8), overlap=1), "below 1"),
        (lambda: sliding_window(pointwise, image, window=(8, 8, 8), batch=0), "at least 1"),
        (lambda: sliding_window(lambda w: w[..., ::2], image, window=(8, 8, 8)), "resize its logits"),
    ):
        with pytest.raises(InferenceError, match=message):
            call()
