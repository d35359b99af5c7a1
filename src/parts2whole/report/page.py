"""The page a run leaves behind: one HTML file that opens from disk, without a network, light or dark.

What was run with what, whether it worked, the curves, the pictures, the table with its tests, the worst
cases and the cost.  The page holds everything it shows; a content policy in it forbids any request.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from markupsafe import Markup

from parts2whole.errors import plural
from parts2whole.files import write_text
from parts2whole.report.certainty import compare_patients
from parts2whole.report.contrast import contrast_charts, pretraining_names
from parts2whole.report.curves import MOST_CHARTS, Chart, comparison_charts, overlay_charts, run_charts
from parts2whole.report.endpoints import Endpoint
from parts2whole.report.figures import error_colours
from parts2whole.report.formats import to_html
from parts2whole.report.judge import reference_arm
from parts2whole.report.learning import MOST_PAIRS, endpoint_rows, rank_rows, show_pairs, study_figures
from parts2whole.report.results import arm_names, result_rows, run_names, tabulate, test_figures
from parts2whole.report.runs import Plain, Run, as_number
from parts2whole.report.sections import case_tables, encode, show_embeddings, show_pictures, show_slices
from parts2whole.report.study import STUDY, Listing, read_listing, read_runs
from parts2whole.report.summary import (
    Verdict,
    describe_cost,
    format_duration,
    judge_comparison,
    judge_finetuning,
    judge_pretraining,
    list_facts,
    total_cost,
)
from parts2whole.report.tables import Table, metric_title
from parts2whole.report.template import own, render
from parts2whole.run_folder import PAGE

HERE = Path(__file__).parent
T = TypeVar("T")
RESAMPLES = 500
"""Draws of the bootstrap on the page; `stats patients` makes more."""
MOST_TABLES, MOST_VERDICTS, MOST_FACTS = 12, 6, 4
"""Of other metrics and of pre-trainings, that a page shows."""
CURVES = "figures are in metrics.jsonl"
ALONE = "see the page that report writes of each"
MADE_ON = ("Machine", "Software")
"""Facts that runs of a study may differ in, so that all are told."""
KINDS = {"pretrain": "Pre-training", "finetune": "Fine-tuning", "other": "Run"}


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run folder, or of a folder of runs.

    Args:
        folder: a pre-training run, a fine-tuning run, or a folder with runs in it.
        out: the HTML file; default: ``report.html`` in ``folder``.

    Returns:
        The HTML file.

    Raises:
        RunError: there is no run in ``folder``.
    """
    folder = Path(folder)
    runs = read_runs(folder)
    single = next((run for run in runs if run.folder == folder), None)
    context = (
        _run_context(single, len(runs) - 1) if single else _folder_context(folder, runs, read_listing(folder))
    )
    return write_text(Path(out) if out else folder / PAGE, _render(context))


def _run_context(run: Run, below: int) -> Plain:
    """What the page of a single run shows; there are so many others in folders below its own."""
    verdict = judge_finetuning(run) if run.kind == "finetune" else judge_pretraining(run)
    notes = [*(str(note) for note in run.result.get("notes") or ()), *run.notes]
    if below:
        notes.append(f"Not on this page: {plural(below, 'run')} in folders below this one")
    charts = _first(run_charts(run), MOST_CHARTS, "chart", CURVES, notes)
    return _context(
        title=run_names([run], None)[run.folder],
        kind=KINDS[run.kind],
        verdicts=[*_unfinished([run]), verdict],
        facts=list_facts(run),
        charts=charts,
        runs=[run],
        notes=notes,
    )


