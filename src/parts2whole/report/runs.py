"""Run folders read back: configuration, metrics, result, per-case values and pictures of a run.

Reading is forgiving, because a report is often wanted of a run that was stopped, or is still going: a file
that is missing or cut short leaves a note in `Run.notes`, never an exception.
"""

from __future__ import annotations

import csv
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import yaml

from parts2whole.errors import Parts2WholeError
from parts2whole.files import replacing
from parts2whole.run_folder import (
    CELL,
    CHECKPOINTS,
    CONFIG,
    EMBEDDING,
    ENVIRONMENT,
    METRICS,
    PANELS,
    RATES,
    RESULT,
    TEST_CASES,
    WEIGHTS,
)

Kind = Literal["pretrain", "finetune", "other"]
Plain = dict[str, Any]
Volumes = npt.NDArray[np.float32]
Spacing = tuple[float, float, float]

VOLUMES = Path(PANELS, "latest.npz")
"""What a benchmark keeps beside the result of a cell; it names the arm and the task."""
OF_CELL = ("arm", "task_name", "monitor", "commit", "fold")
NOT_RUNS = frozenset({WEIGHTS, CHECKPOINTS, "tensorboard", PANELS, "cases", "records", EMBEDDING, RATES})


class RunError(Parts2WholeError, ValueError):
    """A folder that holds no run."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Some views of a pretext task, to be looked at.

    Attributes:
        part: what the network saw, (n, z, y, x) in [0, 1].
        reconstruction: what it made of it, alike.
        whole: what it should have made, alike.
        spacing_mm: distance between voxels along (z, y, x), of each sample or of all.
        names: one a sample, such as the case it was cut from.
        boxes: (n, 3, 2), where the part was cut from: first and one-past-last voxel of the whole along
            (z, y, x); fractions of voxels are fine.
    """

    part: Volumes
    reconstruction: Volumes
    whole: Volumes
    spacing_mm: Spacing | tuple[Spacing, ...] = (1.0, 1.0, 1.0)
    names: tuple[str, ...] = ()
    boxes: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shapes = {self.part.shape, self.reconstruction.shape, self.whole.shape}
        if len(shapes) > 1 or self.whole.ndim != 4:
            raise RunError(f"part, reconstruction and whole must be alike (n, z, y, x), got {sorted(shapes)}")
        if self.boxes is not None and self.boxes.shape != (len(self.whole), 3, 2):
            raise RunError(f"expected boxes of shape {(len(self.whole), 3, 2)}, got {self.boxes.shape}")
        if np.shape(self.spacing_mm) not in ((3,), (len(self.whole), 3)):
            raise RunError(f"expected one spacing (z, y, x), or one a sample, got {self.spacing_mm}")

    @property
    def spacings_mm(self) -> tuple[Spacing, ...]:
        """Distance between voxels along (z, y, x) of every sample."""
        spacings = np.broadcast_to(np.asarray(self.spacing_mm, np.float64), (len(self.whole), 3))
        return tuple((z, y, x) for z, y, x in spacings.tolist())

    @property
    def seen(self) -> str:
        """What the network saw: a part, or a whole that was changed."""
        return "Input" if self.boxes is None else "Part"


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: where it is.
        kind: ``pretrain``, ``finetune``, or ``other`` where that can't be told.
        config: resolved arguments.
        result: figures of a finished run; empty otherwise.
        environment: versions and hardware.
        records: lines of the metrics file, oldest first.
        cases: rows of ``test_cases.csv`` by ``case``; numbers are floats, empty cells are left out.
        pictures: PNG files the run drew, oldest first.
        notes: what could not be read, in words.
        waits: of folds put together, for others that aren't finished.
    """

    folder: Path
    kind: Kind
    config: Plain
    result: Plain
    environment: Plain
    records: tuple[Plain, ...]
    cases: tuple[Plain, ...] = ()
    pictures: tuple[Path, ...] = ()
    notes: tuple[str, ...] = field(default=())
    waits: bool = False

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return bool(self.result)

    @property
    def steps(self) -> int:
        """Steps taken."""
        last = max((int(r["step"]) for r in self.records), default=0)
        return int(self.result.get("steps") or last)

    @property
    def labelled(self) -> int:
        """Labels of a fine-tuning: patients, or cases trained on where a run of version 0.1.0 doesn't say."""
        told = as_number(self.config.get("cases")) or as_number(self.result.get("train_patients"))
        return int(told) if told else len(self.result.get("train_cases") or ())

    @property
    def duration_s(self) -> float | None:
        """Seconds it took, as far as it got."""
        last = self.records[-1].get("time_s") if self.records else None
        told = as_number(self.result.get("duration_s"))
        return as_number(last) if told is None else told

    def series(self, split: str, metric: str) -> list[tuple[int, float]]:
        """Pairs of step and finite value of a metric."""
        pairs = ((r["step"], as_number(r.get(metric))) for r in self.records if r.get("split") == split)
        return [(int(step), value) for step, value in pairs if value is not None]

    def errors(self, split: str) -> list[tuple[int, float]]:
        """What trivial baselines are compared with: that of a reconstruction, where given, or the loss."""
        return self.series(split, "reconstruction") or self.series(split, "loss")

    def metrics(self, split: str) -> list[str]:
        """Names of the numbers recorded for ``split``, in order of appearance."""
        names: dict[str, None] = {}
        for record in self.records:
            if record.get("split") == split:
                names |= {k: None for k, v in record.items() if as_number(v) is not None}
        return [name for name in names if name not in ("step", "time_s")]

    def last(self, split: str, metric: str) -> float | None:
        """The newest value of a metric."""
        values = self.series(split, metric)
        return values[-1][1] if values else None


