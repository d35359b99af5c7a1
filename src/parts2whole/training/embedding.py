"""Embeds parts of different wholes, by a trained encoder and by its network untrained, and measures them.

Embeddings are bottleneck maps, pooled to 2 x 2 x 2, and their global averages. Names of what belongs to maps
begin with ``map_``; those of averages are as in version 0.1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from parts2whole.errors import Parts2WholeError
from parts2whole.evaluation.composition import composition_scores
from parts2whole.evaluation.contrast import contrast_monitors, name_both
from parts2whole.evaluation.projections import project
from parts2whole.evaluation.retrieval import nearest_wholes, retrieval_scores
from parts2whole.files import write_rows
from parts2whole.networks.base import Encoder
from parts2whole.networks.heads import pooled_features
from parts2whole.report.embedding import Embedding, tabulate, thumbnail, write_embedding
from parts2whole.scans.volume import size_of
from parts2whole.store.store import Store
from parts2whole.training.encode import batches_of, embed_map, settle_norms
from parts2whole.training.monitor import BAND, choose_distinct
from parts2whole.training.runtime import Runtime
from parts2whole.weights.card import Card
from parts2whole.wholes.geometry import Boxes, crop_resize, cut_parts, octants
from parts2whole.wholes.random import BatchGenerator
from parts2whole.wholes.sampler import Whole, WholeSampler, WholeSize

CANDIDATES = 20
"""So many wholes are drawn for each that is wanted, before different ones are chosen."""

MOVED = 0.25
"""How far octants are moved, over their own edges, to be looked up among those that weren't."""

Kind = Literal["map", "average"]
"""What of an embedded image is looked at: the bottleneck map or its global average."""
NAMED: dict[Kind, str] = {"map": "map_", "average": ""}
Array = npt.NDArray[np.float32]
Features = dict[str, Array]


class EmbedError(Parts2WholeError, ValueError):
    """A run or scans that can't be embedded."""


