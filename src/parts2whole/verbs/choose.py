"""Which weights? Candidates are tried on one's own few labels, at equal cost, and judged by paired tests.

Underneath is a study: every candidate is probed frozen and fine-tuned shortly, on the same labels and with
the same seeds.  What has seen validation or test cases is said so and set apart.  Same settings, same folder:
it goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from parts2whole.errors import Parts2WholeError, plural
from parts2whole.files import write_json, write_text
from parts2whole.progress import fill
from parts2whole.report.certainty import FEW, Sure, compare_patients
from parts2whole.report.study import read_listing
from parts2whole.report.summary import format_duration
from parts2whole.report.tables import Row, Table, higher_is_better, metric_title
from parts2whole.tasks.base import Task
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.training.leak import find_leaks
from parts2whole.training.runtime import Hardware
from parts2whole.training.transfer import Transfer, open_transfer
from parts2whole.verbs import paste, words
from parts2whole.verbs.benchmark import benchmark
from parts2whole.verbs.finetune import Treatment
from parts2whole.weights.load import SCRATCH

STUDY, CHOICE, VERDICT = "choose.yaml", "choice.json", "choice.txt"
TUNED, FROZEN = "fine-tuned", "frozen"
"""Names of the two tasks of the study: it judges by the first."""
ALPHA = 0.05


class ChooseError(Parts2WholeError, ValueError):
    """Candidates among which nothing can be chosen, or labels that nothing can be tested on."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Weights that were named.

    Attributes:
        name: what they are called in the study.
        init: how they are named there: a path, ``hf:OWNER/NAME@COMMIT``, ``SOURCE:PATH`` or ``scratch``.
        transfer: the weights and the labelled data; None where they can't be used.
        reason: why they are set apart; empty if they aren't.
    """

    name: str
    init: str
    transfer: Transfer | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Which weights to use, and what that rests on.

    Attributes:
        folder: of the study; its page is ``report.html``.
        best: the candidate with the highest figure after fine-tuning; None where none could be finished.
        init: how it is given to `finetune`.
        told: sentences of the verdict, the answer first.
        then: the command that may come next.
        scores: mean figure of every candidate, by ``fine-tuned`` and ``frozen``.
        apart: why candidates were set apart, by name.
        failed: some work failed; the command line then ends with a non-zero code.
    """

    folder: Path
    best: str
    init: str
    told: tuple[str, ...]
    then: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float]]
    apart: Mapping[str, str]
    failed: bool

    def summary(self) -> str:
        """The verdict, what to do with it, and where the page is."""
        told = map(fill, self.told)
        return "\n".join([*told, *self.then, *words.tell_report(self.folder)])


