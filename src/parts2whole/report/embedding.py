"""The file that `embed` leaves, and what the page's scatter shows of it; works without torch."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from parts2whole.files import read_json, write_json
from parts2whole.report.figures import grey_png
from parts2whole.report.runs import Plain, RunError, write_arrays
from parts2whole.run_folder import EMBEDDING

ARRAYS, NUMBERS = "embedding.npz", "embedding.json"
STAGES = ("before", "after")
THUMB = 48
NUMBER_NAMES = {
    "info_nce_0.1": "InfoNCE, temperature 0.1",
    "which_whole": "Nearest other part is of the same whole",
    "retrieval_top1": "Nearest whole is the right one",
    "retrieval_top5": "Right whole is among the nearest five",
    "distance_within": "Mean distance within a whole",
    "distance_between": "Mean distance between wholes",
    "effective_rank": "Effective rank",
    "place_top1": "Moved octant: its place is found in its whole",
    "part_top1": "Moved octant: it is found among those of all wholes",
    "sum_top1": "Sum of octants: nearest to their whole",
    "rest_top1": "Whole less seven octants: nearest to the eighth",
}
CHANCES = {
    "which_whole": "which_whole_chance",
    "retrieval_top1": "retrieval_chance",
    "info_nce_0.1": "info_nce_chance",
    "info_nce_0.5": "info_nce_chance",
} | {f"{name}_top1": f"{name}_chance" for name in ("place", "part", "sum", "rest")}
SHARES = (
    "which_whole",
    "retrieval_top1",
    "retrieval_top5",
    "place_top1",
    "part_top1",
    "sum_top1",
    "rest_top1",
)
KINDS = {"map": ("map_", "Bottleneck map"), "average": ("", "Global average")}
"""What embeddings are: how their numbers' names begin, and what they are called."""
TRAINED = {"before": "untrained", "after": "trained"}


@dataclass(frozen=True, eq=False)
class Embedding:
    """Parts of wholes, embedded before and after training.

    Attributes:
        points: by stage (before, after) and projection, (n, 2).
        whole: (n,) which whole a part was cut from.
        names: of the wholes, such as the case they were cut from.
        thumbs: (n, height, width) middle slices of the parts, as the network sees them.
        whole_thumbs: the same of the wholes.
        nearest: (n, k) the wholes nearest to every part, after training.
        numbers: by stage, what `embed` measured; of maps as ``map_...``.
        features: what points and neighbours were made of, ``map`` or ``average``.
    """

    points: Mapping[str, Mapping[str, npt.NDArray[np.float32]]]
    whole: npt.NDArray[np.int64]
    names: tuple[str, ...]
    thumbs: npt.NDArray[np.uint8]
    whole_thumbs: npt.NDArray[np.uint8]
    nearest: npt.NDArray[np.int64]
    numbers: Mapping[str, Mapping[str, float]]
    features: str = "average"


def write_embedding(
    folder: Path, embedding: Embedding, features: Mapping[str, npt.NDArray[np.float32]]
) -> Path:
    """Write arrays and numbers into ``folder``; ``features`` go along by name."""
    arrays: dict[str, npt.NDArray[Any]] = {
        f"{stage}/{name}": points
        for stage, by_name in embedding.points.items()
        for name, points in by_name.items()
    }
    arrays |= {key: getattr(embedding, key) for key in ("whole", "thumbs", "whole_thumbs", "nearest")}
    arrays["shown"] = np.asarray(embedding.features)
    arrays |= {"names": np.asarray(embedding.names, dtype=np.str_)}
    arrays |= {f"features/{name}": values for name, values in features.items()}
    write_json(folder / NUMBERS, {stage: dict(found) for stage, found in embedding.numbers.items()})
    return write_arrays(folder / ARRAYS, arrays)


