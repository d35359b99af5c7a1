"""A study, its pre-trainings and fine-tunings: what is run, under which name, and where it is kept.

A piece of work is called by what it is about and by a digest of its resolved settings. Same settings, same
folder: finished work is found again, and changed settings never meet results of others.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parts2whole.spec import digest, to_plain
from parts2whole.tasks.base import Task

Settings = dict[str, Any]

SOURCE = re.compile(r"[a-z0-9_]{2,}:(?=/)")
PRETRAININGS, CELLS, STORES, DATA = "pretraining", "cells", "stores", "data"


@dataclasses.dataclass(frozen=True)
class Generated:
    """Data that the study makes itself.

    Attributes:
        kind: which generator; paths of the study begin with this word and a colon.
        settings: its arguments, without the folder.
        folder: where the data go.
    """

    kind: str
    settings: Settings
    folder: Path


@dataclasses.dataclass(frozen=True)
class StorePlan:
    """A store of unlabelled scans to prepare: arguments of `prepare`, and its folder."""

    settings: Settings
    folder: Path


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """One pre-training, shared by all fine-tunings that need it.

    Attributes:
        arm: the arm that it was first needed for.
        settings: arguments of `pretrain`, without the folder.
        digest: of the settings.
        folder: where it is kept.
    """

    arm: str
    settings: Settings
    digest: str
    folder: Path

    @property
    def title(self) -> str:
        """What it is called while it runs."""
        return f"pre-training, {self.arm}"


@dataclasses.dataclass(frozen=True)
class Finetuning:
    """One arm on one task, with one set of labels and one seed.

    Attributes:
        arm: name of the arm.
        task: name of the task.
        labels: ``fraction`` or ``cases``.
        seed: of the run.
        settings: arguments of `finetune`, without the folder; ``init`` is set.
        pretraining: digest of the pre-training it starts from; None without one.
        digest: of the settings and of the pre-training.
        folder: where it is kept.
        metric: what the task is judged by; None leaves it to custom.
        steps: of the run, where the study has several; else None.
        fold: which fold is tested, and of how many; None without folds.
    """

    arm: str
    task: str
    labels: Settings
    seed: int
    settings: Settings
    pretraining: str | None
    digest: str
    folder: Path
    metric: str | None = None
    steps: int | None = None
    fold: tuple[int, int] | None = None

    @property
    def title(self) -> str:
        """What it is called while it runs."""
        return (
            f"{self.task}, {name_labels(self.labels)}{name_steps(self.steps)}, {self.arm}, seed {self.seed}"
            + (f", fold {self.fold[0]} of {self.fold[1]}" if self.fold else "")
        )


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything a study file asks for, resolved.

    Attributes:
        name: title of the report.
        source: the file.
        out: folder of all results.
        generated: data to make first.
        stores: stores to prepare.
        tasks: target tasks by name.
        arms: names of the arms, in the order of the file.
        pretrainings: by digest.
        finetunings: one for every value in a cell of the table, in the order they are begun.
        table: how the results table is made.
        endpoints: what it is judged by.
        keep_models: keep the fine-tuned models of finished fine-tunings.
        notes: what the user should know before it is run.
    """

    name: str
    source: Path
    out: Path
    generated: tuple[Generated, ...]
    stores: tuple[StorePlan, ...]
    tasks: Mapping[str, Task]
    arms: tuple[str, ...]
    pretrainings: Mapping[str, Pretraining]
    finetunings: tuple[Finetuning, ...]
    table: Settings
    endpoints: tuple[str, ...]
    keep_models: bool = True
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """The name and the size of the study."""
        seeds = len({finetuning.seed for finetuning in self.finetunings})
        labels = len({name_labels(finetuning.labels) for finetuning in self.finetunings})
        lengths = len({finetuning.steps for finetuning in self.finetunings})
        counts = {"arm": len(self.arms), "task": len(self.tasks), "label setting": labels}
        counts |= {"number of steps": lengths} if lengths > 1 else {}
        folds = max((one.fold[1] for one in self.finetunings if one.fold), default=0)
        counts |= {"seed": seeds} | ({"fold": folds} if folds else {})
        told = ", ".join(count(number, noun) for noun, number in counts.items())
        work = {"fine-tuning": self.finetunings, "pre-training": self.pretrainings}
        runs = " and ".join(count(len(ones), noun) for noun, ones in work.items())
        return f"{self.name}{'' if self.name[-1:] in ('?', '.', '!') else ':'} {told}: {runs}"


def count(number: int, noun: str) -> str:
    """``1 arm``, ``2 numbers of steps``."""
    first, *rest = noun.split(" ", 1)
    plural = f"{first}s {rest[0]}" if rest and rest[0].startswith("of ") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def name_labels(labels: Mapping[str, Any]) -> str:
    """``10 %`` or ``5 cases``."""
    if labels.get("cases") is not None:
        return f"{labels['cases']} cases"
    return f"{100 * float(labels['fraction']):.3g} %"


def name_steps(steps: int | None) -> str:
    """``, 200 steps``, to stand behind the labels where a study has several numbers of steps."""
    return "" if steps is None else f", {steps} steps"


def settings_digest(
    settings: Mapping[str, Any],
    *,
    roots: Mapping[Path, str],
    plain: Callable[[Any], Any] = to_plain,
) -> str:
    """Digest of resolved settings that stays the same when the study's folders are moved together.

    Args:
        settings: arguments of a verb.
        roots: folders to be replaced by words where paths begin with them.
        plain: makes plain data of a setting.
    """
    kept = {key: plain(value) for key, value in settings.items() if key != "hardware"}
    return digest(_portable(kept, {str(path): word for path, word in roots.items()}))


def folder_name(*words: object) -> str:
    """Words as a file name: letters, digits, dots and hyphens."""
    text = "-".join(str(word) for word in words)
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "unnamed"


def _portable(plain: Any, roots: Mapping[str, str]) -> Any:
    if isinstance(plain, dict):
        return {key: _portable(value, roots) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_portable(value, roots) for value in plain]
    if isinstance(plain, str):
        source = SOURCE.match(plain)
        if source:
            return source[0] + str(_portable(plain[source.end() :], roots))
        for root, word in sorted(roots.items(), key=lambda pair: -len(pair[0])):
            if plain == root or plain.startswith(f"{root}/"):
                return word + plain[len(root) :]
    return plain
