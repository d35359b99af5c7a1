"""A survey of scans as text for a terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parts2whole.errors import group_reasons, name_some, plural
from parts2whole.scans.preprocess import Preprocess
from parts2whole.survey.propose import Proposal
from parts2whole.survey.survey import Entry, Facts, Survey

NAMED = 3
"""Cases named under a remark that many share."""

LISTED = 20
"""Duplicates listed one by one in the terminal."""

WIDTH = 120
"""Columns where the output is no terminal."""


def to_text(survey: Survey, *, rows: bool = True, console: Console | None = None) -> str:
    """The survey for a terminal, coloured if it is one.

    Args:
        survey: what was found.
        rows: include the table of scans and label maps, not only what stands out and the proposals.
        console: where it will be shown; default standard output.
    """
    console = console or _console()
    with console.capture() as captured:
        if rows:
            _print_rows(survey, console)
        for line in _remarks(survey):
            console.print(line, soft_wrap=True)
        console.print(Text(count(survey), style="bold"))
        for proposal in survey.proposals:
            console.print()
            console.print(_proposal_table(proposal))
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def count(survey: Survey) -> str:
    """``38 scans, 37 label maps, 1 can't be used``; and what was left aside."""
    words = [plural(len(survey.scans), "scan")]
    words += [plural(len(survey.label_maps), "label map")] if survey.label_maps else []
    words += [f"{len(survey.unusable)} can't be used"] if survey.unusable else []
    words += [plural(len(survey.duplicates), "duplicate")] if survey.duplicates else []
    others = ", ".join(f"{number} {suffix}" for suffix, number in survey.others.items())
    return ", ".join(words) + (f"; files of other kinds: {others}" if others else "")


def settings(proposal: Proposal) -> list[tuple[str, str, str]]:
    """What is proposed, the value, and why."""
    spacing = "each scan's own" if proposal.spacing_mm is None else f"{_by(proposal.spacing_mm)} mm"
    if proposal.window_hu is not None:
        window = f"{proposal.window_hu[0]:g} to {proposal.window_hu[1]:g} HU"
    else:
        low, high = proposal.percentiles or (0.0, 100.0)
        window = f"percentiles {low:g} to {high:g}"
    whole = f"{_by(proposal.whole_voxels)} voxels, {_by(proposal.whole_mm)} mm"
    where = "anywhere"
    if proposal.above_hu is not None:
        where = f"on voxels above {proposal.above_hu:g} HU"
    elif proposal.above_share is not None:
        where = f"on voxels above {proposal.above_share:g} of the intensities"
    return [
        ("spacing", spacing, proposal.spacing_why),
        ("intensities", window, proposal.window_why),
        ("whole", whole, proposal.whole_why),
        ("where", where, proposal.where_why),
    ]


def commands(proposal: Proposal) -> list[str]:
    """The proposals as arguments of `prepare` and `pretrain`."""
    modality = "CT" if proposal.modality == "CT" else "MR"
    prepare = f"parts2whole prepare ... --modality {modality}"
    if proposal.window_hu is not None:
        prepare += f" --window-hu {proposal.window_hu[0]:g},{proposal.window_hu[1]:g}"
    elif proposal.percentiles is not None and proposal.percentiles != Preprocess().percentiles:
        prepare += f" --percentiles {proposal.percentiles[0]:g},{proposal.percentiles[1]:g}"
    if proposal.spacing_mm is not None:
        prepare += f" --spacing-mm {','.join(f'{mm:g}' for mm in proposal.spacing_mm)}"
    whole = ",".join(map(str, proposal.whole_voxels))
    pretrain = f"parts2whole pretrain ... --whole-size {whole} --where Anywhere"
    if proposal.above_hu is not None:
        pretrain = f"{pretrain.removesuffix('Anywhere')}Body --where.above-hu {proposal.above_hu:g}"
    elif proposal.above_share is not None:
        pretrain = f"{pretrain.removesuffix('Anywhere')}Body"
    return [prepare, pretrain]


