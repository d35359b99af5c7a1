"""What runs amount to, in words: the verdict at the top of the page, and the facts below it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from parts2whole.evaluation.regions import GRIDS
from parts2whole.report.formats import format_difference, format_number, format_p, format_share, metric_label
from parts2whole.report.results import arm_names, spec_name, test_figures
from parts2whole.report.runs import Run, as_number
from parts2whole.report.tables import BEST_OTHER, Difference, Row, Table, higher_is_better, metric_title

Tone = Literal["good", "weak", "bad", "plain", "open"]
"""How good news is; ``open`` is what was asked and isn't told apart."""

GUESSING = "baseline_guessing"
BASELINES = {
    "baseline_mean_whole": "predicting the mean whole",
    "baseline_stretched_part": "handing back what the network sees",
    GUESSING: "guessing",
}
EARLY = 0.25
"""Share of its steps before which an unfinished run is not judged."""
BARELY = 0.05
"""A loss less than this share below the better baseline is called barely better."""


@dataclass(frozen=True)
class Verdict:
    """One claim about a run or a comparison.

    Attributes:
        tone: how good the news is.
        headline: the claim.
        text: the numbers behind it and what follows.
        points: more to say, a sentence each.
    """

    tone: Tone
    headline: str
    text: str
    points: tuple[str, ...] = ()


def judge_pretraining(run: Run) -> Verdict:
    """Whether pre-training beat what needs no learning."""
    loss = run.last("validation", "reconstruction")  # where the loss is more than that
    if loss is None:
        loss = as_number(run.result.get("validation_loss", run.last("validation", "loss")))
    if lost := _lost(run):
        return lost
    found = {k: as_number(run.result.get(k, run.last("validation", k))) for k in BASELINES}
    baselines = {k: v for k, v in found.items() if v is not None}
    if loss is None:
        return Verdict(
            "weak", "No validation loss", "The run has not validated yet, or its loss was not finite."
        )
    best = min(baselines.values(), default=math.inf)
    others = "; ".join(f"{BASELINES[k]} {v:.4g}" for k, v in baselines.items())
    numbers = f"Validation loss {loss:.4g}." + (f" Trivial baselines: {others}." if others else "")
    if run.result.get("collapsed") and loss < best:
        return Verdict(
            "bad",
            "Collapsed: it gives nearly the same for every whole",
            f"{numbers} Whatever the loss, the encoder has learned nothing worth transferring. Look at the "
            "learning rate first, then at the data.",
        )
    if not baselines:
        text = "This method rebuilds nothing, so there is no trivial prediction to compare it with."
        return Verdict("plain", f"Validation loss {loss:.4g}", text)
    if _is_early(run):
        return Verdict("plain", "Too early to judge", f"{numbers} Step {run.steps:,}.")
    if loss >= best:
        return Verdict(
            "bad",
            "Collapsed: no better than a trivial prediction",
            f"{numbers} The encoder has learned nothing worth transferring. Look at the learning rate first, "
            "then at the part sizes and at the data.",
        )
    below, which = 1 - loss / best, "better " if len(baselines) > 1 else ""
    does = "solves its pretext task" if set(baselines) == {GUESSING} else "rebuilds"
    aim = f"This says that the network {does}; whether its features transfer, only a target task shows."
    if below < BARELY:
        return Verdict(
            "weak", f"Only {format_share(below)} below the {which}trivial baseline", f"{numbers} {aim}"
        )
    headline = f"Validation loss {loss:.4g}, {format_share(below)} below the {which}trivial baseline"
    return Verdict("good", headline, f"Trivial baselines: {others}. {aim}")


def _lost(run: Run) -> Verdict | None:
    """What is said of a run whose newest validation loss is not a finite number, though an earlier one is."""
    name = "reconstruction" if run.last("validation", "reconstruction") is not None else "loss"
    points = run.series("validation", name)
    newest = [r for r in run.records if r.get("split") == "validation" and name in r][-1:]
    if not points or as_number(newest[0][name]) is not None:
        return None
    (step, value), headline = points[-1], f"The loss is no longer finite at step {int(newest[0]['step']):,}"
    return Verdict(
        "bad", headline, f"The last that was: {value:.4g} at step {step:,}. Look at the learning rate first."
    )


