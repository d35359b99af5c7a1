"""A study of gain as `gain_page.py` tells it: which runs it has, how its arms compare, and tables of both."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from gain_figures import Line, draw_differences
from scipy.stats import ttest_rel

from parts2whole.report.contrast import correlate, features_of, paired_curves, pretraining_names, rebuilds
from parts2whole.report.endpoints import DEFAULT, ENDPOINTS, Endpoint, Judged
from parts2whole.report.formats import format_number, format_p
from parts2whole.report.judge import measure_endpoints, reference_arm
from parts2whole.report.learning import endpoint_rows
from parts2whole.report.results import method_name, test_figures
from parts2whole.report.runs import Run, find_runs, read_run
from parts2whole.report.study import Listing, name_endpoints, read_listing
from parts2whole.report.tables import metric_title
from parts2whole.report.verdict import conclude

RECIPES = Path(__file__).parents[1] / "recipes"
PREFIX = "What pre-training gains, "
LOST = 0.15
"""Dice of a class that a run has not learned."""


@dataclass(frozen=True)
class Gain:
    """A study of gain.

    Attributes:
        folder: where it is.
        listing: which runs belong to it.
        runs: these.
    """

    folder: Path
    listing: Listing
    runs: Sequence[Run]

    @property
    def key(self) -> str:
        """The name of its folder and of its recipe."""
        return self.folder.name

    @property
    def name(self) -> str:
        """What its section is called."""
        name = self.listing.name.removeprefix(PREFIX)
        return name[0].upper() + name[1:]

    @property
    def link(self) -> str:
        """The place of its section on a page."""
        return "#" + re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", self.name.lower()))

    @cached_property
    def pretrainings(self) -> list[Run]:
        """Those of the study, in the order of its arms and their seeds."""
        found = [run for run in self.runs if run.kind == "pretrain"]
        arms = self.listing.arms
        return sorted(found, key=lambda run: (arms.index(str(run.result["arm"])), run.config.get("seed", 0)))

    @cached_property
    def done(self) -> list[Run]:
        """Finished fine-tunings."""
        return [run for run in self.runs if run.kind == "finetune" and run.finished]

    @cached_property
    def reference(self) -> str:
        """The arm that others are tested against."""
        table = self.listing.tabulate(self.done)
        found = reference_arm(table, self.done, self.listing.table.get("against"))
        if found is None:
            raise SystemExit(f"{self.folder} has results of one arm only, so there is nothing to compare")
        return found

    @cached_property
    def pairs(self) -> dict[str, tuple[Endpoint, ...]]:
        """The study's endpoints for every other arm against the reference, over the seeds that both have."""
        how = {key: value for key, value in self.listing.table.items() if key not in ("focus", "against")}
        found = {}
        for arm in self.listing.arms:
            both = [run for run in self.done if run.result.get("arm") in (arm, self.reference)]
            if arm != self.reference and any(run.result.get("arm") == arm for run in both):
                chosen = {"focus": arm, "against": self.reference, **how}
                found[arm] = measure_endpoints(both, self.listing.endpoints, **chosen)
        return found

    @cached_property
    def focus(self) -> str:
        """The arm of interest; the first other one where that has no results yet."""
        named = str(self.listing.tabulate(self.done).focus)
        return named if named in self.pairs else next(iter(self.pairs))

    @cached_property
    def said(self) -> list[tuple[str, str]]:
        """What is shown of the arm of interest, an endpoint each; and what could have been seen."""
        found = []
        for endpoint in self.pairs[self.focus]:
            tasks, one = {row.task for row in endpoint.rows}, conclude([endpoint])
            if one is not None and len(tasks) > 1:  # a sentence a task, with what could have been seen
                by_task = [text for text in one.sentences if text.partition(":")[0] in tasks]
                found.append((" ".join(by_task), ""))
            elif one is not None:
                found.append((one.headline, one.power))
        return found

    @property
    def headline(self) -> str:
        """What its first endpoint shows, in a sentence."""
        found = conclude(self.pairs[self.focus][:1])
        return found.headline if found else ""

    @cached_property
    def told(self) -> list[bool]:
        """Whether an endpoint tells the arm of interest from the reference anywhere."""
        return [any(is_told(row, endpoint) for row in endpoint.rows) for endpoint in self.pairs[self.focus]]

    @cached_property
    def ranking(self) -> list[str]:
        """How often the arm of interest is first, where more than two arms can be."""
        whole = conclude(self.listing.measure(self.done))
        found = [text for text in (whole.sentences if whole else ()) if text.startswith("Ranked")]
        return found if len(self.pairs) > 1 else []

    @property
    def methods(self) -> int:
        """Ways to pre-train that recorded both curves of the poster's figure."""
        return len(_by_method(self))


