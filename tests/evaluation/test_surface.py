from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

from parts2whole.evaluation.surface import surface_distances

SPACING = (2.5, 1.0, 0.7)


def blob(seed: int, *, size: tuple[int, int, int] = (12, 14, 16)) -> np.ndarray:
    """A ragged mask that touches the border now and then."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(s) for s in size), indexing="ij"), axis=-1)
    centre, radius = generator.uniform(3, 9, 3), generator.uniform(3, 6)
    inside = np.linalg.norm(grid - centre, axis=-1) < radius
    return inside & (generator.random(size) < 0.95)


def by_hand(
    p: np.ndarray, r: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances between surfaces, voxel by voxel."""

    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        found = []
        for place in np.argwhere(mask):
            neighbours = [place + 1 + step * np.eye(3, dtype=int)[a] for a in range(3) for step in (-1, 1)]
            if not all(padded[tuple(n)] for n in neighbours):
                found.append(place * np.array(spacing))
        return np.array(found)

    a, b = surface(p), surface(r)
    away = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return away.min(axis=1), away.min(axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_distances_against_brute_force(seed: int) -> None:
    p, r = blob(seed), blob(seed + 100)
    found = surface_distances(p, r, SPACING)
    to_reference, to_prediction = by_hand(p, r, SPACING)
    assert np.sort(found.to_reference) == pytest.approx(np.sort(to_reference))
    assert np.sort(found.to_prediction) == pytest.approx(np.sort(to_prediction))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI calling MONAI
@pytest.mark.parametrize("seed", range(4))
def test_metrics_against_monai(seed: int) -> None:
    p, r = blob(seed), blob(seed + 100)
    found = surface_distances(p, r, SPACING)
    pair = [torch.from_numpy(m)[None, None] for m in (p, r)]
    assert found.hd95_mm() == pytest.approx(
        float(compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=SPACING)),
        rel=1e-5,
    )
    assert found.assd_mm() == pytest.approx(
        float(
            compute_average_surface_distance(*pair, include_background=True, symmetric=True, spacing=SPACING)
        ),
        rel=1e-5,
    )
    for tolerance in (0.5, 2.0):
        share = compute_surface_dice(
            *pair, class_thresholds=[tolerance], include_background=True, spacing=SPACING
        )
        assert found.surface_dice(tolerance) == pytest.approx(float(share), rel=1e-5)


def test_two_plates_at_a_known_distance() -> None:
    p, r = np.zeros((2, 20, 8, 8), bool)
    p[4], r[7] = True, True
    found = surface_distances(p, r, (2.0, 1.0, 1.0))
    assert found.hd95_mm() == found.assd_mm() == 6
    assert (found.surface_dice(5.9), found.surface_dice(6.0)) == (0, 1)


@pytest.mark.parametrize(
    ("spacing", "apart"),
    [
        (math.nextafter(1.0, 2.0), 1),
        (1.0000000019, 1),
        (float(np.float32(0.2)), 5),
        (float(np.float32(0.1)), 10),
        (0.1, 10),
    ],
)
def test_a_spacing_read_with_a_rounding_error_decides_nothing(spacing: float, apart: int) -> None:
    """Two plates at 1 mm are within 1 mm, as they were written; those of a step more aren't."""
    for more in (0, 1):
        p, r = np.zeros((2, 20, 4, 4), bool)
        p[4], r[4 + apart + more] = True, True
        assert surface_distances(p, r, (spacing, 1.0, 1.0)).surface_dice(1.0) == 1 - more


def test_empty_masks() -> None:
    empty, full = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    both = surface_distances(empty, empty, SPACING)
    assert all(map(math.isnan, (both.hd95_mm(), both.assd_mm(), both.surface_dice(1))))
    for pair in itertools.permutations((empty, full)):
        one = surface_distances(*pair, SPACING)
        assert math.isnan(one.hd95_mm())
        assert math.isnan(one.assd_mm())
        assert one.surface_dice(1000) == 0


@given(st.integers(0, 1000), st.permutations(range(3)), st.integers(0, 2), st.floats(0.1, 10))
@settings(max_examples=25, deadline=None)
def test_space_has_no_preferred_direction(seed: int, order: list[int], axis: int, scale: float) -> None:
    p, r = blob(seed, size=(8, 9, 10)), blob(seed + 1, size=(8, 9, 10))
    found = surface_distances(p, r, SPACING)
    moved = [np.flip(mask, axis).transpose(order) for mask in (p, r)]
    again = surface_distances(*moved, tuple(SPACING[a] * scale for a in order))
    assert again.hd95_mm() == pytest.approx(found.hd95_mm() * scale, nan_ok=True)
    assert again.assd_mm() == pytest.approx(found.assd_mm() * scale, nan_ok=True)
    back = surface_distances(r, p, SPACING)
    assert back.hd95_mm() == pytest.approx(found.hd95_mm(), nan_ok=True)
    padded = surface_distances(np.pad(p, 3), np.pad(r, 3), SPACING)
    assert padded.assd_mm() == pytest.approx(found.assd_mm(), nan_ok=True)


def test_equal_masks_are_at_no_distance() -> None:
    p = blob(3)
    found = surface_distances(p, p, SPACING)
    assert (found.hd95_mm(), found.assd_mm(), found.surface_dice(0)) == (0, 0, 1)
