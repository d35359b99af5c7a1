"""Plain rows, one value a run, made into a results table: its cells, differences and notes."""

from __future__ import annotations

import math
import statistics as plain_statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from parts2whole.evaluation import statistics
from parts2whole.report.alike import Alike
from parts2whole.report.marks import How, TableError, Varied
from parts2whole.report.tables import (
    BEST_OTHER,
    Cell,
    Difference,
    Row,
    Table,
    describe_margin,
    higher_is_better,
    is_scratch,
    metric_title,
    sort_arms,
)


class _Key(NamedTuple):
    """What one row is about; the number of labels tells rows apart that have no fraction."""

    task: str
    metric: str
    fraction: float | None
    labels: int
    steps: int | None


_Place = tuple[_Key, str, Any]
"""What a value is about, its arm and its seed."""


def make_table(
    rows: Iterable[Mapping[str, Any]],
    *,
    metric: str | None = None,
    arms: Sequence[str] | None = None,
    focus: str | None = None,
    against: str | None = None,
    test: str = "paired",
    alternative: str = "two-sided",
    alpha: float = 0.05,
    margin: float | None = None,
) -> Table:
    """Summarise one value per task, label fraction, arm and seed.

    Args:
        rows: mappings with ``task``, ``arm``, ``seed``, ``value``, and optionally ``metric``, ``fraction``,
            ``labelled`` (number of labels), ``steps`` (where several tell rows apart), ``subset``
            (which cases), ``weights`` (initial ones), ``run`` (what to call it), ``settings`` (what it was
            made with) and ``cases`` (in how many test cases a distance is defined, and in how many it should
            be). A value that is nan is undefined: it is named under the table and left out.
        metric: keep rows of this metric only; default: the main one of each task, if rows say which that is
            (``main``), else all.
        arms: order of the columns; default `sort_arms`.
        focus: arm of interest; default: the first that is called like Parts2Whole, else the last.
        against: arm it is compared with; default: scratch, and the best of the others row by row.
        test: ``paired`` (by seed) or another test of `parts2whole.evaluation.statistics.compare`.
        alternative: ``greater`` asks whether the first arm is better, ``two-sided`` whether they differ,
            ``observed`` whether the arm with the better mean is better: the poster's p-values, half of
            two-sided ones.
        alpha: level of the marks.
        margin: mark as equivalent to the best what differs by less than this, in the unit of the values,
            by two one-sided t-tests; default: whatever the test does not tell from the best.

    Raises:
        TableError: no rows, a name that isn't an arm or a test, two values for one cell and seed, or a margin
            that no difference of shares can be beyond.

    With a paired test, the means of a row are over the seeds that all its arms have, as its differences are;
    what is missing is named.
    """
    found = _Gathered()
    for row in rows:
        if row.get("metric") == metric if metric is not None else row.get("main", True):
            found.add(row)
    defined, undefined = found.defined(), found.undefined()
    if not any(defined.values()):
        about = f" for metric {metric!r}" if metric else ""
        why = f"; it is undefined in all of {len(undefined)} runs" if undefined else ""
        raise TableError(f"no results to make a table of{about}{why}")
    there = {arm for group in found.groups.values() for arm in group}
    arms = sort_arms(there) if arms is None else tuple(arm for arm in arms if arm in there)
    focus = _focus(arms, focus, against)
    rivals = _rivals(arms, focus, against)
    how = How(test, alternative, alpha, margin)
    order = sorted(defined, key=lambda k: (k.task, k.metric, k.fraction or 0, k.labels, k.steps or 0))
    defined = {key: defined[key] for key in order if defined[key]}
    shared = {key: _shared(group, how) for key, group in defined.items()}
    made = {
        key: _row(key, shared[key] or group, found.labelled[key], arms, focus, rivals, how)
        for key, group in defined.items()
    }
    how.check_margin(row.percent for row in made.values())
    titles = {key: f"{key.task}, {metric_title(key.metric)}" for key in order}
    titles |= {key: f"{titles[key]}, {row.labels}" for key, row in made.items()}
    notes = (
        *_notes(tuple(made.values()), focus, rivals, how),
        *_name_undefined(undefined, titles),
        *_name_missing(defined, shared, titles, how),
        *_name_lacking(made, found.counted, titles),
        *found.alike.describe(titles, arms),
        found.varied.describe(),
    )
    rows_made, alike = tuple(made.values()), found.varied.same_cases
    return Table(arms, rows_made, focus, rivals, test, alternative, alpha, notes, margin, alike)


