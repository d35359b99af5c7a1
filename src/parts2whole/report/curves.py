"""What the page's charts show: series of points, drawn by the page itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from parts2whole.report.results import arm_names, main_metric, task_names, told_steps
from parts2whole.report.runs import Run, as_number
from parts2whole.report.summary import BASELINES, GUESSING
from parts2whole.report.tables import arm_colours, higher_is_better, metric_title

Role = Literal["main", "faint", "baseline"]

POINTS = 60_000
"""Points in all charts of a page together."""
MOST_CHARTS = 12
"""Of one kind, that a page shows."""
MOST_LINES = 6
"""Of a metric, in one chart."""
MONITORED = frozenset(
    (
        *("info_nce_0.1", "info_nce_0.5", "info_nce_chance", "which_whole", "which_whole_chance"),
        *("distance_within", "distance_between", "alignment", "uniformity", "effective_rank"),
    )
)
"""What the contrast monitor records, of the bottleneck map as ``map_...``; `contrast` draws it."""
NAMES = {
    "baseline_mean_whole": "mean whole",
    "baseline_stretched_part": "what the network sees",
    GUESSING: "guessing",
    "map_spread": "spread of the bottleneck map",
    "output_spread": "spread of the output",
    "lr": "learning rate",
    "samples_per_s": "samples per second",
}


@dataclass(frozen=True)
class Series:
    """A line of a chart: ``main`` is drawn boldly, ``faint`` thinly, ``baseline`` dashed.

    Colours repeat after eight numbers, in another stroke.

    Lines with ``right`` have an axis of their own, on the right.
    """

    name: str
    points: Sequence[tuple[int, float]]
    role: Role = "main"
    colour: int = 0
    right: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over training steps.

    Attributes:
        title: heading.
        value: what the y axis shows.
        series: lines.
        percent: values are shares, shown as percentages.
        wide: takes the whole width of the page.
        group: the section it stands in; default by its width.
        from_zero: the axis of values begins at zero, where they are positive.
    """

    title: str
    value: str
    series: tuple[Series, ...]
    percent: bool = False
    wide: bool = False
    group: str = ""
    from_zero: bool = True

    def to_plain(self, most: int = 400) -> dict[str, Any]:
        """The chart as the page's script reads it, with at most ``most`` points a line."""
        most = max(30, min(most, POINTS // max(1, len(self.series)) // 2))
        return {
            "title": self.title,
            "value": self.value,
            "percent": self.percent,
            "wide": self.wide,
            "from_zero": self.from_zero,
            "group": self.group or ("main" if self.wide else "more"),
            "series": [
                {
                    "name": series.name,
                    "role": series.role,
                    "colour": series.colour,
                    "right": series.right,
                    "points": [[step, float(f"{value:.6g}")] for step, value in thin(series.points, most)],
                }
                for series in self.series
            ],
        }


def thin(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most ``most`` points: means over equal stretches, but the last point as it is."""
    if len(points) <= most:
        return list(points)
    size = -(-(len(points) - 1) // (most - 1))
    groups = [points[i : min(i + size, len(points) - 1)] for i in range(0, len(points) - 1, size)]
    means = [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
    return [*means, points[-1]]


def mean_of(lines: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    """The mean of several lines, at the steps that all of them have."""
    tables = [dict(line) for line in lines]
    common = sorted(set(tables[0]).intersection(*tables))
    return [(step, sum(table[step] for table in tables) / len(tables)) for step in common]


def run_charts(run: Run) -> list[Chart]:
    """The charts of one run: its loss beside the baselines, then everything else it recorded."""
    lines = [
        Series("training", run.errors("train"), "faint", 1),
        Series("validation", run.errors("validation"), "main", 0),
    ]
    for place, name in enumerate(BASELINES):
        lines.append(Series(NAMES[name], run.series("validation", name), "baseline", 8 + place % 2))
    kept = tuple(series for series in lines if series.points)
    charts = []
    if kept:
        trivial = any(series.role == "baseline" for series in kept)
        title = "Loss beside the trivial baselines" if trivial else "Loss"
        squared = trivial and not run.series("validation", GUESSING)
        charts.append(Chart(title, "mean squared error" if squared else "loss", kept, wide=True))
    names = run.metrics("validation")
    shown = "reconstruction" if "reconstruction" in names else "loss"
    if run.kind == "finetune" and (
        metric := main_metric([name for name in names if name != "loss"], run.result.get("monitor"))
    ):
        family = metric.split("_")[0]
        of = [metric, *(name for name in names if name.startswith(f"{family}_") and name != metric)]
        charts.insert(0, _metric_chart(run, metric_title(family), of))
        names = [name for name in names if name not in of]
    for split, found in (("validation", names), ("train", run.metrics("train"))):
        for name in found:
            if name == shown or name in BASELINES or name.removeprefix("map_") in MONITORED:
                continue
            title = NAMES.get(name, metric_title(name))
            where = "" if name in NAMES else f", {split}"
            points = run.series(split, name)
            charts.append(Chart(f"{title[:1].upper()}{title[1:]}{where}", title, (Series(title, points),)))
    return charts


def _metric_chart(run: Run, title: str, names: Sequence[str]) -> Chart:
    """A metric over steps: first its mean, then its classes; of many those that end worst."""
    mean, *classes = names
    sign = 1 if higher_is_better(mean) else -1
    last = {name: sign * (run.last("validation", name) or 0.0) for name in classes}
    worst = sorted(classes, key=last.__getitem__)[: MOST_LINES - 1]
    series = [
        Series(metric_title(name), run.series("validation", name), "main", place)
        for place, name in enumerate((mean, *(name for name in classes if name in worst)))
    ]
    of = f": mean and the worst {len(worst)} of {len(classes)} classes" if len(worst) < len(classes) else ""
    return Chart(f"On the validation cases{of}", title, tuple(series), _share(mean, series), True)


def overlay_charts(runs: Sequence[Run], names: Mapping[Path, str]) -> list[Chart]:
    """Validation losses of several pre-training runs; runs without baselines have another kind of loss."""
    charts = []
    for rebuilds in (True, False):
        chosen = [run for run in runs if bool(run.series("validation", "baseline_mean_whole")) == rebuilds]
        lines = [
            Series(names[run.folder], run.errors("validation"), "main", runs.index(run)) for run in chosen
        ]
        lines = [series for series in lines if series.points]
        if not lines:
            continue
        if rebuilds:
            # Baselines depend on the validation wholes: draw them only where all runs share them.
            for place, name in enumerate(name for name in BASELINES if name != GUESSING):
                values = {
                    round(value, 9) for run in chosen for _, value in run.series("validation", name)[-1:]
                }
                if len(values) == 1:
                    longest = max((run.series("validation", name) for run in chosen), key=len)
                    lines.append(Series(NAMES[name], longest, "baseline", 8 + place))
        title = "Validation loss of pre-training" + ("" if rebuilds else ", methods that rebuild nothing")
        charts.append(Chart(title, "mean squared error" if rebuilds else "loss", tuple(lines), wide=True))
    return charts


def comparison_charts(runs: Sequence[Run]) -> list[Chart]:
    """The main validation metric of fine-tuning runs, a chart per task and number of labels.

    Every arm has a bold line, the mean over its seeds, and a faint one for each seed.
    """
    done = [run for run in runs if run.finished]
    arms, tasks, lengths = arm_names(done), task_names(done), told_steps(done)
    colours = arm_colours(set(arms.values()))
    groups: dict[tuple[str, float, int, int], list[Run]] = {}
    for run in done:
        share, steps = as_number(run.result.get("fraction")), lengths[run.folder] or 0
        count = run.labelled if share is None else 0
        groups.setdefault((tasks[run.folder], share or 0.0, count, steps), []).append(run)
    charts = []
    for (task, share, count, steps), members in sorted(groups.items()):
        names = [name for run in members for name in run.metrics("validation") if name != "loss"]
        metric = main_metric(names, members[0].result.get("monitor")) or "loss"
        lines = []
        for arm, place in colours.items():
            seeds = [run.series("validation", metric) for run in members if arms[run.folder] == arm]
            seeds = [points for points in seeds if points]
            if seeds:
                lines += [Series(arm, points, "faint", place) for points in seeds if len(seeds) > 1]
                mean = mean_of(seeds)
                lines += [Series(arm, mean, "main", place)] if mean else []
        labels = f", {100 * share:.3g} % of the labels" if share else ""
        labels = f", {count} labelled case{'s' * (count > 1)}" if count else labels
        labels += f", {steps} steps" if steps else ""
        if lines:
            charts.append(
                Chart(
                    f"{task}{labels}: validation",
                    metric_title(metric),
                    tuple(lines),
                    _share(metric, lines),
                    group="finetuning",
                )
            )
    return charts


def _share(metric: str, lines: Sequence[Series]) -> bool:
    """Whether values are shares between 0 and 1, to be shown as percentages."""
    values = [value for series in lines for _, value in series.points]
    return bool(values) and all(0 <= v <= 1 for v in values) and higher_is_better(metric)