def read_gain(folder: Path, *, by_recipe: bool) -> Gain:
    """A study with what is finished of it: what it lists itself, or all of its recipe's arms that is there.

    Raises:
        SystemExit: the folder has no list, or nothing in it is finished.
    """
    listing = list_by_recipe(folder) if by_recipe else read_listing(folder)
    if listing is None:
        raise SystemExit(f"{folder} is not the folder of a benchmark that came to its end; try --recipes")
    study = Gain(folder, listing, listing.read())
    if not study.done:
        raise SystemExit(f"{folder} has no finished fine-tuning")
    return study


def list_by_recipe(folder: Path) -> Listing:
    """All finished runs of a folder that are of an arm of the recipe of its name."""
    recipe = yaml.safe_load((RECIPES / f"{folder.name}.yaml").read_text())
    runs = [read_run(path) for path in find_runs(folder)]
    endpoints = recipe.get("endpoints", DEFAULT)
    return Listing(
        recipe["name"],
        tuple(recipe["arms"]),
        tuple(run.folder for run in runs if run.finished and run.result.get("arm") in recipe["arms"]),
        recipe.get("table", {}),
        endpoints=name_endpoints(folder, endpoints, finished=0, write=False).endpoints,
    )


def is_told(row: Judged, endpoint: Endpoint) -> bool:
    """Whether a row tells its arms apart after Holm."""
    return row.holm is not None and row.holm <= endpoint.how.alpha


