"""How a study ends, in words that one can act on, made from the tests of its endpoints and from nothing else.

A gain or a loss is claimed where p, corrected by Holm over the rows of its task, is at or below alpha.  Where
nothing is shown, it says what could have been seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parts2whole.evaluation.endpoints import RESAMPLES
from parts2whole.evaluation.power import detectable_difference
from parts2whole.report.endpoints import NO_TENTH, Endpoint, Judged, late_words
from parts2whole.report.formats import format_number, format_share
from parts2whole.report.summary import Tone, Verdict
from parts2whole.report.tables import metric_title

LEADS = {
    "final": "",
    "area": "Over the whole curve of {labels}, ",
    "steps_to_90": "To 90 % of the best validation score: ",
    "worst_seed": "In the worst seed: ",
    "worst_tenth": "On the worst tenth of the test patients: ",
    "spread": "Spread over seeds: ",
}

FEW = 10
"""Below so many seeds, draws of seeds err to the certain side so far that it is said."""


@dataclass(frozen=True)
class Conclusion:
    """What a study shows.

    Attributes:
        tone: how good the news is.
        headline: the answer in a sentence.
        power: what could have been seen where nothing is.
        sentences: everything that the endpoints show, and what the answer rests on.
    """

    tone: Tone
    headline: str
    power: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it, a line a sentence: ``verdict.txt`` of a study."""
        return "\n".join((f"{self.headline} {self.power}".rstrip(), *self.sentences)) + "\n"

    def verdict(self) -> Verdict:
        """As the page shows it first."""
        return Verdict(self.tone, self.headline, self.power, self.sentences)


def conclude(endpoints: Sequence[Endpoint]) -> Conclusion | None:
    """What the endpoints of a study show; None where it has one arm only, so that nothing can be shown."""
    if not endpoints:
        return None
    found = [_Said(endpoint) for endpoint in endpoints]
    first = found[0]
    tasks = dict.fromkeys(task for said in found for task in said.tasks)
    pairs = [said.of_task(task) for task in tasks for said in found if task in said.tasks]
    by_task, power = [f"{sentence} {seen}".rstrip() for sentence, seen in pairs], ""
    if not pairs:
        headline, rest = f"{first.of.focus} against {first.of.reference}: nothing could be tested.", []
    elif len(tasks) == 1:
        (headline, power), rest = pairs[0], by_task[1:]
    else:
        headline, rest = first.over_tasks(), by_task
    rest += [text for said in found for text in (said.left_out(), said.ranking()) if text]
    won, lost = first.count(1), first.count(-1)
    tone: Tone = "open"
    if won or lost:
        tone = "weak" if won and lost else "good" if won else "bad"
    return Conclusion(tone, headline, power, (*rest, _basis(endpoints)))


