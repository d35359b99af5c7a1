"""A study as a file that a person reads and changes: every value with its reason in a comment beside it."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from parts2whole.spec import Spec

WIDTH = 110
"""Columns of the file."""
LEAST = 50
"""Columns that a comment has beside a value, at least; with fewer it stands above."""

PLAIN = re.compile(r"[\w./ -]{1,80}", re.ASCII)
"""Text that YAML's own writer knows how to write anywhere; all other text is quoted."""

Lines = list[str]


def comment(text: str, indent: int = 0) -> Lines:
    """Text as comment lines."""
    return textwrap.wrap(
        " ".join(text.split()),
        WIDTH,
        initial_indent=f"{' ' * indent}# ",
        subsequent_indent=f"{' ' * indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def entry(indent: int, key: str, value: Any, why: str = "") -> Lines:
    """``key: value`` and the reason beside it, going on below."""
    line = f"{' ' * indent}{key}: {flow(value)}"
    if not why:
        return [line]
    column = len(line) + 2
    if WIDTH - column < LEAST:
        return [*comment(why, indent), line]
    told = comment(why, column)
    return [f"{line}  {told[0].lstrip()}", *told[1:]]


def flow(value: Any) -> str:
    """A value on one line of YAML; a spec is its class with the fields that aren't at their defaults.

    One that is of no family, such as `Preprocess`, is its fields alone.
    """
    if isinstance(value, Spec):
        fields = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != getattr(type(value), field.name, dataclasses.MISSING)
        }
        if Spec in type(value).__bases__:
            return flow(fields)
        return flow({type(value).__name__: fields} if fields else type(value).__name__)
    if isinstance(value, Path):
        return flow(str(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(key)}: {flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and not PLAIN.fullmatch(value):
        return json.dumps(value, ensure_ascii=False)
    return yaml.safe_dump(value).removesuffix("\n").removesuffix("\n...")


@dataclasses.dataclass(frozen=True)
class Reason:
    """A value, and why."""

    value: Any
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Draft:
    """What a plan says; settings are arguments of the verbs, each with its reason, in the order of the file.

    Attributes:
        opening: what it is, what it was made from, and what it takes.
        name: title of the report.
        prepare: of `prepare`, with ``scans``.
        network: of every arm.
        method: of the arm that is pre-trained.
        task: its fields; empty where nothing is labelled.
        task_kind: its class.
        task_name: what the task is called.
        labels: ``cases``, ``fractions`` and ``seeds``.
        pretrain: of `pretrain`, without ``store`` and ``held_out``.
        finetune: of `finetune`.
        folds: how many test sides the labelled patients are dealt into; None where there is one.
        held_out: whose scans are kept out of pre-training.
    """

    opening: Sequence[str]
    name: str
    prepare: Mapping[str, Reason]
    network: Reason
    method: Reason
    pretrain: Mapping[str, Reason]
    task: Mapping[str, Reason] = dataclasses.field(default_factory=dict)
    task_kind: str = "Segmentation"
    task_name: str = "task"
    labels: Mapping[str, Reason] = dataclasses.field(default_factory=dict)
    finetune: Mapping[str, Reason] = dataclasses.field(default_factory=dict)
    folds: Reason | None = None
    held_out: Reason = Reason("task")

    def study(self) -> str:
        """A study of two arms that `benchmark` runs."""
        lines = self._opening()
        lines += entry(0, "name", self.name)
        lines += ["data:", "  stores:", *_block(4, "unlabelled", self.prepare)]
        lines += entry(0, "network", self.network.value, self.network.why)
        lines += ["arms:", "  scratch: scratch"]
        lines += entry(2, "Parts2Whole", {"method": self.method.value}, self.method.why)
        lines += ["tasks:", f"  {flow(self.task_name)}:", "    task:"]
        lines += _block(6, self.task_kind, self.task)
        lines += _entries(4, {"folds": self.folds} if self.folds else {})
        lines += _entries(0, self.labels)
        own = {"store": Reason("unlabelled"), "held_out": self.held_out}
        lines += _block(0, "pretrain", own | dict(self.pretrain))
        lines += _block(0, "finetune", self.finetune)
        lines += entry(0, "table", {"focus": "Parts2Whole"})
        return "\n".join(lines) + "\n"

    def pretraining(self, store: str, out: str) -> str:
        """A pre-training alone, for ``pretrain --config``."""
        own = {
            "store": Reason(store, "what the command of `prepare` makes"),
            "out": Reason(out),
            "method": self.method,
            "network": self.network,
        }
        return "\n".join([*self._opening(), *_entries(0, own | dict(self.pretrain))]) + "\n"

    def _opening(self) -> Lines:
        return [line for text in self.opening for line in (comment(text) if text else ["#"])]


def _block(indent: int, key: str, settings: Mapping[str, Reason]) -> Lines:
    return [f"{' ' * indent}{key}:", *_entries(indent + 2, settings)]


def _entries(indent: int, settings: Mapping[str, Reason]) -> Lines:
    """Settings, one below the other; one of None leaves its reason alone."""
    lines: Lines = []
    for key, one in settings.items():
        if one.value is None:
            lines += comment(f"{key}: {one.why}", indent)
        elif isinstance(one.value, Mapping) and any(isinstance(v, Reason) for v in one.value.values()):
            lines += _block(indent, key, one.value)
        else:
            lines += entry(indent, key, one.value, one.why)
    return lines
