from __future__ import annotations

import itertools
import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parts2whole.store.split import Split, SplitError, labelled_subset, order_patients, split_by_patient

cohorts = st.dictionaries(
    st.text("abcdef0123", min_size=1, max_size=6), st.integers(0, 20), min_size=3, max_size=40
)


@settings(max_examples=80, deadline=None)
@given(cohorts, st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.integers(0, 5))
def test_no_patient_is_on_two_sides_and_none_is_lost(cohort, validation, test, seed):
    patients = {case: f"p{number}" for case, number in cohort.items()}
    if len(set(patients.values())) < 3:
        with pytest.raises(SplitError, match="can't be split"):
            split_by_patient(patients, validation=validation, test=test, seed=seed)
        return
    split = split_by_patient(patients, validation=validation, test=test, seed=seed)
    sides = [{patients[case] for case in side} for side in (split.train, split.validation, split.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert sorted((*split.train, *split.validation, *split.test)) == sorted(patients)
    assert split == split_by_patient(
        dict(reversed(patients.items())), validation=validation, test=test, seed=seed
    )
    assert Split.from_json(split.to_json()) == split


@settings(max_examples=60, deadline=None)
@given(cohorts, st.integers(0, 5))
def test_fractions_are_nested_by_patient(cohort, seed):
    patients = {case: f"p{number}" for case, number in cohort.items()}
    cases = sorted(patients)
    subsets = [set(labelled_subset(cases, patients, fraction=f, seed=seed)) for f in (0.05, 0.1, 0.45, 1.0)]
    for small, large in itertools.pairwise(subsets):
        assert small <= large
    assert subsets[-1] == set(cases)
    for subset in subsets:
        chosen = {patients[case] for case in subset}
        assert subset == {case for case in cases if patients[case] in chosen}


def test_strata_keep_their_proportion_in_every_prefix():
    patients = {f"c{i}": f"p{i}" for i in range(100)}
    strata = {case: int(case[1:]) < 20 for case in patients}
    order = order_patients(patients, seed=1, strata=strata)
    rare = [strata[f"c{p[1:]}"] for p in order]
    assert sum(rare[:10]) == 2
    assert sum(rare[:50]) == 10


def test_different_seeds_give_different_splits():
    patients = {f"c{i}": f"p{i}" for i in range(30)}
    assert order_patients(patients, seed=0) != order_patients(patients, seed=1)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_an_impossible_fraction_is_refused(fraction):
    with pytest.raises(SplitError, match=r"\(0, 1\]"):
        labelled_subset(["a"], {"a": "p"}, fraction=fraction)


def test_more_labels_than_there_are_is_refused():
    with pytest.raises(SplitError, match="asked for 3 labelled patients"):
        labelled_subset(["a", "b"], {"a": "p", "b": "q"}, count=3)


def sides_of(split: Split) -> tuple[tuple[str, ...], ...]:
    """In order of need."""
    return split.train, split.test, split.validation


def missing(sides, occurring) -> list[int]:
    """How many classes every side lacks, counted plainly."""
    everything = set().union(*occurring.values())
    return [len(everything - set().union(*(occurring[case] for case in side))) for side in sides]


@settings(max_examples=150, deadline=None)
@given(st.integers(3, 9), st.integers(12, 110), st.integers(0, 10**6), st.sampled_from([0.1, 0.15, 0.3]))
def test_three_positives_are_one_on_every_side(positives, count, seed, share):
    cases = [f"case{i}" for i in range(count)]
    chosen = set(random.Random(seed).sample(cases, positives))
    strata = {case: int(case in chosen) for case in cases}
    split = split_by_patient(
        {case: f"of {case}" for case in cases}, validation=share, test=0.3, seed=seed, strata=strata
    )
    for side in sides_of(split):
        assert {strata[case] for case in side} == {0, 1}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2), st.sampled_from([20, 40, 100]), st.integers(0, 10**6))
def test_of_two_positives_one_is_learnt_from_and_one_tested(positives, count, seed):
    cases = [f"case{i}" for i in range(count)]
    chosen = set(random.Random(seed).sample(cases, positives))
    split = split_by_patient(
        {case: case for case in cases},
        validation=0.15,
        test=0.3,
        seed=seed,
        strata={case: case in chosen for case in cases},
    )
    found = [len(chosen & set(side)) for side in sides_of(split)]
    assert found == ([1, 0, 0] if positives == 1 else [1, 1, 0])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 3)), min_size=4, max_size=8),
    st.integers(0, 1000),
)
def test_what_occurs_together_is_spread_as_well_as_can_be(held, seed):
    """Against all ways to divide so few patients."""
    occurring = {f"c{i}": classes for i, classes in enumerate(held)}
    patients = {case: f"p{case}" for case in occurring}
    split = split_by_patient(patients, validation=0.2, test=0.3, seed=seed, occurring=occurring)
    cases = sorted(occurring)
    best = min(
        missing((set(cases) - {*test, *validation}, test, validation), occurring)
        for test in itertools.combinations(cases, len(split.test))
        for validation in itertools.combinations(sorted(set(cases) - set(test)), len(split.validation))
    )
    assert missing(sides_of(split), occurring) == best


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 60), st.integers(0, 1000), st.floats(0.3, 0.9))
def test_patients_stay_where_they_were_if_nothing_is_missing(count, seed, share):
    """Splits of version 0.1.0, cut from the order, are kept wherever every side has every class."""
    draw = random.Random(seed)
    cases = [f"case{i}" for i in range(count)]
    occurring = {case: {k for k in range(2) if draw.random() < share} for case in cases}
    order = order_patients({case: case for case in cases}, seed=seed)
    tested, validated = round(0.3 * count), round(0.15 * count)
    plain = order[tested + validated :], order[:tested], order[tested : tested + validated]
    split = split_by_patient(
        {case: case for case in cases}, validation=0.15, test=0.3, seed=seed, occurring=occurring
    )
    if missing(plain, occurring) == [0, 0, 0]:
        assert sides_of(split) == tuple(map(tuple, plain))


