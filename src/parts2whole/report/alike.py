"""Are arms alike but for their start?  Every setting in which those of a row differ is told under its table.

Two arms can be compared where they differ in their initial weights and in nothing else: the same network and
size, steps, rate and batch, the same data and sides, the same code.  What a run was made with is read from
its folder, that of version 0.1.0 too.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parts2whole.report.runs import Run, read_mapping
from parts2whole.run_folder import CARD, MODEL_CARD, WEIGHTS

START = frozenset({"init", "network", "network_from"})
"""Settings that say where an arm starts; its network is read from what it led to."""

OWN = frozenset(
    {"seed", "fraction", "cases", "out", "cache", "resume", "progress", "hardware", "accept_leak", "logger"}
)
"""Settings that change no arm, or that rows and seeds are told apart by."""

BY_SEED = "training cases"
"""What changes with the seed by design, so that only runs of one seed are compared."""

BETWEEN_SEEDS = (BY_SEED, "test cases", "code")
"""What may change between seeds: it is told elsewhere, or does no harm where all arms have it alike."""

COMMIT = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b")
"""So many digits tell commits apart."""

Settings = Mapping[str, str]


def read_settings(run: Run) -> dict[str, str]:
    """What a fine-tuning was made with, in words, by the names that settings have on the command line."""
    config = {key: value for key, value in run.config.items() if key not in START | OWN}
    used = run.result.get("task")  # how scans were prepared may have been decided by the weights
    found = dict(_flatten(config | ({"task": used} if isinstance(used, Mapping) else {})))
    found.pop("task.data", None)  # where it lies; what it is, its fingerprint says
    found |= dict(_flatten({"network": _network(run) or "unknown"}))
    for side, name in (("train", BY_SEED), ("validation", "validation cases"), ("test", "test cases")):
        found[name] = _digest(run.result.get(f"{side}_cases"))
    code = str(run.environment.get("commit") or run.result.get("commit") or "")
    said = {
        "data": str(run.result.get("data_fingerprint") or "")[:8],
        "labels": str(run.result.get("labels_fingerprint") or "")[:8],
        "scans of the pre-training": str(run.result.get("pretrained_on") or "")[:8],
        "code": COMMIT.sub(r"\1", code),
        "precision": run.environment.get("precision"),
    }
    return {name: text for name, text in (found | said).items() if text}


class Alike:
    """Collects the settings of the runs behind a table."""

    def __init__(self) -> None:
        self._rows: dict[Hashable, dict[str, dict[Any, Settings]]] = {}

    def add(self, row: Hashable, arm: str, seed: Any, settings: Settings | None) -> None:
        """Note what one run was made with."""
        if settings:
            self._rows.setdefault(row, {}).setdefault(arm, {})[seed] = settings

    def describe(self, names: Mapping[Any, str], arms: Sequence[str]) -> list[str]:
        """What sets arms apart beside their start: one sentence for the rows that have it in common.

        Args:
            names: of the table's rows.
            arms: in the order of the table.
        """
        said: dict[str, list[Hashable]] = {}
        for row, runs in self._rows.items():
            for text in _differences({arm: runs[arm] for arm in arms if arm in runs}):
                said.setdefault(text, []).append(row)
        together: dict[tuple[Hashable, ...], list[str]] = {}
        for text, rows in said.items():
            together.setdefault(tuple(rows), []).append(text)
        everywhere = tuple(row for row, runs in self._rows.items() if len(runs) > 1)
        return [*self._among_seeds(names), *self._among_arms(together, everywhere, names)]

    def _among_seeds(self, names: Mapping[Any, str]) -> list[str]:
        """What sets seeds of an arm apart beside their labelled cases: one sentence for all rows."""
        said: dict[str, list[Hashable]] = {}
        for row, arms in self._rows.items():
            for text in dict.fromkeys(text for runs in arms.values() for text in _changes(runs)):
                said.setdefault(text, []).append(row)
        whole = len(self._rows)
        return [
            "Not all seeds were made alike"
            + ("" if len(rows) == whole else f" in {_join(names, rows)}")
            + f": {text}."
            for text, rows in said.items()
        ]

    @staticmethod
    def _among_arms(
        together: Mapping[tuple[Hashable, ...], Sequence[str]],
        everywhere: tuple[Hashable, ...],
        names: Mapping[Any, str],
    ) -> list[str]:
        return [
            "Arms differ in more than their start"
            + ("" if rows == everywhere else f" in {_join(names, rows)}")
            + f": {', '.join(texts)}."
            for rows, texts in together.items()
        ]


def _join(names: Mapping[Any, str], rows: Sequence[Hashable]) -> str:
    return "; ".join(names[row] for row in rows)


def _changes(runs: Mapping[Any, Settings]) -> Iterator[str]:
    """``labels (1111 of seeds 0, 1; 2222 of seed 2)`` for every setting that changes among seeds."""
    for name in dict.fromkeys(name for settings in runs.values() for name in settings):
        seeds: dict[str, list[str]] = {}
        for seed, settings in runs.items():
            if name in settings:
                seeds.setdefault(settings[name], []).append(str(seed))
        if len(seeds) > 1 and name not in BETWEEN_SEEDS:
            told = (f"{text} of seed{'s' * (len(of) > 1)} {', '.join(of)}" for text, of in seeds.items())
            yield f"{name} ({'; '.join(told)})"


def _differences(arms: Mapping[str, Mapping[Any, Settings]]) -> Iterator[str]:
    """``steps (scratch 100; Parts2Whole 200)`` for every setting that isn't the same in all arms."""
    names = dict.fromkeys(name for runs in arms.values() for settings in runs.values() for name in settings)
    for name in names:
        by_arm = {
            arm: {seed: settings[name] for seed, settings in runs.items() if name in settings}
            for arm, runs in arms.items()
        }
        if any(_differ(name, a, b) for a, b in itertools.combinations(filter(None, by_arm.values()), 2)):
            told = (
                f"{arm} {' or '.join(sorted(set(found.values())))}" for arm, found in by_arm.items() if found
            )
            yield f"{name} ({'; '.join(told)})"


