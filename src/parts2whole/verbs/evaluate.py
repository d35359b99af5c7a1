"""Measure a fine-tuned model case by case: Dice, IoU and surface distance, or AUC and average precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from parts2whole.errors import plural, tell_reasons
from parts2whole.evaluation.regions import GRIDS
from parts2whole.files import write_json, write_rows
from parts2whole.progress import watching
from parts2whole.report.by_class import list_figures
from parts2whole.run_folder import SPLIT
from parts2whole.store.split import read_split
from parts2whole.tasks.base import default_cache
from parts2whole.tasks.labelled import LabelledData, TaskError
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.tasks.sides import refuse_changed
from parts2whole.training.leak import check_leaks, find_leaks
from parts2whole.training.model import ModelCard, as_function, load_model
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.verbs import paste, words

FIGURES = "metrics.json"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics over the cases of one side, and a CSV with each case.

    Attributes:
        side: of the run's data.
        metrics: over its cases.
        csv: a row a case.
        leak: the mark of a result on cases that training saw; None for an honest one.
        grid: voxels that a segmentation was scored on; see `parts2whole.tasks.base.Examination`.
        set_aside: reason for every case that failed and is in no metric.
        notes: what the user should know of the data.
        classes: their names.
        next: what may come next, in lines.
        cases: how many were to be measured.
    """

    side: str
    metrics: dict[str, float]
    csv: Path
    leak: str | None = None
    grid: str = ""
    set_aside: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    next: tuple[str, ...] = ()
    cases: int = 0

    @property
    def failed(self) -> bool:
        """Whether a case failed; the command line then ends with a non-zero code."""
        return bool(self.set_aside)

    def summary(self) -> str:
        """The metrics class by class, then notes, what failed, and what may come next."""
        where = f", {GRIDS[self.grid]}" if self.grid else ""
        lines = [*([self.leak] if self.leak else []), f"{self.side} cases{where}:"]
        lines += list_figures(self.metrics, self.classes)
        lines += [f"Every case: {self.csv}", f"All figures: {self.csv.with_name(FIGURES)}"]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  {line}" for line in tell_reasons(self.set_aside, of=self.cases)]
        return "\n".join([*lines, *self.next])


def evaluate(
    run: str | Path,
    *,
    data: str | Path | None = None,
    side: Literal["test", "validation", "train", "all"] = "test",
    out: str | Path | None = None,
    accept_leak: str | None = None,
    cache: str | Path | None = None,
    hardware: Hardware = Hardware(),
    progress: bool = True,
) -> Evaluation:
    """Measure the model of a fine-tuning run.

    Args:
        run: folder of a finished `finetune`.
        data: other labelled data of the same kind; then every case counts, and ``side`` must be ``all``.
        side: which cases of the run's own data.
        out: folder for the CSV and JSON; default ``evaluation/<side>`` in the run folder.
        accept_leak: a sentence, which the error names, to go on although cases were seen in training; the
            result is then marked.
        cache: where prepared labelled data are kept; default ``~/.cache/parts2whole``.
        hardware: device and precision; one device is used.
        progress: say what is being done.

    Returns:
        The metrics, and the path of the per-case CSV.

    Raises:
        parts2whole.training.model.ModelError: ``run`` holds no finished model.
        parts2whole.tasks.labelled.TaskError: labelled data that can't be used.
        parts2whole.training.leak.LeakError: validation, test or other data were seen in training.
    """
    folder = Path(run)
    module, card = load_model(folder)
    runtime = Runtime(hardware.replace(devices=1, nodes=1))
    task = card.task if data is None else card.task.replace(data=Path(data))
    if data is not None:
        side = "all"
    kept = Path(cache) if cache else default_cache()
    labelled = task.labelled(cache=kept, progress=progress)
    if isinstance(task, SegmentationTask):
        labelled = task.with_classes(labelled, card.classes)
        if not card.mask_values and tuple(map(str, task.mask_values(labelled.classes))) == card.classes:
            card = dataclasses.replace(
                card, classes=labelled.classes
            )  # version 0.1.0 called classes by values
    if labelled.classes != card.classes:
        raise TaskError(
            f"the model knows the classes {', '.join(card.classes)}, "
            f"the data have {', '.join(labelled.classes)}"
        )
    split = read_split(folder / SPLIT)
    everything = tuple(item.item_id for item in labelled.items)
    wanted: Sequence[str] = everything if side == "all" else getattr(split, side)
    set_aside = dict(labelled.set_aside) if side == "all" else {}
    for item in wanted:
        reason = _why_not(item, labelled, card)
        if reason:
            set_aside[item] = reason
    items = tuple(item for item in wanted if item not in set_aside)
    if not items:
        reasons = "; ".join(tell_reasons(set_aside, of=len({*wanted, *set_aside})))
        raise TaskError(f"there is no {side} case to evaluate. {reasons}".rstrip(". "))
    if data is None:
        refuse_changed(labelled, folder, items=items)
    measured = {*split.validation, *split.test}
    fresh = items if data is not None else [item for item in items if item in measured]
    known = (*card.seen, *((*card.trained, *card.chosen_on) if data is not None else ()))
    leaks = find_leaks(labelled, fresh, seen=known, series=card.series)
    leak = check_leaks(leaks, accept_leak=accept_leak, where=side)
    if progress:
        told = plural(len(items), f"{side} case" if side != "all" else "case")
        first = words.describe_work(str(folder), told, network=card.network, module=module, runtime=runtime)
        print(first, flush=True)
    run_model = as_function(runtime.place_module(module), runtime)
    with watching("Evaluating", len(items), show=progress):
        found = task.examine(run_model, labelled, items, thorough=True)
    set_aside |= found.failed
    if not found.per_item:
        raise TaskError("no case could be evaluated. " + "; ".join(tell_reasons(set_aside, of=len(wanted))))
    target = Path(out) if out else folder / "evaluation" / side
    write_rows(target / "cases.csv", found.per_item)
    about = {"leak": leak, "grid": found.grid, "set_aside": set_aside}
    write_json(target / FIGURES, found.metrics | {key: said for key, said in about.items() if said})
    notes = tuple(note for note in labelled.notes if " set aside: " not in note)
    masks = paste.command(
        "predict", folder, paste.scans_of(task.data), out=paste.unused(folder / "predictions")
    )
    return Evaluation(
        side,
        found.metrics,
        target / "cases.csv",
        leak,
        found.grid,
        set_aside,
        notes,
        card.classes,
        tuple(paste.next_step("its masks or classes for scans", masks)),
        len({*wanted, *set_aside}),
    )


def _why_not(item: str, labelled: LabelledData, card: ModelCard) -> str:
    """Why an item can't be evaluated; empty where it can."""
    try:
        case = labelled.item(item).case_id
    except TaskError as error:
        reasons = labelled.set_aside.items()
        return next((why for name, why in reasons if item == name or item.startswith(f"{name}-")), str(error))
    channels = labelled.store.record(case).channels
    if channels != card.in_channels:
        return f"the model expects {card.in_channels} channels, it has {channels}"
    return ""