def choose(
    task: Task,
    *,
    init: Sequence[str | Path],
    out: str | Path,
    cases: int | None = None,
    seeds: int = 3,
    steps: int = 200,
    batch_size: int = 4,
    lr: float | None = None,
    encoder: Treatment = "train",
    workers: int | None = None,
    hardware: Hardware = Hardware(),
    progress: bool = True,
) -> Chosen:
    """Try weights on a target task and say which to use.

    Each is probed (frozen, with a linear decoder or head) and fine-tuned for a few steps, with the same
    labels, seeds and steps.  Differences to the best are tested by a bootstrap over test patients and runs,
    at a level that is shared out among the others.

    Args:
        task: the target task; its split is by patient.
        init: candidates: run folders, weights folders, ``hf:OWNER/NAME[@REVISION]``, ``SOURCE:PATH``, and
            ``scratch``, which has the network of the first.
        out: folder of the study.
        cases: number of training patients whose labels are used; default all.
        seeds: repetitions, each with its own labels if ``cases`` leaves some out; from one nothing is told.
        steps: optimiser steps of every run.
        batch_size: samples in a batch.
        lr: learning rate instead of the usual one.
        encoder: how it is fine-tuned, as for `finetune`.
        workers: local processes, as for `benchmark`.
        hardware: devices, precision, loader threads.
        progress: show what is done and how long the rest will take.

    Returns:
        The best, what is told from it and what isn't, what was set apart, and the cost.

    Raises:
        ChooseError: fewer than two candidates can be used, or there are no test cases.
        parts2whole.tasks.labelled.TaskError: labelled data that can't be used.
        parts2whole.verbs.benchmark.BenchmarkError: not a single run could be finished.
    """
    found = [_look_at(candidate, task, progress) for candidate in _name(init)]
    usable = [one for one in found if not one.reason]
    apart = {one.name: one.reason for one in found if one.reason}
    if len(usable) < 2:
        left = f"only {usable[0].name} is left" if usable else "none is left"
        reasons = "; ".join(f"{name} {reason}" for name, reason in apart.items())
        raise ChooseError(
            f"there must be two candidates to choose from, {left}{': ' if apart else ''}{reasons}"
        )
    folder = Path(out)
    finetuning: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "validate_every": max(1, steps // 4),
    }
    finetuning |= {} if lr is None else {"lr": lr}
    study = _study(task, usable, apart, finetuning, encoder)
    study |= {"seeds": seeds, "hardware": hardware.to_dict(), "keep_models": False}
    study |= {"fractions": [1.0]} if cases is None else {"cases": [cases]}
    path = write_text(folder / STUDY, yaml.safe_dump(study, sort_keys=False, allow_unicode=True))
    done = benchmark(path, out=folder, workers=workers, progress=progress)
    best = _best(done.table) if done.table else None
    if best is None:
        raise ChooseError(f"no candidate was fine-tuned: {'; '.join(done.failures.values())}")
    # Once more, with nothing left to run, so that the page compares with the best.
    write_text(path, yaml.safe_dump(study | {"table": {"focus": best}}, sort_keys=False, allow_unicode=True))
    benchmark(path, out=folder, workers=0, progress=False)
    told, scores = _tell(folder, best, apart, done.failures)
    write_text(folder / VERDICT, "\n".join(told) + "\n")
    chosen = next(one.init for one in usable if one.name == best)
    write_json(
        folder / CHOICE, {"best": best, "init": chosen, "scores": scores, "apart": apart, "told": told}
    )
    then = paste.next_step("fine-tune it", _command(task, chosen, usable, cases, folder))
    return Chosen(folder, best, chosen, tuple(told), tuple(then), scores, apart, bool(done.failures))


def _name(init: Sequence[str | Path]) -> list[Candidate]:
    """Candidates with short names, that differ; paths are made absolute, for the study's file."""
    texts = list(dict.fromkeys(map(str, [init] if isinstance(init, str | Path) else init)))
    short = [SCRATCH if text == SCRATCH else Path(text.removeprefix("hf:")).name for text in texts]
    found = []
    for text, name in zip(texts, short, strict=True):
        source, colon, rest = text.partition(":")
        given = text
        if Path(text).exists():
            given = str(Path(text).absolute())
        elif colon and source != "hf":
            given = f"{source}:{Path(rest).expanduser().absolute()}"
        found.append(Candidate(name if short.count(name) == 1 else text, given))
    return found


def _look_at(candidate: Candidate, task: Task, progress: bool) -> Candidate:
    """Load the weights and compare what they have seen with what is judged on."""
    if candidate.init == SCRATCH:
        return candidate
    try:
        found = open_transfer(
            task, candidate.init, network=None, reported=(), accept_leak=None, cache=None, progress=progress
        )
    except Parts2WholeError as error:
        return dataclasses.replace(candidate, reason=f"can't be used: {error}")
    if not found.split.test:
        raise ChooseError(f"{task.data} has no test cases by the split of {type(task).__name__}")
    assert found.start is not None
    card = found.start.card
    for side in ("test", "validation"):
        items = getattr(found.split, side)
        leaks = find_leaks(found.labelled, items, seen=card.seen, series=card.series)
        if leaks:
            judged = len({found.labelled.item(item).case_id for item in items})
            return dataclasses.replace(
                candidate, reason=f"has seen {len(leaks)} of your {judged} {side} cases"
            )
    return dataclasses.replace(candidate, init=card.fetched or candidate.init, transfer=found)


def _study(
    task: Task,
    usable: Sequence[Candidate],
    apart: Mapping[str, str],
    finetuning: Mapping[str, Any],
    encoder: Treatment,
) -> dict[str, Any]:
    """The study's file, as plain data."""
    given = next((one.init for one in usable if one.name != SCRATCH), None)
    arms: dict[str, Any] = {one.name: {"init": one.init} for one in usable}
    if SCRATCH in arms and given is not None:  # its network, and scans prepared as for it
        arms[SCRATCH]["network_from"] = given
    plain = task.replace(data=Path(task.data).absolute()).to_dict()
    linear = {"decoder": "linear"} if isinstance(task, SegmentationTask) else {}
    said = "; ".join(f"{name} {reason}" for name, reason in apart.items())
    return {
        "name": f"Which weights for {type(task).__name__}?{f' Set apart: {said}.' if said else ''}",
        "arms": arms,
        "tasks": {
            TUNED: {"task": plain, "finetune": {**finetuning, "encoder": encoder}},
            FROZEN: {"task": plain, "finetune": {**finetuning, "encoder": "freeze", **linear}},
        },
    }