def find_runs(folder: str | Path) -> tuple[Path, ...]:
    """Every run folder in ``folder``, itself included, sorted by path.

    Raises:
        RunError: ``folder`` is not a folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise RunError(f"{root} is not a folder; expected a run folder, or a folder of runs")
    found = []
    for here, below, files in os.walk(root):
        below[:] = [
            b for b in below if b not in NOT_RUNS and not b.endswith(".zarr") and not b.startswith(".")
        ]
        if METRICS in files or _is_result(Path(here, RESULT)):
            found.append(Path(here))
    return tuple(sorted(found))


def read_run(folder: str | Path) -> Run:
    """Read one run folder.

    Raises:
        RunError: ``folder`` holds neither metrics nor a result.
    """
    folder = Path(folder)
    if not (folder / METRICS).exists() and not (folder / RESULT).exists():
        raise RunError(f"{folder} holds no run: neither metrics.jsonl nor result.json is there")
    notes: list[str] = []
    config = read_mapping(folder / CONFIG, notes)
    result = read_mapping(folder / RESULT, notes)
    if result and (folder / CELL).exists():
        about = read_mapping(folder / CELL, notes)
        result |= {key: about[key] for key in OF_CELL if key in about}
    records, broken = _parse_metrics(folder / METRICS)
    if broken:
        notes.append(f"{broken} unreadable line{'s' * (broken > 1)} in metrics.jsonl left out")
    panels = folder / PANELS
    return Run(
        folder=folder,
        kind=_kind(config, result, records),
        config=config,
        result=result,
        environment=read_mapping(folder / ENVIRONMENT, notes),
        records=tuple(records),
        cases=_read_cases(folder / TEST_CASES, notes),
        pictures=tuple(sorted(panels.glob("*.png"))) if panels.is_dir() else (),
        notes=tuple(notes),
    )


def write_volumes(folder: str | Path, panel: Panel) -> Path:
    """Keep a panel as ``panels/latest.npz`` of a run folder, for the report's slice viewer."""
    path = Path(folder) / VOLUMES
    arrays: dict[str, npt.NDArray[Any]] = {
        key: np.asarray(getattr(panel, key), np.float32) for key in ("part", "reconstruction", "whole")
    }
    arrays["spacing_mm"] = np.asarray(panel.spacing_mm, np.float32)
    if panel.names:
        arrays["names"] = np.asarray(panel.names, dtype=np.str_)
    if panel.boxes is not None:
        arrays["boxes"] = np.asarray(panel.boxes, np.float32)
    return write_arrays(path, arrays)


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> Path:
    """Write arrays by name as a compressed ``.npz``."""
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return path


def read_volumes(folder: str | Path) -> Panel | None:
    """The panel that `write_volumes` left in a run folder; None where there is none.

    Raises:
        RunError: the file is damaged.
    """
    path = Path(folder) / VOLUMES
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        images = {key: np.asarray(arrays[key], np.float32) for key in ("part", "reconstruction", "whole")}
        spacing = np.asarray(arrays.get("spacing_mm", (1.0, 1.0, 1.0)), np.float64).tolist()
        spacing = tuple(tuple(one) if isinstance(one, list) else one for one in spacing)
        names = tuple(str(name) for name in arrays.get("names", ()))
        return Panel(**images, spacing_mm=spacing, names=names, boxes=arrays.get("boxes"))
    except (OSError, KeyError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise RunError(f"{path.name} can't be read ({error}); delete it, or run again") from error


def as_number(value: object) -> float | None:
    """A finite float, or None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _kind(config: Plain, result: Plain, records: Sequence[Plain]) -> Kind:
    if result.get("kind") in ("pretrain", "finetune"):
        return result["kind"]  # type: ignore[no-any-return]
    if "task" in config or "init" in config:
        return "finetune"
    if "method" in config or any("baseline_mean_whole" in record for record in records):
        return "pretrain"
    return "other"


def _is_result(path: Path) -> bool:
    return path.exists() and read_mapping(path, []).get("kind") in ("pretrain", "finetune")


def read_mapping(path: Path, notes: list[str]) -> Plain:
    """A YAML or JSON file's mapping; empty, with a note, if it can't be read."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        notes.append(f"{path.name} can't be read: {' '.join(str(error).split())}")
        return {}
    if not isinstance(content, dict):
        notes.append(f"{path.name} holds no mapping")
        return {}
    return content


def _parse_metrics(path: Path) -> tuple[list[Plain], int]:
    """Records, and the number of broken lines (not counting a last one that is still being written)."""
    if not path.exists():
        return [], 0
    text = path.read_text(errors="replace")
    lines = text.splitlines()
    records, broken = [], []
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and as_number(record.get("step")) is not None:
            records.append(record)
        elif line.strip():
            broken.append(number)
    if broken and broken[-1] == len(lines) - 1 and not text.endswith("\n"):
        broken.pop()
    return records, len(broken)


def _read_cases(path: Path, notes: list[str]) -> tuple[Plain, ...]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(_numbers(row) for row in csv.DictReader(file))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        notes.append(f"{path.name} can't be read: {error}")
        return ()


def _numbers(row: Mapping[Any, Any]) -> Plain:
    """A CSV row: ``case``, ``target`` and ``patient`` are names, others floats where they can be.

    Where no column is called so, the first one is the case.
    """
    name = "case" if "case" in row else next(iter(row))
    read: Plain = {"case": str(row[name] or "")}
    for key, text in row.items():
        if key == name or not isinstance(text, str) or not text.strip():
            continue
        try:
            read[str(key)] = text if key in ("target", "patient") else float(text)
        except ValueError:
            read[str(key)] = text
    return {k: v for k, v in read.items() if not (isinstance(v, float) and not math.isfinite(v))}