def cells(entry: Entry) -> tuple[str, str, str, str, str]:
    """What it is, voxels, spacing, orientation and values; all but the first for people."""
    facts = entry.facts
    if facts is None:
        return ("–",) * 5
    volumes = f"{facts.volumes} of " if facts.volumes > 1 else ""
    size = volumes + "x".join(map(str, facts.shape))
    if facts.kind == "label map":
        return "labels", size, _triple(facts.spacing_mm), facts.orientation, spans(facts.label_values)
    values = f"{short(facts.values[0])} to {short(facts.values[1])}"
    return modality(facts), size, _triple(facts.spacing_mm), facts.orientation, values


def modality(facts: Facts) -> str:
    """``CT``; with a question mark where it is a guess."""
    return f"{facts.modality}{'?' * facts.guessed}" if facts.modality else "unclear"


def spans(values: Sequence[int]) -> str:
    """Whole numbers with neighbours joined: ``0-11 13 14``."""
    runs = []
    for _, group in groupby(enumerate(values), key=lambda pair: pair[1] - pair[0]):
        run = [value for _, value in group]
        runs += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(value) for value in run]
    return " ".join(runs)


def short(value: float) -> str:
    """A value in few characters."""
    plain = abs(value) < 1e5 and (value == round(value) or abs(value) >= 100)
    return f"{value:.0f}" if plain else f"{value:.3g}"


def folder_of(entry: Entry) -> str:
    """What the case ids of the files of a folder have in common."""
    head, separator, _ = entry.case_id.rpartition("__")
    return head + separator


