"""Models Genesis: learn anatomy by restoring volumes that were spoiled in four ways.

Zongwei Zhou, Vatsal Sodha, Jiaxuan Pang, Michael B. Gotway, Jianming Liang: "Models Genesis", Medical Image
Analysis 67 (2021) 101840, https://doi.org/10.1016/j.media.2020.101840; first at MICCAI 2019,
https://doi.org/10.1007/978-3-030-32251-9_42

The idea.  Spoil a volume and make an encoder-decoder with skip connections restore it.  Shuffling voxels
in small blocks teaches texture, a new intensity curve appearance, painting windows over teaches to go on
from context, painting all around them the outline.  One network learns all of it at once.

    W' = flip(W),  x = paint(bend(shuffle(W')))      loss = mean (sigmoid(D(E(x))) - W')^2

Order, rates and sizes are those of the public code (keras/utils.py of MrGiovanni/ModelsGenesis): up to three
flips, each with rate 0.4 while the one before happened; 10,000 blocks of 1 to edge/10 voxels with rate 0.5;
a curve with rate 0.9, falling in half of the cases; painting with rate 0.9, in four of five cases outside one
to five windows of 3/7 to 4/7 of the edge, else inside up to five of 1/6 to 1/3.

Deviations.  ``conformant`` flips as published: one third of the flips hit the channel axis and do nothing,
the depth (z) axis is never flipped, and a volume too small for the sizes above is refused.  Otherwise flips
are over the three spatial axes, and sizes and margins shrink to fit.  Later windows repaint with the noise of
earlier ones, which is distributed alike.  With several channels, which the original doesn't know, places,
voxel orders and curves are shared and noise is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from parts2whole.methods.base import MethodError, Reconstruction, Views
from parts2whole.methods.transforms import Blocks, Windows, flip, look_up, paint, shuffle_blocks, solve_curves
from parts2whole.networks.base import Network
from parts2whole.networks.heads import EncoderDecoder, Model
from parts2whole.scans.volume import Size
from parts2whole.wholes.random import BatchGenerator

Array = npt.NDArray[Any]
Transform = Literal["flip", "shuffle", "bend", "paint_inside", "paint_outside"]

GOES_ON = 0.95
"""Rate at which another window follows."""
WINDOWS = 5
"""Windows at most."""
MARGIN = 3
"""Voxels that a window keeps from the border."""


@dataclasses.dataclass(frozen=True)
class Spoiling:
    """What was drawn for a batch: which rows (R <= B of them) are spoiled how.

    Attributes:
        flipped: (B, 3) booleans along (z, y, x).
        shuffled, blocks: rows, and the argument of `shuffle_blocks`.
        bent, controls, falling: rows, and the arguments of `bend_intensities`.
        painted, windows, noise, outside: rows, and the arguments of `paint`.
    """

    flipped: Tensor
    shuffled: tuple[int, ...]
    blocks: tuple[Blocks, ...]
    bent: tuple[int, ...]
    controls: Tensor
    falling: Tensor
    painted: tuple[int, ...]
    windows: Windows
    noise: tuple[Tensor, ...]
    outside: Tensor


@dataclasses.dataclass(frozen=True)
class ModelsGenesis(Reconstruction):
    """Restore a spoiled volume.

    Attributes:
        conformant: the published behaviour, quirks included; see the top of this file.
        alone: use this transform only, at its rate, as in the paper's ablation; None uses all.
        flip_rate: rate of a first, second and third flip, which the target shares.
        shuffle_rate: rate of shuffling.
        blocks: blocks shuffled in a volume.
        bend_rate: rate of a new intensity curve.
        paint_rate: rate of painting.
        outside_rate: share of the painted volumes that are painted outside the windows.
        skips: connect encoder and decoder by skip connections.
    """

    citation: ClassVar[str] = (
        "Zhou, Sodha, Pang, Gotway, Liang: Models Genesis. Medical Image Analysis 67 (2021) 101840, "
        "doi:10.1016/j.media.2020.101840"
    )
    conformant: bool = False
    alone: Transform | None = None
    flip_rate: float = 0.4
    shuffle_rate: float = 0.5
    blocks: int = 10_000
    bend_rate: float = 0.9
    paint_rate: float = 0.9
    outside_rate: float = 0.8
    skips: bool = True

    def __post_init__(self) -> None:
        for name in ("flip_rate", "shuffle_rate", "bend_rate", "paint_rate", "outside_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise MethodError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if self.blocks < 1:
            raise MethodError(f"blocks must be at least 1, got {self.blocks}")

    def unmoved(self) -> ModelsGenesis:
        """Without flips, which the target shares."""
        return dataclasses.replace(self, flip_rate=0.0)

    def build(self, network: Network, *, in_channels: int, whole_size: Size) -> Model:
        """Encoder and decoder, with skip connections unless switched off."""
        self._check_size(whole_size)
        return EncoderDecoder(network.build_encoder(in_channels), out_channels=in_channels, skips=self.skips)

    def views(self, wholes: Tensor, generator: BatchGenerator) -> Views:
        """``part``: the spoiled volume, and ``whole``: the flipped one it should become again."""
        spoiling = self.draw(generator, tuple(wholes.shape[1:]))
        whole = flip(wholes, spoiling.flipped)
        return {"part": spoil(whole, spoiling), "whole": whole}

    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        """Mean squared error over the whole volume, what was left alone included."""
        return {"loss": self.error(self.reconstruct(module, views["part"]), views)}

    def reconstruct(self, module: nn.Module, part: Tensor) -> Tensor:
        """Sigmoid of the decoder's output."""
        return torch.sigmoid(module(part).float())

    def draw(self, generator: BatchGenerator, shape: tuple[int, ...]) -> Spoiling:
        """Draw what happens to every row of a batch of volumes of ``shape`` (C, D, H, W)."""
        self._check_size(shape[1:])
        drawn = [self._draw_row(random, shape) for random in generator.row_generators()]
        device = generator.device

        def collect(name: str, empty: tuple[int, ...], kind: type) -> Tensor:
            found = [row[name] for row in drawn if name in row]
            stacked = np.stack(found) if found else np.empty((0, *empty))
            return torch.from_numpy(stacked.astype(kind, copy=False)).to(device)

        def rows(name: str) -> tuple[int, ...]:
            return tuple(number for number, row in enumerate(drawn) if name in row)

        return Spoiling(
            flipped=collect("flipped", (3,), bool),
            shuffled=rows("blocks"),
            blocks=tuple(row["blocks"] for row in drawn if "blocks" in row),
            bent=rows("controls"),
            controls=collect("controls", (4,), np.float32),
            falling=collect("falling", (), bool),
            painted=rows("noise"),
            windows=Windows(collect("start", (0, 3), np.int64), collect("size", (0, 3), np.int64)),
            noise=tuple(torch.from_numpy(row["noise"]).to(device) for row in drawn if "noise" in row),
            outside=collect("outside", (), bool),
        )

    def _draw_row(self, random: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Any]:
        """What happens to one volume, by the names of `Spoiling`."""
        edges = np.array(shape[1:])
        drawn: dict[str, Any] = {"flipped": self._draw_flips(random)}
        if random.random() < self._rate("shuffle"):
            drawn["blocks"] = draw_blocks(random, edges, self.blocks)
        if random.random() < self._rate("bend"):
            drawn |= {"controls": random.random(4), "falling": np.array(random.random() < 0.5)}
        if random.random() < self._rate("paint"):
            outside = random.random() < {"paint_inside": 0, "paint_outside": 1}.get(
                self.alone or "", self.outside_rate
            )
            start, size = draw_windows(random, edges, outside=outside)
            drawn |= {"start": start, "size": size, "outside": np.array(outside)}
            drawn["noise"] = random.random(shape, dtype=np.float32)
        return drawn

    def _rate(self, transform: str) -> float:
        """Rate of a transform, zero where another one is used alone."""
        rates = {
            "flip": self.flip_rate,
            "shuffle": self.shuffle_rate,
            "bend": self.bend_rate,
            "paint": self.paint_rate,
        }
        return rates[transform] if self.alone is None or self.alone.startswith(transform) else 0.0

    def _draw_flips(self, random: np.random.Generator) -> Array:
        """Which of (z, y, x) end up mirrored: a second flip of an axis undoes the first."""
        times = leading(random.random(3) < self._rate("flip"))
        hit = random.integers(0, 3, 3)[:times]
        # As published, arrays are (channel, x, y, z) and the axes 0, 1, 2 are drawn.
        axes = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]]) if self.conformant else np.eye(3, dtype=int)
        mirrored: Array = axes[hit].sum(axis=0) % 2 == 1
        return mirrored

    def _check_size(self, size: Sequence[int]) -> None:
        """Refuse, in conformant mode, a volume in which the published sizes can't be drawn."""
        needs = {"shuffle": 10, "paint_inside": 8, "paint_outside": 14}
        wanted = max((edge for name, edge in needs.items() if self._draws(name)), default=1)
        if self.conformant and min(size) < wanted:
            raise MethodError(
                f"conformant Models Genesis needs edges of at least {wanted} voxels, got {tuple(size)}; "
                "choose larger wholes, or conformant=False, which shrinks blocks and margins to fit"
            )

    def _draws(self, transform: str) -> bool:
        share = {"paint_inside": 1 - self.outside_rate, "paint_outside": self.outside_rate}
        if self.alone is not None:
            return self.alone == transform and self._rate(transform.partition("_")[0]) > 0
        return self._rate(transform.partition("_")[0]) > 0 and share.get(transform, 1.0) > 0


