"""A study of gain as `gain_page.py` tells it: which runs it has, how its arms compare, and tables of both."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from gain_figures import Line, draw_differences

from parts2whole.report.contrast import correlate, features_of, paired_curves, pretraining_names, rebuilds
from parts2whole.report.endpoints import DEFAULT, ENDPOINTS, Endpoint, Judged
from parts2whole.report.formats import format_number
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
        """Those of the study, in the order of its arms."""
        found = [run for run in self.runs if run.kind == "pretrain"]
        return sorted(found, key=lambda run: self.listing.arms.index(str(run.result["arm"])))

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
        found = [conclude([endpoint]) for endpoint in self.pairs[self.focus]]
        return [(one.headline, one.power) for one in found if one is not None]

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
        """Pre-trainings that recorded both curves of the poster's figure."""
        return sum(len(paired_curves(run)) > 1 for run in self.pretrainings)


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
        endpoints=name_endpoints(folder, endpoints, finished=0, write=False)[0],
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
    metric = metric_title(rows[0].metric) + (", %" if rows[0].percent else "")
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
    row = study.pairs[study.focus][0].rows[0]
    metric = metric_title(row.metric).removesuffix(" mean")
    labels = in_order(pair for endpoints in study.pairs.values() for pair in rows_of(endpoints[0]))
    draw_differences(lines, labels, path, f"{'points of ' * row.percent}{metric} above {study.reference}")


def contrast_table(studies: Sequence[Gain]) -> list[str]:
    """What pre-trainings do to parts of one whole: from before the first step to the last."""
    lines = [
        "| data | pre-training | loss | InfoNCE | r of both | r of their changes "
        "| nearest other part is of the same whole, % (chance) |",
        "|---" * 7 + "|",
    ]
    for study in studies:
        names = pretraining_names(study.pretrainings)
        for run in study.pretrainings:
            pairs, start = paired_curves(run), features_of(run)
            if len(pairs) < 2:
                continue
            (_, loss, contrast), (_, last_loss, last_contrast) = pairs[0], pairs[-1]
            found, which = correlate(run), run.series("validation", f"{start}which_whole")
            shares = [100 * share for _, share in (which[0], which[-1])]
            shares.append(100 * (run.last("validation", "which_whole_chance") or 0))
            changes = "–" if math.isnan(found.changes) else f"{found.changes:.2f}"
            lines.append(
                f"| {study.name} | {names[run.folder]} | {'' if rebuilds(run) else 'own: '}{loss:.3f} → "
                f"{last_loss:.3f} | {contrast:.2f} → {last_contrast:.2f} | {found.pearson:.2f} "
                f"| {changes} | {shares[0]:.0f} → {shares[1]:.0f} ({shares[2]:.0f}) |"
            )
    return lines


def tell_contrast(studies: Sequence[Gain]) -> str:
    """How often InfoNCE falls where it is not trained on, and how often further than with an autoencoder."""
    falls: dict[
        tuple[tuple[float, ...], ...], float
    ] = {}  # studies may share a pre-training, which counts once
    further = []
    for study in studies:
        found = {}
        for run in study.pretrainings:
            pairs = paired_curves(run)
            if rebuilds(run) and "ontrast" not in method_name(run) and len(pairs) > 1:
                found[method_name(run)] = falls[tuple(map(tuple, pairs))] = pairs[0][2] - pairs[-1][2]
        if {"Parts2Whole", "Autoencoder"} <= found.keys():
            further.append(found["Parts2Whole"] > found["Autoencoder"])
    fallen = sum(fall > 0 for fall in falls.values())
    told = (
        f"In {fallen} of {len(falls)} pre-trainings that rebuild images and see no contrastive loss, "
        "that of parts of held-out wholes falls"
    )
    if not further:
        return f"{told}."
    return (
        f"{told}; with Parts2Whole further than with an autoencoder in {sum(further)} of {len(further)} "
        "studies of both."
    )


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
