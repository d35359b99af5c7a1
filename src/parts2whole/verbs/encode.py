"""Encode scans: a vector for every scan, or for boxes around points, in a table for other tools."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parts2whole.errors import Parts2WholeError, plural, tell_failure, tell_reasons
from parts2whole.extras import install_hint
from parts2whole.files import replacing, write_rows
from parts2whole.progress import watch, watching
from parts2whole.scans.case import SourceCase, read_channels
from parts2whole.scans.find import find_scans
from parts2whole.scans.preprocess import Modality
from parts2whole.scans.volume import Size
from parts2whole.tasks.candidates import to_world
from parts2whole.tasks.channels import group_channels
from parts2whole.tasks.places import Places, check_names, places_in, read_places
from parts2whole.training.model import ModelCard
from parts2whole.training.runtime import Hardware
from parts2whole.training.scan_encoder import Features, ScanEncoder, Vectors, load
from parts2whole.verbs import words

AXES = "XYZ"


class EncodeError(Parts2WholeError, ValueError):
    """A table that can't be written, or no scan that could be encoded."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What was written.

    Attributes:
        path: the table: a row for every scan, or for every point.
        rows: how many there are.
        features: numbers in a row.
        scans: how many were found.
        set_aside: reason for every scan that could not be used.
        notes: what the user should know of scans that were used.
    """

    path: Path
    rows: int
    features: int
    scans: int
    set_aside: dict[str, str]
    notes: dict[str, str]

    @property
    def failed(self) -> bool:
        """Whether a scan failed; the command line then ends with a non-zero code."""
        return bool(self.set_aside)

    def summary(self) -> str:
        """What was written, then a line for every note and every scan set aside."""
        first = f"{plural(self.rows, 'row')} of {self.features} features written to {self.path}"
        return "\n".join([first, *words.tell_scans(self.notes, self.set_aside, of=self.scans)])


def encode(
    model: str | Path,
    scans: Sequence[str | Path],
    *,
    out: str | Path,
    points: str | Path | None = None,
    size: Size | None = None,
    features: Features = "average",
    modality: Modality = "auto",
    in_channels: int | None = None,
    hardware: Hardware = Hardware(),
    progress: bool = True,
) -> Encoded:
    """Write the vector that a frozen encoder makes of every scan, prepared as its card says.

    A scan that fails, for whatever reason, never ends the run.

    Args:
        model: a run folder, pre-trained or fine-tuned, a weights folder, ``hf:OWNER/NAME[@REVISION]``, or
            ``SOURCE:PATH`` of published weights.
        scans: files, folders or globs.
        out: the table: ``.csv``, ``.npz`` (arrays ``scans``, ``features`` and, with points, ``points_mm``) or
            ``.parquet`` (needs the extra ``parquet``).
        points: a CSV with ``seriesuid,coordX,coordY,coordZ``: LPS positions in mm, in scans named by file
            name without suffix or by series UID; boxes around them are encoded instead of whole scans.
        size: of boxes, and of the windows that a whole scan is seen in, in voxels (z, y, x) as prepared;
            default: as in training.
        features: of the deepest map its ``average``, or its averages in 2 x 2 x 2 octants, the ``map``.
            Instance norm makes an average nearly constant; the map then tells more.
        modality: of the scans, for weights that take any.
        in_channels: number of input channels, for published weights; default: as they were trained.
        hardware: device and precision; one device is used.
        progress: show a progress bar.

    Returns:
        What was written, and the scans set aside with their reasons.

    Raises:
        EncodeError: ``out`` exists or has another suffix, or no scan could be used.
        parts2whole.training.scan_encoder.ScanEncoderError: weights or a size that can't be used.
        parts2whole.weights.base.WeightsError: there are no weights.
    """
    path = Path(out)
    if path.suffix not in WRITERS:
        raise EncodeError(f"--out must end in {', '.join(WRITERS)}, got {path.name}")
    if path.exists():
        raise EncodeError(f"{path} exists already; choose another --out")
    if path.suffix == ".parquet":
        _import_arrow()  # before there is anything to write
    loaded = load(model, in_channels=in_channels, modality=modality, hardware=hardware)
    names = loaded.card.channel_names if isinstance(loaded.card, ModelCard) else ()
    sources = [SourceCase(one.case_id, (one,)) for one in find_scans(list(scans), keep_series_uids=True)]
    cases = group_channels(sources, loaded.in_channels, names)
    if not cases:
        raise EncodeError(f"no scans found in {', '.join(map(str, scans))}")
    named = None if points is None else read_places(Path(points))
    check_names(named or {}, cases)
    if progress:
        told, module, runtime = plural(len(cases), "scan"), loaded.encoder, loaded.runtime
        line = words.describe_work(
            f"Encoding by {model}", told, network=loaded.card.network, module=module, runtime=runtime
        )
        print(line, flush=True)
    blocks: list[_Block] = []
    set_aside: dict[str, str] = {}
    with watching("Encoding", len(cases), show=progress):
        for case in watch(cases, len(cases)):
            try:
                blocks.append(_encode_one(loaded, case, named, size=size, features=features))
            except Exception as error:
                set_aside[case.case_id] = tell_failure(error)
                loaded.runtime.free_memory()
    if not blocks:
        raise EncodeError("no scan could be used. " + "; ".join(tell_reasons(set_aside, of=len(cases))))
    WRITERS[path.suffix](path, blocks)
    rows = sum(len(block.vectors) for block in blocks)
    notes = {block.scan: "; ".join(block.notes) for block in blocks if block.notes}
    return Encoded(path, rows, loaded.width(features), len(cases), set_aside, notes)


@dataclasses.dataclass(frozen=True)
class _Block:
    """The rows of one scan: vectors (n, features), and the points (n, 3) in mm where boxes were asked for."""

    scan: str
    vectors: Vectors
    points_mm: np.ndarray[Any, np.dtype[np.float64]] | None
    notes: tuple[str, ...]


def _encode_one(
    loaded: ScanEncoder, case: SourceCase, named: Places | None, *, size: Size | None, features: Features
) -> _Block:
    image = loaded.prepare(read_channels(case))
    notes = (*image.notes, *(note for source in case.scan_sources() for note in source.notes))
    if named is None:
        vector = loaded.encode_whole(image, size=size, features=features)
        return _Block(case.case_id, vector[None], None, notes)
    centres = places_in(named, case, image.volume)
    vectors = loaded.encode_boxes(image, centres, size=size, features=features)
    return _Block(case.case_id, vectors, to_world(image.volume, centres), notes)


def _columns(blocks: Sequence[_Block]) -> dict[str, Any]:
    """The table by column: scan, position, and f0 and so on."""
    columns: dict[str, Any] = {"scan": [block.scan for block in blocks for _ in block.vectors]}
    places = [block.points_mm for block in blocks if block.points_mm is not None]
    if places:
        columns |= {
            f"coord{axis}": column for axis, column in zip(AXES, np.concatenate(places).T, strict=True)
        }
    vectors = np.concatenate([block.vectors for block in blocks])
    return columns | {f"f{number}": column for number, column in enumerate(vectors.T)}


def _write_csv(path: Path, blocks: Sequence[_Block]) -> None:
    columns = _columns(blocks)
    write_rows(path, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def _write_npz(path: Path, blocks: Sequence[_Block]) -> None:
    arrays = {
        "scans": np.array([block.scan for block in blocks for _ in block.vectors]),
        "features": np.concatenate([block.vectors for block in blocks]),
    }
    places = [block.points_mm for block in blocks if block.points_mm is not None]
    arrays |= {"points_mm": np.concatenate(places)} if places else {}
    with replacing(path, suffix=".npz") as beside:
        np.savez_compressed(beside, allow_pickle=False, **arrays)


def _write_parquet(path: Path, blocks: Sequence[_Block]) -> None:
    arrow, parquet = _import_arrow()
    with replacing(path) as beside:
        parquet.write_table(arrow.table(_columns(blocks)), str(beside))


def _import_arrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        hint = install_hint("parquet")
        raise EncodeError(f".parquet needs a package that isn't installed: {hint}") from error


WRITERS = {".csv": _write_csv, ".npz": _write_npz, ".parquet": _write_parquet}
"""What writes a table, by its suffix."""
