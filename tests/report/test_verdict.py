"""The verdict: every sentence from made-up tests, as one would write it by hand."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from parts2whole.evaluation.endpoints import Rank
from parts2whole.report.endpoints import Endpoint, Judged
from parts2whole.report.marks import How
from parts2whole.report.verdict import conclude

PAIRED = How("paired", "two-sided", 0.05, None)
SEEDS = dict.fromkeys(range(10), 0.5)


def row(count: int, effect: float | None, p: float | None, **changes: Any) -> Judged:
    """One number of labels; p is as corrected."""
    about: dict[str, Any] = {
        **{
            "task": "Hippocampus",
            "metric": "dice_mean",
            "labels": f"{count} cases",
            "counts": (count, count),
        },
        **{
            "fraction": None,
            "steps": None,
            "figures": {},
            "n": 10,
            "sd": 0.02,
            "higher": True,
            "percent": True,
        },
        **{"values": {"scratch": SEEDS, "Parts2Whole": SEEDS}, "family": 5},
    }
    return Judged(**about | {"effect": effect, "p": p, "holm": p} | changes)


def endpoint(*rows: Judged, name: str = "final", how: How = PAIRED, **changes: Any) -> Endpoint:
    about: dict[str, Any] = {"test": how.words, "paired": how.paired, "ranks": {}} | changes
    return Endpoint(name, ("scratch", "Parts2Whole"), "Parts2Whole", "scratch", how, rows=rows, **about)


def lines(*endpoints: Endpoint) -> list[str]:
    found = conclude(endpoints)
    assert found is not None
    return found.text.splitlines()


def test_a_gain_at_few_labels_and_nothing_at_many() -> None:
    found = endpoint(
        row(1, 0.021, 0.012),
        row(2, 0.0398, 0.004),
        row(3, 0.03, 0.0199),
        row(5, 0.01, 0.3),
        row(10, 0.0, 0.9),
    )
    conclusion = conclude([found])
    assert conclusion is not None
    # What ten pairs see at 0.05 / 5, with a deviation of 2 points: by the noncentral t.
    limit = stats.t.isf(0.005, 9)
    assert stats.nct.sf(limit, 9, 2.68 / 2 * 10**0.5) == pytest.approx(0.8, abs=0.01)
    assert f"{conclusion.headline} {conclusion.power}" == (
        "With 1 to 3 labelled cases, Parts2Whole gains 2.1 to 4.0 points of Dice over scratch (p ≤ 0.02, Holm over "
        "5 label counts, 10 seeds); with 5 and 10, nothing is shown. There, a true difference of 2.7 points would "
        "have been seen with power 0.8."
    )
    assert conclusion.tone == "good"
    assert "paired t-test, two-sided, α = 0.05" in conclusion.sentences[-1]


def test_nothing_anywhere_says_what_could_have_been_seen() -> None:
    found = endpoint(row(1, 0.01, 0.41), row(5, -0.002, 0.6))
    first, *_ = lines(found)
    conclusion = conclude([found])
    assert conclusion is not None
    assert conclusion.tone == "open"
    assert first == (
        "With 1 and 5 labelled cases, nothing is shown: Parts2Whole and scratch are not told apart (−0.2 to +1.0 "
        "points of Dice; p ≥ 0.41, Holm over 5 label counts, 10 seeds). There, a true difference of 2.7 points would "
        "have been seen with power 0.8."
    )


def test_losses_and_mixed_directions() -> None:
    lost = conclude([endpoint(row(3, -0.012, 0.0312, family=1))])
    assert lost is not None
    assert lost.headline == (
        "With 3 labelled cases, Parts2Whole loses 1.2 points of Dice to scratch (p = 0.0312, 10 seeds)."
    )
    assert lost.tone == "bad"
    mixed = conclude([endpoint(row(1, 0.03, 0.01), row(2, 0.001, 0.8), row(5, -0.02, 0.00001))])
    assert mixed is not None
    assert mixed.headline.startswith(
        "With 1 labelled case, Parts2Whole gains 3.0 points of Dice over scratch (p = 0.01, Holm over 5 label counts, "
        "10 seeds); with 5, Parts2Whole loses 2.0 points of Dice to scratch (p < 0.0001); with 2, nothing is shown."
    )
    assert mixed.tone == "weak"


def test_where_less_is_better_a_fall_is_a_gain() -> None:
    about: dict[str, Any] = {
        "metric": "surface_distance_mean",
        "higher": False,
        "percent": False,
        "family": 1,
    }
    first, *_ = lines(endpoint(row(3, -0.512, 0.01, **about)))
    assert first == (
        "With 3 labelled cases, Parts2Whole is better than scratch by 0.512 in surface distance (p = 0.01, 10 seeds)."
    )


def test_what_could_not_be_tested_is_said_with_its_reason() -> None:
    first, *_ = lines(
        endpoint(
            row(1, None, None, why="one seed only"),
            row(3, 0.02, 0.01),
            row(5, None, None, why="nothing varies"),
        )
    )
    assert first == (
        "With 3 labelled cases, Parts2Whole gains 2.0 points of Dice over scratch (p = 0.01, Holm over 5 label counts, "
        "10 seeds); with 1, nothing could be tested (one seed only); with 5, nothing could be tested (nothing varies)."
    )


def test_too_few_seeds_for_a_test_that_counts() -> None:
    """Five pairs have 32 sign flips: two-sided, p is 2 / 32 at least, and five times that after Holm."""
    found = endpoint(row(1, 0.05, 0.3125, n=5), how=How("wilcoxon", "two-sided", 0.05, None))
    assert lines(found)[0].endswith(
        "With 5 seeds this test can't show anything: its smallest p is 0.31 after Holm."
    )
    enough = endpoint(row(1, 0.05, 0.08, n=10), how=How("wilcoxon", "two-sided", 0.05, None))
    assert "power 0.8" in lines(enough)[0]


def test_fractions_and_steps_are_named_as_they_were_asked_for() -> None:
    shares = [row(9, 0.02, 0.01, fraction=0.1), row(45, 0.01, 0.7, fraction=0.5)]
    assert lines(endpoint(*shares))[0].startswith("With 10 % of the labels, Parts2Whole gains 2.0")
    steps = [row(3, 0.02, 0.01, steps=100, family=2), row(3, 0.001, 0.9, steps=400, family=2)]
    first = lines(endpoint(*steps))[0]
    assert first.startswith(
        "After 100 steps, with 3 labelled cases, Parts2Whole gains 2.0 points of Dice over scratch (p = 0.01, Holm over "
        "2 numbers of steps, 10 seeds); after 400 steps, with 3 labelled cases, nothing is shown"
    )


def test_several_tasks_are_counted_and_told_one_by_one() -> None:
    rows = [
        row(3, 0.03, 0.01, family=1),
        row(3, 0.0, 1.0, task="Lung", family=1),
        row(3, -0.1, 0.001, task="Ear"),
    ]
    ranks = {"scratch": Rank(1.7, (1.2, 2.0), 0.4), "Parts2Whole": Rank(1.33, (1.0, 1.7), 0.6)}
    found = lines(endpoint(*rows, ranks=ranks))
    assert found[0] == (
        "Parts2Whole against scratch: gains on 1 of 3 tasks (Hippocampus); losses on 1 of 3 (Ear); nothing shown on "
        "Lung."
    )
    assert found[1].startswith("Hippocampus: With 3 labelled cases, Parts2Whole gains 3.0")
    assert found[4] == (
        "Ranked over 3 tasks, Parts2Whole is first in 60 % of 10,000 bootstraps over seeds (mean rank 1.3 of 2, 95 % "
        "interval 1 to 1.7)."
    )
    nothing = lines(endpoint(*(row(3, 0.0, 1.0, task=task) for task in ("A", "B"))))
    assert nothing[0] == "Parts2Whole against scratch: nothing is shown on any of 2 tasks."


def test_every_endpoint_has_its_sentence() -> None:
    spread = [row(1, 0.21, 0.004, sd=None, higher=False), row(5, 1.31, 0.6, sd=None, higher=False)]
    never = {
        "censored": {"scratch": 3, "Parts2Whole": 0},
        "higher": False,
        "percent": False,
        "family": 1,
        "sd": None,
    }
    found = lines(
        endpoint(row(1, 0.02, 0.01, family=1)),
        endpoint(row(1, 0.015, 0.01, family=1, labels="1 to 10 labelled cases"), name="area"),
        endpoint(row(1, -40.0, 0.004, **never), name="steps_to_90"),
        endpoint(row(1, 0.1, 0.004, family=1, sd=None), name="worst_seed"),
        endpoint(row(1, 0.05, 0.004, family=1), name="worst_tenth"),
        endpoint(*spread, name="spread", late=12),
    )
    assert found[1:6] == [
        "Over the whole curve of 1 to 10 labelled cases, Parts2Whole gains 1.5 points of Dice over scratch (p = 0.01, "
        "10 seeds).",
        "To 90 % of the best validation score: with 1 labelled case, Parts2Whole is 40 steps sooner than scratch; "
        "scratch never gets there in 3 of 10 runs, which counts as their last step (p = 0.004, 10 seeds).",
        "In the worst seed: with 1 labelled case, Parts2Whole gains 10.0 points of Dice over scratch (p = 0.004, 10 "
        "seeds).",
        "On the worst tenth of the test patients: with 1 labelled case, Parts2Whole gains 5.0 points of Dice over "
        "scratch (p = 0.004, 10 seeds).",
        "Spread over seeds: with 1 labelled case, that of Parts2Whole is smaller than that of scratch: 0.21 times as "
        "large (p = 0.004, Holm over 5 label counts, 10 seeds); with 5, nothing is shown [added after the runs (12 were "
        "finished)].",
    ]
    wide = endpoint(row(1, 1.31, 0.6, sd=None, higher=False, family=1, interval=(0.8, 2.04)), name="spread")
    assert lines(wide)[0] == (
        "Spread over seeds: with 1 labelled case, that it is smaller than that of scratch is not shown (1.3 times as "
        "large, 95 % interval 0.8 to 2; p = 0.6, 10 seeds)."
    )


def test_p_is_rounded_to_the_side_that_claims_less() -> None:
    assert "(p = 0.0499, 10 seeds)" in lines(endpoint(row(1, 0.1, 0.04991, family=1)))[0]
    assert "p ≤ 0.05," in lines(endpoint(row(1, 0.1, 0.0491), row(2, 0.1, 0.01)))[0]
    assert "p ≥ 0.12," in lines(endpoint(row(1, 0.1, 0.1299), row(2, 0.1, 0.5)))[0]
    assert "p = 1," in lines(endpoint(row(1, 0.1, 1.0), row(2, 0.1, 1.0)))[0]


def test_without_figures_there_is_a_reason_and_without_arms_no_verdict() -> None:
    empty = endpoint(name="steps_to_90", notes=("scratch: no figure, so there is nothing to test.",))
    assert lines(empty)[:2] == [
        "Parts2Whole against scratch: nothing could be tested.",
        "To 90 % of the best validation score: no figures. scratch: no figure, so there is nothing to test.",
    ]
    assert conclude([]) is None


def test_a_share_can_not_be_seen_to_differ_by_more_than_everything() -> None:
    about: dict[str, Any] = {"n": 2, "family": 1}
    none = endpoint(row(3, 0.1, 0.4, sd=0.5, **about))
    assert lines(none)[0].endswith("There, so few seeds would have seen no difference at all with power 0.8.")
    some = endpoint(row(3, 0.1, 0.4, sd=0.02, **about), row(5, 0.1, 0.4, sd=0.5, **about))
    assert " to 100.0 points would have been seen" in lines(some)[0]


def test_ranks_of_few_seeds_are_doubted() -> None:
    ranks = {"scratch": Rank(2.0, (2.0, 2.0), 0.0), "Parts2Whole": Rank(1.0, (1.0, 1.0), 1.0)}
    rows = [row(count, 0.1, 0.4, n=5) for count in (1, 3)]
    assert any(
        line.endswith("Draws of so few seeds look surer than they are.")
        for line in lines(endpoint(*rows, ranks=ranks))
    )
    enough = [row(count, 0.1, 0.4) for count in (1, 3)]
    assert not any("surer" in line for line in lines(endpoint(*enough, ranks=ranks)))


def test_a_rare_first_place_is_not_none_at_all() -> None:
    ranks = {"scratch": Rank(1.0, (1.0, 1.0), 0.996), "Parts2Whole": Rank(2.0, (2.0, 2.0), 0.004)}
    found = " ".join(lines(endpoint(row(1, 0.1, 0.4), row(3, 0.1, 0.4), ranks=ranks)))
    assert "Parts2Whole is first in 0.4 % of 10,000 bootstraps" in found
    assert "most often first is scratch (99.6 %)" in found


def test_nothing_after_any_number_of_steps_is_said_once() -> None:
    rows = [row(n, 0.01 * n, 0.5, steps=steps, family=4) for n in (1, 3) for steps in (100, 400)]
    assert lines(endpoint(*rows))[0].startswith(
        "After 100 and 400 steps alike, with 1 and 3 labelled cases, nothing is shown: Parts2Whole and scratch are not "
        "told apart (+1.0 to +3.0 points of Dice; p ≥ 0.5, Holm over 4 rows, 10 seeds)."
    )