def spoil(volumes: Tensor, spoiling: Spoiling) -> Tensor:
    """Shuffle, bend and paint (already flipped) volumes (B, C, D, H, W) as drawn."""
    x = volumes.clone()
    # One volume at a time, in place: a CPU spends more time on fresh memory for a batch than on the work.
    for row, blocks in zip(spoiling.shuffled, spoiling.blocks, strict=True):
        x[row] = shuffle_blocks(x[row][None], [blocks])[0]
    curves = solve_curves(spoiling.controls, spoiling.falling)
    for row, curve in zip(spoiling.bent, curves, strict=True):
        x[row] = look_up(x[row], curve)
    for number, (row, noise) in enumerate(zip(spoiling.painted, spoiling.noise, strict=True)):
        windows, outside = spoiling.windows[number], spoiling.outside[number, None]
        x[row] = paint(x[row][None], windows, noise[None], outside=outside)[0]
    return x


def leading(happened: Array) -> int:
    """How many happened before the first that didn't."""
    return int(np.logical_and.accumulate(happened).sum())


def draw_blocks(random: np.random.Generator, edges: Array, blocks: int) -> Blocks:
    """Blocks of 1 to edge/10 voxels, each with a random order of its voxels.

    They are sorted by their number of voxels, so that orders of equal length are drawn at once, and then
    numbered at random: the same as drawing one after the other.
    """
    most = np.maximum(edges // 10, 1)
    size = 1 + (random.random((blocks, 3)) * most).astype(np.int64)
    count = size[:, 0] * size[:, 1] * size[:, 2]
    size = size[np.argsort(count.astype(np.min_scalar_type(count.max())), kind="stable")]
    order = np.empty(int(count.sum()), dtype=np.int64)
    done = 0
    times = np.bincount(count)
    for voxels in np.flatnonzero(times):
        equal = order[done : done + voxels * times[voxels]].reshape(-1, voxels)
        equal[:] = np.arange(voxels)
        random.permuted(equal, axis=1, out=equal)
        done += equal.size
    start = (random.random((blocks, 3)) * (edges - size + 1)).astype(np.int64)
    return Blocks(start, size, number=random.permutation(blocks), order=order)


def draw_windows(random: np.random.Generator, edges: Array, *, outside: bool) -> tuple[Array, Array]:
    """Start and size (both (5, 3) voxels) of the windows to paint inside, or ``outside``, of."""
    more = leading(random.random(WINDOWS) < GOES_ON)
    if outside:
        cut = random.integers(3 * edges // 7, 4 * edges // 7, (WINDOWS, 3), endpoint=True)
        size, used = edges - cut, 1 + min(more, WINDOWS - 1)
    else:
        least = np.maximum(edges // 6, 1)
        size, used = random.integers(least, np.maximum(edges // 3, least), (WINDOWS, 3), endpoint=True), more
    margin = np.minimum(MARGIN, (edges - size) // 2)
    start = random.integers(margin, edges - size - margin, endpoint=True)
    size[used:] = 0
    return start, size
