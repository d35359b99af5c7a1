"""A study drawn: every seed of every arm with lines between pairs, and curves over labels and steps.

Figures are plain data that the page's script draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parts2whole.evaluation.endpoints import mean_interval
from parts2whole.report.endpoints import ENDPOINTS, Endpoint, Judged, late_words
from parts2whole.report.formats import format_number, format_p, format_share
from parts2whole.report.results import (
    arm_names,
    finished_finetunings,
    has_labels_of,
    task_names,
    told_steps,
)
from parts2whole.report.runs import Plain, Run, as_number
from parts2whole.report.sections import encode
from parts2whole.report.tables import Row, Table, arm_colours, metric_title
from parts2whole.scans.source import safe_name

GROUP = 0.8
"""Of the distance between numbers of labels, what the arms take up side by side."""
MOST_COLUMNS = 20
"""With more dots side by side a figure takes the whole width."""
MOST_PAIRS = 4
"""Of test cases side by side, that a page shows."""
PICTURE_BYTES = 700_000


def study_figures(table: Table, reference: str | None) -> list[Plain]:
    """What is drawn of a study's main results, task by task.

    Args:
        table: of the main metrics.
        reference: the arm that pairs of equal seed are drawn with.

    Returns:
        Mappings with ``title``, ``value`` and ``percent`` of the vertical axis, ``x``, ``ticks`` (place and
        text) and ``range`` of the horizontal one, ``wide``, colours of ``arms``, ``lines`` (means, and
        intervals as ``band``), ``dots`` (one a seed and arm), ``means``, ``pairs`` and the arms ``compared``.
    """
    made = []
    for task, metric in dict.fromkeys((row.task, row.metric) for row in table.rows):
        rows = [row for row in table.rows if (row.task, row.metric) == (task, metric)]
        counts = list(dict.fromkeys((row.fraction, row.labelled) for row in rows))
        by_steps = {
            steps: [r for r in rows if r.steps == steps] for steps in dict.fromkeys(r.steps for r in rows)
        }
        after = {steps: "" if steps is None else f", {steps} steps" for steps in by_steps}
        for steps, members in by_steps.items():
            made.append(_dots(members, table, reference, f"{task}{after[steps]}: seed by seed"))
        for steps, members in by_steps.items() if len(counts) > 1 else ():
            made.append(_curve(members, table, f"{task}{after[steps]}: over labels", "labels"))
        for count in counts if len(by_steps) > 1 else ():
            members = [row for row in rows if (row.fraction, row.labelled) == count]
            labels = members[0].labels.partition(",")[0]
            made.append(_curve(members, table, f"{task}, {labels}: over steps", "steps"))
    return [figure | {"compared": [reference, table.focus]} for figure in made]


def _dots(rows: Sequence[Row], table: Table, reference: str | None, title: str) -> Plain:
    """A group a number of labels, the reference and the arm of interest side by side."""
    first = [arm for arm in (reference, table.focus) if arm in table.arms]
    arms = [str(arm) for arm in (*first, *(arm for arm in table.arms if arm not in first))]
    width = GROUP / len(arms)
    half = min(width / 3, 0.06 * len(rows))
    place = {arm: (i - (len(arms) - 1) / 2) * width for i, arm in enumerate(arms)}
    dots, means, pairs = [], [], []
    for group, row in enumerate(rows):
        cells = row.cells
        for arm in arms:
            if arm in cells:
                x = group + place[arm]
                found = [[x, value, f"seed {seed}"] for seed, value in cells[arm].values.items()]
                dots.append({"arm": arm, "points": found})
                ends = [[x - half, cells[arm].mean], [x + half, cells[arm].mean]]
                means.append({"arm": arm, "points": ends})
        if len(first) == 2 and set(first) <= set(cells):
            a, b = (str(arm) for arm in first)
            both = [seed for seed in cells[a].values if seed in cells[b].values]
            pairs += [
                [[group + place[a], cells[a].values[seed]], [group + place[b], cells[b].values[seed]]]
                for seed in both
            ]
    ticks = [[group, _count(row)] for group, row in enumerate(rows)]
    drawn = {"dots": dots, "means": means, "pairs": pairs, "ticks": ticks, "range": [-0.5, len(rows) - 0.5]}
    return _figure(rows, table, title, _unit(rows)) | drawn | {"wide": len(rows) * len(arms) > MOST_COLUMNS}


def _curve(rows: Sequence[Row], table: Table, title: str, over: str) -> Plain:
    """Means over seeds with bootstrap intervals, over the logarithm of the number of labels or steps."""
    xs = [math.log(max(1, row.steps or 0 if over == "steps" else sum(row.labelled) / 2)) for row in rows]
    lines = []
    for arm in table.arms:
        there = [(x, row.cells[arm]) for x, row in zip(xs, rows, strict=True) if arm in row.cells]
        spans = [(x, mean_interval(list(cell.values.values()))) for x, cell in there]
        band = [[x, *span] for x, span in spans if span is not None]
        lines.append({"arm": arm, "points": [[x, cell.mean] for x, cell in there], "band": band})
    texts = [str(row.steps) if over == "steps" else _count(row) for row in rows]
    room = 0.06 * (max(xs) - min(xs)) or 0.5
    ticks = [[x, text] for x, text in zip(xs, texts, strict=True)]
    drawn = {"lines": lines, "ticks": ticks, "range": [min(xs) - room, max(xs) + room]}
    return _figure(rows, table, title, "steps" if over == "steps" else _unit(rows)) | drawn


def _figure(rows: Sequence[Row], table: Table, title: str, x: str) -> Plain:
    colours = arm_colours(table.arms)
    return {
        "title": title,
        "value": metric_title(rows[0].metric),
        "percent": all(row.percent for row in rows),
        "x": x,
        "wide": False,
        "arms": {arm: colours[arm] for arm in table.arms},
        "lines": [],
        "dots": [],
        "means": [],
        "pairs": [],
    }


def _count(row: Row) -> str:
    return f"{100 * row.fraction:.3g} %" if row.fraction is not None else str(row.labelled[0] or "all")


def _unit(rows: Sequence[Row]) -> str:
    return "of the labels" if all(row.fraction is not None for row in rows) else "labelled cases"


def endpoint_rows(endpoints: Sequence[Endpoint]) -> list[Plain]:
    """The page's table of endpoints: a line for each row, in words.

    Returns:
        Mappings with ``endpoint``, ``about`` (task and labels), ``focus``, ``reference``, ``effect``, ``p``,
        ``holm``, ``told`` (whether arms are told apart) and ``late``.
    """
    made = []
    for endpoint in endpoints:
        several = len({row.task for row in endpoint.rows}) > 1
        for row in endpoint.rows:
            figures = [
                _shown(endpoint, row, row.figures.get(a)) for a in (endpoint.focus, endpoint.reference)
            ]
            made.append(
                {
                    "endpoint": ENDPOINTS[endpoint.name],
                    "about": f"{row.task}, {row.labels}" if several else row.labels,
                    "focus": figures[0],
                    "reference": figures[1],
                    "effect": _effect(endpoint, row),
                    "p": format_p(row.p),
                    "holm": format_p(row.holm),
                    "told": row.holm is not None and row.holm <= endpoint.how.alpha,
                    "late": late_words(endpoint),
                }
            )
    return made


def rank_rows(endpoints: Sequence[Endpoint]) -> list[Plain]:
    """The page's table of ranks: endpoint, arm, mean rank with its interval, and how often it is first."""
    return [
        {
            "endpoint": ENDPOINTS[endpoint.name],
            "arm": arm,
            "rank": f"{rank.rank:.2f}",
            "interval": f"{rank.interval[0]:.2f} to {rank.interval[1]:.2f}",
            "first": rank.first,
            "share": format_share(rank.first),
        }
        for endpoint in endpoints
        for arm, rank in sorted(endpoint.ranks.items(), key=lambda pair: pair[1].rank)
    ]


