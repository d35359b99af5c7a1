"""Charts of what a pre-training does to embeddings of parts, beside its own loss; how the two go together.

"The contrastive loss decreases as the reconstruction loss decreases" is a claim about two curves. Two falling
curves correlate whatever they are, so the correlation of their changes between validations stands beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from parts2whole.report.curves import Chart, Role, Series
from parts2whole.report.results import method_name
from parts2whole.report.runs import Run

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


@dataclass(frozen=True)
class Correlation:
    """How a run's validation loss and its InfoNCE, which it isn't trained on, go together.

    Attributes:
        n: number of validations.
        pearson: correlation of the two curves.
        spearman: of their ranks.
        changes: Pearson correlation of their changes from one validation to the next; nan from fewer than
            three changes.
    """

    n: int
    pearson: float
    spearman: float
    changes: float

    def describe(self) -> str:
        """``r = 0.97, of changes 0.41, n = 12``."""
        changes = "" if math.isnan(self.changes) else f", of changes {self.changes:.2f}"
        return f"r = {self.pearson:.2f}{changes}, n = {self.n} validations"


def paired_curves(run: Run) -> list[tuple[int, float, float]]:
    """Step, validation loss and InfoNCE, where a run recorded both."""
    losses = dict(run.series("validation", "loss"))
    return [
        (step, losses[step], value) for step, value in run.series("validation", INFO_NCE) if step in losses
    ]


def correlate(run: Run) -> Correlation | None:
    """The correlation; None with fewer than three validations, or where a curve is constant."""
    pairs = paired_curves(run)
    loss, contrast = (np.array([pair[i] for pair in pairs]) for i in (1, 2))
    if len(pairs) < 3 or not (np.ptp(loss) and np.ptp(contrast)):
        return None
    changes = math.nan
    first, second = np.diff(loss), np.diff(contrast)
    if len(first) >= 3 and np.ptp(first) and np.ptp(second):
        changes = float(np.corrcoef(first, second)[0, 1])
    return Correlation(
        len(pairs),
        float(np.corrcoef(loss, contrast)[0, 1]),
        float(stats.spearmanr(loss, contrast).statistic),
        changes,
    )


def contrast_charts(runs: Sequence[Run], names: dict[Path, str]) -> list[Chart]:
    """For every run its loss and InfoNCE together; then each monitor, all runs in one chart."""
    runs = [run for run in runs if run.series("validation", INFO_NCE)]
    charts = [_together(run, names[run.folder]) for run in runs]
    for name, title, beside in MONITORS:
        lines = [
            Series(names[run.folder], run.series("validation", name), "main", i) for i, run in enumerate(runs)
        ]
        if beside and len(runs) == 1:
            role: Role = "baseline" if beside.endswith("chance") else "main"
            first = Series(WORDS.get(name, names[runs[0].folder]), lines[0].points, "main", 0)
            lines = [first, Series(WORDS[beside], runs[0].series("validation", beside), role, 9)]
        elif beside and beside.endswith("chance"):
            longest = max((run.series("validation", beside) for run in runs), key=len, default=[])
            lines.append(Series(WORDS[beside], longest, "baseline", 9))
        kept = tuple(line for line in lines if line.points)
        if kept:
            shown = (
                title
                if beside is None or len(runs) == 1 or name != "distance_within"
                else f"{title} of one whole"
            )
            charts.append(
                Chart(
                    shown, title, kept, percent=name == "which_whole", group=GROUP, from_zero=name != INFO_NCE
                )
            )
    return charts


def pretraining_names(runs: Sequence[Run]) -> dict[Path, str]:
    """Runs called by their methods; by their stores too, or by their folders, where several have the same."""
    methods = [method_name(run) for run in runs]
    on_stores = [f"{method}, {_store_name(run)}" for method, run in zip(methods, runs, strict=True)]

    def name(place: int) -> str:
        for names in (methods, on_stores):
            if names.count(names[place]) == 1:
                return names[place]
        return runs[place].name

    return {run.folder: name(place) for place, run in enumerate(runs)}


def _store_name(run: Run) -> str:
    """The store's folder, without the digest that a study adds."""
    return re.sub(r"-[0-9a-f]{12}$", "", Path(str(run.config.get("store", ""))).name)


def _together(run: Run, name: str) -> Chart:
    """Both curves, each over its value at the first validation."""
    pairs = paired_curves(run)
    found = correlate(run)
    title = f"{name}: {found.describe()}" if found else f"{name}: too few validations to correlate"
    lines = []
    for place, words in ((1, "own loss"), (2, "InfoNCE, not trained on")):
        first = pairs[0][place] if pairs else 0.0
        if first:
            points = [(pair[0], pair[place] / first) for pair in pairs]
            lines.append(Series(words, points, "main", place - 1))
    return Chart(title, "relative to the first validation", tuple(lines), group=GROUP, from_zero=False)