class _Said:
    """Sentences about one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.of, self.name = endpoint, endpoint.name
        self.tasks = tuple(dict.fromkeys(row.task for row in endpoint.rows))

    def count(self, direction: int) -> int:
        return sum(self._direction(row) == direction for row in self.of.rows)

    def of_task(self, task: str) -> tuple[str, str]:
        """What is shown on a task: gains, losses, where nothing is; and what could have been seen."""
        rows = [row for row in self.of.rows if row.task == task]
        lengths = list(dict.fromkeys(row.steps for row in rows))
        members = [[row for row in rows if row.steps == steps] for steps in lengths]
        if len(lengths) > 1 and all(self._direction(row) == 0 for row in rows):
            after = _listed([str(steps) for steps in lengths])
            told = [f"after {after} steps alike, {self._nothing_anywhere(rows, members[0])}"]
        else:
            after_steps = ["" if steps is None else f"after {steps} steps, " for steps in lengths]
            told = [after + self._clauses(of) for after, of in zip(after_steps, members, strict=True)]
        named = f"{task}: " if len(self.tasks) > 1 else ""
        lead = LEADS[self.name].format(labels=rows[0].labels.partition(",")[0])
        sentence = lead + "; ".join(told)
        power = "" if self.name == "spread" else self._could_see(rows)
        late = late_words(self.of)
        return f"{named}{_capital(sentence)}{f' [{late}]' if late else ''}.", power

    def over_tasks(self) -> str:
        """In how many tasks something is shown."""
        won, lost = (
            [t for t in self.tasks if any(self._direction(r) == kind for r in self.of.rows if r.task == t)]
            for kind in (1, -1)
        )
        about, total = f"{self.of.focus} against {self.of.reference}", len(self.tasks)
        if not won and not lost:
            return f"{about}: nothing is shown on any of {total} tasks."
        parts = [f"gains on {len(won)} of {total} tasks ({', '.join(won)})"] if won else []
        parts += [f"losses on {len(lost)} of {total} ({', '.join(lost)})"] if lost else []
        quiet = [t for t in self.tasks if t not in (*won, *lost)]
        parts += [f"nothing shown on {', '.join(quiet)}"] if quiet else []
        return f"{about}: {'; '.join(parts)}."

    def ranking(self) -> str:
        """How often the arm of interest is first, where there is more to rank than one row of two arms."""
        ranks = self.of.ranks
        if self.name != "final" or self.of.focus not in ranks or (len(ranks) < 3 and len(self.of.rows) < 2):
            return ""
        here = ranks[self.of.focus]
        most = max(ranks, key=lambda arm: ranks[arm].first)
        low, high = here.interval
        rank = f"mean rank {here.rank:.2g} of {len(ranks)}, 95 % interval {low:.2g} to {high:.2g}"
        other = (
            ""
            if most == self.of.focus
            else f"; most often first is {most} ({format_share(ranks[most].first)})"
        )
        over = f"{len(self.tasks)} tasks" if len(self.tasks) > 1 else "all rows"
        return (
            f"Ranked over {over}, {self.of.focus} is first in {format_share(here.first)} of {RESAMPLES:,} "
            f"bootstraps over seeds ({rank}{other})."
        ) + (" Draws of so few seeds look surer than they are." if self._fewest() < FEW else "")

    def _fewest(self) -> int:
        return min((row.n for row in self.of.rows), default=0)

    def left_out(self) -> str:
        """An endpoint of which there is nothing to say, and why."""
        if self.of.rows:  # of the other tasks
            return " ".join(note for note in self.of.notes if NO_TENTH in note)
        lead = _capital(LEADS[self.name].format(labels="labels"))
        return f"{lead}no figures. {' '.join(self.of.notes)}".strip()

    def _direction(self, row: Judged) -> int | None:
        """+1 where the arm of interest is shown to be better, -1 worse, 0 neither; None if not tested."""
        if row.p is None or row.holm is None or row.effect is None:
            return None
        if row.holm > self.of.how.alpha:
            return 0
        if self.name == "spread":
            return 1
        return 1 if ((row.side or row.effect) > 0) == row.higher else -1

    def _clauses(self, rows: Sequence[Judged]) -> str:
        """``with 1 to 3 labelled cases, A gains 2 to 4 points of Dice over B; with 5, nothing is shown``."""
        groups = {kind: [row for row in rows if self._direction(row) == kind] for kind in (1, -1, 0, None)}
        if len(groups[0]) == len(rows):
            return self._nothing_anywhere(rows, rows)
        clauses, first = [], True
        for kind in (1, -1):
            if groups[kind]:
                where = self._where(groups[kind], rows, named=first)
                clauses.append(
                    f"{where}{self._claim(groups[kind], kind)} ({self._level(groups[kind], first)})"
                )
                first = False
        if groups[0]:
            clauses.append(f"{self._where(groups[0], rows, named=first)}nothing is shown")
            first = False
        for why in dict.fromkeys(row.why or "no figure" for row in groups[None]):
            of = [row for row in groups[None] if (row.why or "no figure") == why]
            clauses.append(f"{self._where(of, rows, named=first)}nothing could be tested ({why})")
            first = False
        return "; ".join(clauses)

    def _nothing_anywhere(self, rows: Sequence[Judged], places: Sequence[Judged]) -> str:
        where = self._where(places, places, named=True)
        least = min(row.holm for row in rows if row.holm is not None)
        several = len(rows) > 1 and least < 1
        detail = f"p ≥ {_floor(least)}, {self._basis(rows)}" if several else self._level(rows, True)
        if self.name == "spread":
            text = f"that it is smaller than that of {self.of.reference} is not shown"
            return f"{where}{text} ({self._ratios(rows)}; {detail})"
        return (
            f"{where}nothing is shown: {self.of.focus} and {self.of.reference} are not told apart "
            f"({self._range(rows, signed=True)}; {detail})"
        )

    def _claim(self, rows: Sequence[Judged], kind: int) -> str:
        amount, focus, other = self._range(rows), self.of.focus, self.of.reference
        if self.name == "spread":
            return f"that of {focus} is smaller than that of {other}: {self._ratios(rows)}"
        if self.name == "steps_to_90":
            return f"{focus} is {amount} {'sooner' if kind > 0 else 'later'} than {other}{self._never(rows)}"
        if any((row.side or row.effect or 0) * (row.effect or 0) < 0 for row in rows):
            told = f"by ranks, though its mean is {self._range(rows, signed=True)} from it"
            return f"{focus} is {'better' if kind > 0 else 'worse'} than {other} {told}"
        if not all(row.higher for row in rows):
            return f"{focus} is {'better' if kind > 0 else 'worse'} than {other} by {amount}"
        return f"{focus} {'gains' if kind > 0 else 'loses'} {amount} {'over' if kind > 0 else 'to'} {other}"

    def _never(self, rows: Sequence[Judged]) -> str:
        told = [
            f"{arm} never gets there in {count} of {total} runs"
            for arm in (self.of.focus, self.of.reference)
            if (count := sum(row.censored.get(arm, 0) for row in rows))
            and (total := sum(len(row.values.get(arm, {})) for row in rows))
        ]
        return f"; {', '.join(told)}, which counts as their last step" if told else ""

    def _range(self, rows: Sequence[Judged], *, signed: bool = False) -> str:
        """``2.1 to 4.0 points of Dice``: effects from the smallest to the largest."""
        effects = [row.effect for row in rows if row.effect is not None]
        percent = all(row.percent for row in rows)
        sizes = sorted(effects if signed else [abs(effect) for effect in effects])
        unit = f"{'points of ' if percent else 'in '}{_noun(rows[0].metric)}"
        ends = (sizes[0], sizes[-1])
        if self.name == "steps_to_90":
            unit, shown = (
                "steps",
                [f"{'+' * (signed and end > 0)}{end:.0f}".replace("-", "−") for end in ends],
            )
        else:
            shown = [_amount(size, percent=percent, signed=signed) for size in ends]
        return f"{' to '.join(dict.fromkeys(shown))} {unit}"

    def _ratios(self, rows: Sequence[Judged]) -> str:
        found = sorted(row.effect for row in rows if row.effect is not None)
        if not found:
            return "no ratio, as the reference does not vary"
        shown = " to ".join(dict.fromkeys(f"{ratio:.2g}" for ratio in (found[0], found[-1])))
        interval = rows[0].interval if len(rows) == 1 else None
        told = f", 95 % interval {interval[0]:.2g} to {interval[1]:.2g}" if interval else ""
        return f"{shown} times as large{told}"

    def _where(self, rows: Sequence[Judged], among: Sequence[Judged], *, named: bool) -> str:
        """``with 1 to 3 labelled cases, ``; numbers that follow each other in the study are one span."""
        if self.name == "area":
            return ""
        share = all(row.fraction is not None for row in among)
        known = [
            f"{100 * row.fraction:.3g} %" if row.fraction is not None else str(row.counts[0]) for row in among
        ]
        places = [among.index(row) for row in rows]
        spans: list[list[int]] = []
        for place in places:
            if spans and spans[-1][-1] + 1 == place:
                spans[-1].append(place)
            else:
                spans.append([place])
        words: list[str] = []
        for span in spans:
            ends = [known[span[0]], known[span[-1]]]
            words += [" to ".join(ends)] if len(span) > 2 else [known[place] for place in span]
        thing = " of the labels" if share else " labelled cases" if words != ["1"] else " labelled case"
        return f"with {_listed(words)}{thing if named else ''}, "

    def _level(self, rows: Sequence[Judged], full: bool) -> str:
        """``p ≤ 0.02, Holm over 5 label counts, 10 seeds``."""
        largest = max(row.holm for row in rows if row.holm is not None)
        equal = len({row.holm for row in rows}) == 1
        p = f"p = {largest:.3g}" if equal else f"p ≤ {_ceil(largest)}"
        p = p if largest >= 1e-4 else "p < 0.0001"
        return f"{p}, {self._basis(rows)}" if full else p

    def _basis(self, rows: Sequence[Judged]) -> str:
        """Over how many rows p is corrected, and how many seeds there are."""
        of_task = [row for row in self.of.rows if row.task == rows[0].task]
        lengths = {row.steps for row in of_task}
        things = (
            "label counts"
            if len(lengths) == 1
            else "numbers of steps"
            if len(of_task) == len(lengths)
            else "rows"
        )
        seeds = sorted({row.n for row in rows})
        told = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        parts = [f"Holm over {rows[0].family} {things}"] if rows[0].family > 1 else []
        return ", ".join([*parts, f"{told} seed{'s' * (told != '1')}"])

    def _could_see(self, rows: Sequence[Judged]) -> str:
        """Where nothing is shown: the gain that so many seeds would have seen, or that they were too few."""
        quiet = [row for row in rows if self._direction(row) == 0]
        if not quiet:
            return ""
        how, family = self.of.how, quiet[0].family
        swapped = "permutation" if self.of.paired else "permutation-independent"
        test = swapped if self.name in ("steps_to_90", "worst_seed") else how.test
        fewest = max(_smallest_p(test, how.alternative, row.n) * row.family for row in quiet)
        if fewest > how.alpha:
            return (
                f"With {min(row.n for row in quiet)} seeds this test can't show anything: its smallest p is "
                f"{min(1.0, fewest):.2g}{' after Holm' if family > 1 else ''}."
            )
        seen = [self._detectable(row) for row in quiet if row.sd]
        if not seen:
            return ""
        percent = all(row.percent for row in quiet)
        if percent and min(seen) > 1:
            return "There, so few seeds would have seen no difference at all with power 0.8."
        seen = [min(one, 1.0) for one in seen] if percent else seen
        shown = " to ".join(dict.fromkeys(_amount(one, percent=percent) for one in (min(seen), max(seen))))
        unit = " points" if percent else ""
        return f"There, a true difference of {shown}{unit} would have been seen with power 0.8."

    def _detectable(self, row: Judged) -> float:
        """By a t-test at the strictest level that Holm may ask for."""
        assert row.sd is not None
        sided = self.of.how.alternative == "two-sided"
        return detectable_difference(
            row.sd, row.n, alpha=self.of.how.alpha / row.family, paired=self.of.paired, two_sided=sided
        )


def _basis(endpoints: Sequence[Endpoint]) -> str:
    """Which tests there were, and what they don't say."""
    tests: dict[str, list[str]] = {}
    for endpoint in endpoints:
        tests.setdefault(endpoint.test, []).append(endpoint.name)
    told = "; ".join(f"{', '.join(names)}: {test}" for test, names in tests.items())
    seeds = (
        "seeds are runs on the same test patients"
        if all(endpoint.same_cases for endpoint in endpoints)
        else "test patients are not the same in all runs"
    )
    return f"Tests: {told}. Corrected within an endpoint and a task, not across them; {seeds}."