def _is_early(run: Run) -> bool:
    """Whether a run is still in its first quarter, or in a longer warm-up of its rate."""
    schedule = run.config.get("schedule")
    arguments = schedule.get("init_args") if isinstance(schedule, Mapping) else None
    warm_up = as_number((arguments or {}).get("warmup_fraction")) or 0.0
    return not run.finished and run.steps <= max(EARLY, warm_up) * (as_number(run.config.get("steps")) or 0.0)


def judge_finetuning(run: Run) -> Verdict:
    """How a fine-tuned model did on its test cases."""
    (metric, value), *others = [*test_figures(run).items()] or [("", math.nan)]
    if not metric:
        return Verdict("plain", "No test result yet", "The run is not finished.")
    others = [(name, number) for name, number in others if not math.isnan(number)]
    cases = len(run.result.get("test_cases") or run.cases)
    on = f" on {cases} test case{'s' * (cases != 1)}" if cases else ""
    text = [f"{metric_title(name)} {_value(name, number)}" for name, number in others[:6]]
    text += [f"{len(others) - 6} more below, with the details"] if len(others) > 6 else []
    lines = [", ".join(text) + "."] if text else []
    grid = GRIDS.get(str(run.result.get("grid")))
    lines += [f"Scored {grid}."] if grid else []
    best, steps = run.result.get("best_step"), run.steps
    if best is not None and steps and best >= steps:
        lines.append("The best step was the last one: more steps may do better.")
    missed = [
        metric_title(name)
        for name, number in ((metric, value), *others)
        if name.startswith("dice") and number == 0
    ]
    if missed:
        lines.insert(
            0,
            f"Nothing right on any test case: {', '.join(missed)} (missed, or found where there is none).",
        )
    if math.isnan(value):
        return Verdict("bad", f"{metric_title(metric)} is undefined{on}", " ".join(lines))
    tone: Tone = "plain" if not missed else "bad" if value == 0 else "weak"
    return Verdict(tone, f"{metric_title(metric)} {_value(metric, value)}{on}", " ".join(lines))


def judge_comparison(table: Table, *, beside_endpoints: bool = False) -> list[Verdict]:
    """Whether the arm of interest is better than each of its rivals.

    Args:
        table: of results.
        beside_endpoints: leave out what a study's endpoints say: all but the best other of several arms.
    """
    shown = [rival for rival in table.rivals if any(rival in row.differences for row in table.rows)]
    against = {row.differences[BEST_OTHER].against for row in table.rows if BEST_OTHER in row.differences}
    if beside_endpoints:
        shown = [rival for rival in shown if rival == BEST_OTHER and len(table.arms) > 2]
    elif against <= {*shown}:  # all of it is told of arms by name
        shown = [rival for rival in shown if rival != BEST_OTHER]
    return [_judge_rival(table, rival) for rival in shown]


def _judge_rival(table: Table, rival: str) -> Verdict:
    compared = [(row, row.differences[rival]) for row in table.rows if rival in row.differences]
    directions = [_direction(row, difference, table) for row, difference in compared]
    better, worse = directions.count(1), directions.count(-1)
    name = "the best other arm" if rival == BEST_OTHER else rival
    about = {f"{row.task}, {metric_label(row)}" for row, _ in compared}
    common = about.pop() if len(about) == 1 else ""
    lines = [_phrase(row, difference, named=not common, table=table) for row, difference in compared[:6]]
    if len(compared) > 6:
        lines.append(f"{len(compared) - 6} more in the table")
    text, level = (f"{common}: " if common else "") + "; ".join(lines) + ".", f"α = {table.alpha:g}"
    level += ", not corrected" if len(compared) > 1 else ""
    of = f"{better} of {len(compared)} comparisons" if len(compared) > 1 else "the one comparison made"
    if worse:
        lost = f"worse in {worse}" + (f", better in {better}" if better else "")
        return Verdict("bad", f"{table.focus} against {name}: {lost} of {len(compared)} ({level})", text)
    if not better:
        return Verdict("open", f"No difference between {table.focus} and {name} is shown ({level})", text)
    tone: Tone = "good" if better == len(compared) else "weak"
    return Verdict(tone, f"{table.focus} is better than {name} in {of} ({level})", text)