def _folder_context(folder: Path, runs: Sequence[Run], listing: Listing | None) -> Plain:
    """What the page of a folder of runs shows; ``listing`` is what a benchmark says of itself."""
    pretrained = [run for run in runs if run.kind == "pretrain"]
    finetuned = [run for run in runs if run.kind == "finetune"]
    tables, notes = _tables(finetuned, folder, listing)
    certain = compare_patients(finetuned, tables[0], resamples=RESAMPLES).summary() if tables else ""
    endpoints = listing.measure(list(runs)) if listing and tables else ()
    conclusion = listing.conclude(endpoints) if listing else None
    verdicts = [conclusion.verdict()] if conclusion else []
    verdicts += judge_comparison(tables[0], beside_endpoints=bool(conclusion)) if tables else []
    judged = [(run, judge_pretraining(run)) for run in pretrained]
    called = pretraining_names(pretrained)
    told = [_named(v, called[run.folder]) for run, v in judged if not tables or v.tone in ("bad", "weak")]
    verdicts += _first(told, MOST_VERDICTS, "pre-training verdict", ALONE, notes)
    charts = (
        run_charts(pretrained[0])
        if len(pretrained) == 1
        else overlay_charts(pretrained, pretraining_names(pretrained))
    )
    charts = _first(charts, MOST_CHARTS, "pre-training chart", CURVES, notes)
    compared = _first(comparison_charts(finetuned), MOST_CHARTS, "fine-tuning chart", CURVES, notes)
    notes += [f"{_place(run, folder)}: {note}" for run in runs for note in run.notes]
    counts = [f"{len(pretrained)} pre-training", f"{len(finetuned)} fine-tuning"]
    others = [_place(run, folder) for run in runs if run.kind == "other"]
    if others:
        counts.append(f"{len(others)} other")
        notes.append(f"Not drawn, as it can't be told what they are: {', '.join(others)}")
    facts = [("Runs", ", ".join(counts))]
    if tables:
        shown = _first(judged, MOST_FACTS, "pre-training headline", ALONE, notes)
        facts += [(f"Pre-training, {called[run.folder]}", verdict.headline) for run, verdict in shown]
    about = list_facts(pretrained[0]) if len(pretrained) == 1 else []
    facts += [
        (term, text) for term, text in about if term not in MADE_ON and (term != "Took" or not finetuned)
    ]
    made_on = [dict(list_facts(run)) for run in runs]
    alike = {term: dict.fromkeys(one[term] for one in made_on if term in one) for term in MADE_ON}
    facts += [(term, "; ".join(texts)) for term, texts in alike.items() if texts]
    if finetuned:
        facts.insert(1, ("Cost", describe_cost([*pretrained, *finetuned])))
    drawn = _drawn(finetuned, tables[0], endpoints, notes) if tables else {}
    return _context(
        title=listing.name if listing else folder.resolve().name,
        kind="Benchmark" if listing else "Comparison",
        verdicts=[*_unfinished(runs), *verdicts],
        facts=facts,
        charts=[*charts, *compared],
        runs=runs,
        notes=notes,
        tables=tables,
        certain=certain.splitlines(),
        root=folder,
        **drawn,
    )


def _drawn(runs: Sequence[Run], table: Table, endpoints: Sequence[Endpoint], notes: list[str]) -> Plain:
    """What is drawn of several arms, and the tables of a study's endpoints."""
    reference = endpoints[0].reference if endpoints else reference_arm(table, runs)
    pairs = show_pairs(runs, table, reference) if reference else []
    return {
        "figures": study_figures(table, reference),
        "pairs": _first(pairs, MOST_PAIRS, "picture pair", ALONE, notes),
        "endpoints": endpoint_rows(endpoints),
        "compared": (reference, table.focus),
        "ranks": rank_rows(endpoints),
    }