@dataclass
class _Gathered:
    """What rows say, by what they are about, arm and seed.

    Attributes:
        groups: values, nan where they are undefined.
        labelled: numbers of labels.
        runs: what runs are called.
        counted: of a distance, in how many cases it is defined and in how many it should be.
        varied: what changes from seed to seed.
        alike: what runs were made with.
    """

    groups: dict[_Key, dict[str, dict[Any, float]]] = field(default_factory=dict)
    labelled: dict[_Key, list[int]] = field(default_factory=dict)
    runs: dict[_Place, str] = field(default_factory=dict)
    counted: dict[_Place, tuple[int, int]] = field(default_factory=dict)
    varied: Varied = field(default_factory=Varied)
    alike: Alike = field(default_factory=Alike)

    def add(self, row: Mapping[str, Any]) -> None:
        """Note a row.

        Raises:
            TableError: there is one of the same arm and seed.
        """
        fraction, count = row.get("fraction"), int(row.get("labelled") or 0)
        task, measured, steps = str(row["task"]), str(row.get("metric", "")), row.get("steps")
        key = _Key(task, measured, fraction, count if fraction is None else 0, steps)
        arm, seed, run = str(row["arm"]), row["seed"], str(row.get("run") or "")
        place = key, arm, seed
        if place in self.runs:
            named = ", ".join(filter(None, (self.runs[place], run)))
            raise TableError(
                f"two values of {key.metric} for {key.task}, {arm}, seed {seed}: the same cell was run twice"
                f"{f' ({named})' if named else ''}; keep one of the runs"
            )
        self.groups.setdefault(key, {}).setdefault(arm, {})[seed] = float(row["value"])
        self.runs[place] = run
        if row.get("cases"):
            self.counted[place] = row["cases"]
        self.varied.add((*key, arm), row)
        self.alike.add(key, arm, seed, row.get("settings"))
        self.labelled.setdefault(key, []).append(count)

    def defined(self) -> dict[_Key, dict[str, dict[Any, float]]]:
        """The values that there are, without arms that have none."""
        return {
            key: {
                arm: kept
                for arm, seeds in group.items()
                if (kept := {seed: value for seed, value in seeds.items() if not math.isnan(value)})
            }
            for key, group in self.groups.items()
        }

    def undefined(self) -> dict[_Place, str]:
        """Names of runs without a value."""
        return {
            (key, arm, seed): name
            for (key, arm, seed), name in self.runs.items()
            if math.isnan(self.groups[key][arm][seed])
        }


def _focus(arms: Sequence[str], focus: str | None, against: str | None) -> str | None:
    """The arm of interest.

    Raises:
        TableError: it, or what it is compared with, isn't among the arms.
    """
    for name in (focus, against):
        if name is not None and name not in arms:
            raise TableError(f"{name!r} is not an arm; there are {', '.join(arms)}")
    if focus is None and len(arms) > 1:
        others = [arm for arm in arms if not is_scratch(arm)] or arms
        return next((arm for arm in arms if "parts2whole" in arm.lower()), others[-1])
    return focus


def _rivals(arms: Sequence[str], focus: str | None, against: str | None) -> tuple[str, ...]:
    """What the arm of interest is compared with."""
    others = [arm for arm in arms if arm != focus]
    if focus is None or not others:
        return ()
    if against is not None:
        return (against,) if against != focus else ()
    scratch = [arm for arm in others if is_scratch(arm)]
    return (others[0],) if len(others) == 1 else (*scratch, BEST_OTHER)