def share_remarks(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Notes, with the cases that share them."""
    remarks: dict[str, list[str]] = {}
    for entry in entries:
        for note in entry.notes:
            remarks.setdefault(note, []).append(entry.case_id)
    return remarks


def name_few(cases: Sequence[str]) -> str:
    """The first cases by name, the others by number."""
    more = f" and {len(cases) - NAMED} more" if len(cases) > NAMED else ""
    return ", ".join(cases[:NAMED]) + more


def to_csv(survey: Survey) -> str:
    """One line for each entry."""
    out = io.StringIO()
    rows = [_flat(entry) for entry in survey.entries]
    writer = csv.DictWriter(out, list(_flat(Entry("", "", ""))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_json(survey: Survey) -> str:
    """Entries and proposals in full, without pictures."""
    content = {
        "findings": [_plain(entry) for entry in survey.entries],
        "proposals": [dataclasses.asdict(proposal) for proposal in survey.proposals],
        "other_files": survey.others,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _plain(entry: Entry) -> dict[str, Any]:
    plain = dataclasses.asdict(dataclasses.replace(entry, picture=None))
    del plain["picture"]
    return plain


def _flat(entry: Entry) -> dict[str, Any]:
    """A line of the CSV; sizes and spacings in columns of their own."""
    facts = entry.facts
    z, y, x = facts.shape if facts else ("", "", "")
    mm = facts.spacing_mm if facts else ("", "", "")
    low, high = facts.values if facts else ("", "")
    below, above = facts.percentiles if facts else ("", "")
    return {
        "case": entry.case_id,
        "kind": facts.kind if facts else "",
        "format": entry.format,
        "source": entry.source,
        "modality": (facts.modality or "") if facts else "",
        "modality_reason": facts.modality_reason if facts else "",
        "volumes": facts.volumes if facts else "",
        "voxels_z": z,
        "voxels_y": y,
        "voxels_x": x,
        "spacing_z_mm": mm[0],
        "spacing_y_mm": mm[1],
        "spacing_x_mm": mm[2],
        "orientation": facts.orientation if facts else "",
        "lowest": low,
        "highest": high,
        "percentile_0.5": below,
        "percentile_99.5": above,
        "label_values": " ".join(map(str, facts.label_values)) if facts else "",
        "patient": entry.patient or "",
        "series": entry.series,
        "content_hash": facts.content_hash if facts else "",
        "duplicate_of": entry.duplicate_of or "",
        "problem": entry.problem or "",
        "notes": "; ".join(entry.notes),
    }


def _print_rows(survey: Survey, console: Console) -> None:
    """All that could be read, by folder; patients have a column if any is known."""
    found = [entry for entry in survey.entries if entry.facts is not None]
    with_patient = any(entry.patient for entry in found)
    names = [
        "case",
        "format",
        "is",
        "voxels z y x",
        "mm z y x",
        "axes",
        "values",
        *["patient"] * with_patient,
    ]
    folders = [(folder, list(group)) for folder, group in groupby(found, key=folder_of)]
    lines = {
        entry.case_id: [
            ("  " if folder else "") + entry.case_id.removeprefix(folder),
            entry.format,
            *cells(entry),
            *[entry.patient or ""] * with_patient,
        ]
        for folder, group in folders
        for entry in group
    }
    # Values of label maps may fold; all else keeps its width, as far as there is room.
    shown = [[*line[:6], line[6] if line[2] != "labels" else "", *line[7:]] for line in lines.values()]
    widths = [max(map(len, column)) for column in zip(names, *shown, strict=True)]
    room = console.width - sum(widths) - len(names) + 1
    widths[0] = max(12, widths[0] + min(0, room))
    widths[6] += max(0, room)
    for folder, group in [("", []), *folders]:
        made = Table(box=None, show_header=not group, pad_edge=False, padding=(0, 1, 0, 0))
        for name, width in zip(names, widths, strict=True):
            made.add_column(Text(name), width=width, overflow="fold")
        for entry in group:
            style = "red" if entry.problem else "dim" if lines[entry.case_id][2] == "labels" else ""
            made.add_row(*(Text(text, style=style) for text in lines[entry.case_id]))
        if folder:
            console.print(Text(folder, style="bold"))
        console.print(made)
    console.print()


def _remarks(survey: Survey) -> list[Text]:
    """Problems, duplicates and notes, a line each."""
    lines = []
    problems = {entry.case_id: str(entry.problem) for entry in survey.unusable}
    places = {entry.case_id: survey.places.get(entry.case_id, entry.source) for entry in survey.unusable}
    for cases, problem in group_reasons(problems).items():
        named = [f"{case} ({places[case]})" if places[case] not in problem else case for case in cases]
        text = f"{cases[0]}: {problem}" + (f"  ({places[cases[0]]})" if named[0] != cases[0] else "")
        if len(cases) > 1:
            text = f"{len(cases)} of {len(survey.entries)}: {problem} ({name_some(named)})"
        lines.append(_line("can't be used", "red", text))
    for entry in survey.duplicates[:LISTED]:
        text = f"{entry.case_id} has the voxels of {entry.duplicate_of}"
        lines.append(_line("duplicate", "yellow", text))
    if len(survey.duplicates) > LISTED:
        lines.append(_line("duplicate", "yellow", f"{len(survey.duplicates) - LISTED} more"))
    guesses = [entry.facts for entry in survey.scans if entry.facts and entry.facts.guessed]
    if guesses:
        text = f"{modality(guesses[0])} is a guess, such as from {guesses[0].modality_reason}"
        lines.append(_line("note", "yellow", text))
    for note, sharing in share_remarks(survey.entries).items():
        lines.append(_line("note", "yellow", f"{note}: {name_few(sharing)}"))
    return lines


def _line(word: str, style: str, text: str) -> Text:
    return Text.assemble((word, style), "  ", text)


def _proposal_table(proposal: Proposal) -> Table:
    what = proposal.modality if proposal.modality != "unclear" else "scans of unclear modality"
    title = Text(f"Proposed for {what} ({plural(proposal.scans, 'scan')})", style="bold")
    made = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    made.add_column(no_wrap=True, style="dim")
    made.add_column(ratio=1)
    for name, value, why in settings(proposal):
        made.add_row(name, Text.assemble((value, "bold"), f". {why}"))
    for command in commands(proposal):
        made.add_row("", Text(command, style="cyan", overflow="fold"))
    return made


def _console() -> Console:
    plain = Console(highlight=False)
    if plain.is_terminal or "COLUMNS" in os.environ:
        return plain
    return Console(highlight=False, width=WIDTH)


def _triple(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def _by(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
