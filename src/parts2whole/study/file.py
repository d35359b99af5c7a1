"""What a study file says: words checked, classes and paths found, values typed; nothing is laid out yet."""

from __future__ import annotations

import difflib
import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from parts2whole.methods.base import Method
from parts2whole.networks.base import Network
from parts2whole.own import OwnError, find_class, import_own
from parts2whole.presets import PresetError, read_preset
from parts2whole.report.endpoints import DEFAULT, ENDPOINTS
from parts2whole.report.make_table import make_table
from parts2whole.spec import digest, members, to_plain
from parts2whole.study.asked import Arm, TargetTask, Verbs
from parts2whole.study.plan import DATA, STORES, Generated, Settings, StorePlan, folder_name, settings_digest
from parts2whole.study.read import Reader, StudyError, read_mapping, refuse_unknown
from parts2whole.tasks.base import Task
from parts2whole.training.runtime import Hardware
from parts2whole.weights.hub import PREFIX
from parts2whole.weights.load import SCRATCH

KEYS = ("name", "imports", "data", "network", "arms", "tasks", "fractions", "cases", "seeds", "pretrain")
MORE_KEYS = ("finetune", "hardware", "table", "endpoints", "keep_models")
OF_ARM = ("method", "init", "network", "network_from", "pretrain", "finetune")
OF_TASK = ("task", "metric", "pretrain", "finetune", "fractions", "cases", "seeds", "folds")
OF_PRETRAIN = frozenset(["out", "method", "network", "hardware", "resume", "progress"])
OF_FINETUNE = frozenset(
    [
        *("task", "out", "init", "network", "network_from", "fraction", "cases", "seed", "cache", "hardware"),
        *("resume", "progress"),
    ]
)
"""Parameters of the verbs that a study sets itself."""
TABLE = ("metric", "focus", "against", "test", "alternative", "alpha", "margin")
THIS_TASK, THIS_FOLD, THIS_SEED = "task", "fold", "cell"
"""``held_out: task`` is the cell's own task, of folds all of them; ``held_out: fold`` what its own fold is
validated and tested on, with a pre-training for each; ``seed: cell`` its own seed."""
SOURCE = re.compile(r"[a-z0-9_]{2,}:.*")


def _methods() -> list[str]:
    """Names of the methods."""
    return sorted(member.__name__ for member in members(Method))  # type: ignore[type-abstract]


def load_generator(word: str, place: str) -> Callable[..., Any]:
    """The function that makes data; it is imported only for a study that has such data.

    Raises:
        StudyError: a package that it needs isn't installed.
    """
    module, _, name = place.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise StudyError(f"data.{word} needs the package {error.name}, which isn't installed") from error
    return function


