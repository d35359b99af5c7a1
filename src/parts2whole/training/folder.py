"""The run folder: looked at before there is anything to do, then entered, filled, and closed with a result.

A run enters its folder when everything that can be checked has been checked, so that a mistake in the
settings leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
import yaml

from parts2whole.files import LEFT, read_json, sweep, write_json, write_text
from parts2whole.report.page import write_report
from parts2whole.run_folder import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    METRICS,
    PAGE,
    PANELS,
    RATES,
    RESULT,
    SPLIT,
)
from parts2whole.spec import Spec, to_plain
from parts2whole.training.cluster import is_first_process
from parts2whole.training.lock import (
    RunFolderError,
    hold_folder,
    list_checkpoints,
    refuse_begun,
    refuse_busy,
)
from parts2whole.training.loggers import KEPT as LOGGED_AS
from parts2whole.training.loggers import Loggers
from parts2whole.training.provenance import reset_peak_memory
from parts2whole.training.runtime import Hardware, Runtime, describe_environment

__all__ = ["Resume", "RunFolder", "RunFolderError"]

BEGUN = (
    *(ENVIRONMENT, SPLIT, METRICS, "tensorboard", PANELS, CHECKPOINTS, PAGE, RATES, CONFIG),
    *(LOGGED_AS, "wandb"),
)
"""What a run leaves that dies before its first checkpoint."""
Resume = bool | Literal["auto"]
FREE_TO_CHANGE = ("resume", "progress", "hardware", "out", "cache", "logger")
"""Settings that may differ between the first part of a run and its resumption."""


class RunFolder:
    """The folder of one run: looked at, and not yet touched.

    Args:
        out: where it is, or will be.
        settings: the arguments of the verb by name, kept in ``config.yaml``.
        resume: True goes on with the run there, ``auto`` too, or starts one if there is none.
        later: settings that runs of earlier versions don't have, with what these did.
        check_longer: raises unless a run planned for the first number of steps can go on to the second; by
            default none can.

    Attributes:
        path: the folder.
        result: with ``resume``, that of a finished run, which nothing is left to do for; else None.

    Raises:
        RunFolderError: another run is in it, or it holds what can't be overwritten or gone on with.
        parts2whole.training.loggers.LoggerError: a logger that can't be had.
    """

    def __init__(
        self,
        out: str | Path,
        settings: Mapping[str, Any],
        *,
        resume: Resume,
        later: Mapping[str, Any] = MappingProxyType({}),
        check_longer: Callable[[int, int], None] | None = None,
    ) -> None:
        self.path = Path(out)
        self.given = dict(settings)
        self.settings = {name: to_plain(value) for name, value in settings.items()}
        self.resume = resume
        self.later = {name: to_plain(value) for name, value in later.items()}
        self.check_longer = check_longer
        self.loggers = Loggers(settings.get("logger") or (), self.path)
        if is_first_process():
            refuse_busy(self.path)
            self._refuse()
        finished = resume and (self.path / RESULT).exists() and not self._is_longer()
        self.result: dict[str, Any] | None = read_json(self.path / RESULT) if finished else None

    @contextlib.contextmanager
    def enter(self, runtime: Runtime, *, say: Sequence[str] = ()) -> Iterator[None]:
        """Lock the folder, and write what is known before training; all processes go in and out together.

        Args:
            runtime: device and processes.
            say: lines to print, once.

        Raises:
            RunFolderError: another run was faster, or the place can't be written to.
        """
        with hold_folder(self.path):
            if runtime.is_main:
                self._refuse()
                self._begin(describe_environment(runtime))
                for line in say:
                    print(line, flush=True)
            runtime.barrier()
            reset_peak_memory()
            if runtime.is_main:
                self.loggers.start(self.settings)
            try:
                yield
            finally:
                if runtime.is_main:  # a run that has closed with its result has told it already
                    self.loggers.finish(None)
            runtime.barrier()

    def as_begun(self, hardware: Hardware) -> Hardware:
        """The hardware, with the precision that the run there began with on a CPU in place of ``auto``."""
        path = self.path / ENVIRONMENT
        if hardware.precision != "auto" or not self.resume or not path.exists():
            return hardware
        begun = read_json(path)
        if begun.get("device") != "cpu" or (hardware.accelerator != "cpu" and torch.cuda.is_available()):
            return hardware
        return hardware.replace(precision=begun["precision"])

    def close(self, result: dict[str, Any]) -> None:
        """Write the result, with which the run is finished, and the page; the main process alone does."""
        write_json(self.path / RESULT, result)
        self.loggers.finish(result)
        write_report(self.path)

    def _refuse(self) -> None:
        """Raise unless a run may begin here, or go on."""
        begun = (self.path / CONFIG).exists()
        if self.resume and begun:
            self._refuse_changes()
        elif self.resume is True:
            raise RunFolderError(
                f"{self.path} holds no run to go on with; start one with --resume auto, or without"
            )
        else:
            refuse_begun(self.path)
            there = [entry.name for entry in self.path.iterdir()] if begun else []
            foreign = sorted(name for name in there if name not in BEGUN and not LEFT.fullmatch(name))
            if foreign:
                raise RunFolderError(
                    f"{self.path} holds a run without a checkpoint, but {', '.join(foreign[:5])}: choose "
                    "another --out"
                )

    def _refuse_changes(self) -> None:
        """Raise if the run there was started with other settings."""
        read = self.later | _by_name(yaml.safe_load((self.path / CONFIG).read_text()) or {})
        before = {key: _with_later_fields(value, self.given.get(key)) for key, value in read.items()}
        now = _by_name(self.settings)
        longer = self.check_longer is not None and isinstance(before.get("steps"), int)
        free = [*FREE_TO_CHANGE, "steps"] if longer else FREE_TO_CHANGE
        changed = [
            f"{key}: was {before.get(key)!r}, now {now.get(key)!r}"
            for key in sorted(set(before) | set(now))
            if key not in free and before.get(key) != now.get(key)
        ]
        if changed:
            raise RunFolderError(f"{self.path} was started with other settings: " + "; ".join(changed))
        if self.check_longer and before["steps"] != now["steps"]:
            self.check_longer(before["steps"], now["steps"])
            if (self.path / RESULT).exists() and not any((self.path / CHECKPOINTS).glob("*.ckpt")):
                raise RunFolderError(
                    f"{self.path} is finished and keeps no checkpoint to go on from; begin a new run from "
                    "its weights with --init"
                )

    def _is_longer(self) -> bool:
        """Whether the run there was planned for other steps; `_refuse_changes` has allowed it."""
        if self.check_longer is None or not (self.path / CONFIG).exists():
            return False
        before = yaml.safe_load((self.path / CONFIG).read_text()) or {}
        return bool(before.get("steps") != self.settings["steps"])

    def _begin(self, environment: dict[str, Any]) -> None:
        """Clear away a run that died before its first checkpoint, and write settings and environment."""
        sweep(self.path, self.path / CHECKPOINTS, everywhere=True)
        for entry in () if self.resume else [self.path / name for name in BEGUN if name != CONFIG]:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        if self.resume and self._is_longer():  # before its settings change, or it would look finished
            (self.path / RESULT).unlink(missing_ok=True)
        write_text(self.path / CONFIG, yaml.safe_dump(self.settings, sort_keys=False))
        write_json(self.path / ENVIRONMENT, environment)


def keeps_split(out: Path, told: str) -> bool:
    """Whether a run that is gone on with has a split of its own.

    Before its first checkpoint nothing has been learned, so the data may have been mended since; but a run of
    version 0.1.0, whose split doesn't tell what was ``told`` later, keeps what it had.
    """
    path = out / SPLIT
    return path.exists() and (bool(list_checkpoints(out)) or told not in read_json(path))


def begun_with(out: str | Path, name: str, default: Any) -> Any:
    """A setting that the run in a folder was started with; the default where there is none."""
    path = Path(out) / CONFIG
    settings = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return (settings or {}).get(name, default)


def _with_later_fields(plain: Any, spec: object) -> Any:
    """What an earlier version kept of a spec, with the defaults of fields that its class has had since."""
    if not isinstance(spec, Spec) or not isinstance(plain, dict):
        return plain
    if plain.get("class_path") != type(spec).__name__:
        return plain
    kept, written = dict(plain.get("init_args") or {}), spec.to_dict()["init_args"]
    for field in dataclasses.fields(spec):
        if field.name not in written:  # a class may leave out what is as it was before the field
            continue
        if field.name in kept:
            kept[field.name] = _with_later_fields(kept[field.name], getattr(spec, field.name))
        elif field.default is not dataclasses.MISSING:
            kept[field.name] = _by_name(to_plain(field.default))
    return {"class_path": plain["class_path"], "init_args": kept}


def _by_name(plain: Any) -> Any:
    """Settings with classes by their names alone; version 0.1.0 wrote their modules, too."""
    if isinstance(plain, dict):
        return {
            key: str(value).rpartition(".")[2] if key == "class_path" else _by_name(value)
            for key, value in plain.items()
        }
    return [_by_name(value) for value in plain] if isinstance(plain, list) else plain
