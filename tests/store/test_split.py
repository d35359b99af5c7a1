from __future__ import annotations

import itertools

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