def _row(
    key: _Key,
    group: Mapping[str, Mapping[Any, float]],
    labelled: Sequence[int],
    arms: Sequence[str],
    focus: str | None,
    rivals: Sequence[str],
    how: How,
) -> Row:
    sign = 1 if higher_is_better(key.metric) else -1
    plain = {arm: Cell(arm, dict(group[arm])) for arm in arms if arm in group}
    ranked = sorted(plain.values(), key=lambda cell: -sign * cell.mean)
    best = ranked[0]
    cells = {arm: cell if len(plain) == 1 else _marked(cell, best, sign, how) for arm, cell in plain.items()}
    differences = {}
    for rival in rivals:
        others = [cell for cell in ranked if cell.arm != focus and rival in (BEST_OTHER, cell.arm)]
        difference = _difference(plain[focus], others[0], sign, how) if focus in plain and others else None
        if difference is not None:
            differences[rival] = difference
    values = [value for seeds in group.values() for value in seeds.values()]
    percent = sign > 0 and all(0 <= value <= 1 for value in values)
    counts = (min(labelled), max(labelled))
    return Row(key.task, key.metric, key.fraction, counts, cells, differences, percent, key.steps)


def _marked(cell: Cell, best: Cell, sign: int, how: How) -> Cell:
    if math.isclose(cell.mean, best.mean, rel_tol=1e-12):  # of equals none is better
        return Cell(cell.arm, cell.values, best=True)
    result = how.compare(best.values, cell.values, sign)
    if result is not None and result.side * sign < 0:  # by ranks it is ahead of what has the best mean
        return Cell(cell.arm, cell.values, equivalent=True)
    p = None if result is None else result.p
    return Cell(cell.arm, cell.values, p_best=p, equivalent=how.equivalent(best.values, cell.values, p))


def _difference(focus: Cell, rival: Cell, sign: int, how: How) -> Difference | None:
    first, second = how.samples(focus.values, rival.values)
    if not first or not second:
        return None
    result = how.compare(focus.values, rival.values, sign)
    pairs = [a - b for a, b in zip(first, second, strict=False)] if how.paired else []
    return Difference(
        against=rival.arm,
        n=len(first),
        difference=plain_statistics.fmean(first) - plain_statistics.fmean(second),
        sd=plain_statistics.stdev(pairs) if len(pairs) > 1 else None,
        p=None if result is None else result.p,
        description="could not be tested" if result is None else result.describe(),
        side=0 if result is None else result.side,
    )


def _notes(rows: Sequence[Row], focus: str | None, rivals: Sequence[str], how: How) -> tuple[str, ...]:
    """What must be known to read the table: n, test, sidedness, alpha, and what it does not show."""
    n = _range([cell.n for row in rows for cell in row.cells.values()])
    notes = [f"Mean ± standard deviation over seeds, n = {n} per cell."]
    if focus is None or all(len(row.cells) == 1 for row in rows):
        return (*notes, "One arm only: nothing to test against.")
    if how.margin is None:
        mark = f"not told from the best ({how.words}; p > α), which is no proof that they are equal"
    else:
        within = describe_margin(how.margin, [row.percent for row in rows])
        mark = f"equivalent to the best within {within} ({how.words_of_margin})"
    notes.append(f"Bold: best mean of its row. Marked ≈: {mark}.")
    differences = [difference for row in rows for difference in row.differences.values()]
    if differences:
        unit = "pairs of equal seed" if how.paired else "seeds per arm"
        against = " and ".join(rivals)
        n = _range([difference.n for difference in differences])
        notes.append(f"Difference and p: {focus} minus {against} ({how.words}; n = {n} {unit}).")
    # The best other may be a rival by name, and the same test is one comparison.
    pairs = {(place, d.against): d.p for place, row in enumerate(rows) for d in row.differences.values()}
    tested = [p for p in pairs.values() if p is not None]
    if len(tested) > 1:
        left = sum(p <= how.alpha for p in statistics.holm(tested))
        notes.append(
            f"p-values are not corrected for these {len(tested)} comparisons; with Holm's correction, "
            f"{left or 'none'} of them {'stays' if left == 1 else 'stay'} at or below α."
        )
    if len(tested) < len(pairs):
        notes.append("No p-value where fewer than two seeds can be compared, or nothing varies.")
    return tuple(notes)


