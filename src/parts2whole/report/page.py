"""The page a run leaves behind: one HTML file that opens from disk, without a network, light or dark.

What was run with what, whether it worked, the curves, the pictures, the table with its tests, the worst
cases and the cost.  The page holds everything it shows; a content policy in it forbids any request.
"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from parts2whole.report.curves import Chart, comparison_charts, overlay_charts, run_charts
from parts2whole.report.figures import error_colours, make_sprite
from parts2whole.report.formats import to_html
from parts2whole.report.results import arm_names, main_metric, result_rows, task_names
from parts2whole.report.runs import Panel, Plain, Run, RunError, as_number, find_runs, read_run, read_volumes
from parts2whole.report.summary import (
    Verdict,
    format_duration,
    judge_comparison,
    judge_finetuning,
    judge_pretraining,
    list_facts,
    total_cost,
)
from parts2whole.report.tables import Table, higher_is_better, make_table, metric_title, sort_arms

HERE = Path(__file__).parent
PAGE = "report.html"
SPRITE_BYTES = 3_300_000
MOST_VIEWERS = 12
PICTURE_BYTES = 1_500_000
WORST_CASES = 8
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
    found = find_runs(folder)
    if not found:
        raise RunError(
            f"{folder} holds no run: expected metrics.jsonl or result.json in it, or in a folder below it"
        )
    single = folder in found
    runs = [read_run(path) for path in ([folder] if single else found)]
    context = _run_context(runs[0]) if single else _folder_context(folder, runs)
    path = Path(out) if out else folder / PAGE
    beside = path.with_name(path.name + ".part")
    beside.write_text(_render(context), encoding="utf-8")
    beside.replace(path)
    return path


def _run_context(run: Run) -> Plain:
    """What the page of a single run shows."""
    verdict = judge_finetuning(run) if run.kind == "finetune" else judge_pretraining(run)
    notes = [str(note) for note in run.result.get("notes") or ()]
    return _context(
        title=run.name,
        kind=KINDS[run.kind],
        verdicts=[*_unfinished([run]), verdict],
        facts=list_facts(run),
        charts=run_charts(run),
        runs=[run],
        notes=[*notes, *run.notes],
    )


def _folder_context(folder: Path, runs: Sequence[Run]) -> Plain:
    """What the page of a folder of runs shows."""
    pretrained = [run for run in runs if run.kind == "pretrain"]
    finetuned = [run for run in runs if run.kind == "finetune"]
    tables, notes = _tables(result_rows(finetuned), folder)
    verdicts = judge_comparison(tables[0]) if tables else []
    judged = [(run, judge_pretraining(run)) for run in pretrained]
    verdicts += [_named(v, run) for run, v in judged if not tables or v.tone in ("bad", "weak")][:6]
    charts = run_charts(pretrained[0]) if len(pretrained) == 1 else overlay_charts(pretrained)
    notes += [f"{_place(run, folder)}: {note}" for run in runs for note in run.notes]
    counts = [f"{len(pretrained)} pre-training", f"{len(finetuned)} fine-tuning"]
    facts = [("Runs", ", ".join(counts))]
    if tables:
        facts += [(f"Pre-training, {run.name}", verdict.headline) for run, verdict in judged[:4]]
    facts += list_facts(pretrained[0]) if len(pretrained) == 1 else list_facts(runs[0])[-2:]
    return _context(
        title=folder.resolve().name,
        kind="Comparison",
        verdicts=[*_unfinished(runs), *verdicts],
        facts=facts,
        charts=[*charts, *comparison_charts(finetuned)],
        runs=runs,
        notes=notes,
        tables=tables,
        root=folder,
    )


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
    root: Path | None = None,
) -> Plain:
    pretrained = [run for run in runs if run.kind != "finetune"]
    finetuned = [run for run in runs if run.kind == "finetune"]
    names = {run.folder: _place(run, root) if root else run.name for run in runs}
    viewers, trouble = _viewers(pretrained, names)
    shown = {viewer["run"] for viewer in viewers}
    unseen = [run for run in runs if names[run.folder] not in shown and run.pictures]
    return {
        "title": title,
        "kind": kind,
        "verdicts": verdicts,
        "facts": facts,
        "charts": [chart.to_plain() for chart in charts],
        "viewers": viewers,
        "error_colours": _base64(error_colours()),
        # to_html escapes every name itself.
        "tables": [Markup(to_html(table)) for table in tables],
        "cases": case_tables(finetuned),
        "pictures": _pictures(unseen, names),
        "costs": total_cost(runs) if len(runs) > 1 else [],
        "runs": [_describe(run, root) for run in runs] if root else [],
        "details": _details(runs[0]) if len(runs) == 1 else [],
        "notes": [*notes, *trouble],
        "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": _version(),
    }


def case_tables(runs: Iterable[Run]) -> list[Plain]:
    """The worst test cases of every task: their scores by arm, averaged over seeds and label fractions.

    Returns:
        One mapping a task with ``task``, ``score`` (what the columns hold), ``arms``, ``rows`` (``case``,
        ``values`` by arm, ``mean``), ``total`` and ``runs``; rows are worst first.
    """
    runs = [run for run in runs if run.cases]
    arms, tasks = arm_names([run for run in runs if run.finished]), task_names(runs)
    made = []
    for task in sorted(set(tasks.values())):
        members = [run for run in runs if tasks[run.folder] == task]
        metric = main_metric([k for k, v in members[0].cases[0].items() if as_number(v) is not None]) or ""
        scores: dict[str, dict[str, list[float]]] = {}
        for run in members:
            arm = arms.get(run.folder, "this run")
            for row in run.cases:
                name, score = str(next(iter(row.values()))), _case_score(row, metric)
                if score is not None:
                    scores.setdefault(name, {}).setdefault(arm, []).append(score)
        if not scores:
            continue
        sign = 1 if higher_is_better(metric) else -1
        rows = [
            {
                "case": case,
                "values": {arm: float(np.mean(values)) for arm, values in by_arm.items()},
                "mean": float(np.mean([v for values in by_arm.values() for v in values])),
            }
            for case, by_arm in scores.items()
        ]
        rows.sort(key=lambda row: sign * float(str(row["mean"])))
        by_class = any("target" in row for row in members[0].cases)
        made.append(
            {
                "task": task,
                "score": "probability of the true class" if by_class else metric_title(metric),
                "arms": sort_arms({arm for by_arm in scores.values() for arm in by_arm}),
                "rows": rows[:WORST_CASES],
                "total": len(rows),
                "runs": len(members),
            }
        )
    return made


def _case_score(row: Plain, metric: str) -> float | None:
    """A case's main metric, or the probability of its true class."""
    return as_number(row.get(f"p_{row['target']}" if "target" in row else metric))