def endpoint_table(study: Gain, place: int) -> list[str]:
    """Arms down, label counts across: an endpoint's figure, its distance to the reference, and p."""
    shown = [
        (arm, endpoints[place], row, about)
        for arm, endpoints in study.pairs.items()
        for row, about in rows_of(endpoints[place])
    ]
    most = max((row.n for _, _, row, _ in shown), default=0)
    columns = in_order((row, about) for _, _, row, about in shown)
    cells: dict[str, dict[str, str]] = {study.reference: {}}
    for arm, endpoint, row, about in sorted(shown, key=lambda one: -one[2].n):
        (words,) = endpoint_rows([replace(endpoint, rows=(row,))])
        figure = with_deviation(endpoint, row, arm, words["focus"])
        reference = with_deviation(endpoint, row, study.reference, words["reference"])
        cells[study.reference].setdefault(about, reference)
        p = ", p = 1" if row.holm == 1 else f", p = {words['holm']}".replace("= <", "<")
        p = "" if row.holm is None else p
        told = f"**{figure}**" if is_told(row, endpoint) else figure
        few = f", n = {row.n}" if row.n < most else ""
        cells.setdefault(arm, {})[about] = f"{told}<br>{words['effect']}{p}{few}"
    lines = [f"| arm | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for arm in (study.reference, *study.pairs):
        lines += [f"| {arm} | {' | '.join(cells[arm].get(a, '') for a in columns)} |"] if arm in cells else []
    return lines


def in_order(rows: Iterable[tuple[Judged, str]]) -> list[str]:
    """What rows are called, by task and number of labels."""
    order = {about: (row.task, row.counts, row.steps or 0) for row, about in rows}
    return sorted(order, key=lambda about: order[about])


def rows_of(endpoint: Endpoint) -> list[tuple[Judged, str]]:
    """An endpoint's rows that have figures of both arms, and what they are called."""
    told = zip(endpoint.rows, endpoint_rows([endpoint]), strict=True)
    return [(row, words["about"]) for row, words in told if row.effect is not None]


def with_deviation(endpoint: Endpoint, row: Judged, arm: str, figure: str) -> str:
    """A mean with its deviation over seeds; other figures as they are."""
    values = list(row.values.get(arm, {}).values())
    if endpoint.name != "final" or len(values) < 2:
        return figure
    return f"{figure}\u00a0±\u00a0{format_number(statistics.stdev(values), percent=row.percent)}"


def explain_table(study: Gain, place: int) -> str:
    """What a table of an endpoint shows, in a sentence or two."""
    endpoint = study.pairs[study.focus][place]
    rows = [row for endpoints in study.pairs.values() for row, _ in rows_of(endpoints[place])]
    if not rows:
        return ""
    corrected = ", by Holm over the label counts of an arm" if max(row.family for row in rows) > 1 else ""
    metric = " and ".join(dict.fromkeys(metric_title(row.metric) + ", %" * row.percent for row in rows))
    deviation = " ± deviation over seeds" if endpoint.name == "final" else ""
    return (
        f"{metric}: {ENDPOINTS[endpoint.name]}{deviation}; below it the difference to *{study.reference}* "
        f"and its p ({endpoint.test}{corrected}, not over arms), bold where p ≤ α; "
        f"n = {max(row.n for row in rows)}."
    )


def draw_gain(study: Gain, path: Path) -> None:
    """Differences of the study's first endpoint, of seeds that both arms have."""
    lines: dict[str, dict[str, Line]] = {}
    for arm, endpoints in study.pairs.items():
        for row, about in rows_of(endpoints[0]):
            first, second = (row.values.get(name, {}) for name in (arm, study.reference))
            scale = 100 if row.percent else 1
            differences = [scale * (first[seed] - second[seed]) for seed in first if seed in second]
            if differences:
                line = Line(differences, is_told(row, endpoints[0]), arm == study.focus)
                lines.setdefault(arm, {})[about] = line
    pairs = [pair for endpoints in study.pairs.values() for pair in rows_of(endpoints[0])]
    metrics = " and ".join(dict.fromkeys(metric_title(row.metric).removesuffix(" mean") for row, _ in pairs))
    points = "points of " * all(row.percent for row, _ in pairs)
    draw_differences(lines, in_order(pairs), path, f"{points}{metrics} above {study.reference}")


def contrast_table(studies: Sequence[Gain]) -> list[str]:
    """What pre-trainings do to parts of one whole: from before the first step to the last.

    Several of one method in a study, which differ in their seeds, are one row of means.
    """
    lines = [
        "| data | pre-training | loss | InfoNCE | r of both | r of their changes "
        "| nearest other part is of the same whole, % (chance) |",
        "|---" * 7 + "|",
    ]
    for study in studies:
        names = pretraining_names(study.pretrainings)
        for method, runs in _by_method(study).items():
            figures = [_contrast(run) for run in runs]
            loss, last_loss, first, last, together, changes, *shares = (
                statistics.fmean(column) for column in zip(*figures, strict=True)
            )
            several = len(runs) > 1
            name = f"{method}, mean of {len(runs)}" if several else names[runs[0].folder]
            fell = f", falls in {sum(one[3] < one[2] for one in figures)}" if several else ""
            own = "" if rebuilds(runs[0]) else "own: "
            cells = (
                *(study.name, name, f"{own}{loss:.3f} → {last_loss:.3f}", f"{first:.2f} → {last:.2f}{fell}"),
                *(f"{together:.2f}", "–" if math.isnan(changes) else f"{changes:.2f}"),
                f"{shares[0]:.0f} → {shares[1]:.0f} ({shares[2]:.0f})",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _by_method(study: Gain) -> dict[str, list[Run]]:
    """The pre-trainings of a study with a curve of contrast, by their methods."""
    names, found = pretraining_names(study.pretrainings), dict[str, list[Run]]()
    seeds: dict[str, set[Any]] = {}
    for run in study.pretrainings:
        if len(paired_curves(run)) > 1:
            method = method_name(run)
            alike = run.config.get("seed") not in seeds.setdefault(method, set())
            seeds[method].add(run.config.get("seed"))
            found.setdefault(method if alike else names[run.folder], []).append(run)
    return found


def _contrast(run: Run) -> tuple[float, ...]:
    """First and last loss and InfoNCE, how they correlate, and shares of parts found, with chance, in %."""
    pairs, correlation = paired_curves(run), correlate(run)
    (_, loss, contrast), (_, last_loss, last_contrast) = pairs[0], pairs[-1]
    which = run.series("validation", f"{features_of(run)}which_whole")
    shares = (which[0][1], which[-1][1], run.last("validation", "which_whole_chance") or 0)
    return (
        *(loss, last_loss, contrast, last_contrast, correlation.pearson, correlation.changes),
        *(100 * share for share in shares),
    )


def tell_contrast(studies: Sequence[Gain]) -> str:
    """How often InfoNCE falls where it is not trained on, and how far beside an autoencoder."""
    falls: dict[tuple[tuple[float, ...], ...], tuple[str, float]] = {}  # one of two studies counts once
    further, told = [], []
    for study in studies:
        found: dict[str, dict[Any, float]] = {}
        for run in study.pretrainings:
            pairs, method = paired_curves(run), method_name(run)
            if rebuilds(run) and "ontrast" not in method and len(pairs) > 1:
                fall = pairs[0][2] - pairs[-1][2]
                falls[tuple(map(tuple, pairs))] = method, fall
                found.setdefault(method, {})[run.config.get("seed")] = fall
        if {"Parts2Whole", "Autoencoder"} <= found.keys():
            ours, theirs = found["Parts2Whole"], found["Autoencoder"]
            mean, other = statistics.fmean(ours.values()), statistics.fmean(theirs.values())
            further.append(mean > other)
            seeds = sorted(ours.keys() & theirs.keys())
            if len(seeds) > 1:
                test = ttest_rel([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
                p = f"p = {format_p(test.pvalue)}".replace("= <", "<")
                told.append(
                    f"over {len(seeds)} seeds by {mean:.2f} with Parts2Whole and by {other:.2f} with an "
                    f"autoencoder ({study.name}; paired t-test, {p})".replace(" -", " −")
                )
    counts = [
        f"{method} {sum(fall > 0 for one, fall in falls.values() if one == method)} of {count}"
        for method, count in Counter(method for method, _ in falls.values()).most_common()
    ]
    text = (
        f"In {sum(fall > 0 for _, fall in falls.values())} of {len(falls)} pre-trainings that rebuild images "
        f"and see no contrastive loss, that of parts of held-out wholes falls ({', '.join(counts)})"
    )
    if further:
        text += (
            f"; further with Parts2Whole than with an autoencoder in {sum(further)} of {len(further)} studies"
        )
    return "; ".join([text, *told]) + "."


def lost_classes(runs: Sequence[Run]) -> str:
    """How many runs never learned one of their classes, arm by arm."""
    lost: dict[str, int] = {}
    for run in runs:
        found: dict[str, Any] = {k: v for k, v in test_figures(run).items() if k.startswith("dice_")}
        classes = {k: v for k, v in found.items() if k != "dice_mean"} or found
        if classes and min(classes.values()) < LOST:
            arm = str(run.result.get("arm"))
            lost[arm] = lost.get(arm, 0) + 1
    told = ", ".join(f"{arm} {count}" for arm, count in lost.items()) or "none"
    return f"Runs of {len(runs)} that have not learned one of the classes (Dice below {LOST:g}): {told}."