def list_facts(run: Run) -> list[tuple[str, str]]:
    """What was run with what: pairs of a term and its description."""
    config, result = run.config, run.result
    method = result.get("method") or config.get("method")
    facts: list[tuple[str, str | None]] = []
    if run.kind == "finetune":
        facts.append(("Task", spec_name(result.get("task") or config.get("task"))))
        facts.append(
            ("Initial weights", arm_names([run])[run.folder] if result else str(config.get("init", "")))
        )
        facts.append(("Labels", _labels(run)))
    else:
        facts.append(("Method", describe_spec(method)))
    network = result.get("network") or config.get("network")
    facts += [("Network", describe_spec(network)), ("Data", _data(run)), ("Training", _training(run))]
    facts += [("Took", _duration(run)), ("Machine", _machine(run.environment)), ("Software", _software(run))]
    return [(term, text) for term, text in facts if text]


def describe_spec(spec: object) -> str | None:
    """A spec in a line: ``Parts2Whole: part fraction 0.4 to 0.7, parts per whole 2``."""
    if not isinstance(spec, Mapping):
        return str(spec) if spec else None
    arguments = spec.get("init_args") or {}
    fields = [
        f"{key.replace('_', ' ')} {_field(value)}" for key, value in arguments.items() if value is not None
    ]
    name = str(spec.get("class_path", "unknown")).rpartition(".")[2]
    return f"{name}: {', '.join(fields)}" if fields else name