def _tables(rows: Sequence[Plain], folder: Path) -> tuple[list[Table], list[str]]:
    """The table of main metrics, then one for each other metric; or the reason why there is none."""
    if not rows:
        return [], []
    try:
        first = make_table(rows)
        others = dict.fromkeys(str(row["metric"]) for row in rows if not row["main"])
        return [first, *(make_table(rows, metric=metric) for metric in list(others)[:12])], []
    except ValueError as error:
        return [], [f"{folder.name}: no results table ({error})"]


def _viewers(runs: Sequence[Run], names: Mapping[Path, str]) -> tuple[list[Plain], list[str]]:
    """What the slice viewer shows, as much of every run as fits, and what could not be read."""
    panels: list[tuple[Run, Panel]] = []
    trouble = []
    for run in runs:
        try:
            panel = read_volumes(run.folder)
        except RunError as error:
            trouble.append(f"{names[run.folder]}: {error}")
            continue
        if panel is not None and len(panel.whole):
            panels.append((run, panel))
    if len(panels) > MOST_VIEWERS:
        trouble.append(f"slices of {len(panels) - MOST_VIEWERS} more runs are left out, to fit the page")
    viewers = []
    panels = panels[:MOST_VIEWERS]
    for run, panel in panels:
        budget = SPRITE_BYTES // len(panels)
        errors = np.abs(panel.reconstruction - panel.whole)
        top = float(np.ceil(20 * np.nanpercentile(errors, 99.5)) / 20) or 0.05
        samples: list[Plain] = []
        for i in range(len(panel.whole)):
            sprite = make_sprite(panel.part[i], panel.reconstruction[i], panel.whole[i], max_bytes=budget)
            if samples and len(sprite.png) > budget - sum(sample["bytes"] for sample in samples):
                break
            samples.append(_sample(panel, i, sprite.png, sprite.shape, sprite.columns, sprite.thinned))
        viewer = {"run": names[run.folder], "step": run.steps, "errorMax": min(1.0, top), "samples": samples}
        viewers.append(viewer | {"left": len(panel.whole) - len(samples)})
    return viewers, trouble


