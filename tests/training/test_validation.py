from types import SimpleNamespace

import pytest

from parts2whole.tasks.segmentation import Segmentation
from parts2whole.training.validation import plan_validation

PATCH = (8, 8, 8)
ENCODER, WITH_STATISTICS = (
    SimpleNamespace(divisor=8, norm="batch"),
    SimpleNamespace(divisor=8, norm="instance"),
)


def plan(items: int, patches_each: int, *, steps: int, holds=lambda number: frozenset({1})):
    """Validation cases of so many patches; a batch is two patches, so a step has the work of six."""
    task = SimpleNamespace(
        patch_size=PATCH,
        voxels_to_examine=lambda labelled, items, encoder: len(items) * patches_each * 512,
    )
    names = [f"case{number}" for number in range(items)]
    labelled = SimpleNamespace(item=lambda name: SimpleNamespace(holds=holds(int(name[4:]))))
    return plan_validation(task, labelled, names, encoder=None, steps=steps, batch_size=2), names


def test_small_validation_is_every_hundred_steps_on_all_cases():
    found, names = plan(6, 9, steps=1000)  # the work of 9 steps, 11 times: 99 of 1000
    assert (found.every, list(found.items), found.describe(names)) == (100, names, "")


def test_large_validation_is_rarer():
    found, names = plan(6, 160, steps=10_000)  # the work of 160 steps, 6 times in all: 960 of 10,000
    assert (found.every, list(found.items)) == (2000, names)
    assert "every 2000 steps on all cases" in found.describe(names)


def test_where_it_would_be_too_rare_it_is_on_fewer_cases_with_the_most_classes():
    # Of 500 steps' work there are 6 shares, for the one before the first step and 5 every 1000: 83 each, which
    # is half of 12 * 80 / 6 = 160.
    found, names = plan(12, 80, steps=5000, holds=lambda number: frozenset(range(1 + number % 2)))
    assert found.every == 1000
    assert list(found.items) == names[1::2]
    assert "6 of 12 cases" in found.describe(names)


@pytest.mark.parametrize("steps", [100, 350, 1000, 7001])
@pytest.mark.parametrize("patches_each", [1, 13, 60, 400])
def test_all_validations_together_take_a_tenth(steps, patches_each):
    found, _ = plan(40, patches_each, steps=steps)
    after_steps = [step for step in range(1, steps + 1) if step == steps or step % found.every == 0]
    patches = (1 + len(after_steps)) * len(found.items) * patches_each
    assert patches <= 0.1 * 6 * steps or len(found.items) == 4


@pytest.mark.parametrize(("items", "kept"), [(2, 2), (40, 4)])
def test_some_cases_always_decide(items, kept):
    found, _ = plan(items, 100_000, steps=50)
    assert (found.every, len(found.items)) == (50, kept)


def test_the_voxels_of_a_segmentation_are_those_of_its_windows(tmp_path):
    shape = (40, 70, 61)
    labelled = SimpleNamespace(
        item=lambda name: SimpleNamespace(case_id=name, centre=(1, 2, 3) if name == "cube" else None),
        store=SimpleNamespace(record=lambda name: SimpleNamespace(shape=shape)),
    )
    task = Segmentation(tmp_path, patch_size=(16, 32, 32))
    # An eighth of 16, 32, 32 in common: steps of 14, 28, 28, so 3 * 3 * 3 windows.
    assert task.voxels_to_examine(labelled, ["a"], ENCODER) == 27 * 16 * 32 * 32
    assert task.voxels_to_examine(labelled, ["cube"], ENCODER) == 16 * 32 * 32
    # A half: steps of 8, 16, 16, so 4 * 4 * 3 windows.
    assert task.voxels_to_examine(labelled, ["a"], WITH_STATISTICS) == 48 * 16 * 32 * 32
    large = task.replace(window_size=(96, 96, 96))
    assert large.voxels_to_examine(labelled, ["a"], ENCODER) == 40 * 72 * 64
    resized = task.replace(crop_size=(32, 64, 64))
    assert resized.voxels_to_examine(labelled, ["a"], ENCODER) == 2 * 2 * 1 * 16 * 32 * 32