def format_duration(seconds: float | None) -> str:
    """``14 min 3 s``."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def total_cost(runs: Iterable[Run]) -> list[tuple[str, int, str, str, str]]:
    """Kind, number, total and median time, and peak memory of some runs."""
    kinds = {"pretrain": "Pre-training", "finetune": "Fine-tuning", "other": "Other"}
    spent: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    peaks: dict[str, float] = {}
    for run in runs:
        kind = kinds[run.kind]
        times, took = spent.setdefault(kind, []), run.duration_s
        times += [] if took is None else [took]
        counts[kind] = counts.get(kind, 0) + 1
        peaks[kind] = max(peaks.get(kind, 0.0), as_number(run.result.get("peak_memory_mb")) or 0.0)
    return [
        (
            kind,
            counts[kind],
            format_duration(sum(times) if times else None)
            + f" and {counts[kind] - len(times)} unknown" * (0 < len(times) < counts[kind]),
            format_duration(statistics.median(times) if times else None),
            f"{peaks[kind]:,.0f} MB" if peaks[kind] else "–",
        )
        for kind, times in spent.items()
    ]


def describe_cost(runs: Iterable[Run]) -> str:
    """What some runs took together, in a line: ``pre-training 14 min 3 s, fine-tuning 1 h 2 min``."""
    found = list(runs)
    memory = max((as_number(run.result.get("peak_memory_mb")) or 0.0 for run in found), default=0.0)
    times = [f"{kind.lower()} {total}" for kind, _, total, _, _ in total_cost(found)]
    return ", ".join(times) + (f"; {memory:,.0f} MB at most" if memory else "")


def _direction(row: Row, difference: Difference, table: Table) -> int:
    """+1 where the arm of interest is shown to be better, -1 worse, 0 neither."""
    if difference.p is None:
        return 0
    gain = difference.side if higher_is_better(row.metric) else -difference.side
    if difference.p <= table.alpha:
        return 1 if gain > 0 else -1
    return -1 if table.alternative == "greater" and difference.p >= 1 - table.alpha else 0


def _phrase(row: Row, difference: Difference, *, named: bool, table: Table) -> str:
    """``5 cases +6.94 ± 2.19 (p = 0.0021)``, with the task and the other arm where they must be named."""
    p = format_p(difference.p)
    shown = "not tested" if difference.p is None else f"p {p}" if p.startswith("<") else f"p = {p}"
    about = f"{row.task}, {metric_label(row)}, " if named else ""
    against = (
        f"{difference.against}, " if len(table.arms) > 2 and difference.against not in table.rivals else ""
    )
    return f"{about}{row.labels} {format_difference(difference, row)} ({against}{shown})"


def _value(metric: str, value: float) -> str:
    percent = higher_is_better(metric) and 0 <= value <= 1
    return format_number(value, percent=percent) + (" %" if percent else "")


def _field(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return f"({describe_spec(value)})" if "class_path" in value else str(dict(value))
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(as_number(v) is not None for v in value):
        return f"{value[0]:g} to {value[1]:g}"
    if isinstance(value, (list, tuple)):
        return "×".join(str(v) for v in value)
    return str(value)


def _labels(run: Run) -> str:
    counts = {side: len(run.result.get(f"{side}_cases") or ()) for side in ("train", "validation", "test")}
    fraction = as_number(run.result.get("fraction", run.config.get("fraction")))
    share = f"{100 * fraction:.3g} % of the labels" if fraction is not None else ""
    asked = run.config.get("cases")
    if asked and asked != counts["train"]:
        share = f"{asked} labelled patient{'s' * (asked != 1)}"
    sides = ", ".join(f"{n} {side}" for side, n in counts.items() if n)
    return "; ".join(part for part in (share, sides, f"seed {run.result.get('seed', 0)}") if part)


def _data(run: Run) -> str | None:
    train, validation = (run.result.get(f"{side}_cases") for side in ("train", "validation"))
    if not isinstance(train, int):
        return None
    size = run.config.get("whole_size")
    wholes = f"; wholes of {_field(size)} voxels (z, y, x)" if size else ""
    return f"{train} scans to train on, {validation} to validate{wholes}"


def _training(run: Run) -> str:
    config = run.config
    steps = f"{run.steps:,} steps"
    wanted = as_number(config.get("steps"))
    if wanted and run.steps < wanted:
        steps += f" of {int(wanted):,}"
    parts = [steps, f"batch {config['batch_size']}" if config.get("batch_size") else ""]
    parts += [str(config.get("preset") or ""), f"seed {config['seed']}" if "seed" in config else ""]
    best = run.result.get("best_step")
    parts.append(f"best at step {int(best):,}" if best is not None else "")
    return ", ".join(part for part in parts if part)


def _duration(run: Run) -> str | None:
    if run.duration_s is None:
        return None
    speeds = [speed for _, speed in run.series("train", "samples_per_s")]
    speed = f", {statistics.median(speeds):.3g} samples/s" if speeds else ""
    memory = as_number(run.result.get("peak_memory_mb"))
    return format_duration(run.duration_s) + speed + (f", {memory:,.0f} MB at most" if memory else "")


def _machine(environment: Mapping[str, Any]) -> str | None:
    parts = [str(gpu) for gpu in environment.get("gpus") or ()]
    if environment.get("processor"):
        cores = environment.get("cpu_count", "?")
        parts.append(f"{environment['processor']}, {cores} core{'s' * (cores != 1)}")
    parts += [str(environment[key]) for key in ("precision",) if environment.get(key)]
    return "; ".join(parts) or None


def _software(run: Run) -> str | None:
    packages = run.environment.get("packages")
    found = dict(packages) if isinstance(packages, Mapping) else {}
    names = [f"{name} {found[name]}" for name in ("parts2whole", "torch") if name in found]
    if run.environment.get("python"):
        names.append(f"Python {run.environment['python']}")
    return ", ".join(names) or None
