"""What a benchmark says about itself, so that its report can be written again: runs, arms and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parts2whole.files import write_bytes, write_json
from parts2whole.report.runs import Plain, read_mapping

LISTING, STUDY = "benchmark.json", "study.yaml"


def write_study(
    folder: Path,
    *,
    name: str,
    source: Path,
    arms: Sequence[str],
    runs: Sequence[Path],
    table: Mapping[str, Any],
) -> Path:
    """Write ``benchmark.json``: what belongs to the study, and how its table is made; and copy its file.

    Args:
        folder: of the benchmark.
        name: title of the report.
        source: the study's file.
        arms: in the order of the study.
        runs: folders of finished pre-trainings and cells; others in ``folder`` are of earlier settings.
        table: arguments of `parts2whole.report.tables.make_table`.
    """
    content = {
        "name": name,
        "arms": list(arms),
        "table": dict(table),
        "runs": [run.relative_to(folder).as_posix() for run in runs],
    }
    write_bytes(folder / STUDY, source.read_bytes())
    return write_json(folder / LISTING, content)


def read_listing(folder: Path) -> Plain | None:
    """What `write_study` left; None where the folder is no benchmark's."""
    return read_mapping(folder / LISTING, []) or None
