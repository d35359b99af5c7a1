"""Embed parts of wholes, before and after training: do parts of one whole come together?

Writes points for t-SNE, PCA and UMAP (if installed), distances within and between wholes, the wholes nearest
to every part, whether embeddings compose (see `parts2whole.evaluation.composition`), and on request maps of
the reconstruction error as NIfTI. The run's report shows them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from parts2whole.report.embedding import tabulate
from parts2whole.report.page import write_report
from parts2whole.report.runs import read_run
from parts2whole.run_folder import EMBEDDING
from parts2whole.store.store import Store
from parts2whole.training.embedding import EmbedError, Kind, embed_parts
from parts2whole.training.error_maps import ErrorMaps, write_error_maps
from parts2whole.training.monitor import BAND
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.training.transfer import TransferError, check_contract
from parts2whole.weights.load import load_initialisation
from parts2whole.weights.native import find_weights


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What was embedded.

    Attributes:
        folder: with ``embedding.npz``, ``embedding.csv``, ``embedding.json`` and ``numbers.csv``.
        numbers: what was measured, ``before`` and ``after`` training; of bottleneck maps as ``map_...``.
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
        rows = tabulate(self.numbers)
        columns = [column for column in rows[0] if column != "number"]
        lines = [f"{'':<20}" + "".join(f"{column:>19}" for column in columns)]
        lines += [f"{row['number']:<20}" + "".join(f"{row[c]:>19.4f}" for c in columns) for row in rows]
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
    features: Kind = "map",
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
        features: show parts, and look for the nearest wholes, by the bottleneck ``map``, which is what the
            decoder gets, or by its global ``average``, which is what classification sees. Numbers are
            measured of both.
        error_maps: for so many scans write the voxel-wise error of the reconstruction as NIfTI.
        seed: of wholes, parts and projections.
        hardware: device and precision.
        progress: say what is done.

    Returns:
        Numbers before and after training, and where everything is.

    Raises:
        parts2whole.training.embedding.EmbedError: no store, fewer than two wholes, or scans that don't fit
            the encoder.
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
    try:
        shown_mm = start.card.shown_mm if start.card.whole_mm else None
        notes += check_contract(start.card, scans, None, whose="the store", shown_mm=shown_mm)
    except TransferError as error:
        notes.append(str(error).partition(";")[0])
    target = Path(out) if out is not None else folder / EMBEDDING
    found = embed_parts(
        start.encoder,
        start.card,
        scans,
        cases,
        out=target,
        wholes=wholes,
        parts=parts,
        part_fraction=part_fraction,
        neighbours=neighbours,
        features=features,
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