def _best(table: Table) -> str | None:
    """The arm with the best mean after fine-tuning."""
    row = _row(table, TUNED)
    if row is None:
        return None
    sign = 1 if higher_is_better(row.metric) else -1
    return max(row.cells, key=lambda arm: sign * row.cells[arm].mean)


def _row(table: Table, task: str) -> Row | None:
    return next((row for row in table.rows if row.task == task), None)


def _tell(
    folder: Path, best: str, apart: Mapping[str, str], failures: Mapping[str, str]
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """The verdict in words, and the mean figures of every candidate."""
    listing = read_listing(folder)
    assert listing is not None
    runs = listing.read()
    table = listing.tabulate(runs)
    scores = {row.task: {arm: cell.mean for arm, cell in row.cells.items()} for row in table.rows}
    row = _row(table, TUNED)
    assert row is not None
    rivals = [arm for arm in row.cells if arm != best]
    confidence = 1 - ALPHA / max(1, len(rivals))
    sure: dict[tuple[str, str], Sure] = {}
    for rival in rivals:
        against = listing.tabulate(runs, focus=best, against=rival)
        sure |= {
            (one.task, rival): one for one in compare_patients(runs, against, confidence=confidence).rows
        }
    patients = max((one.found.patients for one in sure.values() if one.found), default=0)
    told = [
        f"Use {best}: {metric_title(row.metric)} {row.cells[best].mean:.3f} after fine-tuning, the mean of "
        f"{plural(row.cells[best].n, 'seed')} on {plural(patients, 'test patient')}."
    ]
    told += [_against(rival, sure.get((TUNED, rival)), higher_is_better(row.metric)) for rival in rivals]
    told += [f"{name} {reason}; it was set apart and not run." for name, reason in apart.items()]
    told += [f"{title} failed: {message}" for title, message in failures.items()]
    frozen = _row(table, FROZEN)
    if frozen is not None:
        order = sorted(frozen.cells.values(), key=lambda cell: -cell.mean)
        listed = ", ".join(f"{cell.arm} {cell.mean:.3f}" for cell in order)
        told.append(f"Frozen, with what is linear on top: {listed}.")
    done = [run for run in runs if run.kind == "finetune"]
    seconds = sum(float(run.result.get("duration_s") or 0) for run in done)
    told.append(
        f"Cost: {plural(len(done), 'short run')} of equal length, "
        f"{format_duration(round(seconds))} of training in all."
    )
    if 0 < patients < FEW or row.cells[best].n < FEW:
        told.append(
            "So few patients or seeds make intervals somewhat too narrow; and it was chosen on these test "
            f"cases, which flatters {best}: measure it on others."
        )
    return told, scores


def _against(rival: str, sure: Sure | None, higher: bool) -> str:
    """Whether a candidate is told from the best."""
    if sure is None or sure.found is None:
        why = sure.reason if sure is not None else "it was not finished"
        return f"{rival} could not be compared: {why}."
    if sure.found.interval_runs is None:
        return (
            f"{rival} is {abs(sure.found.estimate):.3f} apart, which one seed doesn't tell from the noise of "
            "training: give more --seeds."
        )
    low, high = sure.found.interval
    level = f"{100 * sure.found.confidence:.3g} % interval {low:.3f} to {high:.3f}"
    worse = low > 0 if higher else high < 0
    if worse:
        return f"{rival} is worse, by {abs(sure.found.estimate):.3f} ({level})."
    return f"{rival} is not told from it: {abs(sure.found.estimate):.3f} apart ({level})."


def _command(task: Task, init: str, usable: Sequence[Candidate], cases: int | None, folder: Path) -> str:
    """How the chosen weights are fine-tuned."""
    network = next((one.init for one in usable if one.transfer), None)
    arm = {"network_from": network} if init == SCRATCH and network else {}
    few = {} if cases is None else {"cases": cases}
    out = paste.unused(folder.with_name(f"{folder.name}-finetuned"))
    return paste.command("finetune", task=task, init=init, **arm, **few, out=out)
