"""Write synthetic anatomy in the form of public data sets, so that every task can be tried without them."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from parts2whole.errors import Parts2WholeError
from parts2whole.files import read_json, write_json
from parts2whole.jobs.pool import usable_cores
from parts2whole.jobs.run import run_jobs
from parts2whole.phantom.data_sets import choose_data_sets
from parts2whole.phantom.montage import write_montage
from parts2whole.phantom.settings import keep_settings
from parts2whole.phantom.sizes import Size
from parts2whole.phantom.write import DataSet, Rows

MARKS = ".phantom"
"""Folder, beside the data sets, of one file for each finished patient: what a restart need not do again."""

PREVIEW_CASES = 3


class PhantomError(Parts2WholeError, ValueError):
    """Settings that make no phantoms, or patients that could not be written."""


@dataclasses.dataclass(frozen=True)
class Phantoms:
    """What was written.

    Attributes:
        folder: with one folder for each data set.
        data_sets: name and task of each.
        cases: patients asked for in each; earlier calls may have written more.
        written: patients written now, over all; the others were there.
        previews: montages.
        seconds: it took.
    """

    folder: Path
    data_sets: dict[str, str]
    cases: int
    written: int
    previews: tuple[Path, ...]
    seconds: float

    def summary(self) -> str:
        """One line for each data set."""
        lines = [f"{self.cases} synthetic patients each, {self.written} written in {self.seconds:.0f} s"]
        for name, task in self.data_sets.items():
            lines.append(
                f"  {self.folder / name}  {f'for {task}' if task else 'unlabelled, for pre-training'}"
            )
        lines += [f"  {path}" for path in self.previews]
        return "\n".join([*lines, "They are no patients: not for clinical conclusions."])


def phantom(
    *,
    out: str | Path,
    tasks: str | Sequence[str] = "all",
    cases: int = 20,
    seed: int = 0,
    size: Size = "small",
    preview: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Phantoms:
    """Write phantoms in the file formats of LUNA16, LIDC-IDRI, LiTS, CAD-PE and BraTS, and a pool of scans.

    Calling it again writes what is missing, and keeps patients beyond ``cases``.  The files depend on nothing
    but case, seed and size.

    Args:
        out: folder for the data sets.
        tasks: ``all``, or names of tasks or data sets, such as ``[LiTS, NoduleFalsePositives, pool]``.
        cases: patients of each data set.
        seed: another seed, other patients.
        size: ``tiny`` for tests, ``small`` for a laptop, ``full`` near clinical matrices.
        preview: also draw a montage of each data set into ``out``.
        workers: processes; default one a core, 0 works in this process.
        progress: say what is going on.

    Returns:
        What was written.

    Raises:
        PhantomError: no cases, ``out`` holds phantoms of other settings, or a patient could not be written.
        parts2whole.phantom.data_sets.UnknownDataSetError: a name in ``tasks`` is not known.
    """
    began = time.monotonic()
    if cases < 1:
        raise PhantomError(f"cases must be at least 1, got {cases}")
    folder = Path(out)
    chosen = choose_data_sets(tasks)
    _check_settings(folder, seed, size)
    jobs = [_Job(folder, each, case, seed, size) for case in range(cases) for each in chosen]
    missing = [job for job in jobs if not job.mark.exists()]
    count = min(usable_cores(), len(missing)) if workers is None else workers
    problems = []
    for done, problem in enumerate(
        run_jobs(_write, missing, workers=count if missing else 0, lost=_lost), start=1
    ):
        problems += [problem] if problem else []
        if progress:
            print(
                f"\r{done} of {len(missing)} patients written",
                end="" if done < len(missing) else "\n",
                flush=True,
            )
    if problems:
        raise PhantomError(
            "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        )
    for each in chosen:
        each.finish(folder / each.folder, _all_rows(folder, each))
    previews = []
    for each in chosen if preview else ():
        rows = [each.draw(case, seed=seed, size=size) for case in range(min(cases, PREVIEW_CASES))]
        if rows[0]:
            previews.append(write_montage(folder / f"{each.folder}.png", rows))
    names = {each.folder: each.task for each in chosen}
    return Phantoms(folder, names, cases, len(missing), tuple(previews), time.monotonic() - began)


@dataclasses.dataclass(frozen=True)
class _Job:
    """One patient of one data set."""

    folder: Path
    data_set: DataSet
    case: int
    seed: int
    size: Size

    @property
    def mark(self) -> Path:
        """The file that says it is done, and holds its rows of the tables."""
        return _marks(self.folder, self.data_set) / f"{self.case:05d}.json"


def _marks(folder: Path, data_set: DataSet) -> Path:
    """Where the marks of a data set's patients are."""
    return folder / MARKS / data_set.folder


def _all_rows(folder: Path, data_set: DataSet) -> list[Rows]:
    """The rows of every patient that is there: an earlier call may have written more of them."""
    marks = _marks(folder, data_set).glob("[0-9]*.json")
    return [read_json(mark) for mark in sorted(marks, key=lambda mark: int(mark.stem))]


def _write(job: _Job) -> str:
    """Write a patient; returns what went wrong."""
    try:
        root = job.folder / job.data_set.folder
        rows = job.data_set.write_case(root, job.case, seed=job.seed, size=job.size)
        write_json(job.mark, rows, indent=None)
    except OSError as error:
        return f"{job.data_set.folder}, case {job.case}: {error}"
    return ""


def _lost(job: _Job) -> str:
    return f"{job.data_set.folder}, case {job.case}: its process was killed (out of memory?)"


def _check_settings(folder: Path, seed: int, size: Size) -> None:
    """Refuse to mix phantoms of different settings."""
    settings = {"seed": seed, "size": size}
    found = defaultdict(lambda: "?", keep_settings(folder / MARKS / "settings.json", settings))
    if dict(found) != settings:
        raise PhantomError(
            f"{folder} holds phantoms of seed {found['seed']} and size {found['size']}, "
            f"not {seed} and {size}; choose another folder"
        )
