"""Charts of what a pre-training does to embeddings of parts, beside its own loss; how the two go together.

"The contrastive loss decreases as the reconstruction loss decreases" is a claim about two curves. Two falling
curves correlate whatever they are, so the correlation of their changes between validations stands beside it.
Parts are compared by the bottleneck map; runs of version 0.1.0 compared only its global average.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from parts2whole.report.curves import Chart, Series
from parts2whole.report.results import method_name
from parts2whole.report.runs import Run

Floats = npt.NDArray[np.float64]
INFO_NCE = "info_nce_0.1"
GROUP = "contrast"
MONITORS = (
    (INFO_NCE, "InfoNCE, temperature 0.1", "info_nce_chance"),
    ("which_whole", "Which whole does a part come from?", "which_whole_chance"),
    ("distance_within", "Distance between parts", "distance_between"),
    ("alignment", "Alignment of parts of one whole", None),
    ("uniformity", "Uniformity", None),
    ("effective_rank", "Effective rank of embeddings", None),
)
"""Name, title, and what is drawn beside it."""
WORDS = {
    "info_nce_chance": "equal embeddings",
    "which_whole_chance": "chance",
    "distance_within": "of one whole",
    "distance_between": "of two wholes",
}
FEATURES = {"map_": "bottleneck map", "": "average"}
"""What parts are compared by, by the beginning of the names of its figures."""
FEWEST = 5
"""Validations, or changes between them, that a correlation is given for."""


@dataclass(frozen=True)
class Correlation:
    """How a run's validation loss and the InfoNCE of its parts go together.

    Attributes:
        n: number of validations, that before the first step included.
        pearson: correlation of the two curves.
        spearman: of their ranks.
        changes: Pearson correlation of their changes from one validation to the next.

    A correlation is nan of fewer than `FEWEST` points, or where one of the curves is constant.
    """

    n: int
    pearson: float
    spearman: float
    changes: float

    def describe(self) -> str:
        """``r = 0.97, of changes 0.41, n = 12 validations``."""
        n = f"{self.n} validation{'s' * (self.n != 1)}"
        if math.isnan(self.pearson):
            return f"{n}, too few to correlate" if self.n < FEWEST else f"constant over {n}"
        few = f"too few ({self.n - 1})" if self.n - 1 < FEWEST else "constant"
        changes = few if math.isnan(self.changes) else f"{self.changes:.2f}"
        return f"r = {self.pearson:.2f}, of changes {changes}, n = {n}".replace("-", "−")


def features_of(run: Run) -> str:
    """How names of a run's figures begin: ``map_``, or nothing where it compared averages alone."""
    return "map_" if run.series("validation", f"map_{INFO_NCE}") else ""


def rebuilds(run: Run) -> bool:
    """Whether a run's loss is that of a reconstruction."""
    return bool(run.series("validation", "baseline_mean_whole"))


def paired_curves(run: Run) -> list[tuple[int, float, float]]:
    """Step, validation loss (of the reconstruction, where given) and InfoNCE, where both were recorded."""
    losses = dict(run.errors("validation"))
    contrast = run.series("validation", features_of(run) + INFO_NCE)
    return [(step, losses[step], value) for step, value in contrast if step in losses]


def correlate(run: Run) -> Correlation:
    """The correlation of `paired_curves`."""
    pairs = paired_curves(run)
    loss, contrast = (np.array([pair[i] for pair in pairs]) for i in (1, 2))
    return Correlation(
        len(pairs),
        _pearson(loss, contrast),
        _pearson(stats.rankdata(loss), stats.rankdata(contrast)),
        _pearson(np.diff(loss), np.diff(contrast)),
    )


