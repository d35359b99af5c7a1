"""What became of every case that was to be stored, as data and as a printed summary."""

from __future__ import annotations

import dataclasses

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from parts2whole.errors import group_reasons, name_some
from parts2whole.scans.preprocess import GUESSED
from parts2whole.store.store import Store

SHOWN = 20
"""Prepared cases listed one by one in the printed summary; those set aside all are."""


@dataclasses.dataclass(frozen=True)
class IngestReport:
    """What became of every case.

    Attributes:
        prepared: written by this call.
        kept: finished before, and unchanged.
        damaged: finished before, but what is stored was damaged, and how; done again by this call.
        set_aside: reason for every case that could not be used.
        duplicates: cases with the voxels of an earlier case, and that case.
        places: folder of every DICOM series set aside, for the screen only.
        duration_s: of the call.
    """

    prepared: tuple[str, ...]
    kept: tuple[str, ...]
    damaged: dict[str, str]
    set_aside: dict[str, str]
    duplicates: dict[str, str]
    places: dict[str, str]
    duration_s: float


def print_report(store: Store, report: IngestReport, console: Console | None = None) -> None:
    """Print what became of every case, those set aside first."""
    console = console or Console(stderr=True, highlight=False)
    named = {case: case for case in report.set_aside}
    named |= {case: f"{case} ({place})" for case, place in report.places.items()}
    everything = len(report.prepared) + len(report.kept) + len(report.set_aside)
    for cases, reason in group_reasons(report.set_aside).items():
        text = f"{named[cases[0]]}: {reason}"
        if len(cases) > 1:
            text = f"{len(cases)} of {everything}: {reason} ({name_some([named[case] for case in cases])})"
        console.print(f"[red]set aside[/red]  {escape(text)}", soft_wrap=True)
    for case, reason in report.damaged.items():
        console.print(f"[yellow]done again[/yellow]  {escape(case)}: {escape(reason)}", soft_wrap=True)
    table = Table("prepared", "as", "voxels z y x", "mm", "note", show_edge=False)
    for case in report.prepared[:SHOWN]:
        record = store.record(case)
        notes = [note for note in record.notes if not note.startswith(GUESSED)]
        kind = f"{record.modality}, guessed" if len(notes) < len(record.notes) else record.modality
        if case in report.duplicates:
            notes.append(f"same voxels as {report.duplicates[case]}")
        spacing = " ".join(f"{mm:.3g}" for mm in record.spacing_mm)
        table.add_row(escape(case), kind, "x".join(map(str, record.shape)), spacing, escape("; ".join(notes)))
    if table.row_count:
        console.print(table)
    if len(report.prepared) > SHOWN:
        console.print(
            f"... and {len(report.prepared) - SHOWN} more, listed in {store.path / 'manifest.json'}"
        )
    parts = [f"{len(report.prepared)} prepared in {report.duration_s:.1f} s"]
    if report.kept:
        parts.append(f"{len(report.kept)} kept from before")
    parts.append(f"{len(report.set_aside)} set aside")
    guesses = [
        note for case in report.prepared for note in store.record(case).notes if note.startswith(GUESSED)
    ]
    if guesses:
        parts.append(f"modality guessed for {len(guesses)}, such as {guesses[0].removeprefix(GUESSED)}")
    if report.duplicates:
        parts.append(f"{len(report.duplicates)} with the voxels of another case")
    console.print(", ".join(parts), soft_wrap=True)
