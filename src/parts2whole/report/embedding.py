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

FOLDER = "embedding"
ARRAYS, NUMBERS = "embedding.npz", "embedding.json"
STAGES = ("before", "after")
THUMB = 48
NUMBER_NAMES = {
    "which_whole": "Nearest other part is of the same whole",
    "retrieval_top1": "Nearest whole is the right one",
    "retrieval_top5": "Right whole is among the nearest five",
    "distance_within": "Mean distance within a whole",
    "distance_between": "Mean distance between wholes",
    "info_nce_0.1": "InfoNCE, temperature 0.1",
    "effective_rank": "Effective rank",
}
SHARES = ("which_whole", "retrieval_top1", "retrieval_top5")


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
        numbers: by stage, what `embed` measured.
    """

    points: Mapping[str, Mapping[str, npt.NDArray[np.float32]]]
    whole: npt.NDArray[np.int64]
    names: tuple[str, ...]
    thumbs: npt.NDArray[np.uint8]
    whole_thumbs: npt.NDArray[np.uint8]
    nearest: npt.NDArray[np.int64]
    numbers: Mapping[str, Mapping[str, float]]


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
    arrays |= {"names": np.asarray(embedding.names, dtype=np.str_)}
    arrays |= {f"features/{name}": values for name, values in features.items()}
    write_json(folder / NUMBERS, {stage: dict(found) for stage, found in embedding.numbers.items()})
    return write_arrays(folder / ARRAYS, arrays)


def read_embedding(run: Path) -> Embedding | None:
    """The embedding in a run folder; None where there is none.

    Raises:
        RunError: a file of it is damaged.
    """
    folder = run / FOLDER
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
    shown = [key for key in NUMBER_NAMES if all(key in embedding.numbers[stage] for stage in STAGES)]
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
        "numbers": [
            [NUMBER_NAMES[key], *(_number(embedding.numbers[stage][key], key) for stage in STAGES)]
            for key in shown
        ],
        "chance": _number(embedding.numbers["after"].get("which_whole_chance", math.nan), "which_whole"),
    }


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