def _effect(endpoint: Endpoint, row: Judged) -> str:
    if row.effect is None:
        return row.why or "–"
    if endpoint.name == "spread":
        told = f" ({row.interval[0]:.2g} to {row.interval[1]:.2g})" if row.interval else ""
        return f"× {row.effect:.2g}{told}"
    sign = "+" if row.effect > 0 else "−" if row.effect < 0 else ""
    never = sum(row.censored.get(arm, 0) for arm in (endpoint.focus, endpoint.reference))
    return f"{sign}{_shown(endpoint, row, abs(row.effect))}" + (f" ({never} never)" if never else "")


def _shown(endpoint: Endpoint, row: Judged, figure: float | None) -> str:
    if figure is None:
        return "–"
    whole = endpoint.name == "steps_to_90"
    return f"{figure:.0f}" if whole else format_number(figure, percent=row.percent)


def show_pairs(runs: Sequence[Run], table: Table, reference: str | None) -> list[Plain]:
    """The same test case in the reference and in the arm of interest, side by side, one pair a task.

    Of the pairs of equal seed at the fewest labels it is the case whose difference is nearest to the median
    of all, among those that both runs have kept a picture of.

    Returns:
        Mappings with ``caption`` and ``sides``, of which each has ``arm`` and ``src``.
    """
    done = finished_finetunings(runs)
    arms, tasks, lengths = arm_names(done), task_names(done), told_steps(done)
    made: list[Plain] = []
    for task in dict.fromkeys(row.task for row in table.rows):
        row = next(row for row in table.rows if row.task == task)
        sides: dict[str, dict[Any, Run]] = {str(reference): {}, str(table.focus): {}}
        for run in done:
            of_row = (tasks[run.folder], lengths[run.folder]) == (task, row.steps)
            if of_row and has_labels_of(run, row):
                sides.get(arms[run.folder], {})[run.result.get("seed", 0)] = run
        found = _median_pair(sides[str(reference)], sides[str(table.focus)], row.metric)
        if found is not None:
            made.append(_told_pair(found, row, (str(reference), str(table.focus))))
    return made


