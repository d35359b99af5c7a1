"""The run folder: refused if it already holds a run, resumed only with the settings it was started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml

from parts2whole.errors import Parts2WholeError
from parts2whole.files import read_json, write_json, write_text

CONFIG = "config.yaml"
RESULT = "result.json"
Resume = bool | Literal["auto"]
FREE_TO_CHANGE = ("resume", "progress", "hardware", "out", "cache")
"""Settings that may differ between the first part of a run and its resumption."""


class RunFolderError(Parts2WholeError, RuntimeError):
    """An out folder that can't be used."""


def start_run(out: Path, config: dict[str, Any], *, environment: dict[str, Any], resume: Resume) -> Path:
    """Make the run folder and write what is known before training.

    Args:
        out: the folder.
        config: resolved arguments, as plain data.
        environment: versions and hardware.
        resume: True goes on with the run there, ``auto`` too, or starts one if there is none.

    Raises:
        RunFolderError: it holds a run (without ``resume``), none (with it), or one with other settings.
    """
    path = out / CONFIG
    if resume is True and not path.exists():
        raise RunFolderError(f"{out} holds no run to go on with; start one with --resume auto, or without")
    if path.exists():
        if not resume:
            state = "a finished run" if (out / RESULT).exists() else "an unfinished run"
            raise RunFolderError(
                f"{out} already holds {state}: choose another --out, or go on with --resume true"
            )
        before = yaml.safe_load(path.read_text()) or {}
        changed = [
            f"{key}: was {before.get(key)!r}, now {config.get(key)!r}"
            for key in sorted(set(before) | set(config))
            if key not in FREE_TO_CHANGE and before.get(key) != config.get(key)
        ]
        if changed:
            raise RunFolderError(f"{out} was started with other settings: " + "; ".join(changed))
    elif out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file; --out must be a folder")
    elif out.exists() and any(out.iterdir()):
        raise RunFolderError(f"{out} is not empty and holds no run: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(config, sort_keys=False))
    write_json(out / "environment.json", environment)
    return out


def read_result(out: Path) -> dict[str, Any] | None:
    """The result of a finished run; None where it isn't finished."""
    path = out / RESULT
    return read_json(path) if path.exists() else None
