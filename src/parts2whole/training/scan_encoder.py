"""From a scan to a vector: an encoder with the preprocessing that its card asks for, in one object.

A scan is seen in windows of the size that was trained on, side by side; of the map of all of it, every voxel
counts once.  That map is averaged, or averaged in its 2 x 2 x 2 octants.  A box around a point is one window.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from parts2whole.errors import Parts2WholeError
from parts2whole.networks.base import Encoder
from parts2whole.run_folder import MODEL_CARD, WEIGHTS
from parts2whole.scans.case import SourceCase, read_channels
from parts2whole.scans.find import find_scans
from parts2whole.scans.preprocess import Modality, Preprocess
from parts2whole.scans.volume import Box, Size, Volume
from parts2whole.tasks.places import Points, inside
from parts2whole.training.encode import read_features
from parts2whole.training.model import ModelCard, load_model
from parts2whole.training.network_input import NetworkInput, network_input
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.weights.card import Card
from parts2whole.weights.load import SCRATCH, load_initialisation

Features = Literal["average", "map"]
"""What is kept of the deepest map: its average, or its averages in 2 x 2 x 2 octants."""
Vectors = npt.NDArray[np.float32]
Span = tuple[float, float]
AT_ONCE = 4
"""Windows in a batch."""


class ScanEncoderError(Parts2WholeError, ValueError):
    """Weights that can't encode scans, or a scan that can't be told."""


@dataclasses.dataclass(frozen=True, eq=False)
class ScanEncoder:
    """Pre-trained weights, ready for scans.

    Attributes:
        encoder: on its device, in eval mode: (B, C, D, H, W) in [0, 1] to feature maps, finest first.
        preprocess: how a scan is prepared for it.
        card: that came with it.
        runtime: device and precision.
    """

    encoder: Encoder
    preprocess: Preprocess
    card: Card | ModelCard
    runtime: Runtime

    @property
    def in_channels(self) -> int:
        """Channels that a scan must have."""
        return self.encoder.in_channels

    @property
    def window_size(self) -> Size:
        """Size in voxels (z, y, x) that it was trained on, as a multiple of what it takes."""
        size = self.card.whole_size if isinstance(self.card, Card) else self.card.task.patch_size
        return self._multiple(size)

    def width(self, features: Features) -> int:
        """How many numbers a vector has."""
        return self.encoder.channels[-1] * (8 if features == "map" else 1)

    def prepare(self, scan: Volume) -> NetworkInput:
        """A scan as its encoder sees it.

        Raises:
            parts2whole.training.network_input.InputError: another number of channels.
            parts2whole.scans.preprocess.PreprocessError: it can't be prepared so.
        """
        return network_input(scan, self.preprocess, self.in_channels)

    def encode(
        self,
        scan: str | Path | SourceCase | Volume,
        *,
        points_mm: Sequence[Sequence[float]] | None = None,
        size: Size | None = None,
        features: Features = "average",
    ) -> Vectors:
        """The vector of a scan, or of boxes in it.

        Args:
            scan: a file, a DICOM folder with one series, a case, or a volume that was read.
            points_mm: LPS positions (x, y, z) in mm; boxes around them are encoded instead of all of it.
            size: of windows and boxes in voxels (z, y, x) as prepared; default `window_size`.
            features: the ``average`` of the deepest map, (channels,), or its averages in 2 x 2 x 2 octants,
                the ``map``, (8 channels,), octant by octant, x fastest.

        Returns:
            (features,), or with points (points, features).

        Raises:
            ScanEncoderError: a folder that doesn't hold one scan, or a size the network doesn't take.
            parts2whole.tasks.labelled.TaskError: a point that lies outside.
            parts2whole.scans.read.ReadError: a file that can't be read.
        """
        found = self.prepare(read_one(scan))
        if points_mm is None:
            return self.encode_whole(found, size=size, features=features)
        places = inside(np.asarray(points_mm, dtype=float).reshape(-1, 3), found.volume)
        return self.encode_boxes(found, places, size=size, features=features)

    def encode_whole(self, scan: NetworkInput, *, size: Size | None, features: Features) -> Vectors:
        """The vector (features,) of a prepared scan; see `encode`."""
        shape = scan.volume.shape
        wanted = [min(a, b) for a, b in zip(self._window(size), self._multiple(shape), strict=True)]
        window: Size = (wanted[0], wanted[1], wanted[2])
        strides = self.encoder.strides[-1]
        padded = [max(a, -(-b // s) * s) for a, b, s in zip(window, shape, strides, strict=True)]
        short = [(0, edge - have) for edge, have in zip(padded, shape, strict=True)]
        image = np.pad(scan.image.numpy(), [(0, 0), *short], mode="edge")
        axes = [_lay(*edges) for edges in zip(window, shape, padded, strict=True)]
        places = [(z, y, x) for z in axes[0] for y in axes[1] for x in axes[2]]
        boxes = [Box((z[0], y[0], x[0]), window) for z, y, x in places]
        spans = [(z[1], y[1], x[1]) for z, y, x in places]
        octants = _Octants(self.encoder.channels[-1], shape)
        for box, own, map_ in zip(boxes, spans, self._maps(image, boxes), strict=True):
            octants.add(map_, box, own, strides)
        return octants.read(features)

    def encode_boxes(
        self, scan: NetworkInput, centres: Points, *, size: Size | None, features: Features
    ) -> Vectors:
        """The vectors (points, features) of boxes in a prepared scan, around voxels (z, y, x)."""
        window = self._window(size)
        boxes = [Box.around(centre, window) for centre in centres]
        vectors = []
        for map_ in self._maps(scan.image.numpy(), boxes):
            octants = _Octants(self.encoder.channels[-1], window)
            all_of_it = [(0.0, float(edge)) for edge in window]
            octants.add(map_, Box((0, 0, 0), window), all_of_it, self.encoder.strides[-1])
            vectors.append(octants.read(features))
        return np.stack(vectors) if vectors else np.empty((0, self.width(features)), np.float32)

    def _maps(self, image: npt.NDArray[np.float32], boxes: Sequence[Box]) -> Iterator[Vectors]:
        """The deepest map (channels, z, y, x) of every box."""
        batches = (
            torch.from_numpy(np.stack([box.cut(image) for box in boxes[first : first + AT_ONCE]]))
            for first in range(0, len(boxes), AT_ONCE)
        )
        for found in read_features(self.encoder, batches, self.runtime, _deepest):
            yield from found.numpy()

    def _window(self, size: Size | None) -> Size:
        if size is not None and not self.encoder.takes(size):
            raise ScanEncoderError(
                f"size must be three multiples of {self.encoder.divisor} for this network, got {size}"
            )
        return size or self.window_size

    def _multiple(self, size: Size) -> Size:
        z, y, x = (math.ceil(edge / self.encoder.divisor) * self.encoder.divisor for edge in size)
        return (z, y, x)


def load(
    source: str | Path,
    *,
    in_channels: int | None = None,
    modality: Modality = "auto",
    hardware: Hardware = Hardware(),
) -> ScanEncoder:
    """Pre-trained weights with their preprocessing and their card, ready for scans.

    Args:
        source: a run folder, pre-trained or fine-tuned, a weights folder, ``hf:OWNER/NAME[@REVISION]``, or
            ``SOURCE:PATH`` of published weights.
        in_channels: number of input channels, for published weights; default: as they were trained.
        modality: of the scans, for weights that take any: ``CT``, ``MR`` or ``unit``; ``auto`` believes what
            a file says, or guesses where that is safe.
        hardware: device and precision; one device is used.

    Returns:
        The encoder on its device, in eval mode, with ``encode`` from a scan to a vector.

    Raises:
        ScanEncoderError: ``scratch``, or another modality or number of channels than theirs.
        parts2whole.training.model.ModelError: a damaged model.
        parts2whole.weights.base.WeightsError: there are no weights, or they are damaged.
    """
    card: Card | ModelCard
    if (Path(source) / WEIGHTS / MODEL_CARD).exists():
        module, card = load_model(Path(source))
        encoder = module.encoder
    else:
        start = load_initialisation(source)
        if start is None:
            raise ScanEncoderError(f'"{SCRATCH}" has no weights; name a run, a weights folder, or weights')
        start = start if in_channels is None else start.adapt(in_channels)
        encoder, card = start.encoder, start.card
    if in_channels not in (None, encoder.in_channels):
        raise ScanEncoderError(f"{source} takes {encoder.in_channels} input channels, not {in_channels}")
    preprocess = card.preprocess
    if isinstance(card, Card):  # at which its wholes were shown to it
        preprocess = preprocess.replace(spacing_mm=card.shown_mm)
    if preprocess.modality in ("unit", "auto"):
        preprocess = preprocess.replace(modality=modality)
    elif modality not in ("auto", preprocess.modality):
        raise ScanEncoderError(f"{source} was trained on {preprocess.modality}, not on {modality}")
    runtime = Runtime(hardware.replace(devices=1, nodes=1))
    return ScanEncoder(runtime.place_module(encoder.eval()), preprocess, card, runtime)


def read_one(scan: str | Path | SourceCase | Volume) -> Volume:
    """A scan as a volume.

    Raises:
        ScanEncoderError: a folder or pattern that doesn't hold one scan.
        parts2whole.scans.read.ReadError: a file that can't be read.
    """
    if isinstance(scan, Volume):
        return scan
    if isinstance(scan, SourceCase):
        return read_channels(scan)
    found = find_scans([scan])
    if len(found) != 1:
        names = ", ".join(source.case_id for source in found[:3])
        raise ScanEncoderError(
            f"{scan} holds {len(found)} scans{f' ({names}, ...)' if found else ''}; name one"
        )
    return read_channels(SourceCase(found[0].case_id, (found[0],)))


class _Octants:
    """Sums of a map over the octants of a scan, filled window by window.

    Args:
        channels: of the map.
        shape: of the scan in voxels (z, y, x); what lies outside doesn't count.
    """

    def __init__(self, channels: int, shape: Size) -> None:
        self.halves = [((0.0, edge / 2), (edge / 2, float(edge))) for edge in shape]
        self.total = np.zeros((channels, 2, 2, 2))
        self.weight = np.zeros((2, 2, 2))

    def add(self, map_: Vectors, box: Box, own: Sequence[Span], strides: Sequence[int]) -> None:
        """Count a window's map (channels, z, y, x) where the spans ``own`` of the scan are its own."""
        z, y, x = (
            _overlaps(start, stride, count, halves, span)
            for start, stride, count, halves, span in zip(
                box.start, strides, map_.shape[1:], self.halves, own, strict=True
            )
        )
        self.total += np.einsum("czyx,az,by,dx->cabd", map_, z, y, x, optimize=True)
        self.weight += np.einsum("az,by,dx->abd", z, y, x)

    def read(self, features: Features) -> Vectors:
        """The vector."""
        means = self.total.sum(axis=(1, 2, 3)) / self.weight.sum()
        if features == "map":
            means = (self.total / self.weight).reshape(-1, 8).T.ravel()
        return np.asarray(means, dtype=np.float32)


def _deepest(encoder: Encoder, x: Tensor) -> Tensor:
    deepest: Tensor = encoder(x)[-1]
    return deepest


def _lay(window: int, edge: int, padded: int) -> list[tuple[int, Span]]:
    """Windows along an axis: where each starts, and the span that is its own; the last is moved inwards."""
    return [
        (min(first, padded - window), (float(first), float(min(first + window, edge))))
        for first in range(0, edge, window)
    ]


def _overlaps(
    start: int, stride: int, count: int, halves: Sequence[Span], own: Span
) -> npt.NDArray[np.float64]:
    """How much (2, count) the voxels of a map share with the halves of an axis, within a span."""
    low = start + stride * np.arange(count)
    return np.stack(
        [
            np.clip(np.minimum(low + stride, min(b, own[1])) - np.maximum(low, max(a, own[0])), 0, None)
            for a, b in halves
        ]
    )
