"""Tabulate finished fine-tuning runs: one row a task and label fraction, one column an arm, with tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from parts2whole.errors import Parts2WholeError
from parts2whole.files import write_text
from parts2whole.report.formats import to_csv, to_html, to_latex, to_markdown, to_text
from parts2whole.report.results import finished_finetunings, tabulate, test_figures
from parts2whole.report.study import read_runs
from parts2whole.report.tables import Table


class CompareError(Parts2WholeError, ValueError):
    """Runs that can't be compared."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A table of results."""

    table: Table

    def summary(self) -> str:
        """The table as text for a terminal."""
        return to_text(self.table)


def compare(
    runs: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    metric: str | None = None,
    focus: str | None = None,
    against: str | None = None,
    test: Literal[
        "paired", "student", "welch", "wilcoxon", "permutation", "permutation-independent"
    ] = "paired",
    alternative: Literal["greater", "two-sided", "observed"] = "two-sided",
    alpha: float = 0.05,
    margin: float | None = None,
) -> Comparison:
    """Make the table of finished fine-tuning runs.

    Args:
        runs: run folders, or folders that hold many.
        out: also write the table to this file: ``.md``, ``.tex``, ``.csv`` or ``.html``.
        metric: which metric; default the one each task is judged by.
        focus: arm of interest; default Parts2Whole.
        against: arm it is compared with; default scratch, and the best of the others.
        test: ``paired`` by seed, or a test that takes the arms as independent.
        alternative: ``greater`` asks whether the focus is better, ``two-sided`` whether they differ,
            ``observed`` whether whichever has the better mean is better (as on the poster).
        alpha: level of the marks.
        margin: mark arms as equivalent by two one-sided tests within this difference, instead of by a
            difference that is not significant.

    Returns:
        The table; `Comparison.summary` is its text.

    Raises:
        CompareError: no finished fine-tuning run, or an unknown kind of file.
        parts2whole.report.marks.TableError: unknown arms, or a cell run twice.
    """
    found = finished_finetunings(run for path in runs for run in read_runs(path))
    named = ", ".join(map(str, runs))
    if not found:
        raise CompareError(f"no finished fine-tuning run in {named}")
    if not any(map(test_figures, found)):
        raise CompareError(f"the finished runs in {named} have no test figures")
    table = tabulate(
        found,
        metric=metric,
        focus=focus,
        against=against,
        test=test,
        alternative=alternative,
        alpha=alpha,
        margin=margin,
    )
    if out is not None:
        writers = {".md": to_markdown, ".tex": to_latex, ".csv": to_csv, ".html": to_html}
        path = Path(out)
        if path.suffix not in writers:
            raise CompareError(f"{path.name}: expected a name ending in {', '.join(writers)}")
        write_text(path, writers[path.suffix](table))
    return Comparison(table)
