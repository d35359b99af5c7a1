"""A survey of scans as one HTML file that opens from disk, without a network or a script, light or dark."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from parts2whole.data.survey import Finding, Survey
from parts2whole.report.figures import grey_png
from parts2whole.report.summary import Verdict
from parts2whole.report.survey_table import (
    cells,
    commands,
    folder_of,
    name_few,
    plural,
    settings,
    share_remarks,
)

HERE = Path(__file__).parent


def to_html(survey: Survey) -> str:
    """The page; every name is escaped, and nothing is shown that the CSV wouldn't hold."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    readable = [finding for finding in survey.findings if finding.problem is None]
    scans, label_maps = survey.scans, survey.label_maps
    return environment.get_template("survey.html.j2").render(
        # The style sheet is the project's own, to stand in the page as it is.
        css=Markup((HERE / "page.css").read_text("utf-8")),
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
        problems=[(finding.case_id, finding.problem, finding.source) for finding in survey.unusable],
        duplicates=[(finding.case_id, finding.duplicate_of) for finding in survey.duplicates],
        notes=[(note, name_few(cases)) for note, cases in share_remarks(survey.findings).items()],
        tables=[
            (title, [_row(finding) for finding in group], any(finding.patient for finding in group))
            for title, group in (("Scans", scans), ("Label maps", label_maps))
            if group
        ],
        with_pictures=any(finding.picture is not None for finding in readable),
        others=", ".join(f"{number} {suffix}" for suffix, number in survey.others.items()),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=_version(),
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


def _facts(survey: Survey, readable: Sequence[Finding]) -> list[tuple[str, str]]:
    """Counts and ranges."""
    formats: dict[str, int] = {}
    for finding in survey.findings:
        formats[finding.format] = formats.get(finding.format, 0) + 1
    facts = [("Formats", ", ".join(f"{name} {number}" for name, number in sorted(formats.items())))]
    kinds = [f"{p.modality} {p.scans}" for p in survey.proposals]
    facts += [("Modalities, copies left out", ", ".join(kinds))] if kinds else []
    measured = [finding.facts for finding in survey.scans if finding.facts is not None]
    for place, axis in enumerate("zyx"):
        if measured:
            edges = [each.shape[place] for each in measured]
            steps = [each.spacing_mm[place] for each in measured]
            text = f"{min(edges)} to {max(edges)} voxels of {min(steps):.3g} to {max(steps):.3g} mm"
            facts.append((f"Scans along {axis}", text))
    people = {finding.patient for finding in readable if finding.patient}
    facts += [("Patients named in DICOM", f"{len(people)}, as salted hashes")] if people else []
    return facts


def _row(finding: Finding) -> dict[str, Any]:
    kind, voxels, spacing, axes, values = cells(finding)
    picture = None if finding.picture is None else base64.b64encode(grey_png(finding.picture)).decode("ascii")
    return {
        "folder": folder_of(finding),
        "name": finding.case_id.removeprefix(folder_of(finding)),
        "source": finding.source,
        "format": finding.format,
        "kind": kind,
        "why": finding.facts.modality_reason if finding.facts else "",
        "voxels": voxels,
        "spacing": spacing,
        "axes": axes,
        "values": values,
        "patient": finding.patient or "",
        "series": finding.series,
        "remarks": "; ".join(
            [*finding.notes, *([f"same voxels as {finding.duplicate_of}"] if finding.duplicate_of else [])]
        ),
        "picture": picture,
    }


def _version() -> str:
    try:
        return metadata.version("parts2whole")
    except metadata.PackageNotFoundError:
        return "development"
