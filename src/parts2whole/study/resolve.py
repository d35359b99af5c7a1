"""Reads a study file and lays it out; nothing is run, and every mistake is named by its place."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Sequence
from pathlib import Path

import yaml

from parts2whole.study.aliases import NoAlias, plain_010
from parts2whole.study.asked import Arm, TargetTask, Verbs
from parts2whole.study.file import THIS_FOLD, THIS_SEED, THIS_TASK, StudyFile
from parts2whole.study.plan import (
    CELLS,
    PRETRAININGS,
    Finetuning,
    Pretraining,
    Settings,
    Study,
    folder_name,
    name_labels,
    settings_digest,
)
from parts2whole.study.read import ArgumentsError, StudyError, read_mapping, read_yaml
from parts2whole.tasks.base import Task
from parts2whole.weights.load import SCRATCH


def read_study(path: str | Path, *, out: str | Path, verbs: Verbs) -> Study:
    """Read a study file.

    Args:
        path: the YAML file; paths in it are relative to its folder.
        out: folder of the results.
        verbs: what the study calls.

    Raises:
        StudyError: the file can't be read, or asks for something that doesn't exist.
    """
    source = Path(path)
    try:
        plain = read_yaml(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{source} can't be read: {error}") from error
    except yaml.YAMLError as error:
        raise StudyError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    try:
        file = StudyFile(source.resolve(), Path(out).resolve(), verbs, read_mapping(plain, "the study"))
        return _Layout(file).study()
    except ArgumentsError as error:
        raise StudyError(f"{source}: {error}") from error


class _Layout:
    """The pre-trainings and fine-tunings of a study, while they are laid out."""

    def __init__(self, file: StudyFile) -> None:
        self.file = file
        self.arms = file.arms()
        self.from_scratch, self.notes = self._from_scratch()
        self.pretrainings: dict[str, Pretraining] = {}
        self.keys_010: dict[str, str] = {}  # digests as version 0.1.0 made them, by today's

    def study(self) -> Study:
        file, tasks = self.file, self.file.tasks()
        finetunings = [cell for task in tasks for cell in self._cells(task)]
        if len({finetuning.folder for finetuning in finetunings}) < len(finetunings):
            raise StudyError(
                "two fine-tunings have the same arm, task, labels, steps and seed; is a value listed twice?"
            )
        # every arm gets its first seed before any gets its second
        finetunings.sort(key=lambda finetuning: finetuning.seed)
        names = tuple(arm.name for arm in self.arms)
        return Study(
            name=str(file.plain.get("name") or file.source.stem),
            source=file.source,
            out=file.out,
            generated=tuple(file.generated.values()),
            stores=tuple(file.stores.values()),
            tasks={task.name: task.task for task in tasks},
            arms=names,
            pretrainings=self.pretrainings,
            finetunings=tuple(finetunings),
            table=file.table(names, tasks),
            endpoints=file.endpoints(tasks),
            keep_models=file.keep_models,
            notes=self.notes,
        )

    def _cells(self, target: TargetTask) -> list[Finetuning]:
        """The fine-tunings of a task."""
        folds = [target.task if fold is None else target.task.replace(fold=fold) for fold in target.folds]
        return [
            self._finetuning(arm, target, task, labels, steps, seed)
            for labels, steps, seed, arm, task in itertools.product(
                target.labels, target.lengths, target.seeds, self.arms, folds
            )
        ]

    def _from_scratch(self) -> tuple[Settings, tuple[str, ...]]:
        """The network of arms from scratch that have none of their own: that of those they are compared with.

        Returns:
            Settings of `finetune`, and what the user should know.

        Raises:
            StudyError: the others differ among themselves, and the study doesn't say which network counts.
        """
        asking = [
            arm.name
            for arm in self.arms
            if arm.init == SCRATCH and arm.network is None and arm.network_from is None
        ]
        study = self.file.network
        trained = {arm.name: arm.network or study for arm in self.arms if arm.method is not None}
        given = {arm.name: arm.init for arm in self.arms if arm.init not in (None, SCRATCH)}
        if not asking or not (trained or given):
            return ({} if study is None else {"network": study}), ()
        usual = inspect.signature(self.file.verbs.pretrain).parameters["network"].default
        if len({network or usual for network in trained.values()}) == 1:
            chosen = next(iter(trained.values()))
        elif study is not None:
            chosen = study
        elif not trained and len(set(given.values())) == 1:
            return {"network_from": next(iter(given.values()))}, ()
        else:
            raise StudyError(
                f"arms.{asking[0]} needs network: {', '.join([*trained, *given])} may have different ones, "
                "and from scratch is comparable with what has its own; give it one, or the whole study"
            )
        others = [name for name, network in trained.items() if (network or usual) != (chosen or usual)]
        notes = tuple(
            f"{', '.join(names)} {why} than {', '.join(asking)}, so between them not only the start differs"
            for names, why in ((others, "trains another network"), (list(given), "may bring another network"))
            if names
        )
        return ({} if chosen is None else {"network": chosen}), notes

    def _finetuning(
        self, arm: Arm, target: TargetTask, task: Task, labels: Settings, steps: int | None, seed: int
    ) -> Finetuning:
        settings: Settings = self.file.finetune | target.finetune | arm.finetune
        if steps is not None:
            if "steps" in arm.finetune:
                raise StudyError(
                    f"arms.{arm.name}.finetune.steps: {target.name} has several numbers of steps, which "
                    "every arm must have alike; leave them out here"
                )
            settings["steps"] = steps
        settings |= {"task": task, "seed": seed, "hardware": self.file.hardware} | labels
        start = None
        if arm.method is not None:
            start = self._pretraining(arm, target, task, seed)
            start = self.pretrainings.setdefault(start.digest, start)
            settings["init"] = str(start.folder)
        else:
            settings["init"] = arm.init
            if arm.network_from:
                settings["network_from"] = arm.network_from
            elif arm.init == SCRATCH or arm.network:
                settings |= {"network": arm.network} if arm.network else self.from_scratch
        words = [target.name, name_labels(labels), arm.name, f"seed{seed}"]
        words += [f"fold{task.fold[0]}"] if task.fold else []
        key, folder = self._kept(CELLS, words, settings, start)
        return Finetuning(
            arm.name,
            target.name,
            labels,
            seed,
            settings,
            start.digest if start else None,
            key,
            folder,
            target.metric,
            steps,
            task.fold,
        )

    def _pretraining(self, arm: Arm, target: TargetTask, task: Task, seed: int) -> Pretraining:
        settings: Settings = self.file.pretrain | target.pretrain | arm.pretrain
        if "store" not in settings:
            known = f": one of {', '.join(self.file.stores)}, or a folder" if self.file.stores else ""
            raise StudyError(f"pretrain (or tasks.{target.name}.pretrain) needs store{known}")
        if settings["store"] in self.file.stores:
            settings["store"] = self.file.stores[settings["store"]].folder
        if settings.get("held_out") == THIS_FOLD and not task.fold:
            raise StudyError(f"pretrain.held_out is fold, and tasks.{target.name} has no folds; write task")
        if settings.get("held_out") == THIS_TASK:
            settings["held_out"] = task.replace(fold=(0, task.fold[1])) if task.fold else task
        elif settings.get("held_out") == THIS_FOLD:
            settings["held_out"] = task
        if settings.get("seed") == THIS_SEED:
            settings["seed"] = seed
        settings |= {"method": arm.method, "hardware": self.file.hardware}
        network = arm.network or self.file.network
        if network is not None:
            settings["network"] = network
        key, folder = self._kept(PRETRAININGS, (arm.name,), settings)
        return Pretraining(arm.name, settings, key, folder)

    def _kept(
        self, parent: str, words: Sequence[str], settings: Settings, start: Pretraining | None = None
    ) -> tuple[str, Path]:
        """The digest of a piece of work, and its folder: that of version 0.1.0 where it was begun by it."""
        key = settings_digest(settings | ({"init": start.digest} if start else {}), roots=self.file.roots)
        folder = self.file.out / parent / folder_name(*words, key)
        if parent == PRETRAININGS and not folder.exists():  # its arm may be called otherwise now
            folder = next(iter(sorted(folder.parent.glob(f"*-{key}"))), folder)
        try:
            former = settings | ({"init": self.keys_010[start.digest]} if start else {})
            self.keys_010[key] = settings_digest(former, roots=self.file.roots, plain=plain_010)
        except (NoAlias, KeyError):
            return key, folder
        earlier = self.file.out / parent / folder_name(*words, self.keys_010[key])
        return key, earlier if earlier.exists() and not folder.exists() else folder