def _sample(
    panel: Panel, index: int, png: bytes, shape: tuple[int, int, int], columns: int, thinned: int
) -> Plain:
    part, reconstruction, whole = (a[index] for a in (panel.part, panel.reconstruction, panel.whole))
    box = None if panel.boxes is None else (panel.boxes[index] / thinned).tolist()
    return {
        "name": panel.names[index] if index < len(panel.names) else f"Sample {index + 1}",
        "src": "data:image/png;base64," + _base64(png),
        "bytes": len(png),
        "shape": list(shape),
        "columns": columns,
        "thinned": thinned,
        "spacing": list(panel.spacing_mm),
        "box": box,
        "loss": as_number(float(np.mean((reconstruction - whole) ** 2))),
        "stretched": as_number(float(np.mean((part - whole) ** 2))),
    }


def _pictures(runs: Sequence[Run], names: Mapping[Path, str]) -> list[Plain]:
    """PNG files that the runs drew themselves, newest of each run first, until the page is full."""
    pictures: list[Plain] = []
    left = PICTURE_BYTES
    for run in runs:
        limit = 6 if len(runs) == 1 else 2
        for path in run.pictures[::-1][:limit]:
            content = path.read_bytes()
            if len(content) <= left and content.startswith(b"\x89PNG"):
                left -= len(content)
                source = "data:image/png;base64," + _base64(content)
                pictures.append({"src": source, "caption": f"{names[run.folder]}: {path.stem}"})
    return pictures


def _describe(run: Run, root: Path) -> Plain:
    """A run's line in the list of runs."""
    result = run.result
    seed = result.get("seed", run.config.get("seed", "–"))
    fraction = as_number(result.get("fraction"))
    count = len(result.get("train_cases") or ()) if run.kind == "finetune" else None
    labels = f"{count} cases" if count else f"{100 * fraction:.3g} %" if fraction is not None else "–"
    return {
        "folder": _place(run, root),
        "kind": KINDS[run.kind],
        "arm": arm_names([run])[run.folder] if run.kind == "finetune" and run.finished else "–",
        "labels": labels,
        "seed": seed,
        "steps": f"{run.steps:,}",
        "duration": format_duration(run.duration_s),
        "finished": run.finished,
    }


def _details(run: Run) -> list[tuple[str, str]]:
    """Files of a run shown as they are, folded away."""
    pairs = [("Configuration", run.config), ("Environment", run.environment)]
    return [
        (name, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        for name, content in pairs
        if content
    ]


def _unfinished(runs: Sequence[Run]) -> list[Verdict]:
    """A word about runs that are not at their end."""
    left = [run for run in runs if not run.finished]
    if not left:
        return []
    if len(runs) == 1:
        wanted = as_number(runs[0].config.get("steps"))
        of = f" of {int(wanted):,}" if wanted else ""
        text = "What follows is the state when this page was written."
        return [Verdict("weak", f"Not finished: step {runs[0].steps:,}{of}", text)]
    names = ", ".join(run.name for run in left[:6]) + (" …" if len(left) > 6 else "")
    return [
        Verdict(
            "weak",
            f"{len(left)} of {len(runs)} runs are not finished",
            f"What follows is their state when this page was written: {names}.",
        )
    ]


def _named(verdict: Verdict, run: Run) -> Verdict:
    return Verdict(verdict.tone, f"{run.name}: {verdict.headline}", verdict.text)


def _place(run: Run, root: Path) -> str:
    return run.folder.relative_to(root).as_posix()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _version() -> str:
    try:
        return metadata.version("parts2whole")
    except metadata.PackageNotFoundError:
        return "development"


def _render(context: Plain) -> str:
    """The page; every value is escaped, and data for the script can't end the script."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = {key: context[key] for key in ("charts", "viewers")} | {"errorColours": context["error_colours"]}
    # Only these characters could end the script element or open a comment in it.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    scripts = [_own(name) for name in ("page.js", "curves.js", "viewer.js")]
    template = environment.get_template("page.html.j2")
    return template.render(context, css=_own("page.css"), scripts=scripts, data=Markup(text))


def _own(name: str) -> Markup:
    """A file of this folder, to stand in the page as it is."""
    return Markup((HERE / name).read_text("utf-8"))
