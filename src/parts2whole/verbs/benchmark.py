"""Run a whole study, arms x tasks x labels x seeds, and end with its table: the paper's main result.

Cells are independent jobs.  Whatever is finished is never run again, so a study can be killed, started again
and widened: same settings, same folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from pathlib import Path

import torch

from parts2whole.errors import Parts2WholeError, plural, tell_reasons
from parts2whole.files import write_json, write_rows, write_text
from parts2whole.jobs.run import check_workers, run_jobs
from parts2whole.progress import fill
from parts2whole.report.contrast_figure import write_contrast_figure
from parts2whole.report.embedding_figure import write_embedding_figure
from parts2whole.report.endpoints import to_rows
from parts2whole.report.figures import FigureError
from parts2whole.report.formats import to_csv, to_html, to_latex, to_markdown, to_text
from parts2whole.report.make_table import make_table
from parts2whole.report.page import write_report
from parts2whole.report.results import finished_finetunings, result_rows
from parts2whole.report.runs import Run
from parts2whole.report.study import Listing, name_endpoints
from parts2whole.report.tables import Table
from parts2whole.report.verdict import Conclusion
from parts2whole.study.asked import Verbs
from parts2whole.study.check import check_paths, refuse_others
from parts2whole.study.file import TABLE, load_generator
from parts2whole.study.job import do_job
from parts2whole.study.plan import Generated, Study
from parts2whole.study.progress import Reporter
from parts2whole.study.resolve import read_study
from parts2whole.study.work import Job, Outcome, is_finished, make_jobs
from parts2whole.tasks.base import default_cache
from parts2whole.training.stop import INTERRUPTED, Interrupted
from parts2whole.verbs import paste
from parts2whole.verbs.finetune import finetune
from parts2whole.verbs.prepare import prepare
from parts2whole.verbs.pretrain import pretrain

GENERATORS = {"phantom": "parts2whole.verbs.phantom:phantom"}
"""What a study can make its own data with."""
FORMATS: dict[str, Callable[[Table], str]] = {
    "table.md": to_markdown,
    "table.tex": to_latex,
    "table.csv": to_csv,
    "table.html": to_html,
}


USUAL = {name: each.default for name, each in signature(make_table).parameters.items() if name in TABLE}
"""How tables are made where a study doesn't say."""
FIGURES = {"contrast.png": write_contrast_figure, "embedding.png": write_embedding_figure}
"""Of all pre-trainings of a study."""


class BenchmarkError(Parts2WholeError, RuntimeError):
    """A study of which nothing could be finished."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What a study left.

    Attributes:
        folder: everything; ``report.html`` and the tables are in it.
        table: the main results; None if not a single cell is finished.
        finished: number of cells that are finished, over all calls.
        reused: number of them that were finished before this call.
        failures: title and message of every piece of work that failed.
        conclusion: what the study shows, in words; None without a table, or with one arm only.
    """

    folder: Path
    table: Table | None
    finished: int
    reused: int
    failures: dict[str, str]
    conclusion: Conclusion | None = None

    @property
    def failed(self) -> bool:
        """Whether anything failed; the command line then ends with a non-zero code."""
        return bool(self.failures)

    def summary(self) -> str:
        """The table, where everything is, and what failed."""
        lines = [to_text(self.table) if self.table else "No cell is finished, so there is no table."]
        cells = f"{plural(self.finished, 'cell')} finished ({self.reused} of them before)."
        lines.append(fill(f"{cells} All in {self.folder}"))
        lines.append(f"Open the report: {(self.folder / 'report.html').resolve()}")
        if self.failures:
            lines.append(f"{len(self.failures)} failed; run again to try only these:")
            count = self.finished + len(self.failures)
            told = tell_reasons(self.failures, of=count, verb="were not finished")
            lines += [fill(line, indent="  ") for line in told]
        elif self.table:
            bootstrap = paste.command("stats patients", self.folder)
            lines += paste.next_step("how much of it is the choice of patients", bootstrap)
        if self.conclusion:
            lines += ["", *map(fill, self.conclusion.text.splitlines())]
        return "\n".join(lines)


