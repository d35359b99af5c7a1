"""Embeds parts of different wholes, by a trained encoder and by its network untrained, and measures them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from parts2whole.errors import Parts2WholeError
from parts2whole.evaluation.contrast import contrast_monitors
from parts2whole.evaluation.projections import project
from parts2whole.evaluation.retrieval import nearest_wholes, retrieval_scores
from parts2whole.files import write_rows
from parts2whole.networks.base import Encoder
from parts2whole.networks.heads import pooled_features
from parts2whole.report.embedding import Embedding, thumbnail, write_embedding
from parts2whole.store.store import Store
from parts2whole.training.encode import batches_of, embed, settle_norms
from parts2whole.training.monitor import BAND, choose_distinct
from parts2whole.training.runtime import Runtime
from parts2whole.weights.card import Card
from parts2whole.wholes.geometry import cut_parts
from parts2whole.wholes.random import BatchGenerator
from parts2whole.wholes.sampler import Whole, WholeSampler, WholeSize

CANDIDATES = 20
"""So many wholes are drawn for each that is wanted, before different ones are chosen."""

Features = dict[str, npt.NDArray[np.float32]]


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
        out: folder for ``embedding.npz``, ``embedding.json`` and ``embedding.csv``.
        runtime: device and precision.
        wholes: number of different wholes, one of every scan first.
        parts: parts cut from every whole.
        part_fraction: edge of a part over the edge of its whole, low and high.
        neighbours: how many nearest wholes are listed for every part.
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
    torch.manual_seed(initial_seed)
    untrained = card.network.build_encoder(card.in_channels)
    features: Features = {}
    for stage, built in (("before", untrained), ("after", encoder)):
        if progress:
            print(f"Embedding {len(cut)} parts of {len(images)} wholes, {stage} training", flush=True)
        placed = runtime.place_module(built)
        if stage == "before":
            settle_norms(placed, batches_of(cut), runtime, pooled_features)
        features[f"{stage}_parts"] = embed(placed, batches_of(cut), runtime).numpy()
        features[f"{stage}_wholes"] = embed(placed, batches_of(images), runtime).numpy()
    found = _measure(features, chosen, parts, images, cut, neighbours=neighbours, seed=seed)
    write_embedding(out, found, features)
    write_rows(out / "embedding.csv", _rows(found, parts))
    return found


def _measure(
    features: Features,
    chosen: list[Whole],
    parts: int,
    images: Tensor,
    cut: Tensor,
    *,
    neighbours: int,
    seed: int,
) -> Embedding:
    numbers, points = {}, {}
    for stage in ("before", "after"):
        by_whole = features[f"{stage}_parts"].reshape(len(chosen), parts, -1)
        numbers[stage] = contrast_monitors(by_whole) | retrieval_scores(by_whole, features[f"{stage}_wholes"])
        points[stage] = project(features[f"{stage}_parts"], seed=seed)
    repeated = {whole.case_id for whole in chosen if [w.case_id for w in chosen].count(whole.case_id) > 1}
    names = [
        f"{w.case_id} at {'/'.join(map(str, w.box.start))}" if w.case_id in repeated else w.case_id
        for w in chosen
    ]
    return Embedding(
        points=points,
        whole=np.repeat(np.arange(len(chosen)), parts),
        names=tuple(names),
        thumbs=np.stack([thumbnail(part[0].numpy()) for part in cut]),
        whole_thumbs=np.stack([thumbnail(image[0].numpy()) for image in images]),
        nearest=nearest_wholes(features["after_parts"], features["after_wholes"], k=neighbours),
        numbers=numbers,
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