def _differ(name: str, a: Mapping[Any, str], b: Mapping[Any, str]) -> bool:
    """Whether a setting differs between two arms: seed by seed, else as a whole."""
    both = a.keys() & b.keys()
    if both or name == BY_SEED:
        return any(a[seed] != b[seed] for seed in both)
    return set(a.values()) != set(b.values())


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings by dotted names; a spec's class under its own name, whatever module it was in."""
    if isinstance(value, Mapping) and "class_path" in value:
        yield name, str(value["class_path"]).rpartition(".")[2]
        yield from _flatten(value.get("init_args") or {}, name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield name, f"[{', '.join(map(_word, value))}]"
    else:
        yield name, _word(value)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _network(run: Run) -> Any:
    """The network that was trained, from the result, the model, the settings or the weights it began with."""
    init = str(run.result.get("init") or "")
    found = [
        run.result,
        read_mapping(run.folder / WEIGHTS / MODEL_CARD, []),
        run.config,
        *(read_mapping(folder / CARD, []) for folder in weights_folders(run, init)),
    ]
    return next((one["network"] for one in found if one.get("network")), None)


def weights_folders(run: Run, init: str) -> Iterator[Path]:
    """Where the initial weights of a run may lie, as its settings name them from wherever it was started."""
    for root in (Path(), *run.folder.resolve().parents):
        yield from (root / init, root / init / WEIGHTS)


def _digest(cases: object) -> str:
    """A few letters that change with the cases; nothing where they aren't known."""
    if not isinstance(cases, Sequence) or isinstance(cases, str):
        return ""
    return "#" + hashlib.sha256("\n".join(sorted(map(str, cases))).encode()).hexdigest()[:6]
