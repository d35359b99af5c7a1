"""What a study file asks for, once its words are checked: arms, tasks, and the functions that it calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parts2whole.methods.base import Method
from parts2whole.networks.base import Network
from parts2whole.study.plan import Settings
from parts2whole.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class Verbs:
    """What a study calls: functions whose signatures say which settings there are.

    Attributes:
        prepare: makes stores.
        pretrain: of every pre-training.
        finetune: of every fine-tuning.
        generators: ``module:function`` that makes data, by the word that a study calls it by.
    """

    prepare: Callable[..., Any]
    pretrain: Callable[..., Any]
    finetune: Callable[..., Any]
    generators: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is compared: a method to pre-train with, or an ``init`` that needs no pre-training.

    Attributes:
        name: of the arm.
        method: None where ``init`` is given.
        init: scratch, a run folder, or a source and its path.
        network: of its own; None takes the study's.
        network_from: weights whose network and preprocessing an arm from scratch has; None: it isn't said.
        pretrain: settings of its own.
        finetune: settings of its own.
    """

    name: str
    method: Method | None
    init: str | None
    network: Network | None
    network_from: str | None
    pretrain: Settings
    finetune: Settings


@dataclasses.dataclass(frozen=True)
class TargetTask:
    """A task, and what its cells are laid out over.

    Attributes:
        name: of the task.
        task: the task itself.
        metric: what it is judged by; None leaves it to custom.
        pretrain: settings of its own.
        finetune: settings of its own.
        labels: ``fraction`` or ``cases``, one each.
        lengths: steps of fine-tuning, where there are several; else None.
        seeds: of the runs.
        folds: which fold is tested, and of how many; None without folds.
    """

    name: str
    task: Task
    metric: str | None
    pretrain: Settings
    finetune: Settings
    labels: Sequence[Settings]
    lengths: Sequence[int | None]
    seeds: Sequence[int]
    folds: Sequence[tuple[int, int] | None]
