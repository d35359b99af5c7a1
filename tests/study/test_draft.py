"""A plan as a file: what is written is what is read, with the reasons as comments."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import parts2whole as p2w
from parts2whole.study.draft import Reason, entry, flow
from parts2whole.study.settings import choose_folds, choose_sides

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(VALUES, TEXT)
def test_any_value_is_read_as_it_was_written(value, why):
    lines = entry(2, "key", value, f"because {why}")
    assert yaml.safe_load("\n".join(lines)) == {"key": value}


def test_specs_are_written_by_name_with_what_is_not_usual():
    assert flow(p2w.UNet3D(size="tiny")) == "{UNet3D: {size: tiny}}"
    assert flow(p2w.Anywhere()) == "Anywhere"
    assert flow(p2w.Preprocess("CT", window_hu=(-200, 300))) == "{modality: CT, window_hu: [-200.0, 300.0]}"


def test_a_long_reason_goes_on_below_and_a_long_value_below_its_reason():
    beside = entry(0, "steps", 100, "word " * 40)
    assert beside[0].startswith("steps: 100  # word")
    assert all(line.index("#") == beside[0].index("#") and len(line) <= 110 for line in beside)
    above = entry(2, "arm", "x" * 70, "why")
    assert above == ["  # why", f"  arm: {'x' * 70}"]
    assert Reason(1).why == ""


@given(st.integers(3, 2000))
def test_sides_leave_someone_to_train_on(patients):
    test, validation = choose_sides(patients)
    assert test >= 1
    assert validation >= 1
    assert patients - test - validation >= 1
    assert test >= 6 or choose_folds(patients) or patients < 6


@pytest.mark.parametrize(
    ("patients", "folds", "test", "validation"),
    [
        (3, 0, 1, 1),
        (5, 0, 2, 1),  # all of them are too few to show anything
        (6, 5, 2, 1),
        (10, 5, 2, 2),
        (17, 5, 4, 3),
        (19, 0, 6, 3),
        (100, 0, 30, 10),
        (500, 0, 40, 10),
    ],
)
def test_folds_where_one_test_side_would_be_too_small(patients, folds, test, validation):
    assert choose_folds(patients) == folds
    assert choose_sides(patients) == (test, validation)
