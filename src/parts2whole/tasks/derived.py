"""What is computed once from every stored case and kept beside the store, such as where its lesions lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parts2whole.files import read_json, write_json
from parts2whole.jobs.pool import usable_cores
from parts2whole.jobs.run import run_jobs
from parts2whole.spec import digest
from parts2whole.store.store import Store
from parts2whole.tasks.labelled import TaskError

Rows = list[dict[str, Any]]
Derive = Callable[[Store, str], Rows]
"""From a store and a case id to plain data; must pickle, and depend on nothing else."""


@dataclasses.dataclass(frozen=True)
class _Job:
    store: Store
    case_id: str
    derive: Derive


def derive(
    store: Store, derive_case: Derive, *, name: str, settings: Any, workers: int | None = None
) -> dict[str, Rows]:
    """Rows of every case, computed where they aren't kept from before.

    They are kept in a JSON file named after ``name`` and ``settings``, with the checksum of each case's
    voxels and labels, so that what has changed is computed again.

    Args:
        store: the cases.
        derive_case: what to compute.
        name: what it is called.
        settings: plain data that the result depends on.
        workers: processes; default one a core, 0 works in this one.

    Raises:
        TaskError: a worker was killed.
    """
    file = Path(store.path).with_name(f"{store.path.name}-{name}-{digest(settings)}.json")
    kept: dict[str, Any] = read_json(file) if file.exists() else {}
    wanted = [r for r in store.cases if kept.get(r.case_id, {}).get("checksum") != r.checksum]
    if wanted:
        count = min(usable_cores(), len(wanted)) if workers is None else min(workers, len(wanted))
        jobs = [_Job(store, record.case_id, derive_case) for record in wanted]
        found = dict(run_jobs(_work, jobs, workers=count, lost=_lost))
        kept |= {r.case_id: {"checksum": r.checksum, "rows": found[r.case_id]} for r in wanted}
        write_json(file, kept, indent=None)
    return {record.case_id: kept[record.case_id]["rows"] for record in store.cases}


def _work(job: _Job) -> tuple[str, Rows]:
    return job.case_id, job.derive(job.store, job.case_id)


def _lost(job: _Job) -> tuple[str, Rows]:
    raise TaskError(f"the process that examined {job.case_id} was killed, perhaps for lack of memory")