def read_embedding(run: Path) -> Embedding | None:
    """The embedding in a run folder; None where there is none.

    Raises:
        RunError: a file of it is damaged.
    """
    folder = run / EMBEDDING
    if not (folder / ARRAYS).exists():
        return None
    try:
        with np.load(folder / ARRAYS, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        points: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
        for key, value in arrays.items():
            stage, slash, name = key.partition("/")
            if slash and stage in STAGES:
                points.setdefault(stage, {})[name] = value
        return Embedding(
            points,
            arrays["whole"],
            tuple(str(name) for name in arrays["names"]),
            arrays["thumbs"],
            arrays["whole_thumbs"],
            arrays["nearest"],
            read_json(folder / NUMBERS),
            str(arrays.get("shown", "average")),  # version 0.1.0 knew no other
        )
    except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise RunError(f"{ARRAYS} can't be read ({error}); run embed again") from error


def thumbnail(volume: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The middle axial slice of a volume (z, y, x) in [0, 1], every so-many-th pixel, to fit `THUMB`."""
    middle = volume[len(volume) // 2]
    step = max(1, math.ceil(max(middle.shape) / THUMB))
    grey: npt.NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(middle[::step, ::step]), 0, 1) * 255).astype(
        np.uint8
    )
    return grey


def to_plain(embedding: Embedding, name: str) -> Plain:
    """What the page's script reads."""
    rows = {str(row["number"]): row for row in tabulate(embedding.numbers)}
    kinds = [kind for kind in KINDS if any(f"{kind} trained" in row for row in rows.values())]
    columns = ["chance", *(f"{kind} {stage}" for kind in kinds for stage in TRAINED.values())]
    return {
        "run": name,
        "names": list(embedding.names),
        "whole": embedding.whole.tolist(),
        "points": {
            stage: {
                name: [[float(f"{x:.4g}"), float(f"{y:.4g}")] for x, y in points]
                for name, points in by_name.items()
            }
            for stage, by_name in embedding.points.items()
        },
        "parts": _sheet(embedding.thumbs),
        "wholes": _sheet(embedding.whole_thumbs),
        "nearest": embedding.nearest.tolist(),
        "features": KINDS[embedding.features][1].lower(),
        "kinds": [KINDS[kind][1] for kind in kinds],
        "numbers": [
            [words, *(_number(rows[key].get(column, math.nan), key) for column in columns)]
            for key, words in NUMBER_NAMES.items()
            if key in rows
        ],
    }


def tabulate(numbers: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """A row for every number: its value by chance, nan where there is none, and what was measured.

    Columns are ``number``, ``chance``, ``map untrained``, ``map trained`` and the same of the ``average``.
    """
    rows = []
    for key in dict.fromkeys(name.removeprefix("map_") for name in numbers["after"]):
        if key.endswith("_chance"):
            continue
        row = {"number": key, "chance": _chance(numbers["after"], key)}
        for kind, (start, _) in KINDS.items():
            found = {
                f"{kind} {TRAINED[s]}": numbers[s][start + key] for s in STAGES if start + key in numbers[s]
            }
            row |= found
        rows.append(row)
    return rows


def _chance(numbers: Mapping[str, float], key: str) -> float:
    """What a number is by chance; nan where that isn't known."""
    if key == "retrieval_top5":  # of m wholes five are nearest, or all of them
        return min(5 * numbers.get(CHANCES["retrieval_top1"], math.nan), 1.0)
    return numbers.get(CHANCES.get(key, ""), math.nan)


def _sheet(thumbs: npt.NDArray[np.uint8]) -> Plain:
    """All thumbnails in one PNG."""
    count, height, width = thumbs.shape
    columns = max(1, round(math.sqrt(count * height / width)))
    rows = -(-count // columns)
    full = np.zeros((rows * columns, height, width), np.uint8)
    full[:count] = thumbs
    sheet = full.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    source = "data:image/png;base64," + base64.b64encode(grey_png(sheet)).decode("ascii")
    return {"src": source, "columns": columns, "height": height, "width": width}


def _number(value: float, key: str) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f} %" if key in SHARES else f"{value:.3f}"


def choose_shown(found: Sequence[tuple[str, Embedding]], most_bytes: int) -> list[Plain]:
    """Embeddings for the page, as many as fit."""
    shown: list[Plain] = []
    for name, embedding in found:
        plain = to_plain(embedding, name)
        size = len(json.dumps(plain))
        if size <= most_bytes:
            most_bytes -= size
            shown.append(plain)
    return shown
