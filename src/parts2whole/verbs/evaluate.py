"""Measure a fine-tuned model case by case: Dice, IoU and surface distance, or AUC and average precision."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from parts2whole.files import write_json, write_rows
from parts2whole.store.split import read_split
from parts2whole.tasks.base import TaskError, default_cache
from parts2whole.training.leak import check_leaks, find_leaks
from parts2whole.training.model import as_function, load_model
from parts2whole.training.runtime import Hardware, Runtime


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics over the cases of one side, and a CSV with each case.

    Attributes:
        side: of the run's data.
        metrics: over its cases.
        csv: a row a case.
        leak: the mark of a result on cases that training saw; None for an honest one.
    """

    side: str
    metrics: dict[str, float]
    csv: Path
    leak: str | None = None

    def summary(self) -> str:
        """The metrics as a few lines."""
        lines = [*([self.leak] if self.leak else []), f"{self.side} cases:"]
        lines += [f"  {name:<22} {value:.4f}" for name, value in self.metrics.items()]
        return "\n".join([*lines, f"Every case: {self.csv}"])


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
        parts2whole.tasks.base.TaskError: labelled data that can't be used.
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
    if labelled.classes != card.classes:
        raise TaskError(
            f"the model knows the classes {', '.join(card.classes)}, "
            f"the data have {', '.join(labelled.classes)}"
        )
    split = read_split(folder / "split.json")
    items = tuple(i.item_id for i in labelled.items) if side == "all" else getattr(split, side)
    if not items:
        raise TaskError(f"there is no {side} case to evaluate")
    fresh = items if data is not None else [i for i in items if i in {*split.validation, *split.test}]
    known = (*card.seen, *(card.trained if data is not None else ()))
    leaks = find_leaks(labelled, fresh, seen=known, series=card.series)
    leak = check_leaks(leaks, accept_leak=accept_leak, where=side)
    run_model = as_function(runtime.place_module(module), runtime)
    found = task.examine(run_model, labelled, items, thorough=True)
    target = Path(out) if out else folder / "evaluation" / side
    write_rows(target / "cases.csv", found.per_item)
    write_json(target / "metrics.json", found.metrics | ({"leak": leak} if leak else {}))
    return Evaluation(side, found.metrics, target / "cases.csv", leak)