def _context(
    *,
    title: str,
    kind: str,
    verdicts: Sequence[Verdict],
    facts: Sequence[tuple[str, str]],
    charts: Sequence[Chart],
    runs: Sequence[Run],
    notes: Sequence[str],
    tables: Sequence[Table] = (),
    certain: Sequence[str] = (),
    root: Path | None = None,
    **drawn: Any,
) -> Plain:
    pretrained = [run for run in runs if run.kind != "finetune"]
    finetuned = [run for run in runs if run.kind == "finetune"]
    names = run_names(runs, root)
    viewers, trouble = show_slices(pretrained, names)
    embeddings, more_trouble = show_embeddings(pretrained, names)
    contrast = contrast_charts(pretrained, pretraining_names(pretrained))
    shown = {viewer["run"] for viewer in viewers}
    unseen = [run for run in runs if names[run.folder] not in shown and run.pictures]
    pictures, left_out = show_pictures(unseen, names)
    called = arm_names([run for run in finetuned if run.finished])
    return {
        "title": title,
        "kind": kind,
        "verdicts": verdicts,
        "facts": facts,
        "charts": [chart.to_plain() for chart in (*charts, *contrast)],
        "contrast": bool(contrast),
        "viewers": viewers,
        "embeddings": embeddings,
        "certain": certain,
        "same_cases": all(table.same_cases for table in tables),
        **{key: drawn.get(key, []) for key in ("figures", "pairs", "endpoints", "compared", "ranks")},
        "error_colours": encode(error_colours()),
        # to_html escapes every name itself.
        "tables": [Markup(to_html(table)) for table in tables],
        "cases": case_tables(finetuned),
        "pictures": pictures,
        "costs": total_cost(runs) if len(runs) > 1 else [],
        "runs": [_describe(run, root, called.get(run.folder, "–")) for run in runs] if root else [],
        "details": _details(runs, root),
        "notes": [*notes, *trouble, *more_trouble, *left_out],
        "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _tables(runs: list[Run], folder: Path, listing: Listing | None) -> tuple[list[Table], list[str]]:
    """The table of main metrics, then one for each other metric; or the reason why there is none."""
    rows = result_rows(runs)
    if not rows:
        return [], []
    make = listing.tabulate if listing else tabulate
    others = dict.fromkeys(str(row["metric"]) for row in rows if not row["main"])
    notes: list[str] = []
    try:
        made = [make(runs)]
    except ValueError as error:
        return [], [f"{folder.name}: no results table ({error})"]
    where = "parts2whole compare --metric makes them"
    for name in _first(list(others), MOST_TABLES, "metric table", where, notes):
        try:
            made.append(make(runs, metric=name))
        except ValueError as error:
            notes.append(f"{metric_title(name)}: no table ({error})")
    return made, notes


def _first(items: Sequence[T], most: int, what: str, where: str, notes: list[str]) -> list[T]:
    """The first of some items; how many more there are, and where, is added to the notes."""
    if len(items) > most:
        left = len(items) - most
        notes.append(f"Left out of this page: {left} more {what}{'s' * (left > 1)} ({where}).")
    return list(items[:most])


def _describe(run: Run, root: Path, arm: str) -> Plain:
    """A run's line in the list of runs."""
    result = run.result
    seed = result.get("seed", run.config.get("seed", "–"))
    fraction = as_number(result.get("fraction"))
    count = run.labelled if run.kind == "finetune" else None
    labels = f"{count} cases" if count else f"{100 * fraction:.3g} %" if fraction is not None else "–"
    return {
        "folder": _place(run, root),
        "kind": KINDS[run.kind],
        "arm": arm,
        "labels": labels,
        "seed": seed,
        "steps": f"{run.steps:,}",
        "duration": format_duration(run.duration_s),
        "finished": run.finished,
    }


def _details(runs: Sequence[Run], root: Path | None) -> list[tuple[str, str]]:
    """Files shown as they are, folded away: of a run its settings, of a benchmark its study."""
    alike = all(run.environment == runs[0].environment for run in runs)
    pairs = [("Environment" if alike else f"Environment of {runs[0].name}", runs[0].environment)]
    if root is None:
        figures = test_figures(runs[0]) if runs[0].kind == "finetune" else {}
        pairs = [("Test figures", figures), ("Configuration", runs[0].config), *pairs]
    found = [
        (name, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        for name, content in pairs
        if content
    ]
    study = root / STUDY if root else None
    return [("Study", study.read_text(encoding="utf-8")), *found] if study and study.exists() else found


def _unfinished(runs: Sequence[Run]) -> list[Verdict]:
    """A word about runs that are not at their end."""
    left = [run for run in runs if not run.finished and not run.waits]  # these have a note of their own
    if not left:
        return []
    if len(runs) == 1:
        wanted = as_number(runs[0].config.get("steps"))
        of = f" of {int(wanted):,}" if wanted else ""
        text = "What follows is the state when this page was written."
        return [Verdict("weak", f"Not finished: step {runs[0].steps:,}{of}", text)]
    names = ", ".join(run.name for run in left[:6]) + (" …" if len(left) > 6 else "")
    text = f"What follows is their state when this page was written: {names}."
    if any(run.kind == "finetune" for run in left):
        text += " Of fine-tunings that aren't finished only a page of their own (report) shows the curves."
    return [Verdict("weak", f"{len(left)} of {len(runs)} runs are not finished", text)]


def _named(verdict: Verdict, name: str) -> Verdict:
    return Verdict(verdict.tone, f"{name}: {verdict.headline}", verdict.text)


def _place(run: Run, root: Path) -> str:
    return run.folder.relative_to(root).as_posix()


def _render(context: Plain) -> str:
    """The page; data for the script can't end the script."""
    data = {key: context[key] for key in ("charts", "figures", "viewers", "embeddings")} | {
        "errorColours": context["error_colours"]
    }
    # Only these characters could end the script element or open a comment in it.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    scripts = [own(name) for name in ("page.js", "curves.js", "study.js", "viewer.js", "embedding.js")]
    return render(HERE, scripts=scripts, data=Markup(text), infinite=math.inf, **context)