class StudyFile:
    """A study file while it is read: its folder, its data, its shared settings.

    Args:
        source: the file.
        out: folder of the results.
        verbs: what the study calls.
        plain: what the file says.
    """

    def __init__(self, source: Path, out: Path, verbs: Verbs, plain: Settings) -> None:
        refuse_unknown(plain, (*KEYS, *MORE_KEYS), "the study")
        self.source, self.out, self.verbs, self.plain = source, out, verbs, plain
        self.roots = {out: "<out>", source.parent: "<study>"}
        self.reader = Reader(self.locate, partial(find_class, folder=self.source.parent))
        for place in self._list("imports"):
            try:
                import_own(str(place), folder=self.source.parent)
            except OwnError as error:
                raise StudyError(f"imports: {error}") from error
        self.generated = self._generated()
        self.stores = self._stores()
        self.hardware = Hardware()
        if plain.get("hardware") is not None:
            self.hardware = self.reader.spec(plain["hardware"], Hardware, "hardware")
        self.network = self._network(plain.get("network"), "network")
        self.keep_models = bool(self.reader.value(plain.get("keep_models", True), bool, "keep_models"))

    @cached_property
    def pretrain(self) -> Settings:
        """Settings of every pre-training."""
        return self._pretrain(self.plain, "")

    @cached_property
    def finetune(self) -> Settings:
        """Settings of every fine-tuning."""
        return self._finetune(self.plain, "")

    def locate(self, text: str) -> Path:
        """A path of the file: relative to it, or ``phantom:folder`` in data the study makes.

        ``~`` and environment variables, such as ``${P2W_DATA}``, are replaced where they are set.
        """
        text = os.path.expandvars(text)
        kind, colon, rest = text.partition(":")
        if colon and kind in self.generated:
            return self.generated[kind].folder / rest
        return self.source.parent / Path(text).expanduser()

    def arms(self) -> list[Arm]:
        """The arms, in the order of the file."""
        return [self._arm(name, given) for name, given in self._some("arms").items()]

    def tasks(self) -> list[TargetTask]:
        """The tasks, in the order of the file."""
        return [self._task(name, given) for name, given in self._some("tasks").items()]

    def table(self, arms: Sequence[str], tasks: Sequence[TargetTask]) -> Settings:
        """How the table is made, tried on made-up values so that a mistake shows before anything runs."""
        plain = read_mapping(self.plain.get("table"), "table")
        refuse_unknown(plain, TABLE, "table")
        rows = [
            {
                "task": target.name,
                "arm": arm,
                "seed": seed,
                "value": 0.5 + 0.01 * seed,
                "metric": plain.get("metric") or target.metric or target.task.monitor,
            }
            for target in tasks
            for arm in arms
            for seed in range(2)
        ]
        try:
            make_table(rows, **plain)
        except (ValueError, TypeError) as error:
            raise StudyError(f"table: {error}") from error
        return plain

    def endpoints(self, tasks: Sequence[TargetTask]) -> tuple[str, ...]:
        """What the study is judged by, in the order of the report."""
        given = self.plain.get("endpoints", list(DEFAULT))
        named = [str(name) for name in given] if isinstance(given, list) else [str(given)]
        known = ", ".join(ENDPOINTS)
        for name in named:
            if name not in ENDPOINTS:
                close = difflib.get_close_matches(name, ENDPOINTS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known are {known}"
                raise StudyError(f"endpoints: there is no endpoint {name!r}; {hint}")
        if not named or len(set(named)) < len(named):
            raise StudyError(f"endpoints must be one or more of {known}, each once; got {given!r}")
        if "area" in named and max(len(task.labels) * len(task.lengths) for task in tasks) < 2:
            raise StudyError(
                "endpoints: area needs a curve: two or more numbers of labels (cases or fractions) or of "
                "steps (finetune.steps)"
            )
        return tuple(name for name in ENDPOINTS if name in named)

    def _generated(self) -> dict[str, Generated]:
        data = read_mapping(self.plain.get("data"), "data")
        refuse_unknown(data, ("stores", *self.verbs.generators), "data")
        found = {}
        for kind, place in self.verbs.generators.items():
            if kind in data:
                where = f"data.{kind}"
                settings = Reader().arguments(
                    read_mapping(data[kind], where), load_generator(kind, place), where, barred=("out",)
                )
                name = f"{kind}-{digest(to_plain(settings))}"
                found[kind] = Generated(kind, settings, self.out / DATA / name)
        return found

    def _stores(self) -> dict[str, StorePlan]:
        given = read_mapping(read_mapping(self.plain.get("data"), "data").get("stores"), "data.stores")
        found = {}
        for name, value in given.items():
            where = f"data.stores.{name}"
            settings = self.reader.arguments(
                read_mapping(value, where),
                self.verbs.prepare,
                where,
                barred=("out", "workers", "cluster", "progress", "overwrite"),
            )
            if "scans" not in settings:
                raise StudyError(f"{where} needs scans: folders, files or globs")
            scans = settings["scans"]
            settings["scans"] = [scans] if isinstance(scans, str | Path) else scans
            key = settings_digest(settings, roots=self.roots)
            found[name] = StorePlan(settings, self.out / STORES / folder_name(name, key))
        return found

    def _arm(self, name: str, given: object) -> Arm:
        where = f"arms.{name}"
        if isinstance(given, str):
            given = {"method" if given in _methods() else "init": given}
        plain = read_mapping(given, where)
        refuse_unknown(plain, OF_ARM, where)
        if ("method" in plain) == ("init" in plain):
            raise StudyError(
                f"{where} needs either init (scratch, a run folder, or SOURCE:PATH) or method (such as "
                f"{_methods()[0]})"
            )
        if "init" in plain and "pretrain" in plain:
            raise StudyError(
                f"{where} has init, so nothing is pre-trained for it, and pretrain; give it a method, and "
                "what its pre-training begins with as pretrain.init"
            )
        if "network_from" in plain and (plain.get("init") != SCRATCH or "network" in plain):
            raise StudyError(f"{where}.network_from is for an arm from scratch that names no network")
        method = None
        if "method" in plain:
            method = self.reader.spec(plain["method"], Method, f"{where}.method")
        return Arm(
            name,
            method,
            self._init(str(plain["init"])) if "init" in plain else None,
            self._network(plain.get("network"), f"{where}.network"),
            self._init(str(plain["network_from"])) if "network_from" in plain else None,
            self._pretrain(plain, where),
            self._finetune(plain, where, of_arm=True),
        )

    def _init(self, text: str) -> str:
        source, colon, path = text.partition(":")
        if text == SCRATCH or text.startswith(PREFIX):
            return text
        if colon and source not in self.generated and SOURCE.fullmatch(text):
            return f"{source}:{self.locate(path)}"
        return str(self.locate(text))

    def _task(self, name: str, given: object) -> TargetTask:
        where = f"tasks.{name}"
        plain = read_mapping(given, where)
        refuse_unknown(plain, OF_TASK, where)
        if "task" not in plain:
            raise StudyError(f"{where} needs task, such as {{Segmentation: {{data: labelled/}}}}")
        task: Task = self.reader.spec(plain["task"], Task, f"{where}.task")
        if task.fold is not None:
            raise StudyError(f"{where}.task: a study sets fold itself; write folds: 5 beside task instead")
        metric = plain.get("metric")
        if metric is not None:
            metric = self.reader.value(metric, str, f"{where}.metric")
        finetune = self._finetune(plain, where)
        return TargetTask(
            name,
            task,
            metric,
            self._pretrain(plain, where),
            finetune,
            self._labels(plain, where),
            self._lengths(finetune),
            self._seeds(plain, where),
            self._folds(plain, name),
        )

    def _pretrain(self, plain: Mapping[str, Any], where: str) -> Settings:
        """Settings of `pretrain`; a store's name and words for the cell's own task and seed stay."""
        given = read_mapping(plain.get("pretrain"), f"{where}.pretrain".lstrip("."))
        words = {
            key: word
            for key, word in (("held_out", THIS_TASK), ("held_out", THIS_FOLD), ("seed", THIS_SEED))
            if given.get(key) == word
        }
        if str(given.get("store")) in self.stores:
            words["store"] = str(given["store"])
        if "init" in given:
            words["init"] = self._init(str(given["init"]))
        rest = {key: value for key, value in given.items() if key not in words}
        here = f"{where}.pretrain".lstrip(".")
        shared = self.pretrain if where else {}
        typed = self.reader.arguments(rest, self.verbs.pretrain, here, barred=OF_PRETRAIN, defaults=shared)
        return typed | words

    def _finetune(self, plain: Mapping[str, Any], where: str, *, of_arm: bool = False) -> Settings:
        """Settings of `finetune`; several steps, which every arm has alike, stay a list."""
        here = f"{where}.finetune".lstrip(".")
        given = read_mapping(plain.get("finetune"), here)
        preset = self._preset(given.pop("preset"), here) if "preset" in given else {}
        several: Settings = {}
        if isinstance(given.get("steps"), list) and not of_arm:
            steps = [self.reader.value(one, int, f"{here}.steps") for one in given.pop("steps")]
            if min(steps, default=0) < 1:
                raise StudyError(f"{here}.steps must be 1 or more, or a list of such, got {steps}")
            several["steps"] = steps if len(steps) > 1 else steps[0]
        shared = self.finetune if where else {}
        typed = self.reader.arguments(
            given, self.verbs.finetune, here, barred=OF_FINETUNE, defaults={**shared, **preset}
        )
        return preset | typed | several

    def _preset(self, name: object, here: str) -> Settings:
        """Settings of a preset, which a fine-tuning records as if they had been written out."""
        try:
            plain = read_preset(str(name))
        except PresetError as error:
            raise StudyError(f"{here}.preset: {error}") from error
        return self.reader.arguments(plain, self.verbs.finetune, here)

    def _lengths(self, own: Settings) -> list[int | None]:
        """Steps of a task's fine-tunings, where there are several; else None: as the settings say."""
        steps = (self.finetune | own).get("steps")
        return [*steps] if isinstance(steps, list) else [None]

    def _labels(self, given: Settings, where: str) -> list[Settings]:
        """How many labels the cells of a task have; the task's own setting counts before the shared one."""
        own = "fractions" in given or "cases" in given
        asked = given if own else self.plain
        place = f"{where}." if own else ""
        found: list[Settings] = []
        for key, name, kind in (("fractions", "fraction", float), ("cases", "cases", int)):
            values = asked.get(key, [])
            for value in values if isinstance(values, list) else [values]:
                number = self.reader.value(value, kind, f"{place}{key}")
                if not number > 0 or (kind is float and number > 1):
                    limits = "in (0, 1]" if kind is float else "1 or more"
                    raise StudyError(f"{place}{key} must be {limits}, got {value!r}")
                found.append({name: number})
        return found or [{"fraction": 1.0}]

    def _seeds(self, given: Settings, where: str) -> list[int]:
        place, value = (where, given["seeds"]) if "seeds" in given else ("", self.plain.get("seeds", 1))
        name = f"{place}.seeds".lstrip(".")
        if isinstance(value, list) and value:
            return [self.reader.value(seed, int, name) for seed in value]
        count = self.reader.value(value, int, name)
        if count < 1:
            raise StudyError(f"{name} must be a number of seeds from 1, or a list of them, got {value!r}")
        return list(range(count))

    def _folds(self, given: Settings, name: str) -> list[tuple[int, int] | None]:
        """The folds of a task; one of None without."""
        if "folds" not in given:
            return [None]
        of = self.reader.value(given["folds"], int, f"tasks.{name}.folds")
        if of < 2:
            raise StudyError(f"tasks.{name}.folds must be 2 or more, got {of}")
        return [(fold, of) for fold in range(1, of + 1)]

    def _network(self, value: object, where: str) -> Network | None:
        if value is None:
            return None
        found: Network = self.reader.spec(value, Network, where)
        return found

    def _some(self, key: str) -> Settings:
        found = read_mapping(self.plain.get(key), key)
        if not found:
            raise StudyError(f"{key} is missing: a mapping from names to settings")
        return found

    def _list(self, key: str) -> list[Any]:
        value = self.plain.get(key) or []
        if not isinstance(value, list):
            raise StudyError(f"{key} must be a list, got {value!r}")
        return value
