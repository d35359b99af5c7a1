"""What the page shows of runs besides curves: slices of reconstructions, pictures, and the worst cases."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from parts2whole.report.cases import case_metric, case_score, lacks_distance, regions_of
from parts2whole.report.embedding import choose_shown, read_embedding
from parts2whole.report.figures import make_sprite
from parts2whole.report.results import arm_names, main_metric, task_names
from parts2whole.report.runs import Panel, Plain, Run, RunError, as_number, read_volumes
from parts2whole.report.tables import higher_is_better, metric_title, sort_arms

SPRITE_BYTES = 3_300_000
MOST_VIEWERS = 12
PICTURE_BYTES = 1_200_000
EMBEDDING_BYTES = 1_600_000
WORST_CASES = 8

T = TypeVar("T")


def case_tables(runs: Iterable[Run]) -> list[Plain]:
    """The worst test cases of every task: their scores by arm, averaged over seeds and label fractions.

    Returns:
        One mapping a task with ``task``, ``score`` (what the columns hold), ``share`` (whether it is one),
        ``arms``, ``rows`` (``case``, ``values`` by arm, ``mean``), ``total``, ``unscored`` (cases without
        the score) and ``runs`` (the fewest and the most that a case was tested in); rows are worst first.
        A distance is infinite where it is undefined because one of two masks is empty.
    """
    runs = [run for run in runs if run.cases]
    arms, tasks = arm_names([run for run in runs if run.finished]), task_names(runs)
    made = []
    for task in sorted(set(tasks.values())):
        members = [run for run in runs if tasks[run.folder] == task]
        cells = (cell for run in members for row in run.cases for cell in row.items())
        names = [name for name, value in cells if as_number(value) is not None]
        metric = main_metric(names, members[0].result.get("monitor")) or ""
        of_cases = [row for run in members for row in run.cases]
        metric, regions = case_metric(of_cases, metric), regions_of(of_cases)
        higher = higher_is_better(metric)
        scores: dict[str, dict[str, list[float]]] = {}
        for run in members:
            arm = arms.get(run.folder, "this run")
            for row in run.cases:
                score = case_score(row, metric)
                if not higher and lacks_distance(row, metric, regions):
                    score = math.inf
                if score is not None:
                    scores.setdefault(row["case"], {}).setdefault(arm, []).append(score)
        if not scores:
            continue
        sign = 1 if higher else -1
        rows = [
            {
                "case": case,
                "values": {arm: float(np.mean(values)) for arm, values in by_arm.items()},
                "mean": float(np.mean([v for values in by_arm.values() for v in values])),
            }
            for case, by_arm in scores.items()
        ]
        rows.sort(key=lambda row: sign * float(str(row["mean"])))
        tested = Counter(str(row["case"]) for row in of_cases)
        made.append(
            {
                "task": task,
                "score": metric_title(metric),
                "arms": sort_arms({arm for by_arm in scores.values() for arm in by_arm}),
                "rows": rows[:WORST_CASES],
                "total": len(tested),
                "unscored": len(tested) - len(rows),
                "share": higher and all(0 <= float(str(row["mean"])) <= 1 for row in rows),
                "runs": (min(tested.values()), max(tested.values())),
            }
        )
    return made


def show_slices(runs: Sequence[Run], names: Mapping[Path, str]) -> tuple[list[Plain], list[str]]:
    """What the slice viewer shows, as much of every run as fits, and what could not be read."""
    read, trouble = _read_each(runs, names, read_volumes)
    panels = [(run, panel) for run, panel in read if len(panel.whole)]
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
        first = _rank(samples)
        viewer = {
            "first": first,
            "run": names[run.folder],
            "step": run.steps,
            "errorMax": min(1.0, top),
            "samples": samples,
        }
        viewers.append(viewer | {"left": len(panel.whole) - len(samples)})
    return viewers, trouble


def _rank(samples: list[Plain]) -> int:
    """Tell every sample its place by error, and return that of the median one (the better of two)."""
    order = sorted(range(len(samples)), key=lambda i: (samples[i]["loss"] is None, samples[i]["loss"] or 0.0))
    middle = (len(order) - 1) // 2
    for place, i in enumerate(order):
        words = "the median" if place == middle else f"number {place + 1}"
        samples[i]["rank"] = f"{words} of {len(order)} by error" if len(order) > 1 else ""
    return order[middle]


def _sample(
    panel: Panel, index: int, png: bytes, shape: tuple[int, int, int], columns: int, thinned: int
) -> Plain:
    part, reconstruction, whole = (a[index] for a in (panel.part, panel.reconstruction, panel.whole))
    box = None if panel.boxes is None else (panel.boxes[index] / thinned).tolist()
    return {
        "name": panel.names[index] if index < len(panel.names) else f"Sample {index + 1}",
        "src": "data:image/png;base64," + encode(png),
        "bytes": len(png),
        "shape": list(shape),
        "columns": columns,
        "thinned": thinned,
        "spacing": list(panel.spacings_mm[index]),
        "box": box,
        "loss": as_number(float(np.mean((reconstruction - whole) ** 2))),
        "seen": panel.seen,
        "untouched": as_number(float(np.mean((part - whole) ** 2))),
    }


def show_pictures(runs: Sequence[Run], names: Mapping[Path, str]) -> tuple[list[Plain], list[str]]:
    """PNG files that the runs drew themselves, newest of each run first, and how many don't fit the page."""
    pictures: list[Plain] = []
    left = PICTURE_BYTES
    for run in runs:
        limit = 6 if len(runs) == 1 else 2
        for path in run.pictures[::-1][:limit]:
            content = path.read_bytes()
            if len(content) <= left and content.startswith(b"\x89PNG"):
                left -= len(content)
                source = "data:image/png;base64," + encode(content)
                about = f"{names[run.folder]}: " if len(runs) > 1 else ""
                pictures.append({"src": source, "caption": about + _caption(path.stem)})
    more = sum(len(run.pictures) for run in runs) - len(pictures)
    return pictures, [f"pictures left out, to fit the page: {more} more in the runs' folders"] if more else []


def _caption(stem: str) -> str:
    """A picture's file name in words: ``test-worst-P012`` is the worst test case, P012."""
    kind, _, rest = stem.partition("-")
    which, _, case = rest.partition("-")
    if kind == "test" and case:
        return f"{'test case of this seed' if which == 'shared' else f'{which} test case'}, {case}"
    return f"step {int(rest):,}" if kind == "step" and rest.isdecimal() else stem


def show_embeddings(runs: Sequence[Run], names: Mapping[Path, str]) -> tuple[list[Plain], list[str]]:
    """What the scatter shows, as many runs as fit, and what could not be read."""
    read, trouble = _read_each(runs, names, read_embedding)
    found = [(names[run.folder], embedding) for run, embedding in read]
    shown = choose_shown(found, EMBEDDING_BYTES)
    if len(shown) < len(found):
        trouble.append(f"embeddings of {len(found) - len(shown)} more runs are left out, to fit the page")
    return shown, trouble


def _read_each(
    runs: Sequence[Run], names: Mapping[Path, str], read: Callable[[Path], T | None]
) -> tuple[list[tuple[Run, T]], list[str]]:
    """What is in the folders of those runs that have it, and what could not be read."""
    found, trouble = [], []
    for run in runs:
        try:
            there = read(run.folder)
        except RunError as error:
            trouble.append(f"{names[run.folder]}: {error}")
            continue
        if there is not None:
            found.append((run, there))
    return found, trouble


def encode(content: bytes) -> str:
    """Base64 as text."""
    return base64.b64encode(content).decode("ascii")
