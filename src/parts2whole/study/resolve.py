"""Reads a study file and lays it out; nothing is run, and every mistake is named by its place."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from parts2whole.methods.base import Method
from parts2whole.networks.base import Network
from parts2whole.own import OwnError, find_class, import_own
from parts2whole.presets import PresetError, read_preset
from parts2whole.report.endpoints import DEFAULT, ENDPOINTS
from parts2whole.report.make_table import make_table
from parts2whole.spec import digest, members, to_plain
from parts2whole.study.aliases import NoAlias, plain_010
from parts2whole.study.plan import (
    CELLS,
    DATA,
    PRETRAININGS,
    STORES,
    Finetuning,
    Generated,
    Pretraining,
    Settings,
    StorePlan,
    Study,
    folder_name,
    name_labels,
    name_steps,
    settings_digest,
)
from parts2whole.study.read import ArgumentsError, Reader, StudyError, read_mapping, refuse_unknown
from parts2whole.tasks.base import Task
from parts2whole.training.runtime import Hardware
from parts2whole.weights.hub import PREFIX
from parts2whole.weights.load import SCRATCH

KEYS = ("name", "imports", "data", "network", "arms", "tasks", "fractions", "cases", "seeds", "pretrain")
MORE_KEYS = ("finetune", "hardware", "table", "endpoints", "keep_models")
OF_ARM = ("method", "init", "network", "pretrain", "finetune")
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
class _Arm:
    name: str
    method: Method | None
    init: str | None
    network: Network | None
    pretrain: Settings
    finetune: Settings


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
        plain = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{source} can't be read: {error}") from error
    except yaml.YAMLError as error:
        raise StudyError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return _Resolver(
            source.resolve(), Path(out).resolve(), verbs, read_mapping(plain, "the study")
        ).study()
    except ArgumentsError as error:
        raise StudyError(f"{source}: {error}") from error


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


class _Resolver:
    """What is known while a file is read: its folder, its data, its shared settings."""

    def __init__(self, source: Path, out: Path, verbs: Verbs, plain: Settings) -> None:
        refuse_unknown(plain, (*KEYS, *MORE_KEYS), "the study")
        self.source, self.out, self.verbs, self.plain = source, out, verbs, plain
        self.roots = {out: "<out>", source.parent: "<study>"}
        self.keys_010: dict[str, str] = {}  # digests as version 0.1.0 made them, by today's
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

    def study(self) -> Study:
        arms = [self._arm(name, given) for name, given in self._some("arms").items()]
        self.from_scratch, notes = self._from_scratch(arms)
        tasks = {name: self._task(name, given) for name, given in self._some("tasks").items()}
        pretrainings: dict[str, Pretraining] = {}
        finetunings: list[Finetuning] = []
        for name, (task, given) in tasks.items():
            labels, seeds = self._labels(given, f"tasks.{name}"), self._seeds(given, f"tasks.{name}")
            lengths = self._lengths(given)
            folds = [task if fold is None else task.replace(fold=fold) for fold in self._folds(given, name)]
            for label, steps, seed, arm, one in itertools.product(labels, lengths, seeds, arms, folds):
                finetunings.append(self._finetuning(arm, name, one, given, label, steps, seed, pretrainings))
        if len({finetuning.folder for finetuning in finetunings}) < len(finetunings):
            raise StudyError(
                "two fine-tunings have the same arm, task, labels, steps and seed; is a value listed twice?"
            )
        finetunings.sort(
            key=lambda finetuning: finetuning.seed
        )  # every arm gets its first seed before any gets its second
        keep = self.reader.value(self.plain.get("keep_models", True), bool, "keep_models")
        return Study(
            name=str(self.plain.get("name") or self.source.stem),
            source=self.source,
            out=self.out,
            generated=tuple(self.generated.values()),
            stores=tuple(self.stores.values()),
            tasks={name: task for name, (task, _) in tasks.items()},
            arms=tuple(arm.name for arm in arms),
            pretrainings=pretrainings,
            finetunings=tuple(finetunings),
            table=self._table([arm.name for arm in arms]),
            endpoints=self._endpoints(finetunings),
            keep_models=keep,
            notes=notes,
        )

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

    def _arm(self, name: str, given: object) -> _Arm:
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
        method = None
        if "method" in plain:
            method = self.reader.spec(plain["method"], Method, f"{where}.method")
        return _Arm(
            name,
            method,
            self._init(str(plain["init"])) if "init" in plain else None,
            self._network(plain.get("network"), f"{where}.network"),
            self._pretrain(plain, where),
            self._finetune(plain, where, of_arm=True),
        )

    def _from_scratch(self, arms: Sequence[_Arm]) -> tuple[Settings, tuple[str, ...]]:
        """The network of arms from scratch that have none of their own: that of those they are compared with.

        Returns:
            Settings of `finetune`, and what the user should know.

        Raises:
            StudyError: the others differ among themselves, and the study doesn't say which network counts.
        """
        asking = [arm.name for arm in arms if arm.init == SCRATCH and arm.network is None]
        usual = inspect.signature(self.verbs.pretrain).parameters["network"].default
        trained = {arm.name: arm.network or self.network for arm in arms if arm.method is not None}
        given = {arm.name: arm.init for arm in arms if arm.init not in (None, SCRATCH)}
        chosen = next(iter(trained.values()), self.network)
        if not asking or not (trained or given):
            return ({} if self.network is None else {"network": self.network}), ()
        alike = len({network or usual for network in trained.values()}) == 1
        if self.network is None and not (alike or (not trained and len(set(given.values())) == 1)):
            raise StudyError(
                f"arms.{asking[0]} needs network: {', '.join([*trained, *given])} may have different ones, "
                "and from scratch is comparable with what has its own; give it one, or the whole study"
            )
        if not trained and self.network is None:
            return {"network_from": next(iter(given.values()))}, ()
        if not alike:
            chosen = self.network
        others = [name for name, network in trained.items() if (network or usual) != (chosen or usual)]
        notes = tuple(
            f"{', '.join(names)} {why} than {', '.join(asking)}, so between them not only the start differs"
            for names, why in ((others, "trains another network"), (list(given), "may bring another network"))
            if names
        )
        return ({} if chosen is None else {"network": chosen}), notes

    def _init(self, text: str) -> str:
        source, colon, path = text.partition(":")
        if text == SCRATCH or text.startswith(PREFIX):
            return text
        if colon and source not in self.generated and SOURCE.fullmatch(text):
            return f"{source}:{self.locate(path)}"
        return str(self.locate(text))

    def _task(self, name: str, given: object) -> tuple[Task, Settings]:
        where = f"tasks.{name}"
        plain = read_mapping(given, where)
        refuse_unknown(plain, OF_TASK, where)
        if "task" not in plain:
            raise StudyError(f"{where} needs task, such as {{Segmentation: {{data: labelled/}}}}")
        task: Task = self.reader.spec(plain["task"], Task, f"{where}.task")
        if "metric" in plain:
            self.reader.value(plain["metric"], str, f"{where}.metric")
        plain["pretrain"], plain["finetune"] = self._pretrain(plain, where), self._finetune(plain, where)
        return task, plain

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
        typed = self.reader.arguments(rest, self.verbs.pretrain, here, barred=OF_PRETRAIN)
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
        typed = self.reader.arguments(given, self.verbs.finetune, here, barred=OF_FINETUNE, defaults=preset)
        return preset | typed | several

    def _preset(self, name: object, here: str) -> Settings:
        """Settings of a preset, which a fine-tuning records as if they had been written out."""
        try:
            plain = read_preset(str(name))
        except PresetError as error:
            raise StudyError(f"{here}.preset: {error}") from error
        return self.reader.arguments(plain, self.verbs.finetune, here)

    def _lengths(self, given: Settings) -> list[int | None]:
        """Steps of a task's fine-tunings, where there are several; else None: as the settings say."""
        steps = (self.finetune | given["finetune"]).get("steps")
        return [*steps] if isinstance(steps, list) else [None]

    def _finetuning(
        self,
        arm: _Arm,
        task_name: str,
        task: Task,
        given: Settings,
        labels: Settings,
        steps: int | None,
        seed: int,
        pretrainings: dict[str, Pretraining],
    ) -> Finetuning:
        settings: Settings = self.finetune | given["finetune"] | arm.finetune
        if steps is not None:
            if "steps" in arm.finetune:
                raise StudyError(
                    f"arms.{arm.name}.finetune.steps: {task_name} has several numbers of steps, which "
                    "every arm must have alike; leave them out here"
                )
            settings["steps"] = steps
        settings |= {"task": task, "seed": seed, "hardware": self.hardware} | labels
        start = None
        if arm.method is not None:
            start = self._pretraining(arm, task_name, task, given, seed)
            start = pretrainings.setdefault(start.digest, start)
            settings["init"] = str(start.folder)
        else:
            settings["init"] = arm.init
            if arm.init == SCRATCH:
                settings |= {"network": arm.network} if arm.network else self.from_scratch
        words = [task_name, name_labels(labels), arm.name, f"seed{seed}"]
        words += [f"fold{task.fold[0]}"] if task.fold else []
        key, folder = self._kept(CELLS, words, settings, start)
        return Finetuning(
            arm.name,
            task_name,
            labels,
            seed,
            settings,
            start.digest if start else None,
            key,
            folder,
            given.get("metric"),
            steps,
            task.fold,
        )

    def _pretraining(self, arm: _Arm, task_name: str, task: Task, given: Settings, seed: int) -> Pretraining:
        settings: Settings = self.pretrain | given["pretrain"] | arm.pretrain
        if "store" not in settings:
            known = f": one of {', '.join(self.stores)}, or a folder" if self.stores else ""
            raise StudyError(f"pretrain (or tasks.{task_name}.pretrain) needs store{known}")
        if settings["store"] in self.stores:
            settings["store"] = self.stores[settings["store"]].folder
        if settings.get("held_out") == THIS_FOLD and not task.fold:
            raise StudyError(f"pretrain.held_out is fold, and tasks.{task_name} has no folds; write task")
        if settings.get("held_out") == THIS_TASK:
            settings["held_out"] = task.replace(fold=(0, task.fold[1])) if task.fold else task
        elif settings.get("held_out") == THIS_FOLD:
            settings["held_out"] = task
        if settings.get("seed") == THIS_SEED:
            settings["seed"] = seed
        settings |= {"method": arm.method, "hardware": self.hardware}
        network = arm.network or self.network
        if network is not None:
            settings["network"] = network
        key, folder = self._kept(PRETRAININGS, (arm.name,), settings)
        return Pretraining(arm.name, settings, key, folder)

    def _kept(
        self, parent: str, words: Sequence[str], settings: Settings, start: Pretraining | None = None
    ) -> tuple[str, Path]:
        """The digest of a piece of work, and its folder: that of version 0.1.0 where it was begun by it."""
        key = settings_digest(settings | ({"init": start.digest} if start else {}), roots=self.roots)
        folder = self.out / parent / folder_name(*words, key)
        try:
            former = settings | ({"init": self.keys_010[start.digest]} if start else {})
            self.keys_010[key] = settings_digest(former, roots=self.roots, plain=plain_010)
        except (NoAlias, KeyError):
            return key, folder
        earlier = self.out / parent / folder_name(*words, self.keys_010[key])
        return key, earlier if earlier.exists() and not folder.exists() else folder

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

    def _table(self, arms: list[str]) -> Settings:
        """How the table is made, tried on made-up values so that a mistake shows before anything runs."""
        plain = read_mapping(self.plain.get("table"), "table")
        refuse_unknown(plain, TABLE, "table")
        metric = plain.get("metric", "")
        rows = [
            {"task": "", "arm": arm, "seed": seed, "value": 0.5 + 0.01 * seed, "metric": metric}
            for arm in arms
            for seed in range(2)
        ]
        try:
            make_table(rows, **plain)
        except (ValueError, TypeError) as error:
            raise StudyError(f"table: {error}") from error
        return plain

    def _endpoints(self, finetunings: Sequence[Finetuning]) -> tuple[str, ...]:
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
        points: dict[str, set[str]] = {}
        for one in finetunings:
            points.setdefault(one.task, set()).add(f"{name_labels(one.labels)}{name_steps(one.steps)}")
        if "area" in named and max(map(len, points.values())) < 2:
            raise StudyError(
                "endpoints: area needs a curve: two or more numbers of labels (cases or fractions) or of "
                "steps (finetune.steps)"
            )
        return tuple(name for name in ENDPOINTS if name in named)

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