def embed_parts(
    encoder: Encoder,
    card: Card,
    scans: Store,
    cases: Sequence[str],
    *,
    out: Path,
    runtime: Runtime,
    wholes: int = 24,
    parts: int = 8,
    part_fraction: tuple[float, float] = BAND,
    neighbours: int = 5,
    features: Kind = "map",
    seed: int = 0,
    initial_seed: int = 0,
    progress: bool = False,
) -> Embedding:
    """Embed parts of wholes of ``cases``, and write points, features and numbers into ``out``.

    Args:
        encoder: the trained one.
        card: of its weights; the network is built again from it, as ``initial_seed`` made it.
        scans: store that wholes are cut from.
        cases: which of its scans.
        out: folder for ``embedding.npz``, ``embedding.json``, ``embedding.csv`` and ``numbers.csv``.
        runtime: device and precision.
        wholes: number of different wholes, one of every scan first.
        parts: parts cut from every whole.
        part_fraction: edge of a part over the edge of its whole, low and high.
        neighbours: how many nearest wholes are listed for every part.
        features: what points and neighbours are made of; numbers are measured of both.
        seed: of wholes, parts and projections.
        initial_seed: of the untrained network.
        progress: say what is done.

    Raises:
        EmbedError: fewer than two wholes or parts, or scans that don't fit the encoder.
    """
    sampler = WholeSampler(scans, size=WholeSize(card.whole_size, card.whole_mm), cases=cases, seed=seed)
    if sampler.channels != card.in_channels:
        raise EmbedError(f"the encoder takes {card.in_channels} channels, the scans have {sampler.channels}")
    drawn = [sampler.draw("embedded", i) for i in range(CANDIDATES * wholes)]
    chosen = [drawn[i] for i in choose_distinct(drawn, wholes)]
    if len(chosen) < 2 or parts < 2:
        raise EmbedError(f"two or more wholes and parts are needed, got {len(chosen)} wholes, {parts} parts")
    images = torch.stack([sampler.read(whole) for whole in chosen])
    generator = BatchGenerator.of_step(seed, "embedded parts", 0, rows=len(images))
    cut = cut_parts(images, generator, fraction=part_fraction, count=parts)
    filling = [_cut_octants(images, moved=moved) for moved in (0.0, MOVED)]
    torch.manual_seed(initial_seed)
    untrained = card.network.build_encoder(card.in_channels)
    embedded: Features = {}
    numbers: dict[str, dict[str, float]] = {}
    for stage, built in (("before", untrained), ("after", encoder)):
        if progress:
            print(f"Embedding {len(cut)} parts of {len(images)} wholes, {stage} training", flush=True)
        placed = runtime.place_module(built)
        if stage == "before":
            settle_norms(placed, batches_of(cut), runtime, pooled_features)
        found = [embed_map(placed, batches_of(batch), runtime) for batch in (images, cut, *filling)]
        kinds = [[each[i].numpy() for each in found] for i in range(len(NAMED))]
        numbers[stage] = name_both(*(_measure(*kind) for kind in kinds))
        for name, (whole, part, *_) in zip(NAMED.values(), kinds, strict=True):
            embedded |= {f"{name}{stage}_wholes": whole, f"{name}{stage}_parts": part}
    named = NAMED[features]
    shown = Embedding(
        points={s: project(embedded[f"{named}{s}_parts"], seed=seed) for s in numbers},
        whole=np.repeat(np.arange(len(chosen)), parts),
        names=_names(chosen),
        thumbs=np.stack([thumbnail(part[0].numpy()) for part in cut]),
        whole_thumbs=np.stack([thumbnail(image[0].numpy()) for image in images]),
        nearest=nearest_wholes(
            embedded[f"{named}after_parts"], embedded[f"{named}after_wholes"], k=neighbours
        ),
        numbers=numbers,
        features=features,
    )
    write_embedding(out, shown, embedded)
    write_rows(out / "embedding.csv", _rows(shown, parts))
    write_rows(out / "numbers.csv", tabulate(numbers))
    return shown


def _cut_octants(wholes: Tensor, *, moved: float) -> Tensor:
    """The eight `octants` of every whole (B, C, D, H, W), stretched to its size: (8 x B, C, D, H, W)."""
    size = size_of(wholes)
    boxes = octants(size, moved=moved)
    return crop_resize(
        wholes, Boxes(boxes.start.repeat(len(wholes), 1), boxes.size.repeat(len(wholes), 1)), size
    )


def _measure(wholes: Array, parts: Array, filling: Array, moved: Array) -> dict[str, float]:
    """All numbers of embeddings (images, features), those of one whole following each other."""
    by_whole, fill, move = (each.reshape(len(wholes), -1, each.shape[1]) for each in (parts, filling, moved))
    found = contrast_monitors(by_whole) | retrieval_scores(by_whole, wholes)
    return found | composition_scores(wholes, fill, move)


def _names(chosen: Sequence[Whole]) -> tuple[str, ...]:
    """Wholes by their cases, with the place where a case has several."""
    cases = [whole.case_id for whole in chosen]
    return tuple(
        f"{w.case_id} at {'/'.join(map(str, w.box.start))}" if cases.count(w.case_id) > 1 else w.case_id
        for w in chosen
    )


def _rows(found: Embedding, parts: int) -> list[dict[str, Any]]:
    """A line for every part: where it comes from, its points, and the nearest wholes."""
    rows = []
    for i, whole in enumerate(found.whole):
        row: dict[str, Any] = {"whole": found.names[whole], "part": i % parts}
        for stage, by_name in found.points.items():
            for name, points in by_name.items():
                row |= {f"{stage} {name} {axis}": float(v) for axis, v in zip("xy", points[i], strict=True)}
        rows.append(row | {f"nearest {k + 1}": found.names[w] for k, w in enumerate(found.nearest[i])})
    return rows
