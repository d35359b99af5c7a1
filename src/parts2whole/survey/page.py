"""A survey of scans as one HTML file that opens from disk, without a network or a script, light or dark."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parts2whole.errors import plural
from parts2whole.report.figures import grey_png
from parts2whole.report.summary import Verdict
from parts2whole.report.template import render
from parts2whole.survey.survey import Entry, Survey
from parts2whole.survey.table import (
    cells,
    commands,
    folder_of,
    name_few,
    settings,
    share_remarks,
)

HERE = Path(__file__).parent


def to_html(survey: Survey) -> str:
    """The page; every name is escaped, and nothing is shown that the CSV wouldn't hold."""
    readable = [entry for entry in survey.entries if entry.problem is None]
    scans, label_maps = survey.scans, survey.label_maps
    return render(
        HERE,
        verdicts=_judge(survey),
        facts=_facts(survey, readable),
        proposals=[
            {
                "modality": "unclear modality" if proposal.modality == "unclear" else proposal.modality,
                "scans": plural(proposal.scans, "scan"),
                "settings": settings(proposal),
                "commands": "\n".join(commands(proposal)),
            }
            for proposal in survey.proposals
        ],
        problems=[(entry.case_id, entry.problem, entry.source) for entry in survey.unusable],
        duplicates=[(entry.case_id, entry.duplicate_of) for entry in survey.duplicates],
        notes=[(note, name_few(cases)) for note, cases in share_remarks(survey.entries).items()],
        tables=[
            (title, [_row(entry) for entry in group], any(entry.patient for entry in group))
            for title, group in (("Scans", scans), ("Label maps", label_maps))
            if group
        ],
        with_pictures=any(entry.picture is not None for entry in readable),
        others=", ".join(f"{number} {suffix}" for suffix, number in survey.others.items()),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _judge(survey: Survey) -> list[Verdict]:
    """What matters first: whether all of it can be used."""
    found = plural(len(survey.scans), "scan")
    found += f" and {plural(len(survey.label_maps), 'label map')}" if survey.label_maps else ""
    bad, copies = len(survey.unusable), len(survey.duplicates)
    verdicts = []
    if bad:
        verdicts.append(Verdict("weak", f"{found}; {bad} can't be used", "Reasons are below."))
    else:
        verdicts.append(Verdict("good" if survey.scans else "weak", f"{found}, all readable", ""))
    if copies:
        text = "They count once in the proposals; in pre-training they would count twice."
        verdicts.append(Verdict("weak", f"{copies} with the voxels of another case", text))
    unclear = sum(proposal.scans for proposal in survey.proposals if proposal.modality == "unclear")
    if unclear:
        text = "Their files don't say it and their voxels leave doubts: tell prepare with --modality."
        verdicts.append(Verdict("plain", f"{plural(unclear, 'scan')} of unclear modality", text))
    return verdicts


def _facts(survey: Survey, readable: Sequence[Entry]) -> list[tuple[str, str]]:
    """Counts and ranges."""
    formats: dict[str, int] = {}
    for entry in survey.entries:
        formats[entry.format] = formats.get(entry.format, 0) + 1
    facts = [("Formats", ", ".join(f"{name} {number}" for name, number in sorted(formats.items())))]
    kinds = [f"{p.modality} {p.scans}" for p in survey.proposals]
    facts += [("Modalities, copies left out", ", ".join(kinds))] if kinds else []
    measured = [entry.facts for entry in survey.scans if entry.facts is not None]
    for place, axis in enumerate("zyx"):
        if measured:
            edges = [each.shape[place] for each in measured]
            steps = [each.spacing_mm[place] for each in measured]
            text = f"{min(edges)} to {max(edges)} voxels of {min(steps):.3g} to {max(steps):.3g} mm"
            facts.append((f"Scans along {axis}", text))
    people = {entry.patient for entry in readable if entry.patient}
    facts += [("Patients named in DICOM", f"{len(people)}, as salted hashes")] if people else []
    return facts


def _row(entry: Entry) -> dict[str, Any]:
    kind, voxels, spacing, axes, values = cells(entry)
    picture = None if entry.picture is None else base64.b64encode(grey_png(entry.picture)).decode("ascii")
    return {
        "folder": folder_of(entry),
        "name": entry.case_id.removeprefix(folder_of(entry)),
        "source": entry.source,
        "format": entry.format,
        "kind": kind,
        "why": entry.facts.modality_reason if entry.facts else "",
        "voxels": voxels,
        "spacing": spacing,
        "axes": axes,
        "values": values,
        "patient": entry.patient or "",
        "series": entry.series,
        "remarks": "; ".join(
            [*entry.notes, *([f"same voxels as {entry.duplicate_of}"] if entry.duplicate_of else [])]
        ),
        "picture": picture,
    }