def _smallest_p(test: str, alternative: str, n: int) -> float:
    """The smallest p that a test by permutation or ranks can give; 0 for a t-test."""
    ways = {
        "wilcoxon": 2.0**n,
        "permutation": 2.0**n,
        "permutation-independent": float(math.comb(2 * n, n)),
    }.get(test, math.inf)
    return (2 if alternative == "two-sided" else 1) / ways


def _noun(metric: str) -> str:
    """``dice_mean`` as ``Dice``, ``dice_liver`` as ``Dice liver``."""
    title = metric_title(metric)
    return title.removesuffix(" mean") or title


def _amount(value: float, *, percent: bool, signed: bool = False) -> str:
    text = f"{100 * abs(value):.1f}" if percent else format_number(abs(value), percent=False)
    return ("−" if value < 0 else "+" if value > 0 else "") * signed + text


def _round_p(p: float, how: Callable[[float], int]) -> str:
    """Two significant digits, to the side that claims less."""
    if p <= 0:
        return "0"
    digits = 1 - math.floor(math.log10(p))
    rounded = how(round(p * 10**digits, 6)) / 10**digits
    return f"{rounded:.{max(digits, 0)}f}".rstrip("0").rstrip(".")


def _ceil(p: float) -> str:
    return _round_p(p, math.ceil)


def _floor(p: float) -> str:
    return _round_p(p, math.floor)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