def _shared(group: Mapping[str, Mapping[Any, float]], how: How) -> dict[str, dict[Any, float]]:
    """A row's values of the seeds that all its arms have; nothing without any, or where none are paired."""
    seeds = [seed for seed in next(iter(group.values())) if all(seed in values for values in group.values())]
    return {
        arm: {seed: values[seed] for seed in seeds} for arm, values in group.items() if how.paired and seeds
    }


def _name_undefined(undefined: Mapping[_Place, str], titles: Mapping[_Key, str]) -> list[str]:
    """Which runs have no figure, row by row."""
    named: dict[_Key, list[str]] = {}
    for (key, arm, seed), run in undefined.items():
        named.setdefault(key, []).append(f"{arm} seed {seed}" + (f" ({run})" if run else ""))
    return [f"Undefined, and left out: {titles[key]}, {', '.join(runs)}." for key, runs in named.items()]


def _name_missing(
    groups: Mapping[_Key, Mapping[str, Mapping[Any, float]]],
    shared: Mapping[_Key, Mapping[str, Mapping[Any, float]]],
    titles: Mapping[_Key, str],
    how: How,
) -> list[str]:
    """Which seeds an arm lacks that others have, and what means are over; rows alike are told together."""
    said: dict[str, list[str]] = {}
    for key, group in groups.items():
        seeds = dict.fromkeys(seed for values in group.values() for seed in values)
        lacking = {arm: [seed for seed in seeds if seed not in values] for arm, values in group.items()}
        told = [f"{arm} has no {_seeds(absent)}" for arm, absent in lacking.items() if absent]
        if not told:
            continue
        if shared[key]:
            over = f"means and differences are over {_seeds(next(iter(shared[key].values())))}"
        elif how.paired:
            over = "no seed is in all arms, so means are over an arm's own seeds and differences over pairs"
        else:
            over = "means are over an arm's own seeds"
        said.setdefault(f"{', '.join(told)}: {over}", []).append(titles[key])
    return [f"Missing: {'; '.join(rows)}, {text}." for text, rows in said.items()]


def _name_lacking(
    rows: Mapping[_Key, Row], counted: Mapping[_Place, tuple[int, int]], titles: Mapping[_Key, str]
) -> list[str]:
    """In how many test cases an arm's distances are defined, where these are not all."""
    said = []
    for key, row in rows.items():
        over = {
            arm: [counted[key, arm, seed] for seed in cell.values if (key, arm, seed) in counted]
            for arm, cell in row.cells.items()
        }
        sums = {arm: tuple(map(sum, zip(*found, strict=True))) for arm, found in over.items() if found}
        if any(known < all_ for known, all_ in sums.values()):
            told = [f"{arm} {known} of {all_}" for arm, (known, all_) in sums.items()]
            said.append(f"{titles[key]}, {', '.join(told)}")
    if not said:
        return []
    return [
        "A distance is undefined where one of two masks is empty, and left out of means, so an arm that "
        f"misses more may look better; test cases of all seeds in which none is undefined: {'; '.join(said)}."
    ]


def _seeds(seeds: Iterable[Any]) -> str:
    """``seed 1`` or ``seeds 1, 2``."""
    named = [str(seed) for seed in seeds]
    return f"seed{'s' * (len(named) > 1)} {', '.join(named)}"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"
