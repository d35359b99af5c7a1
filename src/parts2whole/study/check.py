"""Whether the data and weights that a study names are there, before anything runs."""

from __future__ import annotations

from pathlib import Path

from parts2whole.study.plan import Study
from parts2whole.study.read import StudyError
from parts2whole.weights.hub import PREFIX
from parts2whole.weights.load import SCRATCH


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
