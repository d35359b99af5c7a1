"""How sure a difference of arms is: other patients, other runs, and what so many runs can see at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from parts2whole.evaluation.bootstrap import Bootstrap, BootstrapError, bootstrap
from parts2whole.evaluation.power import detectable_difference, sample_size
from parts2whole.report.results import arm_names, has_labels_of, task_names, told_steps
from parts2whole.report.runs import Plain, Run, as_number
from parts2whole.report.tables import Difference, Row, Table, metric_title

Floats = npt.NDArray[np.float64]
POINT = 0.01
"""A difference of shares worth seeing: one point of a hundred."""
FEW = 20
"""Below so many patients or runs, percentile intervals err to the narrow side."""


@dataclass(frozen=True)
class Sure:
    """One comparison: a bootstrap over patients and runs, or the reason why there is none.

    Attributes:
        about: task, labels and arms.
        found: the bootstrap of focus minus the other arm; None without one.
        reason: why there is none.
        can_see: what so many runs can see, in words.
        task: its name.
        against: the other arm.
    """

    about: str
    found: Bootstrap | None
    reason: str
    can_see: str
    task: str = ""
    against: str = ""

    def describe(self) -> str:
        """In one line."""
        told = self.found.describe() if self.found else self.reason
        return f"{self.about}: {told}" + (f". {self.can_see}" if self.can_see else "")


@dataclass(frozen=True)
class Certainty:
    """What patients and runs contribute to the uncertainty of every comparison of a table."""

    rows: tuple[Sure, ...]

    def summary(self) -> str:
        """A line for each comparison."""
        lines = [row.describe() for row in self.rows]
        if any(row.found and min(row.found.patients, *row.found.runs) < FEW for row in self.rows):
            lines.append(f"With fewer than {FEW} patients or runs these intervals are somewhat too narrow.")
        return "\n".join(lines) or "One arm only: nothing to compare."


def compare_patients(
    runs: Sequence[Run], table: Table, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Certainty:
    """A bootstrap over test patients and runs for every comparison of a table.

    Args:
        runs: fine-tuning runs with their test cases.
        table: made of their main metrics.
        resamples: draws.
        confidence: of the intervals.
        seed: of the draws.
    """
    done = [run for run in runs if run.kind == "finetune" and run.finished]
    arms, tasks, steps = arm_names(done), task_names(done), told_steps(done)
    made = []
    for row in table.rows:
        by_arm: dict[str, list[Run]] = {}
        for run in done:
            if (tasks[run.folder], steps[run.folder]) == (row.task, row.steps) and has_labels_of(run, row):
                cell = row.cells.get(arms[run.folder])
                if cell is not None and run.result.get("seed", 0) in cell.values:
                    by_arm.setdefault(cell.arm, []).append(run)
        for difference in {c.against: c for c in row.differences.values()}.values():
            arms_named = f"{table.focus} minus {difference.against}"
            about = f"{row.task}, {metric_title(row.metric)}, {row.labels}: {arms_named}"
            found, reason = None, ""
            try:
                found = _bootstrap(
                    by_arm[str(table.focus)],
                    by_arm[difference.against],
                    row.metric,
                    {"resamples": resamples, "confidence": confidence, "seed": seed},
                )
            except (BootstrapError, KeyError) as error:
                reason = f"no bootstrap over patients ({error})"
            seen = _can_see(difference, row, table.alpha)
            made.append(Sure(about, found, reason, seen, row.task, difference.against))
    return Certainty(tuple(made))


def auc_of_runs(scores_and_targets: npt.NDArray[Any]) -> Floats:
    """Area under the ROC curve by ranks: (runs, cases, 2) of score and target (0 or 1) to (runs,)."""
    scores, positive = scores_and_targets[..., 0], scores_and_targets[..., 1] > 0.5
    count = positive.sum(axis=1)
    others = positive.shape[1] - count
    ranks = stats.rankdata(scores, axis=1)
    wins = np.where(positive, ranks, 0).sum(axis=1) - count * (count + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Floats = wins / (count * others)
    return area


def _bootstrap(a: Sequence[Run], b: Sequence[Run], metric: str, how: Mapping[str, Any]) -> Bootstrap:
    """Of two arms' runs, paired by seed where they have the same seeds."""
    by_seed = [{run.result.get("seed", 0): run for run in runs} for runs in (a, b)]
    paired = set(by_seed[0]) == set(by_seed[1])
    ordered = [[runs[seed] for seed in sorted(runs)] for runs in by_seed]
    arms = [[{row["case"]: row for row in run.cases} for run in runs] for runs in ordered]
    if not all(cases for arm in arms for cases in arm):
        raise BootstrapError("a run has no test cases")
    first = arms[0][0]
    common = [name for name in first if all(name in cases for arm in arms for cases in arm)]
    patients = [str(first[name].get("patient", name)) for name in common]
    by_class = any("target" in row for row in first.values())
    if by_class and metric != "auc":
        raise BootstrapError(f"{metric} is no mean over cases")
    positive = _positive_class(first.values()) if by_class else ""
    arrays = [
        np.array([[_score(cases[name], metric, positive) for name in common] for cases in arm])
        for arm in arms
    ]
    measure = auc_of_runs if by_class else None
    return bootstrap(*arrays, patients=patients, metric=measure, paired_runs=paired, **how)


def _positive_class(rows: Any) -> str:
    """The second of two classes."""
    names: list[str] = sorted({key[2:] for row in rows for key in row if key.startswith("p_")})
    if len(names) != 2:
        raise BootstrapError(f"AUC of {len(names)} classes; the bootstrap knows two")
    return names[1]


def _score(row: Plain, metric: str, positive: str) -> Any:
    if positive:
        return (as_number(row.get(f"p_{positive}")), float(str(row["target"]) == positive))
    value = as_number(row.get(metric))
    return float("nan") if value is None else value


def _can_see(difference: Difference, row: Row, alpha: float) -> str:
    """What a paired t-test sees with this spread."""
    if not difference.sd or difference.n < 2:
        return ""
    seen = detectable_difference(difference.sd, difference.n, alpha=alpha, paired=True, two_sided=True)
    scale, unit = (100.0, " points") if row.percent else (1.0, "")
    text = f"{difference.n} pairs see a true difference of {scale * seen:.2g}{unit} with power 0.8"
    if row.percent:
        needed = sample_size(POINT, difference.sd, alpha=alpha, paired=True, two_sided=True)
        text += f"; to see 1 point it takes {needed.n}"
    return text