@dataclass(frozen=True)
class _Pair:
    """A test case in two runs of equal seed.

    Attributes:
        seed: of both.
        case: its name.
        scores: in the reference and in the arm of interest.
        pictures: of both.
        median: of the differences of all pairs.
        pairs: how many these are.
        kept: of how many both runs have a picture.
    """

    seed: Any
    case: str
    scores: tuple[float, float]
    pictures: tuple[Path, Path]
    median: float
    pairs: int
    kept: int


def _median_pair(reference: Mapping[Any, Run], focus: Mapping[Any, Run], metric: str) -> _Pair | None:
    """The case and seed whose difference is nearest to the median of all, where both have a picture of it."""
    differences: list[float] = []
    kept: list[tuple[Any, str, tuple[float, float], tuple[Path, Path]]] = []
    for seed in [seed for seed in reference if seed in focus]:
        runs = reference[seed], focus[seed]
        scores = [_scores(run, metric) for run in runs]
        for case in [case for case in scores[0] if case in scores[1]]:
            pair = scores[0][case], scores[1][case]
            differences.append(pair[1] - pair[0])
            pictures = [_picture(run, case) for run in runs]
            if pictures[0] is not None and pictures[1] is not None:
                kept.append((seed, case, pair, (pictures[0], pictures[1])))
    if not kept:
        return None
    median = float(np.median(differences))
    nearest = min(kept, key=lambda one: abs(one[2][1] - one[2][0] - median))
    return _Pair(*nearest, median, len(differences), len(kept))


def _scores(run: Run, metric: str) -> dict[str, float]:
    found = {row["case"]: as_number(row.get(metric)) for row in run.cases}
    return {case: score for case, score in found.items() if score is not None}


def _picture(run: Run, case: str) -> Path | None:
    """A picture that a run kept of a test case, if it isn't too large for the page."""
    names = {f"test-{which}-{safe_name(case)}.png" for which in ("worst", "median", "best", "shared")}
    there = [path for path in run.pictures if path.name in names]
    return there[0] if there and there[0].stat().st_size <= PICTURE_BYTES else None


def _told_pair(pair: _Pair, row: Row, arms: tuple[str, str]) -> Plain:
    shown = [
        f"{format_number(s, percent=row.percent)} from {a}" for s, a in zip(pair.scores, arms, strict=True)
    ]
    scale, unit = (100.0, " points") if row.percent else (1.0, "")
    difference = pair.scores[1] - pair.scores[0]
    told = [f"{scale * value:+.2f}".replace("-", "−") for value in (difference, pair.median)]
    return {
        "caption": (
            f"{row.task}, {row.labels}, seed {pair.seed}, test case {pair.case}: "
            f"{metric_title(row.metric)} {', '.join(shown)}, a difference of {told[0]}{unit}. "
            f"It is the one nearest to {told[1]}, the median over {pair.pairs} pairs of equal seed and test "
            f"case, among {pair.kept} of which both runs kept a picture."
        ),
        "sides": [
            {"arm": arm, "src": "data:image/png;base64," + encode(path.read_bytes())}
            for arm, path in zip(arms, pair.pictures, strict=True)
        ],
    }