def benchmark(
    spec: str | Path,
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> Benchmark:
    """Run every cell of a study that isn't finished yet, and tabulate all that are.

    Args:
        spec: the study's YAML file; paths in it are relative to its folder.
        out: folder for everything; default: one in this folder, called like the file without its suffix.
        workers: local processes, default one a GPU, or one a core; 0 works in this process.
        cluster: work on a Dask cluster: the address of its scheduler (``tcp://host:port``), or ``slurm``,
            ``pbs``, ``sge`` or ``lsf``.
        dry_run: only read the study, list its cells and say which are finished.
        progress: show what is done and how long the rest will take.

    Returns:
        The table and what failed.

    Raises:
        parts2whole.study.read.StudyError: the study can't be read; nothing has been run.
        parts2whole.training.stop.Interrupted: Ctrl-C or SIGTERM; finished cells stay.
        BenchmarkError: not a single cell could be finished.
        parts2whole.report.marks.TableError: a metric that a task's fine-tunings don't have.
        parts2whole.jobs.run.JobError: a number of workers or a cluster that can't be used.
    """
    check_workers(workers, cluster)
    study = read_study(spec, out=Path(spec).stem if out is None else out, verbs=study_verbs())
    check_paths(study)
    gpus = torch.cuda.device_count()
    if progress:
        place = cluster or (f"{gpus} x {torch.cuda.get_device_name(0)}" if gpus else "the CPU")
        told = [f"{study.describe()}, on {place}", *(f"Note: {note}." for note in study.notes)]
        print("\n".join(map(fill, told)), flush=True)
    reused = sum(is_finished(finetuning.folder) for finetuning in study.finetunings)
    if dry_run:
        for finetuning in study.finetunings:
            print(f"{'finished' if is_finished(finetuning.folder) else 'to do':<8}  {finetuning.title}")
        listing = _list(study, reused, write=False)
        return Benchmark(study.out, _table(listing, listing.read()), reused, reused, {})
    _list(study, reused, write=True)  # endpoints are named before anything runs
    count = workers if workers is not None or cluster or not gpus else gpus
    try:
        _make_data(study, workers=workers, cluster=cluster, progress=progress)
        first, then = make_jobs(study, local_workers=count, cluster=cluster is not None)
        failures = _run_all(first, then, workers=count, cluster=cluster, progress=progress)
    except KeyboardInterrupt as error:
        code = getattr(error, "exit_code", INTERRUPTED)
        message = "stopped; finished cells stay, run the same command to go on"
        raise Interrupted(message, exit_code=code) from None
    table, conclusion = _write(study)
    finished = sum(is_finished(finetuning.folder) for finetuning in study.finetunings)
    done = Benchmark(study.out, table, finished, reused, failures, conclusion)
    if not finished:
        raise BenchmarkError(done.summary())
    return done


def study_verbs() -> Verbs:
    """What studies call."""
    return Verbs(prepare, pretrain, finetune, GENERATORS)


def _make_data(study: Study, *, workers: int | None, cluster: str | None, progress: bool) -> None:
    """Generate data, prepare stores and labelled data, once, before several workers want them."""
    for generated in study.generated:
        _generate(generated, progress)
    for store in study.stores:
        prepare(out=store.folder, **store.settings, workers=workers, cluster=cluster, progress=progress)
    for name, task in study.tasks.items():
        labelled = task.labelled(cache=default_cache(), workers=workers, progress=progress)
        refuse_others(study, name, labelled)


def _generate(generated: Generated, progress: bool) -> None:
    """Make data unless they are complete; a mark says that they are."""
    mark = generated.folder / "complete.json"
    if mark.exists():
        return
    if progress:
        print(f"Making data: {generated.kind}", flush=True)
    load_generator(generated.kind, GENERATORS[generated.kind])(out=generated.folder, **generated.settings)
    write_json(mark, {"kind": generated.kind})


def _run_all(
    first: Sequence[Job],
    then: Sequence[Job],
    *,
    workers: int | None,
    cluster: str | None,
    progress: bool,
) -> dict[str, str]:
    """Run pre-trainings and cells without one, then cells whose pre-training succeeded."""
    work = partial(do_job, pretrain=pretrain, finetune=finetune)
    failures: dict[str, str] = {}
    broken: dict[str, str] = {}
    with Reporter([job.kind for job in (*first, *then)], show=progress) as reporter:
        for outcome in run_jobs(work, first, lost=_lost, workers=workers, cluster=cluster):
            _note(outcome, failures, reporter)
            if outcome.failed:
                broken[outcome.digest] = outcome.title
        for job in then:
            if job.needs in broken:
                message = f"not run, as its pre-training failed ({broken[job.needs]})"
                _note(Outcome(job.title, job.kind, job.digest, 0.0, message), failures, reporter)
        possible = [job for job in then if job.needs not in broken]
        for outcome in run_jobs(work, possible, lost=_lost, workers=workers, cluster=cluster):
            _note(outcome, failures, reporter)
    return failures


def _note(outcome: Outcome, failures: dict[str, str], reporter: Reporter) -> None:
    line = f"{outcome.title}: {outcome.message}"
    if outcome.failed:
        failures[outcome.title] = outcome.message
        line = f"FAILED {line}"
    reporter.finish(outcome.kind, line, outcome.seconds, failed=outcome.failed)


def _lost(job: Job) -> Outcome:
    message = "its process was killed twice, perhaps for want of memory"
    write_text(job.failure, message + "\n")
    return Outcome(job.title, job.kind, job.digest, 0.0, message)


def _list(study: Study, finished: int, *, write: bool) -> Listing:
    """What of the study is finished, and how it is judged; ``write`` keeps when endpoints were named."""
    metrics = {one.task: one.metric for one in study.finetunings if one.metric}
    judged = {task: study.tasks[task].monitor for task in study.tasks} | metrics
    how = {f"metric of {task}": metric for task, metric in judged.items()} | USUAL | dict(study.table)
    named = name_endpoints(study.out, study.endpoints, how=how, finished=finished, write=write)
    folders = [one.folder for one in study.pretrainings.values()]
    folders += [one.folder for one in study.finetunings]
    return Listing(
        study.name,
        study.arms,
        tuple(folder for folder in folders if is_finished(folder)),
        study.table,
        metrics,
        tuple(dict.fromkeys(one.task for one in study.finetunings if one.steps is not None)),
        named.endpoints,
        named.dropped,
        named.changed,
        {one.folder: one.arm for one in study.pretrainings.values()},
    )


def _table(listing: Listing, runs: list[Run]) -> Table | None:
    done = finished_finetunings(runs)
    return listing.tabulate(done) if done else None


def _write(study: Study) -> tuple[Table | None, Conclusion | None]:
    """The tables, every fine-tuning's result, the endpoints and what they show, and the report."""
    listing = _list(study, 0, write=False)
    runs = listing.read()
    table, conclusion = _table(listing, runs), None
    listing.write(study.out, source=study.source)
    if table is not None:
        endpoints = listing.measure(runs)
        conclusion = listing.conclude(endpoints)
        if conclusion is not None:
            write_rows(study.out / "endpoints.csv", to_rows(endpoints))
            write_text(study.out / "verdict.txt", conclusion.text)
        for name, write in FORMATS.items():
            write_text(study.out / name, write(table))
        rows = [
            {key: row[key] for key in row if key not in ("settings", "folder", "cases")}
            for row in result_rows(runs)
        ]
        write_rows(study.out / "results.csv", rows)
    if runs:
        pretrained = [run for run in runs if run.kind == "pretrain"]
        for name, draw in FIGURES.items():
            with contextlib.suppress(FigureError):  # too few validations to draw, or no embedding
                draw(study.out / name, pretrained)
        write_report(study.out)
    return table, conclusion
