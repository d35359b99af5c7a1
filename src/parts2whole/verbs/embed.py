"""Embed parts of wholes, before and after training: do parts of one whole come together?

Writes points for t-SNE, PCA and UMAP (if installed), distances within and between wholes, the wholes nearest
to every part, and on request maps of the reconstruction error as NIfTI. The run's report shows them.
"""

from __future__ import annotations

import dataclasses
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
from parts2whole.report.embedding import FOLDER, Embedding, thumbnail, write_embedding
from parts2whole.report.page import write_report
from parts2whole.report.runs import read_run
from parts2whole.store.store import Store
from parts2whole.training.error_maps import ErrorMaps, write_error_maps
from parts2whole.training.monitor import BAND, choose_distinct
from parts2whole.training.monitor import embed as embed_images
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.weights.card import Card
from parts2whole.weights.load import load_initialisation
from parts2whole.weights.native import find_weights
from parts2whole.wholes.geometry import cut_parts
from parts2whole.wholes.random import BatchGenerator
from parts2whole.wholes.sampler import Whole, WholeSampler, WholeSize

CANDIDATES = 20
"""So many wholes are drawn for each that is wanted, before different ones are chosen."""
AT_ONCE = 16


class EmbedError(Parts2WholeError, ValueError):
    """A run or scans that can't be embedded."""


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What was embedded.

    Attributes:
        folder: with ``embedding.npz``, ``embedding.csv`` and ``embedding.json``.
        numbers: what was measured, ``before`` and ``after`` training.
        nearest: for every part the names of the nearest wholes.
        maps: error maps written, if any were asked for.
        notes: what should be known.
    """

    folder: Path
    numbers: dict[str, dict[str, float]]
    nearest: tuple[tuple[str, ...], ...]
    maps: ErrorMaps | None
    notes: tuple[str, ...]

    def summary(self) -> str:
        """The numbers side by side."""
        lines = [f"{'':<24}{'untrained':>12}{'trained':>12}"]
        for key, after in self.numbers["after"].items():
            lines.append(f"{key:<24}{self.numbers['before'][key]:>12.4f}{after:>12.4f}")
        lines += [f"Note: {note}." for note in self.notes]
        if self.maps is not None:
            lines.append(self.maps.summary())
        return "\n".join([*lines, f"Written to {self.folder}"])


def embed(
    run: str | Path,
    *,
    store: str | Path | None = None,
    out: str | Path | None = None,
    wholes: int = 24,
    parts: int = 8,
    part_fraction: tuple[float, float] = BAND,
    neighbours: int = 5,
    error_maps: int = 0,
    seed: int = 0,
    hardware: Hardware = Hardware(),
    progress: bool = True,
) -> Embedded:
    """Embed parts of different wholes with an encoder, and with its network untrained.

    Args:
        run: pre-training run folder.
        store: scans to cut from; default the run's own, of which the scans held out from training.
        out: folder to write to; default ``embedding`` in the run folder, which its report then shows.
        wholes: number of different wholes, one of every scan first.
        parts: parts cut from every whole.
        part_fraction: edge of a part over the edge of its whole, low and high.
        neighbours: how many nearest wholes are listed for every part.
        error_maps: for so many scans write the voxel-wise error of the reconstruction as NIfTI.
        seed: of wholes, parts and projections.
        hardware: device and precision.
        progress: say what is done.

    Returns:
        Numbers before and after training, and where everything is.

    Raises:
        EmbedError: no store, fewer than two wholes, or scans that don't fit the encoder.
        parts2whole.weights.native.WeightsError: ``run`` holds no finished pre-training.
        parts2whole.training.error_maps.ErrorMapError: a method that rebuilds nothing.
    """
    folder = Path(run)
    find_weights(folder)
    start = load_initialisation(folder)
    assert start is not None
    runtime = Runtime(hardware.replace(devices=1, nodes=1))
    record = read_run(folder)
    scans, cases, notes = _scans(store, record.config, record.result, start.card.seen)
    if scans.preprocess.window_hu != start.card.preprocess.window_hu:
        notes.append("the store's window differs from the one the encoder was trained with")
    target = Path(out) if out is not None else folder / FOLDER
    found = embed_encoder(
        start.encoder,
        start.card,
        scans,
        cases,
        out=target,
        wholes=wholes,
        parts=parts,
        part_fraction=part_fraction,
        neighbours=neighbours,
        seed=seed,
        initial_seed=int(record.config.get("seed") or 0),
        runtime=runtime,
        progress=progress,
    )
    if len(found.names) < wholes:
        notes.append(f"only {len(found.names)} different wholes could be drawn")
    maps = None
    if error_maps:
        maps = write_error_maps(
            folder, scans, cases[:error_maps], out=target / "error_maps", seed=seed, runtime=runtime
        )
    if out is None:
        write_report(folder)
    numbers = {stage: dict(values) for stage, values in found.numbers.items()}
    nearest = tuple(tuple(found.names[i] for i in row) for row in found.nearest)
    return Embedded(target, numbers, nearest, maps, tuple(notes))


def embed_encoder(
    encoder: Encoder,
    card: Card,
    scans: Store,
    cases: tuple[str, ...],
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
    """Embed parts with an encoder, and with its network as ``initial_seed`` made it; writes into ``out``.

    Other arguments and errors as of `embed`.
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
    features = {}
    for stage, built in (("before", untrained), ("after", encoder)):
        if progress:
            print(f"Embedding {len(cut)} parts of {len(images)} wholes, {stage} training", flush=True)
        placed = runtime.place_module(built)
        if stage == "before":
            _settle_norms(placed, cut, runtime)
        placed.eval()
        features[f"{stage}_parts"] = _embed_all(placed, cut, runtime)
        features[f"{stage}_wholes"] = _embed_all(placed, images, runtime)
    found = _measure(features, chosen, parts, images, cut, neighbours=neighbours, seed=seed)
    write_embedding(out, found, features)
    write_rows(out / "embedding.csv", _rows(found, parts))
    return found


def _scans(
    given: str | Path | None, config: dict[str, Any], result: dict[str, Any], seen: tuple[str, ...]
) -> tuple[Store, tuple[str, ...], list[str]]:
    """The store, the cases to cut from, and what should be known about them."""
    if given is None and not config.get("store"):
        raise EmbedError("the folder doesn't say what store it was trained on; give one with --store")
    store = Store.open(Path(given if given is not None else config["store"]))
    everything = tuple(record.case_id for record in store.cases)
    held_out = tuple(case for case in result.get("held_out_cases") or () if case in everything)
    cases = held_out if given is None and held_out else everything
    known = set(seen)
    unheld = [c for c in cases if c not in held_out and store.record(c).content_hash in known]
    notes = [f"{len(unheld)} of {len(cases)} scans were trained on"] if unheld else []
    return store, cases, notes


@torch.no_grad()
def _settle_norms(encoder: Any, images: Tensor, runtime: Runtime) -> None:
    """Let an untrained encoder's batch norms see the data, instead of made-up statistics."""
    encoder.train()
    for first in range(0, len(images), AT_ONCE):
        embed_images(encoder, images[first : first + AT_ONCE], runtime)


def _embed_all(encoder: Any, images: Tensor, runtime: Runtime) -> npt.NDArray[np.float32]:
    assert isinstance(encoder, Encoder)
    found: npt.NDArray[np.float32] = torch.cat(
        [embed_images(encoder, images[i : i + AT_ONCE], runtime) for i in range(0, len(images), AT_ONCE)]
    ).numpy()
    return found


def _measure(
    features: dict[str, npt.NDArray[np.float32]],
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