def test_a_side_grows_until_it_holds_every_class_but_not_beyond_training():
    strata = {f"c{i}": i % 2 for i in range(8)}
    split = split_by_patient({c: c for c in strata}, validation=0.1, test=0.1, strata=strata)
    assert [sorted(strata[c] for c in side) for side in sides_of(split)] == [[0, 0, 1, 1], [0, 1], [0, 1]]
    few = {f"c{i}": i % 2 for i in range(5)}
    split = split_by_patient({c: c for c in few}, validation=0.1, test=0.1, strata=few)
    assert [len(side) for side in sides_of(split)] == [3, 1, 1]


def test_all_sessions_of_a_patient_are_on_one_side_whatever_is_swapped():
    patients = {f"p{i}-{session}": f"p{i}" for i in range(30) for session in range(3)}
    rare = {"p3-1", "p17-2", "p29-0"}
    split = split_by_patient(
        patients, validation=0.15, test=0.3, occurring={case: {case in rare} for case in patients}
    )
    sides = [{patients[case] for case in side} for side in sides_of(split)]
    assert sum(map(len, sides)) == 30
    assert all(len(rare & set(side)) == 1 for side in sides_of(split))
    assert sum(map(len, sides_of(split))) == len(patients)


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 5), st.integers(0, 1000), st.integers(6, 40))
def test_a_small_subset_has_as_many_classes_as_patients(classes, seed, count):
    draw = random.Random(seed)
    strata = {f"c{i}": draw.choice([0, 0, 0, *range(classes)]) for i in range(count)}
    cases = sorted(strata)
    there = set(strata.values())
    for wanted in range(1, count + 1):
        chosen = labelled_subset(cases, {c: c for c in cases}, count=wanted, seed=seed, strata=strata)
        assert len(chosen) == wanted
        assert len({strata[case] for case in chosen}) >= min(wanted, len(there))


def test_one_labelled_patient_has_everything_if_anyone_has():
    occurring = {f"c{i}": {1} for i in range(19)} | {"c5": {2}, "c12": {1, 2, 3}, "c7": {3}}
    patients = {case: case for case in occurring}
    for seed in range(20):
        assert labelled_subset(sorted(occurring), patients, count=1, seed=seed, occurring=occurring) == (
            "c12",
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 30), st.integers(0, 1000))
def test_subsets_that_have_every_class_are_those_of_version_010(count, seed):
    draw = random.Random(seed)
    strata = {f"c{i}": draw.choice([0, 0, 1, 2]) for i in range(count)}
    order = order_patients({c: c for c in strata}, seed=seed, strata=strata)
    for wanted in range(1, count + 1):
        plain = set(order[:wanted])
        if {strata[c] for c in plain} == set(strata.values()):
            subset = labelled_subset(
                sorted(strata), {c: c for c in strata}, count=wanted, seed=seed, strata=strata
            )
            assert set(subset) == plain


def test_fractions_are_rounded_up_and_nested_with_rare_classes():
    strata = {f"c{i}": i in (4, 33) for i in range(40)}
    patients = {case: case for case in strata}
    sizes = [
        labelled_subset(sorted(strata), patients, fraction=fraction, seed=3, strata=strata)
        for fraction in (0.01, 0.05, 0.1, 0.5)
    ]
    assert [len(subset) for subset in sizes] == [math.ceil(40 * f) for f in (0.01, 0.05, 0.1, 0.5)]
    assert all(set(a) <= set(b) for a, b in itertools.pairwise(sizes))
    assert {strata[case] for case in sizes[1]} == {True, False}


def test_a_split_is_read_with_and_without_what_is_said_about_it():
    split = Split(("a",), ("b",), ("c",))
    assert Split.from_json(split.to_json(patients_by="names", sides={"train": 1})) == split
    assert json.loads(split.to_json(patients_by="names"))["patients_by"] == "names"
    assert (
        Split.from_json('{"train": ["a"], "validation": ["b"], "test": ["c"]}') == split
    )  # of version 0.1.0
