"""Whether the data and weights that a study names are there, and those that its finished runs had."""

from __future__ import annotations

from pathlib import Path

from parts2whole.errors import name_some
from parts2whole.files import read_json
from parts2whole.run_folder import RESULT, SPLIT
from parts2whole.study.plan import Study
from parts2whole.study.read import StudyError
from parts2whole.study.work import is_finished
from parts2whole.tasks.labelled import CHANGED, LabelledData
from parts2whole.tasks.sides import MARKS
from parts2whole.weights.hub import PREFIX
from parts2whole.weights.load import SCRATCH
from parts2whole.weights.native import encoder_hash


def check_paths(study: Study) -> None:
    """Raise `StudyError` for data or weights that don't exist and that the study doesn't make itself."""
    made = [generated.folder for generated in study.generated] + [store.folder for store in study.stores]
    wanted = {f"tasks.{name}.task.data": str(task.data) for name, task in study.tasks.items()}
    for store in study.stores:
        for scans in store.settings["scans"]:
            if not set("*?[") & set(str(scans)):
                wanted[f"data.stores ({store.folder.name})"] = str(scans)
    for one in study.pretrainings.values():
        wanted[f"{one.arm}: pretrain.store"] = str(one.settings["store"])
        wanted |= _weights(f"{one.arm}: pretrain.init", one.settings.get("init", SCRATCH))
    for finetuning in study.finetunings:
        if finetuning.pretraining is None:
            wanted |= _weights(f"arms.{finetuning.arm}.init", finetuning.settings["init"])
    missing = [
        f"{where}: {path} doesn't exist"
        for where, path in wanted.items()
        if not any(Path(path).is_relative_to(folder) for folder in made) and not Path(path).exists()
    ]
    if missing:
        raise StudyError(
            f"{study.source}: " + "; ".join(missing) + ". Paths are relative to the study's file"
        )


def _weights(where: str, init: object) -> dict[str, str]:
    """The path of weights, by its place in the study's file; none from scratch or on a hub."""
    text = str(init)
    return {} if text == SCRATCH or text.startswith(PREFIX) else {where: text.rpartition(":")[2]}


def refuse_others(study: Study, task: str, labelled: LabelledData) -> None:
    """Refuse labelled data or weights that aren't those of fine-tunings of a task that are finished.

    Raises:
        StudyError: they would stand in one table, and nothing would say so.
    """
    now = labelled.marks(item.item_id for item in labelled.items)
    weights: dict[str, str] = {}
    finished = [one for one in study.finetunings if one.task == task and is_finished(one.folder)]
    ways = f"Put them back, begin anew with another --out, or delete what is finished of {task} in"
    for one in finished:
        then = read_json(one.folder / SPLIT).get(MARKS) or {}
        changed = [case for case in then if case in now and not _is_same(then[case], now[case])]
        if changed:
            raise StudyError(
                f"{name_some(changed)} of {task} changed since {one.title} was finished: {CHANGED}. {ways} "
                f"{one.folder.parent}"
            )
        init, kept = str(one.settings["init"]), read_json(one.folder / RESULT).get("init_hash")
        if one.pretraining is None and kept:
            if init not in weights:
                weights[init] = encoder_hash(init)
            if weights[init] not in ("", kept):
                raise StudyError(
                    f"the weights in {init} aren't those that {one.title} was fine-tuned from. {ways} "
                    f"{one.folder.parent}"
                )


def _is_same(then: str, now: str) -> bool:
    """Whether two marks are of one case, perhaps prepared otherwise."""
    return then.partition("-")[0] == now.partition("-")[0]