def contrast_charts(runs: Sequence[Run], names: dict[Path, str]) -> list[Chart]:
    """For every run its loss and InfoNCE together; then each monitor, all runs in one chart."""
    runs = [run for run in runs if run.series("validation", INFO_NCE)]
    charts = [_together(run, names[run.folder], wide=len(runs) == 1) for run in runs]
    for name, title, beside in MONITORS:
        lines = _lines_of_one(runs[0], name, beside) if len(runs) == 1 else _lines(runs, names, name, beside)
        whole = " of one whole" if len(runs) > 1 and name == "distance_within" else ""
        if kept := tuple(line for line in lines if line.points):
            charts.append(
                Chart(
                    title + whole,
                    title if len(kept) > 1 else f"{title}, {kept[0].name}",
                    kept,
                    percent=name == "which_whole",
                    group=GROUP,
                    from_zero=name != INFO_NCE,
                )
            )
    return charts


def _lines_of_one(run: Run, name: str, beside: str | None) -> list[Series]:
    """Map and average of one run, with chance; or distances within and between wholes by its map."""
    main = features_of(run)
    if beside and not beside.endswith("chance"):
        return [
            Series(f"{WORDS[one]}, {FEATURES[main]}", run.series("validation", main + one), "main", place)
            for place, one in enumerate((name, beside))
        ]
    found = {f: run.series("validation", f + name) for f in FEATURES}
    lines = [Series(FEATURES[f], points, "main", i) for i, (f, points) in enumerate(found.items())]
    return lines + (
        [Series(WORDS[beside], run.series("validation", beside), "baseline", 9)] if beside else []
    )


def _lines(runs: Sequence[Run], names: dict[Path, str], name: str, beside: str | None) -> list[Series]:
    """One line a run, of its map or, said so, of its average where it has nothing else."""
    lines = []
    for place, run in enumerate(runs):
        main = features_of(run)
        called = names[run.folder] + ("" if main else f", {FEATURES[main]}")
        lines.append(Series(called, run.series("validation", main + name), "main", place))
    if not beside or not beside.endswith("chance"):
        return lines
    chances = {run.folder: run.series("validation", beside) for run in runs}
    if len({round(value, 9) for points in chances.values() for _, value in points}) < 2:
        return [*lines, Series(WORDS[beside], max(chances.values(), key=len, default=[]), "baseline", 9)]
    # As many wholes were not compared in all runs: chance is another in each, in the colour of its run.
    return lines + [
        Series(f"{WORDS[beside]}, {names[folder]}", points, "baseline", place % 8)
        for place, (folder, points) in enumerate(chances.items())
    ]


def pretraining_names(runs: Sequence[Run]) -> dict[Path, str]:
    """Runs called by their methods; where several have one, by stores or seeds, too, or by folders."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        above = os.path.commonpath([run.folder.resolve() for run in runs])
        names = [run.folder.resolve().relative_to(above).as_posix() for run in runs]
    methods = [method_name(run) for run in runs]
    on_stores = [f"{method}, {_store_name(run)}" for method, run in zip(methods, runs, strict=True)]
    of_seeds = [f"{method}, seed {run.config.get('seed')}" for method, run in zip(methods, runs, strict=True)]

    def name(place: int) -> str:
        for told in (methods, on_stores, of_seeds):
            if told.count(told[place]) == 1:
                return told[place]
        return names[place]

    return {run.folder: name(place) for place, run in enumerate(runs)}


def curve_names(run: Run) -> tuple[str, str]:
    """What the two paired curves are called."""
    return (
        "reconstruction loss" if rebuilds(run) else "own loss",
        f"InfoNCE of the {FEATURES[features_of(run)]}",
    )


def _store_name(run: Run) -> str:
    """The store's folder, without the digest that a study adds."""
    return re.sub(r"-[0-9a-f]{12}$", "", Path(str(run.config.get("store", ""))).name)


def _together(run: Run, name: str, *, wide: bool) -> Chart:
    """Both curves, each on its own axis."""
    pairs, words = paired_curves(run), curve_names(run)
    lines = [
        Series(words[place], [(pair[0], pair[place + 1]) for pair in pairs], "main", place, bool(place))
        for place in (0, 1)
    ]
    return Chart(
        f"{name}: {correlate(run).describe()}",
        words[0],
        tuple(lines),
        wide=wide,
        group=GROUP,
        from_zero=False,
    )


def _pearson(first: Floats, second: Floats) -> float:
    if len(first) < FEWEST or not (np.ptp(first) and np.ptp(second)):
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])
