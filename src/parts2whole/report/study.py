"""What a benchmark says about itself, so that its report can be written again: runs, arms and the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from parts2whole.errors import plural
from parts2whole.files import write_bytes, write_json
from parts2whole.report.endpoints import DEFAULT, Endpoint
from parts2whole.report.folds import pool_folds
from parts2whole.report.judge import measure_endpoints
from parts2whole.report.results import BY_STEPS, tabulate
from parts2whole.report.runs import Run, RunError, find_runs, read_mapping, read_run
from parts2whole.report.tables import Table
from parts2whole.report.verdict import Conclusion, conclude

LISTING, STUDY, NAMED = "benchmark.json", "study.yaml", "endpoints.json"
HOW, LATE = "how", "late"
"""In ``endpoints.json`` beside the endpoints: how they were tested when named, and what changed later."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """What belongs to a study, and how its table is made.

    Attributes:
        name: title of the report.
        arms: in the order of the study.
        runs: folders of finished pre-trainings and fine-tunings; others beside them are of earlier settings.
        table: arguments of `parts2whole.report.make_table.make_table`.
        metrics: what tasks are judged by, by their names; others by custom. None, in studies of version
            0.1.0, leaves it to what each run has kept.
        several: names of tasks that are fine-tuned with several numbers of steps.
        endpoints: what the study is judged by, and how many of its fine-tunings were finished when that was
            named.
        dropped: endpoints that were named once, and no longer are.
        changed: what the study is judged by, and wasn't when endpoints were named, in words.
        called: arms of pre-trainings by their folders, as they are called now.
    """

    name: str
    arms: tuple[str, ...]
    runs: tuple[Path, ...]
    table: Mapping[str, Any]
    metrics: Mapping[str, str] | None = None
    several: tuple[str, ...] = ()
    endpoints: Mapping[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(DEFAULT, 0))
    dropped: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    called: Mapping[Path, str] = dataclasses.field(default_factory=dict)

    def read(self) -> list[Run]:
        """The runs, folds put together, each fine-tuning judged by what the study now judges its task by."""
        return pool_folds(self._judged(read_run(path)) for path in self.runs)

    def _judged(self, run: Run) -> Run:
        if run.folder in self.called:
            return dataclasses.replace(run, result=run.result | {"arm": self.called[run.folder]})
        if self.metrics is None:
            return run
        task = str(run.result.get("task_name"))
        kept = {key: value for key, value in run.result.items() if key != "monitor"}
        kept |= {"monitor": self.metrics[task]} if self.metrics.get(task) else {}
        return dataclasses.replace(run, result=kept | ({BY_STEPS: True} if task in self.several else {}))

    def tabulate(self, runs: list[Run], **changed: Any) -> Table:
        """The study's table of some of its runs; see `parts2whole.report.results.tabulate`."""
        return tabulate(runs, arms=self.arms, **{**self.table, **changed})

    def measure(self, runs: list[Run]) -> tuple[Endpoint, ...]:
        """The study's endpoints, of some of its runs; see `measure_endpoints`."""
        return measure_endpoints(runs, self.endpoints, arms=self.arms, **self.table)

    def conclude(self, endpoints: Sequence[Endpoint]) -> Conclusion | None:
        """The study's verdict, which also says what it was once to be judged by."""
        found = conclude(endpoints)
        if found is None:
            return found
        said = [f"Changed after results were there: {'; '.join(self.changed)}."] if self.changed else []
        if self.dropped:
            said.append(f"No longer an endpoint, though named once: {', '.join(self.dropped)}.")
        return dataclasses.replace(found, sentences=(*found.sentences, *said))

    def write(self, folder: Path, *, source: Path) -> Path:
        """Write ``benchmark.json`` into the study's folder, and a copy of its file, ``source``."""
        content = {
            "name": self.name,
            "arms": list(self.arms),
            "table": dict(self.table),
            "metrics": None if self.metrics is None else dict(self.metrics),
            "several": list(self.several),
            "endpoints": dict(self.endpoints),
            "dropped": list(self.dropped),
            "changed": list(self.changed),
            "called": {path.relative_to(folder).as_posix(): arm for path, arm in self.called.items()},
            "runs": [run.relative_to(folder).as_posix() for run in self.runs],
        }
        write_bytes(folder / STUDY, source.read_bytes())
        return write_json(folder / LISTING, content)


def read_listing(folder: Path) -> Listing | None:
    """What `Listing.write` left; None where the folder is no benchmark's."""
    plain = read_mapping(folder / LISTING, [])
    if not plain:
        return None
    return Listing(
        name=str(plain.get("name") or folder.resolve().name),
        arms=tuple(plain.get("arms") or ()),
        runs=tuple(folder / run for run in plain.get("runs") or ()),
        table=plain.get("table") or {},
        metrics=plain.get("metrics"),
        several=tuple(plain.get("several") or ()),
        endpoints=plain.get("endpoints") or dict.fromkeys(DEFAULT, 0),
        dropped=tuple(plain.get("dropped") or ()),
        changed=tuple(plain.get("changed") or ()),
        called={folder / path: arm for path, arm in (plain.get("called") or {}).items()},
    )


@dataclasses.dataclass(frozen=True)
class Named:
    """What a study is judged by, and since when.

    Attributes:
        endpoints: for every one that is wanted how many fine-tunings were finished when it was first named.
        dropped: those that were named once and aren't wanted now.
        changed: metrics and settings of tests that were others when endpoints were named, in words.
    """

    endpoints: dict[str, int]
    dropped: tuple[str, ...]
    changed: tuple[str, ...]


def name_endpoints(
    folder: Path,
    wanted: Sequence[str],
    *,
    how: Mapping[str, Any] = MappingProxyType({}),
    finished: int,
    write: bool,
) -> Named:
    """Keep in a study's folder which endpoints are named, how they are tested, and when: ``endpoints.json``.

    A study that was begun without the file has always had the default endpoint.

    Args:
        folder: of the study.
        wanted: endpoints that the study now names.
        how: metrics and settings of its tests, as they are now.
        finished: its fine-tunings that are finished now.
        write: whether to keep them.
    """
    path = folder / NAMED
    kept = read_mapping(path, [])
    known = {str(name): int(count) for name, count in kept.items() if name not in (HOW, LATE)}
    if not known and finished:
        known = dict.fromkeys(DEFAULT, 0)
    now = known | {name: finished for name in wanted if name not in known}
    told = {name: str(value) for name, value in how.items()}
    begun = finished or not write
    then = told | (kept.get(HOW, {}) if begun else {})
    late = dict(kept.get(LATE, {})) if begun else {}
    changed = []
    for name, value in told.items():
        if value != then[name]:
            count = late.setdefault(f"{name}: {value}", finished)
            since = f" since {plural(count, 'fine-tuning')} were finished" if count else ""
            changed.append(f"{name} {value}{since}, {then[name]} when named")
    content = {**now, HOW: then, LATE: late}
    if write and content != kept:
        write_json(path, content)
    dropped = tuple(name for name in known if name not in wanted)
    return Named({name: now[name] for name in wanted}, dropped, tuple(changed))


def read_runs(folder: str | Path) -> list[Run]:
    """The runs in a folder: of a benchmark's those that belong to it, else all, itself included.

    Folds of one run are put together, see `pool_folds`.

    Raises:
        RunError: there is none.
    """
    listing = read_listing(Path(folder))
    found = listing.read() if listing else pool_folds(read_run(path) for path in find_runs(folder))
    if not found:
        raise RunError(
            f"{folder} holds no run: expected metrics.jsonl or result.json in it, or in a folder below it"
        )
    return found
